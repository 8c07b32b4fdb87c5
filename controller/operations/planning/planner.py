"""The plan of a drain, from what was read of a cluster.

Guarantees: pure. What keeps a VM on its node is judged by the functions that the drain itself uses
(`controller.operations.draining.survey`, `waits`). Whatever the plan cannot know is listed as not judged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final, TypeVar

import msgspec

from controller.domain import capacity, nodes, ownership
from controller.domain.copying.record import Copying
from controller.domain.migration.backoff import backoff
from controller.domain.objects import Claim, GuestMode, Strategy, VirtualMachine, VirtualMachineMigration
from controller.domain.ratio import RatioError
from controller.domain.settings import PublishedSettings
from controller.domain.vm import boot, launcher, placement
from controller.engine.changes import HasMetadata
from controller.engine.store import Store
from controller.kube import times
from controller.kube.kinds import Node, Pod
from controller.operations.draining.survey import (
    Caches,
    by_node_of_pod,
    by_node_of_vm,
    by_vm,
    pods_on,
    survey,
)
from controller.operations.draining.waits import Cause, Wait, waits
from controller.operations.planning import timing
from controller.operations.planning.simulation import simulate
from controller.operations.planning.values import (
    Held,
    Leaver,
    Leaving,
    NotJudged,
    Plan,
    Situation,
    Stayer,
    UnderWay,
)

T = TypeVar("T", bound=HasMetadata)

_MERELY_LEAVING: Final = "pods that are being deleted already: their VMs restart elsewhere, beside this plan"
_DISPLACED: Final = "where the displaced pods go, and the room that they take there"
_WAITING: Final = "migrations of other VMs that wait for their turn, and may come between"


class Known(msgspec.Struct, frozen=True):
    """What was read of a cluster. `pods`: those of all owners; `unread`: what could not be read."""

    nodes: tuple[Node, ...]
    vms: tuple[VirtualMachine, ...]
    pods: tuple[Pod, ...]
    migrations: tuple[VirtualMachineMigration, ...]
    rules: Mapping[str | None, PublishedSettings]
    now: datetime
    unread: tuple[str, ...] = ()


def plan(known: Known, names: Sequence[str], *, parallel_nodes: int = 1) -> Plan:
    """Return what a drain of these nodes, in this order, would do."""
    reading = _Reading(known)
    drained = tuple(reading.leaving(name) for name in names)
    found = simulate(
        Situation(
            nodes=tuple(_cordoned(node) if node.metadata.name in names else node for node in known.nodes),
            drained=drained,
            held=(*_held(known.pods), *reading.reserved),
            settings=known.rules,
            under_way=tuple(reading.under_way.values()),
            parallel_nodes=parallel_nodes,
        )
    )
    leavers = [leaver for node in drained for leaver in node.leavers]
    return msgspec.structs.replace(
        found, not_judged=(*_left_to_scheduler(leavers), *_unjudged(known, names, found, reading.merely_leaving))
    )


def _cordoned(node: Node) -> Node:
    return msgspec.structs.replace(node, spec=msgspec.structs.replace(node.spec, unschedulable=True))


def _held(pods: Iterable[Pod]) -> Iterator[Held]:
    for pod in pods:
        if (holding := capacity.holding(pod)) is not None:
            yield Held(pod.metadata.key, *holding, pod.spec.priority)


class _Reading:
    """What is read off the objects of a cluster, for one plan."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self._caches = Caches(
            _store(Store(by_node_of_vm), known.vms),
            _store(Store(by_node_of_pod), known.pods),
            _store(Store(by_vm), known.migrations),
        )
        self._nodes = {node.metadata.name: node for node in known.nodes}
        self.merely_leaving: list[str] = []
        self.reserved: list[Held] = []
        pods: dict[str, list[Pod]] = {}
        for pod in known.pods:
            if (owner := ownership.owner(pod)) is not None and not pod.done:
                pods.setdefault(owner.uid, []).append(pod)
        self.under_way = {
            vm.metadata.key: move
            for vm in known.vms
            if (move := self._under_way(vm, pods.get(vm.metadata.uid, []))) is not None
        }

    def leaving(self, name: str) -> Leaving:
        """Return a node that is drained, with its VMs."""
        pods = pods_on(name, self._caches)
        now = survey(name, self._caches, ours={}, refused={}, unanswered={})
        silence = nodes.silence(self._nodes.get(name))
        leavers, stayers = [], []
        for key, vm in now.to_move.items():
            if key not in self.under_way:
                pod = pods.get(key)
                if pod is not None and pod.terminating:
                    self.merely_leaving.append(key)
                else:
                    leavers.append(Leaver(vm, pod, self._waits_for_backoff(vm)))
        for key, wait in waits(name, self._caches, now, ours={}, unanswered={}).items():
            if key not in self.under_way:
                found = self._judge(key, wait, pods.get(key), silence)
                if isinstance(found, Leaver):
                    leavers.append(found)
                elif found is not None:
                    stayers.append(found)
        return Leaving(name, tuple(leavers), tuple(stayers), silence)

    def _judge(self, key: str, wait: Wait, pod: Pod | None, silence: str | None) -> Leaver | Stayer | None:
        """Judge a VM for which the drain would wait before it asks for its migration."""
        vm = self._caches.vms.get(key)
        if wait.cause is Cause.ANOTHER and vm is not None:
            return Leaver(vm, pod)  # that migration waits for its turn, as ours would
        if wait.cause is Cause.LEAVING:
            held = pod is not None and bool(pod.metadata.finalizers)
            if held or silence is not None:
                return Stayer(key, wait.words if silence is None else f"{wait.words}; {silence}")
            self.merely_leaving.append(key)
            return None
        boots = boot.left(pod, self._known.now) if pod is not None else 0.0
        return Leaver(vm, pod, boots) if vm is not None and boots > 0 else Stayer(key, wait.words)

    def _waits_for_backoff(self, vm: VirtualMachine) -> float:
        history = self._caches.migrations.by_index(vm.metadata.key)
        found = backoff(history, vm.metadata.uid, self._known.now)
        return found.left if found is not None else 0.0

    def _under_way(self, vm: VirtualMachine, pods: Iterable[Pod]) -> UnderWay | None:
        """Return the move that has claimed a VM; None if there is none, or it is being undone."""
        claim = vm.status.migration
        rules = self._known.rules.get(vm.controller_class)
        if claim is None or claim.aborting is not None or rules is None:
            return None
        of_number = {ownership.incarnation(pod): pod for pod in pods}
        source, target = of_number.get(claim.source_incarnation), of_number.get(claim.target)
        node = capacity.node_of(target) if target is not None else None
        try:
            amount = capacity.of_vm(launcher.requested(vm), rules.policy)
            seconds, copying, age = self._left(vm, claim, source, rules)
        except RatioError:
            return None
        held = target.metadata.key if target is not None else None
        if node is None and claim.reserved_node is not None:
            held = f"{vm.metadata.key} (reserved)"
            self.reserved.append(Held(held, claim.reserved_node, amount))
        return UnderWay(
            vm.metadata.key,
            claim.uid,
            vm.controller_class,
            claim.source_node,
            node or claim.reserved_node or "",
            source.metadata.key if source is not None else None,
            Strategy.LIVE if claim.is_live else Strategy.RECREATE,
            seconds,
            copying,
            age,
            Leaver(vm, target, held=held),
        )

    def _left(
        self, vm: VirtualMachine, claim: Claim, source: Pod | None, rules: PublishedSettings
    ) -> tuple[float, Copying | None, float]:
        """Return the seconds that a move still takes; or what it copies, and the age of that record."""
        if not claim.is_live:
            return timing.RECREATE + timing.booting(vm, rules), None, 0.0
        if vm.status.incarnation == claim.target and claim.mode != GuestMode.POST_COPY:
            return timing.LIVE_AFTER, None, 0.0
        history = self._caches.migrations.by_index(vm.metadata.key)
        copying = next((item.status.copying for item in history if item.metadata.uid == claim.uid), None)
        began = times.parse_timestamp(copying.timestamp) if copying is not None else None
        if copying is not None and began is not None and copying.usable:
            return 0.0, copying, max((self._known.now - began).total_seconds(), 0.0)
        return 0.0, timing.copying(vm, source, rules), -timing.LIVE_BEFORE


