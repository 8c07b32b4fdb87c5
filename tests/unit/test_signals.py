"""A script stops gracefully on every request to stop: in the background, without its terminal, repeatedly."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from controller.signals import interrupts, listen

SCRIPT = """
import signal, time
from controller import signals
signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in a background job of a shell
signals.end_as_interrupted()
try:
    print("ready", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    print("stopped")
"""
UNDER_NOHUP = f"import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n{SCRIPT}"
IN_A_TERMINAL = """
import pathlib, sys, time
from controller import signals
signals.end_as_interrupted()
try:
    print("ready", flush=True)
    time.sleep(60)
finally:
    with signals.uninterrupted():
        print("written to a closed terminal", flush=True)
        print("and so is this", file=sys.stderr, flush=True)
        pathlib.Path(sys.argv[1]).write_text("cleaned up")
"""
CLOSES_ITS_TERMINAL = """
import os, pty, sys
pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.executable, [sys.executable, "-c", sys.argv[1], sys.argv[2]])
seen = b""
while b"ready" not in seen:
    seen += os.read(terminal, 1000)
os.close(terminal)
os.waitpid(pid, 0)
"""
IN_A_LOOP = """
import asyncio, os, signal
from controller import signals

async def main():
    asked = []
    with signals.handled(lambda: asked.append(1)):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(os.getpid(), number)
        while len(asked) < 3:
            await asyncio.sleep(0.01)
    print("handled", flush=True)
    await asyncio.sleep(60)

signals.end_as_interrupted()
try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("stopped")
"""


def start(script: str) -> subprocess.Popen[str]:
    """Run a script."""
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_every_request_to_stop_raises_keyboard_interrupt(number: signal.Signals) -> None:
    """So that the script stops all processes that it started."""
    with start(SCRIPT) as script:
        assert script.stdout is not None
        assert script.stdout.readline() == "ready\n"
        script.send_signal(number)
        assert script.stdout.read() == "stopped\n"


def test_sighup_is_ignored_under_nohup() -> None:
    """SIGTERM still stops it."""
    with start(UNDER_NOHUP) as script:
        assert script.stdout is not None
        assert script.stdout.readline() == "ready\n"
        script.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            script.wait(0.3)
        script.send_signal(signal.SIGTERM)
        assert script.stdout.read() == "stopped\n"


def test_output_after_the_terminal_is_closed_does_not_fail_the_cleanup(tmp_path: Path) -> None:
    """Writing to the terminal would raise."""
    path = tmp_path / "cleanup"
    subprocess.run([sys.executable, "-c", CLOSES_ITS_TERMINAL, IN_A_TERMINAL, str(path)], check=True, timeout=15)
    assert path.read_text() == "cleaned up"


def test_every_request_reaches_the_loop_and_the_previous_handlers_are_restored() -> None:
    """A request between the end of the loop and of the script interrupts the script."""
    with start(IN_A_LOOP) as script:
        assert script.stdout is not None
        assert script.stdout.readline() == "handled\n"
        script.send_signal(signal.SIGHUP)
        assert script.stdout.read() == "stopped\n"


async def test_ctrl_c_can_be_counted_instead_of_ending_the_program() -> None:
    """The handler before is there again afterwards."""
    before, pressed = signal.getsignal(signal.SIGINT), []
    with interrupts(lambda: pressed.append(1)):
        for times in (1, 2):
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(0.02)
            assert len(pressed) == times
    assert signal.getsignal(signal.SIGINT) is before


async def test_an_ignored_ctrl_c_stays_ignored() -> None:
    """As in a background job of a shell."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interrupts(lambda: None):
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


async def test_sighup_counts_only_as_the_first_request() -> None:
    """It arrives twice, from the kernel and from the shell; a second request by another signal counts."""
    loop, asked = asyncio.get_running_loop(), []
    listen(loop, lambda: asked.append(1), signal.SIGINT)
    try:
        for number, times in ((signal.SIGHUP, 1), (signal.SIGHUP, 1), (signal.SIGTERM, 2), (signal.SIGHUP, 2)):
            os.kill(os.getpid(), number)
            await asyncio.sleep(0.02)
            assert len(asked) == times
    finally:
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
