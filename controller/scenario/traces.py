"""CSV traces: what VMs used in life, row by row.

Guarantees: a row that cannot be used is a problem with file, line and column; a file is read once however many groups
play it; its size is bounded. Values with more than four decimal places are rounded.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path
from typing import Final

from controller.scenario.distributions import QUANTUM
from controller.scenario.document import Notes, Spot, UnusableError
from controller.scenario.profiles import Samples
from controller.scenario.values import LONGEST_TIME, parse_time

LARGEST: Final = 8 * 1024 * 1024
"""Bytes of a trace."""
HIGHEST: Final = Decimal(1000)
"""The largest share of a request that a trace may hold."""
COLUMNS: Final = ("cpu", "memory")
_TIME: Final = "time"
_SHOWN: Final = 20
"""Bad rows after which reading stops: the others are bad in the same way."""
_NUMBER = re.compile(r"[0-9]{1,12}(\.[0-9]{1,18})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Trace:
    """The rows of a trace: times in seconds, rising, and the columns that are there."""

    times: tuple[float, ...]
    columns: Mapping[str, tuple[Decimal, ...]]

    def samples(self, column: str, *, repeat: bool) -> Samples:
        """Return one column as a profile. Repeated, the last row lasts as long as the one before it."""
        begin = self.times[0]
        times = tuple(moment - begin for moment in self.times)  # many a trace counts from 1970
        if not repeat or len(times) == 1:
            return Samples(times, self.columns[column])
        return Samples(times, self.columns[column], period=2 * times[-1] - times[-2])


@dataclass(slots=True)
class Traces:
    """The traces of one scenario file, relative to its directory."""

    directory: Path
    _known: dict[str, Trace | None] = field(default_factory=dict)

    def read(self, spot: Spot) -> Trace:
        """Read the trace that a scenario names."""
        name = spot.text("the path of a CSV file")
        if name not in self._known:
            self._known[name] = None
            self._known[name] = self._read(name, spot)
        trace = self._known[name]
        if trace is None:
            raise UnusableError(name)  # its problems have been noted
        return trace

    def _read(self, name: str, spot: Spot) -> Trace | None:
        try:
            with (self.directory / name).open("rb") as file:
                data = file.read(LARGEST + 1)
            text = data.decode("utf-8-sig")
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise spot.unusable(f"cannot read {name}: {why}") from error
        if len(data) > LARGEST:
            raise spot.unusable(f"{name} is larger than {LARGEST} bytes")
        notes = Notes(name)
        trace = parse(text, notes)
        spot.notes.problems += notes.problems
        return trace


def parse(text: str, notes: Notes) -> Trace | None:
    """Read a trace; None if there are problems, which are noted."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    times: list[float] = []
    columns: dict[str, list[Decimal]] = {}
    try:
        header = [name.strip() for name in next(reader, [])]
        wrong = _wrong_with(header)
        if wrong is not None:
            notes.add(1, "", wrong)
            return None
        columns = {name: [] for name in COLUMNS if name in header}
        for row in filter(None, reader):
            if len(row) != len(header):
                notes.add(reader.line_num, "", f"has {len(row)} columns, the first line {len(header)}")
            else:
                cells = dict(zip(header, map(str.strip, row), strict=True))
                times.append(_moment(cells[_TIME], times, notes, reader.line_num))
                for name, values in columns.items():
                    values.append(_share(name, cells[name], notes, reader.line_num))
            if len(notes.problems) >= _SHOWN:
                break
    except csv.Error as error:
        notes.add(max(1, reader.line_num), "", f"no CSV: {error}")
    if not times and not notes.problems:
        notes.add(1, "", "has no rows below the first line")
    if notes.problems:
        return None
    return Trace(tuple(times), {name: tuple(values) for name, values in columns.items()})


def _wrong_with(header: list[str]) -> str | None:
    known = [name for name in header if name in (_TIME, *COLUMNS)]
    if _TIME not in known or known == [_TIME]:
        return f"want a first line that names the columns time, and cpu or memory; not {','.join(header)!r}"
    return "a column is there twice" if len(header) > len(set(header)) else None


def _moment(cell: str, before: list[float], notes: Notes, line: int) -> float:
    """Read a time: seconds, or 5m and the like. It must be later than the one before; the first may be any."""
    moment = float(cell) if _NUMBER.fullmatch(cell) else parse_time(cell)
    if moment is None or moment > LONGEST_TIME:
        notes.add(line, _TIME, f"want seconds, or a time such as 5m, of at most 366 days; not {cell!r}")
    elif before and moment <= before[-1]:
        notes.add(line, _TIME, f"want a time later than that of the row before; not {cell!r}")
    else:
        return moment
    return before[-1] if before else 0.0


def _share(column: str, cell: str, notes: Notes, line: int) -> Decimal:
    if _NUMBER.fullmatch(cell) and Decimal(cell) <= HIGHEST:
        return Decimal(cell).quantize(QUANTUM, ROUND_HALF_EVEN)
    notes.add(line, column, f"want a share of what the VM requests, a number from 0 to {HIGHEST}; not {cell!r}")
    return Decimal(0)
