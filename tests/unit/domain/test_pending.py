"""The state machine of migrations: what is decided from what is known of one VM and one migration."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest

from controller.domain.migration.backoff import Backoff, backoff
from controller.domain.migration.decide import decide
from controller.domain.migration.phases import Reason
from controller.domain.migration.plan import Answers, Plan, View, WriteMigration
from controller.domain.objects import (
    Claim,
    MigrationSpec,
    MigrationStatus,
    VirtualMachine,
    VirtualMachineMigration,
    VMStatus,
)
from controller.kube import times
from controller.kube.kinds import Pod
from controller.kube.meta import ObjectMeta
from tests.unit.domain.builders import NOW, POLICY, vm


def at(seconds: float) -> datetime:
    """So many seconds after now."""
    return NOW + timedelta(seconds=seconds)


def move(name: str = "m-1", *, state: dict[str, Any] | None = None, **spec: Any) -> VirtualMachineMigration:
    """A migration of vm-1 that was asked for now, in the given state."""
    metadata = ObjectMeta(
        name=name, namespace="default", uid=f"uid-{name}", creation_timestamp=times.timestamp(NOW), generation=1
    )
    return VirtualMachineMigration(metadata, MigrationSpec(vm_name="vm-1", **spec), MigrationStatus(**(state or {})))


def failed(name: str, ended: datetime, reason: str = "RolledBack", **state: Any) -> VirtualMachineMigration:
    """A migration of the VM uid-1 that began to move it and failed."""
    began = {"vm_uid": "uid-1", "start_timestamp": times.micro_timestamp(ended), "failure_reason": reason}
    end = {"phase": "Failed", "end_timestamp": times.micro_timestamp(ended)}
    return move(name, state={**began, **end, **state})


def on_node_1(**state: Any) -> VirtualMachine:
    """A VM that runs in its first life."""
    found = VMStatus(phase="Running", node_name="kwok-node-1", pod_name="p", pod_uid="pod-uid-1-0", incarnation=0)
    return vm(status=msgspec.structs.replace(found, **state))


def decided(item: VirtualMachineMigration, of: VirtualMachine | None, *pods: Pod, **more: Any) -> Plan:
    """Decide now, with every answer that is asked for a yes."""
    answers = Answers(slot=True, node="kwok-node-2", accepted=True)
    plan = decide(View(item, of, pods, more.pop("now", NOW), answers=answers, **more), POLICY)
    assert isinstance(plan, Plan)
    return plan


def written(plan: Plan) -> MigrationStatus:
    """The one status that a plan writes."""
    [write] = [action for action in plan.actions if isinstance(action, WriteMigration)]
    return write.status


# --- the wait after failures -------------------------------------------------------------------------------------


def test_without_failures_nothing_waits() -> None:
    """Neither a first migration nor one after a success."""
    assert backoff((), "uid-1", NOW) is None
    success = failed("m-2", at(-5), phase="Succeeded", failure_reason=None)
    assert backoff((failed("m-1", at(-6)), success), "uid-1", NOW) is None


def test_the_wait_doubles_with_each_failure_and_counts_from_the_last() -> None:
    """20 s, 40 s, 80 s."""
    history = tuple(failed(f"m-{number}", at(number - 10)) for number in range(3))
    found = backoff(history, "uid-1", NOW)
    assert found == Backoff(failures=3, seconds=80, until=at(72), left=72)


def test_a_wait_that_is_over_is_none() -> None:
    """To the second."""
    assert backoff((failed("m-1", at(-20)),), "uid-1", NOW) is None


@pytest.mark.parametrize("reason", ["TargetNotFound", "NoSuitableNode", "NoRoom", "VMNotRunning", "Cancelled"])
def test_a_failure_that_touched_no_vm_makes_none_wait(reason: str) -> None:
    """Five typos cost nothing."""
    refused = tuple(failed(f"m-{number}", at(-1), reason, start_timestamp=None) for number in range(5))
    assert backoff(refused, "uid-1", NOW) is None


def test_a_cancelled_migration_makes_none_wait_wherever_it_was() -> None:
    """Who cancels wants what comes next."""
    assert backoff((failed("m-1", at(-1), "Cancelled"),), "uid-1", NOW) is None


@pytest.mark.parametrize("uid", ["uid-of-a-namesake", None])
def test_the_failures_of_another_vm_make_none_wait(uid: str | None) -> None:
    """One that had the name before, or that nobody wrote down."""
    assert backoff((failed("m-1", at(-1), vm_uid=uid),), "uid-1", NOW) is None


def test_a_migration_that_waits_after_failures_says_until_when() -> None:
    """In words that stay the same while it waits."""
    plan = decided(move(), on_node_1(), history=(failed("m-0", at(-5)), failed("m-1", at(-1))))
    told = written(plan)
    assert told.message == (
        "The last 2 migrations of VM vm-1 failed on the way; the next waits 40 s after that, until 2026-01-15T10:30:39Z"
    )
    assert told.conditions[0].reason == Reason.BACKOFF
    assert plan.requeue_after == 39


# --- what is refused before anything is asked ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("machine", "spec", "reason"),
    [
        (on_node_1(phase="Scheduled"), {}, Reason.VM_NOT_RUNNING),
        (on_node_1(node_name=None), {}, Reason.VM_NOT_RUNNING),
        (vm(running=False, status=on_node_1().status), {}, Reason.VM_NOT_RUNNING),
        (vm(deleted=True, status=on_node_1().status), {}, Reason.VM_NOT_RUNNING),
        (on_node_1(), {"target_node": "kwok-node-1"}, Reason.TARGET_IS_SOURCE),
        (on_node_1(), {"cancel": True}, Reason.CANCELLED),
        (None, {}, Reason.VM_NOT_FOUND),
        (on_node_1(migration=Claim(name="m-0", uid="uid-m-0")), {}, Reason.ANOTHER_MIGRATION),
    ],
)
def test_what_the_vm_forbids_fails_without_a_claim(machine: Any, spec: dict[str, Any], reason: Reason) -> None:
    """And nothing else is asked first."""
    plan = decided(move(**spec), machine)
    assert [type(action) for action in plan.actions] == [WriteMigration]
    assert (written(plan).phase, written(plan).failure_reason) == ("Failed", reason)


def test_a_migration_whose_spec_was_not_read_whole_fails_and_moves_nothing() -> None:
    """The default that stands for its target is anywhere, which nobody asked for."""
    item = msgspec.structs.replace(move(), unreadable=("spec.targetNode: Expected `str | null`, got `object`",))
    plan = decided(item, on_node_1())
    assert [type(action) for action in plan.actions] == [WriteMigration]
    assert (written(plan).phase, written(plan).failure_reason) == ("Failed", Reason.INVALID_SPEC)
    assert written(plan).message == item.unreadable[0]
