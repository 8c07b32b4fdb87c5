"""The lifecycle of a VM: stops, lost pods, edits, failures, restarts; never with two live pods."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from controller.controlplane.plane import ControlPlane
from controller.domain import names
from tests.integration.live_pods import LivePods
from tests.integration.tools import TIMEOUT, Controller, Kubectl, vm_manifest

pytestmark = pytest.mark.usefixtures("controller")

CORES = 32
MEBIBYTE = 1024**2


@pytest.fixture(scope="module")
def live_pods(kubectl: Kubectl) -> Iterator[LivePods]:
    """Watch every pod of the cluster while these tests run."""
    with LivePods().following(kubectl) as watch:
        yield watch
    assert watch.events > 0
    assert watch.violations == []


@pytest.fixture(autouse=True)
def _never_two_live_pods(live_pods: LivePods) -> Iterator[None]:
    """Fail the test during which a VM had a second live pod."""
    yield
    violations, live_pods.violations = live_pods.violations, []
    assert violations == []


@pytest.fixture
def name(kubectl: Kubectl) -> Iterator[str]:
    """Return the name of a VM of the test's own, and delete the VM afterwards."""
    name = f"cycle-{uuid4().hex[:8]}"
    yield name
    kubectl("delete", "vm", name, "--ignore-not-found", "--wait=false")


@contextmanager
def endless_deletions(plane: ControlPlane, kubectl: Kubectl, name: str) -> Iterator[None]:
    """Keep deleted pods terminating while the context lasts, long enough for the controller to act wrongly."""
    # Paused, not restarted: a new KWOK waits 40 s until the old one's leases of its nodes have expired.
    kwok = next(component.pid for component in plane.status() if component.name == "kwok-controller")
    assert kwok is not None
    os.kill(kwok, signal.SIGSTOP)
    try:
        yield
        # Another VM's pod is made and bound after everything the controller could do at once about the first.
        kubectl.apply_vm(f"{name}-later")
        kubectl.wait_phase(f"{name}-later", "Scheduled")
        assert len(pods_labelled(kubectl, name)) == 1
    finally:
        os.kill(kwok, signal.SIGCONT)
        kubectl("delete", "vm", f"{name}-later", "--ignore-not-found", "--wait=false")


@pytest.fixture
def own(kubectl: Kubectl, tmp_path: Path) -> Iterator[Kubectl]:
    """Create a namespace for a test that counts objects."""
    with kubectl.own_namespace(tmp_path) as own:
        yield own


def running(kubectl: Kubectl, name: str, **changes: Any) -> Any:
    """Apply a VM and wait until it runs; return it."""
    kubectl.apply_vm(name, **changes)
    return kubectl.wait_phase(name, "Running")


def condition(vm: Any, kind: str) -> Any:
    """Return a VM's first condition of a type, or None."""
    return next((found for found in vm["status"].get("conditions", ()) if found["type"] == kind), None)


def history(vm: Any) -> list[str]:
    """Return the phases a VM has passed, oldest first."""
    types = [found["type"] for found in vm["status"]["conditions"]]
    return [kind.removeprefix("Phase") for kind in types if kind.startswith("Phase")]


def pod_name(vm: Any) -> str:
    """Return the name of a VM's pod."""
    return str(vm["status"]["podName"])


def pod_of(kubectl: Kubectl, vm: Any) -> Any:
    """Return a VM's pod."""
    return kubectl.json("get", "pod", pod_name(vm))


def patch(kubectl: Kubectl, kind: str, name: str, body: Any, *flags: str) -> None:
    """Merge a patch into an object."""
    kubectl("patch", kind, name, "--type=merge", "-p", json.dumps(body), *flags)


def pods_labelled(kubectl: Kubectl, name: str) -> list[str]:
    """Return the names of a VM's pods, ended ones included."""
    return kubectl("get", "pods", "-l", f"{names.VM_LABEL}={name}", "-o", "jsonpath={.items[*].metadata.name}").split()


def deleted(kubectl: Kubectl, kind: str, name: str, timeout: float = TIMEOUT) -> None:
    """Wait until an object no longer exists."""
    command = ("get", kind, name, "--ignore-not-found", "-o", "name")
    kubectl.eventually(*command, until=lambda text: not text, timeout=timeout)


def replaced(before: Any) -> Callable[[Any], bool]:
    """Return a predicate: whether a VM runs in another pod than before."""
    old = pod_name(before)
    return lambda vm: vm["status"]["phase"] == "Running" and pod_name(vm) != old


