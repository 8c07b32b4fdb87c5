"""Parts start in order and stop in reverse order; the first part that ends before it is stopped is the cause."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress

import pytest
from structlog.testing import capture_logs

from controller.engine.election import LeaseLostError
from controller.engine.lifecycle import CANCEL_TIMEOUT, ControllerDiedError, Lifecycle, Part, Run, When

pytestmark = pytest.mark.looptime

GRACE = 10.0


async def waits() -> None:
    """Run until it is cancelled."""
    await asyncio.Event().wait()


async def ends() -> None:
    """Return after a second."""
    await asyncio.sleep(1)


async def fails() -> None:
    """Raise a defect after a second."""
    await asyncio.sleep(1)
    raise ZeroDivisionError("of all things")


async def loses() -> None:
    """Lose the lease after a second."""
    await asyncio.sleep(1)
    raise LeaseLostError("lease vmsim was taken by another")


async def is_cancelled() -> None:
    """Raise CancelledError after a second, although nothing cancels it."""
    await asyncio.sleep(1)
    raise asyncio.CancelledError


class Diary:
    """Parts that record when they begin and end."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def part(self, name: str, when: When, *, drain: Run | None = None) -> Part:
        """Return a part that runs until it is cancelled."""

        async def run() -> None:
            self.lines.append(f"{name} starts")
            try:
                await waits()
            finally:
                self.lines.append(f"{name} stops")

        return Part(name, run, when, drain)


@asynccontextmanager
async def running(
    parts: list[Part], gates: Mapping[When, Run] | None = None
) -> AsyncIterator[tuple[Lifecycle, asyncio.Event, asyncio.Task[None]]]:
    """Run parts; assert that no task is left."""
    before = asyncio.all_tasks()
    lifecycle, stop = Lifecycle(parts, gates or {}), asyncio.Event()
    task = asyncio.create_task(lifecycle.run(stop, grace=GRACE))
    yield lifecycle, stop, task
    stop.set()
    await asyncio.wait([task])
    assert asyncio.all_tasks() == before


# --- order ------------------------------------------------------------------------------------------------


async def test_stages_open_in_order_and_close_in_reverse() -> None:
    """The order of the list counts only within a stage."""
    diary = Diary()
    parts = [
        diary.part("workers", When.LEADING),
        diary.part("reflector", When.ALWAYS),
        diary.part("page", When.SYNCED),
        diary.part("monitor", When.ALWAYS),
    ]
    async with running(parts) as (_, stop, task):
        await asyncio.sleep(1)
        stop.set()
        await task

    starts = ["reflector starts", "monitor starts", "page starts", "workers starts"]
    assert diary.lines[:4] == starts
    assert diary.lines[4:6] == ["workers stops", "page stops"]
    assert sorted(diary.lines[6:]) == ["monitor stops", "reflector stops"]


async def test_a_stage_waits_for_its_gate() -> None:
    """Its parts have not started, and `has_reached` is False."""
    diary = Diary()
    filled = asyncio.Event()

    async def gate() -> None:
        await filled.wait()

    parts = [diary.part("reflector", When.ALWAYS), diary.part("workers", When.LEADING)]
    async with running(parts, {When.SYNCED: gate}) as (lifecycle, stop, task):
        await asyncio.sleep(3600)
        assert diary.lines == ["reflector starts"]
        assert lifecycle.has_reached(When.ALWAYS)
        assert not lifecycle.has_reached(When.SYNCED)
        filled.set()
        await asyncio.sleep(1)
        assert diary.lines == ["reflector starts", "workers starts"]
        assert lifecycle.has_reached(When.LEADING)
        stop.set()
        await task


async def test_a_stop_before_a_gate_opens_ends_the_wait_for_it() -> None:
    """Only started parts are stopped."""
    diary = Diary()
    parts = [diary.part("reflector", When.ALWAYS), diary.part("page", When.SYNCED)]
    async with running(parts, {When.SYNCED: waits}) as (_, stop, task):
        await asyncio.sleep(1)
        stop.set()
        await task
    assert diary.lines == ["reflector starts", "reflector stops"]


async def test_a_lifecycle_without_parts_waits_for_the_stop() -> None:
    """An empty list is no error."""
    async with running([]) as (_, stop, task):
        await asyncio.sleep(3600)
        assert not task.done()
        stop.set()
        await task


# --- the time to finish -----------------------------------------------------------------------------------


