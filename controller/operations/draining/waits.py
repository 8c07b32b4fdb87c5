"""The reasons why the drain of a node has not ended, as text, and when each is reported.

Guarantees: pure; every VM that the drain waits for has a text that names the reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final, NamedTuple

from controller.domain.objects import VirtualMachineMigration
from controller.domain.vm.status import Phase
from controller.kube.kinds import Pod
from controller.operations import migrations as moves
from controller.operations.draining.survey import Caches, Ours, Survey, another, pods_on, wanted
from controller.operations.waiting import UNNOTICED, explained, termination

REPORT_AFTER: Final = 5.0
"""Seconds for which a VM may wait before the reason is reported; most waits are shorter."""


class Cause(StrEnum):
    """The kinds of reasons: a drain reports each kind once for a VM."""

    UNNOTICED = "unnoticed"
    SLOT = "slot"
    PENDING = "pending"
    MOVING = "moving"
    ANOTHER = "another"
    UNANSWERED = "unanswered"
    NOT_RUNNING = "not running"
    LEAVING = "leaving"


class Wait(NamedTuple):
    """The reason why one VM waits. `detail` distinguishes two waits of the same cause."""

    cause: Cause
    detail: str
    words: str


def waits(node: str, caches: Caches, now: Survey, *, ours: Ours, unanswered: Mapping[str, str]) -> dict[str, Wait]:
    """Return the reason of each VM that the drain waits for, except those whose migration is requested next."""
    pods = pods_on(node, caches)
    return {
        key: _without_answer(unanswered[key]) if key in unanswered else _wait(key, caches, ours.get(key), pods.get(key))
        for key in now.left
        if key in unanswered or key not in now.to_move
    }


def _without_answer(said: str) -> Wait:
    words = f"the API server has not confirmed the migration; the request is retried: {said}"
    return Wait(Cause.UNANSWERED, "", words)


def _wait(key: str, caches: Caches, mine: VirtualMachineMigration | None, pod: Pod | None) -> Wait:
    if mine is not None and not mine.finished:
        return _of_migration(mine)
    vm = caches.vms.get(key)
    other = another(key, caches)
    if other is not None:
        words = f"migration {other.metadata.name}, which is not of this drain, is {moves.progress(other, 0)}"
        return Wait(Cause.ANOTHER, other.metadata.uid, words)
    leaving = termination(pod) if pod is not None else None
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
    return Wait(Cause.PENDING if reason is not None else Cause.SLOT, reason or "", moves.progress(mine, 0))


def hindrance(migration: VirtualMachineMigration) -> str | None:
    """Return the condition reason of a Pending migration; None if it waits only for a slot."""
    if migration.status.phase != "Pending":
        return None
    reasons = (condition.reason for condition in migration.status.conditions if condition.type == "Completed")
    reason = next(reasons, "")
    return reason if reason and reason != "WaitingForTurn" else None


class Announcer:
    """Decides which waits are reported, and when.

    An error of the API server, and the reason that a controller gives for a migration that cannot proceed, are reported
    at once; any other wait after `REPORT_AFTER` seconds, or after 10 s if it means that no controller runs. VMs with
    the same reason share one line, and no reason of a VM is reported twice.
    """

    def __init__(self) -> None:
        self._since: dict[str, tuple[tuple[Cause, str], float]] = {}
        self._reported: set[tuple[str, Cause, str]] = set()

    def due(self, found: Mapping[str, Wait], now: float, *, all_now: bool = False) -> list[str]:
        """Return the lines to report at `now` (monotonic seconds); `all_now` includes waits that are still short."""
        fresh: dict[str, Wait] = {}
        for key, wait in found.items():
            what = (wait.cause, wait.detail)
            before, since = self._since.get(key, (what, now))
            self._since[key] = (what, since if before == what else now)
            lasted = now - self._since[key][1]
            if (all_now or lasted >= _report_after(wait.cause)) and (key, *what) not in self._reported:
                fresh[key] = wait
        for key in self._since.keys() - found.keys():
            del self._since[key]
        self._reported |= {(key, wait.cause, wait.detail) for key, wait in fresh.items()}
        return list(_lines(fresh))


def _report_after(cause: Cause) -> float:
    if cause in (Cause.PENDING, Cause.UNANSWERED):
        return 0.0
    return UNNOTICED if cause is Cause.UNNOTICED else REPORT_AFTER


def _lines(fresh: Mapping[str, Wait]) -> Iterable[str]:
    """Yield a line for each reason; of several VMs that share it, one is named and the others are counted."""
    alike: dict[str, list[str]] = {}
    for key, wait in fresh.items():
        alike.setdefault(wait.words, []).append(key)
    for words, keys in alike.items():
        others = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
        yield f"{keys[0]}{others}: {words}"
