"""Migrations, drains and evictions on a real control plane, with the real kubectl."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from controller.controlplane.plane import ControlPlane
from tests.integration import accounts
from tests.integration.live_pods import LivePods
from tests.integration.tools import Controller, Kubectl, eventually
from tests.integration.vmsim import Vmsim
from tests.plane import install

pytestmark = pytest.mark.timeout(90)


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """Run a control plane of this module's own: tests change its nodes and stop its scheduler."""
    directory = tmp_path_factory.mktemp("migration-plane")
    with ControlPlane(directory / "state", nodes=3, audit_policy=accounts.audit_policy(directory)) as plane:
        install(plane)
        yield plane


@pytest.fixture(scope="module")
def kubectl(plane: ControlPlane) -> Kubectl:
    """Return kubectl for this module's control plane."""
    return Kubectl(plane.kubectl, plane.kubeconfig)


@pytest.fixture(scope="module")
def controller(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controller]:
    """Run one controller for the module."""
    with Controller.start(plane.kubeconfig, tmp_path_factory.mktemp("controller") / "log") as process:
        yield process


@pytest.fixture(autouse=True)
def _initial_state(kubectl: Kubectl, controller: Controller) -> Iterator[None]:
    """Start and end with uncordoned nodes and no VM, and check that no VM has two live pods."""
    assert controller.process.poll() is None
    with LivePods().following(kubectl) as watch:
        yield
        kubectl("delete", "vmm,vm,pod", "--all", "--wait=true")
        kubectl("uncordon", "-l", "type=kwok")
        kubectl.eventually("get", "pods", "-o", "name", until=lambda text: not text)
    assert watch.violations == []


def migration(kubectl: Kubectl, vm: str, name: str = "move", **spec: Any) -> str:
    """Create a migration; return its name."""
    body = {
        "apiVersion": "simulation.node-classifier.io/v1alpha1",
        "kind": "VirtualMachineMigration",
        "metadata": {"name": name, "namespace": kubectl.namespace},
        "spec": {"vmName": vm, **spec},
    }
    kubectl("create", "-f", "-", stdin=json.dumps(body))
    return name


def finished(kubectl: Kubectl, name: str = "move", timeout: float = 30.0) -> Any:
    """Wait until a migration has ended; return its status."""
    text = kubectl.eventually(
        *("get", "vmm", name, "-o", "json"),
        until=lambda text: json.loads(text)["status"]["phase"] in ("Succeeded", "Failed"),
        timeout=timeout,
    )
    return json.loads(text)["status"]


def running(kubectl: Kubectl, name: str, **changes: Any) -> Any:
    """Apply a VM and wait until it runs; return its status."""
    kubectl.apply_vm(name, **changes)
    return kubectl.wait_phase(name, "Running")["status"]


def fill(kubectl: Kubectl, name: str, node: str) -> None:
    """Create a foreign pod on a node; less than half a node stays free."""
    container = {"name": "c", "image": "registry.k8s.io/pause:3.10.1", "resources": {"requests": {"cpu": "20"}}}
    spec = {"nodeName": node, "containers": [container]}
    kubectl(
        *("create", "-f", "-"),
        stdin=json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}),
    )


def unmoved(kubectl: Kubectl, name: str, before: Any) -> None:
    """Check that the VM has its old pod."""
    assert kubectl.json("get", "vm", name)["status"]["podUID"] == before["podUID"]


# --- moving ----------------------------------------------------------------------------------------------------


def test_kubectl_shows_a_migration_as_the_description_does(kubectl: Kubectl) -> None:
    """`kubectl get vm -w`: Running, Scheduling, Running on another node."""
    before = running(kubectl, "my-vm")
    with kubectl.running("get", "vm", "my-vm", "-w") as watch:
        watch.wait_for(lambda lines: len(lines) > 1)  # from here on nothing is missed
        migration(kubectl, "my-vm", reason="rehearsal")
        status = finished(kubectl)
        after = kubectl.wait_phase("my-vm", "Running")["status"]
        lines = watch.wait_for(lambda lines: after["podName"] in lines[-1] and " Running " in lines[-1])
    assert (status["phase"], status["sourceNode"]) == ("Succeeded", before["nodeName"])
    assert after["nodeName"] == status["targetNode"] != before["nodeName"]
    assert 0 < float(status["downtimeSeconds"]) < 10
    phases = [line.split()[1] for line in lines if line.startswith("my-vm")]
    assert "Scheduling" in phases
    row = kubectl("get", "vmm").splitlines()
    assert row[0].split() == ["NAME", "PHASE", "VM", "SOURCE", "TARGET", "REASON", "DOWNTIME", "AGE"]
    assert row[1].split()[:6] == ["move", "Succeeded", "my-vm", before["nodeName"], after["nodeName"], "rehearsal"]
    events = kubectl.eventually("describe", "vmm", "move", until=lambda text: "SuccessfulMigration" in text)
    assert f"VM my-vm moved from {before['nodeName']} to {after['nodeName']}" in events


