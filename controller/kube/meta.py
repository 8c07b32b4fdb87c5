"""Kubernetes' metadata and conditions, as frozen values, and the base of every value that is decoded.

Guarantees: only the fields named here are decoded or kept; an absent field has a default, so no reader needs to test
for None where the API server promises a value.
"""

from __future__ import annotations

import msgspec


class Value(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, gc=False):
    """Base of every decoded value: immutable, camelCase on the wire, defaults not written."""


class OwnerReference(Value, frozen=True):
    """metav1.OwnerReference, without blockOwnerDeletion."""

    api_version: str = ""
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool = False


class ObjectMeta(Value, frozen=True):
    """metav1.ObjectMeta, as far as we read it."""

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
    """metav1.Condition, as pods and VMs carry it."""

    type: str
    status: str = "Unknown"
    last_transition_time: str | None = None
    reason: str = ""
    message: str = ""


class ObjectOnly(Value, frozen=True):
    """Any object, of which only the metadata matters."""

    metadata: ObjectMeta
