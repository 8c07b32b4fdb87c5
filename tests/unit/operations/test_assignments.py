"""Waiting until VMs are settled: the status of each agrees with its pod."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from controller.domain.objects import VMStatus
from controller.domain.resources import VIRTUAL_MACHINES
from controller.kube.resources import PODS
from controller.kube.times import timestamp
from controller.operations.assignments import disagrees, hindrance, settled
from controller.operations.errors import NoControllerError, NoSuchVMError, TimedOutError
from controller.operations.waiting import UNNOTICED
from tests.model.staged import Staged, later, now
from tests.unit.domain import builders

READY = ("Ready", "True", "GuestRunning", "")
RUNNING: dict[str, Any] = {"phase": "Running", "podName": "virt-1", "nodeName": "n1", "conditions": [READY]}

VM = builders.settled(builders.vm(), builders.running(builders.vm()))
POD = builders.running(VM)
WAITING = builders.pod(VM, unschedulable="0/3 nodes")
SCHEDULING = builders.settled(builders.vm(), WAITING)
STOPPED = builders.settled(builders.vm(running=False))


# --- one VM --------------------------------------------------------------------------------------------------


def test_a_status_that_was_derived_from_its_pod_agrees_with_it() -> None:
    """Then the VM is settled."""
    assert not disagrees(VM, POD)
    assert hindrance(VM, POD) is None


@pytest.mark.parametrize("wrong", [{"phase": "Scheduled"}, {"node_name": "other"}, {"pod_name": "virt-other"}], ids=str)
def test_each_wrong_field_is_a_disagreement(wrong: dict[str, str]) -> None:
    """Both sides are quoted."""
    vm = msgspec.structs.replace(VM, status=msgspec.structs.replace(VM.status, **wrong))
    assert disagrees(vm, POD)
    said = hindrance(vm, POD) or ""
    assert "VM vm-1 says " in said
    assert next(iter(wrong.values())) in said
    assert f"but its pod says Running ({POD.metadata.name} on kwok-node-1)" in said


def test_a_vm_that_runs_without_a_pod_is_a_disagreement() -> None:
    """The controller has not seen the deletion of the pod."""
    assert hindrance(VM, None) == f"VM vm-1 says Running ({POD.metadata.name} on kwok-node-1), but has no pod"


def test_a_status_that_was_never_written_is_a_disagreement() -> None:
    """Pending is only what the API server puts there."""
    assert disagrees(builders.vm(), None)
    assert hindrance(builders.vm(), None) == "VM vm-1 is Pending, and its status was never written"


def test_a_vm_that_finds_no_node_is_settled() -> None:
    """Nothing will change by waiting."""
    assert hindrance(SCHEDULING, WAITING) is None


def test_a_stopped_vm_is_settled() -> None:
    """It has no pod, and shall have none."""
    assert hindrance(STOPPED, None) is None


def test_a_vm_that_is_deleted_and_held_is_settled() -> None:
    """It has no pod, and shall have none, whatever its spec says."""
    held = builders.settled(builders.vm(deleted=True, finalizers=("example.com/hold",)))
    assert hindrance(held, None) is None


def test_a_stopped_vm_that_was_started_is_a_disagreement() -> None:
    """Until the controller has heard of it."""
    started = msgspec.structs.replace(STOPPED, spec=builders.vm().spec)
    assert disagrees(started, None)


def test_a_pod_that_is_being_deleted_is_waited_for() -> None:
    """The status of a VM with a terminating pod is never wrong."""
    going = builders.pod(VM, phase="Running", node="kwok-node-1", terminating=True)
    behind = msgspec.structs.replace(VM, status=msgspec.structs.replace(VM.status, phase="Scheduled"))
    assert not disagrees(behind, going)
    assert hindrance(behind, going) == f"VM vm-1: pod {POD.metadata.name} is being deleted"


def test_a_pod_that_has_not_been_scheduled_yet_is_waited_for() -> None:
    """The scheduler has not said no."""
    pod = builders.pod(VM)
    young = msgspec.structs.replace(
        pod, metadata=msgspec.structs.replace(pod.metadata, creation_timestamp=timestamp(builders.NOW))
    )
    vm = builders.settled(builders.vm(), young)
    assert (hindrance(vm, young) or "").startswith("VM vm-1 is Scheduling (GuestNotRunning: ")


def test_a_vm_whose_pod_is_refused_says_why() -> None:
    """As the controller noted it."""
    vm = builders.vm(
        status=VMStatus(conditions=builders.published(builders.plan_for(builders.vm(), refusal="a quota")).conditions)
    )
    assert hindrance(vm, None) == "VM vm-1 is Pending (FailedCreate: a quota)"


# --- several of them -----------------------------------------------------------------------------------------


@pytest.mark.looptime
async def test_the_wait_ends_when_the_last_one_is_settled(cluster: Staged) -> None:
    """Here: when the status follows its pod."""
    cluster.vm(**RUNNING)
    cluster.pod("virt-1", node="n1", phase="Running")
    cluster.vm("vm-2", phase="Scheduling", podName="virt-2", conditions=[("Ready", "False", "GuestNotRunning", "")])
    cluster.pod("virt-2", "vm-2")
    later(2, cluster.pod, "virt-2", "vm-2", node="n2", phase="Running")
    later(3, cluster.vm, "vm-2", phase="Running", podName="virt-2", nodeName="n2", conditions=[READY])
    found = await settled(cluster, "default", ["vm-1", "vm-2"], timeout=60)
    assert now() == 3
    assert {name: vm.status.node_name for name, vm in found.items()} == {"vm-1": "n1", "vm-2": "n2"}


@pytest.mark.looptime
async def test_the_pod_of_the_newest_incarnation_counts(cluster: Staged) -> None:
    """The pod of an earlier incarnation may still exist."""
    cluster.vm(phase="Scheduling", podName="virt-2", conditions=[("Ready", "False", "PodNotExists", "")])
    cluster.pod("virt-1", node="n1", phase="Running")
    owner = cluster.objects[PODS.plural, "default/virt-1"]["metadata"]
    second = {**owner, "annotations": {"simulation.node-classifier.io/incarnation": "1"}}
    cluster.put(PODS.plural, "default/virt-2", metadata=second, spec={"nodeName": "n2"}, status={"phase": "Running"})
    later(1, cluster.vm, phase="Running", podName="virt-2", nodeName="n2", conditions=[READY])
    found = await settled(cluster, "default", ["vm-1"], timeout=60)
    assert (now(), found["vm-1"].status.pod_name) == (1, "virt-2")


@pytest.mark.looptime
async def test_a_wrong_status_that_no_controller_corrects_is_an_error(cluster: Staged) -> None:
    """After ten seconds; the error names the pod's true state."""
    cluster.vm(**{**RUNNING, "nodeName": "elsewhere"})
    cluster.pod("virt-1", node="n1", phase="Running")
    words = r"says Running \(virt-1 on elsewhere\), but its pod says Running \(virt-1 on n1\), and no controller"
    with pytest.raises(NoControllerError, match=words):
        await settled(cluster, "default", ["vm-1"], timeout=60)
    assert now() == UNNOTICED


