"""A long command ends with its caller, at whatever moment the caller is interrupted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]

INTERRUPTED = """
import os, signal, sys
from pathlib import Path
from controller.controlplane import stream

def interrupt(frame, event, _):
    if event == "return" and frame.f_code.co_name == "_execute_child":
        sys.setprofile(None)
        print(frame.f_locals["self"].pid, flush=True)
        signal.raise_signal(signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.setprofile(interrupt)
try:
    stream.run(
        ["sleep", "600"], cwd=Path.cwd(), env=dict(os.environ), scratch=Path(sys.argv[1]),
        on_progress=lambda _: None, timeout=5,
    )
except KeyboardInterrupt:
    print("interrupted")
"""


def test_an_interrupt_during_the_start_of_a_command_ends_the_command(tmp_path: Path) -> None:
    """It arrives after the process was created, and before the caller has its handle."""
    done = subprocess.run(
        (sys.executable, "-c", INTERRUPTED, str(tmp_path)),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )

    pid, printed = done.stdout.split()
    assert printed == "interrupted"
    assert not Path(f"/proc/{pid}").exists()