async def test_the_parts_of_a_stage_drain_before_any_part_is_stopped() -> None:
    """Concurrently; the parts of earlier stages run on meanwhile."""
    diary = Diary()

    async def drain() -> None:
        diary.lines.append("drains")
        await asyncio.sleep(GRACE - 1)
        diary.lines.append("drained")

    parts = [
        diary.part("election", When.SYNCED),
        diary.part("vms", When.LEADING, drain=drain),
        diary.part("migrations", When.LEADING, drain=drain),
    ]
    async with running(parts) as (_, stop, task):
        await asyncio.sleep(1)
        del diary.lines[:]
        stop.set()
        began = asyncio.get_running_loop().time()
        await task
        assert asyncio.get_running_loop().time() - began == GRACE - 1

    assert diary.lines[:4] == ["drains", "drains", "drained", "drained"]
    assert sorted(diary.lines[4:6]) == ["migrations stops", "vms stops"]
    assert diary.lines[6:] == ["election stops"]


async def test_a_drain_ends_after_the_grace() -> None:
    """Unfinished work is abandoned without an error: a process may die at any time."""
    diary = Diary()
    with capture_logs() as logs:
        async with running([diary.part("vms", When.LEADING, drain=waits)]) as (_, stop, task):
            await asyncio.sleep(1)
            stop.set()
            began = asyncio.get_running_loop().time()
            await task
            assert asyncio.get_running_loop().time() - began == GRACE
    assert [line["event"] for line in logs] == ["stopping"]


async def test_a_part_that_ends_during_its_drain_is_no_failure() -> None:
    """Workers that take no new keys end so."""
    over = asyncio.Event()

    async def run() -> None:
        await over.wait()

    async def drain() -> None:
        over.set()

    with capture_logs() as logs:
        async with running([Part("vms", run, When.LEADING, drain)]) as (_, stop, task):
            await asyncio.sleep(1)
            stop.set()
            await task
    assert [line["event"] for line in logs] == ["stopping"]


async def test_no_part_drains_after_a_failure() -> None:
    """The process may not lead any more, so the results could not be written."""
    diary = Diary()

    async def drain() -> None:
        diary.lines.append("drains")

    parts = [Part("election", loses, When.SYNCED), diary.part("vms", When.LEADING, drain=drain)]
    async with running(parts) as (_, _, task):
        with pytest.raises(ControllerDiedError):
            await task
    assert diary.lines == ["vms starts", "vms stops"]


async def test_a_drain_that_fails_does_not_prevent_the_stop() -> None:
    """It is logged with its traceback."""
    diary = Diary()
    with capture_logs() as logs:
        async with running([diary.part("vms", When.LEADING, drain=fails)]) as (_, stop, task):
            await asyncio.sleep(1)
            stop.set()
            await task
    assert diary.lines == ["vms starts", "vms stops"]
    assert [(line["event"], line.get("task")) for line in logs] == [
        ("stopping", None),
        ("a task failed when it was stopped", "drain of vms"),
    ]


# --- failures ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", When)
@pytest.mark.parametrize(
    ("end", "why", "logged"),
    [
        (fails, "task reflector has ended: ZeroDivisionError: of all things", True),
        (ends, "task reflector has ended: it returned", True),
        (is_cancelled, "task reflector has ended: it was cancelled", True),
        (loses, "lease vmsim was taken by another", False),
    ],
)
async def test_a_part_that_ends_raises_with_its_cause(
    end: Run,
    why: str,
    logged: bool,  # noqa: FBT001 - a parameter
    when: When,
) -> None:
    """In every stage; a lost lease is reported with its own message."""
    diary = Diary()
    parts = [diary.part("monitor", When.ALWAYS), Part("reflector", end, when)]
    gates = {} if when is When.LEADING else {When.LEADING: waits}
    with capture_logs() as logs:
        async with running(parts, gates) as (lifecycle, _, task):
            with pytest.raises(ControllerDiedError) as caught:
                await task
    assert str(caught.value) == why
    assert isinstance(caught.value.__cause__, ZeroDivisionError | LeaseLostError) == (end in (fails, loses))
    assert [line["event"] for line in logs] == ["a task that must live has ended"] * logged
    assert diary.lines == ["monitor starts", "monitor stops"]
    assert "reflector" in lifecycle.ended()


async def test_a_gate_that_fails_raises_with_its_cause() -> None:
    """Its stage does not open: a process whose wait for the lease failed does not lead."""
    diary = Diary()
    parts = [diary.part("reflector", When.ALWAYS), diary.part("workers", When.LEADING)]
    async with running(parts, {When.LEADING: fails}) as (lifecycle, _, task):
        with pytest.raises(
            ControllerDiedError, match="task leading gate has ended: ZeroDivisionError: of all things"
        ) as caught:
            await task
        assert not lifecycle.has_reached(When.LEADING)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert diary.lines == ["reflector starts", "reflector stops"]


