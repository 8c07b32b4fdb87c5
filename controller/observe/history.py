"""The history of watch events, and the state of the cluster after a number of them.

Guarantees: events are immutable and in the order in which their watch delivered them, which for one resource is the
order in which the API server committed them; `at` is the observer's own clock, in seconds since the observation began;
`revision` is the object's resource version as a number, by which the events of several watches can be ordered (one
etcd counts the writes of all resources). Applying an event costs O(1), whatever the size of the state.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from controller.domain import ownership
from controller.domain.objects import Claim, VirtualMachine, VirtualMachineMigration
from controller.engine import changes
from controller.kube.kinds import Pod

DONE = ("Succeeded", "Failed")
"""Terminal phases of pods and of migrations."""


@dataclass(frozen=True, slots=True)
class PodSeen:
    """A pod as one event shows it; `vm_uid` is empty for a pod that no VM controls.

    `incarnation`: the number of the VM's incarnation whose pod it is; None if it has none.
    """

    at: float
    uid: str
    name: str
    vm_uid: str = ""
    vm: str = ""
    node: str | None = None
    phase: str = "Pending"
    terminating: bool = False
    deleted: bool = False
    incarnation: int | None = None
    revision: int = 0

    @property
    def live(self) -> bool:
        """Whether the pod may use the VM's disks: it exists and is in no terminal phase. A terminating pod is live."""
        return not self.deleted and self.phase not in DONE


@dataclass(frozen=True, slots=True)
class VMSeen:
    """A VM as one event shows it, with the status that the controller published."""

    at: float
    uid: str
    name: str
    phase: str = "Pending"
    node: str | None = None
    deleted: bool = False
    pod_uid: str | None = None
    incarnation: int | None = None
    last_incarnation: int | None = None
    claim: Claim | None = None
    revision: int = 0


@dataclass(frozen=True, slots=True)
class NodeSeen:
    """A node as one event shows it."""

    at: float
    name: str
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class MigrationSeen:
    """A migration as one event shows it; a `record` documents an eviction and is never executed."""

    at: float
    uid: str
    name: str
    vm: str
    phase: str = "Pending"
    failure: str = ""
    message: str = ""
    record: bool = False
    deleted: bool = False
    revision: int = 0

    @property
    def over(self) -> bool:
        """Whether it is deleted or in a terminal phase."""
        return self.deleted or self.phase in DONE

    @property
    def moving(self) -> bool:
        """Whether it is in progress: neither Pending nor over."""
        return not self.over and self.phase != "Pending"


Seen: TypeAlias = PodSeen | VMSeen | NodeSeen | MigrationSeen


def seen(item: Any, *, at: float, deleted: bool) -> Seen:
    """Return the event for the state of an object at a time."""
    metadata = item.metadata
    revision = changes.revision(metadata.resource_version)
    match item:
        case Pod():
            owner = ownership.owner(item)
            return PodSeen(
                at,
                metadata.uid,
                metadata.name,
                owner.uid if owner else "",
                owner.name if owner else "",
                item.spec.node_name or None,
                item.status.phase,
                terminating=item.terminating,
                deleted=deleted,
                incarnation=ownership.incarnation(item),
                revision=revision,
            )
        case VirtualMachine():
            status = item.status
            return VMSeen(
                at,
                metadata.uid,
                metadata.name,
                status.phase,
                status.node_name,
                deleted,
                status.pod_uid,
                status.incarnation,
                status.last_incarnation,
                status.migration,
                revision,
            )
        case VirtualMachineMigration():
            return MigrationSeen(
                at,
                metadata.uid,
                metadata.name,
                item.spec.vm_name,
                item.status.phase,
                item.status.failure_reason or "",
                item.status.message or "",
                record=item.spec.record_of is not None,
                deleted=deleted,
                revision=revision,
            )
        case _:
            return NodeSeen(at, metadata.name, deleted)


