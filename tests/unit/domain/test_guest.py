"""What a VM's annotations say of its guest, and what a live migration copies of it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest

from controller.domain import names
from controller.domain.copying.model import DowntimeTuning
from controller.domain.copying.policy import CopyingPolicy, WritableSet
from controller.domain.copying.record import Copying
from controller.domain.migration import copying
from controller.domain.migration.demand import demand
from controller.domain.objects import Claim, LiveSettings, MigrationStatus, TuningSettings
from controller.domain.ratio import ReferenceNode
from controller.domain.vm import guest
from controller.domain.vm.policy import LauncherPolicy
from controller.kube import codec
from tests.unit.domain.builders import NOW, condition, pod, settled, vm
from tests.unit.domain.moves import move

MIB = 2.0**20
GIB = 2.0**30
REFERENCE = ReferenceNode.of(cpu="32", memory="100Gi")
POLICY = CopyingPolicy(dirty_rate=5 * MIB, writable_set=WritableSet(0.5), dirty_rate_jitter=0.25)


def begun(annotations: dict[str, str] | None = None, policy: CopyingPolicy = POLICY, **live: Any) -> Copying:
    """The record of a migration that begins to copy a VM of 10 GiB."""
    machine = vm(memory="0.1", annotations=annotations or {})
    item = move(strategy="Live", live=LiveSettings(**live))
    return copying.begin(item, machine, pod(machine, 0), reference=REFERENCE, policy=policy, now=NOW)


def test_a_vm_without_annotations_uses_all_of_its_memory_and_dirties_it_as_the_installation_says() -> None:
    """A share is one of the memory in use."""
    found = begun().workload
    assert (found.memory_in_use, found.dirty_rate, found.writable_set) == (10 * GIB, 5 * MIB, 5 * GIB)
    assert found.jitter == 0.25


def test_annotations_say_what_a_guest_uses_and_dirties() -> None:
    """Each goes before the installation's."""
    found = begun({names.MEMORY_CONSUMPTION: "0.02", names.DIRTY_RATE: "80Mi", names.WRITABLE_SET: "100Mi"}).workload
    assert (found.memory_in_use, found.dirty_rate, found.writable_set) == (2 * GIB, 80 * MIB, 100 * MIB)


def test_a_writable_set_is_never_more_than_the_memory_in_use() -> None:
    """What a guest writes to lies there."""
    assert begun({names.WRITABLE_SET: "20Gi"}).workload.writable_set == 10 * GIB


@pytest.mark.parametrize(
    ("annotation", "text", "kind", "reason"),
    [
        (names.DIRTY_RATE, "fast", "InvalidDirtyRate", "NotAQuantity"),
        (names.DIRTY_RATE, "-1Mi", "InvalidDirtyRate", "NotAQuantity"),
        (names.WRITABLE_SET, "120%", "InvalidWritableSet", "NotAQuantity"),
        (names.WRITABLE_SET, "", "InvalidWritableSet", "NotAQuantity"),
        (names.WRITABLE_SET, "11Gi", "InvalidWritableSet", "AboveMemory"),
    ],
)
def test_an_annotation_that_cannot_be_meant_is_named(annotation: str, text: str, kind: str, reason: str) -> None:
    """It means the default."""
    machine = vm(memory="0.1", annotations={annotation: text})
    [problem] = guest.problems(machine, Decimal("0.1"), REFERENCE)
    assert (problem.condition, problem.reason) == (kind, reason)
    assert annotation in problem.message
    used = guest.of_vm(machine, Decimal(1000), POLICY)
    assert used.dirty_rate == POLICY.dirty_rate
    assert used.writable_set == (1000 if reason == "AboveMemory" else 500)


def test_a_vm_tells_of_such_an_annotation_by_a_condition() -> None:
    """Its pod runs on."""
    machine = vm(annotations={names.DIRTY_RATE: "fast"})
    found = settled(machine, pod(machine, 0, phase="Running", node="kwok-node-1")).status
    assert condition(found, "InvalidDirtyRate").message.endswith("; the installation's is used")
    assert found.phase == "Running"


def test_the_completion_timeout_counts_the_memory_that_the_pod_was_made_with() -> None:
    """In decimal GB, rounded up; an edit of the spec holds from the next start, and use does not matter."""
    machine = vm(memory="0.5", annotations={names.MEMORY_CONSUMPTION: "0.01"})
    before = pod(vm(memory="0.1"), 0)
    found = copying.begin(move(), machine, before, reference=REFERENCE, policy=POLICY, now=NOW)
    assert found.limits.completion_timeout == 11 * 150  # 10 GiB are 10.7 GB