async def test_a_gate_that_is_cancelled_raises() -> None:
    """Although the lifecycle did not cancel it."""
    async with running([], {When.SYNCED: is_cancelled}) as (_, _, task):
        with pytest.raises(ControllerDiedError, match="it was cancelled"):
            await task


async def test_the_first_of_several_failures_is_raised_and_all_are_logged() -> None:
    """They occur at the same time."""

    def failing(number: int) -> Callable[[], object]:
        async def run() -> None:
            await asyncio.sleep(1)
            raise ValueError(number)

        return run

    parts = [Part(f"part {number}", failing(number)) for number in range(3)]  # type: ignore[arg-type]
    with capture_logs() as logs:
        async with running(parts) as (_, _, task):
            with pytest.raises(ControllerDiedError, match="task part 0 has ended: ValueError: 0"):
                await task
    assert [line["task"] for line in logs] == ["part 0", "part 1", "part 2"]


async def test_a_failure_during_a_requested_stop_is_only_logged() -> None:
    """The stop came first, so the process ends without an error."""
    diary = Diary()
    parts = [Part("election", lambda: loses_at(5), When.SYNCED), diary.part("vms", When.LEADING, drain=waits)]
    with capture_logs() as logs:
        async with running(parts) as (_, stop, task):
            await asyncio.sleep(1)
            stop.set()
            await task
    assert [line["event"] for line in logs] == ["stopping", "a task that must live has ended"]


async def test_a_failure_while_a_gate_is_cancelled_is_only_logged() -> None:
    """The stop came first, though the gate takes time to end."""

    async def slow() -> None:
        try:
            await waits()
        finally:
            await asyncio.sleep(3)

    with capture_logs() as logs:
        async with running([Part("reflector", fails)], {When.SYNCED: slow}) as (_, stop, task):
            await asyncio.sleep(0.5)
            stop.set()
            await task
    assert [line["event"] for line in logs] == ["a task that must live has ended", "stopping"]


async def loses_at(seconds: float) -> None:
    """Lose the lease after so long."""
    await asyncio.sleep(seconds)
    raise LeaseLostError("lease vmsim was taken by another")


# --- parts that do not end --------------------------------------------------------------------------------


async def test_a_part_that_ignores_cancellation_is_logged_and_abandoned() -> None:
    """The others are stopped all the same."""
    diary = Diary()
    over = asyncio.Event()

    async def swallows() -> None:
        while not over.is_set():
            with suppress(asyncio.CancelledError):
                await over.wait()

    parts = [diary.part("reflector", When.ALWAYS), Part("vms", swallows, When.LEADING)]
    with capture_logs() as logs:
        async with running(parts) as (_, stop, task):
            await asyncio.sleep(1)
            stop.set()
            began = asyncio.get_running_loop().time()
            await task
            assert asyncio.get_running_loop().time() - began == CANCEL_TIMEOUT
            over.set()
            await asyncio.sleep(0)

    assert diary.lines == ["reflector starts", "reflector stops"]
    assert [(line["event"], line.get("task")) for line in logs] == [
        ("stopping", None),
        ("a task does not end; it is left behind", "vms"),
    ]


async def test_a_part_that_fails_when_it_is_stopped_is_logged() -> None:
    """The others are stopped all the same."""
    diary = Diary()

    async def run() -> None:
        try:
            await waits()
        finally:
            raise ZeroDivisionError

    parts = [diary.part("reflector", When.ALWAYS), Part("vms", run, When.LEADING)]
    with capture_logs() as logs:
        async with running(parts) as (_, stop, task):
            await asyncio.sleep(1)
            stop.set()
            await task
    assert diary.lines == ["reflector starts", "reflector stops"]
    assert [(line["event"], line.get("task")) for line in logs] == [
        ("stopping", None),
        ("a task failed when it was stopped", "vms"),
    ]


async def test_cancelling_the_lifecycle_cancels_its_parts() -> None:
    """At once, without a drain."""
    diary = Diary()
    async with running([diary.part("vms", When.LEADING, drain=waits)]) as (_, _, task):
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert diary.lines == ["vms starts", "vms stops"]


async def test_a_lifecycle_that_is_cancelled_while_a_stage_drains_stops_every_stage() -> None:
    """The drain and the parts of the stages below, too."""
    diary = Diary()
    parts = [diary.part("reflector", When.ALWAYS), diary.part("vms", When.LEADING, drain=waits)]
    async with running(parts) as (_, stop, task):
        await asyncio.sleep(1)
        stop.set()
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert diary.lines == ["reflector starts", "vms starts", "vms stops", "reflector stops"]