def _store(store: Store[T], objects: Iterable[T]) -> Store[T]:
    store.replace(objects, "1")
    return store


# --- what is not judged -----------------------------------------------------------------------------------------


def _left_to_scheduler(leavers: Iterable[Leaver]) -> Iterator[NotJudged]:
    """Yield the placement fields that only the scheduler can judge, with the VMs that set them."""
    found: dict[str, list[str]] = {}
    for leaver in leavers:
        for name in placement.left_to_scheduler(leaver.vm.spec):
            found.setdefault(name, []).append(leaver.vm.metadata.key)
    for name, vms in sorted(found.items()):
        yield NotJudged(name, tuple(vms))


def _unjudged(known: Known, names: Sequence[str], found: Plan, merely_leaving: Sequence[str]) -> Iterator[NotJudged]:
    if merely_leaving:
        yield NotJudged(_MERELY_LEAVING, tuple(merely_leaving))
    if displacing := tuple(found.displaced):
        yield NotJudged(_DISPLACED, displacing)
    of = {vm.metadata.key: vm for vm in known.vms}
    waiting = [
        item.vm_key
        for item in known.migrations
        if not item.finished
        and item.spec.record_of is None
        and (vm := of.get(item.vm_key)) is not None
        and vm.status.migration is None
        and vm.status.node_name not in names
    ]
    if waiting:
        yield NotJudged(_WAITING, tuple(sorted(waiting)))
    for what in known.unread:
        yield NotJudged(what)
