"""The text of each setting of live migrations: as its flag takes it, and as the published settings have it.

Guarantees: pure; `parse` of `text` of a setting is the setting. A text that cannot be meant is refused with ValueError,
whose message quotes it and says what is wanted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from controller.domain.copying.policy import WritableSet
from controller.kube.quantity import decimal_text, parse_quantity, shortest_quantity
from controller.kube.times import duration_text, parse_duration

_LARGEST: Final = Decimal(2**60)
"""Bytes, or bytes a second."""
_LONGEST_TIMEOUT: Final = 86_400
"""Seconds."""
_SHORTEST_DOWNTIME: Final = 0.001
_LONGEST_DOWNTIME: Final = 2000.0
"""Seconds: QEMU's largest downtime-limit (migration/options.c)."""
_MOST_JITTER: Final = 1.0
"""With more, most rounds dirty almost nothing, and few nearly everything."""
_BYTES: Final = "want bytes a second, such as 64Mi or 1250M, of at most 1Ei"
_NUMBER: Final = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,6})?", re.ASCII)
_PER_CENT: Final = 100


def parse_bandwidth(text: str) -> float:
    """Parse a bandwidth, in bytes a second; 0 is no limit. Raises ValueError."""
    return _size(text, f"is not a bandwidth: {_BYTES}; 0: no limit")


def parse_link(text: str) -> float:
    """Parse the bandwidth of a node, in bytes a second. Raises ValueError."""
    size = _size(text, problem := f"is not a node's bandwidth: {_BYTES}, and more than 0")
    if not size:
        raise ValueError(f"{text!r} {problem}")
    return size


def parse_dirty_rate(text: str) -> float:
    """Parse a dirty rate, in bytes a second; 0: the guest writes nothing. Raises ValueError."""
    return _size(text, f"is not a dirty rate: {_BYTES}")


def parse_writable_set(text: str) -> WritableSet:
    """Parse a share of memory in use, such as `3%`, or bytes, such as `256Mi`. Raises ValueError."""
    problem = "is not a writable working set: want a share of memory in use, such as 3%, or bytes, such as 256Mi"
    if not text.endswith("%"):
        return WritableSet(None, _size(text, problem))
    share = parse_number(text[:-1])
    if share is None or share > _PER_CENT:
        raise ValueError(f"{text!r} {problem}")
    return WritableSet(share / _PER_CENT)


def writable_set_text(writable: WritableSet) -> str:
    """Return the text of a writable working set."""
    return _size_text(writable.size) if writable.share is None else f"{decimal_text(writable.share * _PER_CENT)}%"


def parse_number(text: str) -> float | None:
    """Return a number that is not negative and has plain digits; None if the text is none."""
    return float(text) if _NUMBER.fullmatch(text) else None


def _size(text: str, problem: str) -> float:
    """Return whole bytes: a fraction is a slip of the pen, such as 1250m for 1250M."""
    try:
        size = parse_quantity(text)
    except ValueError:
        size = Decimal(-1)
    if not 0 <= size <= _LARGEST or size % 1:
        raise ValueError(f"{text!r} {problem}")
    return float(size)


def _size_text(size: float) -> str:
    return shortest_quantity(Decimal(size))


def _jitter(text: str) -> float:
    jitter = parse_number(text)
    if jitter is None or jitter > _MOST_JITTER:
        raise ValueError(f"{text!r} is not a jitter: want a number from 0 to {_MOST_JITTER:g}, such as 0.15; 0: none")
    return jitter


def _truth(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(f"{text!r} is neither true nor false")
    return text == "true"


def _truth_text(truth: bool) -> str:  # noqa: FBT001 - the one value that it writes
    return "true" if truth else "false"


def _timeout(text: str) -> float:
    seconds = int(text) if text.isascii() and text.isdecimal() else None
    if seconds is None or seconds > _LONGEST_TIMEOUT:
        wanted = f"want whole seconds, of at most {_LONGEST_TIMEOUT}; 0: none"
        raise ValueError(f"{text!r} is not a timeout: {wanted}")
    return float(seconds)


def _downtime(text: str) -> float:
    seconds = parse_duration(text)
    if seconds is None or not _SHORTEST_DOWNTIME <= seconds <= _LONGEST_DOWNTIME:
        raise ValueError(f"{text!r} is not a downtime: want a duration from 1ms to 2000s, such as 300ms")
    return seconds


class Setting(NamedTuple):
    """A setting as it is written: `key` is the name of its flag, and of its key among the published settings."""

    key: str
    parse: Callable[[str], Any]
    """Raises ValueError."""
    text: Callable[[Any], str]


SETTINGS: Final[Mapping[str, Setting]] = MappingProxyType(
    {
        "bandwidth_per_migration": Setting("bandwidth-per-migration", parse_bandwidth, _size_text),
        "bandwidth_per_node": Setting("migration-bandwidth-per-node", parse_link, _size_text),
        "dirty_rate": Setting("dirty-rate", parse_dirty_rate, _size_text),
        "writable_set": Setting("writable-set", parse_writable_set, writable_set_text),
        "dirty_rate_jitter": Setting("dirty-rate-jitter", _jitter, decimal_text),
        "allow_auto_converge": Setting("allow-auto-converge", _truth, _truth_text),
        "allow_post_copy": Setting("allow-post-copy", _truth, _truth_text),
        "allow_workload_disruption": Setting("allow-workload-disruption", _truth, _truth_text),
        "completion_timeout_per_gib": Setting("completion-timeout-per-gib", _timeout, decimal_text),
        "progress_timeout": Setting("progress-timeout", _timeout, decimal_text),
        "max_downtime": Setting("max-downtime", _downtime, duration_text),
    }
)
"""How each field of `CopyingPolicy` is written."""