def test_a_migration_has_the_metrics_of_kubevirt(kubectl: Kubectl, controller: Controller) -> None:
    """Result, times and downtime; its series is deleted with it."""
    before = controller.metric("vmsim_migration_downtime_seconds_count")
    running(kubectl, "vm-1")
    migration(kubectl, "vm-1")
    status = finished(kubectl)

    # What kubectl sees the controller's own cache sees a moment later.
    eventually(lambda: controller.metric("vmsim_migration_downtime_seconds_count") == before + 1)
    [series] = controller.samples("kubevirt_vmi_migration_succeeded")
    assert (series.labels, series.value) == ({"vmi": "vm-1", "vmim": "move", "namespace": "default"}, 1)
    assert controller.samples("kubevirt_vmi_migration_failed") == []
    assert controller.metric("kubevirt_vmi_migrations_in_running_phase") == 0
    counts = {s.labels["node"]: s.value for s in controller.samples("node_vm_count")}
    assert counts == {**dict.fromkeys(counts, 0.0), status["targetNode"]: 1.0}

    kubectl("delete", "vmm", "move")
    eventually(lambda: not controller.samples("kubevirt_vmi_migration_succeeded"))


def test_a_migration_goes_to_its_target_node(kubectl: Kubectl) -> None:
    """Even if the scheduler would choose another."""
    before = running(kubectl, "named")
    others = [node for node in ("kwok-node-1", "kwok-node-2", "kwok-node-3") if node != before["nodeName"]]
    for number, node in enumerate(others):
        status = finished(kubectl, migration(kubectl, "named", f"move-{number}", targetNode=node))
        assert (status["phase"], status["targetNode"]) == ("Succeeded", node)


def test_a_migration_to_the_vms_own_node_does_not_move_it(kubectl: Kubectl) -> None:
    """A rebalancer's late decision costs no downtime."""
    before = running(kubectl, "there")
    status = finished(kubectl, migration(kubectl, "there", targetNode=before["nodeName"]))
    assert (status["phase"], status["failureReason"]) == ("Failed", "TargetIsSource")
    assert status["message"] == f"VM there is on node {before['nodeName']} already"
    unmoved(kubectl, "there", before)


def test_a_migration_obeys_its_node_selector(kubectl: Kubectl) -> None:
    """Only the labelled node is chosen."""
    running(kubectl, "narrow")
    kubectl("label", "node", "kwok-node-3", "disk=fast", "--overwrite")
    kubectl("label", "node", "kwok-node-1", "disk=fast", "--overwrite")
    migration(kubectl, "narrow", addedNodeSelector={"disk": "fast"})
    assert finished(kubectl)["targetNode"] in ("kwok-node-1", "kwok-node-3")
    kubectl("label", "node", "kwok-node-1", "kwok-node-3", "disk-")


# --- preflight -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"targetNode": "kwok-node-99"}, "TargetNotFound"),
        ({"addedNodeSelector": {"disk": "none"}}, "NoSuitableNode"),
        ({"cancel": True}, "Cancelled"),
    ],
)
def test_an_impossible_migration_fails_at_once_without_a_change_of_the_vm(
    kubectl: Kubectl, spec: dict[str, Any], reason: str
) -> None:
    """The reason is in the status and in an Event."""
    before = running(kubectl, "stays")
    migration(kubectl, "stays", **spec)
    assert finished(kubectl)["failureReason"] == reason
    unmoved(kubectl, "stays", before)


def test_a_migration_of_a_missing_or_stopped_vm_fails(kubectl: Kubectl) -> None:
    """Each with its own reason."""
    kubectl.apply_vm("stopped", running=False)
    kubectl.wait_phase("stopped", "Stopped")
    migration(kubectl, "stopped", "one")
    migration(kubectl, "missing", "two")
    assert finished(kubectl, "one")["failureReason"] == "VMNotRunning"
    assert finished(kubectl, "two")["failureReason"] == "VMNotFound"


