"""Retention of finished migrations."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from controller.domain.migration import retention
from controller.domain.migration.retention import Expired
from controller.domain.objects import VirtualMachineMigration
from controller.kube import times
from tests.unit.domain.builders import NOW, vm
from tests.unit.domain.moves import at, failed, move

THIS = vm(uid="uid-1")


def no_vm(name: str, seconds: float) -> VirtualMachineMigration:
    """A migration that failed so many seconds from now since its VM did not exist."""
    return failed(name, at(seconds), "VMNotFound", vm_uid=None, start_timestamp=None)


def test_the_newest_five_migrations_of_a_vm_are_retained() -> None:
    """By their end, not by their names."""
    done = [failed(f"m-{9 - number}", at(number)) for number in range(7)]
    assert retention.expired(tuple(reversed(done)), THIS, NOW) == Expired(surplus=tuple(done[:2]))


def test_an_unfinished_migration_never_expires() -> None:
    """Neither with its VM nor without."""
    waiting = (move(state={"vm_uid": "uid-1"}), move("m-2", state={"vm_uid": "uid-0", "phase": "Terminating"}))
    assert retention.expired(waiting, THIS, NOW) == retention.expired(waiting, None, NOW) == Expired()


def test_all_migrations_of_a_deleted_vm_expire() -> None:
    """After a live read, also if a namesake exists."""
    done = (failed("m-1", at(-1)),)
    assert retention.expired(done, None, NOW) == Expired(orphaned=done)
    assert retention.expired(done, vm(uid="uid-2"), NOW) == Expired(orphaned=done)


def test_a_migration_of_a_vm_that_never_existed_is_retained_for_an_hour() -> None:
    """With a VM of that name by now and without one."""
    for found in (None, THIS):
        assert retention.expired((no_vm("m-1", -3599),), found, NOW) == Expired(again=1)
        assert retention.expired((no_vm("m-1", -3600),), found, NOW) == Expired(surplus=(no_vm("m-1", -3600),))


def test_a_migration_without_an_end_time_is_retained_from_its_creation() -> None:
    """Another client removed the time, which does not prolong the retention."""
    found = msgspec.structs.replace(
        no_vm("m-1", 0), status=msgspec.structs.replace(no_vm("m-1", 0).status, end_timestamp="noon")
    )
    assert found.metadata.creation_timestamp == times.timestamp(NOW)
    assert retention.expired((found,), None, at(1800)) == Expired(again=1800)


def test_an_end_time_in_the_last_hour_of_the_calendar_does_not_expire() -> None:
    """Adding the hour would overflow."""
    late = failed("m-1", datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC), "VMNotFound", vm_uid=None)
    assert retention.expired((late,), None, NOW).surplus == ()


def test_a_migration_without_a_vm_uid_counts_for_the_vm_of_its_name() -> None:
    """An older release finished it; without a VM it expires an hour after its end."""
    old = failed("m-1", at(-3600), vm_uid=None)
    assert retention.expired((old,), THIS, NOW) == Expired()
    assert retention.expired((old,), None, NOW) == Expired(orphaned=(old,))
