"""Statuses that follow a recorded one of another release, or one that was edited by hand."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from controller.domain.migration.backoff import LONGEST_BACKOFF, backoff
from controller.domain.objects import MigrationStatus, StartFailure, VirtualMachineMigration, VMStatus
from controller.domain.vm import start_backoff, status
from controller.domain.vm.plan import CreatePod
from controller.kube import times
from controller.kube.meta import Condition, ObjectMeta
from tests.unit.domain.builders import NOW, condition, history, plan_for, pod, published, running, vm


@pytest.mark.parametrize(
    "text", ["", "soon", "9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00", "2026-13-01", "NaN"]
)
def test_a_malformed_time_is_none(text: str) -> None:
    """Nor is a time beyond the calendar one: no arithmetic works with it."""
    assert times.parse_timestamp(text) is None


def test_a_history_with_a_phase_of_another_release_is_continued() -> None:
    """Its entries stay."""
    paused = Condition(type="PhasePaused", status="True", last_transition_time="2026-01-15T10:29:48Z")
    machine = vm(status=VMStatus(phase="Paused", incarnation=0, conditions=(paused,)))

    wanted = published(plan_for(machine, running(machine)))
    assert history(wanted)[0] == "Paused"
    assert history(wanted)[-1] == "Running"
    assert wanted.phase == "Running"


def test_a_malformed_time_in_the_history_is_not_repeated() -> None:
    """Otherwise every later phase would repeat it, and the API server would refuse the status."""
    malformed = Condition(type="PhasePending", status="True", last_transition_time="soon")
    machine = vm(status=VMStatus(incarnation=0, conditions=(malformed,)))

    wanted = published(plan_for(machine, running(machine)))
    recorded = [found.last_transition_time for found in wanted.conditions if found.type.startswith("PhaseS")]
    assert None not in [times.parse_timestamp(time) for time in recorded]


@pytest.mark.parametrize("count", [-(2**40), 2**40, 10**400])
def test_an_absurd_failure_count_gives_a_backoff_within_bounds(count: int) -> None:
    """Between KubeVirt's shortest and longest."""
    machine = vm(status=VMStatus(start_failure=StartFailure(consecutive_fail_count=count)))
    failure = start_backoff.start_failure(machine, pod(machine, phase="Failed"), now=NOW, jitter=0.0)

    again = times.parse_timestamp(failure.retry_after_timestamp)
    assert again is not None
    assert timedelta(seconds=10) <= again - NOW <= timedelta(seconds=300)


def test_a_start_waits_at_most_the_longest_backoff() -> None:
    """A time far in the future, written by hand, would keep the VM down for ever."""
    far = StartFailure(consecutive_fail_count=1, retry_after_timestamp="9999-01-01T00:00:00Z")
    machine = vm(status=VMStatus(phase="Failed", incarnation=0, pod_uid="gone", start_failure=far))

    assert plan_for(machine).requeue_after == start_backoff.LONGEST


@pytest.mark.parametrize(
    ("failures", "ended"), [(3000, "2026-01-15T10:29:59Z"), (1, "9999-01-01T00:00:00Z"), (2, "soon")]
)
def test_the_backoff_of_a_migration_is_an_hour_at_most(failures: int, ended: str) -> None:
    """For any number of failures, and any recorded time."""
    failed = VirtualMachineMigration(
        metadata=ObjectMeta(name="m"),
        status=MigrationStatus(phase="Failed", end_timestamp=ended, start_timestamp=ended, vm_uid="uid-1"),
    )

    waits = backoff((failed,) * failures, "uid-1", NOW)
    assert waits is None or 0 < waits.left <= LONGEST_BACKOFF


def test_steps_of_the_first_incarnation_skip_unknown_phases() -> None:
    """Another release may have written them."""
    old = vm(status=VMStatus(incarnation=0))
    names = ("PhasePending", "PhasePaused", "Phase", "PhaseRunning", "Ready")
    conditions = tuple(Condition(type=name, status="True", last_transition_time=None) for name in names)
    new = msgspec.structs.replace(old, status=VMStatus(incarnation=0, conditions=conditions))

    assert [step.phase for step in status.first_steps(old, new)] == ["Pending", "Running"]


def test_a_spec_with_a_field_that_did_not_decode_starts_no_pod() -> None:
    """The default that stands for `running: "no"` is true."""
    machine = msgspec.structs.replace(vm(), unreadable=("spec.running: Expected `bool`, got `str`",))

    plan = plan_for(machine)
    assert not any(isinstance(action, CreatePod) for action in plan.actions)
    ready = condition(published(plan), "Ready")
    assert (published(plan).phase, ready.reason, ready.message) == ("Failed", "InvalidSpec", machine.unreadable[0])


def test_a_running_vm_keeps_its_pod_when_its_spec_does_not_decode() -> None:
    """The condition InvalidSpec reports it."""
    machine = msgspec.structs.replace(vm(), unreadable=("spec.running: Expected `bool`, got `str`",))

    wanted = published(plan_for(machine, running(vm())))
    assert (wanted.phase, condition(wanted, "InvalidSpec").status) == ("Running", "True")


def test_a_status_with_a_field_that_did_not_decode_does_not_stop_the_vm() -> None:
    """It is overwritten."""
    machine = msgspec.structs.replace(vm(), unreadable=("status.phase: Expected `str`, got `int`",))

    assert any(isinstance(action, CreatePod) for action in plan_for(machine).actions)


def test_a_pod_that_no_scheduler_has_taken_up_names_the_scheduler_that_it_waits_for() -> None:
    """After five seconds of silence, and with one write."""
    machine = vm()
    machine = msgspec.structs.replace(machine, spec=msgspec.structs.replace(machine.spec, scheduler_name="packing"))
    waiting = pod(machine)
    before = plan_for(machine, waiting, unplaced_for=3)
    assert (condition(published(before), "Ready").reason, before.requeue_after) == ("GuestNotRunning", 2)
    after = plan_for(machine, waiting, unplaced_for=5)
    found = condition(published(after), "Ready")
    assert (found.reason, after.requeue_after, after.progressing) == ("NotScheduled", None, False)
    assert "schedulerName packing" in found.message
    told = msgspec.structs.replace(machine, status=published(after))
    assert plan_for(told, waiting, unplaced_for=3600).actions == ()
    assert plan_for(told, waiting, unplaced_for=0).actions == ()  # a new process has waited less


@pytest.mark.parametrize("word", [{"unschedulable": "no node"}, {"node": "kwok-node-1"}])
def test_a_pod_of_which_a_scheduler_has_reported_is_not_waited_for(word: dict[str, str]) -> None:
    """Whatever it reported."""
    assert not status.unnoticed(pod(vm(), **word))  # type: ignore[arg-type]


def test_a_message_that_quotes_what_a_user_wrote_is_bounded() -> None:
    """Every status write repeats it."""
    machine = vm(annotations={f"key-{number}": "x" * 9999 for number in range(99)})
    found = published(plan_for(machine, running(machine)))
    assert max(len(each.message) for each in found.conditions) <= 2048
    assert condition(found, "AnnotationsLeftOut").message.endswith("and 88 more")
