"""A VM's placement fields, through the real scheduler."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.integration.tools import Controller, Kubectl, eventually, vm_manifest

NODES = ("kwok-node-1", "kwok-node-2", "kwok-node-3")
HOSTNAME = "kubernetes.io/hostname"
ZONE = "topology.kubernetes.io/zone"
SIZE = {"resources": {"cpu": "0.10", "memory": "0.10"}}


@pytest.fixture(autouse=True)
def _zones(kubectl: Kubectl, controller: Controller, clean: None) -> Iterator[None]:  # noqa: ARG001 - order
    """Give the nodes zones: a, b, b."""
    for node, zone in zip(NODES, "abb", strict=True):
        kubectl("label", "node", node, f"{ZONE}={zone}", "--overwrite")
    yield
    kubectl("label", "node", *NODES, f"{ZONE}-")


def apply(kubectl: Kubectl, *names: str, labels: dict[str, str] | None = None, **spec: Any) -> None:
    """Apply VMs of one spec."""
    items = [vm_manifest(name, {**SIZE, **spec}, labels=labels or {}) for name in names]
    kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))


def node_of(kubectl: Kubectl, name: str) -> str:
    """Wait until a VM runs; return its node."""
    found: str = kubectl.wait_phase(name, "Running")["status"]["nodeName"]
    return found


def reason(kubectl: Kubectl, name: str, wanted: str) -> str:
    """Wait until a VM's Ready has a reason; return its message."""
    vm = kubectl.wait_vm(name, lambda vm: (vm["status"].get("conditions") or [{}])[0].get("reason") == wanted)
    message: str = vm["status"]["conditions"][0]["message"]
    return message


def required(*terms: list[dict[str, Any]], fields: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """A required node affinity; `fields` are ANDed into its first term."""
    found: list[dict[str, Any]] = [{"matchExpressions": term} for term in terms]
    if fields is not None:
        found[0]["matchFields"] = fields
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": found}}}


def within(key: str, *values: str) -> dict[str, Any]:
    """A label that a node must have, with one of some values."""
    return {"key": key, "operator": "In", "values": list(values)}


def migrated(kubectl: Kubectl, vm: str, **spec: Any) -> Any:
    """Migrate a VM; return the migration's status at its end."""
    kubectl(
        *("create", "-f", "-"),
        stdin=json.dumps(
            {
                "apiVersion": "simulation.node-classifier.io/v1alpha1",
                "kind": "VirtualMachineMigration",
                "metadata": {"name": f"move-{vm}"},
                "spec": {"vmName": vm, **spec},
            }
        ),
    )
    text = kubectl.eventually(
        *("get", "vmm", f"move-{vm}", "-o", "json"),
        until=lambda text: json.loads(text)["status"]["phase"] in ("Succeeded", "Failed"),
    )
    return json.loads(text)["status"]


def test_vms_are_spread_over_zones_by_their_own_label(kubectl: Kubectl) -> None:
    """The constraint selects pods, so the VM's label has to reach its pod."""
    spread = {
        "maxSkew": 1,
        "topologyKey": ZONE,
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "web"}},
    }
    names = [f"web-{number}" for number in range(4)]
    apply(kubectl, *names, labels={"app": "web"}, topologySpreadConstraints=[spread])
    zones = Counter("a" if node_of(kubectl, name) == NODES[0] else "b" for name in names)
    assert zones == {"a": 2, "b": 2}


def test_vms_that_repel_each_other_share_no_node(kubectl: Kubectl) -> None:
    """One more than there are nodes has none."""
    apart = {
        "podAntiAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [
                {"topologyKey": HOSTNAME, "labelSelector": {"matchLabels": {"app": "db"}}}
            ]
        }
    }
    names = [f"db-{number}" for number in range(len(NODES))]
    apply(kubectl, *names, labels={"app": "db"}, affinity=apart)
    assert {node_of(kubectl, name) for name in names} == set(NODES)
    apply(kubectl, "db-more", labels={"app": "db"}, affinity=apart)
    assert "anti-affinity" in reason(kubectl, "db-more", "Unschedulable")


