"""Parsing and writing of Kubernetes quantities (cores, bytes and counts), as in the API server.

Guarantees: exactly the documented grammar of `resource.Quantity` is accepted. Values are exact decimals, rounded away
from zero to a billionth, as the API server rounds them. The work is bounded for every text.
"""

from __future__ import annotations

import re
from decimal import MAX_EMAX, MIN_EMIN, ROUND_CEILING, ROUND_UP, Context, Decimal
from functools import lru_cache
from typing import Final

LONGEST: Final = 256
"""Maximum characters of a quantity. A canonical one has about twenty."""
LARGEST: Final = Decimal(10) ** 27
"""The magnitude to which larger values are clamped; no machine comes near it."""

_FORM: Final = re.compile(
    r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))(?:([numkMGTPE]|[KMGTPE]i)|[eE]([+-]?[0-9]+))?", re.ASCII
)
_BINARY: Final = {
    suffix: Decimal(1024) ** power for power, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), 1)
}
_DECIMAL: Final = {suffix: Decimal(1000) ** power for power, suffix in enumerate(("k", "M", "G", "T", "P", "E"), 1)}
_SUFFIX: Final = {
    **{suffix: Decimal(1000) ** power for power, suffix in enumerate(("n", "u", "m", ""), -3)},
    **_DECIMAL,
    **_BINARY,
}
_LARGEST_EXPONENT: Final = 2**31 - 1
_LARGEST_BINARY: Final = Decimal(2**63 - 1)
"""The magnitude to which the API server clamps a quantity with a binary suffix."""
_FINEST: Final = Decimal("1e-9")
_SHOWN: Final = 40
"""Characters of an invalid text that its error quotes."""
_EXACT: Final = Context(prec=2 * LONGEST, Emax=MAX_EMAX, Emin=MIN_EMIN, rounding=ROUND_UP)


class QuantityError(ValueError):
    """A text that is no Kubernetes quantity."""


def parse_quantity(text: object) -> Decimal:
    """Return a quantity (`32`, `500m`, `256Gi`, `256e9`, `-.5`) in its base unit: cores, bytes or a count.

    The result has no exponent above 0, so it prints as plain digits. Raises QuantityError.
    """
    if isinstance(text, str) and len(text) <= LONGEST:
        return _parse(text)
    raise _refusal(text)


def binary_quantity(value: Decimal) -> str:
    """Return bytes as a quantity with the largest binary suffix that shows them as a whole number: `256Gi`.

    `parse_quantity` of the result is `value`, for any value that it has returned and that is not negative.
    """
    if value <= _LARGEST_BINARY:  # with a suffix, larger ones are clamped
        for suffix, size in reversed(_BINARY.items()):
            if value >= size and not value % size:
                return f"{value / size:f}{suffix}"
    return f"{value:f}"


def shortest_quantity(value: Decimal) -> str:
    """Return whole bytes as a quantity with the suffix, binary or decimal, that makes it shortest: `64Mi`, `1250M`."""
    decimal = (f"{value / size:f}{suffix}" for suffix, size in _DECIMAL.items() if value >= size and not value % size)
    return min((binary_quantity(value), *decimal), key=len)


def decimal_text(number: float) -> str:
    """Return a number that is not negative as plain digits, with at most nine decimal places: `0.15`, `150`."""
    return f"{number:.9f}".rstrip("0").rstrip(".")


def round_up(value: Decimal, step: Decimal) -> Decimal:
    """Return the value, rounded up to a multiple of `step`, a power of ten."""
    return value.quantize(step, ROUND_CEILING, _EXACT)


@lru_cache(maxsize=4096)  # nodes and pods have few distinct sizes
def _parse(text: str) -> Decimal:
    match = _FORM.fullmatch(text)
    if match is None:
        raise _refusal(text)
    number, suffix, exponent = match.groups()
    if exponent is None:
        value = _EXACT.multiply(Decimal(number), _SUFFIX[suffix or ""])
    elif abs(int(exponent)) > _LARGEST_EXPONENT:
        raise _refusal(text)
    else:
        value = Decimal(number).scaleb(int(exponent), _EXACT)
    if not value:
        return Decimal(0)
    if value.adjusted() >= LARGEST.adjusted():
        value = LARGEST.copy_sign(value)
    value = value.quantize(_FINEST, context=_EXACT)
    if suffix is not None and suffix.endswith("i"):
        value = min(abs(value), _LARGEST_BINARY).copy_sign(value)
    whole = value.to_integral_value()
    return whole if whole == value else value.normalize(_EXACT)


def _refusal(text: object) -> QuantityError:
    shown = repr(text[: 2 * _SHOWN] if isinstance(text, str) else text)
    shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}…"
    return QuantityError(f"{shown} is no quantity: want a number with an optional suffix, such as 32, 500m or 256Gi")
