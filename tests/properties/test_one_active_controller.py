"""Under any events in any order, one controller for each class keeps the promises.

A machine of small rules acts as users, the scheduler, kubelets, the network, crashes and stale watches. The requests of
the controllers are served one by one in any order. After every step: never two live pods of one VM, no incarnation
decreases, no foreign object is changed. In the end faults stop, and every object settles as its spec asks.

`make test` plays the same few hundred steps each time. `HYPOTHESIS_PROFILE=long` plays new ones for some minutes, and
stores failures in `.hypothesis`, from where the next run starts.
"""

from __future__ import annotations

import os
from typing import Any, Final

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.database import DirectoryBasedExampleDatabase
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from controller.domain import names
from controller.domain.objects import VirtualMachine
from controller.domain.resources import MIGRATIONS, VIRTUAL_MACHINES
from controller.domain.vm import launcher
from controller.kube import errors
from controller.kube.kinds import Pod
from controller.kube.resources import NODES, PODS
from controller.kube.times import parse_timestamp
from controller.reconcilers.vm.expectations import CLOCK_SKEW
from tests.model.faults import Fault
from tests.model.rules import Document
from tests.properties.world import FINALIZER, World

LONG: Final = os.environ.get("HYPOTHESIS_PROFILE") == "long"
BLUE: Final = "blue"
VM: Final = st.sampled_from(["vm-1", "vm-1", "vm-1", "vm-2"])
NODE: Final = st.sampled_from(["node-1", "node-2", "node-3"])
MIGRATION: Final = st.sampled_from(["m-1", "m-2", "m-3"])
PROCESS: Final = st.integers(0, 1)
KIND: Final = st.sampled_from([VIRTUAL_MACHINES.plural, PODS.plural, NODES.plural, MIGRATIONS.plural])
ANY: Final = st.integers(0, 5)
"""An index of an existing object, modulo their number."""
CPU: Final = st.sampled_from(["0.10", "0.20", "0.60", "plenty"])
CLASS: Final = st.sampled_from([None, BLUE])
RATIO: Final = st.sampled_from([None, "0.30", "0.40", "a lot"])

REFUSALS: Final = st.sampled_from(
    [
        errors.TransportError("the connection was reset"),
        errors.ServerError(500, "InternalError", "etcdserver: request timed out"),
        errors.ForbiddenError(403, "Forbidden", "exceeded quota"),
        errors.ConflictError(409, "Conflict", "the object has been modified"),
        errors.TooManyRequestsError(429, "TooManyRequests", "slow down", retry_after=1.0),
    ]
)
LOST: Final = errors.TransportError("the reply was lost")


def a_vm(machine: Machine) -> bool:
    """Whether there is a VM."""
    return bool(machine.world.keys(VIRTUAL_MACHINES.plural))


def a_pod(machine: Machine) -> bool:
    """Whether there is a pod."""
    return bool(machine.world.keys(PODS.plural))


