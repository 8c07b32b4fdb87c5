"""A status is derived from whatever was recorded before, also by another release or by hand."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from controller.domain.migration.backoff import LONGEST_BACKOFF, backoff
from controller.domain.objects import MigrationStatus, StartFailure, VirtualMachineMigration, VMStatus
from controller.domain.vm import status
from controller.domain.vm.plan import CreatePod
from controller.kube import times
from controller.kube.meta import Condition, ObjectMeta
from tests.unit.domain.builders import NOW, condition, history, plan_for, pod, published, running, vm


@pytest.mark.parametrize(
    "text", ["", "soon", "9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00", "2026-13-01", "NaN"]
)
def test_what_is_no_time_is_none(text: str) -> None:
    """Nor is a time beyond the calendar: nothing can be reckoned with it."""
    assert times.parse_timestamp(text) is None


def test_a_history_with_a_phase_of_another_release_is_kept_and_goes_on() -> None:
    """What that release wrote is left alone."""
    paused = Condition(type="PhasePaused", status="True", last_transition_time="2026-01-15T10:29:48Z")
    machine = vm(status=VMStatus(phase="Paused", incarnation=0, conditions=(paused,)))

    wanted = published(plan_for(machine, running(machine)))
    assert history(wanted)[0] == "Paused"
    assert history(wanted)[-1] == "Running"
    assert wanted.phase == "Running"


def test_a_time_in_the_history_that_is_none_holds_up_no_later_one() -> None:
    """Else it would be repeated with every phase that follows, and the API server would refuse them all."""
    odd = Condition(type="PhasePending", status="True", last_transition_time="soon")
    machine = vm(status=VMStatus(incarnation=0, conditions=(odd,)))

    wanted = published(plan_for(machine, running(machine)))
    told = [found.last_transition_time for found in wanted.conditions if found.type.startswith("PhaseS")]
    assert None not in [times.parse_timestamp(time) for time in told]


@pytest.mark.parametrize("count", [-(2**40), 2**40, 10**400])
def test_a_count_of_failures_that_is_none_of_ours_still_gives_a_backoff(count: int) -> None:
    """From KubeVirt's shortest to its longest."""
    machine = vm(status=VMStatus(start_failure=StartFailure(consecutive_fail_count=count)))
    failure = status.start_failure(machine, pod(machine, phase="Failed"), now=NOW, jitter=0.0)

    again = times.parse_timestamp(failure.retry_after_timestamp)
    assert again is not None
    assert timedelta(seconds=10) <= again - NOW <= timedelta(seconds=300)


def test_a_start_waits_no_longer_than_kubevirt_would_whatever_the_status_says() -> None:
    """A time far in the future, written by hand, would keep the VM down for ever."""
    far = StartFailure(consecutive_fail_count=1, retry_after_timestamp="9999-01-01T00:00:00Z")
    machine = vm(status=VMStatus(phase="Failed", incarnation=0, pod_uid="gone", start_failure=far))

    assert plan_for(machine).requeue_after == status.LONGEST_START_BACKOFF


@pytest.mark.parametrize(
    ("failures", "ended"), [(3000, "2026-01-15T10:29:59Z"), (1, "9999-01-01T00:00:00Z"), (2, "soon")]
)
def test_earlier_migrations_make_the_next_one_wait_an_hour_at_most(failures: int, ended: str) -> None:
    """However many failed, and whenever they say that they did."""
    failed = VirtualMachineMigration(
        metadata=ObjectMeta(name="m"),
        status=MigrationStatus(phase="Failed", end_timestamp=ended, start_timestamp=ended, vm_uid="uid-1"),
    )

    waits = backoff((failed,) * failures, "uid-1", NOW)
    assert waits is None or 0 < waits.left <= LONGEST_BACKOFF


def test_steps_of_a_first_life_leave_out_what_no_phase_is() -> None:
    """Whatever another release calls its own."""
    old = vm(status=VMStatus(incarnation=0))
    names = ("PhasePending", "PhasePaused", "Phase", "PhaseRunning", "Ready")
    conditions = tuple(Condition(type=name, status="True", last_transition_time=None) for name in names)
    new = msgspec.structs.replace(old, status=VMStatus(incarnation=0, conditions=conditions))

    assert [step.phase for step in status.first_steps(old, new)] == ["Pending", "Running"]


def test_a_spec_that_was_not_read_whole_starts_no_pod_and_says_why() -> None:
    """What stands for `running: "no"` is true, which nobody wrote."""
    machine = msgspec.structs.replace(vm(), unreadable=("spec.running: Expected `bool`, got `str`",))

    plan = plan_for(machine)
    assert not any(isinstance(action, CreatePod) for action in plan.actions)
    ready = condition(published(plan), "Ready")
    assert (published(plan).phase, ready.reason, ready.message) == ("Failed", "InvalidSpec", machine.unreadable[0])


def test_a_vm_that_runs_goes_on_when_its_spec_cannot_be_read_any_more() -> None:
    """Its pod is neither stopped nor replaced for that."""
    machine = msgspec.structs.replace(vm(), unreadable=("spec.running: Expected `bool`, got `str`",))

    wanted = published(plan_for(machine, running(vm())))
    assert (wanted.phase, condition(wanted, "InvalidSpec").status) == ("Running", "True")


def test_a_status_that_was_not_read_whole_is_no_matter_of_the_spec() -> None:
    """It is written anew."""
    machine = msgspec.structs.replace(vm(), unreadable=("status.phase: Expected `str`, got `int`",))

    assert any(isinstance(action, CreatePod) for action in plan_for(machine).actions)
