"""The moves that copy: their paces on shared links, and when a reconcile is asked for."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from controller.domain.copying.model import Checkpoint, Limits, Mode, Workload
from controller.domain.copying.record import Copying
from controller.domain.migration.copying import Progress
from controller.domain.objects import VirtualMachineMigration
from controller.engine.changes import Change
from controller.kube import times
from controller.observe.caches import Caches
from controller.reconcilers.migration.copying import CopyingMoves
from tests.unit.domain.moves import move

pytestmark = pytest.mark.looptime

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
CAPACITY = 100.0
OVERHEAD = 0.25
SWITCH_OVER = 0.12
ROUND = 1000.0
ALONE = OVERHEAD + ROUND / CAPACITY + SWITCH_OVER
"""Seconds that a move of 1,000 bytes takes alone on its links; it dirties nothing."""


class Scene:
    """Moves on one cache; the wall clock is the loop's."""

    def __init__(self, *, speed: float = 1.0, capacity: float = CAPACITY) -> None:
        self.caches = Caches()
        self.woken: list[tuple[float, str]] = []
        self.moves = CopyingMoves(
            capacity,
            speed,
            now=self.now,
            call_later=asyncio.get_running_loop().call_later,
            wake=lambda key: self.woken.append((round(self.elapsed, 2), key)),
        )
        self.began = asyncio.get_running_loop().time()
        self.version = 0
        self.skew = 0.0
        self.caches.migrations.replace([], "0")

    @property
    def elapsed(self) -> float:
        """Seconds since the scene began."""
        return asyncio.get_running_loop().time() - self.began

    def now(self) -> datetime:
        """The wall clock."""
        return EPOCH + timedelta(seconds=self.elapsed + self.skew)

    def item(self, name: str, source: str, target: str, **more: Any) -> VirtualMachineMigration:
        """A migration that begins to copy now."""
        workload = Workload(ROUND, more.pop("dirty_rate", 0.0), more.pop("writable_set", 0.0), jitter=0.0)
        limits = Limits(more.pop("timeout", 0.0), progress_timeout=0.0, **more.pop("limits", {}))
        record = Copying(
            workload,
            limits,
            more.pop("checkpoint", Checkpoint(round_bytes=ROUND, wait=OVERHEAD)),
            more.pop("timestamp", times.micro_timestamp(self.now())),
            more.pop("bandwidth", 0.0),
        )
        found = move(name, state={"phase": "Running", "source_node": source, "target_node": target, "copying": record})
        spec = msgspec.structs.replace(found.spec, vm_name=f"vm-of-{name}")
        return msgspec.structs.replace(found, spec=spec)

    def show(self, item: VirtualMachineMigration, *, deleted: bool = False) -> VirtualMachineMigration:
        """Let the cache show a state of a migration."""
        self.version += 1
        metadata = msgspec.structs.replace(item.metadata, resource_version=str(self.version))
        seen = msgspec.structs.replace(item, metadata=metadata)
        self.caches.migrations.apply(Change.of(seen, deleted=deleted))
        return seen

    def begin(self, name: str, source: str, target: str, **more: Any) -> VirtualMachineMigration:
        """Let the cache show a migration that begins to copy now."""
        return self.show(self.item(name, source, target, **more))

    def sent(self, item: VirtualMachineMigration) -> float:
        """Bytes that a move has sent."""
        return self.progress(item).checkpoint.sent

    def progress(self, item: VirtualMachineMigration) -> Progress:
        """How far a move is."""
        found = self.moves.progress(item)
        assert found is not None
        return found


def scene(**more: Any) -> Scene:
    """A scene whose moves are followed."""
    found = Scene(**more)
    found.moves.listen([found.caches])
    return found


async def test_a_move_is_reconciled_when_it_has_copied_all() -> None:
    """And not before."""
    on = scene()
    item = on.begin("a", "n1", "n2")
    await asyncio.sleep(ALONE - 0.01)
    assert on.woken == []
    assert on.progress(item).checkpoint.mode is Mode.STOP_AND_COPY
    await asyncio.sleep(0.02)
    assert on.woken == [(round(ALONE, 2), "default/vm-of-a")]
    assert on.progress(item).checkpoint.hand_over_due


