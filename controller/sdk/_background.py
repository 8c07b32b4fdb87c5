"""The thread that runs the asynchronous half of the Python API, and its connections.

Guarantees: a process has one thread, one event loop and one client for each cluster, created on first use; calls may
come from any thread, from a REPL or from a notebook's own event loop; an interrupt of the caller (Ctrl-C) cancels the
request in flight; connections are closed when their kubeconfig has changed and at exit, which waits for nothing else. A
forked child creates a thread and connections of its own; a call in flight at the fork belongs to the parent alone.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import structlog

from controller.kube import credentials, managers
from controller.kube.client import Client

T = TypeVar("T")

_CLOSE_DEADLINE: Final = 2.0
"""Seconds for closing the connections at exit."""


class Background:
    """An event loop on a thread of its own."""

    def __init__(self) -> None:
        self._starting = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._clients: dict[tuple[object, ...], asyncio.Task[Client]] = {}
        self._users: Counter[asyncio.Task[Client]] = Counter()
        self._process = os.getpid()

    def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run the coroutine in the background, and wait for its result. Raises its errors."""
        future = asyncio.run_coroutine_threadsafe(work(), self._started())
        try:
            return future.result()
        finally:
            future.cancel()  # ends the work if the wait was interrupted

    @asynccontextmanager
    async def client(self, source: credentials.Source) -> AsyncIterator[Client]:
        """Lend the client of a cluster; a new one once its kubeconfig has changed. Call it in the background.

        The superseded client is closed once its last use has ended. Raises CredentialsError.
        """
        key = (source, *_versions(source))
        task = self._clients.get(key)
        if task is None:
            task = self._clients[key] = asyncio.create_task(Client.connect(source, manager=managers.SDK))
        self._users[task] += 1
        try:
            client = await asyncio.shield(task)  # other calls may wait for it, too
            await self._close_superseded(source, key)
            yield client
        finally:
            self._users[task] -= 1
            if task.done() and (task.cancelled() or task.exception() is not None):
                self._clients.pop(key, None)
                if not self._users[task]:
                    del self._users[task]
            elif key != (source, *_versions(source)):
                await self._close_superseded(source, (source, *_versions(source)))

    async def _close_superseded(self, source: credentials.Source, newest: tuple[object, ...]) -> None:
        """Close the clients of earlier versions of a kubeconfig that are not in use."""
        for key, task in list(self._clients.items()):
            if key[0] == source and key != newest and task.done() and not self._users[task]:
                del self._clients[key], self._users[task]
                if not task.cancelled() and task.exception() is None:
                    await task.result().close()

    def close(self) -> None:
        """Cancel the work in flight, close the connections, and end the thread."""
        with self._starting:
            loop, thread = self._loop, self._thread
            if loop is None or thread is None or os.getpid() != self._process:
                return
            try:
                asyncio.run_coroutine_threadsafe(self._end(), loop).result(_CLOSE_DEADLINE)
            except TimeoutError:
                return  # the thread is a daemon: it ends with the process
            loop.call_soon_threadsafe(loop.stop)
            thread.join(_CLOSE_DEADLINE)
            if not thread.is_alive():
                loop.close()
            self._loop = self._thread = None

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._starting:
            if self._loop is None:
                _log_like_a_library()
                loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=loop.run_forever, name="vmsim", daemon=True)
                self._thread.start()
                self._loop = loop
                atexit.register(self.close)
            return self._loop

    async def _end(self) -> None:
        clients = [task.result() for task in self._clients.values() if task.done() and task.exception() is None]
        self._clients.clear()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.gather(*(client.close() for client in clients), return_exceptions=True)


def _versions(source: credentials.Source) -> tuple[object, ...]:
    """Return the version of a kubeconfig: after a change, its cluster or its current context may be another one."""
    found: list[object] = []
    for path in source.paths:
        try:
            state = Path(path).stat()
        except OSError:
            continue
        found += [path, state.st_mtime_ns, state.st_size]
    return tuple(found)


def _log_like_a_library() -> None:
    """Send log lines through `logging`, as libraries do, unless the caller has configured structlog."""
    if structlog.is_configured():
        return
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.processors.format_exc_info,
            structlog.processors.KeyValueRenderer(key_order=["event"]),
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )


_current = [Background()]
"""The last one is this process's; the others belong to the processes that it was forked from, and are not touched."""


def background() -> Background:
    """Return this process's background."""
    return _current[-1]


if hasattr(os, "register_at_fork"):  # there are no forks on Windows
    os.register_at_fork(after_in_child=lambda: _current.append(Background()))