def test_no_term_of_a_vm_loosens_what_the_installation_demands(kubectl: Kubectl) -> None:
    """A node without the installation's label is used by no VM, although one of the VM's terms matches it."""
    kubectl("label", "node", NODES[0], "type=real", "--overwrite")
    try:
        apply(kubectl, "vm-1", affinity=required([within(ZONE, "a")], [within(ZONE, "b")]))
        apply(kubectl, "vm-2", affinity=required([within(ZONE, "a")]))
        assert node_of(kubectl, "vm-1") != NODES[0]
        assert "didn't match Pod's node affinity/selector" in reason(kubectl, "vm-2", "Unschedulable")
    finally:
        kubectl("label", "node", NODES[0], "type=kwok", "--overwrite")


def test_no_term_of_a_vm_brings_it_back_to_the_node_that_a_migration_leaves(kubectl: Kubectl) -> None:
    """Of the two nodes that the VM's terms name, the other one is left; then the added selector leaves none."""
    terms = ([within(HOSTNAME, NODES[0])], [within(HOSTNAME, NODES[1])])
    apply(kubectl, "vm-1", affinity=required(*terms))
    source = node_of(kubectl, "vm-1")
    status = migrated(kubectl, "vm-1")
    assert (status["phase"], {source, status["targetNode"]}) == ("Succeeded", set(NODES[:2]))
    apply(kubectl, "vm-2", affinity=required(*terms), nodeSelector={ZONE: "a"})
    assert node_of(kubectl, "vm-2") == NODES[0]
    refused = migrated(kubectl, "vm-2", addedNodeSelector={HOSTNAME: NODES[1]})
    assert (refused["phase"], refused["failureReason"]) == ("Failed", "NoSuitableNode")


def test_a_vm_that_contradicts_its_installation_gets_no_pod_until_it_is_corrected(kubectl: Kubectl) -> None:
    """The reason names the key and both values."""
    apply(kubectl, "vm-1", nodeSelector={"type": "metal"})
    message = reason(kubectl, "vm-1", "InvalidSpec")
    assert "type=metal" in message
    assert "type=kwok" in message
    assert kubectl("get", "pods", "-o", "name") == ""
    apply(kubectl, "vm-1", nodeSelector={"type": "kwok"})
    node_of(kubectl, "vm-1")


def test_a_cordoned_node_is_used_by_a_vm_that_tolerates_it(kubectl: Kubectl) -> None:
    """As the scheduler has it: the taint is tolerated, so a migration finds room there, too."""
    kubectl("cordon", NODES[1])
    try:
        unschedulable = {"key": "node.kubernetes.io/unschedulable", "operator": "Exists", "effect": "NoSchedule"}
        apply(kubectl, "vm-1", affinity=required([within(HOSTNAME, *NODES[:2])]), tolerations=[unschedulable])
        source = node_of(kubectl, "vm-1")
        assert {source, migrated(kubectl, "vm-1")["targetNode"]} == set(NODES[:2])
    finally:
        kubectl("uncordon", NODES[1])


def test_a_vm_without_a_scheduler_says_which_one_it_waits_for(kubectl: Kubectl) -> None:
    """After five seconds."""
    apply(kubectl, "vm-1", schedulerName="nobody")
    assert "schedulerName nobody" in reason(kubectl, "vm-1", "NotScheduled")


def test_a_class_that_does_not_exist_is_told_in_the_servers_words(kubectl: Kubectl) -> None:
    """The schema cannot see it."""
    apply(kubectl, "vm-1", priorityClassName="nothing")
    assert "no PriorityClass with name nothing was found" in reason(kubectl, "vm-1", "FailedCreate")


