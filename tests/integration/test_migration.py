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
    """A control plane of this module's own: nodes are cordoned, tainted and deleted in it, and its scheduler stops."""
    directory = tmp_path_factory.mktemp("migration-plane")
    with ControlPlane(directory / "state", nodes=3, audit_policy=accounts.audit_policy(directory)) as plane:
        install(plane)
        yield plane


@pytest.fixture(scope="module")
def kubectl(plane: ControlPlane) -> Kubectl:
    """kubectl against this module's control plane."""
    return Kubectl(plane.kubectl, plane.kubeconfig)


@pytest.fixture(scope="module")
def controller(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controller]:
    """One controller for the module."""
    with Controller.start(plane.kubeconfig, tmp_path_factory.mktemp("controller") / "log") as process:
        yield process


@pytest.fixture(autouse=True)
def _level_ground(kubectl: Kubectl, controller: Controller) -> Iterator[None]:
    """Begin and end with open nodes and no VM, and never see two live pods of one VM in between."""
    assert controller.process.poll() is None
    with LivePods().following(kubectl) as watch:
        yield
        kubectl("delete", "vmm,vm,pod", "--all", "--wait=true")
        kubectl("uncordon", "-l", "type=kwok")
        kubectl.eventually("get", "pods", "-o", "name", until=lambda text: not text)
    assert watch.violations == []


def migration(kubectl: Kubectl, vm: str, name: str = "move", **spec: Any) -> str:
    """Ask for a migration; return its name."""
    body = {
        "apiVersion": "simulation.node-classifier.io/v1alpha1",
        "kind": "VirtualMachineMigration",
        "metadata": {"name": name, "namespace": kubectl.namespace},
        "spec": {"vmName": vm, **spec},
    }
    kubectl("create", "-f", "-", stdin=json.dumps(body))
    return name


def finished(kubectl: Kubectl, name: str = "move", patience: float = 30.0) -> Any:
    """Wait until a migration has ended; return its status."""
    text = kubectl.eventually(
        *("get", "vmm", name, "-o", "json"),
        until=lambda text: json.loads(text)["status"]["phase"] in ("Succeeded", "Failed"),
        patience=patience,
    )
    return json.loads(text)["status"]


def running(kubectl: Kubectl, name: str, **changes: Any) -> Any:
    """Apply a VM and wait until it runs; return its status."""
    kubectl.apply_vm(name, **changes)
    return kubectl.wait_phase(name, "Running")["status"]


def fill(kubectl: Kubectl, name: str, node: str) -> None:
    """Put a pod that is nobody's VM on a node; it leaves no room for half a node more."""
    container = {"name": "c", "image": "registry.k8s.io/pause:3.10.1", "resources": {"requests": {"cpu": "20"}}}
    spec = {"nodeName": node, "containers": [container]}
    kubectl(
        *("create", "-f", "-"),
        stdin=json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}),
    )


def unmoved(kubectl: Kubectl, name: str, before: Any) -> None:
    """The VM has the pod it had."""
    assert kubectl.json("get", "vm", name)["status"]["podUID"] == before["podUID"]


# --- moving ----------------------------------------------------------------------------------------------------


def test_a_migration_is_seen_as_the_description_shows_it(kubectl: Kubectl) -> None:
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


def test_a_migration_is_told_to_prometheus_as_kubevirt_tells_it(kubectl: Kubectl, controller: Controller) -> None:
    """Ended, timed, with its downtime; its series goes with it."""
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


def test_a_named_target_is_where_it_goes(kubectl: Kubectl) -> None:
    """Wherever the scheduler would send it."""
    before = running(kubectl, "named")
    others = [node for node in ("kwok-node-1", "kwok-node-2", "kwok-node-3") if node != before["nodeName"]]
    for number, node in enumerate(others):
        status = finished(kubectl, migration(kubectl, "named", f"move-{number}", targetNode=node))
        assert (status["phase"], status["targetNode"]) == ("Succeeded", node)


def test_a_vm_that_is_there_already_is_left_alone(kubectl: Kubectl) -> None:
    """A rebalancer's late decision costs no downtime."""
    before = running(kubectl, "there")
    status = finished(kubectl, migration(kubectl, "there", targetNode=before["nodeName"]))
    assert (status["phase"], status["failureReason"]) == ("Failed", "TargetIsSource")
    assert status["message"] == f"VM there is on node {before['nodeName']} already"
    unmoved(kubectl, "there", before)


def test_a_selector_narrows_the_choice(kubectl: Kubectl) -> None:
    """Only the labelled node is taken."""
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
def test_what_cannot_be_fails_at_once_with_the_vm_untouched(
    kubectl: Kubectl, spec: dict[str, Any], reason: str
) -> None:
    """The reason is in the status and in an event."""
    before = running(kubectl, "stays")
    migration(kubectl, "stays", **spec)
    assert finished(kubectl)["failureReason"] == reason
    unmoved(kubectl, "stays", before)


