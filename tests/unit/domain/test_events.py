"""The Events of a status write."""

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


def test_started_names_the_node() -> None:
    """KubeVirt's Started."""
    machine = vm()
    [event] = events.transitions(machine.status, published(plan_for(machine, running(machine))))
    assert (event.reason, event.note) == ("Started", "The virtual machine runs on kwok-node-1")


def test_an_unchanged_status_causes_no_event() -> None:
    """Compared as a whole."""
    machine = settled(vm(), running(vm()))
    assert reasons(machine.status, machine.status) == []


def test_unschedulable_is_recorded_once() -> None:
    """In the scheduler's words; another wording causes no further Event."""
    machine = vm()
    first = published(plan_for(machine, pod(machine, unschedulable="0/3 nodes are available")))
    second = published(plan_for(with_status(machine, first), pod(machine, unschedulable="0/2 nodes are available")))
    assert reasons(machine.status, first) == [("Warning", "Unschedulable")]
    assert reasons(first, second) == []


def test_a_failed_pod_is_a_warning_with_its_reason() -> None:
    """The pod's own reason."""
    machine = vm()
    failed = pod(machine, phase="Failed", node="kwok-node-1", reason="Evicted")
    [event] = events.transitions(machine.status, published(plan_for(machine, failed)))
    assert (event.type, event.reason) == ("Warning", "PodFailed")
    assert event.note.endswith("ended as Failed: Evicted")


def test_a_stopped_vm_gets_the_event_stopped() -> None:
    """KubeVirt's Stopped."""
    machine = vm(running=False)
    assert reasons(machine.status, published(plan_for(machine))) == [("Normal", "Stopped")]


def test_a_warning_is_recorded_when_it_begins_and_not_while_it_lasts() -> None:
    """One for the first edit of the spec, none for the second."""
    before = settled(vm(), running(vm()))
    edited = msgspec.structs.replace(before, spec=vm(cpu="0.30").spec)
    after = published(plan_for(edited, running(vm())))
    assert reasons(before.status, after) == [("Warning", "RestartRequired")]
    again = published(plan_for(msgspec.structs.replace(edited, status=after, spec=vm(cpu="0.4").spec), running(vm())))
    assert reasons(after, again) == []


def test_an_invalid_spec_causes_one_event() -> None:
    """The phase Failed and the condition have the same reason."""
    machine = vm(cpu="x")
    assert reasons(machine.status, published(plan_for(machine))) == [("Warning", "InvalidSpec")]
