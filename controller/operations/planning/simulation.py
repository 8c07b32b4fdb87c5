"""Plays a drain in virtual time: which VM gets a slot when, where it goes, and when its node is empty.

Guarantees: pure, and the same for the same situation. Slots are granted as by the controller
(`controller.reconcilers.migration.slots`): in order of rank, never more than the limits allow, and a VM for which there
is no room blocks no other. Nodes are drained in their order, `parallel_nodes` at once, as by
`controller.operations.draining`. Every VM leaves once, or is a blocker.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from heapq import heappop, heappush
from itertools import count
from typing import Final

import msgspec

from controller.domain.copying.model import Checkpoint, resume
from controller.domain.copying.record import Copying
from controller.domain.copying.sharing import Transfer
from controller.domain.migration.demand import Demand, demand
from controller.domain.migration.plan import Refused
from controller.domain.objects import Claim, MigrationSpec, Strategy
from controller.domain.ratio import RatioError
from controller.domain.settings import PublishedSettings
from controller.domain.vm.placement import PlacementError
from controller.operations.planning import timing
from controller.operations.planning.copiers import Copiers, undone
from controller.operations.planning.room import Choice, Room
from controller.operations.planning.slots import Line, Slots, Waiting
from controller.operations.planning.values import (
    Blocker,
    Cause,
    Held,
    Leaver,
    Leaving,
    NodePlan,
    Plan,
    Situation,
    Step,
    UnderWay,
)

_PATIENCE: Final = float(MigrationSpec().unschedulable_timeout_seconds)
"""Seconds for which a migration waits for room, or for its source's node, before it fails."""
_ENDLESS: Final = "it copies without end: neither does it converge, nor is there a completion timeout"


def simulate(situation: Situation) -> Plan:
    """Return what the drain would do."""
    return _Run(situation).run()


@dataclass(slots=True)
class _Emptying:
    """A node whose drain has begun: the VMs that are still to leave."""

    begins: float
    left: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class _Moving:
    """A move that has a slot. `step`: what it does, if it succeeds.

    `pod`, `held`: what holds room on its source and on its target;
    `arrives`: the VM, if it has to leave the target as well.
    """

    step: Step
    of_class: str | None
    pod: str | None
    held: str | None
    arrives: Leaver | None = None

    def ends_on(self, node: str) -> bool:
        """Whether its VM will have to leave this node."""
        return self.arrives is not None and self.step.target == node


