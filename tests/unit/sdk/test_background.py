"""The background thread of the synchronous calls."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.kube.client import Client
from controller.kube.credentials import Source
from controller.kube.errors import CredentialsError
from controller.sdk import _background
from controller.sdk._background import Background
from tests.unit.kube.builders import kubeconfig


@pytest.fixture
def background() -> Iterator[Background]:
    """Return a background of the test's own."""
    made = Background()
    yield made
    made.close()


async def used(background: Background, source: Source) -> Client:
    """Return the client that a call gets."""
    async with background.client(source) as client:
        return client


async def where() -> tuple[threading.Thread, asyncio.AbstractEventLoop]:
    """Return the thread and the event loop that run this."""
    return threading.current_thread(), asyncio.get_running_loop()


def test_every_call_runs_on_one_loop_in_one_thread(background: Background) -> None:
    """Not in the caller's."""
    first = background.run(where)
    assert background.run(where) == first
    assert first[0] is not threading.current_thread()


def test_callers_in_several_threads_share_the_loop(background: Background) -> None:
    """Concurrent first calls start only one."""
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(background.run(where))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [background.run(where)] * 8


def test_an_error_is_raised_in_the_caller(background: Background) -> None:
    """Unchanged."""

    async def fail() -> None:
        raise KeyError("so it is")

    with pytest.raises(KeyError, match="so it is"):
        background.run(fail)


def test_a_caller_may_have_a_running_loop(background: Background) -> None:
    """As in a notebook."""

    async def notebook() -> bool:
        return background.run(where)[1] is not asyncio.get_running_loop()

    assert asyncio.run(notebook())


def test_ctrl_c_cancels_the_call_in_flight(background: Background) -> None:
    """The background serves the next call."""
    cancelled = threading.Event()

    async def wait() -> None:
        asyncio.get_running_loop().call_later(0.1, os.kill, os.getpid(), signal.SIGINT)  # the caller waits by then
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    with pytest.raises(KeyboardInterrupt):
        background.run(wait)
    assert cancelled.wait(5)
    assert background.run(where)


def test_close_ends_the_thread_and_the_loop(background: Background) -> None:
    """And the tasks that are left on it."""
    ended = threading.Event()

    async def leave() -> tuple[threading.Thread, asyncio.AbstractEventLoop]:
        async def linger() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        background.lingering = asyncio.create_task(linger())  # type: ignore[attr-defined]
        await asyncio.sleep(0)
        return await where()

    thread, loop = background.run(leave)
    background.close()
    assert ended.is_set()
    assert not thread.is_alive()
    assert loop.is_closed()


def test_a_cluster_has_one_client(background: Background, tmp_path: Path) -> None:
    """For sequential and for concurrent calls."""
    source = Source(str(kubeconfig(tmp_path / "config", "http://127.0.0.1:1")))

    async def both() -> bool:
        first, second = await asyncio.gather(used(background, source), used(background, source))
        return first is second is await used(background, source)

    assert background.run(both)


def test_a_changed_kubeconfig_gets_a_new_client(background: Background, tmp_path: Path) -> None:
    """It may name another cluster."""
    source = Source(str(kubeconfig(tmp_path / "config", "http://127.0.0.1:1")))
    before = background.run(lambda: used(background, source))
    kubeconfig(tmp_path / "config", "http://127.0.0.1:12")
    assert background.run(lambda: used(background, source)) is not before


def test_the_client_of_a_changed_kubeconfig_is_closed_after_its_last_use(
    background: Background, tmp_path: Path
) -> None:
    """A long-lived process would otherwise keep all of them."""
    source = Source(str(kubeconfig(tmp_path / "config", "http://127.0.0.1:1")))

    async def replace() -> list[bool]:
        closed = []
        async with background.client(source) as first:
            await asyncio.to_thread(kubeconfig, tmp_path / "config", "http://127.0.0.1:12")
            second = await used(background, source)
            closed.append(first._transport._sessions.requests.closed)
        closed.append(first._transport._sessions.requests.closed)
        await asyncio.to_thread(kubeconfig, tmp_path / "config", "http://127.0.0.1:123")
        await used(background, source)
        return [*closed, second._transport._sessions.requests.closed]

    assert background.run(replace) == [False, True, True]
    assert len(background._clients) == 1


def test_a_failed_connection_is_retried_by_the_next_call(background: Background, tmp_path: Path) -> None:
    """The error is not cached: a missing file may exist by then."""
    token = tmp_path / "token"
    source = Source(str(kubeconfig(tmp_path / "config", "https://127.0.0.1:1", {"tokenFile": str(token)})))
    with pytest.raises(CredentialsError):
        background.run(lambda: used(background, source))
    token.write_text("secret")
    assert isinstance(background.run(lambda: used(background, source)), Client)


def test_a_process_has_one_background() -> None:
    """Its managers share the connections."""
    assert _background.background() is _background.background()
