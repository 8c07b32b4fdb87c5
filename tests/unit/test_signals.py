"""A script in the background ends as one in the foreground does."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

SCRIPT = """
import signal, time
from hack import signals
signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in a background job of a shell
signals.end_as_interrupted()
try:
    print("ready", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    print("stopped")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_both_signals_interrupt_it(number: signal.Signals) -> None:
    """So that all that it started is stopped on the way out."""
    with subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, text=True) as script:
        assert script.stdout is not None
        assert script.stdout.readline() == "ready\n"
        script.send_signal(number)
        assert script.stdout.read() == "stopped\n"
