"""What a VM's guest does to its memory: how much is in use, how fast it is dirtied, and how much of it again and again.

Guarantees: pure. An annotation that cannot be read means the installation's default, and is named.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Final, NamedTuple, TypeVar

from controller.domain import names
from controller.domain.copying.policy import CopyingPolicy
from controller.domain.copying.texts import parse_dirty_rate, parse_writable_set
from controller.domain.objects import VirtualMachine

T = TypeVar("T")

INVALID_DIRTY_RATE: Final = "InvalidDirtyRate"
INVALID_WRITABLE_SET: Final = "InvalidWritableSet"
"""The conditions of a VM with such an annotation."""


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
    rate, text = annotations.get(names.DIRTY_RATE), annotations.get(names.WRITABLE_SET)
    found = []
    if rate is not None and (wrong := _refusal(rate, parse_dirty_rate)) is not None:
        found.append(_unreadable(INVALID_DIRTY_RATE, names.DIRTY_RATE, wrong))
    if text is None:
        return tuple(found)
    if (wrong := _refusal(text, parse_writable_set)) is not None:
        found.append(_unreadable(INVALID_WRITABLE_SET, names.WRITABLE_SET, wrong))
    elif parse_writable_set(text).size > memory:
        above = f"annotation {names.WRITABLE_SET} is {text!r}, more than the VM's memory of {memory} bytes"
        found.append(Problem(INVALID_WRITABLE_SET, "AboveMemory", f"{above}; all memory in use counts as writable"))
    return tuple(found)


def _read(text: str | None, parse: Callable[[str], T]) -> T | None:
    try:
        return parse(text) if text is not None else None
    except ValueError:
        return None


def _refusal(text: str, parse: Callable[[str], object]) -> str | None:
    try:
        parse(text)
    except ValueError as error:
        return str(error)
    return None


def _unreadable(condition: str, annotation: str, why: str) -> Problem:
    return Problem(condition, "NotAQuantity", f"annotation {annotation}: {why}; the installation's is used")
