"""What a VM's guest does to its memory: how much is in use, how fast it is dirtied, and how much of it again and again.

Guarantees: pure. An annotation that cannot be read means the installation's default, and is named.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Final, NamedTuple, TypeVar

from controller.domain import names
from controller.domain.copying.policy import CopyingPolicy, WritableSet
from controller.domain.objects import VirtualMachine
from controller.kube.quantity import parse_quantity

T = TypeVar("T")

_LARGEST: Final = parse_quantity("1Ei")
"""Bytes, or bytes a second, at most: floats hold them exactly enough."""
INVALID_DIRTY_RATE: Final = "InvalidDirtyRate"
INVALID_WRITABLE_SET: Final = "InvalidWritableSet"
"""The conditions of a VM with such an annotation."""
_SHOWN: Final = 32
DIRTY_RATE_WANTED: Final = "want bytes a second, such as 10Mi, of at most 1Ei"
WRITABLE_SET_WANTED: Final = "want a share of the memory in use, such as 3%, or bytes, such as 200Mi"


class Guest(NamedTuple):
    """Bytes of memory in use and of the writable working set, and the dirty rate in bytes a second."""

    memory_in_use: float
    dirty_rate: float
    writable_set: float


class Problem(NamedTuple):
    """Why an annotation is not used, or not as it is: the type, reason and message of the VM's condition."""

    condition: str
    reason: str
    message: str


def of_vm(vm: VirtualMachine, memory_in_use: Decimal, policy: CopyingPolicy) -> Guest:
    """Return the guest of a VM that has so many bytes in use."""
    used = float(memory_in_use)
    annotations = vm.metadata.annotations
    rate = _read(annotations.get(names.DIRTY_RATE), parse_dirty_rate)
    writable = _read(annotations.get(names.WRITABLE_SET), parse_writable_set)
    return Guest(
        used,
        rate if rate is not None else policy.dirty_rate,
        (writable if writable is not None else policy.writable_set).of(used),
    )


def problems(vm: VirtualMachine, memory: Decimal) -> tuple[Problem, ...]:
    """Return why annotations about the guest are not used; `memory`: bytes that the VM has."""
    annotations = vm.metadata.annotations
    found = []
    rate = annotations.get(names.DIRTY_RATE)
    if rate is not None and _read(rate, parse_dirty_rate) is None:
        found.append(_unreadable(INVALID_DIRTY_RATE, names.DIRTY_RATE, rate, DIRTY_RATE_WANTED))
    text = annotations.get(names.WRITABLE_SET)
    if text is None:
        return tuple(found)
    writable = _read(text, parse_writable_set)
    if writable is None:
        found.append(_unreadable(INVALID_WRITABLE_SET, names.WRITABLE_SET, text, WRITABLE_SET_WANTED))
    elif writable.size > memory:
        above = f"annotation {names.WRITABLE_SET} is {text[:_SHOWN]!r}, more than the VM's memory of {memory} bytes"
        found.append(Problem(INVALID_WRITABLE_SET, "AboveMemory", f"{above}; all memory in use counts as writable"))
    return tuple(found)


def parse_dirty_rate(text: str) -> float:
    """Parse a dirty rate: a quantity of bytes a second. Raises ValueError."""
    rate = parse_quantity(text)
    if not 0 <= rate <= _LARGEST:
        raise ValueError(f"{text!r} is not a dirty rate: {DIRTY_RATE_WANTED}")
    return float(rate)


def parse_writable_set(text: str) -> WritableSet:
    """Parse a writable working set: `3%` of the memory in use, or a quantity of bytes. Raises ValueError."""
    number, percent, rest = text.partition("%")
    size = parse_quantity(number)
    if rest or not 0 <= size <= (100 if percent else _LARGEST):
        raise ValueError(f"{text!r} is not a writable set: {WRITABLE_SET_WANTED}")
    return WritableSet(share=float(size / 100)) if percent else WritableSet(share=None, size=float(size))


def _read(text: str | None, parse: Callable[[str], T]) -> T | None:
    try:
        return parse(text) if text is not None else None
    except ValueError:
        return None


def _unreadable(condition: str, annotation: str, text: str, wanted: str) -> Problem:
    message = f"annotation {annotation} is {text[:_SHOWN]!r}: {wanted}; the installation's is used"
    return Problem(condition, "NotAQuantity", message)
