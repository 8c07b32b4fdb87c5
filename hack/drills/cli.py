"""The command line: `python -m hack.drills NAME`.

Exit codes: 0 if every VM ended Running and never had two live pods (and the drill's own checks passed), judged from
the pod watch's history; 1 if not; 2 for a wrong command line; 3 if the drill could not be carried out; 130 after
Ctrl-C. However it exits, no process is left running.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Final

from rich.console import Console

from controller import signals
from controller.controlplane.errors import ControlPlaneError
from controller.domain.objects import Strategy
from controller.kube.errors import KubeError
from controller.observe.observer import ObservationError
from controller.telemetry import logs
from hack.drills import chart, cluster
from hack.drills.errors import DrillError
from hack.drills.report import Report
from hack.drills.run import Order, carry_out
from hack.drills.scenarios import DRILLS
from hack.drills.seeding import SizeError
from hack.drills.table import table

_PIPE_WIDTH: Final = 120
_FAILED, _NOT_CARRIED_OUT, _INTERRUPTED = 1, 3, 130


def main() -> None:
    """Run a drill and exit."""
    order = _parse()
    logs.configure(logs.LogFormat.CONSOLE, logs.LogLevel.WARNING)
    signals.end_as_interrupted()
    try:
        order.reports.mkdir(parents=True, exist_ok=True)
        with _cluster(order) as where:
            report = asyncio.run(carry_out(order, where, say=_say))
    except ControlPlaneError as error:
        _complain(f"{error}\nhint: {error.hint}")
    except (DrillError, ObservationError, KubeError, OSError) as error:
        _complain(str(error))
    except (KeyboardInterrupt, asyncio.CancelledError):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not change the exit code
        print("interrupted; no process is left running", file=sys.stderr)
        sys.exit(_INTERRUPTED)
    else:
        _publish(order, report)
        sys.exit(_FAILED if report.problems else 0)


def _parse() -> Order:
    lines = "\n".join(f"  {drill.name:34}{drill.summary}" for drill in DRILLS.values())
    parser = argparse.ArgumentParser(
        prog="python -m hack.drills",
        description="Drain or delete nodes under VMs, and check that no VM was harmed.",
        epilog=f"drills:\n{lines}\n\nexit code: {(__doc__ or '').partition('Exit codes: ')[2]}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", metavar="NAME", choices=DRILLS, help=f"the drill: {', '.join(DRILLS)}")
    parser.add_argument("--vms", type=int, default=20, metavar="N", help="VMs (default: 20)")
    parser.add_argument("--nodes", type=int, default=5, metavar="N", help="fake nodes, if local (default: 5)")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="of all that is random (default: 1)")
    parser.add_argument(
        "--strategy",
        choices=[str(strategy) for strategy in Strategy],
        help="of the migrations, also when the controller is killed (default: the controller's, Recreate)",
    )
    parser.add_argument(
        "--report",
        type=Path,
        metavar="DIR",
        help="folder for report, chart, history and controller's log (default: .vmsim/drills/NAME in the repository)",
    )
    parser.add_argument(
        "--cluster",
        choices=("local", "current"),
        default="local",
        help="local: a control plane of its own; current: the fake nodes of the cluster that kubectl would use, on "
        "which no other vmsim controller may run (default: local)",
    )
    parser.add_argument("--dir", type=Path, help="state directory of the control plane (default: a temporary one)")
    parser.add_argument("--deadline", type=float, default=900.0, metavar="S", help="for the drill (default: 900)")
    given = parser.parse_args()
    if given.vms < 1:
        parser.error("--vms: want at least 1")
    drill = DRILLS[given.name]
    if given.cluster == "local":
        try:
            drill.fleet(Random(given.seed), given.vms, given.nodes)  # noqa: S311 - no secret
        except SizeError as error:
            parser.error(f"{given.name} {error}")
    return Order(
        drill=drill,
        vms=given.vms,
        nodes=given.nodes if given.cluster == "local" else None,
        seed=given.seed,
        strategy=Strategy(given.strategy) if given.strategy is not None else None,
        reports=given.report or cluster.REPOSITORY / ".vmsim" / "drills" / given.name,
        directory=given.dir,
        deadline=given.deadline,
    )


@contextmanager
def _cluster(order: Order) -> Iterator[cluster.Cluster]:
    if order.nodes is None:
        yield cluster.current()
    elif order.directory is not None:
        with cluster.local(order.directory, order.nodes) as where:
            yield where
    else:
        with (
            tempfile.TemporaryDirectory(prefix="vmsim-drill-") as directory,
            cluster.local(Path(directory) / "plane", order.nodes) as where,
        ):
            yield where


def _publish(order: Order, report: Report) -> None:
    console = Console() if sys.stdout.isatty() else Console(width=_PIPE_WIDTH)
    console.print(table(report))
    for path, write in (
        (order.reports / f"{report.drill}.json", report.write),
        (order.reports / f"{report.drill}.png", lambda path: chart.write(report, path)),
    ):
        write(path)
        print(path)


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _complain(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(_NOT_CARRIED_OUT)