class _Run:
    """One drain, in virtual time."""

    def __init__(self, situation: Situation) -> None:
        self._situation = situation
        self._now = 0.0
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._busy_until = 0.0
        self._numbers = count()  # timers of the same moment act in the order in which they were set
        self._room = Room(situation.nodes, situation.held)
        self._slots = Slots({of_class: rules.limits for of_class, rules in situation.settings.items()})
        self._line = Line()
        self._copiers = {
            of_class: Copiers(rules.live.capacity, rules.policy.speed) for of_class, rules in situation.settings.items()
        }
        self._names = frozenset(node.name for node in situation.drained)
        self._to_begin = deque(situation.drained)
        self._active: dict[str, _Emptying] = {}
        self._arrived: dict[str, list[Leaver]] = {name: [] for name in self._names}
        # The moves with a slot, by their VM; the nodes and VMs that have left them, or have failed to.
        self._moving: dict[str, _Moving] = {}
        self._done: set[tuple[str, str]] = set()
        self._begun: dict[str, float] = {}
        self._emptied: dict[str, float] = {}
        self._steps: list[Step] = []
        self._blockers: list[Blocker] = []

    def run(self) -> Plan:
        """Play it to its end."""
        for move in self._situation.under_way:
            self._resume(move)
        for _ in range(min(self._situation.parallel_nodes, len(self._to_begin))):
            self._begin_next()
        self._grant()
        while (at := self._next_at()) < math.inf:
            self._now = at
            while self._timers and self._timers[0][0] <= at:
                heappop(self._timers)[2]()
            for copiers in self._copiers.values():
                for vm, last in copiers.advance(at):
                    self._copied(vm, last)
            self._grant()
        self._give_up_the_rest()
        return self._plan()

    def _plan(self) -> Plan:
        blocked = {blocker.node for blocker in self._blockers}
        nodes = tuple(
            NodePlan(
                node.name,
                len(node.leavers)
                + len(node.stayers)
                + sum(node.name in {move.source, move.target} for move in self._situation.under_way),
                self._begun.get(node.name),
                None if node.name in blocked else self._emptied.get(node.name),
            )
            for node in self._situation.drained
        )
        steps = sorted(self._steps, key=lambda step: (step.begins, step.vm))
        return Plan(tuple(steps), nodes, tuple(self._blockers), at_once=self._slots.most)

    def _next_at(self) -> float:
        timer = self._timers[0][0] if self._timers else math.inf
        return min([timer, *(copiers.next_at() for copiers in self._copiers.values())])

    def _after(self, seconds: float, act: Callable[[], None]) -> None:
        heappush(self._timers, (self._now + seconds, next(self._numbers), act))

    def _work(self, seconds: float, act: Callable[[], None], pause: float = 0.0) -> None:
        """Let the control plane work for a move, after those before it; then, after a pause, act."""
        self._busy_until = max(self._busy_until, self._now) + seconds
        self._after(self._busy_until + pause - self._now, act)

    # --- nodes -------------------------------------------------------------------------------------------------

    def _begin_next(self) -> None:
        """Begin with the next node, if there is one."""
        if not self._to_begin:
            return
        node = self._to_begin.popleft()
        self._begun[node.name] = self._now
        leavers = [
            leaver
            for leaver in (*node.leavers, *self._arrived[node.name])
            if (node.name, leaver.vm.metadata.key) not in self._done
        ]
        vms = {leaver.vm.metadata.key for leaver in leavers} | {stayer.vm for stayer in node.stayers}
        vms |= {
            key for key, moving in self._moving.items() if moving.step.node == node.name or moving.ends_on(node.name)
        }
        self._active[node.name] = _Emptying(self._now, vms)
        for stayer in node.stayers:
            self._blockers.append(Blocker(stayer.vm, node.name, Cause.NOT_MOVABLE, stayer.why))
        for leaver in leavers:
            self._ask(node, leaver)
        self._look(node.name)

    def _settle(self, node: str, vm: str) -> None:
        """Take note that a VM has left its node, or has failed to."""
        self._done.add((node, vm))
        if (emptying := self._active.get(node)) is not None:
            emptying.left.discard(vm)
            self._look(node)

    def _look(self, node: str) -> None:
        if node in self._active and not self._active[node].left:
            del self._active[node]
            self._emptied[node] = self._now
            self._after(timing.BETWEEN_NODES, self._begin_next)

    def _block(self, node: str, vm: str, cause: Cause, why: str, displaces: tuple[str, ...] = ()) -> None:
        """Take note that a VM's migration fails now."""
        self._blockers.append(Blocker(vm, node, cause, why, self._now, displaces))
        self._settle(node, vm)

    def _give_up_the_rest(self) -> None:
        """Name the VMs whose turn never comes, since moves that never end have the slots."""
        for vm, moving in self._moving.items():
            step = moving.step
            for name in sorted(self._names & {step.node, step.target}):
                self._blockers.append(Blocker(vm, name, Cause.NEVER_CONVERGES, _ENDLESS, displaces=step.displaces))
        for waiting in self._line:
            why = "its turn never comes: moves that never end have all slots"
            self._blockers.append(Blocker(waiting.vm, waiting.node, Cause.NO_TURN, why))
        for node in self._to_begin:
            for stayer in node.stayers:
                self._blockers.append(Blocker(stayer.vm, node.name, Cause.NOT_MOVABLE, stayer.why))
            for leaver in (*node.leavers, *self._arrived[node.name]):
                why = "the drain of its node never begins: that of another node never ends"
                self._blockers.append(Blocker(leaver.vm.metadata.key, node.name, Cause.NO_TURN, why))

    # --- waiting for a slot ------------------------------------------------------------------------------------

    def _ask(self, node: Leaving, leaver: Leaver) -> None:
        """Ask for the migration of a VM: it waits for a slot from the moment on at which it may move."""
        vm = leaver.vm
        rules = self._rules(leaver)
        claim = Claim(source_node=node.name, strategy=rules.strategy)
        try:
            wanted = demand(claim, vm, rules.policy, leaver.pod)
            copying = timing.copying(vm, leaver.pod, rules) if rules.strategy is Strategy.LIVE else None
        except (RatioError, PlacementError) as error:
            self._block(node.name, vm.metadata.key, Cause.INVALID_SPEC, str(error))
            return
        if node.silence is not None:
            why = f"its source is not ready: {node.silence}"
            self._after(_PATIENCE, partial(self._block, node.name, vm.metadata.key, Cause.SOURCE_NOT_READY, why))
            return
        at = max(self._now, leaver.ready_in)
        waiting = Waiting((at, vm.metadata.key), leaver, node.name, vm.controller_class, wanted, copying)
        if at > self._now:
            self._after(at - self._now, partial(self._line.enter, waiting))
        else:
            self._line.enter(waiting)

    def _rules(self, leaver: Leaver) -> PublishedSettings:
        return self._situation.settings[leaver.vm.controller_class]

    def _grant(self) -> None:
        """Grant every slot that is free to the first that can use it."""
        refused: dict[Demand, Refused] = {}
        for waiting in tuple(self._line):
            if not self._slots.free(waiting.of_class, waiting.node):
                continue
            if waiting.refused is not None and not self._room.better(waiting.wanted, waiting.seen):
                continue
            found = refused.get(waiting.wanted) or self._room.find(waiting.wanted)
            if isinstance(found, Refused):
                refused[waiting.wanted] = found
                self._refuse(waiting, found)
            else:
                self._line.leave(waiting)
                self._start(waiting, found)

    def _refuse(self, waiting: Waiting, why: Refused) -> None:
        if why.for_good:
            self._line.leave(waiting)
            self._block(waiting.node, waiting.vm, Cause.NO_SUITABLE_NODE, why.message)
            return
        if waiting.refused is None:
            self._after(_PATIENCE, partial(self._give_up, waiting))
        waiting.refused, waiting.seen = why, self._room.times_freed

    def _give_up(self, waiting: Waiting) -> None:
        """Let a migration fail for which there was no room all the time."""
        if waiting in self._line and waiting.refused is not None:
            self._line.leave(waiting)
            self._block(waiting.node, waiting.vm, Cause.NO_ROOM, waiting.refused.message)

    # --- moves -------------------------------------------------------------------------------------------------

    def _start(self, waiting: Waiting, choice: Choice) -> None:
        """Let a VM move that has a slot and a node."""
        leaver, rules, vm = waiting.leaver, self._rules(waiting.leaver), waiting.vm
        displaced = tuple(victim.pod for victim in choice.victims)
        step = Step(vm, waiting.node, choice.node, choice.candidates, rules.strategy, self._now, math.inf, displaced)
        for pod in displaced:
            self._room.drop(pod)
        priority = leaver.pod.spec.priority if leaver.pod is not None else 0
        self._room.put(Held(vm, choice.node, waiting.wanted.amount, priority))
        source = leaver.pod.metadata.key if leaver.pod is not None else None
        moving = _Moving(step, waiting.of_class, leaver.held or source, vm)
        self._slots.take(moving.of_class, step.node)
        self._moving[vm] = moving
        if waiting.copying is not None:
            self._work(timing.LIVE_BEFORE, partial(self._copy, moving, waiting.copying, leaver.vm.metadata.uid))
        else:
            self._work(timing.RECREATE, partial(self._end, moving), timing.booting(leaver.vm, rules))

    def _resume(self, move: UnderWay) -> None:
        """Go on with a move that has a slot before the drain begins."""
        step = Step(move.vm, move.source, move.target, (move.target,), move.strategy, 0.0, math.inf)
        arrives = move.arrives if move.target in self._names - {move.source} else None
        held = move.arrives.held if move.arrives is not None else None
        moving = _Moving(step, move.of_class, move.pod, held, arrives)
        self._slots.take(moving.of_class, step.node)
        self._moving[move.vm] = moving
        if move.copying is None:
            self._after(move.seconds, partial(self._end, moving))
            return
        self._copy(moving, move.copying, move.uid, age=move.age)

    def _copy(self, moving: _Moving, copying: Copying, seed: str, age: float = 0.0) -> None:
        """Let a move copy from a record on that is so many seconds old."""
        step, job = moving.step, copying.job(seed)
        transfer = Transfer(step.vm, step.node, step.target, copying.cap)
        at = resume(job, copying.checkpoint)
        self._copiers[moving.of_class].begin(transfer, job, at, self._now - age, self._now)

    def _copied(self, vm: str, last: Checkpoint) -> None:
        """Take note that a move copies no more: the VM was handed over, or the move has to be undone."""
        moving = self._moving[vm]
        after = partial(self._undo, moving, last) if last.aborted else partial(self._end, moving)
        self._work(timing.LIVE_AFTER, after)

    def _end(self, moving: _Moving) -> None:
        """Take note that a VM has left, and its slot is free."""
        step = moving.step
        if moving.pod is not None:
            self._room.drop(moving.pod)
        self._free(moving)
        if step.node in self._names:
            self._steps.append(msgspec.structs.replace(step, ends=self._now))
            self._settle(step.node, step.vm)
        if moving.arrives is not None:
            self._arrived[step.target].append(moving.arrives)
            if step.target in self._active:
                node = next(node for node in self._situation.drained if node.name == step.target)
                self._ask(node, moving.arrives)

    def _undo(self, moving: _Moving, last: Checkpoint) -> None:
        """Take note that a live move has failed, and its slot is free."""
        step = moving.step
        if moving.held is not None:
            self._room.drop(moving.held)
        self._free(moving)
        if step.node in self._names:
            self._block(step.node, step.vm, Cause.NEVER_CONVERGES, undone(last), step.displaces)
        if moving.arrives is not None:
            self._settle(step.target, step.vm)

    def _free(self, moving: _Moving) -> None:
        del self._moving[moving.step.vm]
        self._slots.give_back(moving.of_class, moving.step.node)
