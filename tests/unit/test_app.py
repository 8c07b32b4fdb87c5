"""What ends the controller's wait: a stop, what was waited for, or a task that must live, with its cause."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from controller.app import ControllerDiedError, _first
from controller.engine.election import LeaseLostError

pytestmark = pytest.mark.looptime


async def lives() -> None:
    """Live as long as the process."""
    await asyncio.Event().wait()


async def ends() -> None:
    """End after a while, with nothing to say."""
    await asyncio.sleep(1)


async def fails() -> None:
    """Fail after a while."""
    await asyncio.sleep(1)
    raise ZeroDivisionError("of all things")


async def loses() -> None:
    """Lose the lease after a while."""
    await asyncio.sleep(1)
    raise LeaseLostError("lease vmsim was taken by another")


@pytest.fixture
async def living() -> AsyncIterator[asyncio.Task[None]]:
    """Return a task that lives."""
    task = asyncio.create_task(lives())
    yield task
    task.cancel()


async def test_what_was_waited_for_is_true(living: asyncio.Task[None]) -> None:
    """It came to its end well."""
    assert await _first(asyncio.Event(), [living], ends())


async def test_a_stop_is_false(living: asyncio.Task[None]) -> None:
    """Before what was waited for, which is cancelled, or with nothing to wait for."""
    stop = asyncio.Event()
    asyncio.get_running_loop().call_later(0.5, stop.set)
    began = asyncio.all_tasks()

    assert not await _first(stop, [living], lives())
    assert not await _first(stop, [living])
    assert asyncio.all_tasks() == began


async def test_what_was_waited_for_and_failed_raises_with_its_cause(living: asyncio.Task[None]) -> None:
    """It is not taken for done: a process whose wait for the lease failed does not lead."""
    with pytest.raises(ControllerDiedError, match="fails has ended: ZeroDivisionError: of all things") as caught:
        await _first(asyncio.Event(), [living], fails())
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


async def test_what_was_waited_for_and_was_cancelled_raises(living: asyncio.Task[None]) -> None:
    """By whoever."""

    async def cancelled() -> None:
        raise asyncio.CancelledError

    with pytest.raises(ControllerDiedError, match="it was cancelled"):
        await _first(asyncio.Event(), [living], cancelled())


@pytest.mark.parametrize(
    ("end", "why"),
    [
        (fails, "task reflector has ended: ZeroDivisionError: of all things"),
        (ends, "task reflector has ended: it returned"),
        (loses, "lease vmsim was taken by another"),
    ],
)
async def test_a_task_that_must_live_and_ends_is_told_with_its_cause(
    living: asyncio.Task[None], end: Callable[[], Coroutine[Any, Any, None]], why: str
) -> None:
    """Whatever else is waited for."""
    dying = asyncio.create_task(end(), name="reflector")
    with pytest.raises(ControllerDiedError) as caught:
        await _first(asyncio.Event(), [living, dying], lives())
    assert str(caught.value) == why


async def test_a_task_that_must_live_and_was_cancelled_is_told(living: asyncio.Task[None]) -> None:
    """That is no cause to end in another way."""
    dying = asyncio.create_task(lives(), name="reflector")
    asyncio.get_running_loop().call_later(1, dying.cancel)
    with pytest.raises(ControllerDiedError, match="task reflector has ended: it was cancelled"):
        await _first(asyncio.Event(), [living, dying])
