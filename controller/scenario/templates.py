"""Reads what the VMs of a group have in common: labels, annotations, placement; and the nodes on which they begin.

Guarantees: a field that the VM's schema does not have is a problem with its line, and none is dropped; no key is
accepted that loading, playing or the controller writes.
"""

from __future__ import annotations

from collections.abc import Collection
from decimal import Decimal
from functools import partial
from typing import Any, Final, cast

from controller.domain import names
from controller.operations import placement_schema
from controller.operations.placement_schema import Path, PlacementFields, dotted, flaws
from controller.operations.vms import PLAIN, Template
from controller.scenario import readings, values
from controller.scenario.document import Fields, Spot, attempt

FIELDS: Final = ("labels", "annotations", *placement_schema.FIELDS)
_MOST_ITEMS: Final = 50_000
"""Items of a list: as many as a scenario may have VMs."""
_DEEPEST: Final = 20
"""Levels of a value. Affinity has ten; an alias may contain itself."""
_TRUE: Final = ("true", "yes", "on")
_OF_USERS: Final = (names.CONTROLLER_CLASS, names.BOOT_TIME, names.DIRTY_RATE, names.WRITABLE_SET)
_INSTEAD: Final = {
    names.CPU_CONSUMPTION: "write `consumption`",
    names.MEMORY_CONSUMPTION: "write `consumption`",
    names.START_NODE: "write `node`",
    names.REQUIRED_START_NODE: "write `node`, and load with --exact-placement",
}


def read(fields: Fields) -> Template:
    """Read the labels, annotations and placement of a group."""
    labels, annotations = (partial(reader, refused=_reserved) for reader in (values.label_map, values.annotation_map))
    return Template(
        labels=fields.optional("labels", labels, PLAIN.labels),
        annotations=fields.optional("annotations", annotations, PLAIN.annotations),
        placement=_placement(fields),
    )


def nodes(known: Collection[str] | None, spot: Spot) -> tuple[str, ...]:
    """Read the name of a node, or a list of names; `known` are the only ones that exist, None if others may."""
    places = spot.items("a list of nodes", at_most=_MOST_ITEMS) if spot.is_list else [spot]
    if not places:
        raise spot.unusable("want at least one node")
    return tuple(name for place in places if (name := attempt(partial(_node, known), place)) is not None)


def _node(known: Collection[str] | None, spot: Spot) -> str:
    name = values.node_name(spot)
    if known is not None and name not in known:
        raise spot.unusable(f"{name} is no node of this file")
    return name


def _reserved(key: str) -> str | None:
    """Return why a file may not write a label or annotation; None if it may."""
    if not key.startswith(f"{names.GROUP}/") or key in _OF_USERS:
        return None
    return f"is written by the simulator: {_INSTEAD.get(key, 'leave it out')}"


def _placement(fields: Fields) -> PlacementFields:
    """Read the placement fields that a group has, and note the flaws of each."""
    places: dict[Path, Spot] = {}
    found: dict[str, Any] = {}
    for name in placement_schema.FIELDS:
        if (spot := fields.found.get(name)) is not None and not spot.is_null:
            found[name] = attempt(partial(_plain, (name,), places), spot)
    for flaw in flaws(found):
        spot = next(places[flaw.path[:end]] for end in range(len(flaw.path), 0, -1) if flaw.path[:end] in places)
        if flaw.text:
            attempt(lambda value: value.text("a string"), spot)
        else:
            spot.notes.add(spot.line, f"{fields.spot.path}.{dotted(flaw.path)}", flaw.message)
    return cast("PlacementFields", _without_nulls(found))


def _without_nulls(value: Any) -> Any:
    """Return a value without null fields: the API server would drop them."""
    if isinstance(value, dict):
        return {name: _without_nulls(inner) for name, inner in value.items() if inner is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _plain(path: Path, places: dict[Path, Spot], spot: Spot) -> Any:
    """Return a value as JSON has it; remember the place of each value."""
    places[path] = spot
    if len(path) > _DEEPEST:
        raise spot.unusable("is nested too deeply")
    if spot.is_mapping:
        return {name: _plain((*path, name), places, value) for _, name, value in spot.entries("a mapping")}
    if spot.is_list:
        items = spot.items("a list", at_most=_MOST_ITEMS)
        return [_plain((*path, index), places, item) for index, item in enumerate(items)]
    return None if spot.is_null else _scalar(spot)


def _scalar(spot: Spot) -> str | int | bool | Decimal:
    written, kind = spot.scalar("a string or a whole number"), spot.kind
    if kind == "a truth value":
        return written.lower() in _TRUE
    number = readings.number(written) if kind == "a number" else None
    if number is None:
        return spot.text("a string or a whole number")
    return int(number) if number == int(number) else number
