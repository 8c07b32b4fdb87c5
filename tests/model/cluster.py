"""A cluster of VMs: the API server with users, the scheduler and the kubelets, which act when the test calls them.

Guarantees: it judges the live pods of each VM at every version (`controller.observe.ends`), and records each write of
a controller to a pod that no VM controls.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from controller.domain import ownership
from controller.domain.objects import VirtualMachine, VirtualMachineMigration
from controller.domain.resources import MIGRATIONS, VIRTUAL_MACHINES
from controller.kube.kinds import Pod
from controller.kube.resources import NODES, PODS
from controller.kube.times import timestamp
from controller.observe.ends import Breach, Ends
from controller.observe.history import seen
from tests.model import rules
from tests.model.rules import Document
from tests.model.server import ApiServer
from tests.model.store import decode

_JUDGED: Final[dict[str, type[Any]]] = {
    VIRTUAL_MACHINES.plural: VirtualMachine,
    PODS.plural: Pod,
    MIGRATIONS.plural: VirtualMachineMigration,
}


@dataclass(repr=False)
class Cluster(ApiServer):
    """One API server with its users, scheduler and kubelets. Every namespaced object is in `default`."""

    touched: list[str] = field(default_factory=list)
    """Writes of a controller to a pod that no VM controls."""
    unfit: set[str] = field(default_factory=set)
    """Nodes that the scheduler does not choose."""
    _ends: Ends = field(default_factory=Ends)
    _judged: int = 0
    """The number of changes in `log` that `_ends` has seen."""
    _breaches: list[Breach] = field(default_factory=list)
    _edited: set[int] = field(default_factory=set)
    """The revisions at which a test edited the status of a VM by hand."""
    _by_client: bool = False
    """Whether the next change is a client's."""

    # --- users ----------------------------------------------------------------------------------------------

    def apply_vm(
        self, name: str = "vm-1", *, running: bool = True, cpu: str = "0.10", memory: str = "0.15"
    ) -> Document:
        """Create or change a VM."""
        key = (VIRTUAL_MACHINES.plural, f"default/{name}")
        spec = {"resources": {"cpu": cpu, "memory": memory}, "running": running}
        if key in self.objects:
            return self.store(VIRTUAL_MACHINES.plural, {**self.objects[key], "spec": spec})
        metadata = {"name": name, "namespace": "default"}
        return self.add(VIRTUAL_MACHINES.plural, {"metadata": metadata, "spec": spec, "status": {"phase": "Pending"}})

    def migrate(self, name: str = "m-1", *, vm: str = "vm-1", **spec: Any) -> Document:
        """Create a migration."""
        metadata = {"name": name, "namespace": "default"}
        body = {"metadata": metadata, "spec": {"vmName": vm, **spec}, "status": {"phase": "Pending"}}
        return self.add(MIGRATIONS.plural, body)

    def add_node(self, name: str = "node-1") -> None:
        """Create a node for fake VMs."""
        metadata = {"name": name, "namespace": "", "labels": {"type": "kwok"}}
        status = {"allocatable": {"cpu": "32", "memory": "256Gi", "pods": "110"}}
        self.add(NODES.plural, {"metadata": metadata, "spec": {}, "status": status})

    def crowd(self, node: str) -> Document:
        """Bind a foreign pod that takes nearly all of a node."""
        foreign = {
            "metadata": {"name": "stranger", "namespace": "other"},
            "spec": {"nodeName": node, "containers": [{"resources": {"requests": {"cpu": "31", "memory": "1Gi"}}}]},
            "status": {"phase": "Running"},
        }
        return self.add(PODS.plural, foreign)

    def report(self, name: str, ready: str) -> None:
        """Set the status of a node's condition Ready: True, False or Unknown."""
        node = self.objects[NODES.plural, f"/{name}"]
        conditions = [{"type": "Ready", "status": ready, "reason": "" if ready == "True" else "NodeStatusUnknown"}]
        self.store(NODES.plural, {**node, "status": {**node["status"], "conditions": conditions}})

    def taint(self, name: str, key: str) -> None:
        """Taint a node."""
        node = self.objects[NODES.plural, f"/{name}"]
        taints = [{"key": key, "effect": "NoExecute"}]
        self.store(NODES.plural, {**node, "spec": {**node["spec"], "taints": taints}})

    def cordon(self, name: str, *, unschedulable: bool = True) -> None:
        """Cordon a node, or uncordon it."""
        node = self.objects[NODES.plural, f"/{name}"]
        self.store(NODES.plural, {**node, "spec": {**node["spec"], "unschedulable": unschedulable}})

    def evict(self, name: str, reason: str = "EvictionByEvictionAPI") -> None:
        """Evict a pod, as the API server does: first the condition, then the deletion."""
        pod = self.objects[PODS.plural, f"default/{name}"]
        disrupted = {"type": "DisruptionTarget", "status": "True", "reason": reason}
        conditions = [*pod["status"].get("conditions", []), disrupted]
        pod = self.store(PODS.plural, {**pod, "status": {**pod["status"], "conditions": conditions}})
        self.terminate(PODS.plural, pod, rules.grace_of(PODS.plural, pod, None))

    # --- scheduler and kubelets -----------------------------------------------------------------------------

    def choice(self, pod: Document) -> str | None:
        """Return the node that the scheduler chooses for a pod, the newest on which it fits; None if there is none."""
        affinity = pod["spec"].get("affinity", {}).get("nodeAffinity", {})
        terms = affinity.get("requiredDuringSchedulingIgnoredDuringExecution", {}).get("nodeSelectorTerms", [{}])
        fields = terms[0].get("matchFields", [])
        for (plural, _), node in reversed(self.objects.items()):
            if plural != NODES.plural:
                continue
            name = node["metadata"]["name"]
            matches = all((name in field["values"]) == (field["operator"] == "In") for field in fields)
            if matches and not node["spec"].get("unschedulable") and name not in self.unfit:
                return str(name)
        return None

    def bind_pods(self) -> None:
        """Bind every pending pod to a node on which it fits; do not run it."""
        for pod in self.pods():
            if pod["status"]["phase"] == "Pending" and (node := self.choice(pod)) is not None:
                conditions = [{"type": "PodScheduled", "status": "True", "lastTransitionTime": timestamp(self.now)}]
                bound = {**pod["status"], "conditions": conditions}
                self.store(PODS.plural, {**pod, "spec": {**pod["spec"], "nodeName": node}, "status": bound})

    def run_pods(self, *, bind_first: bool = False) -> None:
        """Bind every pending pod to a node on which it fits and run it; mark the others as unschedulable.

        With `bind_first` a pod is only bound at first, and runs at the next call.
        """
        for pod in self.pods():
            if pod["status"]["phase"] == "Pending" and "deletionTimestamp" not in pod["metadata"]:
                bound = pod["spec"].get("nodeName")
                node = bound or self.choice(pod)
                if node is None:
                    self._put_off(pod)
                elif (NODES.plural, f"/{node}") in self.objects:
                    self._start(pod, node, runs=bound is not None or not bind_first)

    def _put_off(self, pod: Document) -> None:
        """Mark a pod as unschedulable."""
        unfit = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no node"}
        waiting = {**pod["status"], "conditions": [unfit]}
        if waiting != pod["status"]:
            self.store(PODS.plural, {**pod, "status": waiting})

    def _start(self, pod: Document, node: str, *, runs: bool) -> None:
        """Bind a pod to a node, or run it there."""
        stamp = timestamp(self.now)
        true = ("PodScheduled", "Ready") if runs else ("PodScheduled",)
        conditions = [{"type": kind, "status": "True", "lastTransitionTime": stamp} for kind in true]
        status = {"phase": "Running", "startTime": stamp} if runs else pod["status"]
        changes = {"spec": {**pod["spec"], "nodeName": node}, "status": {**status, "conditions": conditions}}
        self.store(PODS.plural, {**pod, **changes})

    def finish_deletions(self) -> None:
        """Have the kubelets finish terminating pods; a node that no longer exists has no kubelet."""
        for pod in self.pods():
            node = pod["spec"].get("nodeName")
            terminating = "deletionTimestamp" in pod["metadata"] and not pod["metadata"].get("finalizers")
            if terminating and (node is None or (NODES.plural, f"/{node}") in self.objects):
                self.discard(PODS.plural, pod)

    # --- reads by a test ------------------------------------------------------------------------------------

    def vm(self, name: str = "vm-1") -> Document:
        """Return one VM."""
        return self.objects[VIRTUAL_MACHINES.plural, f"default/{name}"]

    def status(self, name: str = "vm-1") -> Document:
        """Return one VM's status."""
        status: Document = self.vm(name)["status"]
        return status

    def migration(self, name: str = "m-1") -> Document:
        """Return one migration's status."""
        status: Document = self.objects[MIGRATIONS.plural, f"default/{name}"]["status"]
        return status

    def pods(self) -> list[Document]:
        """Return every pod."""
        return self.of(PODS)

    def live(self, vm_uid: str | None = None) -> list[Document]:
        """Return every live pod that a VM controls."""
        return [
            pod
            for pod in self.pods()
            if pod["status"]["phase"] not in ("Succeeded", "Failed")
            and any(vm_uid in (None, owner["uid"]) for owner in pod["metadata"].get("ownerReferences", ()))
        ]

    # --- records ---------------------------------------------------------------------------------------------

    @property
    def violations(self) -> list[str]:
        """Each breach of what holds about the live pods of a VM, so far."""
        return [f"revision {breach.revision}: {breach.what}" for breach in self.breaches]

    @property
    def breaches(self) -> list[Breach]:
        """The violations, each with its clause."""
        for plural, document, deleted in self.log[self._judged :]:
            if plural in _JUDGED:
                event = seen(decode(document, _JUDGED[plural]), at=0, deleted=deleted)
                by_hand = int(document["metadata"]["resourceVersion"]) in self._edited
                self._breaches += self._ends.see(event, by_hand=by_hand)
        self._judged = len(self.log)
        return self._breaches

    def _changed(self, plural: str, before: Document | None, document: Document, *, deleted: bool) -> None:
        super()._changed(plural, before, document, deleted=deleted)
        by_client, self._by_client = self._by_client, False
        if plural != VIRTUAL_MACHINES.plural or before is None or by_client:
            return
        if before.get("status") != document.get("status"):
            self._edited.add(self.revision)

    def _written(self, method: str, plural: str, document: Document) -> None:
        super()._written(method, plural, document)
        self._by_client = True
        if plural == PODS.plural and method != "create" and ownership.owner(decode(document, Pod)) is None:
            self.touched.append(f"{method} pods {rules.key_of(document)}")