def test_a_migration_without_capacity_waits_and_starts_once_there_is_some(kubectl: Kubectl) -> None:
    """A foreign pod fills the only target; the VM moves after its deletion."""
    before = running(kubectl, "waits", cpu="0.50")
    source = before["nodeName"]
    target, closed = (node for node in ("kwok-node-1", "kwok-node-2", "kwok-node-3") if node != source)
    kubectl("cordon", closed)
    fill(kubectl, "foreign", target)
    migration(kubectl, "waits")
    kubectl("wait", "vmm/move", "--for=jsonpath={.status.conditions[0].reason}=NoRoom", "--timeout=15s")
    assert "room for it now" in kubectl("get", "vmm", "move", "-o", "wide")
    unmoved(kubectl, "waits", before)
    kubectl("delete", "pod", "foreign", "--wait=true")
    assert finished(kubectl)["targetNode"] == target


def test_a_migration_that_waits_can_be_cancelled_and_deleted(kubectl: Kubectl) -> None:
    """The VM is never touched."""
    before = running(kubectl, "waiting", cpu="0.50")
    others = [node for node in ("kwok-node-1", "kwok-node-2", "kwok-node-3") if node != before["nodeName"]]
    for number, node in enumerate(others):
        fill(kubectl, f"filler-{number}", node)
    migration(kubectl, "waiting", "cancelled")
    migration(kubectl, "waiting", "deleted")
    for name in ("cancelled", "deleted"):
        kubectl("wait", f"vmm/{name}", "--for=jsonpath={.status.conditions[0].reason}=NoRoom", "--timeout=15s")
    kubectl("patch", "vmm", "cancelled", "--type=merge", "-p", '{"spec":{"cancel":true}}')
    kubectl("delete", "vmm", "deleted")
    assert finished(kubectl, "cancelled")["failureReason"] == "Cancelled"
    kubectl("delete", "pod", "filler-0", "filler-1")
    unmoved(kubectl, "waiting", before)


# --- the API server is asked first ------------------------------------------------------------------------------


@contextmanager
def created(kubectl: Kubectl, kind: str, spec: dict[str, Any]) -> Iterator[str]:
    """Create an object of the core group while the context lasts; yield its name."""
    body = {"apiVersion": "v1", "kind": kind, "metadata": {"name": "rule"}, "spec": spec}
    kubectl("create", "-f", "-", stdin=json.dumps(body))
    try:
        yield "rule"
    finally:
        kubectl("delete", kind, "rule", "--wait=true")


def answer(kubectl: Kubectl) -> str:
    """Return what the API server says to one more pod with 1 CPU: nothing if it may be made.

    Its admission learns of a new rule by a watch of its own, a moment after the rule is there.
    """
    container = {"name": "c", "image": "registry.k8s.io/pause:3.10.1", "resources": {"requests": {"cpu": "1"}}}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "probe"}, "spec": {"containers": [container]}}
    return kubectl.complaint("create", "--dry-run=server", "-f", "-", stdin=json.dumps(pod))


def test_a_limit_range_that_forbids_the_target_pod_costs_no_downtime(kubectl: Kubectl, plane: ControlPlane) -> None:
    """`vmsim migrate --wait` quotes the API server, and the VM keeps running."""
    before = running(kubectl, "limited")
    with created(kubectl, "LimitRange", {"limits": [{"type": "Container", "min": {"cpu": "4"}}]}):
        eventually(lambda: "minimum cpu usage" in answer(kubectl))
        done = Vmsim.against(plane.kubeconfig)("migrate", "limited", "--wait")
        [status] = [item["status"] for item in kubectl.json("get", "vmm")["items"]]
    words = "minimum cpu usage per Container is 4, but request is 3200m"
    assert done.returncode == 1
    assert words in done.stderr
    assert (status["phase"], status["failureReason"]) == ("Failed", "TargetRefused")
    assert words in status["message"]
    unmoved(kubectl, "limited", before)