def test_a_vm_of_high_priority_moves_by_preemption_and_its_victim_has_a_record(kubectl: Kubectl) -> None:
    """Two nodes are full. A VM of low priority finds no room; one of high priority takes that of a low one."""
    classes = {"vm-low": 10, "vm-high": 1000}
    kubectl("cordon", NODES[2])
    try:
        for name, value in classes.items():
            kubectl("create", "priorityclass", name, f"--value={value}")
        half = {"resources": {"cpu": "0.45", "memory": "0.10"}}
        apply(kubectl, "high", **half, priorityClassName="vm-high")
        low = [f"low-{number}" for number in range(3)]
        apply(kubectl, *low, **half, priorityClassName="vm-low")
        source, *_ = (node_of(kubectl, name) for name in ("high", *low))
        [target] = set(NODES[:2]) - {source}

        refused = migrated(kubectl, "low-0", unschedulableTimeoutSeconds=1)
        assert (refused["phase"], refused["failureReason"]) == ("Failed", "NoRoom")
        status = migrated(kubectl, "high")
        assert (status["phase"], status["targetNode"]) == ("Succeeded", target)
        words = f"Preflight found room on node {target} by preemption of pods of lower priority"
        assert [each["message"] for each in status["conditions"] if each["type"] == "RoomFound"] == [words]
        kubectl.eventually("describe", "vmm", "move-high", until=lambda text: text.count(words) == 2)

        text = kubectl.eventually("get", "vmm", "-o", "json", until=lambda text: '"Preempted"' in text)
        [record] = [each for each in json.loads(text)["items"] if "recordOf" in each["spec"]]
        assert record["spec"]["reason"] == "Preempted"
        assert record["spec"]["vmName"] in low
        kubectl("wait", f"vmm/{record['metadata']['name']}", "--for=jsonpath={.status.phase}=Succeeded")
        assert node_of(kubectl, record["spec"]["vmName"]) == source
    finally:
        kubectl("uncordon", NODES[2])
        kubectl("delete", "priorityclass", *classes, "--ignore-not-found")


def test_an_edit_holds_from_the_next_start_and_a_hint_at_once(kubectl: Kubectl) -> None:
    """A label of the VM reaches its pod when the pod is made."""
    hint = "descheduler.alpha.kubernetes.io/evict"
    apply(kubectl, "vm-1", labels={"app": "web"})
    node_of(kubectl, "vm-1")
    kubectl("annotate", "vm", "vm-1", f"{hint}=true", "note=later")
    kubectl("patch", "vm", "vm-1", "--type=merge", "-p", json.dumps({"spec": {"nodeSelector": {ZONE: "b"}}}))
    text = kubectl.eventually("get", "pods", "-l", "app=web", "-o", "json", until=lambda text: f'"{hint}"' in text)
    [pod] = json.loads(text)["items"]
    assert "note" not in pod["metadata"]["annotations"]

    def conditions(vm: Any) -> dict[str, Any]:
        return {each["type"]: each for each in vm["status"]["conditions"]}

    vm = kubectl.wait_vm("vm-1", lambda vm: "RestartRequired" in conditions(vm))
    assert conditions(vm)["RestartRequired"]["reason"] == "PlacementChanged"
    migrated(kubectl, "vm-1", addedNodeSelector={ZONE: "b"})
    vm = kubectl.wait_vm("vm-1", lambda vm: "RestartRequired" not in conditions(vm))
    [pod] = kubectl.json("get", "pods", "-l", "app=web")["items"]
    assert pod["metadata"]["annotations"]["note"] == "later"


def test_a_vm_boots_before_it_runs(kubectl: Kubectl, controller: Controller) -> None:
    """It runs so long after its pod has started, which is Ready meanwhile; then it counts on its node."""
    manifest = vm_manifest("vm-1", SIZE, annotations={"simulation.node-classifier.io/boot-time": "3s"})
    kubectl("apply", "-f", "-", stdin=json.dumps(manifest))
    node = node_of(kubectl, "vm-1")
    eventually(lambda: controller.samples("node_vm_count", node=node)[0].value == 1)
    found = kubectl.json("get", "vm", "vm-1")["status"]["conditions"]
    runs = {each["type"]: datetime.fromisoformat(each["lastTransitionTime"]) for each in found}["PhaseRunning"]
    [pod] = kubectl.json("get", "pods")["items"]
    ready = next(each for each in pod["status"]["conditions"] if each["type"] == "Ready")
    assert runs - datetime.fromisoformat(pod["status"]["startTime"]) == timedelta(seconds=3)
    assert runs - datetime.fromisoformat(ready["lastTransitionTime"]) >= timedelta(seconds=2)
