"""Ratios, and the reference node of which they are shares: exact decimals, never floats.

Guarantees: a ratio is a plain decimal within its bounds, or parsing raises a `RatioError` that names field, value and
bound. Requests round down, so that VMs whose ratios add up to 1 fit on one reference node.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Context, Decimal
from functools import lru_cache
from typing import Final

from controller.kube.quantity import QuantityError, parse_quantity

MAX_LENGTH: Final = 16
"""Longest ratio string: bounds the work before any arithmetic, here and in the CRD."""
DEFAULT_CPU: Final = "32"
DEFAULT_MEMORY: Final = "256Gi"
"""The default size of a fake node, and of the reference node."""
CPU_MAX: Final = Decimal(1000)
MEMORY_MAX: Final = Decimal(1)

_PLAIN_DECIMAL = re.compile(r"[0-9]+(\.[0-9]+)?", re.ASCII)
_EXACT: Final = Context(prec=80)
"""A ratio has at most 16 digits, a quantity 36."""


class RatioError(ValueError):
    """A ratio that cannot be used. The message names the field, the value and the bound."""


def parse_ratio(value: object, *, field: str, maximum: Decimal) -> Decimal:
    """Parse a share of the reference node, 0 to `maximum` inclusive.

    Raises RatioError for anything that is not a plain decimal string (`NaN`, `1e3`, `-1`, `.5`, a number).
    """
    ratio = _plain_decimal(value) if isinstance(value, str) else None
    if ratio is None or ratio > maximum:
        wanted = f"want a plain decimal string from 0 to {maximum}, such as '0.15'"
        raise RatioError(f"{field} is {_shorten(value)}: {wanted}")
    return ratio


@lru_cache(maxsize=4096)  # VMs come in a few sizes
def _plain_decimal(text: str) -> Decimal | None:
    return Decimal(text) if len(text) <= MAX_LENGTH and _PLAIN_DECIMAL.fullmatch(text) else None


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 2 * MAX_LENGTH else f"{text[: 2 * MAX_LENGTH]}…"


@dataclass(frozen=True, slots=True)
class ReferenceNode:
    """The node of which every ratio is a share: cores and bytes."""

    cpu: Decimal
    memory: Decimal

    @classmethod
    def of(cls, *, cpu: str, memory: str) -> ReferenceNode:
        """Parse two quantities; both must be above zero."""
        node = cls(cpu=parse_quantity(cpu), memory=parse_quantity(memory))
        if node.cpu <= 0 or node.memory <= 0:
            raise QuantityError(
                f"a reference node of {cpu} CPU and {memory} memory holds nothing: both must be above 0"
            )
        return node

    def cpu_of(self, ratio: Decimal) -> Decimal:
        """Return the cores that a pod of this ratio requests: whole millicores, rounded down."""
        return _floor(_EXACT.multiply(ratio, self.cpu), 3)

    def memory_of(self, ratio: Decimal) -> Decimal:
        """Return the bytes that a pod of this ratio requests: whole ones, rounded down."""
        return _floor(_EXACT.multiply(ratio, self.memory), 0)

    def cpu_quantity(self, ratio: Decimal) -> str:
        """Return `cpu_of` as a quantity."""
        return _cpu_text(self, ratio)

    def memory_quantity(self, ratio: Decimal) -> str:
        """Return `memory_of` as a quantity."""
        return _memory_text(self, ratio)


@lru_cache(maxsize=4096)  # VMs come in a few sizes
def _cpu_text(node: ReferenceNode, ratio: Decimal) -> str:
    return f"{node.cpu_of(ratio).scaleb(3, _EXACT)}m"


@lru_cache(maxsize=4096)
def _memory_text(node: ReferenceNode, ratio: Decimal) -> str:
    return str(node.memory_of(ratio))


def _floor(value: Decimal, places: int) -> Decimal:
    return value.quantize(Decimal(1).scaleb(-places), ROUND_FLOOR, _EXACT)


DEFAULT_REFERENCE: Final = ReferenceNode.of(cpu=DEFAULT_CPU, memory=DEFAULT_MEMORY)