@pytest.mark.timeout(240)
def test_a_migration_waits_while_a_quota_is_exceeded(kubectl: Kubectl) -> None:
    """The VM would not fit even without its own pod; the dry run is repeated every 15 seconds."""
    before = running(kubectl, "thrifty")
    with created(kubectl, "ResourceQuota", {"hard": {"requests.cpu": "2"}}) as quota:
        eventually(lambda: "exceeded quota" in answer(kubectl))
        migration(kubectl, "thrifty")
        kubectl("wait", "vmm/move", "--for=jsonpath={.status.conditions[0].reason}=QuotaExceeded", "--timeout=45s")
        waiting = kubectl.json("get", "vmm", "move")["status"]
        assert waiting["phase"] == "Pending"
        assert "exceeded quota: rule, requested: requests.cpu=3200m" in waiting["message"]
        unmoved(kubectl, "thrifty", before)
        kubectl("patch", "resourcequota", quota, "--type=merge", "-p", '{"spec":{"hard":{"requests.cpu":"4"}}}')
        # 4 CPU suffice for one such pod and not for two: the source's is deleted first.
        assert finished(kubectl, timeout=60)["phase"] == "Succeeded"
    assert kubectl.wait_phase("thrifty", "Running")["status"]["podUID"] != before["podUID"]


def test_of_two_migrations_with_capacity_for_one_the_second_waits(kubectl: Kubectl) -> None:
    """Reserved capacity takes no other VM down."""
    kubectl("cordon", "kwok-node-2", "kwok-node-3")
    before = {name: running(kubectl, name, cpu="0.30") for name in ("one", "two")}
    kubectl("uncordon", "kwok-node-2")
    fill(kubectl, "foreign", "kwok-node-2")
    for name in before:
        migration(kubectl, name, f"move-{name}")
    kubectl.eventually(
        *("get", "vmm", "-o", "jsonpath={.items[*].status.phase}"),
        until=lambda text: sorted(text.split()) == ["Pending", "Succeeded"],
    )
    kubectl.eventually("get", "vmm", "-o", "wide", until=lambda text: "1 without room (kwok-node-2 lacks" in text)
    [stays] = [vm for vm in before if kubectl.json("get", "vmm", f"move-{vm}")["status"]["phase"] == "Pending"]
    after = {vm: kubectl.wait_phase(vm, "Running")["status"] for vm in before}
    assert {vm: status["podUID"] == before[vm]["podUID"] for vm, status in after.items()} == {
        vm: vm == stays for vm in before
    }


# --- in mid-flight: the scheduler is stopped, so that the target waits ------------------------------------------


@pytest.fixture
def halted(plane: ControlPlane, kubectl: Kubectl) -> Iterator[Any]:
    """A VM whose migration has deleted the source while the scheduler is stopped."""
    before = running(kubectl, "flying")
    plane.stop_component("kube-scheduler")
    try:
        migration(kubectl, "flying", unschedulableTimeoutSeconds=6)
        kubectl("wait", "vmm/move", "--for=jsonpath={.status.phase}=Scheduling", "--timeout=15s")
        yield before
    finally:
        plane.start_component("kube-scheduler")


def test_an_unschedulable_target_is_rolled_back(plane: ControlPlane, kubectl: Kubectl, halted: Any) -> None:
    """The migration fails, and the VM runs on any node: it is never left without a pod."""
    status = finished(kubectl)
    assert (status["phase"], status["failureReason"]) == ("Failed", "RolledBack")
    plane.start_component("kube-scheduler")
    vm = kubectl.wait_phase("flying", "Running")["status"]
    assert vm["incarnation"] == halted["incarnation"] + 2
    assert "migration" not in vm


def test_a_migration_survives_a_crash_of_the_controller(
    plane: ControlPlane, kubectl: Kubectl, controller: Controller, halted: Any
) -> None:
    """After a kill in mid-flight, the restarted controller completes it."""
    controller.crash_and_restart()
    plane.start_component("kube-scheduler")
    status = finished(kubectl)
    assert status["sourceNode"] == halted["nodeName"]
    assert status["phase"] == "Succeeded" or status["failureReason"] == "RolledBack"
    kubectl.wait_phase("flying", "Running")


@pytest.mark.parametrize("kind", ["vm", "vmm"])
def test_deleting_the_vm_or_the_migration_in_mid_flight_leaves_nothing_behind(
    plane: ControlPlane, kubectl: Kubectl, halted: Any, kind: str
) -> None:
    """Without its VM the migration is deleted; without its migration the VM runs again."""
    kubectl("delete", kind, "flying" if kind == "vm" else "move")
    plane.start_component("kube-scheduler")
    if kind == "vm":
        kubectl.eventually("get", "pods,vmm", "-o", "name", until=lambda text: not text)
    else:
        vm = kubectl.wait_vm(
            "flying", lambda vm: vm["status"]["phase"] == "Running" and "migration" not in vm["status"], timeout=30
        )
        assert vm["status"]["podUID"] != halted["podUID"]


