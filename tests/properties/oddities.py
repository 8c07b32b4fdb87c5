"""Objects with a malformed field, derived from the types that the codec decodes and from our CRDs' schemas.

Guarantees: every field of every struct that a kind's type reaches, and every property of a CRD's schema, is mutated.
The `mutations` of a kind are the same in every run, in the same order.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Final, NamedTuple, TypeAlias, Union, get_args, get_origin

import msgspec
import yaml

from controller.domain import names
from controller.domain.resources import MIGRATIONS, VIRTUAL_MACHINES
from controller.kube.resources import NODES, PODS, Resource
from tests.model.rules import Document

CRDS: Final = Path(__file__).resolve().parents[2] / "manifests" / "crds"
KINDS: Final[tuple[Resource[Any], ...]] = (VIRTUAL_MACHINES, MIGRATIONS, PODS, NODES)
At: TypeAlias = tuple[str | int, ...]
"""The path of a field. In a list: the first element, the last, or a copy of it at the end."""

NEW: Final = 1
"""The index of an element that is added to a list."""
MISSING: Final = "<missing>"
"""Removes the field."""
LONG: Final = 70_000


def _nested(depth: int) -> list[Any]:
    return [_nested(depth - 1)] if depth else []


_TIMES: Final = (
    "0001-01-01T00:00:00Z",
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59.999999Z",
    "9999-12-31T23:59:59-14:00",
    "2026-01-15T10:00:00+99:99",
    "2026-01-15T10:00:00.123456789Z",
    "2026-01-15T10:00:00",
    "2026-02-30T10:00:00Z",
    "2026-01-15",
    "1e3",
)
_WORDS: Final = (
    "",
    " ",
    "NaN",
    "nan",
    "Infinity",
    "-inf",
    "-1",
    "0",
    "1",
    "1e999",
    "1E400Ei",
    "1e-400",
    "0x1p3",
    "9" * 400,
    "\u0663",  # a digit to str.isdigit, but to none of our parsers
    "PhasePaused",
    "Paused",
    "Succeeded",
    "Failed",
    "True",
    "true",
    'a"b\\c\nd\x00\u2028',
    "a/b",
    "..",
    "%2e",
    "ä",
    "x" * LONG,
)
_NUMBERS: Final = (
    0,
    1,
    -1,
    2**31,
    -(2**31) - 1,
    2**53 + 1,
    2**63,
    -(2**63) - 1,
    2**64,
    10**30,
    0.5,
    -0.0,
    1e308,
    -1e308,
)
_OTHERS: Final[tuple[Any, ...]] = (
    MISSING,
    None,
    True,
    False,
    [],
    [None],
    ["x"],
    [1],
    [[]],
    [{}],
    [{"type": "PhasePaused", "status": "True"}],
    [{"type": "PhasePaused", "status": "Perhaps", "lastTransitionTime": 5}, None, "x", {"type": 1}],
    ["x"] * 2000,
    {},
    {"x": "y"},
    {"x": None},
    {"x": 1},
    {"": ""},
    {"name": 1, "uid": []},
    _nested(150),
)
VALUES: Final = (*_OTHERS, *_WORDS, *_TIMES, *_NUMBERS)


class Mutation(NamedTuple):
    """One field of one kind, and its value."""

    plural: str
    at: At
    value: Any

    def __repr__(self) -> str:
        value = repr(self.value)
        return f"{self.plural} {'.'.join(map(str, self.at))} = {value if len(value) < 100 else value[:60] + '…'}"


@cache
def mutations(plural: str) -> tuple[Mutation, ...]:
    """Return every mutation of one field of a kind, field by field."""
    fields: dict[At, list[Any]] = {at: list(VALUES) for at in _of_type(_type(plural))}
    for at, schema in _of_schema(plural):
        fields.setdefault(at, list(VALUES)).extend(_beside(schema))
    return tuple(Mutation(plural, at, value) for at, values in fields.items() for value in values)


@cache
def fields(plural: str) -> tuple[At, ...]:
    """Return the paths of a kind's fields."""
    return tuple(dict.fromkeys(mutation.at for mutation in mutations(plural)))


