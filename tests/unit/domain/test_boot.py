"""The boot of a VM: its pod has started, and its guest does not run yet."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec
import pytest

from controller.domain import names
from controller.domain.objects import VirtualMachine
from controller.domain.vm import boot, launcher
from controller.domain.vm.plan import WriteStatus
from controller.domain.vm.policy import LauncherPolicy
from controller.kube.kinds import Pod
from controller.kube.times import parse_duration, timestamp
from tests.unit.domain.builders import NOW, POLICY, condition, plan_for, published, running, settled, vm


def booting(machine: VirtualMachine, started: datetime = NOW) -> Pod:
    """The VM's pod, which the kubelet has just started."""
    pod = running(machine)
    return msgspec.structs.replace(pod, status=msgspec.structs.replace(pod.status, start_time=timestamp(started)))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("1m30s", 90), ("1h", 3600), ("1.5s", 1.5), ("500ms", 0.5), ("0", 0), ("0s", 0)],
)
def test_a_duration_is_read_as_kubernetes_writes_it(text: str, seconds: float) -> None:
    """In any of its units."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "90", "-1s", "1 s", "s", "1d", "∞", "1h" * 40])
def test_a_malformed_duration_is_none(text: str) -> None:
    """Nor is a negative one a duration."""
    assert parse_duration(text) is None


@pytest.mark.parametrize(("annotation", "recorded"), [(None, "20s"), ("1m30s", "90s"), ("0", None)])
def test_the_vms_annotation_goes_before_the_installations_boot_time(
    annotation: str | None, recorded: str | None
) -> None:
    """The pod records which it is."""
    machine = vm(annotations={} if annotation is None else {names.BOOT_TIME: annotation})
    spec = launcher.requested(machine)
    policy = LauncherPolicy(boot_time=20)
    body = launcher.manifest(machine, 0, spec, launcher.consumption(machine, spec).shares, policy)
    assert body["metadata"]["annotations"].get(names.BOOT_TIME) == recorded


def test_a_vm_is_scheduled_until_its_guest_has_booted() -> None:
    """Its pod is Running meanwhile; the wait is derived, so a restart does not lose it."""
    machine = vm(annotations={names.BOOT_TIME: "90s"})
    pod = booting(machine)
    plan = plan_for(machine, pod, now=NOW + timedelta(seconds=30))
    found = condition(published(plan), "Ready")
    assert (published(plan).phase, plan.requeue_after) == ("Scheduled", 60)
    assert (found.status, found.reason) == ("False", "GuestNotRunning")
    assert found.message.endswith("its guest boots until 2026-01-15T10:31:30Z")


def test_a_vm_runs_from_the_end_of_its_boot_on() -> None:
    """The history shows that moment, not that of the pod's start."""
    machine = vm(annotations={names.BOOT_TIME: "90s"})
    plan = plan_for(machine, booting(machine), now=NOW + timedelta(seconds=95))
    assert (published(plan).phase, plan.requeue_after) == ("Running", None)
    assert condition(published(plan), "PhaseRunning").last_transition_time == "2026-01-15T10:31:30Z"


def test_a_boot_costs_the_writes_of_a_pod_that_starts_that_much_later() -> None:
    """One for Scheduled, one for Running, and none while it waits."""
    machine = vm(annotations={names.BOOT_TIME: "90s"})
    pod = booting(machine)
    writes = 0
    for seconds in range(0, 180, 5):
        actions = plan_for(machine, pod, now=NOW + timedelta(seconds=seconds)).actions
        assert all(isinstance(action, WriteStatus) for action in actions)
        if actions:
            writes += 1
            machine = msgspec.structs.replace(machine, status=actions[0].status)  # type: ignore[union-attr]
    assert (writes, machine.status.phase) == (2, "Running")


def test_an_edit_of_the_boot_time_holds_from_the_next_start() -> None:
    """A VM that runs does not go back to Scheduled."""
    before = vm(annotations={names.BOOT_TIME: "1s"})
    pod = booting(before, NOW - timedelta(seconds=10))
    after = vm(annotations={names.BOOT_TIME: "1h"}, status=settled(before, pod).status)
    assert plan_for(after, pod).actions == ()


@pytest.mark.parametrize("text", ["soon", "24h", "-5s", ""])
def test_a_boot_time_that_cannot_be_meant_is_a_condition_and_the_default_is_used(text: str) -> None:
    """A boot takes an hour at most."""
    machine = vm(annotations={names.BOOT_TIME: text})
    found = condition(published(plan_for(machine, running(machine))), "InvalidBootTime")
    assert found.message == (
        f"annotation {names.BOOT_TIME} is {text!r}: want a duration such as 90s or 1m30s, of at most 1h; using 0s"
    )


def test_a_pod_without_a_start_does_not_boot_yet() -> None:
    """A malformed time is none."""
    machine = vm(annotations={names.BOOT_TIME: "90s"})
    assert boot.ends(running(machine)) is None
    assert boot.left(running(machine), NOW) == 0


def test_a_pod_of_a_vm_without_a_boot_time_records_none() -> None:
    """It costs nothing."""
    machine = vm()
    spec = launcher.requested(machine)
    body = launcher.manifest(machine, 0, spec, launcher.consumption(machine, spec).shares, POLICY)
    assert names.BOOT_TIME not in body["metadata"]["annotations"]


def test_a_vm_that_runs_stays_so_when_the_next_controllers_clock_is_behind() -> None:
    """Phases never revert."""
    machine = vm(annotations={names.BOOT_TIME: "30s"})
    pod = booting(machine)
    ran = published(plan_for(machine, pod, now=NOW + timedelta(seconds=30)))
    machine = msgspec.structs.replace(machine, status=ran)
    assert plan_for(machine, pod, now=NOW + timedelta(seconds=28)).actions == ()


@pytest.mark.parametrize("start", ["9999-12-31T23:59:59Z", "9000-01-01T00:00:00Z", "soon"])
def test_a_start_in_the_far_future_is_no_start(start: str) -> None:
    """The VM is not Scheduled for ever, and its other decisions go on."""
    machine = vm(annotations={names.BOOT_TIME: "30s"})
    pod = booting(machine)
    odd = msgspec.structs.replace(pod, status=msgspec.structs.replace(pod.status, start_time=start))
    assert published(plan_for(machine, odd)).phase == "Running"


def test_a_pod_that_is_not_ready_after_its_boot_is_not_said_to_boot() -> None:
    """The end of its boot has passed."""
    machine = vm(annotations={names.BOOT_TIME: "30s"})
    pod = booting(machine)
    unready = msgspec.structs.replace(pod, status=msgspec.structs.replace(pod.status, conditions=()))
    found = condition(published(plan_for(machine, unready, now=NOW + timedelta(hours=1))), "Ready")
    assert found.message.endswith("is not ready yet")
