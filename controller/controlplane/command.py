"""Runs a command on the way to something else: quietly, within a deadline, leaving nothing behind.

Guarantees: on a time-out and on Ctrl-C the command is ended before the event loop ends, its pipes closed; what
`end` was given has ended when it returns.
"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Mapping
from pathlib import Path


class CommandError(Exception):
    """A command failed or took too long. The message has what it printed."""


async def run(*command: str, environment: Mapping[str, str], deadline: float) -> str:
    """Run a command; return what it printed. `deadline` is in seconds. Raises CommandError."""
    process = await asyncio.create_subprocess_exec(
        *command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    name = " ".join((Path(command[0]).name, *command[1:]))
    try:
        output, _ = await asyncio.wait_for(process.communicate(), deadline)
    except TimeoutError:
        raise CommandError(f"{name} did not end within {deadline:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    if process.returncode:
        raise CommandError(f"{name} failed:\n{output.decode().strip()}")
    return output.decode()


async def end(process: asyncio.subprocess.Process, patience: float) -> None:
    """Ask a process to end, if it has not yet; after `patience` seconds make it."""
    if process.returncode is not None:
        return
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), patience)
    except TimeoutError:
        process.kill()
        await process.wait()
