"""The Python API against the real control plane, with the real controller."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from controller.controlplane.plane import ControlPlane
from controller.sdk import errors
from controller.sdk.node import VM, Node
from controller.sdk.pod_manager import PodManager
from controller.sdk.prometheus_exporter import ExporterState
from controller.sdk.vm_manager import VMManager
from tests.integration.conftest import REPOSITORY
from tests.integration.tools import Controller, Kubectl

pytestmark = pytest.mark.timeout(60)  # the first test starts a control plane


@pytest.fixture(scope="module")
def controller(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controller]:
    """Run the controller for the namespace default alone."""
    log = tmp_path_factory.mktemp("sdk-controller") / "log"
    with Controller.start(plane.kubeconfig, log, "--namespaces", "default") as process:
        yield process


@pytest.fixture
def vms(kubectl: Kubectl, controller: Controller, request: pytest.FixtureRequest) -> VMManager:
    """Return a manager of a namespace that a controller watches; leave the namespace empty."""
    request.getfixturevalue("clean")
    assert controller.process.poll() is None
    return VMManager(kubeconfig=str(kubectl.kubeconfig))


@pytest.fixture
def pods(kubectl: Kubectl, vms: VMManager) -> PodManager:
    """Return the other manager of the same namespace."""
    assert vms.list_vms() == []
    return PodManager(kubeconfig=str(kubectl.kubeconfig))


@pytest.fixture
def bare(kubectl: Kubectl, vms: VMManager) -> Iterator[PodManager]:
    """Return a manager that creates no VMs; leave none of its pods behind."""
    assert vms.list_vms() == []
    yield PodManager(create_vm_crs=False, kubeconfig=str(kubectl.kubeconfig))
    kubectl("delete", "pods", "--all")


# --- VMManager -----------------------------------------------------------------------------------------------


def test_a_vm_is_created_awaited_read_and_deleted(kubectl: Kubectl, vms: VMManager) -> None:
    """Numbers are accepted; the resource's own strings are returned."""
    created = vms.create_vm("vm-1", cpu=0.1, memory="0.20", cpu_consumption=0.05)
    assert (created.phase, created.pod_name) == ("Pending", None)
    status = vms.wait_for_phase("vm-1", timeout=15)
    assert (status.phase, status.cpu_consumption, status.memory_consumption) == ("Running", "0.05", "0.20")
    resource = kubectl.json("get", "vm", "vm-1")
    assert (status.node_name, status.pod_name) == (resource["status"]["nodeName"], resource["status"]["podName"])
    assert resource["spec"] == {"resources": {"cpu": "0.1", "memory": "0.20"}, "running": True}
    assert vms.get_vm_status("vm-1") == status
    assert status.conditions[0].type == "Ready"
    assert status.created_at is not None
    assert abs(datetime.now(UTC) - status.created_at) < timedelta(minutes=5)
    vms.delete_vm("vm-1")
    with pytest.raises(errors.NoSuchVMError, match="there is no VM vm-1 in namespace default"):
        vms.get_vm_status("vm-1")


def test_a_list_shows_what_kubectl_shows(kubectl: Kubectl, vms: VMManager) -> None:
    """Field by field, also those that we do not decode."""
    for name in ("vm-2", "vm-1"):
        vms.create_vm(VM(id=name, cpu_consumption=0.1, memory_consumption=0.1))
        vms.wait_for_phase(name, timeout=15)
    assert vms.list_vms() == kubectl.json("get", "vm")["items"]


def test_a_phase_that_was_passed_is_not_missed(kubectl: Kubectl, vms: VMManager) -> None:
    """A replaced pod passes Scheduled between two reads."""
    vms.create_vm("vm-1", 0.1, 0.1)
    pod = vms.wait_for_phase("vm-1", timeout=15).pod_name
    timer = threading.Timer(1, lambda: kubectl("delete", "pod", str(pod)))
    timer.start()
    assert vms.wait_for_phase("vm-1", "Scheduled", timeout=15).pod_name != pod
    timer.join()


def test_an_unschedulable_vm_is_an_error_with_the_schedulers_message(vms: VMManager) -> None:
    """After the timeout."""
    vms.create_vm("huge", cpu=5, memory=0.1)
    with pytest.raises(errors.UnschedulableError, match=r"VM huge is Scheduling .*Insufficient cpu.*, not Running"):
        vms.wait_for_phase("huge", timeout=2)


def test_a_second_vm_of_a_name_is_refused(vms: VMManager) -> None:
    """The message names the next step."""
    vms.create_vm("vm-1", 0.1, 0.1)
    with pytest.raises(errors.VMExistsError, match="delete it first"):
        vms.create_vm("vm-1", 0.2, 0.2)


def test_a_refusal_quotes_the_api_server(kubectl: Kubectl) -> None:
    """Of a create in a missing namespace."""
    with pytest.raises(errors.RefusedError, match='namespaces "nowhere" not found') as refused:
        VMManager("nowhere", str(kubectl.kubeconfig)).create_vm("vm-1", 0.1, 0.1)
    assert (refused.value.code, refused.value.reason) == (404, "NotFound")


