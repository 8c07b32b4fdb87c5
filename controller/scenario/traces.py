"""CSV traces: recorded consumption over time.

Guarantees: an unusable row is a problem with its file, line and column; a mistake that all rows share (the unit,
percent, decimal commas) is one problem that names the fix; a file is read once, however many groups play it; its
size is bounded. Times may start at any value. Values with more than four decimal places are rounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Final

from controller.scenario import readings, tables
from controller.scenario.document import Notes, Spot, UnusableError, decode
from controller.scenario.errors import DocumentError
from controller.scenario.profiles import Samples
from controller.scenario.tables import SHOWN, Table
from controller.scenario.values import LONGEST_TIME, parse_time

LARGEST: Final = 8 * 1024 * 1024
"""The maximum size of a trace, in bytes."""
HIGHEST: Final = Decimal(1000)
"""The largest share of a request that a trace may have."""
COLUMNS: Final = ("cpu", "memory")
_TIME: Final = "time"
_LIKELY: Final = {"cpu": Decimal(10), "memory": Decimal(1)}
"""Shares above these are taken for percent, unless the scenario says otherwise."""
_HUNDRED: Final = Decimal(100)
_SHORTEST: Final = Decimal("1e-9")
"""Seconds between two rows: a float of a play does not resolve less."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How to read the numbers of a trace; None where the scenario does not set it: their size decides.

    `unit` is the unit of times that are bare numbers: `s`, `ms` or `us`; `percent` whether shares are in percent.
    """

    unit: str | None = None
    percent: bool | None = None


@dataclass(slots=True)
class Traces:
    """The traces of one scenario file, relative to its directory."""

    directory: Path
    _tables: dict[str, Table | None] = field(default_factory=dict)
    _times: dict[tuple[str, str | None], tuple[float, ...] | None] = field(default_factory=dict)
    _shares: dict[tuple[str, str, bool | None], tuple[Decimal, ...] | None] = field(default_factory=dict)

    def samples(self, spot: Spot, column: str, reading: Reading, *, repeat: bool) -> Samples:
        """Read one column of a trace.

        Repeated, its last row lasts as long as the one before it.
        """
        name = spot.text("the path of a CSV file")
        notes = Notes(name)
        if name not in self._tables:
            self._tables[name] = None
            self._tables[name] = self._read(name, spot, notes)
        table = self._tables[name]
        if table is None:
            spot.notes.problems += notes.problems
            raise UnusableError(name)
        if column not in table.columns:
            spot.note(f"has no column {column}")
        unit, percent = reading.unit, reading.percent
        if (name, unit) not in self._times:
            self._times[name, unit] = times_of(table, unit, notes)
        if column in table.columns and (name, column, percent) not in self._shares:
            self._shares[name, column, percent] = shares_of(table, column, percent, notes)
        spot.notes.problems += notes.problems
        times, shares = self._times[name, unit], self._shares.get((name, column, percent))
        if times is None or shares is None:
            raise UnusableError(name)  # its problems are noted already
        return Samples(times, shares, period=2 * times[-1] - times[-2] if repeat and len(times) > 1 else None)

    def _read(self, name: str, spot: Spot, notes: Notes) -> Table | None:
        try:
            with (self.directory / name).open("rb") as file:
                data = file.read(LARGEST + 1)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise spot.unusable(f"cannot read {name}: {why}") from error
        if len(data) > LARGEST:
            raise spot.unusable(f"{name} is larger than {LARGEST} bytes")
        try:
            return tables.read(decode(data, name), notes, needed=_TIME, others=COLUMNS)
        except DocumentError as error:
            notes.problems += error.problems
            return None


def times_of(table: Table, unit: str | None, notes: Notes) -> tuple[float, ...] | None:
    """Return the seconds from the first row to each; None if there are problems, which are noted."""
    before = len(notes.problems)
    found: list[Decimal] = []
    for line, cell in zip(table.lines, table.columns[_TIME], strict=True):
        if len(notes.problems) - before >= SHOWN:
            return None
        value = readings.number(cell)
        if value is not None and unit is None and not found and (looks := readings.since_1970(value)) is not None:
            notes.add(line, _TIME, _unit_hint(cell, looks))
            return None
        moment = value * readings.UNITS[unit or "s"] if value is not None else _moment(cell)
        if moment is None:
            notes.add(line, _TIME, _no_time(cell))
        elif found and moment <= found[-1]:
            notes.add(line, _TIME, _not_later(cell, same=moment == found[-1]))
        elif found and moment - found[-1] < _SHORTEST:
            notes.add(line, _TIME, f"want a time at least a nanosecond later than that of the row before; not {cell!r}")
        elif found and moment - found[0] > LONGEST_TIME:
            notes.add(line, _TIME, _too_long(moment - found[0], unit, bare=value is not None))
            return None
        else:
            found.append(moment)
    return tuple(float(moment - found[0]) for moment in found) if len(notes.problems) == before and found else None


def shares_of(table: Table, column: str, percent: bool | None, notes: Notes) -> tuple[Decimal, ...] | None:  # noqa: FBT001 - a field of the file
    """Return a column's shares; None if there are problems, which are noted."""
    before = len(notes.problems)
    cells = table.columns[column]
    found: list[Decimal] = []
    likely = HIGHEST if percent is not None else _LIKELY[column]
    scale = _HUNDRED if percent else Decimal(1)
    highest = HIGHEST * _HUNDRED if percent is None else HIGHEST * scale
    unlikely = False
    for line, cell in zip(table.lines, cells, strict=True):
        if len(notes.problems) - before >= SHOWN:
            break
        value = readings.number(cell)
        if value is None and tables.decimal_comma(cell):
            notes.add(line, column, f"{cell!r} has a decimal comma: write the column with points, 0.5 for 0,5")
            break
        if value is None or not -1 <= value <= highest or (share := readings.rounded(value / scale)) < 0:
            notes.add(line, column, _no_share(cell, HIGHEST * scale))
        elif share <= likely:
            found.append(share)
        elif not unlikely:
            unlikely = True
            notes.add(line, column, _percent_hint(column, cells))
    return tuple(found) if len(notes.problems) == before and found else None