# --- stop and start --------------------------------------------------------------------------------------------


def test_a_stopped_vm_loses_its_pod(kubectl: Kubectl, name: str) -> None:
    """It ends in phase Stopped, which its history has."""
    vm = running(kubectl, name)
    patch(kubectl, "vm", name, {"spec": {"running": False}})
    stopped = kubectl.wait_phase(name, "Stopped")
    assert history(stopped) == ["Pending", "Scheduling", "Scheduled", "Running", "Stopped"]
    assert condition(stopped, "Ready")["status"] == "False"
    assert "nodeName" not in stopped["status"]
    deleted(kubectl, "pod", pod_name(vm))


def test_a_vm_created_stopped_gets_no_pod(kubectl: Kubectl, name: str) -> None:
    """It never has one."""
    kubectl.apply_vm(name, running=False)
    vm = kubectl.wait_phase(name, "Stopped")
    assert history(vm) == ["Pending", "Stopped"]
    assert pods_labelled(kubectl, name) == []


def test_a_stopped_vm_starts_again_under_a_new_pod_name(kubectl: Kubectl, name: str) -> None:
    """In another incarnation."""
    first = running(kubectl, name)
    patch(kubectl, "vm", name, {"spec": {"running": False}})
    kubectl.wait_phase(name, "Stopped")
    patch(kubectl, "vm", name, {"spec": {"running": True}})
    second = kubectl.wait_phase(name, "Running")
    assert pod_name(second) != pod_name(first)
    assert second["status"]["incarnation"] == first["status"]["incarnation"] + 1
    assert history(second)[-4:] == ["Stopped", "Scheduling", "Scheduled", "Running"]


# --- pods that are lost or tampered with -----------------------------------------------------------------------


def test_a_pod_deleted_by_hand_is_replaced_under_the_next_incarnation(kubectl: Kubectl, name: str) -> None:
    """With another name."""
    before = running(kubectl, name)
    kubectl("delete", "pod", pod_name(before))
    after = kubectl.wait_vm(name, replaced(before))
    assert after["status"]["incarnation"] == before["status"]["incarnation"] + 1
    assert history(after)[-4:] == ["Running", "Scheduling", "Scheduled", "Running"]
    assert pods_labelled(kubectl, name) == [pod_name(after)]


def test_a_pod_deleted_by_force_is_replaced(kubectl: Kubectl, name: str) -> None:
    """Although it never terminates."""
    before = running(kubectl, name)
    kubectl("delete", "pod", pod_name(before), "--force", "--grace-period=0")
    after = kubectl.wait_vm(name, replaced(before))
    assert pods_labelled(kubectl, name) == [pod_name(after)]


def test_removed_labels_of_a_pod_are_restored(kubectl: Kubectl, name: str) -> None:
    """The watch does not show the pod; it is found by its name, and no second one is created."""
    before = running(kubectl, name)
    kubectl("label", "pod", pod_name(before), f"{names.VM_LABEL}-", f"{names.KUBEVIRT_VM_NAME}-")
    kubectl.eventually(
        *("get", "pods", "-l", f"{names.VM_LABEL}={name},{names.KUBEVIRT_VM_NAME}={name}", "-o", "name"),
        until=lambda text: pod_name(before) in text,
    )
    after = kubectl.wait_phase(name, "Running")
    assert pod_name(after) == pod_name(before)
    assert after["status"]["incarnation"] == before["status"]["incarnation"]
    assert pods_labelled(kubectl, name) == [pod_name(before)]


def test_a_pod_without_its_owner_reference_is_not_touched(kubectl: Kubectl, name: str) -> None:
    """The VM gets another pod."""
    before = running(kubectl, name)
    remove = json.dumps([{"op": "remove", "path": "/metadata/ownerReferences"}])
    kubectl("patch", "pod", pod_name(before), "--type=json", "-p", remove)
    try:
        after = kubectl.wait_vm(name, replaced(before))
        freed = kubectl.json("get", "pod", pod_name(before))
        assert "deletionTimestamp" not in freed["metadata"]
        assert "ownerReferences" not in freed["metadata"]
        assert pod_of(kubectl, after)["metadata"]["ownerReferences"][0]["uid"] == after["metadata"]["uid"]
    finally:
        kubectl("delete", "pod", pod_name(before), "--wait=false")