async def test_moves_share_the_links_of_their_nodes() -> None:
    """What one has left of its links, the other takes."""
    on = scene()
    first = on.begin("a", "n1", "n2")
    await asyncio.sleep(OVERHEAD + 5)
    assert on.sent(first) == pytest.approx(500)
    second = on.begin("b", "n1", "n3")
    await asyncio.sleep(OVERHEAD + 2)
    assert on.sent(first) == pytest.approx(500 + 50 * (OVERHEAD + 2))
    assert on.sent(second) == pytest.approx(100)


async def test_a_move_that_becomes_slower_is_not_reconciled_before_its_new_end() -> None:
    """A change of pace costs no reconcile."""
    on = scene()
    on.begin("a", "n1", "n2")
    await asyncio.sleep(OVERHEAD + 5)
    on.begin("b", "n1", "n3")
    await asyncio.sleep(5 + 1)
    assert on.woken == []
    await asyncio.sleep(10)
    assert [key for _, key in on.woken] == ["default/vm-of-a", "default/vm-of-b"]


async def test_a_move_that_becomes_faster_is_reconciled_at_its_new_end() -> None:
    """Not at the one that it would have had."""
    on = scene()
    on.begin("a", "n1", "n2")
    other = on.begin("b", "n1", "n3")
    await asyncio.sleep(OVERHEAD + 4)
    on.show(other, deleted=True)
    await asyncio.sleep(100)
    assert on.woken == [(round(OVERHEAD + 4 + 8 + SWITCH_OVER, 2), "default/vm-of-a")]


async def test_moves_on_other_links_do_not_matter() -> None:
    """Each of them has its link alone."""
    on = scene()
    first, second = on.begin("a", "n1", "n2"), on.begin("b", "n3", "n4")
    await asyncio.sleep(OVERHEAD + 1)
    assert [on.sent(first), on.sent(second)] == pytest.approx([100, 100])


async def test_one_that_has_copied_all_leaves_its_link_at_once() -> None:
    """Before its hand-over is written."""
    on = scene()
    on.begin("a", "n1", "n2", bandwidth=50.0, checkpoint=Checkpoint(round_bytes=100.0))
    other = on.begin("b", "n1", "n3", checkpoint=Checkpoint(round_bytes=1000.0))
    await asyncio.sleep(2 + SWITCH_OVER)
    before = on.sent(other)
    await asyncio.sleep(1)
    assert on.sent(other) - before == pytest.approx(CAPACITY)


async def test_a_cap_leaves_the_rest_to_the_others() -> None:
    """Max-min fairness."""
    on = scene()
    capped = on.begin("a", "n1", "n2", bandwidth=10.0)
    free = on.begin("b", "n1", "n3")
    await asyncio.sleep(OVERHEAD + 1)
    assert [on.sent(capped), on.sent(free)] == pytest.approx([10, 90])


async def test_another_process_goes_on_from_the_recorded_checkpoint() -> None:
    """By the clock: also for the time in which none was there."""
    on = Scene()
    item = on.begin("a", "n1", "n2", checkpoint=Checkpoint(round_bytes=1000.0, round_sent=200.0, sent=200.0))
    await asyncio.sleep(3)
    on.moves.listen([on.caches])
    assert on.sent(item) == pytest.approx(500)


async def test_simulated_seconds_pass_at_the_speed_of_the_process() -> None:
    """Ten of them in a real one."""
    on = scene(speed=10.0)
    on.begin("a", "n1", "n2")
    await asyncio.sleep(60)
    assert on.woken == [(round(ALONE / 10, 2), "default/vm-of-a")]


