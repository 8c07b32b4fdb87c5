"""The table of faults and scenarios, as docs/reliability.md shows it, and every verdict as JSON.

A number counts the runs of a fault in a scenario, each at another place; `18/19` means that one of them was not good.
Runs whose fault found nothing to strike are left out of both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from tests.faults.matrix import Verdict


def table(verdicts: Sequence[Verdict]) -> str:
    """Return the table as Markdown."""
    struck = [verdict for verdict in verdicts if verdict.struck]
    scenarios = tuple(dict.fromkeys(verdict.cell.scenario for verdict in verdicts))
    faults = tuple(dict.fromkeys(verdict.cell.fault for verdict in verdicts))
    rows = [
        ("fault", *scenarios, "all", "longest, s"),
        ("---", *("--:" for _ in scenarios), "--:", "--:"),
        *(
            (
                fault,
                *(_count(_of(struck, fault=fault, scenario=scenario)) for scenario in scenarios),
                _count(_of(struck, fault=fault)),
                _longest(_of(struck, fault=fault)),
            )
            for fault in faults
        ),
        ("all", *(_count(_of(struck, scenario=scenario)) for scenario in scenarios), _count(struck), _longest(struck)),
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def summary(verdicts: Sequence[Verdict], *, wanted: int, seconds: float) -> str:
    """Return one sentence: how many of the wanted runs there were, and how they ended."""
    struck = [verdict for verdict in verdicts if verdict.struck]
    good = sum(not verdict.complaints for verdict in struck)
    explained = sum(bool(verdict.explained) for verdict in struck)
    untried = f"; no time for {wanted - len(verdicts)} more" if len(verdicts) < wanted else ""
    return (
        f"{good} of {len(struck)} runs good, {explained} of them with an explained difference; in "
        f"{len(verdicts) - len(struck)} more the fault found nothing to strike{untried}; {seconds / 60:.0f} minutes"
    )


def complaints(verdicts: Iterable[Verdict]) -> Iterator[str]:
    """Return every complaint with its cell, a line each."""
    for verdict in verdicts:
        for complaint in verdict.complaints:
            yield f"{verdict.cell}: {complaint}"


def write(verdicts: Sequence[Verdict], path: Path) -> None:
    """Write every verdict as JSON."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(verdicts)))


def _of(verdicts: Iterable[Verdict], *, fault: str | None = None, scenario: str | None = None) -> list[Verdict]:
    return [
        verdict
        for verdict in verdicts
        if fault in (None, verdict.cell.fault) and scenario in (None, verdict.cell.scenario)
    ]


def _count(verdicts: Sequence[Verdict]) -> str:
    good = sum(not verdict.complaints for verdict in verdicts)
    if not verdicts:
        return "–"  # noqa: RUF001 - the sign for no runs
    return str(good) if good == len(verdicts) else f"**{good}/{len(verdicts)}**"


def _longest(verdicts: Sequence[Verdict]) -> str:
    return f"{max((verdict.seconds for verdict in verdicts), default=0.0):.0f}"
