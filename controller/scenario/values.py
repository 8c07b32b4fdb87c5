"""Reads the scalar values of a scenario file: numbers, times, names, labels.

Guarantees: each reader returns a value within its bounds, or notes in one line which values it accepts. Numbers are
exact decimals of at most four places, quoted or not, in any notation that a trace accepts.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Final

from controller.domain import names
from controller.domain.copying.texts import parse_dirty_rate, parse_writable_set
from controller.domain.vm import boot
from controller.domain.vm.policy import FAKE_NODES
from controller.kube import naming
from controller.kube.quantity import QuantityError, parse_quantity
from controller.scenario import readings
from controller.scenario.distributions import QUANTUM
from controller.scenario.document import Spot, attempt

LONGEST_TIME: Final = 366 * 86400
"""Seconds."""
_TIME = re.compile(r"(?:[0-9]{1,12}(?:\.[0-9]{1,6})?(?:ms|s|m|h|d))+", re.ASCII)
_TIME_PART = re.compile(r"([0-9.]+)(ms|s|m|h|d)", re.ASCII)
_SECONDS: Final = {"ms": Decimal("0.001"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600), "d": Decimal(86400)}
_OF_GUESTS: Final[tuple[tuple[str, Callable[[str], object]], ...]] = (
    (names.DIRTY_RATE, parse_dirty_rate),
    (names.WRITABLE_SET, parse_writable_set),
)
_EFFECTS: Final = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_LONGEST_QUANTITY: Final = 32
_LONGEST_IN_FULL: Final = 32


def decimal(low: Decimal, high: Decimal) -> Callable[[Spot], Decimal]:
    """Return the reader of a number between two bounds, both included."""
    wanted = f"a number from {low} to {high} with at most 4 decimal places"

    def read(spot: Spot) -> Decimal:
        written = spot.scalar(wanted)
        value = readings.number(written)
        if value is not None and low <= value <= high and value == value.quantize(QUANTUM):
            return _plain(value)
        raise spot.unusable(f"want {wanted}, not {_short(written)}{_in_full(written, value)}")

    return read


def whole(low: int, high: int) -> Callable[[Spot], int]:
    """Return the reader of a whole number between two bounds, both included."""
    wanted = f"a whole number from {low} to {high}"

    def read(spot: Spot) -> int:
        written = spot.scalar(wanted)
        value = readings.number(written)
        if value is not None and low <= value <= high and value == int(value):
            return int(value)
        raise spot.unusable(f"want {wanted}, not {_short(written)}")

    return read


def truth(spot: Spot) -> bool:
    """Read true or false."""
    written = spot.scalar("true or false")
    if written.lower() not in ("true", "false"):
        raise spot.unusable(f"want true or false, not {_short(written)}")
    return written.lower() == "true"


def parse_time(written: str) -> float | None:
    """Return the seconds of a time such as 90s, 1h30m or 24h; None if the text is not one, or is more than 366 days."""
    if not _TIME.fullmatch(written):
        return None
    seconds = sum(Decimal(number) * _SECONDS[unit] for number, unit in _TIME_PART.findall(written))
    return float(seconds) if seconds <= LONGEST_TIME else None


def time(spot: Spot) -> float:
    """Read a time of at most 366 days, in seconds; it may be 0."""
    wanted = "a time such as 30s, 5m, 1h30m or 24h, at most 366d"
    written = spot.scalar(wanted)
    seconds = parse_time(written)
    if seconds is None:
        raise spot.unusable(f"want {wanted}, not {_short(written)}")
    return seconds


def duration(spot: Spot) -> float:
    """Read a time above 0, in seconds."""
    seconds = time(spot)
    if not seconds:
        raise spot.unusable("want more than no time")
    return seconds


def dns_label(at_most: int = naming.LONGEST_LABEL) -> Callable[[Spot], str]:
    """Return the reader of a DNS label of so many characters."""
    wanted = f"a name of at most {at_most} lower-case letters, digits and '-'"

    def read(spot: Spot) -> str:
        written = spot.text(wanted)
        if len(written) > at_most or not naming.DNS_LABEL.fullmatch(written):
            raise spot.unusable(f"want {wanted}, not {_short(written)}")
        return written

    return read


def node_name(spot: Spot) -> str:
    """Read the name of a node: a DNS name that also fits into the label kubernetes.io/hostname."""
    wanted = "a name of at most 63 lower-case letters, digits, '-' and '.'"
    written = spot.text(wanted)
    if len(written) > naming.LONGEST_LABEL or not naming.DNS_SUBDOMAIN.fullmatch(written):
        raise spot.unusable(f"want {wanted}, not {_short(written)}")
    return written


def quantity(spot: Spot) -> str:
    """Read a Kubernetes quantity above 0; a YAML number is one, too."""
    written = spot.scalar("a quantity such as 32 or 256Gi")
    try:
        if len(written) <= _LONGEST_QUANTITY and parse_quantity(written) > 0:
            return written
    except QuantityError:
        pass
    raise spot.unusable(f"want a quantity above 0, such as 32 or 256Gi, not {_short(written)}")


def label_map(spot: Spot, refused: Callable[[str], str | None]) -> dict[str, str]:
    """Read labels. `refused` returns why a key may not be written; None if it may."""
    return _keyed(spot, "label", naming.is_label_key, refused, label_value)


def annotation_map(spot: Spot, refused: Callable[[str], str | None]) -> dict[str, str]:
    """Read annotations; `refused` is as for labels."""
    return _keyed(spot, "annotation", naming.is_annotation_key, refused, _annotation)


def _annotation(spot: Spot) -> str:
    text = spot.text("a string")
    if spot.path.endswith(f".{names.BOOT_TIME}") and boot.parse(text) is None:
        raise spot.unusable(f"{boot.WANTED}, not {_short(text)}")
    for annotation, parse in _OF_GUESTS:
        if spot.path.endswith(f".{annotation}"):
            try:
                parse(text)
            except ValueError as error:
                raise spot.unusable(str(error)) from error
    return text


def _keyed(
    spot: Spot,
    what: str,
    is_key: Callable[[str], bool],
    refused: Callable[[str], str | None],
    read: Callable[[Spot], str],
) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, name, value in spot.entries(f"{what}s"):
        if (why := refused(name)) is not None:
            key.note(why)
        elif not is_key(name):
            key.note(f"is no {what}: want name or example.com/name")
        elif (text := attempt(read, value)) is not None:
            found[name] = text
    return found


def of_every_node(key: str) -> str | None:
    """Return why a scenario may not write this label of a node; None if it may."""
    if key in FAKE_NODES or key == names.SCENARIO_LABEL:
        return "is a label that every node of a scenario has: leave it out"
    return None


def label_key(spot: Spot) -> str:
    """Read the key of a label or taint."""
    wanted = "a key such as name or example.com/name"
    written = spot.text(wanted)
    if not naming.is_label_key(written):
        raise spot.unusable(f"want {wanted}, not {_short(written)}")
    return written


def label_value(spot: Spot) -> str:
    """Read the value of a label or taint; it may be empty."""
    wanted = "a value of at most 63 letters, digits, '-', '_' and '.'"
    written = spot.text(wanted)
    if not naming.is_label_value(written):
        raise spot.unusable(f"want {wanted}, not {_short(written)}")
    return written


def effect(spot: Spot) -> str:
    """Read the effect of a taint."""
    wanted = f"one of {', '.join(_EFFECTS)}"
    written = spot.text(wanted)
    if written not in _EFFECTS:
        raise spot.unusable(f"want {wanted}, not {_short(written)}")
    return written


def _plain(value: Decimal) -> Decimal:
    """Return a number without an exponent, and 0 without a sign, for messages."""
    return Decimal(f"{value or Decimal(0):f}")


def _in_full(written: str, value: Decimal | None) -> str:
    """Return the plain form of a number with an exponent, to append; empty for other numbers."""
    in_full = f"{value:f}" if value is not None and "e" in written.lower() else ""
    return f", which is {in_full}" if 0 < len(in_full) <= _LONGEST_IN_FULL else ""


def _short(written: str) -> str:
    text = repr(written)
    return text if len(text) <= 40 else f"{text[:40]}…"  # noqa: PLR2004
