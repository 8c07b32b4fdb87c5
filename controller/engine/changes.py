"""One change of one object, as a watch tells it and a store takes it.

Guarantees: what everybody asks of a change is in it, computed once: the object's key and its revision, a number, so
that two can be compared; which object controls it is computed for whoever asks.
"""

from __future__ import annotations

from typing import Final, Generic, Protocol, TypeVar

import msgspec

from controller.kube.meta import ObjectMeta

_LONGEST_VERSION: Final = 39
"""Digits of 2¹²⁸, the largest version the API promises."""


class HasMetadata(Protocol):
    """Any object of the API."""

    @property
    def metadata(self) -> ObjectMeta:
        """Its identity."""
        ...


T = TypeVar("T", bound=HasMetadata)


def revision(resource_version: str) -> int:
    """Return a resource version as a number, so that two can be compared (KEP-5504); -1 if it is none."""
    digits = resource_version.isascii() and resource_version.isdigit() and len(resource_version) <= _LONGEST_VERSION
    return int(resource_version) if digits else -1


class Change(msgspec.Struct, Generic[T], frozen=True, gc=False):
    """An object as it was last: added, changed or deleted."""

    item: T
    deleted: bool
    key: str
    """`namespace/name`."""
    revision: int
    """The resource version as a number; -1 if it is none."""

    @classmethod
    def of(cls, item: T, *, deleted: bool = False) -> Change[T]:
        """Return the change that leads to this state of an object."""
        metadata = item.metadata
        return cls(item, deleted, f"{metadata.namespace}/{metadata.name}", revision(metadata.resource_version))

    @property
    def owner(self) -> str | None:
        """`namespace/name` of the object that controls this one, whatever its kind; None if none does."""
        metadata = self.item.metadata
        name = next((reference.name for reference in metadata.owner_references if reference.controller), None)
        return f"{metadata.namespace}/{name}" if name is not None else None