class Machine(RuleBasedStateMachine):
    """Two VMs, one of them busier, three nodes, and a controller; in some runs another one for blue VMs."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(None)
        self.cluster = self.world.cluster
        self.read = 0
        self.incarnations: dict[str, int] = {}
        self.cluster.add_node("node-1")

    @initialize(running=st.sampled_from([None, False, True]), blue=st.sampled_from([False, False, True]))
    def begin(self, running: bool | None, blue: bool) -> None:  # noqa: FBT001 - hypothesis names it
        """Begin without a VM, or with one that was created an hour ago."""
        if blue:
            self.world.add(BLUE)
        if running is not None:
            self.cluster.apply_vm("vm-1", running=running)
            self.world.settle()
            self.cluster.pass_time(3600)
            self.cluster.add_node("node-2")

    def teardown(self) -> None:
        """Settle, judge, and end the loop."""
        try:
            self.world.settle()
            self.world.judge()
            self.check()
        finally:
            self.world.close()

    # --- users -----------------------------------------------------------------------------------------------

    @rule(name=VM, running=st.booleans(), cpu=CPU)
    def apply(self, name: str, running: bool, cpu: str) -> None:  # noqa: FBT001 - hypothesis names it
        """Create, start, stop or change a VM."""
        self.cluster.apply_vm(name, running=running, cpu=cpu)

    @precondition(a_vm)
    @rule(which=ANY)
    def delete_vm(self, which: int) -> None:
        """Delete a VM."""
        self.cluster.remove(VIRTUAL_MACHINES, f"default/{self._vm(which)}")

    @precondition(a_vm)
    @rule(which=ANY, finalizer=st.sampled_from(["foregroundDeletion", "orphan", FINALIZER]))
    def begin_to_delete_vm(self, which: int, finalizer: str) -> None:
        """Delete a VM in the foreground, by orphaning, or with a finalizer that is never removed."""
        name = self._vm(which)
        if "deletionTimestamp" not in self.cluster.vm(name)["metadata"]:
            changes = {"deletionTimestamp": "2026-01-15T10:00:00Z", "finalizers": [finalizer]}
            self.cluster.edit(VIRTUAL_MACHINES, f"default/{name}", **changes)

    @precondition(lambda self: a_vm(self) and len(self.world.processes) > 1)
    @rule(which=ANY, of_class=CLASS)
    def hand_over(self, which: int, of_class: str | None) -> None:
        """Change a VM's class."""
        name = self._vm(which)
        if self.cluster.live(self.cluster.vm(name)["metadata"]["uid"]) and "incarnation" not in self.cluster.status(
            name
        ):
            return  # the new class would see an empty status, and none of the pods
        if self._is_new(name):
            return  # the new class cannot know that the old one may create a pod for it
        labels = {} if of_class is None else {names.CONTROLLER_CLASS: of_class}
        self.cluster.edit(VIRTUAL_MACHINES, f"default/{name}", labels=labels)

    @precondition(a_vm)
    @rule(which=ANY, ratio=RATIO)
    def annotate_vm(self, which: int, ratio: str | None) -> None:
        """Change a VM's consumption."""
        annotations = {} if ratio is None else {names.CPU_CONSUMPTION: ratio}
        self.cluster.edit(VIRTUAL_MACHINES, f"default/{self._vm(which)}", annotations=annotations)

    @precondition(a_vm)
    @rule(which=ANY, change=st.sampled_from(["wiped", "Running", "Stopped", "Failed", "podUID", "migration"]))
    def edit_status(self, which: int, change: str) -> None:
        """Edit a VM's status by hand."""
        name = self._vm(which)
        if change in ("wiped", "podUID") and (self._hides_a_pod(name) or self._create_expected()):
            return  # a user who also removes the record of a hidden or expected pod has orphaned that pod
        if change in ("wiped", "migration") and self._binds_a_pod(name):
            return  # a target without a node stays bound by the removed claim
        found = {key: value for key, value in self.cluster.status(name).items() if key != change}
        if change == "wiped":
            found = {"phase": "Pending"}
        elif change in ("Running", "Stopped", "Failed"):
            found["phase"] = change
        self.cluster.set_status(VIRTUAL_MACHINES, f"default/{name}", found)
        self.check()
        # After a wiped status the incarnation may restart.
        self.incarnations.pop(self.cluster.vm(name)["metadata"]["uid"], None)

    @rule(name=MIGRATION, vm=VM, node=st.none() | NODE)
    def migrate(self, name: str, vm: str, node: str | None) -> None:
        """Create a migration."""
        if (MIGRATIONS.plural, f"default/{name}") not in self.cluster.objects:
            target = {} if node is None else {"targetNode": node}
            self.cluster.migrate(name, vm=vm, unschedulableTimeoutSeconds=20, completionTimeoutSeconds=60, **target)

    @rule(name=MIGRATION)
    def cancel(self, name: str) -> None:
        """Cancel a migration."""
        if (MIGRATIONS.plural, f"default/{name}") in self.cluster.objects:
            document = self.cluster.objects[MIGRATIONS.plural, f"default/{name}"]
            self.cluster.store(MIGRATIONS.plural, {**document, "spec": {**document["spec"], "cancel": True}})

    @rule(name=MIGRATION)
    def delete_migration(self, name: str) -> None:
        """Delete a migration."""
        self._drop(MIGRATIONS, f"default/{name}")

    @precondition(a_pod)
    @rule(which=ANY, edit=st.sampled_from(["labels", "ownerReferences", "annotations"]))
    def edit_pod(self, which: int, edit: str) -> None:
        """Remove a part of a pod's metadata by hand; labels only of a pod that a status records."""
        if edit == "labels" and self._pod(which) not in self._recorded():
            return
        self.cluster.edit(PODS, f"default/{self._pod(which)}", **{edit: [] if edit == "ownerReferences" else {}})

    # --- nodes, the scheduler and kubelets -------------------------------------------------------------------

    @rule(name=NODE)
    def add_node(self, name: str) -> None:
        """Add a node."""
        if (NODES.plural, f"/{name}") not in self.cluster.objects:
            self.cluster.add_node(name)

    @rule(name=NODE, unschedulable=st.booleans())
    def cordon(self, name: str, unschedulable: bool) -> None:  # noqa: FBT001 - hypothesis names it
        """Cordon or uncordon a node."""
        if (NODES.plural, f"/{name}") in self.cluster.objects:
            self.cluster.cordon(name, unschedulable=unschedulable)

    @rule(name=NODE)
    def delete_node(self, name: str) -> None:
        """Delete a node."""
        self._drop(NODES, f"/{name}")

    @rule()
    def schedule(self) -> None:
        """Bind and run pending pods."""
        self.cluster.run_pods()

    @rule()
    def finish_deletions(self) -> None:
        """Finish the deletion of terminating objects."""
        self.cluster.finish_deletions()
        self.world.collect_garbage()

    @precondition(a_pod)
    @rule(which=ANY)
    def delete_pod(self, which: int) -> None:
        """Delete a pod."""
        self.cluster.edit(PODS, f"default/{self._pod(which)}", deletionTimestamp="2026-01-15T10:00:00Z")

    @precondition(a_pod)
    @rule(which=ANY)
    def remove_pod(self, which: int) -> None:
        """Delete a pod at once."""
        self.cluster.remove(PODS, f"default/{self._pod(which)}")

    @precondition(a_pod)
    @rule(which=ANY)
    def evict(self, which: int) -> None:
        """Evict a pod."""
        self.cluster.evict(self._pod(which))

    @precondition(a_pod)
    @rule(which=ANY, phase=st.sampled_from(["Failed", "Succeeded"]))
    def end_pod(self, which: int, phase: str) -> None:
        """Let a pod end."""
        self.cluster.set_status(PODS, f"default/{self._pod(which)}", {"phase": phase})

    # --- time, the network, processes ------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([1, 5, 10, 60, 600]))
    def pass_time(self, seconds: int) -> None:
        """Let time pass."""
        self.cluster.pass_time(seconds)

    @rule(method=st.sampled_from(["create", "patch", "delete"]), kind=KIND, error=REFUSALS)
    def refuse_a_write(self, method: str, kind: str, error: errors.KubeError) -> None:
        """Refuse the next write of a kind."""
        self.cluster.faults.append(Fault(method, kind, error, commit=False))

    @rule(method=st.sampled_from(["create", "patch", "delete"]), kind=KIND)
    def lose_a_reply(self, method: str, kind: str) -> None:
        """Carry the next write of a kind out, and lose the reply."""
        self.cluster.faults.append(Fault(method, kind, LOST))

    @rule(method=st.sampled_from(["create", "patch", "delete"]), kind=KIND, late=st.sampled_from([1, 5, 10]))
    def delay_a_write(self, method: str, kind: str, late: int) -> None:
        """Carry the next write of a kind out seconds after its sender gave up."""
        self.cluster.faults.append(Fault(method, kind, LOST, late=late))

    @rule(number=PROCESS, kind=KIND, count=st.integers(1, 3))
    def show(self, number: int, kind: str, count: int) -> None:
        """Let one watch of one process show its next events, and no other."""
        self.world.processes[self._of(number)].deliver_some(kind, count)

    @rule(number=PROCESS, withhold=st.none() | KIND)
    def show_all(self, number: int, withhold: str | None) -> None:
        """Let all watches of a process catch up, perhaps but for one."""
        self.world.processes[self._of(number)].deliver(withhold=withhold)

    @rule(number=PROCESS, name=VM, queue=st.sampled_from(["vms", "migrations"]))
    def work(self, number: int, name: str, queue: str) -> None:
        """Begin a reconcile of a key, queued or not."""
        self.world.work(self._of(number), queue, f"default/{name}")

    @precondition(lambda self: self.world.waiting)
    @rule(which=ANY)
    def let_in(self, which: int) -> None:
        """Serve one request."""
        self.world.let_in(which % len(self.world.waiting))

    @rule(number=PROCESS)
    def round(self, number: int) -> None:
        """Let a process see all changes, and reconcile all its keys."""
        self.world.round(self._of(number))

    @rule(number=PROCESS)
    def settle_down(self, number: int) -> None:
        """Run a process and the cluster for some calm rounds."""
        for _ in range(4):
            self.world.round(self._of(number))
            self.cluster.run_pods()
            self.cluster.finish_deletions()

    @precondition(lambda self: self.world.waiting)
    @rule(which=ANY)
    def let_in_and_go_on(self, which: int) -> None:
        """Serve one request, and all that follow it."""
        self.world.let_in(which % len(self.world.waiting))
        self.world.finish()

    @rule(number=PROCESS, name=VM)
    def look(self, number: int, name: str) -> None:
        """Let a process see all changes, and begin a reconcile of a VM."""
        self.world.processes[self._of(number)].deliver()
        self.world.work(self._of(number), "vms", f"default/{name}")

    @precondition(a_pod)
    @rule(which=ANY, number=PROCESS)
    def lose_a_pod(self, which: int, number: int) -> None:
        """Delete a pod at once, and let a process act on it."""
        self.cluster.remove(PODS, f"default/{self._pod(which)}")
        self.world.round(self._of(number))

    @rule(number=PROCESS, fate=st.sampled_from(["dropped", "carried out", "late"]))
    def crash(self, number: int, fate: str) -> None:
        """Kill a process and start another."""
        self.world.crash(self._of(number), fate)

    # --- invariants ------------------------------------------------------------------------------------------

    @invariant()
    def check(self) -> None:
        """Check the promises that hold at every moment."""
        assert self.cluster.violations == []
        assert self.cluster.touched == []
        for plural, document, _ in self.cluster.log[self.read :]:
            if plural == VIRTUAL_MACHINES.plural:
                self._see(document)
        self.read = len(self.cluster.log)

    def _see(self, vm: Document) -> None:
        uid = vm["metadata"]["uid"]
        incarnation = vm["status"].get("incarnation")
        before = self.incarnations.get(uid, 0)
        if incarnation is not None:
            assert incarnation >= before
            self.incarnations[uid] = incarnation

    # --- inside ----------------------------------------------------------------------------------------------

    def _of(self, number: int) -> int:
        return number % len(self.world.processes)

    def _drop(self, resource: Any, key: str) -> None:
        if (resource.plural, key) in self.cluster.objects:
            self.cluster.remove(resource, key)

    def _vm(self, which: int) -> str:
        found = self.world.keys(VIRTUAL_MACHINES.plural)
        return found[which % len(found)]

    def _recorded(self) -> set[str]:
        """Return the pods that statuses record."""
        vms = [self.cluster.vm(name) for name in self.world.keys(VIRTUAL_MACHINES.plural)]
        return {vm["status"]["podName"] for vm in vms if "podUID" in vm["status"]}

    def _create_expected(self) -> bool:
        """Whether a create may still commit."""
        return bool(self.cluster.late) or bool(self.world.waiting)

    def _is_new(self, name: str) -> bool:
        """Whether a VM is so young that a controller which first sees it considers it new."""
        vm = self.cluster.vm(name)
        created = parse_timestamp(vm["metadata"]["creationTimestamp"])
        return "incarnation" not in vm["status"] and created is not None and created >= self.cluster.now - CLOCK_SKEW

    def _hides_a_pod(self, name: str) -> bool:
        """Whether a VM has a pod that its controller's watch does not show."""
        vm = msgspec.convert(self.cluster.vm(name), VirtualMachine)
        owned = [msgspec.convert(pod, Pod) for pod in self.cluster.live(vm.metadata.uid)]
        selecting = {names.VM_LABEL, names.CONTROLLER_CLASS}
        return any(selecting & launcher.label_changes(vm, pod).keys() for pod in owned)

    def _binds_a_pod(self, name: str) -> bool:
        """Whether a migration's claim constrains a pod that has no node yet."""
        pods = self.cluster.live(self.cluster.vm(name)["metadata"]["uid"])
        return "migration" in self.cluster.status(name) and any("nodeName" not in pod["spec"] for pod in pods)

    def _pod(self, which: int) -> str:
        found = self.world.keys(PODS.plural)
        return found[which % len(found)]


TestMachine = Machine.TestCase
TestMachine.settings = settings(
    max_examples=5000 if LONG else 150,
    stateful_step_count=80 if LONG else 50,
    deadline=None,
    report_multiple_bugs=False,
    derandomize=not LONG,
    database=DirectoryBasedExampleDatabase(".hypothesis/examples") if LONG else None,
    suppress_health_check=list(HealthCheck),
)
