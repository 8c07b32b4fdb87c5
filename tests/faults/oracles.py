"""Judges one run from what the witness saw, against the same scenario undisturbed.

Guarantees: nothing here is the controller's word about itself, and nothing is compared that chance decides (nodes,
names, UIDs, times). A difference is a complaint in words; a run is good when there is none.
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
from tests.faults.stage import stranger
from tests.faults.witness import ClusterState, Object, Seen

_STANDING: Final = ("Ready", "RestartRequired", "InvalidConsumption", "InvalidSpec")
_NOTHING: Final = re.compile("(?!)")
_HELD: Final = "Pending"
"""The phase of a VM whose next pod waits until a create, whose outcome nobody knows, has settled."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of one run: every event, the cluster at the end, and where in the history it had settled."""

    history: tuple[Seen, ...]
    settled: int


def judge(run: Evidence, undisturbed: Evidence, *, without: re.Pattern[str] = _NOTHING) -> list[str]:
    """Return every complaint about a run; what the end states say in these words is not compared."""
    return [
        *two_live_pods(run.history),
        *touched_strangers(run.history),
        *broken_histories(run.history),
        *after_settling(run),
        *_differences(end_state(run, without), end_state(undisturbed, without), "ends with"),
        *_lost_phases(run, undisturbed),
        *_differences(traffic(run.history), traffic(undisturbed.history), "counts"),
    ]


def two_live_pods(history: Iterable[Seen]) -> Iterator[str]:
    """Complain of each moment in which a VM has more than one live pod; one that terminates lives."""
    live: dict[str, Pod] = {}
    for seen in history:
        pod = seen.item
        if not isinstance(pod, Pod) or (owner := ownership.owner(pod)) is None:
            continue
        uid = pod.metadata.uid
        if seen.deleted or pod.done:
            live.pop(uid, None)
            continue
        live[uid] = pod
        same = sorted(other.metadata.name for other in live.values() if ownership.vm_uid(other) == owner.uid)
        if len(same) > 1:
            yield f"VM {owner.name} has {len(same)} live pods at version {pod.metadata.resource_version}: {same}"


def touched_strangers(history: Iterable[Seen]) -> Iterator[str]:
    """Complain of each change of an object that is not ours."""
    for seen in history:
        if stranger(seen.item.metadata) and not seen.first:
            yield f"a stranger's {type(seen.item).__name__} {seen.item.metadata.name} was touched"


def broken_histories(history: Iterable[Seen]) -> Iterator[str]:
    """Complain of a VM whose recorded transitions are not a continuation of those it had before."""
    told: dict[str, tuple[str, ...]] = {}
    for seen in history:
        if not isinstance(seen.item, VirtualMachine):
            continue
        before, now = told.get(seen.item.metadata.uid, ()), transitions(seen.item)
        if now[: len(before)] != before:
            yield f"VM {seen.item.metadata.name} told {list(before)} and then {list(now)}"
        for earlier, later in pairwise(now):
            if earlier == later:
                yield f"VM {seen.item.metadata.name} passes {later} twice in a row"
        told[seen.item.metadata.uid] = now


def after_settling(run: Evidence) -> Iterator[str]:
    """Complain of every change that came when all was done."""
    for seen in run.history[run.settled :]:
        yield f"{_name(seen.item)} is {'deleted' if seen.deleted else 'written'} after all had settled"


def transitions(vm: VirtualMachine) -> tuple[str, ...]:
    """Return the phases that a VM's history tells, oldest first."""
    return tuple(found.type.removeprefix("Phase") for found in vm.status.conditions if found.type not in _STANDING)


def end_state(run: Evidence, without: re.Pattern[str] = _NOTHING) -> Counter[str]:
    """Describe everything there is in the end, a line an object, without what chance decides and these words."""
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
    """Count what was created and deleted of each kind."""
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
        f"VM {vm.metadata.name}: {status.phase}, life {status.incarnation}, {', '.join(standing)}, "
        f"pod {'known' if pod is not None else status.pod_uid}, node {'right' if agrees else 'wrong'}, "
        f"claim {status.migration}, failure {status.start_failure}, uses {status.cpu_consumption} "
        f"{status.memory_consumption}"
    )


def _pod_line(pod: Pod) -> str:
    owner = ownership.owner(pod)
    whose = owner.name if owner is not None else "nobody"
    state = "Terminating" if pod.terminating else pod.status.phase
    return f"pod of {whose}: {state}, life {ownership.incarnation(pod)}"


def _migration_line(migration: VirtualMachineMigration) -> str:
    status = migration.status
    name = "record" if migration.spec.record_of is not None else migration.metadata.name
    passed = [step.phase for step in status.phase_transition_timestamps]
    if status.phase == MigrationPhase.FAILED:
        # How far it had come by then is a race between what two watches tell.
        passed = [phase for phase in passed if phase in (MigrationPhase.PENDING, MigrationPhase.FAILED)]
    order = [phase for phase in MigrationPhase if phase in passed]
    return f"migration {name}: {status.phase} {status.failure_reason or ''} by {passed}, in order: {order == passed}"


def _lost_phases(run: Evidence, undisturbed: Evidence) -> Iterator[str]:
    """Complain of a VM that has told other phases than undisturbed, waiting for a create to settle apart."""
    ours, theirs = _told(run.history), _told(undisturbed.history)
    if ours != theirs:
        yield f"the phases told are {ours}, undisturbed {theirs}"


def _told(history: Iterable[Seen]) -> list[tuple[str, tuple[str, ...]]]:
    last: dict[str, VirtualMachine] = {}
    for seen in history:
        if isinstance(seen.item, VirtualMachine):
            last[seen.item.metadata.uid] = seen.item
    return sorted((vm.metadata.name, _without_holds(transitions(vm))) for vm in last.values())


def _without_holds(phases: tuple[str, ...]) -> tuple[str, ...]:
    """Leave out a Pending that only says that the next pod has to wait, and what then stands twice."""
    kept = [phase for number, phase in enumerate(phases) if phase != _HELD or number == 0]
    return tuple(phase for phase, _ in groupby(kept))


def _differences(ours: Counter[str], theirs: Counter[str], verb: str) -> Iterator[str]:
    more, less = ours - theirs, theirs - ours
    if more or less:
        yield f"{verb} {sorted(more.elements())} where undisturbed it {verb} {sorted(less.elements())}"


def _name(item: Object) -> str:
    return f"{type(item).__name__} {item.metadata.name}"