def test_a_vm_that_is_not_there_or_not_running_does_not_move(kubectl: Kubectl) -> None:
    """Each says which it is."""
    kubectl.apply_vm("stopped", running=False)
    kubectl.wait_phase("stopped", "Stopped")
    migration(kubectl, "stopped", "one")
    migration(kubectl, "nobody", "two")
    assert finished(kubectl, "one")["failureReason"] == "VMNotRunning"
    assert finished(kubectl, "two")["failureReason"] == "VMNotFound"


def test_without_room_it_waits_untouched_and_goes_when_there_is_some(kubectl: Kubectl) -> None:
    """A stranger fills the only target; when it goes, the VM moves."""
    before = running(kubectl, "waits", cpu="0.50")
    source = before["nodeName"]
    target, closed = (node for node in ("kwok-node-1", "kwok-node-2", "kwok-node-3") if node != source)
    kubectl("cordon", closed)
    fill(kubectl, "stranger", target)
    migration(kubectl, "waits")
    kubectl("wait", "vmm/move", "--for=jsonpath={.status.conditions[0].reason}=NoRoom", "--timeout=15s")
    assert "room for it now" in kubectl("get", "vmm", "move", "-o", "wide")
    unmoved(kubectl, "waits", before)
    kubectl("delete", "pod", "stranger", "--wait=true")
    assert finished(kubectl)["targetNode"] == target


def test_a_migration_that_waits_can_be_cancelled_and_deleted(kubectl: Kubectl) -> None:
    """Nothing was touched, and nothing happens afterwards."""
    before = running(kubectl, "held", cpu="0.50")
    others = [node for node in ("kwok-node-1", "kwok-node-2", "kwok-node-3") if node != before["nodeName"]]
    for number, node in enumerate(others):
        fill(kubectl, f"filler-{number}", node)
    migration(kubectl, "held", "cancelled")
    migration(kubectl, "held", "deleted")
    for name in ("cancelled", "deleted"):
        kubectl("wait", f"vmm/{name}", "--for=jsonpath={.status.conditions[0].reason}=NoRoom", "--timeout=15s")
    kubectl("patch", "vmm", "cancelled", "--type=merge", "-p", '{"spec":{"cancel":true}}')
    kubectl("delete", "vmm", "deleted")
    assert finished(kubectl, "cancelled")["failureReason"] == "Cancelled"
    kubectl("delete", "pod", "filler-0", "filler-1")
    unmoved(kubectl, "held", before)


# --- the API server is asked first ------------------------------------------------------------------------------


@contextmanager
def created(kubectl: Kubectl, kind: str, spec: dict[str, Any]) -> Iterator[str]:
    """Make an object of the core group while the context lasts; yield its name."""
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


def test_what_a_limit_range_forbids_by_now_is_told_before_the_vm_is_down(kubectl: Kubectl, plane: ControlPlane) -> None:
    """`vmsim migrate --wait` ends with the API server's words, and the VM runs on."""
    before = running(kubectl, "limited")
    with created(kubectl, "LimitRange", {"limits": [{"type": "Container", "min": {"cpu": "4"}}]}):
        eventually(lambda: "minimum cpu usage" in answer(kubectl))
        done = Vmsim.against(plane.kubeconfig)("migrate", "limited", "--wait")
        [told] = [item["status"] for item in kubectl.json("get", "vmm")["items"]]
    words = "minimum cpu usage per Container is 4, but request is 3200m"
    assert done.returncode == 1
    assert words in done.stderr
    assert (told["phase"], told["failureReason"]) == ("Failed", "TargetRefused")
    assert words in told["message"]
    unmoved(kubectl, "limited", before)


@pytest.mark.timeout(240)
def test_a_quota_that_is_exceeded_makes_it_wait_untouched_until_there_is_some_left(kubectl: Kubectl) -> None:
    """The VM would not fit into it, even with its own pod gone; asked again is every 15 seconds."""
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
        # 4 CPU hold one such pod and not two: the source's goes first.
        assert finished(kubectl, patience=60)["phase"] == "Succeeded"
    assert kubectl.wait_phase("thrifty", "Running")["status"]["podUID"] != before["podUID"]


def test_of_two_with_room_for_one_the_second_waits_where_it_is(kubectl: Kubectl) -> None:
    """No VM is taken down for room that another was promised."""
    kubectl("cordon", "kwok-node-2", "kwok-node-3")
    before = {name: running(kubectl, name, cpu="0.30") for name in ("one", "two")}
    kubectl("uncordon", "kwok-node-2")
    fill(kubectl, "stranger", "kwok-node-2")
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
    """A VM whose migration has deleted its source and waits for a scheduler that does not answer."""
    before = running(kubectl, "flying")
    plane.stop_component("kube-scheduler")
    try:
        migration(kubectl, "flying", unschedulableTimeoutSeconds=6)
        kubectl("wait", "vmm/move", "--for=jsonpath={.status.phase}=Scheduling", "--timeout=15s")
        yield before
    finally:
        plane.start_component("kube-scheduler")


