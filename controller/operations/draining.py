"""Where a drain stands: which VMs have to move, which have moved or will not, and what the rest waits for.

Guarantees: pure; a look costs what is on the node and what the drain has asked for, not what is in the cluster; every
VM that keeps a drain from its end has words that name what it waits for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple

from controller.domain import ownership
from controller.domain.objects import VirtualMachine, VirtualMachineMigration
from controller.domain.vm.status import Phase
from controller.engine.store import Store
from controller.kube.kinds import Pod
from controller.operations import migrations as moves
from controller.operations.waiting import UNNOTICED, explained, held

PATIENCE: Final = 5.0
"""Seconds that a VM may take for what usually takes no time, before it is said what it waits for."""


def by_node_of_vm(vm: VirtualMachine) -> str | None:
    """Index of the VMs' store: the node that a VM's status names."""
    return vm.status.node_name


def by_node_of_pod(pod: Pod) -> str | None:
    """Index of the pods' store: the pod's node."""
    return pod.spec.node_name


def by_vm(migration: VirtualMachineMigration) -> str:
    """Index of the migrations' store: the VM's key."""
    return migration.vm_key


@dataclass(frozen=True, slots=True)
class Caches:
    """The cluster as the API server tells it; each store with its index above."""

    vms: Store[VirtualMachine]
    pods: Store[Pod]
    migrations: Store[VirtualMachineMigration]


class Cause(StrEnum):
    """What a VM waits for, in kinds: a drain tells each kind once a VM."""

    UNNOTICED = "unnoticed"
    TURN = "turn"
    PENDING = "pending"
    MOVING = "moving"
    ANOTHER = "another"
    UNANSWERED = "unanswered"
    NOT_RUNNING = "not running"
    LEAVING = "leaving"


class Wait(NamedTuple):
    """What one VM waits for. `detail` tells two waits of one cause apart."""

    cause: Cause
    detail: str
    words: str


@dataclass(frozen=True, slots=True)
class Survey:
    """Where a drain stands. VMs are named `namespace/name`."""

    to_move: tuple[VirtualMachine, ...]
    """VMs that need a migration, in order."""
    on_node: frozenset[str]
    under_way: frozenset[str]
    """VMs whose migration of ours has not ended, or may be there although nobody has said so."""
    moved: frozenset[str]
    failed: Mapping[str, str]
    """VMs whose migration of ours failed or was refused, and why."""

    @property
    def settled(self) -> bool:
        """Whether nothing is left that could still move."""
        return not self.to_move and not self.under_way and self.on_node <= self.failed.keys()

    @property
    def left(self) -> tuple[str, ...]:
        """VMs that keep the drain from its end, in order."""
        asked = {vm.metadata.key for vm in self.to_move}
        return tuple(sorted((self.on_node | self.under_way | asked) - self.failed.keys()))


Ours = Mapping[str, VirtualMachineMigration | None]
"""The newest state of our migration of each VM; None if it was deleted."""


def survey(
    node: str,
    caches: Caches,
    *,
    ours: Ours,
    refused: Mapping[str, str],
    unanswered: Mapping[str, str] = MappingProxyType({}),
) -> Survey:
    """Look at a node that is being drained.

    `refused` are the VMs whose migration nobody would take, and why; `unanswered` those for which one was asked without
    an answer that says whether it is there, and what was said instead.
    """
    ended = {key: migration for key, migration in ours.items() if migration is None or migration.finished}
    on_node = frozenset(_pods_on(node, caches))
    there = on_node | {vm.metadata.key for vm in caches.vms.by_index(node)}
    # A VM whose migration was refused may be moved by somebody else's all the same.
    stuck = {key: why for key, why in refused.items() if key in there and _another(key, caches) is None}
    failed = stuck | {
        key: "its migration was deleted" if migration is None else moves.failure(migration)
        for key, migration in ended.items()
        if migration is None or migration.status.phase == "Failed"
    }
    to_move = tuple(
        sorted(
            (
                vm
                for vm in caches.vms.by_index(node)
                if vm.status.phase == Phase.RUNNING
                and _wanted(vm)
                and vm.metadata.key not in ours
                and vm.metadata.key not in refused
                and _another(vm.metadata.key, caches) is None
            ),
            key=lambda vm: vm.metadata.key,
        )
    )
    in_doubt = unanswered.keys() - ours.keys() - {vm.metadata.key for vm in to_move}
    return Survey(
        to_move=to_move,
        on_node=on_node,
        under_way=frozenset((ours.keys() - ended.keys()) | in_doubt),
        moved=frozenset(ended.keys() - failed.keys()),
        # A VM that was stopped or deleted meanwhile has left the node, too, and not by a failure of ours.
        failed={key: why for key, why in failed.items() if _wanted(caches.vms.get(key))},
    )


def waits(
    node: str, caches: Caches, now: Survey, *, ours: Ours, unanswered: Mapping[str, str] = MappingProxyType({})
) -> dict[str, Wait]:
    """Return what each VM waits for that keeps the drain from its end, unless it is asked for next."""
    pods = _pods_on(node, caches)
    asked = {vm.metadata.key for vm in now.to_move}
    return {
        key: _without_answer(unanswered[key]) if key in unanswered else _wait(key, caches, ours.get(key), pods.get(key))
        for key in now.left
        if key in unanswered or key not in asked
    }


def _without_answer(said: str) -> Wait:
    words = f"the API server has not said that it takes the migration, and is asked again: {said}"
    return Wait(Cause.UNANSWERED, "", words)


def _wait(key: str, caches: Caches, mine: VirtualMachineMigration | None, pod: Pod | None) -> Wait:
    if mine is not None and not mine.finished:
        return _of_migration(mine)
    vm = caches.vms.get(key)
    other = _another(key, caches)
    if other is not None:
        words = f"migration {other.metadata.name}, which is not of this drain, is {moves.progress(other, 0)}"
        return Wait(Cause.ANOTHER, other.metadata.uid, words)
    leaving = held(pod) if pod is not None else None
    if vm is None or not _wanted(vm) or leaving is not None:
        why = "was deleted" if vm is None else "is being deleted" if vm.metadata.deletion_timestamp else "is stopped"
        reason = f"the VM {why}, and " if not _wanted(vm) else ""
        return Wait(Cause.LEAVING, why, f"{reason}{leaving or 'its pod is still there'}")
    if vm.status.phase != Phase.RUNNING:
        words = f"the VM is {explained(vm)}, and only a Running VM moves"
        return Wait(Cause.NOT_RUNNING, vm.status.phase, words)
    words = f"its status says that it runs on {vm.status.node_name or 'no node'}, but its pod is here"
    return Wait(Cause.NOT_RUNNING, vm.status.node_name or "", words)


def _of_migration(mine: VirtualMachineMigration) -> Wait:
    reason = hindrance(mine)
    if mine.status.phase != "Pending":
        return Wait(Cause.MOVING, mine.status.phase + (mine.status.message or ""), moves.progress(mine, 0))
    if reason is None and moves.unnoticed(mine, UNNOTICED):
        return Wait(Cause.UNNOTICED, "", moves.progress(mine, UNNOTICED))
    return Wait(Cause.PENDING if reason is not None else Cause.TURN, reason or "", moves.progress(mine, 0))


def hindrance(migration: VirtualMachineMigration) -> str | None:
    """Return, in one word, what a migration waits for, unless it is only for its turn."""
    if migration.status.phase != "Pending":
        return None
    reasons = (condition.reason for condition in migration.status.conditions if condition.type == "Completed")
    reason = next(reasons, "")
    return reason if reason and reason != "WaitingForTurn" else None


class Announcer:
    """Decides what a person hears of the waits, and when.

    What the API server says instead of an answer, and what a controller says of a migration that cannot go on now, is
    told at once; anything else once it has lasted `PATIENCE` (10 s where it takes so long to know that nobody is
    there). VMs that wait for the same thing are told in one line, and no VM's cause twice.
    """

    def __init__(self) -> None:
        self._since: dict[str, tuple[tuple[Cause, str], float]] = {}
        self._told: set[tuple[str, Cause, str]] = set()

    def due(self, found: Mapping[str, Wait], now: float, *, all_now: bool = False) -> list[str]:
        """Return the lines to print at this time (monotonic seconds); `all_now` tells what has not lasted, too."""
        fresh: dict[str, Wait] = {}
        for key, wait in found.items():
            what = (wait.cause, wait.detail)
            before, since = self._since.get(key, (what, now))
            self._since[key] = (what, since if before == what else now)
            lasted = now - self._since[key][1]
            if (all_now or lasted >= _patience(wait.cause)) and (key, *what) not in self._told:
                fresh[key] = wait
        for key in self._since.keys() - found.keys():
            del self._since[key]
        self._told |= {(key, wait.cause, wait.detail) for key, wait in fresh.items()}
        return list(_lines(fresh))


def _patience(cause: Cause) -> float:
    if cause in (Cause.PENDING, Cause.UNANSWERED):
        return 0.0
    return UNNOTICED if cause is Cause.UNNOTICED else PATIENCE


def _lines(fresh: Mapping[str, Wait]) -> Iterable[str]:
    """Say each wait; of many VMs whose words are the same, one is named and the others counted."""
    alike: dict[str, list[str]] = {}
    for key, wait in fresh.items():
        alike.setdefault(wait.words, []).append(key)
    for words, keys in alike.items():
        others = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
        yield f"{keys[0]}{others}: {words}"


def _wanted(vm: VirtualMachine | None) -> bool:
    return vm is not None and vm.spec.running and vm.metadata.deletion_timestamp is None


def _another(key: str, caches: Caches) -> VirtualMachineMigration | None:
    """Return a migration of the VM that is under way."""
    found = caches.migrations.by_index(key)
    return next((item for item in found if not item.finished and item.spec.record_of is None), None)


def _pods_on(node: str, caches: Caches) -> dict[str, Pod]:
    """Return the pods that hold the node, by their VM's key."""
    return {
        f"{pod.metadata.namespace}/{owner.name}": pod
        for pod in caches.pods.by_index(node)
        if not pod.done and (owner := ownership.owner(pod)) is not None
    }
