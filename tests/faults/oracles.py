"""Judges one run by the history of the witness, against an undisturbed run of the same scenario.

Guarantees: no judgement relies on the controller's logs or metrics, and nothing random is compared (nodes, names, UIDs,
times). Each difference is a complaint; a run without complaints is good.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Final

from controller.domain import ownership
from controller.domain.migration.phases import MigrationPhase
from controller.domain.objects import VirtualMachine, VirtualMachineMigration
from controller.kube.kinds import Pod
from controller.observe import ends
from controller.observe.history import seen as observed
from tests.faults.stage import is_foreign
from tests.faults.witness import ClusterState, Object, Seen

_STANDING: Final = ("Ready", "Migrating", "RestartRequired", "InvalidConsumption", "InvalidSpec")
_NOTHING: Final = re.compile("(?!)")
_WAITING: Final = "Pending"
"""The phase of a VM whose next pod waits for a create of unknown outcome."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """The history of one run: every event, and the number of events before it settled."""

    history: tuple[Seen, ...]
    settled: int


def judge(run: Evidence, undisturbed: Evidence, *, without: re.Pattern[str] = _NOTHING) -> list[str]:
    """Return every complaint about a run; text of the end states that matches `without` is not compared."""
    return [
        *wrong_live_pods(run.history),
        *touched_foreign_objects(run.history),
        *broken_histories(run.history),
        *after_settling(run),
        *_differences(end_state(run, without), end_state(undisturbed, without), "ends with"),
        *_lost_phases(run, undisturbed),
        *_differences(traffic(run.history), traffic(undisturbed.history), "counts"),
    ]


def wrong_live_pods(history: Iterable[Seen]) -> Iterator[str]:
    """Complain of each version at which a VM has more live pods than it may have, or others; see `ends.Clause`."""
    for breach in ends.breaches(observed(seen.item, at=seen.at, deleted=seen.deleted) for seen in history):
        yield f"{breach.what} (at version {breach.revision})"


def touched_foreign_objects(history: Iterable[Seen]) -> Iterator[str]:
    """Complain of each change of a foreign object."""
    for seen in history:
        if is_foreign(seen.item.metadata) and not seen.first:
            yield f"the foreign {type(seen.item).__name__} {seen.item.metadata.name} was touched"


def broken_histories(history: Iterable[Seen]) -> Iterator[str]:
    """Complain of a VM whose transitions do not continue those that it had before."""
    known: dict[str, tuple[str, ...]] = {}
    for seen in history:
        if not isinstance(seen.item, VirtualMachine):
            continue
        before, now = known.get(seen.item.metadata.uid, ()), transitions(seen.item)
        if now[: len(before)] != before:
            yield f"VM {seen.item.metadata.name} published {list(before)} and then {list(now)}"
        for earlier, later in pairwise(now):
            if earlier == later:
                yield f"VM {seen.item.metadata.name} passes {later} twice in a row"
        known[seen.item.metadata.uid] = now


def after_settling(run: Evidence) -> Iterator[str]:
    """Complain of every change after the run had settled."""
    for seen in run.history[run.settled :]:
        yield f"{_name(seen.item)} is {'deleted' if seen.deleted else 'written'} after the run had settled"


def transitions(vm: VirtualMachine) -> tuple[str, ...]:
    """Return the phases in a VM's history, oldest first."""
    return tuple(found.type.removeprefix("Phase") for found in vm.status.conditions if found.type not in _STANDING)


def end_state(run: Evidence, without: re.Pattern[str] = _NOTHING) -> Counter[str]:
    """Return a line for each object at the end, without random values and without text that matches `without`."""
    cluster = ClusterState()
    for seen in run.history:
        cluster.apply(seen)
    lines = [
        *(_vm_line(vm, cluster) for vm in cluster.vms.values()),
        *(_pod_line(pod) for pod in cluster.pods.values()),
        *(_migration_line(found) for found in cluster.migrations.values()),
    ]
    return Counter(without.sub("", line) for line in lines)


def traffic(history: Iterable[Seen]) -> Counter[str]:
    """Return the number of created and of deleted objects of each kind."""
    counts: Counter[str] = Counter()
    known: set[str] = set()
    for seen in history:
        kind, uid = type(seen.item).__name__, seen.item.metadata.uid
        if not seen.first and uid not in known:
            counts[f"{kind} created"] += 1
        known.add(uid)
        if seen.deleted:
            counts[f"{kind} deleted"] += 1
    return counts


def _vm_line(vm: VirtualMachine, cluster: ClusterState) -> str:
    status = vm.status
    standing = [f"{c.type}={c.status} {c.reason}" for c in status.conditions if c.type in _STANDING]
    pod = next((pod for pod in cluster.pods_of(vm) if pod.metadata.uid == status.pod_uid), None)
    agrees = status.node_name == (pod.spec.node_name if pod is not None else None)
    return (
        f"VM {vm.metadata.name}: {status.phase}, incarnation {status.incarnation}, {', '.join(standing)}, "
        f"pod {'known' if pod is not None else status.pod_uid}, node {'right' if agrees else 'wrong'}, "
        f"claim {status.migration}, failure {status.start_failure}, uses {status.cpu_consumption} "
        f"{status.memory_consumption}"
    )


def _pod_line(pod: Pod) -> str:
    owner = ownership.owner(pod)
    controller = owner.name if owner is not None else "no VM"
    state = "Terminating" if pod.terminating else pod.status.phase
    return f"pod of {controller}: {state}, incarnation {ownership.incarnation(pod)}"


def _migration_line(migration: VirtualMachineMigration) -> str:
    status = migration.status
    name = "record" if migration.spec.record_of is not None else migration.metadata.name
    passed = [step.phase for step in status.phase_transition_timestamps]
    if status.phase == MigrationPhase.FAILED:
        # The phases that it passed before are a race between the events of two watches.
        passed = [phase for phase in passed if phase in (MigrationPhase.PENDING, MigrationPhase.FAILED)]
    order = [phase for phase in MigrationPhase if phase in passed]
    return f"migration {name}: {status.phase} {status.failure_reason or ''} by {passed}, in order: {order == passed}"


def _lost_phases(run: Evidence, undisturbed: Evidence) -> Iterator[str]:
    """Complain of a VM that published other phases than undisturbed; waits for a create do not count."""
    ours, theirs = _published(run.history), _published(undisturbed.history)
    if ours != theirs:
        yield f"the phases published are {ours}, undisturbed {theirs}"


def _published(history: Iterable[Seen]) -> list[tuple[str, tuple[str, ...]]]:
    last: dict[str, VirtualMachine] = {}
    for seen in history:
        if isinstance(seen.item, VirtualMachine):
            last[seen.item.metadata.uid] = seen.item
    return sorted((vm.metadata.name, _without_waits(transitions(vm))) for vm in last.values())


def _without_waits(phases: tuple[str, ...]) -> tuple[str, ...]:
    """Leave out each Pending that only means that the next pod waits, and phases that then repeat."""
    others = [phase for number, phase in enumerate(phases) if phase != _WAITING or number == 0]
    return tuple(phase for phase, _ in groupby(others))


def _differences(ours: Counter[str], theirs: Counter[str], verb: str) -> Iterator[str]:
    more, less = ours - theirs, theirs - ours
    if more or less:
        yield f"{verb} {sorted(more.elements())} where undisturbed it {verb} {sorted(less.elements())}"


def _name(item: Object) -> str:
    return f"{type(item).__name__} {item.metadata.name}"