def test_a_vm_stopped_in_mid_flight_stops(kubectl: Kubectl, halted: Any) -> None:
    """The migration fails, the VM is Stopped."""
    assert halted["phase"] == "Running"
    kubectl("patch", "vm", "flying", "--type=merge", "-p", '{"spec":{"running":false}}')
    assert finished(kubectl)["failureReason"] == "VMStopped"
    assert "migration" not in kubectl.wait_phase("flying", "Stopped")["status"]


def test_at_most_two_vms_leave_a_node_at_once(plane: ControlPlane, kubectl: Kubectl) -> None:
    """KubeVirt's limit; the message of a waiting migration says so."""
    kubectl("cordon", "kwok-node-2", "kwok-node-3")
    for number in range(4):
        running(kubectl, f"busy-{number}", cpu="0.05")
    kubectl("uncordon", "kwok-node-2", "kwok-node-3")
    plane.stop_component("kube-scheduler")
    try:
        for number in range(4):
            migration(kubectl, f"busy-{number}", f"move-{number}")
        reasons = "jsonpath={.items[*].status.conditions[0].reason}"
        kubectl.eventually("get", "vmm", "-o", reasons, until=lambda text: text.split().count("WaitingForTurn") == 2)
        assert "2 VMs are leaving kwok-node-1 already" in kubectl("get", "vmm", "-o", "wide")
    finally:
        plane.start_component("kube-scheduler")
    for number in range(4):
        assert finished(kubectl, f"move-{number}", timeout=40)["phase"] == "Succeeded"


# --- evictions -------------------------------------------------------------------------------------------------


def records(kubectl: Kubectl) -> list[Any]:
    """Return every record of an eviction."""
    return [item for item in kubectl.json("get", "vmm")["items"] if "recordOf" in item["spec"]]


def test_kubectl_drain_moves_every_vm_and_is_recorded_as_migrations(kubectl: Kubectl) -> None:
    """As an operator types it."""
    kubectl("cordon", "kwok-node-2", "kwok-node-3")
    for number in range(4):
        assert running(kubectl, f"drained-{number}", cpu="0.05")["nodeName"] == "kwok-node-1"
    kubectl("uncordon", "kwok-node-2", "kwok-node-3")
    kubectl("drain", "kwok-node-1", "--ignore-daemonsets")
    for number in range(4):
        vm = kubectl.wait_vm(
            f"drained-{number}",
            lambda vm: vm["status"]["phase"] == "Running" and vm["status"].get("nodeName") not in (None, "kwok-node-1"),
        )
        assert vm["status"]["incarnation"] == 1
    kubectl.eventually(
        *("get", "vmm", "-o", "jsonpath={.items[*].status.phase}"),
        until=lambda text: text.split() == ["Succeeded"] * 4,
    )
    assert {(item["spec"]["reason"], item["status"]["sourceNode"]) for item in records(kubectl)} == {
        ("Evicted", "kwok-node-1")
    }


def test_a_no_execute_taint_moves_its_vms(kubectl: Kubectl) -> None:
    """The taint manager deletes the pods; the records have its reason."""
    node = running(kubectl, "tainted")["nodeName"]
    kubectl("taint", "node", node, "maintenance=now:NoExecute")
    try:
        kubectl.wait_vm("tainted", lambda vm: vm["status"].get("nodeName") not in (None, node), timeout=30)
        kubectl.eventually("get", "vmm", "-o", "name", until=lambda text: "evicted-tainted-" in text)
        assert records(kubectl)[0]["spec"]["reason"] == "NoExecuteTaint"
    finally:
        kubectl("taint", "node", node, "maintenance-")


def test_a_deleted_node_is_recorded_as_lost(plane: ControlPlane, kubectl: Kubectl) -> None:
    """Its VMs run elsewhere."""
    node = running(kubectl, "lost")["nodeName"]
    kubectl("delete", "node", node)
    try:
        kubectl.wait_vm("lost", lambda vm: vm["status"].get("nodeName") not in (None, node), timeout=30)
        kubectl.eventually("get", "vmm", "-o", "name", until=lambda text: "evicted-lost-" in text)
        assert records(kubectl)[0]["spec"]["reason"] == "NodeLost"
    finally:
        plane.up()