def test_a_migration_sets_for_itself_what_it_names() -> None:
    """The rest is the installation's."""
    policy = CopyingPolicy(bandwidth_per_migration=7.0, allow_post_copy=True, max_downtime=0.5)
    own = begun(
        policy=policy,
        bandwidth="64Mi",
        allow_auto_converge=True,
        allow_post_copy=False,
        completion_timeout_per_gib=10,
        max_downtime_ms=1500,
        downtime_tuning=TuningSettings(),
    )
    assert (own.bandwidth, own.cap) == (64 * MIB, 64 * MIB)
    limits = own.limits
    assert (limits.allow_auto_converge, limits.allow_post_copy, limits.allow_workload_disruption) == (
        True,
        False,
        False,
    )
    assert (limits.completion_timeout, limits.max_downtime, limits.tuning) == (110, 1.5, DowntimeTuning())
    others = begun(policy=policy)
    assert (others.bandwidth, others.limits.max_downtime, others.limits.allow_post_copy) == (7.0, 0.5, True)


def test_a_bandwidth_of_zero_is_no_limit() -> None:
    """Also where the installation has one."""
    assert begun(policy=CopyingPolicy(bandwidth_per_migration=7.0), bandwidth=0).cap == float("inf")


@pytest.mark.parametrize(
    ("live", "named"),
    [
        ({"bandwidth": "-1"}, "spec.live.bandwidth"),
        ({"bandwidth": "fast"}, "spec.live.bandwidth"),
        ({"bandwidth": True}, "spec.live.bandwidth"),
        ({"bandwidth": 1.5}, "spec.live.bandwidth"),
        ({"max_downtime_ms": -1}, "spec.live.maxDowntimeMs"),
        ({"completion_timeout_per_gib": -1}, "spec.live.completionTimeoutPerGiB"),
        ({"downtime_tuning": TuningSettings(steps=0)}, "spec.live.downtimeTuning"),
        ({"downtime_tuning": TuningSettings(cooldown_seconds=0)}, "spec.live.downtimeTuning"),
        ({"downtime_tuning": TuningSettings(initial_downtime_ms=-1)}, "spec.live.downtimeTuning"),
    ],
)
def test_settings_that_cannot_be_meant_are_named(live: dict[str, Any], named: str) -> None:
    """The schema refuses them; this is for one that another schema let through."""
    assert named in (copying.problem(LiveSettings(**live)) or "")


@pytest.mark.parametrize("live", [{}, {"bandwidth": "64Mi", "max_downtime_ms": 300}, {"bandwidth": 1000}])
def test_settings_that_can_be_meant_have_no_problem(live: dict[str, Any]) -> None:
    """A bandwidth may be written as a number."""
    assert copying.problem(LiveSettings(**live)) is None


@pytest.mark.parametrize(
    "odd",
    [
        {"bandwidth": -1.0},
        {"bandwidth": float("nan")},
        {"workload": {"memory_in_use": -1.0}},
        {"workload": {"jitter": 1e3}},
        {"limits": {"completion_timeout": float("inf")}},
        {"limits": {"tuning": DowntimeTuning(cooldown=0)}},
        {"limits": {"tuning": DowntimeTuning(steps=0)}},
    ],
)
def test_a_record_that_another_client_has_edited_is_told_from_a_usable_one(odd: dict[str, Any]) -> None:
    """Or computing with it would fail, or never end."""
    record = begun()
    assert record.usable
    changed = {
        name: msgspec.structs.replace(getattr(record, name), **value) if isinstance(value, dict) else value
        for name, value in odd.items()
    }
    assert not msgspec.structs.replace(record, **changed).usable


@pytest.mark.parametrize("part", ["workload", "limits", "checkpoint", None])
def test_a_record_is_written_with_each_of_its_fields(part: str | None) -> None:
    """A merge patch leaves a field that is left out as another client has edited it."""
    record = begun(policy=CopyingPolicy())
    patch = codec.merge_patch_of(MigrationStatus(copying=record))["copying"]
    value: Any = record if part is None else getattr(record, part)
    written = patch if part is None else patch[part]
    assert set(written) == set(type(value).__struct_encode_fields__) - {"seed"}


def test_a_live_target_needs_what_its_source_has() -> None:
    """An edit of the size holds from the next start, and one of the class, too."""
    before = vm(memory="0.5")
    after = msgspec.structs.replace(
        vm(memory="0.05"), spec=msgspec.structs.replace(vm(memory="0.05").spec, priority_class_name="high")
    )
    live = Claim(source_node="n", strategy="Live", target_incarnation=1)
    source = pod(before, 0)
    found = demand(live, after, LauncherPolicy(), source)
    assert found.amount.memory == 128 * 2**30
    assert (found.edited_class, found.priority) == (False, source.spec.priority)
    anew = demand(msgspec.structs.replace(live, strategy=None), after, LauncherPolicy(), source)
    assert (anew.amount.memory < found.amount.memory, anew.edited_class) == (True, True)
