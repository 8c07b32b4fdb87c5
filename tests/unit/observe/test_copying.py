"""How far live migrations are, in round numbers: round one sends 1,000 bytes, and a link carries 100 a second."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from controller.domain.copying.constants import ROUND_OVERHEAD, SWITCH_OVER
from controller.domain.objects import MigrationStatus, VirtualMachineMigration
from controller.kube.meta import ObjectMeta
from controller.observe import copying
from controller.observe.copying import End, Progress
from tests.unit.observe.builders import BEGAN, CAPACITY, NEVER_CONVERGES, move


def after(seconds: float, *moves: VirtualMachineMigration, speed: float = 1.0, **more: Any) -> dict[str, Progress]:
    """Return how far the moves are some real seconds after the first began."""
    now = BEGAN + timedelta(seconds=seconds)
    return copying.progress(moves, capacity=CAPACITY, speed=speed, now=now, **more)


def sent(found: dict[str, Progress]) -> dict[str, float]:
    """Return the bytes that each has sent, to a hundredth."""
    return {uid: round(one.checkpoint.sent, 2) for uid, one in found.items()}


def ends(found: Progress, speed: float = 1.0) -> tuple[float, bool]:
    """Return when a move ends, in real seconds since the first began, and whether it has copied all by then."""
    end = copying.end(found, speed=speed)
    assert end is not None
    return round((end.at - BEGAN).total_seconds(), 3), end.completes


def test_a_move_alone_has_the_link() -> None:
    """After the overhead of the round, half of it takes 5 s."""
    found = after(5 + ROUND_OVERHEAD, move())["a"]
    assert (round(found.checkpoint.sent), round(found.checkpoint.rest), found.pace) == (500, 500, CAPACITY)
    assert found.share == pytest.approx(0.5)


def test_a_move_ends_when_all_is_sent_and_the_guest_has_switched_over() -> None:
    """The estimate is the same from wherever it is made."""
    assert ends(after(3, move())["a"]) == (ROUND_OVERHEAD + 10 + SWITCH_OVER, True)


def test_simulated_seconds_pass_faster() -> None:
    """Ten of them pass in a real one."""
    found = after((5 + ROUND_OVERHEAD) / 10, move(), speed=10)
    assert sent(found) == {"a": 500}
    assert ends(found["a"], speed=10)[0] == round((ROUND_OVERHEAD + 10 + SWITCH_OVER) / 10, 3)


def test_moves_from_one_node_share_its_way_out() -> None:
    """A move between other nodes does not take part."""
    found = after(1, move("a"), move("b", ("n1", "n3")), move("c", ("n4", "n5")))
    assert {uid: one.pace for uid, one in found.items()} == {"a": 50, "b": 50, "c": 100}


def test_a_move_has_at_most_its_own_bandwidth_and_the_others_the_rest() -> None:
    """Sharing is max-min."""
    found = after(1, move("a", bandwidth=20), move("b", ("n1", "n3")))
    assert {uid: one.pace for uid, one in found.items()} == {"a": 20, "b": 80}


def test_what_was_copied_before_another_move_began_stays_copied() -> None:
    """Only the call before knows that the pace has changed."""
    first = after(5 + ROUND_OVERHEAD, move())
    both = (move(), move("b", ("n1", "n3"), began=BEGAN + timedelta(seconds=5)))
    then = after(5 + ROUND_OVERHEAD, *both, before=first)
    later = after(7 + ROUND_OVERHEAD, *both, before=then)
    assert sent(later)["a"] == 600
    assert sent(after(7 + ROUND_OVERHEAD, *both))["a"] == 350, "from the checkpoint on, at the pace of now"


def test_a_move_that_has_ended_by_the_clock_leaves_the_link_to_the_others() -> None:
    """Its status says so a moment later."""
    both = (move("a", bandwidth=50), move("b", ("n1", "n3"), began=BEGAN + timedelta(seconds=19)))
    found = after(21, *both, before=after(19.5, *both))
    assert (found["a"].pace, found["b"].pace) == (0, CAPACITY)
    assert ends(found["a"]) == (ROUND_OVERHEAD + 20 + SWITCH_OVER, True)


def test_asked_every_second_or_once_a_move_is_as_far() -> None:
    """Also across rounds."""
    subject = move(dirty_rate=20.0, writable_set=300.0, jitter=0.15)
    found = after(0, subject)
    for second in range(1, 12):
        found = after(second, subject, before=found)
    once = after(11, subject)["a"].checkpoint
    assert msgspec.structs.astuple(found["a"].checkpoint) == pytest.approx(msgspec.structs.astuple(once))


def test_a_checkpoint_that_the_controller_has_written_since_counts() -> None:
    """It was computed where all changes were seen."""
    first = after(5 + ROUND_OVERHEAD, move())
    newer = move(began=BEGAN + timedelta(seconds=5))
    assert sent(after(6 + ROUND_OVERHEAD, newer, before=first)) == {"a": 100}


def test_a_move_that_does_not_converge_is_aborted_at_its_timeout() -> None:
    """That is an end, too."""
    assert ends(after(1, move(timeout=60, **NEVER_CONVERGES))["a"]) == (60, False)


def test_a_move_that_does_not_converge_and_has_no_timeout_has_no_end() -> None:
    """No number of rounds would reach one."""
    assert copying.end(after(1, move(**NEVER_CONVERGES))["a"], speed=1) is None


def test_a_move_that_takes_too_many_steps_is_shown_as_it_was_and_comes_nearer_with_each_call() -> None:
    """No call takes long."""
    subject = move(**NEVER_CONVERGES)
    once = after(80_000, subject)
    again = after(80_000, subject, before=once)
    assert BEGAN < once["a"].at < again["a"].at < BEGAN + timedelta(seconds=80_000)


def test_an_end_that_has_come_is_told_with_its_time() -> None:
    """Not with the time of the call."""
    assert copying.end(after(30, move())["a"], speed=1) == End(
        BEGAN + timedelta(seconds=ROUND_OVERHEAD + 10 + SWITCH_OVER), completes=True
    )


@pytest.mark.parametrize("timestamp", ["yesterday", "", "2027-01-15T10:30:00.000000Z", "1970-01-01T00:00:00.000000Z"])
def test_a_time_that_cannot_be_a_checkpoints_is_taken_for_now(timestamp: str) -> None:
    """Another client may have edited it."""
    assert sent(after(5, move(timestamp=timestamp))) == {"a": 0}


def test_a_clock_that_is_set_back_undoes_nothing() -> None:
    """Time stands still until it has come again."""
    first = after(5 + ROUND_OVERHEAD, move())
    assert sent(after(1, move(), before=first)) == {"a": 500}


@pytest.mark.parametrize("odd", [{"jitter": 1e6}, {"dirty_rate": -1.0}, {"writable_set": 1e308 * 10}])
def test_a_record_that_cannot_be_meant_costs_only_its_own_migration(odd: dict[str, Any]) -> None:
    """Another client may have edited it."""
    found = after(5 + ROUND_OVERHEAD, move("a", **odd), move("b"))
    assert sent(found) == {"b": 500}


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_finished_migration_copies_nothing(phase: str) -> None:
    """Its record stays in its status."""
    assert after(5, move(phase=phase)) == {}


def test_a_migration_that_does_not_copy_yet_is_left_out() -> None:
    """It has no record."""
    assert after(5, VirtualMachineMigration(ObjectMeta(uid="a"), status=MigrationStatus(phase="Scheduled"))) == {}


def test_the_dirty_rate_is_that_of_the_round_and_of_what_auto_converge_leaves() -> None:
    """A guest without some per cent of its CPU writes as much less."""
    found = after(1, move(dirty_rate=20.0, writable_set=300.0))["a"]
    slowed = msgspec.structs.replace(found, checkpoint=msgspec.structs.replace(found.checkpoint, throttle=20))
    assert (found.dirty_rate, slowed.dirty_rate) == (20, 16)