def _type(plural: str) -> Any:
    return next(resource.type for resource in KINDS if resource.plural == plural)


def _of_type(kind: Any, at: At = ()) -> Iterator[At]:
    if at:
        yield at
    kind = _without_none(kind)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        for field in msgspec.structs.fields(kind):
            if field.name != "unreadable":  # never on the wire
                yield from _of_type(field.type, (*at, field.encode_name))
    elif get_origin(kind) is tuple:
        for index in (0, -1, NEW):
            yield from _of_type(get_args(kind)[0], (*at, index))
    elif get_origin(kind) is dict:
        for key in _KEYS.get(at[-1], ("x",)):
            yield (*at, key)


_KEYS: Final[dict[str | int, tuple[str, ...]]] = {
    "annotations": (
        names.INCARNATION,
        names.CPU_CONSUMPTION,
        names.MEMORY_CONSUMPTION,
        names.REQUESTED_CPU,
        names.REQUESTED_MEMORY,
        names.SOURCE_VM,
        names.SOURCE_NODE,
        names.SOURCE_POD,
    ),
    "labels": (names.VM_LABEL, names.CONTROLLER_CLASS, "type"),
    "allocatable": ("cpu", "memory", "pods"),
}
"""The keys of a map that are read."""


def _without_none(kind: Any) -> Any:
    if get_origin(kind) not in (Union, UnionType):
        return kind
    [wanted] = [arm for arm in get_args(kind) if arm is not NoneType]
    return wanted


def _of_schema(plural: str) -> Iterator[tuple[At, Document]]:
    file = CRDS / f"{plural}.yaml"
    if not file.exists():
        return
    crd = yaml.safe_load(file.read_text())
    yield from _below(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"], ())


def _below(schema: Document, at: At) -> Iterator[tuple[At, Document]]:
    if at and at != ("metadata",):
        yield at, schema
    for name, below in schema.get("properties", {}).items():
        yield from _below(below, (*at, name))
    if "items" in schema:
        for index in (0, -1, NEW):
            yield from _below(schema["items"], (*at, index))
    if "additionalProperties" in schema:
        yield from _below(schema["additionalProperties"], (*at, "x"))


def _beside(schema: Document) -> Iterator[Any]:
    """Yield values just within a schema's bounds, and just outside."""
    for member in schema.get("enum", ()):
        yield from (member, member.lower(), f"{member}X")
    for bound in ("minimum", "maximum"):
        if bound in schema:
            yield from (schema[bound] - 1, schema[bound], schema[bound] + 1)
    if "maxLength" in schema:
        yield from ("9" * schema["maxLength"], "x" * (schema["maxLength"] + 1))
    if "maxItems" in schema:
        yield [{"type": f"Phase{at}", "status": "True"} for at in range(schema["maxItems"] + 1)]
    if "maxProperties" in schema:
        yield {f"x{at}": "y" for at in range(schema["maxProperties"] + 1)}


def mutated(document: Document, *found: Mutation) -> Document:
    """Return a copy of the object with these mutations; missing parents of a field are created."""
    result = copy.deepcopy(document)
    for mutation in found:
        result = _put(result, mutation.at, mutation.value)
    return result


def _put(value: Any, at: At, wanted: Any) -> Any:
    if not at:
        return copy.deepcopy(wanted)  # another mutation may change it
    step, *rest = at
    if isinstance(step, int):
        items = value if isinstance(value, list) and value else [{}]
        if step == NEW:
            items.append(copy.deepcopy(items[-1]))
            step = -1
        items[step] = _put(items[step], tuple(rest), wanted)
        return [item for item in items if item != MISSING]
    fields = value if isinstance(value, dict) else {}
    fields[step] = _put(fields.get(step), tuple(rest), wanted)
    if fields[step] == MISSING:
        del fields[step]
    return fields