def test_a_wiped_status_is_restored(kubectl: Kubectl, name: str) -> None:
    """From the pod: the same pod and the same incarnation."""
    first = running(kubectl, name)
    kubectl("delete", "pod", pod_name(first))
    before = kubectl.wait_vm(name, replaced(first))
    wipe = json.dumps([{"op": "replace", "path": "/status", "value": {}}])
    kubectl("patch", "vm", name, "--subresource=status", "--type=json", "-p", wipe)
    after = kubectl.wait_vm(name, lambda vm: vm["status"].get("podUID") is not None)
    assert after["status"]["phase"] == "Running"
    assert after["status"]["podUID"] == before["status"]["podUID"]
    assert after["status"]["incarnation"] == before["status"]["incarnation"]
    assert after["status"]["createdAt"] == before["status"]["createdAt"]
    assert pods_labelled(kubectl, name) == [pod_name(before)]


def test_an_edited_status_is_undone(kubectl: Kubectl, name: str) -> None:
    """The status is derived, so another client's write does not last."""
    before = running(kubectl, name)
    patch(kubectl, "vm", name, {"status": {"phase": "Failed", "nodeName": "nowhere"}}, "--subresource=status")
    after = kubectl.wait_phase(name, "Running")
    assert after["status"]["nodeName"] == before["status"]["nodeName"]
    assert pod_name(after) == pod_name(before)


@pytest.mark.timeout(60)
def test_a_failed_pod_is_retried_after_a_backoff(kubectl: Kubectl, name: str) -> None:
    """The VM is Failed with the time of the retry: 10 to 15 s later, in a new pod."""
    before = running(kubectl, name)
    patch(kubectl, "pod", pod_name(before), {"status": {"phase": "Failed"}}, "--subresource=status")
    failed = kubectl.wait_phase(name, "Failed")
    assert failed["status"]["startFailure"]["consecutiveFailCount"] == 1
    assert failed["status"]["startFailure"]["lastFailedPodUID"] == before["status"]["podUID"]
    assert condition(failed, "Ready")["reason"] == "PodFailed"
    retry_at = datetime.fromisoformat(failed["status"]["startFailure"]["retryAfterTimestamp"])
    backoff = retry_at - datetime.fromisoformat(condition(failed, "PhaseFailed")["lastTransitionTime"])
    assert 10 <= backoff.total_seconds() <= 16  # both times are whole seconds

    after = kubectl.wait_vm(name, replaced(before), timeout=35)
    assert datetime.fromisoformat(pod_of(kubectl, after)["metadata"]["creationTimestamp"]) >= retry_at
    assert "startFailure" not in after["status"]
    assert history(after)[-5:] == ["Running", "Failed", "Scheduling", "Scheduled", "Running"]
    assert pods_labelled(kubectl, name) == [pod_name(after)]


@pytest.mark.timeout(60)
def test_a_terminating_pod_delays_its_successor(plane: ControlPlane, kubectl: Kubectl, name: str) -> None:
    """It may still run: the next one is created only when it no longer exists."""
    before = running(kubectl, name)
    with endless_deletions(plane, kubectl, name):
        kubectl("delete", "pod", pod_name(before), "--wait=false")
        kubectl.wait_vm(name, lambda vm: condition(vm, "Ready")["reason"] == "PodTerminating")
    after = kubectl.wait_vm(name, replaced(before), timeout=30)
    assert pods_labelled(kubectl, name) == [pod_name(after)]


@pytest.mark.timeout(60)
def test_a_namesakes_terminating_pod_delays_the_new_vms_pod(plane: ControlPlane, kubectl: Kubectl, name: str) -> None:
    """The VM was deleted and created again."""
    before = running(kubectl, name)
    with endless_deletions(plane, kubectl, name):
        kubectl("replace", "--force", "-f", "-", stdin=json.dumps(vm_manifest(name, before["spec"])))
        assert "podName" not in kubectl.json("get", "vm", name)["status"]
    after = kubectl.wait_phase(name, "Running", timeout=30)
    assert pods_labelled(kubectl, name) == [pod_name(after)]


# --- edits -----------------------------------------------------------------------------------------------------


