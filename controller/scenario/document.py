"""Reads a YAML document field by field, and collects its problems with their lines.

Guarantees: no object is constructed from a tag; no number is converted to a float; unknown and duplicate fields are
problems; reading ends after a bounded number of steps, however aliases expand; one problem hides no other, except
within a value that could not be read.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, TypeVar

import yaml

from controller.operations.text import unknown_field
from controller.scenario.errors import DocumentError, Problem

T = TypeVar("T")
D = TypeVar("D")

LONGEST: Final = 256 * 1024
"""The maximum size of a scenario file, in bytes."""
_BEGIN: Final = 4
"""Bytes at the start of a file of which one is 0 in UTF-16 without a byte-order mark."""
_MOST_STEPS: Final = 100_000
"""The maximum number of values read: more than a file of that size can hold without aliases."""
_STRING: Final = "tag:yaml.org,2002:str"
_NULL: Final = "tag:yaml.org,2002:null"
_SCALARS: Final = tuple(f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "timestamp"))


class UnusableError(Exception):
    """A value could not be read, and the problem is noted. The reader of the field catches it."""


class Notes:
    """The problems of one file."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self._steps = 0

    def add(self, line: int, field: str, message: str) -> None:
        """Note a problem."""
        self.problems.append(Problem(self.file, line, field, message))

    def step(self) -> None:
        """Count a value that is read. Raises DocumentError above the maximum."""
        self._steps += 1
        if self._steps > _MOST_STEPS:
            message = f"its aliases expand to more than {_MOST_STEPS} values: use fewer aliases"
            raise DocumentError([Problem(self.file, 1, "", message)])

    def settle(self) -> None:
        """Raise DocumentError if there are problems."""
        if self.problems:
            raise DocumentError(self.problems)


@dataclass(frozen=True, slots=True)
class Spot:
    """A value and its place in the document."""

    node: yaml.Node
    path: str
    notes: Notes

    @property
    def line(self) -> int:
        """Its line, from 1."""
        return int(self.node.start_mark.line) + 1

    def note(self, message: str) -> None:
        """Note a problem with this value; it stays usable."""
        self.notes.add(self.line, self.path, message)

    def unusable(self, message: str) -> UnusableError:
        """Note a problem; return the error to raise."""
        self.note(message)
        return UnusableError(message)

    @property
    def is_null(self) -> bool:
        """Whether the value is null or empty."""
        return self.node.tag == _NULL

    @property
    def is_mapping(self) -> bool:
        """Whether the value is a mapping."""
        return isinstance(self.node, yaml.MappingNode)

    @property
    def is_list(self) -> bool:
        """Whether the value is a list."""
        return isinstance(self.node, yaml.SequenceNode)

    def scalar(self, wanted: str) -> str:
        """Return the text of a scalar as it is written."""
        if isinstance(self.node, yaml.ScalarNode) and self.node.tag in _SCALARS:
            return str(self.node.value)
        raise self.unusable(f"want {wanted}, not {self.kind}")

    def text(self, wanted: str) -> str:
        """Return a string. Text that YAML reads as a number, a boolean or a date must be quoted."""
        written = self.scalar(wanted)
        if self.node.tag != _STRING:
            raise self.unusable(f'want {wanted}: YAML reads {written} as {self.kind}, write "{written}"')
        return written

    def items(self, wanted: str, *, at_most: int) -> list[Spot]:
        """Return the items of a list."""
        if not isinstance(self.node, yaml.SequenceNode):
            raise self.unusable(f"want {wanted}, not {self.kind}")
        if len(self.node.value) > at_most:
            raise self.unusable(f"has {len(self.node.value)} items: want at most {at_most}")
        return [self._inner(item, f"{self.path}[{index}]") for index, item in enumerate(self.node.value)]

    def entries(self, wanted: str) -> Iterator[tuple[Spot, str, Spot]]:
        """Yield the place, name and value of each field of a mapping. Notes duplicate fields."""
        if not isinstance(self.node, yaml.MappingNode):
            raise self.unusable(f"want {wanted}, not {self.kind}")
        seen: dict[str, int] = {}
        for key_node, value_node in self.node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._inner(key_node, self.path).note("a field's name must be plain text")
                continue
            name = str(key_node.value)
            path = f"{self.path}.{name}" if self.path else name
            key = self._inner(key_node, path)
            if name in seen:
                key.note(f"is a duplicate of line {seen[name]}")
                continue
            seen[name] = key.line
            yield key, name, self._inner(value_node, path)

    def fields(self, wanted: str, *known: str) -> Fields:
        """Return the fields of a mapping. Notes those that are not known."""
        found: dict[str, Spot] = {}
        for key, name, value in self.entries(wanted):
            if name in known:
                found[name] = value
                continue
            key.note(unknown_field(name, known))
        return Fields(self, found)

    @property
    def kind(self) -> str:
        """Return the kind of the value, for messages."""
        match self.node:
            case yaml.MappingNode():
                return "a mapping"
            case yaml.SequenceNode():
                return "a list"
        kinds = {"int": "a number", "float": "a number", "bool": "a truth value", "null": "nothing", "str": "a string"}
        tag = str(self.node.tag)
        return kinds.get(tag.rpartition(":")[2], f"a value tagged {tag}")

    def _inner(self, node: yaml.Node, path: str) -> Spot:
        self.notes.step()
        return Spot(node, path, self.notes)


@dataclass(frozen=True, slots=True)
class Fields:
    """The known fields that a mapping has. A null counts as absent, as in Kubernetes."""

    spot: Spot
    found: dict[str, Spot]

    def required(self, name: str, read: Callable[[Spot], T]) -> T | None:
        """Read a required field; None, with a problem noted, if it is missing or unusable."""
        spot = self.found.get(name)
        if spot is None or spot.is_null:
            where = self.spot if spot is None else spot
            path = f"{self.spot.path}.{name}" if self.spot.path else name
            self.spot.notes.add(where.line, path, "is required")
            return None
        return attempt(read, spot)

    def optional(self, name: str, read: Callable[[Spot], T], default: D) -> T | D:
        """Read an optional field; return the default if it is missing or, with a problem noted, unusable."""
        spot = self.found.get(name)
        if spot is None or spot.is_null:
            return default
        value = attempt(read, spot)
        return default if value is None else value


def attempt(read: Callable[[Spot], T], spot: Spot) -> T | None:
    """Read a value; None, with a problem noted, if it is unusable."""
    try:
        return read(spot)
    except UnusableError:
        return None


def decode(data: bytes, file: str) -> str:
    """Return the text of a file in UTF-8, with or without a byte-order mark. Raises DocumentError."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in data[:_BEGIN]:
        raise DocumentError([Problem(file, 1, "", "looks like UTF-16: save it as UTF-8")])
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DocumentError([Problem(file, line, "", "is not UTF-8: save it as UTF-8")]) from error


def compose(text: str, notes: Notes) -> Spot:
    """Return the root of a document. Raises DocumentError if it is not exactly one YAML document."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        notes.add(mark.line + 1 if mark is not None else 1, "", f"not valid YAML: {error.problem or error.context}")
    except yaml.reader.ReaderError as error:
        # Its position counts characters of the text, from 0.
        notes.add(text.count("\n", 0, error.position) + 1, "", f"not valid YAML: {error.reason}")
    except RecursionError:
        notes.add(1, "", "is nested too deeply")
    else:
        if root is not None:
            return Spot(root, "", notes)
        notes.add(1, "", "is empty")
    raise DocumentError(notes.problems)
