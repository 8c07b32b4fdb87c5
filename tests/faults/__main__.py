"""Tries every fault at every place of every scenario on a control plane of its own: `make faults`.

Prints the table of docs/reliability.md. The report's directory gets the table, every verdict as JSON, the complaints,
and the log and writes of each bad run (`bad`).

Exit codes: 0 if every run was good, 1 if not, 2 for a wrong command line, 3 if the runs could not be carried out.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import sys
import tempfile
import time
from pathlib import Path

from controller.controlplane.errors import ControlPlaneError
from controller.controlplane.plane import ControlPlane
from controller.telemetry import logs
from tests.faults import report
from tests.faults.matrix import Matrix, Verdict, cells, laboratory
from tests.faults.scenarios import SCENARIOS
from tests.plane import REPOSITORY, install

_FAILED, _NOT_CARRIED_OUT = 1, 3


def main() -> None:
    """Carry out the whole matrix, or a part of it, and exit."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults", description="Try faults between the controller and a real API server."
    )
    parser.add_argument("--scenario", choices=SCENARIOS, help="only this scenario")
    parser.add_argument("--fault", help="only the faults whose names contain this")
    parser.add_argument("--at", help="only at write, pods, virtualmachines or virtualmachinemigrations")
    parser.add_argument("--nth", type=int, metavar="N", help="only at the N-th place")
    parser.add_argument("--at-once", type=int, default=32, metavar="N", help="runs side by side (default: 32)")
    parser.add_argument(
        "--minutes", type=float, default=math.inf, metavar="N", help="begin no run after N minutes (default: all runs)"
    )
    parser.add_argument(
        "--report", type=Path, default=REPOSITORY / ".vmsim" / "faults", metavar="DIR", help="(default: .vmsim/faults)"
    )
    wanted = parser.parse_args()
    wanted.report.mkdir(parents=True, exist_ok=True)
    logs.configure(logs.LogFormat.CONSOLE, logs.LogLevel.ERROR)
    began = time.monotonic()
    try:
        with (
            tempfile.TemporaryDirectory(prefix="vmsim-faults-") as directory,
            ControlPlane(Path(directory) / "plane", nodes=0) as plane,
        ):
            install(plane)
            chosen, verdicts = asyncio.run(_try(wanted, plane.kubeconfig))
    except ControlPlaneError as error:
        _say(f"error: {error}\nhint: {error.hint}")
        sys.exit(_NOT_CARRIED_OUT)
    text = f"{report.table(verdicts)}\n\n{report.summary(verdicts, wanted=chosen, seconds=time.monotonic() - began)}\n"
    sys.stdout.write(text)
    (wanted.report / "table.md").write_text(text)
    (wanted.report / "complaints.txt").write_text("".join(f"{line}\n" for line in report.complaints(verdicts)))
    report.write(verdicts, wanted.report / "verdicts.json")
    sys.exit(_FAILED if any(verdict.complaints for verdict in verdicts) else 0)


async def _try(wanted: argparse.Namespace, kubeconfig: Path) -> tuple[int, list[Verdict]]:
    async with laboratory(kubeconfig, wanted.report / "runs") as lab:
        matrix = await Matrix.build(lab, wanted.at_once)
        references = await matrix.references([wanted.scenario] if wanted.scenario else list(SCENARIOS))
        found = (cell for reference in references for cell in cells(reference))
        chosen = [
            cell
            # The first places of the scenarios show most, so they are tried first.
            for cell in sorted(found, key=lambda cell: cell.nth)
            if (wanted.fault or "") in cell.fault and wanted.at in (None, cell.at) and wanted.nth in (None, cell.nth)
        ]
        _say(f"{len(chosen)} runs")
        ended = 0

        def report_verdict(verdict: Verdict) -> None:
            nonlocal ended
            ended += 1
            for complaint in verdict.complaints:
                _say(f"{verdict.cell}: {complaint}")
            if ended % 100 == 0:
                _say(f"{ended} of {len(chosen)}")

        return len(chosen), await matrix.verdicts(chosen, report_verdict, seconds=wanted.minutes * 60)


def _say(message: str) -> None:
    sys.stderr.write(f"{message}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    main()