def test_consumption_follows_its_annotations_without_a_new_pod(kubectl: Kubectl, name: str) -> None:
    """Status and the pod's annotations, KWOK's included, change; the pod stays."""
    before = running(kubectl, name)
    kubectl("annotate", "vm", name, f"{names.CPU_CONSUMPTION}=0.5", f"{names.MEMORY_CONSUMPTION}=0.25")
    after = kubectl.wait_vm(name, lambda vm: vm["status"]["cpuConsumption"] == "0.5")
    assert after["status"]["memoryConsumption"] == "0.25"
    assert after["status"]["podUID"] == before["status"]["podUID"]
    annotations = pod_of(kubectl, after)["metadata"]["annotations"]
    assert annotations[names.CPU_CONSUMPTION] == "0.5"
    assert annotations[names.MEMORY_CONSUMPTION] == "0.25"
    assert annotations[names.KWOK_USAGE_CPU] == f"{CORES * 1000 // 2}m"
    assert annotations[names.KWOK_USAGE_MEMORY] == str(64 * 1024 * MEBIBYTE)


def test_consumption_falls_back_to_the_spec_without_its_annotation(kubectl: Kubectl, name: str) -> None:
    """The VM then uses its request."""
    running(kubectl, name, annotations={names.CPU_CONSUMPTION: "0.5"})
    kubectl("annotate", "vm", name, f"{names.CPU_CONSUMPTION}-")
    vm = kubectl.wait_vm(name, lambda vm: vm["status"]["cpuConsumption"] == "0.10")
    assert pod_of(kubectl, vm)["metadata"]["annotations"][names.KWOK_USAGE_CPU] == "3200m"


def test_an_invalid_consumption_annotation_is_reported_and_ignored(kubectl: Kubectl, name: str) -> None:
    """The VM keeps its pod, with the spec's value and a condition that names the annotation."""
    before = running(kubectl, name)
    kubectl("annotate", "vm", name, f"{names.CPU_CONSUMPTION}=lots")
    after = kubectl.wait_vm(name, lambda vm: condition(vm, "InvalidConsumption") is not None)
    found = condition(after, "InvalidConsumption")
    assert found["status"] == "True"
    assert names.CPU_CONSUMPTION in found["message"]
    assert "lots" in found["message"]
    assert after["status"]["cpuConsumption"] == "0.10"
    assert after["status"]["phase"] == "Running"
    assert after["status"]["podUID"] == before["status"]["podUID"]


def test_a_corrected_consumption_annotation_clears_its_condition(kubectl: Kubectl, name: str) -> None:
    """At once."""
    kubectl.apply_vm(name, annotations={names.CPU_CONSUMPTION: "lots"})
    kubectl.wait_vm(name, lambda vm: condition(vm, "InvalidConsumption") is not None)
    kubectl("annotate", "--overwrite", "vm", name, f"{names.CPU_CONSUMPTION}=0.2")
    vm = kubectl.wait_vm(name, lambda vm: condition(vm, "InvalidConsumption") is None)
    assert vm["status"]["cpuConsumption"] == "0.2"


def test_an_edit_of_the_resources_waits_for_the_next_start(kubectl: Kubectl, name: str) -> None:
    """The pod keeps its requests, RestartRequired says so, and the next incarnation has the new ones."""
    before = running(kubectl, name)
    patch(kubectl, "vm", name, {"spec": {"resources": {"cpu": "0.25"}}})
    edited = kubectl.wait_vm(name, lambda vm: condition(vm, "RestartRequired") is not None)
    assert condition(edited, "RestartRequired")["status"] == "True"
    assert edited["status"]["podUID"] == before["status"]["podUID"]
    assert edited["status"]["cpuConsumption"] == "0.25"
    assert requests(pod_of(kubectl, edited))["cpu"] == "3200m"

    kubectl("delete", "pod", pod_name(before))
    restarted = kubectl.wait_vm(name, replaced(before))
    assert condition(restarted, "RestartRequired") is None
    assert requests(pod_of(kubectl, restarted))["cpu"] == "8"


def test_a_reverted_edit_needs_no_restart(kubectl: Kubectl, name: str) -> None:
    """RestartRequired disappears once spec and pod agree again, in any notation of the number."""
    running(kubectl, name, cpu="0.10")
    patch(kubectl, "vm", name, {"spec": {"resources": {"cpu": "0.25"}}})
    kubectl.wait_vm(name, lambda vm: condition(vm, "RestartRequired") is not None)
    patch(kubectl, "vm", name, {"spec": {"resources": {"cpu": "0.1"}}})
    kubectl.wait_vm(name, lambda vm: condition(vm, "RestartRequired") is None)


def requests(pod: Any) -> Any:
    """Return the requests of a pod."""
    return pod["spec"]["containers"][0]["resources"]["requests"]


