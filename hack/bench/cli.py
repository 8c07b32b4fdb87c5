"""The command line: `python -m hack.bench`, or `make bench`.

Exit codes: 0 if all measures ran and every target was met; 1 if a target was missed or a contestant failed; 2 for
a wrong command line; 3 if the benchmark could not be carried out; 130 after Ctrl-C. However it exits, the results so
far are kept, and no process is left running.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from rich.console import Console

from controller import signals
from controller.controlplane.errors import ControlPlaneError
from controller.controlplane.report import default_reporter
from controller.telemetry import logs
from hack.bench import chart, contestants, machine, plan, table, verdicts
from hack.bench.errors import BenchError
from hack.bench.figures import Results

_WIDTH: Final = 140
_MISSED, _NOT_CARRIED_OUT, _INTERRUPTED = 1, 3, 130


def main() -> None:
    """Run the benchmark and exit."""
    order = _parse()
    logs.configure(logs.LogFormat.CONSOLE, logs.LogLevel.WARNING)
    signals.end_as_interrupted()
    try:
        plan.run(order)
    except ControlPlaneError as error:
        _complain(f"{error}\nhint: {error.hint}")
    except (BenchError, OSError) as error:
        _complain(str(error))
    except KeyboardInterrupt:
        print("interrupted; no process is left running", file=sys.stderr)
        sys.exit(_INTERRUPTED)
    sys.exit(_publish(order))


def _publish(order: plan.Run) -> int:
    judged = verdicts.judge(order.results)
    console = Console() if sys.stdout.isatty() else Console(width=_WIDTH)
    console.print(table.draw(order.results, judged))
    chart_path = order.path.with_suffix(".png")
    chart.write(order.results, chart_path)
    print(f"{order.path}\n{chart_path}")
    return _MISSED if order.results.failures or any(one.met is False for one in judged) else 0


def _parse() -> plan.Run:
    names = [one.name for one in contestants.ALL]
    parser = argparse.ArgumentParser(
        prog="python -m hack.bench",
        description="Compare this controller with its alternatives, each on control planes of its own.",
        epilog=f"exit code: {(__doc__ or '').partition('Exit codes: ')[2]}",
    )
    parser.add_argument("--only", type=_some(plan.MEASURES), default=plan.MEASURES, metavar="A,B",
                        help=f"measures: {', '.join(plan.MEASURES)} (default: all)")  # fmt: skip
    parser.add_argument("--contestants", type=_some(names), default=names, metavar="A,B",
                        help=f"contestants: {', '.join(names)} (default: all)")  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="small sizes and one round, for a small machine")
    parser.add_argument("--vms", type=int, metavar="N", help="VMs of a burst (default: 2000)")
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds of bursts and migrations (default: 3)")
    parser.add_argument("--fleet", type=int, metavar="N", help="VMs of the existing fleet (default: 10000)")
    parser.add_argument(
        "--growth", type=_sizes, metavar="N,N", help="sizes of growing fleets (default: 1000,5000,10000,20000)"
    )
    parser.add_argument(
        "--migrations", type=int, metavar="N", help="VMs that move at once, by each strategy (default: 500)"
    )
    parser.add_argument("--report", type=Path, metavar="FILE", default=contestants.STATE / "results.json",
                        help="file of the results, with a chart beside it; measures that are not run again keep their "
                        "results in it (default: .vmsim/bench/results.json)")  # fmt: skip
    given = parser.parse_args()
    chosen = {name: getattr(given, name) for name in ("vms", "rounds", "fleet", "growth", "migrations")}
    sizes = dataclasses.replace(
        plan.QUICK if given.quick else plan.Sizes(), **{name: size for name, size in chosen.items() if size is not None}
    )
    if any(size < 1 for size in (sizes.rounds, sizes.vms, sizes.fleet, sizes.migrations, *sizes.growth)):
        parser.error("sizes must be at least 1")
    path: Path = given.report.absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    about = machine.describe()
    known = Results.read(path)
    return plan.Run(
        sizes=sizes,
        measures=frozenset(given.only),
        contestants=tuple(one for one in contestants.ALL if one.name in given.contestants),
        results=known if known is not None and known.machine == about else Results(about),
        path=path,
        report=default_reporter(),
    )


def _some(known: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    """Return a parser of comma-separated names."""

    def read(text: str) -> tuple[str, ...]:
        chosen = tuple(text.split(","))
        if unknown := [name for name in chosen if name not in known]:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; choose from {', '.join(known)}")
        return chosen

    return read


def _sizes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(size) for size in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers, such as 1000,5000") from None


def _complain(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(_NOT_CARRIED_OUT)
