"""Resources as typed constants: where a kind lives, and the value it decodes into."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from controller.domain import names
from controller.domain.objects import Lease, Node, ObjectMeta, Pod, Value, VirtualMachine, VirtualMachineMigration

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Resource(Generic[T]):
    """One resource of the API: group (empty for core), version, plural, and its decoded type."""

    group: str
    version: str
    plural: str
    type: type[T]

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """URL path of a collection, an object or a subresource."""
        parts = ["/apis", self.group, self.version] if self.group else ["/api", self.version]
        if namespace is not None:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        parts += [part for part in (name, subresource) if part is not None]
        return "/".join(parts)


class ObjectOnly(Value, frozen=True):
    """Any object, of which only the metadata matters."""

    metadata: ObjectMeta


VIRTUAL_MACHINES = Resource(names.GROUP, names.VERSION, names.VM_PLURAL, VirtualMachine)
PODS = Resource("", "v1", "pods", Pod)
MIGRATIONS = Resource(names.GROUP, names.VERSION, names.MIGRATION_PLURAL, VirtualMachineMigration)
NODES = Resource("", "v1", "nodes", Node)
LEASES = Resource("coordination.k8s.io", "v1", "leases", Lease)
EVENTS = Resource("events.k8s.io", "v1", "events", ObjectOnly)
