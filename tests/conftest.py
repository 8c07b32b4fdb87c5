"""Settings of every test."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import pytest
import structlog

pytest.register_assert_rewrite("tests.model")

# Plugins call `get_event_loop` before synchronous tests, of any folder; without this it makes a loop that nobody
# closes, and a later test fails of the warning. So it is done when tests are collected, before any of them runs.
asyncio.set_event_loop(None)

# A shell without job control starts background commands with SIGINT ignored, and nohup all with SIGHUP ignored; every
# process that the tests start would inherit that: their Ctrl-C, or their closed terminal, would be lost.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# A logger that is cached on its first use keeps the standard error of the test in which that was, which is closed by
# the next one: whoever logs then, a reflector say, dies of it.
_configure = structlog.configure


def _configure_uncached(**wanted: Any) -> None:
    _configure(**{**wanted, "cache_logger_on_first_use": False})


setattr(structlog, "configure", _configure_uncached)  # noqa: B010 - for every module that looks it up