def test_a_target_that_finds_no_node_in_time_is_rolled_back(plane: ControlPlane, kubectl: Kubectl, halted: Any) -> None:
    """The migration fails, and the VM comes back wherever it fits: it is never left without a pod."""
    status = finished(kubectl)
    assert (status["phase"], status["failureReason"]) == ("Failed", "RolledBack")
    plane.start_component("kube-scheduler")
    vm = kubectl.wait_phase("flying", "Running")["status"]
    assert vm["incarnation"] == halted["incarnation"] + 2
    assert "migration" not in vm


def test_it_survives_the_death_of_the_controller(
    plane: ControlPlane, kubectl: Kubectl, controller: Controller, halted: Any
) -> None:
    """Killed in mid-flight and started again, it brings the move to its end."""
    controller.crash_and_restart()
    plane.start_component("kube-scheduler")
    status = finished(kubectl)
    assert status["sourceNode"] == halted["nodeName"]
    assert status["phase"] == "Succeeded" or status["failureReason"] == "RolledBack"
    kubectl.wait_phase("flying", "Running")


@pytest.mark.parametrize("gone", ["vm", "vmm"])
def test_whoever_is_deleted_in_mid_flight_leaves_nothing_behind(
    plane: ControlPlane, kubectl: Kubectl, halted: Any, gone: str
) -> None:
    """Without its VM the migration goes, too; without its migration the VM comes back."""
    kubectl("delete", gone, "flying" if gone == "vm" else "move")
    plane.start_component("kube-scheduler")
    if gone == "vm":
        kubectl.eventually("get", "pods,vmm", "-o", "name", until=lambda text: not text)
    else:
        vm = kubectl.wait_vm(
            "flying", lambda vm: vm["status"]["phase"] == "Running" and "migration" not in vm["status"], patience=30
        )
        assert vm["status"]["podUID"] != halted["podUID"]


def test_a_vm_stopped_in_mid_flight_stops(kubectl: Kubectl, halted: Any) -> None:
    """The migration fails, the VM is Stopped."""
    assert halted["phase"] == "Running"
    kubectl("patch", "vm", "flying", "--type=merge", "-p", '{"spec":{"running":false}}')
    assert finished(kubectl)["failureReason"] == "VMStopped"
    assert "migration" not in kubectl.wait_phase("flying", "Stopped")["status"]


def test_no_more_than_two_leave_a_node_at_once(plane: ControlPlane, kubectl: Kubectl) -> None:
    """KubeVirt's limit; who waits says why."""
    kubectl("cordon", "kwok-node-2", "kwok-node-3")
    for number in range(4):
        running(kubectl, f"crowd-{number}", cpu="0.05")
    kubectl("uncordon", "kwok-node-2", "kwok-node-3")
    plane.stop_component("kube-scheduler")
    try:
        for number in range(4):
            migration(kubectl, f"crowd-{number}", f"move-{number}")
        reasons = "jsonpath={.items[*].status.conditions[0].reason}"
        kubectl.eventually("get", "vmm", "-o", reasons, until=lambda text: text.split().count("WaitingForTurn") == 2)
        assert "2 VMs are leaving kwok-node-1 already" in kubectl("get", "vmm", "-o", "wide")
    finally:
        plane.start_component("kube-scheduler")
    for number in range(4):
        assert finished(kubectl, f"move-{number}", patience=40)["phase"] == "Succeeded"


# --- evictions -------------------------------------------------------------------------------------------------


def records(kubectl: Kubectl) -> list[Any]:
    """Every record of an eviction."""
    return [item for item in kubectl.json("get", "vmm")["items"] if "recordOf" in item["spec"]]


def test_a_drain_moves_every_vm_and_is_told_as_migrations(kubectl: Kubectl) -> None:
    """`kubectl drain` as an operator types it."""
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
    """The taint manager deletes the pods; the record says so."""
    node = running(kubectl, "tainted")["nodeName"]
    kubectl("taint", "node", node, "maintenance=now:NoExecute")
    try:
        kubectl.wait_vm("tainted", lambda vm: vm["status"].get("nodeName") not in (None, node), patience=30)
        kubectl.eventually("get", "vmm", "-o", "name", until=lambda text: "evicted-tainted-" in text)
        assert records(kubectl)[0]["spec"]["reason"] == "NoExecuteTaint"
    finally:
        kubectl("taint", "node", node, "maintenance-")


def test_a_deleted_node_is_told_as_lost(plane: ControlPlane, kubectl: Kubectl) -> None:
    """Its VMs run elsewhere."""
    node = running(kubectl, "lost")["nodeName"]
    kubectl("delete", "node", node)
    try:
        kubectl.wait_vm("lost", lambda vm: vm["status"].get("nodeName") not in (None, node), patience=30)
        kubectl.eventually("get", "vmm", "-o", "name", until=lambda text: "evicted-lost-" in text)
        assert records(kubectl)[0]["spec"]["reason"] == "NodeLost"
    finally:
        plane.up()