def _moment(cell: str) -> Decimal | None:
    """Read a date, or a time such as 5m."""
    seconds = parse_time(cell)
    return Decimal(str(seconds)) if seconds is not None else readings.moment(cell)


def _no_time(cell: str) -> str:
    wanted = "want seconds, or a time such as 5m or 2026-03-01T12:00:00Z"
    return f"{wanted}; not {cell!r}" if cell else f"is empty: {wanted}, or take the row out"


def _not_later(cell: str, *, same: bool) -> str:
    cut_off = ": if a spreadsheet cut its digits off, format the column as a number" if same and "E+" in cell else ""
    return f"want a time later than that of the row before; not {cell!r}{cut_off}"


def _no_share(cell: str, highest: Decimal) -> str:
    if readings.no_value(cell):
        return f"is {cell or 'empty'}: each row needs a value, so take the row out, or fill it in"
    what = "a share of the VM's request, a number" if highest == HIGHEST else "percent of the VM's request"
    without = "; without the %, and with percent: true beside file:" if cell.endswith("%") else ""
    return f"want {what} from 0 to {highest}; not {cell!r}{without}"


def _unit_hint(cell: str, looks: str) -> str:
    if looks not in readings.UNITS:
        return f"{cell} looks like nanoseconds since 1970: divide by 1000, and write unit: us beside file:"
    words = readings.UNIT_WORDS[looks]
    return f"{cell} looks like {words} since 1970: write unit: {looks} beside file: (unit: s if these are seconds)"


def _too_long(length: Decimal, unit: str | None, *, bare: bool) -> str:
    wrong = f"is {length / 86400:.0f} days after the first row: want at most 366"
    finer = list(readings.UNITS)[list(readings.UNITS).index(unit or "s") + 1 :] if bare else []
    ratio = readings.UNITS[unit or "s"]
    looks = next((name for name in finer if length * readings.UNITS[name] / ratio <= LONGEST_TIME), None)
    return (
        wrong
        if looks is None
        else f"{wrong}. If these are {readings.UNIT_WORDS[looks]}, write unit: {looks} beside file:"
    )


def _percent_hint(column: str, cells: Sequence[str]) -> str:
    numbers = (value for cell in cells if (value := readings.number(cell)) is not None)
    largest = max(value for value in numbers if value <= HIGHEST * _HUNDRED)
    hint = f"shares up to {largest:f} look like percent: beside file:, write percent: true to divide by 100"
    if largest > HIGHEST:
        return hint
    more = "more than ten times" if column == "cpu" else "more than"
    return f"{hint}, or percent: false if the VM uses {more} its request"
