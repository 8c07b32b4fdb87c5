"""Checks the placement fields of a VM by the CRD's schema, as the API server would with strict validation.

Guarantees: a field that the schema does not have is a flaw and never dropped; every flaw is named with its path. Of
what the server checks in code, and only when there is a pod, the selectors are checked: the syntax of labels, and the
values that an operator takes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from functools import cache
from typing import Any, Final, NamedTuple, TypeAlias, TypedDict

from controller.kube import naming
from controller.operations import definitions
from controller.operations.text import unknown_field

Schema: TypeAlias = Mapping[str, Any]
Path: TypeAlias = tuple[str | int, ...]
_KINDS: Final = {
    "object": ("a mapping", Mapping),
    "array": ("a list", list),
    "string": ("a string", str),
    "integer": ("a whole number", int),
}


_VALUES: Final[Mapping[str, tuple[int, float, str]]] = {
    **dict.fromkeys(("In", "NotIn"), (1, math.inf, "at least one value")),
    **dict.fromkeys(("Exists", "DoesNotExist"), (0, 0, "no values")),
    **dict.fromkeys(("Gt", "Lt"), (1, 1, "one value")),
}
"""How many values an operator of a selector takes."""
_WHOLE: Final = re.compile(r"[+-]?[0-9]+", re.ASCII)


class PlacementFields(TypedDict, total=False):
    """The fields of a VM's spec that decide its node, as in its YAML; all are optional."""

    schedulerName: str
    nodeSelector: dict[str, str]
    affinity: dict[str, Any]
    tolerations: list[dict[str, Any]]
    topologySpreadConstraints: list[dict[str, Any]]
    priorityClassName: str


FIELDS: Final = tuple(PlacementFields.__annotations__)


class Flaw(NamedTuple):
    """A value that the API server would refuse: its path, and what is wrong; `text`: a string is wanted."""

    path: Path
    message: str
    text: bool = False

    def __str__(self) -> str:
        return f"{dotted(self.path)}: {self.message}"


def dotted(path: Path) -> str:
    """Return a path as text, such as `affinity.nodeAffinity` or `tolerations[0].key`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def flaws(fields: Mapping[str, Any]) -> Iterator[Flaw]:
    """Yield every flaw of placement fields. A field that is None counts as absent, but no key of a selector may be."""
    yield from _object((), fields, {"properties": _schema()})


@cache
def _schema() -> Schema:
    """Return the schema of each field."""
    of_vm, *_ = definitions.shipped()
    [version] = of_vm["spec"]["versions"]
    properties = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    return {name: properties[name] for name in FIELDS}


def _check(path: Path, value: object, schema: Schema) -> Iterator[Flaw]:
    wanted, kind = _KINDS[schema["type"]]
    if not isinstance(value, kind) or isinstance(value, bool):
        yield Flaw(path, f"want {wanted}, not {_kind_of(value)}", kind is str)
    elif isinstance(value, Mapping):
        yield from _object(path, value, schema)
    elif isinstance(value, list):
        if len(value) < schema.get("minItems", 0):
            yield Flaw(path, "want at least one item")
        for index, item in enumerate(value):
            yield from _check((*path, index), item, schema["items"])
    else:
        yield from _scalar(path, value, schema)


def _object(path: Path, value: Mapping[str, object], schema: Schema) -> Iterator[Flaw]:
    any_value, known = schema.get("additionalProperties"), schema.get("properties", {})
    for name, inner in value.items():
        below = any_value if any_value is not None else known.get(name)
        if below is None:
            yield Flaw((*path, name), unknown_field(str(name), tuple(known)))
        elif inner is not None or any_value is not None:  # the server drops a null, and with it a label's requirement
            yield from _check((*path, name), inner, below)
        if any_value is not None:  # the schema's only maps of free keys are labels
            yield from _label((*path, name), name, inner)
    if path[-2:-1] == ("matchExpressions",):
        yield from _expression(path, value)
    for name in schema.get("required", ()):
        if value.get(name) is None:
            yield Flaw((*path, name), "is required")


def _label(path: Path, key: object, value: object) -> Iterator[Flaw]:
    if not isinstance(key, str) or not naming.is_label_key(key):
        yield Flaw(path, "is no label: want name or example.com/name")
    if isinstance(value, str) and not naming.is_label_value(value):
        yield Flaw(path, f"want at most {naming.LONGEST_LABEL} letters, digits, -, _ and dots, not {value!r}")


def _expression(path: Path, expression: Mapping[str, object]) -> Iterator[Flaw]:
    key, operator, values = (expression.get(name) for name in ("key", "operator", "values"))
    if isinstance(key, str) and not naming.is_label_key(key):
        yield Flaw((*path, "key"), f"want the key of a label: name or example.com/name, not {key!r}")
    given = values if isinstance(values, list) else []
    if isinstance(operator, str) and (wanted := _VALUES.get(operator)) is not None:
        low, high, words = wanted
        if not low <= len(given) <= high:
            yield Flaw((*path, "values"), f"{operator} takes {words}")
    for index, value in enumerate(given):
        if operator in ("In", "NotIn"):
            yield from _label((*path, "values", index), "value", value)
        elif operator in ("Gt", "Lt") and isinstance(value, str) and not _WHOLE.fullmatch(value):
            yield Flaw((*path, "values", index), f"want a whole number as a string, not {value!r}")


def _scalar(path: Path, value: object, schema: Schema) -> Iterator[Flaw]:
    if "enum" in schema and value not in schema["enum"]:
        yield Flaw(path, f"want one of {', '.join(schema['enum'])}, not {value!r}")
    elif isinstance(value, int):
        low, high = schema.get("minimum", value), schema.get("maximum", value)
        if not low <= value <= high:
            bounds = f"from {low} to {high}" if "maximum" in schema else f"of at least {low}"
            yield Flaw(path, f"want a whole number {bounds}, not {value}")
    elif isinstance(value, str):
        low, high = schema.get("minLength", 0), schema.get("maxLength", len(value))
        if not low <= len(value) <= high:
            yield Flaw(
                path, f"has {len(value)} characters: want at least {low} and at most {high}" if value else "is empty"
            )


def _kind_of(value: object) -> str:
    if isinstance(value, float | Decimal):  # as written: "not a number" would be no answer to "want a whole number"
        return str(value)
    for kind, wanted in ((bool, "a truth value"), (int, "a number"), (str, "a string"), (list, "a list")):
        if isinstance(value, kind):
            return wanted
    return "nothing" if value is None else "a mapping" if isinstance(value, Mapping) else type(value).__name__
