"""The contestants of the benchmark, and how each is started.

Guarantees: leader election and client rate limits are off for all, and Events for all but the one that measures their
cost; each is a process of its own, whose program was built or installed before any measurement began.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Final

from controller.controlplane.gobuild import GoBuild, find_go
from controller.controlplane.host import cache_directory
from controller.controlplane.report import Reporter
from controller.controlplane.versions import Binary, Distribution, Version
from hack.bench.errors import BenchError

REPOSITORY: Final = Path(__file__).resolve().parents[2]
STATE: Final = REPOSITORY / ".vmsim" / "bench"
_PEERS: Final = Path(__file__).parent / "peers"
_KOPF: Final = _PEERS / "kopf"
_INSTALL_DEADLINE: Final = 600.0


SPEED: Final = 100
"""Simulated seconds in a real one while VMs move live: the memory of all is copied in a second, not in a minute."""


@dataclass(frozen=True, slots=True)
class Launch:
    """A program's command line, its additional environment, and the address of its readiness probe.

    `{kubeconfig}`, `{metrics}` and `{health}` (ports) are replaced at the start.
    """

    command: tuple[str, ...]
    ready: str
    environment: Mapping[str, str] = field(default_factory=dict)

    def with_flags(self, *flags: str) -> Launch:
        """Return it with more flags."""
        return replace(self, command=(*self.command, *flags))


@dataclass(frozen=True, slots=True)
class Contestant:
    """One implementation of the job. `share` is the part of a burst's VMs that it gets: a slow one gets fewer."""

    name: str
    title: str
    share: float = 1.0
    fleets: bool = True
    """Whether it can start on an existing fleet without writing to each VM first."""


BARE: Final = Contestant("bare", "bare pods (no VMs: the lower bound)", fleets=False)
GO: Final = Contestant("controller-runtime", "controller-runtime (Go)")
GO_COALESCING: Final = Contestant("coalescing", "controller-runtime, coalescing as ours does")
KOPF: Final = Contestant("kopf", "Kopf", share=0.25, fleets=False)
OURS: Final = Contestant("ours", "vmsim")
OURS_WITH_EVENTS: Final = Contestant("events", "vmsim, with Events", fleets=False)
ALL: Final = (BARE, GO, GO_COALESCING, KOPF, OURS, OURS_WITH_EVENTS)


@dataclass(frozen=True, slots=True)
class _Peer(Distribution):
    """The Go peer, as a distribution to build."""

    @property
    def module_directory(self) -> Path:
        return _PEERS / "controller-runtime"

    @property
    def digest(self) -> str:
        """A hash of its source."""
        content = sha256()
        for path in sorted(self.module_directory.iterdir()):
            content.update(path.read_bytes())
        return content.hexdigest()[:12]


_PEER: Final = _Peer(
    name="controller-runtime",
    version=Version(0, 25, 2),
    module="vmsim.bench/peer",
    ldflags="-s -w",
    binaries=(Binary("peer", "vmsim.bench/peer"),),
)


def prepare(contestant: Contestant, report: Reporter) -> Launch | None:
    """Build or install a contestant's program; return None for bare pods, which need none. Raises BenchError."""
    match contestant.name:
        case OURS.name:
            return _ours("--no-events")
        case OURS_WITH_EVENTS.name:
            return _ours()
        case GO.name:
            return _go(report)
        case GO_COALESCING.name:
            return _go(report, "--coalesce")
        case KOPF.name:
            return _kopf(report)
        case _:
            return None


def _ours(*flags: str) -> Launch:
    return Launch(
        command=(
            *(sys.executable, "-m", "controller", "--kubeconfig", "{kubeconfig}", "--no-leader-elect", *flags),
            *("--metrics-bind-address", "127.0.0.1:{metrics}"),
            # No limits, so that the migrations measure the controller's own speed.
            *("--parallel-migrations-per-cluster", "0", "--parallel-outbound-migrations-per-node", "0"),
        ),
        ready="http://127.0.0.1:{metrics}/readyz",
    )


def _go(report: Reporter, *flags: str) -> Launch:
    return Launch(
        command=(
            *(str(_build(report)), "--kubeconfig", "{kubeconfig}", "--metrics-bind-address", "127.0.0.1:{metrics}"),
            *("--health-probe-bind-address", "127.0.0.1:{health}", *flags),
        ),
        ready="http://127.0.0.1:{health}/readyz",
    )


def _build(report: Reporter) -> Path:
    home = cache_directory(os.environ, sys.platform) / "bench" / f"controller-runtime-{_PEER.digest}"
    program = home / "peer"
    if not program.exists():
        home.mkdir(parents=True, exist_ok=True)
        go = find_go(os.environ.get("PATH", os.defpath), Path(sys.executable).parent, _PEER.title)
        workspace = home / f".work-{os.getpid()}"
        workspace.mkdir()
        build = GoBuild(_PEER, go, workspace, report, note=lambda _: None)
        for binary in build.run(_PEER.binaries):
            (workspace / binary.name).replace(program)
    return program


def _kopf(report: Reporter) -> Launch:
    home = STATE / "kopf"
    wanted = (_KOPF / "requirements.txt").read_text()
    installed = home / "installed.txt"
    if not installed.exists() or installed.read_text() != wanted:
        report.say("installing Kopf into an environment of its own")
        uv = Path(sys.executable).parent / "uv"
        for command in (
            (str(uv), "venv", "--quiet", "--clear", "--python", sys.executable, str(home)),
            (
                *(str(uv), "pip", "install", "--quiet", "--python", str(home / "bin" / "python")),
                *("--requirement", str(_KOPF / "requirements.txt")),
            ),
        ):
            try:
                subprocess.run(command, check=True, capture_output=True, text=True, timeout=_INSTALL_DEADLINE)
            except (OSError, subprocess.SubprocessError) as error:
                output = getattr(error, "stderr", None) or error
                raise BenchError(f"Kopf cannot be installed (leave it out with --contestants): {output}") from error
        installed.write_text(wanted)
    return Launch(
        command=(
            *(str(home / "bin" / "kopf"), "run", "--quiet", "--all-namespaces", "--standalone"),
            *("--liveness", "http://127.0.0.1:{health}/healthz", str(_KOPF / "vm_operator.py")),
        ),
        ready="http://127.0.0.1:{health}/healthz",
        environment={"KUBECONFIG": "{kubeconfig}", "PYTHONPATH": str(REPOSITORY)},
    )
