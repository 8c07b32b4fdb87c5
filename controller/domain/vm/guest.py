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
from controller.domain.ratio import ReferenceNode

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
    rate, _ = _read(vm, names.DIRTY_RATE, parse_dirty_rate)
    writable, _ = _read(vm, names.WRITABLE_SET, parse_writable_set)
    return Guest(
        used,
        rate if rate is not None else policy.dirty_rate,
        (writable if writable is not None else policy.writable_set).of(used),
    )


def problems(vm: VirtualMachine, memory: Decimal, reference: ReferenceNode) -> tuple[Problem, ...]:
    """Return why annotations about the guest are not used; `memory`: the share of the reference node that it has."""
    found = []
    _, wrong = _read(vm, names.DIRTY_RATE, parse_dirty_rate)
    if wrong is not None:
        found.append(_unreadable(INVALID_DIRTY_RATE, names.DIRTY_RATE, wrong))
    writable, wrong = _read(vm, names.WRITABLE_SET, parse_writable_set)
    if wrong is not None:
        found.append(_unreadable(INVALID_WRITABLE_SET, names.WRITABLE_SET, wrong))
    elif writable is not None and writable.size > (has := reference.memory_of(memory)):
        text = vm.metadata.annotations[names.WRITABLE_SET]
        above = f"annotation {names.WRITABLE_SET} is {text!r}, more than the VM's memory of {has} bytes"
        found.append(Problem(INVALID_WRITABLE_SET, "AboveMemory", f"{above}; all memory in use counts as writable"))
    return tuple(found)


def _read(vm: VirtualMachine, annotation: str, parse: Callable[[str], T]) -> tuple[T | None, str | None]:
    """Return the value of an annotation, and why it cannot be read; None where the VM has none."""
    text = vm.metadata.annotations.get(annotation)
    try:
        return (parse(text) if text is not None else None), None
    except ValueError as error:
        return None, str(error)


def _unreadable(condition: str, annotation: str, why: str) -> Problem:
    return Problem(condition, "NotAQuantity", f"annotation {annotation}: {why}; the installation's is used")