@dataclass(slots=True)
class ClusterState:
    """The state of the cluster after the last applied event."""

    pods: dict[str, PodSeen] = field(default_factory=dict)
    """Existing pods of VMs by UID."""
    vms: dict[str, VMSeen] = field(default_factory=dict)
    """Existing VMs by UID."""
    nodes: set[str] = field(default_factory=set)
    migrations: dict[str, MigrationSeen] = field(default_factory=dict)
    """The last event of each migration ever seen, by UID; pruned migrations are retained."""
    _pods_of: dict[str, dict[str, PodSeen]] = field(default_factory=dict)
    """Existing pods by VM UID and pod UID, in any phase."""
    _live_on: dict[str, dict[str, PodSeen]] = field(default_factory=dict)
    """Live pods by node and pod UID."""

    def apply(self, event: Seen) -> None:
        """Apply one event."""
        match event:
            case PodSeen():
                self._apply_pod(event)
            case VMSeen():
                _put(self.vms, event.uid, event, deleted=event.deleted)
            case NodeSeen():
                (self.nodes.discard if event.deleted else self.nodes.add)(event.name)
            case MigrationSeen():
                before = self.migrations.get(event.uid)
                if before is None or not before.over:
                    self.migrations[event.uid] = event

    def _apply_pod(self, event: PodSeen) -> None:
        before = self.pods.pop(event.uid, None)
        if before is not None:
            _take_out(self._pods_of, before.vm_uid, before.uid)
            if before.node is not None and before.live:
                _take_out(self._live_on, before.node, before.uid)
        if event.vm_uid and not event.deleted:
            self.pods[event.uid] = event
            self._pods_of.setdefault(event.vm_uid, {})[event.uid] = event
            if event.node is not None and event.live:
                self._live_on.setdefault(event.node, {})[event.uid] = event

    def pods_of(self, vm_uid: str) -> tuple[PodSeen, ...]:
        """Return a VM's existing pods, in any phase."""
        return tuple(self._pods_of.get(vm_uid, {}).values())

    def live(self, vm_uid: str) -> tuple[PodSeen, ...]:
        """Return a VM's live pods."""
        return tuple(pod for pod in self.pods_of(vm_uid) if pod.live)

    def serving(self, vm_uid: str) -> PodSeen | None:
        """Return the pod in which a VM runs: Running, not terminating, on a node that exists."""
        return next((pod for pod in self.pods_of(vm_uid) if self.serves(pod)), None)

    def serves(self, pod: PodSeen) -> bool:
        """Whether a VM runs in this pod."""
        return pod.live and pod.phase == "Running" and not pod.terminating and pod.node in self.nodes

    def on(self, node: str) -> list[PodSeen]:
        """Return the live pods on a node."""
        return list(self._live_on.get(node, {}).values())

    def load(self, node: str) -> int:
        """Return the number of live pods on a node; 0 if the node does not exist."""
        return len(self._live_on.get(node, ())) if node in self.nodes else 0

    def loads(self) -> Iterator[tuple[str, int]]:
        """Yield each existing node with its number of live pods."""
        for node in sorted(self.nodes):
            yield node, self.load(node)


def write(history: Iterable[Seen], path: Path) -> None:
    """Write a history as JSON lines, one event each, so that a verdict can be traced."""
    with path.open("wb") as lines:
        for event in history:
            lines.write(msgspec.json.encode({"kind": type(event).__name__, **msgspec.to_builtins(event)}) + b"\n")


def _put(into: dict[str, VMSeen], key: str, value: VMSeen, *, deleted: bool) -> None:
    if deleted:
        into.pop(key, None)
    else:
        into[key] = value


def _take_out(index: dict[str, dict[str, PodSeen]], key: str, uid: str) -> None:
    """Remove a pod from an index, and its bucket when that is empty."""
    del index[key][uid]
    if not index[key]:
        del index[key]
