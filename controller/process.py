"""The controller as an operating system process: event loop, signals and exit.

Guarantees: the first SIGTERM, SIGINT or SIGHUP stops it gracefully, a second signal ends it at once; under `nohup`
SIGHUP is ignored; an expected failure is returned as a message for the user.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress

from controller import app, signals
from controller.engine.lifecycle import ControllerDiedError
from controller.kube.errors import CredentialsError
from controller.serving.address import BindError
from controller.serving.tls import CertificateError


def run_until_signal(settings: app.Settings) -> str | None:
    """Run the controller; return None after a clean stop, else the error message."""
    allow_many_files()
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_main(settings))
    except (CredentialsError, CertificateError, BindError, ControllerDiedError) as error:
        return str(error)
    return None


def allow_many_files() -> None:
    """Raise the soft limit of open files to the hard limit, as Go's runtime does: each watch needs a connection."""
    if sys.platform == "win32":
        return
    import resource  # noqa: PLC0415 - not available on Windows

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(OSError, ValueError):  # some systems enforce a lower limit of their own
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    if sys.platform == "win32":
        return None
    import uvloop  # noqa: PLC0415 - not available on Windows

    return uvloop.Loop


async def _main(settings: app.Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def ask() -> None:
        if stop.is_set():
            os._exit(130)
        stop.set()

    signals.listen(loop, ask, signal.SIGINT)
    await app.run(settings, stop)
