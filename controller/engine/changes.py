"""One change of one object, as a watch yields it and a store applies it.

Guarantees: the object's key and its revision (its resource version as a number, so that two can be compared) are
computed once, when the change is made.
"""

from __future__ import annotations

from typing import Final, Generic, Protocol, TypeVar

import msgspec

from controller.kube.meta import ObjectMeta

_LONGEST_VERSION: Final = 39
"""Digits of 2¹²⁸, the largest resource version that the API promises."""


class HasMetadata(Protocol):
    """Any API object."""

    @property
    def metadata(self) -> ObjectMeta:
        """The object's metadata."""
        ...


T = TypeVar("T", bound=HasMetadata)


def revision(resource_version: str) -> int:
    """Return a resource version as a number, so that two can be compared (KEP-5504); -1 if it is no number."""
    digits = resource_version.isascii() and resource_version.isdigit() and len(resource_version) <= _LONGEST_VERSION
    return int(resource_version) if digits else -1


class Change(msgspec.Struct, Generic[T], frozen=True, gc=False):
    """The last state of an object that was added, modified or deleted."""

    item: T
    deleted: bool
    key: str
    """`namespace/name`."""
    revision: int
    """The resource version as a number; -1 if it is no number."""

    @classmethod
    def of(cls, item: T, *, deleted: bool = False) -> Change[T]:
        """Return the change to this state of an object."""
        metadata = item.metadata
        return cls(item, deleted, f"{metadata.namespace}/{metadata.name}", revision(metadata.resource_version))
