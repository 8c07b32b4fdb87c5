"""Waiting for a VM: what ends it, and when."""

from __future__ import annotations

import pytest

from controller.domain.resources import VIRTUAL_MACHINES
from controller.kube import errors as kube
from controller.kube.resources import PODS
from controller.operations import vms
from controller.operations.errors import NoControllerError, NoSuchVMError, TimedOutError, UnschedulableError
from controller.operations.waiting import UNNOTICED, for_phase, until_no_pod
from tests.model.staged import Staged, later, now

pytestmark = pytest.mark.looptime

READY = ("Ready", "True", "GuestRunning", "")
HOMELESS = ("Ready", "False", "Unschedulable", "0/3 nodes:\nno room")


async def test_a_vm_in_the_phase_is_not_waited_for(cluster: Staged) -> None:
    """The call returns at once."""
    cluster.vm(phase="Running", conditions=[READY])
    assert (await for_phase(cluster, "default", "vm-1", "Running", timeout=60)).status.phase == "Running"
    assert now() == 0


async def test_the_wait_ends_with_the_event_that_brings_the_phase(cluster: Staged) -> None:
    """Not at the next poll."""
    cluster.vm()
    later(2.25, cluster.vm, phase="Running", conditions=[READY])
    await for_phase(cluster, "default", "vm-1", "Running", timeout=60)
    assert now() == 2.25


async def test_a_phase_that_passed_within_one_write_counts(cluster: Staged) -> None:
    """The history tells it."""
    cluster.vm(phase="Running", conditions=[READY])
    later(1, cluster.vm, phase="Running", conditions=[READY, ("PhaseScheduled", "True"), ("PhaseRunning", "True")])
    found = await for_phase(cluster, "default", "vm-1", "Scheduled", timeout=60)
    assert (now(), found.status.phase) == (1, "Running")


async def test_a_phase_that_passed_before_the_call_does_not_count(cluster: Staged) -> None:
    """Or one would not see the next pod come."""
    cluster.vm(phase="Running", conditions=[READY, ("PhaseScheduled", "True"), ("PhaseRunning", "True")])
    with pytest.raises(TimedOutError, match="after 5 s VM vm-1 is Running, not Scheduled"):
        await for_phase(cluster, "default", "vm-1", "Scheduled", timeout=5)


async def test_a_vm_that_is_not_there_is_not_waited_for(cluster: Staged) -> None:
    """It is an error at once."""
    with pytest.raises(NoSuchVMError, match="there is no VM vm-1 in namespace default: see kubectl get vm -A"):
        await for_phase(cluster, "default", "vm-1", "Running", timeout=60)
    assert now() == 0


async def test_a_vm_that_is_deleted_is_no_longer_waited_for(cluster: Staged) -> None:
    """It will never run."""
    cluster.vm()
    later(3, cluster.remove, VIRTUAL_MACHINES, "default/vm-1")
    with pytest.raises(NoSuchVMError, match="VM vm-1 was deleted before it was Running"):
        await for_phase(cluster, "default", "vm-1", "Running", timeout=60)
    assert now() == 3


async def test_a_vm_that_no_controller_writes_about_is_an_error(cluster: Staged) -> None:
    """After ten seconds, with what to do."""
    cluster.vm()
    with pytest.raises(
        NoControllerError, match=r"no controller has written a status for 10 s: start `vmsim controller`"
    ):
        await for_phase(cluster, "default", "vm-1", "Running", timeout=60)
    assert now() == UNNOTICED


async def test_a_controller_that_is_busy_with_other_vms_is_there(cluster: Staged) -> None:
    """Only its silence counts."""
    cluster.vm()
    cluster.vm("other")
    for second in (6, 12, 18):
        later(second, cluster.vm, "other", phase="Scheduling", conditions=[("PhasePending", "True", str(second))])
    with pytest.raises(NoControllerError):
        await for_phase(cluster, "default", "vm-1", "Running", timeout=60)
    assert now() == 18 + UNNOTICED


async def test_a_vm_that_was_taken_up_has_its_whole_time(cluster: Staged) -> None:
    """However long nothing is heard of it."""
    cluster.vm(phase="Scheduled", conditions=[("Ready", "False", "GuestNotRunning", "Pod p is not ready yet")])
    words = r"after 60 s VM vm-1 is Scheduled \(GuestNotRunning: Pod p is not ready yet\), not Running"
    with pytest.raises(TimedOutError, match=words):
        await for_phase(cluster, "default", "vm-1", "Running", timeout=60)
    assert now() == 60


async def test_a_vm_without_a_node_quotes_the_scheduler(cluster: Staged) -> None:
    """In one line."""
    cluster.vm(phase="Scheduling", conditions=[HOMELESS])
    with pytest.raises(UnschedulableError, match=r"Scheduling \(Unschedulable: 0/3 nodes: no room\), not Running"):
        await for_phase(cluster, "default", "vm-1", "Running", timeout=5)


async def test_a_wait_too_short_to_tell_wonders_about_the_controller(cluster: Staged) -> None:
    """It does not claim what it cannot know."""
    cluster.vm()
    with pytest.raises(TimedOutError, match=r"no controller has taken it up; does `vmsim controller` run\?"):
        await for_phase(cluster, "default", "vm-1", "Running", timeout=5)
    assert now() == 5


async def test_a_cluster_without_our_resources_is_an_error_at_once(cluster: Staged) -> None:
    """Not a VM that is not there."""
    cluster.failures["get virtualmachines"] = kube.NotFoundError(404, "", "404 page not found")
    with pytest.raises(kube.NotFoundError):
        await for_phase(cluster, "default", "vm-1", "Running", timeout=60)


async def test_a_deletion_is_complete_when_the_pod_is_gone(cluster: Staged) -> None:
    """A namesake's pod is another VM's."""
    cluster.vm()
    cluster.pod("virt-1", node="n1")
    deleted = await vms.delete(cluster, "default", "vm-1")
    cluster.vm()
    cluster.pod("virt-2")
    later(4, cluster.remove, PODS, "default/virt-1")
    await until_no_pod(cluster, deleted, timeout=60)
    assert now() == 4


async def test_a_pod_that_does_not_go_is_named(cluster: Staged) -> None:
    """When the time is over."""
    cluster.vm()
    cluster.pod("virt-1", node="n1")
    deleted = await vms.delete(cluster, "default", "vm-1")
    with pytest.raises(TimedOutError, match="VM vm-1 is deleted, but after 7 s its pod virt-1 is not"):
        await until_no_pod(cluster, deleted, timeout=7)
    assert now() == 7


async def test_a_pod_with_finalizers_is_named_with_them(cluster: Staged) -> None:
    """They are what a person has to look after."""
    cluster.vm()
    cluster.pod("virt-1", node="n1", finalizers=["example.com/a", "example.com/b"])
    deleted = await vms.delete(cluster, "default", "vm-1")
    pod = await cluster.get(PODS, "virt-1", namespace="default")
    await cluster.delete(PODS, "virt-1", namespace="default", uid=pod.metadata.uid)
    with pytest.raises(TimedOutError, match=r"terminating since .*, held by finalizers example.com/a, example.com/b"):
        await until_no_pod(cluster, deleted, timeout=7)
    assert now() == 7
