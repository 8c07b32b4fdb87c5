"""Checks the arguments of the Python API, and formats them for the resources.

Guarantees: a value that the API server would refuse is refused here, by an InvalidValueError that names the argument
and says what is valid; a float becomes the decimal that the caller meant (0.30000000000000004 is "0.3"), a string is
not changed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from decimal import Decimal
from numbers import Real
from typing import Final, Literal, TypeAlias, cast, get_args

from controller.domain import names
from controller.domain.ratio import CPU_MAX, MEMORY_MAX, RatioError, parse_ratio
from controller.domain.vm.status import Phase
from controller.kube import naming
from controller.kube.quantity import QuantityError, parse_quantity
from controller.operations.errors import InvalidValueError
from controller.operations.placement_schema import PlacementFields, flaws

Ratio: TypeAlias = float | str | Decimal
"""A share of one reference node: 0 to 1000 for CPU, 0 to 1 for memory."""

Strategy: TypeAlias = Literal["Recreate", "Live"]
"""How a VM moves: its pod is deleted before the next is created, or after it took over."""

PLACES: Final = 9
"""Decimal places to which a number is rounded: far below a millicore of CPU, some hundred bytes of memory."""


def ratio(value: object, *, field: str, maximum: Decimal) -> str:
    """Return a ratio as a plain decimal string. Raises InvalidValueError."""
    text = value if isinstance(value, str) else _decimal(value, field, maximum)
    try:
        parse_ratio(text, field=field, maximum=maximum)
    except RatioError as error:
        raise InvalidValueError(str(error)) from None
    return text


def _decimal(value: object, field: str, maximum: Decimal) -> str:
    wanted = f"{field} is {value!r}: want a number from 0 to {maximum}, such as 0.15"
    if isinstance(value, bool) or not isinstance(value, Real | Decimal):
        raise InvalidValueError(wanted)
    # A float's repr is the decimal that the caller wrote; numbers of other libraries become floats first.
    number = Decimal(value) if isinstance(value, int | Decimal) else Decimal(repr(float(value)))
    if not number.is_finite() or number < 0 or number > maximum:
        raise InvalidValueError(wanted)
    text = f"{round(abs(number), PLACES):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def cpu(value: object, field: str = "cpu") -> str:
    """Return a share of CPU as a decimal string. Raises InvalidValueError."""
    return ratio(value, field=field, maximum=CPU_MAX)


def memory(value: object, field: str = "memory") -> str:
    """Return a share of memory as a decimal string. Raises InvalidValueError."""
    return ratio(value, field=field, maximum=MEMORY_MAX)


def vm_name(value: object, field: str = "name") -> str:
    """Return the name of a VM, which becomes part of a host name. Raises InvalidValueError."""
    return _label(value, field, names.MAX_VM_NAME)


def namespace(value: object) -> str:
    """Return the name of a namespace. Raises InvalidValueError."""
    return _label(value, "namespace", naming.LONGEST_LABEL)


def _label(value: object, field: str, longest: int) -> str:
    if not isinstance(value, str) or len(value) > longest or not naming.DNS_LABEL.fullmatch(value):
        raise InvalidValueError(
            f"{field} is {value!r}: want 1 to {longest} characters of a-z, 0-9 and -, with no - at either end"
        )
    return value


def node_name(value: object, field: str = "name") -> str:
    """Return the name of a node. Raises InvalidValueError."""
    if not isinstance(value, str) or len(value) > naming.LONGEST_SUBDOMAIN or not naming.DNS_SUBDOMAIN.fullmatch(value):
        raise InvalidValueError(
            f"{field} is {value!r}: want at most {naming.LONGEST_SUBDOMAIN} characters of a-z, 0-9, - and dots"
        )
    return value


def label_map(value: object, field: str = "labels") -> Mapping[str, str]:
    """Return labels. Raises InvalidValueError."""
    found = _texts(value, field, naming.is_label_key)
    for key, text in found.items():
        if not naming.is_label_value(text):
            raise InvalidValueError(f"{field}[{key!r}] is {text!r}: want at most 63 letters, digits, -, _ and dots")
    return found


def annotation_map(value: object, field: str = "annotations") -> Mapping[str, str]:
    """Return annotations. Raises InvalidValueError."""
    return _texts(value, field, naming.is_annotation_key)


def _texts(value: object, field: str, is_key: Callable[[str], bool]) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise InvalidValueError(f"{field} is {value!r}: want a mapping of strings")
    for key, text in value.items():
        if not isinstance(key, str) or not is_key(key):
            raise InvalidValueError(f"{field} has the key {key!r}: want name or example.com/name")
        if not isinstance(text, str):
            raise InvalidValueError(f"{field}[{key!r}] is {text!r}: want a string")
        _encodable(text, f"{field}[{key!r}]")
    return dict(value)


def placement(value: object) -> PlacementFields:
    """Return the placement fields of a VM's spec. Raises InvalidValueError."""
    if not isinstance(value, Mapping):
        raise InvalidValueError(f"placement is {value!r}: want a mapping of fields of a VM's spec")
    if (flaw := next(flaws(value), None)) is not None:
        raise InvalidValueError(f"placement: {flaw}")
    return cast("PlacementFields", _plain(value, "placement"))


def _plain(value: object, field: str) -> object:
    """Return a value without flaws as msgspec encodes it: every mapping is a dict. Raises InvalidValueError."""
    if isinstance(value, Mapping):
        return {_encodable(name, field): _plain(inner, f"{field}.{name}") for name, inner in value.items()}
    if isinstance(value, list):
        return [_plain(item, field) for item in value]
    return _encodable(value, field) if isinstance(value, str) else value


def _encodable(text: str, field: str) -> str:
    """Return a text that UTF-8 can encode: no half of a surrogate pair. Raises InvalidValueError."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidValueError(f"{field} is {text!r}: want text that UTF-8 can encode") from None
    return text


def quantity(value: object, field: str) -> str:
    """Return a Kubernetes quantity. Raises InvalidValueError."""
    try:
        if parse_quantity(str(value)) > 0:
            return str(value)
    except QuantityError:
        pass
    raise InvalidValueError(f"{field} is {value!r}: want a quantity above 0, such as 32, 500m or 256Gi")


def count(value: object, field: str) -> int:
    """Return a whole number of at least 1. Raises InvalidValueError."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidValueError(f"{field} is {value!r}: want a whole number from 1 up")
    return value


def phase(value: object) -> str:
    """Return a phase. Raises InvalidValueError."""
    if value not in list(Phase):
        raise InvalidValueError(f"phase is {value!r}: want one of {', '.join(Phase)}")
    return str(value)


def strategy(value: object) -> Strategy | None:
    """Return a migration's strategy; None is the controller's. Raises InvalidValueError."""
    if value is not None and value not in get_args(Strategy):
        raise InvalidValueError(f"strategy is {value!r}: want {' or '.join(get_args(Strategy))}, or None")
    return cast("Strategy | None", value)


def seconds(value: object, field: str = "timeout") -> float:
    """Return a time in seconds, which must be finite. Raises InvalidValueError."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise InvalidValueError(f"{field} is {value!r}: want a number of seconds from 0 up")
    return float(value)