async def test_a_checkpoint_that_is_written_changes_nothing() -> None:
    """What this process has computed is more exact."""
    on = scene()
    item = on.begin("a", "n1", "n2")
    await asyncio.sleep(OVERHEAD + 5)
    record = item.status.copying
    assert record is not None
    newer = msgspec.structs.replace(record, timestamp=times.micro_timestamp(on.now()))
    on.show(msgspec.structs.replace(item, status=msgspec.structs.replace(item.status, copying=newer)))
    assert on.sent(item) == pytest.approx(500)


@pytest.mark.parametrize("timestamp", ["", "soon", "2300-01-01T00:00:00Z", "1970-01-01T00:00:00Z"])
async def test_a_malformed_time_counts_as_now(timestamp: str) -> None:
    """The move is not lost, and costs no other."""
    on = scene()
    item = on.begin("a", "n1", "n2", timestamp=timestamp)
    await asyncio.sleep(OVERHEAD + 1)
    assert on.sent(item) == pytest.approx(100)


async def test_an_odd_record_takes_no_part() -> None:
    """The other has the link alone."""
    on = scene()
    odd = on.begin("a", "n1", "n2", bandwidth=-1.0)
    other = on.begin("b", "n1", "n3")
    await asyncio.sleep(OVERHEAD + 1)
    assert on.moves.progress(odd) is None
    assert on.sent(other) == pytest.approx(100)


async def test_a_migration_that_has_ended_is_forgotten() -> None:
    """Its link is free."""
    on = scene()
    ended, other = on.begin("a", "n1", "n2"), on.begin("b", "n1", "n3")
    await asyncio.sleep(OVERHEAD)
    on.show(msgspec.structs.replace(ended, status=msgspec.structs.replace(ended.status, phase="Failed")))
    await asyncio.sleep(1)
    assert on.moves.progress(ended) is None
    assert on.sent(other) == pytest.approx(100)


async def test_a_move_that_never_converges_is_reconciled_when_its_timeout_passes() -> None:
    """Once: each round is no cause."""
    on = scene()
    on.begin("a", "n1", "n2", dirty_rate=1000.0, writable_set=500.0, timeout=40.0)
    await asyncio.sleep(100)
    assert on.woken == [(40.0, "default/vm-of-a")]


async def test_post_copy_wakes_at_the_switch_and_when_all_is_copied() -> None:
    """It uses the link meanwhile."""
    on = scene()
    allowed = {"allow_post_copy": True, "allow_workload_disruption": True}
    item = on.begin("a", "n1", "n2", dirty_rate=1000.0, writable_set=500.0, timeout=40.0, limits=allowed)
    await asyncio.sleep(40 + SWITCH_OVER + 0.01)
    assert on.progress(item).checkpoint.hand_over_due
    await asyncio.sleep(30)
    assert len(on.woken) >= 2
    assert on.progress(item).checkpoint.mode is Mode.POST_COPY_DONE


async def test_of_many_moves_on_one_link_each_is_reconciled_once() -> None:
    """At its end, however often its pace has changed."""
    on = scene()
    for number in range(50):
        on.begin(f"m{number}", "n1", f"t{number}")
    await asyncio.sleep(1000)
    assert sorted(key for _, key in on.woken) == sorted(f"default/vm-of-m{number}" for number in range(50))


async def test_a_move_that_a_change_of_its_link_finds_at_its_end_is_reconciled() -> None:
    """Its timer was due in the same moment, and is not needed any more."""
    on = scene()
    on.begin("a", "n1", "n2", checkpoint=Checkpoint(round_bytes=100.0))
    other = on.begin("b", "n1", "n3")
    await asyncio.sleep(1)
    on.skew = 5.0
    on.show(other, deleted=True)
    await asyncio.sleep(0.01)
    assert [key for _, key in on.woken] == ["default/vm-of-a"]


async def test_copying_goes_on_when_the_clock_is_set_back() -> None:
    """Not an hour later."""
    on = scene()
    item = on.begin("a", "n1", "n2")
    await asyncio.sleep(OVERHEAD + 2)
    assert on.sent(item) == pytest.approx(200)
    on.skew = -3600.0
    assert on.sent(item) == pytest.approx(200)
    await asyncio.sleep(1)
    assert on.sent(item) == pytest.approx(300)
