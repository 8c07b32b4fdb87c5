"""A command's conversation with a cluster: connect, watch, end with an exit code.

Guarantees: whatever the API server or the way to it does is one `error:` line and exit code 1; Ctrl-C is exit code
130; what is watched is news from the API server, never a poll.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Final, TypeVar

import typer
from rich.console import Console

from controller.cli.exits import INTERRUPTED, CommandError, fail
from controller.cli.text import one_line
from controller.engine.reflector import Reflector
from controller.engine.store import HasMetadata, Store
from controller.kube import credentials, errors
from controller.kube.client import Client
from controller.kube.resources import Resource
from controller.telemetry import logs

T = TypeVar("T", bound=HasMetadata)

SERVER_DEADLINE: Final = 10.0
"""Seconds that the API server may take for a create."""
_SYNC_DEADLINE: Final = 30.0
"""Seconds until a first list must have arrived."""
_PIPE_WIDTH: Final = 10_000
"""Columns where there is no terminal to fit: what reads us can cope with long lines."""


def run(kubeconfig: str | None, work: Callable[[Client, str], Awaitable[int]]) -> None:
    """Do the work with a client and the kubeconfig's own namespace; exit with the code it returns."""
    logs.configure(logs.LogFormat.CONSOLE, logs.LogLevel.WARNING)
    try:
        code = asyncio.run(_connected(kubeconfig, work))
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except CommandError as error:
        fail(str(error))
    except errors.KubeError as error:
        fail(explain(error))
    raise typer.Exit(code)


async def _connected(kubeconfig: str | None, work: Callable[[Client, str], Awaitable[int]]) -> int:
    source = credentials.find(kubeconfig)
    async with await Client.connect(source) as client:
        return await work(client, credentials.namespace(source))


def explain(error: errors.KubeError) -> str:
    """Say in one line what went wrong, and what to do about it where that is known."""
    match error:
        case errors.TransportError():
            return one_line(f"the API server does not answer: {error}")
        case errors.NotFoundError(reason=""):  # of an object that is not there it would say NotFound
            return "the cluster does not know our resources: install them with hack/setup_vm_crd.sh"
        case errors.StatusError():
            return one_line(error.message)
        case _:
            return one_line(str(error))


def console() -> Console:
    """Return standard output, on which text is printed as it is."""
    drawn = Console(markup=False, highlight=False, emoji=False, soft_wrap=True)
    if not drawn.is_terminal:
        drawn.width = _PIPE_WIDTH
    return drawn


class View:
    """What is watched, and the moment at which any of it changes."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()

    def touch(self, *_: object) -> None:
        """Note that something changed."""
        self._changed.set()

    async def change(self, within: float) -> None:
        """Wait until something has changed since the last call, or so many seconds have passed."""
        try:
            async with asyncio.timeout(max(0.0, within)):
                await self._changed.wait()
        except TimeoutError:
            return
        self._changed.clear()


@asynccontextmanager
async def watching(
    client: Client,
    resource: Resource[T],
    view: View,
    *,
    namespace: str | None = None,
    label_selector: str | None = None,
) -> AsyncIterator[Store[T]]:
    """Keep a store, full from the start, equal to the cluster. Raises CommandError if it does not fill."""
    store: Store[T] = Store()
    store.listen(view.touch)
    reflector = Reflector(
        client,
        resource,
        store,
        rng=Random(),  # noqa: S311 - spreads retries
        namespace=namespace,
        label_selector=label_selector,
    )
    task = asyncio.create_task(reflector.run())
    try:
        try:
            async with asyncio.timeout(_SYNC_DEADLINE):
                await reflector.synced.wait()
        except TimeoutError:
            raise CommandError(f"the API server lists no {resource.plural}, see above") from None
        yield store
    finally:
        task.cancel()
        await asyncio.wait({task})
