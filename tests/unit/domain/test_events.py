"""Which events a status write is worth."""

from __future__ import annotations

import msgspec

from controller.domain.objects import VirtualMachine, VMStatus
from controller.domain.vm import events
from tests.unit.domain.builders import plan_for, pod, published, running, settled, vm


def reasons(before: VMStatus, after: VMStatus) -> list[tuple[str, str]]:
    """Type and reason of each event."""
    return [(event.type, event.reason) for event in events.transitions(before, after)]


def with_status(machine: VirtualMachine, status: VMStatus) -> VirtualMachine:
    """The VM after a write."""
    return msgspec.structs.replace(machine, status=status)


def test_a_vm_that_starts_says_where() -> None:
    """KubeVirt's Started."""
    machine = vm()
    [event] = events.transitions(machine.status, published(plan_for(machine, running(machine))))
    assert (event.reason, event.note) == ("Started", "The virtual machine runs on kwok-node-1")


def test_an_unchanged_status_is_worth_nothing() -> None:
    """Telling it again would be noise."""
    machine = settled(vm(), running(vm()))
    assert reasons(machine.status, machine.status) == []


def test_a_vm_that_fits_nowhere_says_so_once() -> None:
    """The scheduler's own words; a new wording of the same is no news."""
    machine = vm()
    first = published(plan_for(machine, pod(machine, unschedulable="0/3 nodes are available")))
    second = published(plan_for(with_status(machine, first), pod(machine, unschedulable="0/2 nodes are available")))
    assert reasons(machine.status, first) == [("Warning", "Unschedulable")]
    assert reasons(first, second) == []


def test_a_failed_pod_is_a_warning_with_its_reason() -> None:
    """What the pod said of its end."""
    machine = vm()
    failed = pod(machine, phase="Failed", node="kwok-node-1", reason="Evicted")
    [event] = events.transitions(machine.status, published(plan_for(machine, failed)))
    assert (event.type, event.reason) == ("Warning", "PodFailed")
    assert event.note.endswith("ended as Failed: Evicted")


def test_a_stopped_vm_says_so() -> None:
    """KubeVirt's Stopped."""
    machine = vm(running=False)
    assert reasons(machine.status, published(plan_for(machine))) == [("Normal", "Stopped")]


def test_a_warning_is_told_when_it_begins_and_not_while_it_lasts() -> None:
    """An edit of the spec asks for a restart once."""
    before = settled(vm(), running(vm()))
    edited = msgspec.structs.replace(before, spec=vm(cpu="0.30").spec)
    after = published(plan_for(edited, running(vm())))
    assert reasons(before.status, after) == [("Warning", "RestartRequired")]
    again = published(plan_for(msgspec.structs.replace(edited, status=after, spec=vm(cpu="0.4").spec), running(vm())))
    assert reasons(after, again) == []


def test_an_invalid_spec_is_told_once_not_twice() -> None:
    """Its phase says it already."""
    machine = vm(cpu="x")
    assert reasons(machine.status, published(plan_for(machine))) == [("Warning", "InvalidSpec")]