def test_a_vm_larger_than_any_node_quotes_the_scheduler(kubectl: Kubectl, name: str) -> None:
    """It stays Scheduling; its Ready condition has the message."""
    kubectl.apply_vm(name, cpu="1.5")
    vm = kubectl.wait_vm(name, lambda vm: (condition(vm, "Ready") or {}).get("reason") == "Unschedulable")
    assert vm["status"]["phase"] == "Scheduling"
    assert "nodeName" not in vm["status"]
    assert condition(vm, "Ready")["status"] == "False"
    assert "Insufficient cpu" in condition(vm, "Ready")["message"]


# --- deletion --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cascade", ["background", "foreground"])
def test_deleting_a_vm_deletes_its_pod(kubectl: Kubectl, name: str, cascade: str) -> None:
    """With both kinds of cascading."""
    vm = running(kubectl, name)
    kubectl("delete", "vm", name, f"--cascade={cascade}", "--timeout=15s")
    deleted(kubectl, "pod", pod_name(vm))


def test_a_terminating_vm_has_no_pod_and_names_the_finalizer(kubectl: Kubectl, name: str) -> None:
    """Another client's finalizer; once it is removed, the VM is deleted."""
    kubectl.apply_vm(name)
    kubectl.wait_phase(name, "Running")
    kubectl("patch", "vm", name, "--type=merge", "-p", '{"metadata":{"finalizers":["example.com/hold"]}}')
    kubectl("delete", "vm", name, "--wait=false")
    vm = kubectl.wait_phase(name, "Stopped")
    ready = vm["status"]["conditions"][0]
    assert (ready["type"], ready["status"], ready["reason"]) == ("Ready", "False", "Terminating")
    assert "example.com/hold" in ready["message"]
    assert {"nodeName", "podName", "podUID"} & vm["status"].keys() == set()
    assert vm["status"]["observedGeneration"] == vm["metadata"]["generation"]
    assert kubectl.json("get", "pods", "-l", f"{names.VM_LABEL}={name}")["items"] == []
    kubectl("patch", "vm", name, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    kubectl("wait", "--for=delete", f"vm/{name}", "--timeout=15s")


def test_a_recreated_vm_names_the_pod_that_it_waits_for(kubectl: Kubectl, name: str) -> None:
    """Its namesake's pod has another client's finalizer."""
    kubectl.apply_vm(name)
    pod = kubectl.wait_phase(name, "Running")["status"]["podName"]
    kubectl("patch", "pod", pod, "--type=merge", "-p", '{"metadata":{"finalizers":["example.com/hold"]}}')
    kubectl("delete", "vm", name)
    kubectl.apply_vm(name)
    try:
        # The finalizer is reported once the pod is seen to terminate.
        vm = kubectl.wait_vm(name, lambda vm: "example.com/hold" in json.dumps(vm["status"]["conditions"]))
        ready = vm["status"]["conditions"][0]
        assert (vm["status"]["phase"], ready["reason"]) == ("Pending", "NamesakePodExists")
        assert pod in ready["message"]
        assert "example.com/hold" in ready["message"]
    finally:
        kubectl("patch", "pod", pod, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    kubectl.wait_phase(name, "Running")


def test_kubectl_wait_is_not_satisfied_by_a_condition_from_before_a_stop(kubectl: Kubectl, name: str) -> None:
    """It checks observedGeneration."""
    kubectl.apply_vm(name)
    kubectl.wait_phase(name, "Running")
    kubectl("patch", "vm", name, "--type=merge", "-p", '{"spec":{"running":false}}')
    kubectl.refused("wait", "--for=condition=Ready", f"vm/{name}", "--timeout=2s")
    vm = kubectl.wait_phase(name, "Stopped")
    assert vm["status"]["observedGeneration"] == vm["metadata"]["generation"]


@pytest.mark.timeout(90)
def test_an_orphaned_pod_stays(kubectl: Kubectl, name: str) -> None:
    """Of a delete with --cascade=orphan."""
    vm = running(kubectl, name)
    # The garbage collector removes the finalizer `orphan`. It discovers new resources every 30 s.
    kubectl("delete", "vm", name, "--cascade=orphan", "--timeout=45s")
    try:
        pod = pod_of(kubectl, vm)
        assert "ownerReferences" not in pod["metadata"]
        # The whole lifecycle of another VM gives the controller every occasion to touch the pod.
        running(kubectl, f"{name}-later")
        assert "deletionTimestamp" not in pod_of(kubectl, vm)["metadata"]
    finally:
        kubectl("delete", "vm", f"{name}-later", "--ignore-not-found", "--wait=false")
        kubectl("delete", "pod", pod_name(vm), "--wait=false")


def test_a_vm_that_is_deleted_and_recreated_has_one_pod_of_its_own(kubectl: Kubectl, name: str) -> None:
    """It replaces the old VM's pod."""
    before = running(kubectl, name)
    manifest = json.dumps(vm_manifest(name, before["spec"]))
    kubectl("replace", "--force", "-f", "-", stdin=manifest)
    after = kubectl.wait_phase(name, "Running")
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
    deleted(kubectl, "pod", pod_name(before))
    assert pods_labelled(kubectl, name) == [pod_name(after)]
    assert pod_of(kubectl, after)["metadata"]["ownerReferences"][0]["uid"] == after["metadata"]["uid"]


@pytest.mark.timeout(60)
def test_deleting_a_namespace_deletes_its_vms(own: Kubectl) -> None:
    """No object of ours blocks it."""
    for number in range(3):
        own.apply_vm(f"vm-{number}")
    own.eventually(*phases(), until=lambda text: text.split() == ["Running"] * 3)
    own("delete", "namespace", own.namespace, "--timeout=45s", timeout=50)
    assert own("get", "vm,pods", "--ignore-not-found", "-o", "name") == ""


def phases() -> tuple[str, ...]:
    """Return the command that prints the phase of every VM in a namespace."""
    return ("get", "vm", "-o", "jsonpath={.items[*].status.phase}")


@pytest.mark.timeout(90)
def test_two_hundred_vms_are_created_and_deleted_at_once(own: Kubectl) -> None:
    """Each gets exactly one pod, and every pod is deleted with its VM."""
    spec = {"resources": {"cpu": "0.01", "memory": "0.01"}}
    items = [vm_manifest(f"vm-{number}", spec, namespace=own.namespace) for number in range(200)]
    own("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    own.eventually(*phases(), until=lambda text: text.split() == ["Running"] * 200, timeout=40)
    pods = own("get", "pods", "-o", "jsonpath={.items[*].metadata.name}").split()
    assert sorted(pods) == sorted(own("get", "vm", "-o", "jsonpath={.items[*].status.podName}").split())
    own("delete", "vm", "--all", "--wait=false")
    own.eventually("get", "vm,pods", "-o", "name", until=lambda text: not text, timeout=40)


@pytest.mark.timeout(60)
def test_a_vm_whose_node_is_deleted_moves(plane: ControlPlane, own: Kubectl) -> None:
    """No kubelet ends its pod; the VM runs elsewhere, with one pod at any time."""
    lost = running(own, "moves")["status"]["nodeName"]
    own("delete", "node", lost)
    try:
        vm = own.wait_vm("moves", lambda vm: vm["status"]["phase"] == "Running" and vm["status"]["nodeName"] != lost)
        assert vm["status"]["incarnation"] == 1
        assert history(vm)[-4:] == ["Running", "Scheduling", "Scheduled", "Running"]
        own.eventually("get", "pods", "-o", "name", until=lambda text: text.split() == [f"pod/{pod_name(vm)}"])
    finally:
        plane.up()


# --- the controller itself -------------------------------------------------------------------------------------


def versions(kubectl: Kubectl) -> list[str]:
    """Return name and resourceVersion of every VM and every pod of a namespace."""
    return [
        f"{item['kind']}/{item['metadata']['name']}@{item['metadata']['resourceVersion']}"
        for item in kubectl.json("get", "vm,pods")["items"]
    ]


@pytest.mark.timeout(60)
def test_a_restarted_controller_writes_nothing(own: Kubectl, controller: Controller) -> None:
    """After SIGKILL it reconciles every VM, and nothing has to change."""
    for number in range(3):
        own.apply_vm(f"vm-{number}", running=number > 0)
    own.eventually(*phases(), until=lambda text: sorted(text.split()) == ["Running", "Running", "Stopped"])
    before = versions(own)
    controller.crash_and_restart()
    settle(controller)
    assert versions(own) == before


def settle(controller: Controller) -> None:
    """Wait until a restarted controller has reconciled every VM."""
    found = controller.wait_for("caches filled")["vms"]
    ends = time.monotonic() + TIMEOUT
    while controller.metric("controller_runtime_reconcile_total") < found or controller.metric("workqueue_depth"):
        assert time.monotonic() < ends
        time.sleep(0.05)
    assert controller.metric("controller_runtime_reconcile_errors_total") == 0
