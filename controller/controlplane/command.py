"""Runs a helper command: quietly, within a deadline, with no process left afterwards.

Guarantees: on a timeout and on Ctrl-C the command is killed and its pipes are closed before the event loop ends; the
process that `end` was given has ended when `end` returns.
"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Mapping
from pathlib import Path


class CommandError(Exception):
    """A command failed or exceeded its deadline. The message contains its output."""


async def run(*command: str, environment: Mapping[str, str], deadline: float) -> str:
    """Run a command and return its output. `deadline` is in seconds. Raises CommandError."""
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
