"""Parses the cells of a trace: a time, or a share of a VM's request.

Guarantees: exact decimals; every float that Python, pandas or a spreadsheet writes is read, and every time of RFC 3339,
with a space for its T or without an offset, too. Pure.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Final

from controller.scenario.distributions import QUANTUM

UNITS: Final = {"s": Decimal(1), "ms": Decimal("0.001"), "us": Decimal("0.000001")}
"""The units of a time that is a bare number, in seconds."""
UNIT_WORDS: Final = {"s": "seconds", "ms": "milliseconds", "us": "microseconds"}
_LONGEST: Final = 64
"""The maximum length of a number: more than any program writes for a float."""
_LARGEST: Final = Decimal(10) ** 24
_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?", re.ASCII)
_MOMENT: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:[Tt ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(\.[0-9]{1,12})?)? ?([Zz]|[+-][0-9]{2}:?[0-9]{2})?)?",
    re.ASCII,
)
_NO_VALUE: Final = frozenset(
    ("nan", "na", "n/a", "#n/a", "null", "none", "nat", "inf", "-inf", "infinity", "-infinity")
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# A time since 1970 in one unit is at least this large from 1973 on; in the next coarser unit, not before the year 5000.
_SINCE_1970: Final = ((Decimal(10) ** 17, "ns"), (Decimal(10) ** 14, "us"), (Decimal(10) ** 11, "ms"))


def number(cell: str) -> Decimal | None:
    """Return a number as it is written; None if the cell is not one, or if it is too large to make sense."""
    value = Decimal(cell) if len(cell) <= _LONGEST and _NUMBER.fullmatch(cell) else None
    return value if value is not None and abs(value) <= _LARGEST else None


def no_value(cell: str) -> bool:
    """Whether a cell is empty or one of the usual spellings of a missing value."""
    return not cell or cell.lower() in _NO_VALUE


def since_1970(value: Decimal) -> str | None:
    """Return the unit of a time since 1970 by its size, if finer than a second; None otherwise."""
    return next((unit for least, unit in _SINCE_1970 if abs(value) >= least), None)


def moment(cell: str) -> Decimal | None:
    """Return the seconds from 1970 to a date with or without a time, in UTC without an offset; None for other cells."""
    match = _MOMENT.fullmatch(cell)
    if match is None:
        return None
    day, hour, minute, second, fraction, offset = match.groups()
    try:
        clock = f"{hour or '00'}:{minute or '00'}:{second or '00'}"
        whole = datetime.fromisoformat(f"{day}T{clock}").replace(tzinfo=_zone(offset))
        return Decimal(int((whole - _EPOCH).total_seconds())) + Decimal(f"0{fraction or ''}")
    except (ValueError, OverflowError):
        return None


def rounded(value: Decimal) -> Decimal:
    """Return a number rounded to four decimal places, and 0 without a sign; it must be at most about a thousand."""
    short = value.quantize(QUANTUM, ROUND_HALF_EVEN)
    return short or Decimal(0)


def _zone(offset: str | None) -> timezone:
    """Return the zone of `Z`, `+01:00` or `-0530`. Raises ValueError."""
    if offset is None or offset in "Zz":
        return UTC
    sign = -1 if offset[0] == "-" else 1
    return timezone(sign * timedelta(hours=int(offset[1:3]), minutes=int(offset[-2:])))
