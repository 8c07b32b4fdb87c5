"""What keeps the drain of a node from its end, in words, and when a person hears of it.

Guarantees: pure; every VM that keeps a drain from its end has words that name what it waits for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple

from controller.domain.objects import VirtualMachineMigration
from controller.domain.vm.status import Phase
from controller.kube.kinds import Pod
from controller.operations import migrations as moves
from controller.operations.draining.survey import Caches, Ours, Survey, another, pods_on, wanted
from controller.operations.waiting import UNNOTICED, explained, held

PATIENCE: Final = 5.0
"""Seconds that a VM may take for what usually takes no time, before it is said what it waits for."""


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


def waits(
    node: str, caches: Caches, now: Survey, *, ours: Ours, unanswered: Mapping[str, str] = MappingProxyType({})
) -> dict[str, Wait]:
    """Return what each VM waits for that keeps the drain from its end, unless it is asked for next."""
    pods = pods_on(node, caches)
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
    other = another(key, caches)
    if other is not None:
        words = f"migration {other.metadata.name}, which is not of this drain, is {moves.progress(other, 0)}"
        return Wait(Cause.ANOTHER, other.metadata.uid, words)
    leaving = held(pod) if pod is not None else None
    if vm is None or not wanted(vm) or leaving is not None:
        why = "was deleted" if vm is None else "is being deleted" if vm.metadata.deletion_timestamp else "is stopped"
        reason = f"the VM {why}, and " if not wanted(vm) else ""
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