def test_cleaning_up_leaves_no_vm(kubectl: Kubectl, vms: VMManager) -> None:
    """More VMs than are deleted concurrently."""
    for number in range(20):
        vms.create_vm(f"vm-{number}", 0.01, 0.01)
    assert vms.cleanup_all_vms() == 20
    assert kubectl("get", "vm", "-o", "name") == ""
    assert vms.cleanup_all_vms() == 0


# --- PodManager ----------------------------------------------------------------------------------------------


def test_a_pod_is_created_moved_and_deleted(kubectl: Kubectl, pods: PodManager) -> None:
    """By its VM, through the controller."""
    vm = VM(id="vm-1", cpu_consumption=0.1, memory_consumption=0.1)
    pods.create_pod(vm)
    assert re.fullmatch(r"virt-launcher-vm-1-[a-z0-9]{5}", str(vm.pod_name))
    pods.update_vm_node_assignments([vm])
    status = kubectl.json("get", "vm", "vm-1")["status"]
    assert (status["phase"], vm.node_name, vm.pod_name) == ("Running", status["nodeName"], status["podName"])
    source = (vm.node_name, vm.pod_name)
    moved = pods.migrate(vm, reason="rehearsal")
    migration = kubectl.json("get", "vmm", str(moved.name))
    assert (migration["spec"]["reason"], migration["spec"]["priority"]) == ("rehearsal", "user-triggered")
    status = migration["status"]
    assert (moved.source_node, moved.source_pod) == source
    assert (moved.target_node, moved.target_pod) == (vm.node_name, vm.pod_name)
    assert (moved.target_node, str(moved.downtime_seconds)) == (
        status["targetNode"],
        str(float(status["downtimeSeconds"])),
    )
    assert moved.target_node != moved.source_node
    pods.delete_pod(vm)
    assert kubectl("get", "vm,pod", "-o", "name") == ""
    assert (vm.pod_name, vm.node_name) == (None, None)


def test_an_impossible_move_is_an_error_without_a_move(pods: PodManager, vms: VMManager) -> None:
    """With the controller's reason."""
    vm = VM("vm-1", 0.1, 0.1)
    pods.create_pod(vm)
    before = vms.wait_for_phase("vm-1", timeout=15)
    with pytest.raises(errors.MigrationFailedError, match="vm-1 did not move: TargetNotFound: ") as failed:
        pods.migrate(vm, "nowhere")
    assert failed.value.reason == "TargetNotFound"
    assert vms.get_vm_status("vm-1").pod_name == before.pod_name


def test_update_waits_until_a_wrong_status_is_corrected(kubectl: Kubectl, pods: PodManager) -> None:
    """Another client edited it; the controller derives it again."""
    vm = VM("vm-1", 0.1, 0.1)
    pods.create_pod(vm)
    pods.update_vm_node_assignments([vm])
    wrong = json.dumps({"status": {"nodeName": "elsewhere", "podName": "another", "phase": "Pending"}})
    kubectl("patch", "vm", "vm-1", "--subresource=status", "--type=merge", "-p", wrong)
    again = VM("vm-1", 0.1, 0.1, pod_name="another")
    pods.update_vm_node_assignments([again])
    assert again == vm
    assert kubectl.json("get", "vm", "vm-1")["status"]["phase"] == "Running"


def test_every_call_reports_a_missing_controller(kubectl: Kubectl, vms: VMManager, tmp_path: Path) -> None:
    """After ten seconds; the requested objects stay."""
    assert vms.list_vms() == []
    with kubectl.own_namespace(tmp_path) as own:
        manager = PodManager(namespace=own.namespace, kubeconfig=str(own.kubeconfig))
        with pytest.raises(errors.NoControllerError, match="start `vmsim controller`"):
            manager.create_pod(VM("lonely", 0.1, 0.1))
        assert own("get", "vm", "-o", "name").endswith("/lonely\n")


# --- bare pods -----------------------------------------------------------------------------------------------


def test_bare_pods_have_no_vm_and_look_like_launchers(kubectl: Kubectl, bare: PodManager) -> None:
    """The scheduler places them; the caller moves and deletes them."""
    vm = VM("vm-1", 0.1, 0.25)
    bare.create_pod(vm)
    bare.update_vm_node_assignments([vm])
    pod = kubectl.json("get", "pod", str(vm.pod_name))
    assert kubectl("get", "vm", "-o", "name") == ""
    assert "ownerReferences" not in pod["metadata"]
    assert pod["metadata"]["labels"]["kubevirt.io"] == "virt-launcher"
    assert pod["metadata"]["annotations"]["simulation.node-classifier.io/cpu-consumption"] == "0.1"
    assert pod["spec"]["containers"][0]["resources"]["requests"] == {"cpu": "3200m", "memory": str(64 * 2**30)}
    assert pod["spec"]["nodeName"] == vm.node_name
    moved = bare.migrate(vm)
    assert moved.name is None
    assert moved.source_pod == pod["metadata"]["name"]
    assert moved.target_node not in (None, moved.source_node)
    assert kubectl("get", "pod", "-o", "jsonpath={.items[*].metadata.name}") == vm.pod_name
    bare.delete_pod(vm)
    assert kubectl("get", "pod", "-o", "name") == ""