@pytest.mark.looptime
async def test_a_vm_that_is_not_there_is_an_error_at_once(cluster: Staged) -> None:
    """The other VMs do not matter."""
    cluster.vm(phase="Scheduling", conditions=[("Ready", "False", "GuestNotRunning", "")])
    with pytest.raises(NoSuchVMError, match="there is no VM vm-2 in namespace default"):
        await settled(cluster, "default", ["vm-1", "vm-2"], timeout=60)
    assert now() == 0


@pytest.mark.looptime
async def test_a_vm_that_is_deleted_meanwhile_is_an_error(cluster: Staged) -> None:
    """It will not settle."""
    cluster.vm(phase="Scheduling", podName="virt-1", conditions=[("Ready", "False", "GuestNotRunning", "")])
    cluster.pod("virt-1")
    later(4, cluster.remove, VIRTUAL_MACHINES, "default/vm-1")
    with pytest.raises(NoSuchVMError):
        await settled(cluster, "default", ["vm-1"], timeout=60)
    assert now() == 4


@pytest.mark.looptime
async def test_every_vm_that_does_not_settle_is_named_at_the_timeout(cluster: Staged) -> None:
    """Not only the first one."""
    for name in ("vm-1", "vm-2"):
        cluster.vm(name, phase="Scheduling", podName=f"pod-{name}", conditions=[("Ready", "False", "Slow", "")])
        cluster.pod(f"pod-{name}", name)
    words = r"after 20 s: VM vm-1 is Scheduling \(Slow\); VM vm-2 is Scheduling \(Slow\)"
    with pytest.raises(TimedOutError, match=words):
        await settled(cluster, "default", ["vm-1", "vm-2"], timeout=20)
    assert now() == 20
