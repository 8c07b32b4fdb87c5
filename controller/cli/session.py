"""A command's conversation with a cluster: connect, work, end with an exit code.

Guarantees: whatever the API server or the way to it does is one `error:` line and exit code 1; Ctrl-C, SIGTERM and a
hang-up end it in the same good order, with exit code 130.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Final

import typer
from rich.console import Console

from controller import signals
from controller.cli import entry, target
from controller.cli.connection import Connection
from controller.cli.exits import INTERRUPTED, CommandError, fail
from controller.kube import credentials, errors
from controller.kube.client import REQUEST_DEADLINE, Client
from controller.operations.errors import SimulatorError, translated
from controller.telemetry import logs

_PIPE_WIDTH: Final = 10_000
"""Columns where there is no terminal to fit: what reads us can cope with long lines."""


def run(connection: Connection, work: Callable[[Client, str], Awaitable[int]], *, manager: str) -> None:
    """Do the work with a client and the namespace that is meant; exit with the code it returns.

    `manager` is the field manager of what is written.
    """
    logs.configure(logs.LogFormat.CONSOLE, logs.LogLevel.WARNING)
    try:
        entry.answer_interrupts()
        code = asyncio.run(_connected(connection, work, manager))
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise typer.Exit(INTERRUPTED) from None
    except (CommandError, SimulatorError) as error:
        fail(str(error))
    except errors.KubeError as error:
        fail(explain(error))
    raise typer.Exit(code)


async def _connected(connection: Connection, work: Callable[[Client, str], Awaitable[int]], manager: str) -> int:
    _cancel_when_asked_to_stop()
    kubeconfig = target.find(connection, lambda words: typer.echo(words, err=True))
    source = credentials.find(kubeconfig, connection.choice)
    deadline = REQUEST_DEADLINE if connection.request_timeout is None else connection.request_timeout
    async with await Client.connect(source, manager=manager, deadline=deadline) as client:
        return await work(client, credentials.namespace(source))


def _cancel_when_asked_to_stop() -> None:
    """Let SIGTERM and a hang-up do what asyncio lets Ctrl-C do: cancel the task, and end at once when repeated."""
    task = asyncio.current_task()
    asked = False

    def stop() -> None:
        nonlocal asked
        if asked or task is None:
            os._exit(INTERRUPTED)
        asked = True
        task.cancel()

    signals.listen(asyncio.get_running_loop(), stop)


def explain(error: errors.KubeError) -> str:
    """Say in one line what went wrong, and what to do about it where that is known."""
    return str(translated(error))


def console() -> Console:
    """Return standard output, on which text is printed as it is."""
    drawn = Console(markup=False, highlight=False, emoji=False, soft_wrap=True)
    if not drawn.is_terminal:
        drawn.width = _PIPE_WIDTH
    return drawn
