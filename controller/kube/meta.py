"""Kubernetes' metadata and conditions, as frozen values, and the base of every value that is decoded.

Guarantees: only the fields named here are decoded and retained. An absent field has a default, so a reader need not
test for None where the API server promises a value.
"""

from __future__ import annotations

import msgspec


class Value(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, gc=False):
    """Base of every decoded value: immutable, camelCase in JSON, defaults omitted."""


class OwnerReference(Value, frozen=True):
    """metav1.OwnerReference, without blockOwnerDeletion."""

    api_version: str = ""
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool = False


class ObjectMeta(Value, frozen=True):
    """metav1.ObjectMeta, with the fields that are read."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    deletion_grace_period_seconds: int | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    finalizers: tuple[str, ...] = ()
    owner_references: tuple[OwnerReference, ...] = ()

    @property
    def key(self) -> str:
        """`namespace/name`, the workqueue's key."""
        return f"{self.namespace}/{self.name}"


class Condition(Value, frozen=True):
    """A condition of a pod, a node, a VM or a migration."""

    type: str
    status: str = "Unknown"
    last_transition_time: str | None = None
    reason: str = ""
    message: str = ""


class ObjectOnly(Value, frozen=True):
    """Any object, decoded to its metadata alone (metav1.PartialObjectMetadata)."""

    metadata: ObjectMeta
