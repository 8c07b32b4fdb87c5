"""Runs a command against a cluster: connect, work, exit.

Guarantees: every failure of the API server or of the connection is one `error:` line and exit code 1, unless the
command has its own; Ctrl-C, SIGTERM and SIGHUP cancel the work and close the connection, with exit code 130.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final

import typer
from rich.console import Console

from controller import signals
from controller.cli import entry, target
from controller.cli.connection import Connection
from controller.cli.exits import FAILED, INTERRUPTED, CommandError, fail
from controller.kube import credentials, errors
from controller.kube.client import REQUEST_DEADLINE, Client
from controller.operations.errors import SimulatorError, translated
from controller.telemetry import logs

_PIPE_WIDTH: Final = 10_000
"""Columns of output that is not a terminal: long lines are not wrapped there."""


@dataclass(frozen=True, slots=True)
class Scope:
    """The namespaces of a command: the one that it is about, and the credentials' own (`home`), whatever -n says."""

    namespace: str
    home: str


def run(
    connection: Connection, work: Callable[[Client, Scope], Awaitable[int]], *, manager: str, failed: int = FAILED
) -> None:
    """Connect, call `work` with the client and the namespaces, and exit with the code that it returns.

    `manager` is the field manager of all writes. `failed`: the exit code of a failure.
    """
    logs.configure(logs.LogFormat.CONSOLE, logs.LogLevel.WARNING)
    try:
        entry.raise_on_interrupt()
        code = asyncio.run(_connected(connection, work, manager))
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise typer.Exit(INTERRUPTED) from None
    except (CommandError, SimulatorError) as error:
        fail(str(error), code=failed)
    except errors.KubeError as error:
        fail(explain(error), code=failed)
    raise typer.Exit(code)


async def _connected(connection: Connection, work: Callable[[Client, Scope], Awaitable[int]], manager: str) -> int:
    _cancel_on_request_to_stop()
    kubeconfig = target.find(connection, lambda words: typer.echo(words, err=True))
    source = credentials.find(kubeconfig, connection.choice)
    deadline = REQUEST_DEADLINE if connection.request_timeout is None else connection.request_timeout
    async with await Client.connect(source, manager=manager, deadline=deadline) as client:
        own = replace(source, choice=replace(source.choice, namespace=None))
        return await work(client, Scope(credentials.namespace(source), credentials.namespace(own)))


def _cancel_on_request_to_stop() -> None:
    """Handle SIGTERM and SIGHUP as asyncio handles Ctrl-C: the first cancels the task, the second exits at once."""
    task = asyncio.current_task()
    cancelled = False

    def stop() -> None:
        nonlocal cancelled
        if cancelled or task is None:
            os._exit(INTERRUPTED)
        cancelled = True
        task.cancel()

    signals.listen(asyncio.get_running_loop(), stop)


def explain(error: errors.KubeError) -> str:
    """Return one line: what failed, and what to do about it where that is known."""
    return str(translated(error))


def console() -> Console:
    """Return a console on standard output that prints text unchanged: no markup, no highlighting, no wrapping."""
    drawn = Console(markup=False, highlight=False, emoji=False, soft_wrap=True)
    if not drawn.is_terminal:
        drawn.width = _PIPE_WIDTH
    return drawn
