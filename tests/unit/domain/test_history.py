"""Which migrations that have ended are kept."""

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


def never(name: str, seconds: float) -> VirtualMachineMigration:
    """A migration that failed so many seconds from now since there was no VM."""
    return failed(name, at(seconds), "VMNotFound", vm_uid=None, start_timestamp=None)


def test_of_a_vm_the_newest_five_are_kept() -> None:
    """In the order in which they ended, whatever their names."""
    done = [failed(f"m-{9 - number}", at(number)) for number in range(7)]
    assert retention.expired(tuple(reversed(done)), THIS, NOW) == Expired(surplus=tuple(done[:2]))


def test_what_has_not_ended_is_never_removed() -> None:
    """Neither with its VM nor without."""
    waiting = (move(state={"vm_uid": "uid-1"}), move("m-2", state={"vm_uid": "uid-0", "phase": "Terminating"}))
    assert retention.expired(waiting, THIS, NOW) == retention.expired(waiting, None, NOW) == Expired()


def test_of_a_vm_that_is_gone_nothing_is_kept() -> None:
    """Once that is certain; also if another has its name."""
    done = (failed("m-1", at(-1)),)
    assert retention.expired(done, None, NOW) == Expired(orphaned=done)
    assert retention.expired(done, vm(uid="uid-2"), NOW) == Expired(orphaned=done)


def test_what_was_asked_of_a_vm_that_never_was_stays_for_an_hour() -> None:
    """With a VM of that name by now and without one."""
    for found in (None, THIS):
        assert retention.expired((never("m-1", -3599),), found, NOW) == Expired(again=1)
        assert retention.expired((never("m-1", -3600),), found, NOW) == Expired(surplus=(never("m-1", -3600),))


def test_a_migration_that_does_not_say_when_it_ended_counts_from_its_making() -> None:
    """Somebody took the time away; it is kept no longer for that."""
    found = msgspec.structs.replace(
        never("m-1", 0), status=msgspec.structs.replace(never("m-1", 0).status, end_timestamp="noon")
    )
    assert found.metadata.creation_timestamp == times.timestamp(NOW)
    assert retention.expired((found,), None, at(1800)) == Expired(again=1800)


def test_an_end_in_the_last_hour_of_time_is_one_that_is_kept() -> None:
    """Somebody wrote it; nothing else of the VM is held up by it."""
    odd = failed("m-1", datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC), "VMNotFound", vm_uid=None)
    assert retention.expired((odd,), None, NOW).surplus == ()


def test_what_names_no_vm_since_an_older_release_ended_it_counts_for_the_vm_of_its_name() -> None:
    """And goes an hour after it ended if there is none."""
    old = failed("m-1", at(-3600), vm_uid=None)
    assert retention.expired((old,), THIS, NOW) == Expired()
    assert retention.expired((old,), None, NOW) == Expired(orphaned=(old,))