def test_a_bare_manager_does_not_touch_the_pods_of_vms(kubectl: Kubectl, pods: PodManager, bare: PodManager) -> None:
    """They are the controller's."""
    vm = VM("vm-1", 0.1, 0.1)
    pods.create_pod(vm)
    with pytest.raises(errors.NoSuchVMError, match="vm-1 has no pod of its own"):
        bare.delete_pod(VM("vm-1", 0.1, 0.1))
    assert kubectl("get", "pod", "-o", "jsonpath={.items[*].metadata.name}") == vm.pod_name


# --- scenarios -----------------------------------------------------------------------------------------------


def test_a_scenario_is_loaded_once(kubectl: Kubectl, vms: VMManager) -> None:
    """A second load changes nothing, and returns the same."""
    state = ExporterState(kubeconfig=str(kubectl.kubeconfig))
    first = [Node("sdk-node-1", vms=[VM("vm-1", 0.1, 0.15), VM("vm-2", 0.2, 0.25)], cpu=16, labels={"rack": "a"})]
    try:
        state.load_scenario(first, create_nodes=True)
        made = kubectl.json("get", "vm,node")["items"]
        again = [Node("sdk-node-1", vms=[VM("vm-1", 0.1, 0.15), VM("vm-2", 0.2, 0.25)], cpu=16, labels={"rack": "a"})]
        state.load_scenario(again, create_nodes=True)
        assert again == first
        uids = {item["metadata"]["uid"] for item in made}
        assert {item["metadata"]["uid"] for item in kubectl.json("get", "vm,node")["items"]} == uids
        assert vms.get_vm_status("vm-2").node_name == first[0].vms[1].node_name
        [node] = [item for item in made if item["metadata"]["name"] == "sdk-node-1"]
        assert (node["status"]["allocatable"]["cpu"], node["metadata"]["labels"]["rack"]) == ("16", "a")
    finally:
        kubectl("delete", "node", "sdk-node-1", "--ignore-not-found")


# --- the process it runs in ----------------------------------------------------------------------------------


def test_managers_serve_several_threads(vms: VMManager) -> None:
    """Each gets its own answer."""
    threads = [threading.Thread(target=vms.create_vm, args=(f"vm-{i}", 0.01, 0.01)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [vm["metadata"]["name"] for vm in vms.list_vms()] == [f"vm-{i}" for i in range(8)]


def run_script(kubectl: Kubectl, script: str) -> tuple[str, str]:
    """Run a user's script to its end; return its output and its error output."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env=kubectl.environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.stdout, done.stderr


def test_ctrl_c_ends_a_wait_with_keyboard_interrupt(kubectl: Kubectl, vms: VMManager) -> None:
    """At once; the manager can be used afterwards, and the process ends without further output."""
    vms.create_vm("huge", cpu=5, memory=0.1)
    script = """
        import os, signal, threading
        from controller.sdk.vm_manager import VMManager
        vms = VMManager()
        vms.get_vm_status("huge")
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            vms.wait_for_phase("huge", timeout=25)
        except KeyboardInterrupt:
            print("interrupted")
        print(vms.get_vm_status("huge").phase)
    """
    assert run_script(kubectl, script) == ("interrupted\nScheduling\n", "")


def test_a_forked_child_has_connections_of_its_own(kubectl: Kubectl, vms: VMManager) -> None:
    """Those of its parent stay usable."""
    vms.create_vm("vm-1", 0.1, 0.1)
    script = """
        import os
        from controller.sdk.vm_manager import VMManager
        vms = VMManager()
        before = vms.get_vm_status("vm-1").created_at
        child = os.fork()
        assert vms.get_vm_status("vm-1").created_at == before
        if child:
            print("child", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    assert run_script(kubectl, script) == ("child 0\n", "")


def test_the_examples_of_the_document_run(
    kubectl: Kubectl, vms: VMManager, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Block by block, in one namespace."""
    monkeypatch.setenv("KUBECONFIG", str(kubectl.kubeconfig))
    text = (REPOSITORY / "docs" / "python-api.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 4
    names: dict[str, object] = {}
    try:
        for number, block in enumerate(blocks, 1):
            exec(compile(block, f"docs/python-api.md, block {number}", "exec"), names)  # noqa: S102 - our own examples
    finally:
        kubectl("delete", "node", "rehearsal-1", "--ignore-not-found")
        kubectl("uncordon", "-l", "type=kwok")
    assert vms.list_vms() == []
    printed = capsys.readouterr().out
    for line in (
        "Running on kwok-node-",
        " → kwok-node-",
        "default/db-1: kwok-node-",
        "app-2 on ",
        "Insufficient cpu",
        "5 VMs deleted",
        "no VM db-1",
    ):
        assert line in printed
