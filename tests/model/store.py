"""The objects of an API server with their versions, and the notification of changes.

Guarantees: every change has the next version, is in `log`, and is passed to the watches. An object that a test puts
here may be in any state, also one that no request can reach.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

import msgspec

from controller.kube import codec
from controller.kube.resources import Resource
from controller.kube.times import timestamp
from tests.model import rules
from tests.model.rules import Document
from tests.model.watches import Log, Watches

T = TypeVar("T")
_NAMESPACE: Final = {"metadata": {"name": "default", "namespace": "", "uid": "uid-0", "resourceVersion": "1"}}


@dataclass(repr=False)
class Objects:
    """Objects by the plural of their resource and `namespace/name`, and a revision that counts the writes."""

    objects: dict[tuple[str, str], Document] = field(
        default_factory=lambda: {("namespaces", "/default"): dict(_NAMESPACE)}
    )
    now: datetime = datetime(2026, 1, 15, 10, 0, tzinfo=UTC)
    revision: int = 100
    log: Log = field(default_factory=list)
    watches: Watches = field(default_factory=Watches)
    uids: int = 0

    # --- direct changes by a test -----------------------------------------------------------------------------

    def add(self, plural: str, document: Document) -> Document:
        """Create an object in any state."""
        self.uids += 1
        metadata = {**document["metadata"], "uid": f"uid-{self.uids}", "creationTimestamp": timestamp(self.now)}
        return self.store(plural, {**document, "metadata": metadata})

    def store(self, plural: str, document: Document) -> Document:
        """Set an object's state, at the next version."""
        self.revision += 1
        key = rules.key_of(document)
        before = self.objects.get((plural, key))
        metadata = {**document["metadata"], "resourceVersion": str(self.revision)}
        if plural in rules.OURS:
            metadata["generation"] = rules.generation(before, document)
        document = {**document, "metadata": metadata}
        self.objects[plural, key] = document
        self._changed(plural, before, document, deleted=False)
        return document

    def discard(self, plural: str, document: Document) -> Document:
        """Remove an object; return its last state for its watches."""
        self.revision += 1
        before = self.objects.pop((plural, rules.key_of(document)))
        document = {**document, "metadata": {**document["metadata"], "resourceVersion": str(self.revision)}}
        self._changed(plural, before, document, deleted=True)
        return document

    def terminate(self, plural: str, document: Document, grace: int) -> Document:
        """Start an object's deletion, or shorten its grace period."""
        deletion = {
            "deletionTimestamp": timestamp(self.now + timedelta(seconds=grace)),
            "deletionGracePeriodSeconds": grace,
        }
        return self.store(plural, {**document, "metadata": {**document["metadata"], **deletion}})

    def put(self, plural: str, key: str, *, metadata: Mapping[str, Any] | None = None, **parts: Any) -> Document:
        """Create an object, or change parts of it."""
        known = self.objects.get((plural, key))
        if known is None:
            namespace, _, name = key.partition("/")
            return self.add(plural, {**parts, "metadata": {**(metadata or {}), "name": name, "namespace": namespace}})
        return self.store(plural, {**known, **parts, "metadata": {**known["metadata"], **(metadata or {})}})

    def edit(self, resource: Resource[Any], key: str, **metadata: Any) -> None:
        """Change an object's metadata."""
        document = self.objects[resource.plural, key]
        self.store(resource.plural, {**document, "metadata": {**document["metadata"], **metadata}})

    def set_status(self, resource: Resource[Any], key: str, status: Document) -> None:
        """Replace an object's status."""
        self.store(resource.plural, {**self.objects[resource.plural, key], "status": status})

    def remove(self, resource: Resource[Any], key: str) -> None:
        """Delete an object at once, as a user with force or a garbage collector can."""
        self.discard(resource.plural, self.objects[resource.plural, key])

    # --- direct reads by a test -------------------------------------------------------------------------------

    def of(self, resource: Resource[Any]) -> list[Document]:
        """Return every object of a resource, the oldest first."""
        return [document for (plural, _), document in self.objects.items() if plural == resource.plural]

    def names(self, resource: Resource[Any]) -> list[str]:
        """Return the names of all objects of a resource, the oldest first."""
        return [document["metadata"]["name"] for document in self.of(resource)]

    def _changed(self, plural: str, before: Document | None, document: Document, *, deleted: bool) -> None:
        self.log.append((plural, document, deleted))
        if self.watches.open:
            self.watches.tell(plural, before, document, deleted=deleted)


def decode(document: Document, kind: type[T]) -> T:
    """Return an object as the client reads it."""
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError:
        return codec.decode_object(codec.encode(document), kind)  # a malformed one
