"""Runs of a live move: its controller crashes, someone intervenes, and the next controller takes over.

Guarantees: virtual time. The controller that dies sends no further request; its successor starts with empty caches, and
runs until nothing changes any more. `tests.exhaustive.verdicts` judges how a run ended.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from controller.domain.resources import VIRTUAL_MACHINES
from tests.exhaustive.endings import STEPS, Late, Order, Pair, Row
from tests.exhaustive.live import OF_LIVE, Holds, Intervention, Point, ProcessChange, copies
from tests.exhaustive.release_before import OldProcess
from tests.model.cluster import Cluster
from tests.model.faults import LONGEST_REQUEST, Fault
from tests.model.rules import Document
from tests.unit.reconcilers.harness import POLICY, Process

VM: Final = "default/vm-1"
ROUNDS: Final = 1500
"""Rounds, of a second each at most, in which every run comes to rest."""
PACE: Final = 5.0
"""Seconds of each step at which a pair of interventions may strike."""
FASTER: Final = replace(POLICY, speed=2.0)
LEADS: Final = 12
"""Rounds for which a controller leads that is replaced by another: a live move gets on its way, and does not end."""


class Died(BaseException):
    """The process of the controller ended: no code of it runs any more."""


@dataclass(slots=True)
class Crash:
    """How the controller dies: once `reached` holds, and how far its last request came.

    With `reply_lost` the request that makes the step is its last, else the one after it, which is not carried out. With
    `request` its last is the next such request, which commits `late` seconds later.
    """

    reached: Holds
    reply_lost: bool = False
    request: str | None = None
    late: float = 0.0


@dataclass(repr=False)
class Stage(Cluster):
    """A cluster in which the controller crashes as `crash` says; a user does `begin` once `begins` holds."""

    crash: Crash | None = None
    begins: Holds | None = None
    begin: Callable[[Cluster], None] = lambda _: None
    due: bool = False
    """Whether the step is reached at which the controller crashes."""
    dead: bool = False
    order: Order = Order.VMS_FIRST
    """The order of the controllers' queues."""
    prompt: bool = False
    """Whether scheduler and kubelets act at once: no controller sees a pod that is bound, or terminating."""
    replaced: int = 0
    """The revision at which the last controller took over."""

    def look(self) -> bool:
        """Let the user act if it is time; return whether that was now. Note whether the controller is to crash."""
        acts = self.begins is not None and self.begins(self)
        if acts:
            self.begins = None
            self.begin(self)
        self.due = self.due or (self.crash is not None and self.begins is None and self.crash.reached(self))
        return acts

    def next_controller(self) -> None:
        """Let the requests of the next controller through."""
        self.crash, self.due, self.dead, self.replaced = None, False, False, self.revision

    def deliver(self, processes: Sequence[Process]) -> None:
        """Show the controllers everything that has changed; let scheduler and kubelets act, which they see later."""
        for process in processes:
            process.deliver()
        if not self.prompt:
            self.run_pods(bind_first=True)
            self.finish_deletions()

    def act_at_once(self) -> None:
        """Let prompt kubelets act."""
        if self.prompt:
            self.run_pods()
            self.finish_deletions()

    async def _arrive(self, method: str, plural: str, name: str) -> None:
        await super()._arrive(method, plural, name)
        self.look()
        if self.dead or (self.due and self.crash is not None and self.crash.request is None):
            self._die()

    def _fault(self, method: str, plural: str, name: str) -> Fault | None:
        if self.due and self.crash is not None and self.crash.request == f"{method} {plural}":
            self.dead = True
            return Fault(method, plural, Died(), late=self.crash.late)
        return super()._fault(method, plural, name)

    def _leave(self, method: str, plural: str, name: str) -> None:
        super()._leave(method, plural, name)
        self.look()
        if self.due and self.crash is not None and self.crash.reply_lost:
            self._die()

    def _die(self) -> None:
        self.dead = True
        raise Died


# --- runs -----------------------------------------------------------------------------------------------------------


async def on_stage(
    crash: Crash | None = None, *, order: Order = Order.VMS_FIRST, prompt: bool = False, live: Document | None = None
) -> tuple[Stage, Process]:
    """Let the VM run on node-1 for an hour; then node-2 is free, and migration m-1 is created."""
    stage = Stage()
    stage.add_node("node-1")
    stage.apply_vm()
    process = Process(stage)
    await process.settle()
    stage.pass_time(3600)
    stage.add_node("node-2")
    stage.migrate(strategy="Live", unschedulableTimeoutSeconds=20, live=live or {})
    stage.crash, stage.order, stage.prompt = crash, order, prompt
    return stage, process


async def run(row: Row) -> Stage:
    """Carry a row out."""
    point = row.point
    stage, process = await on_stage(
        Crash(point.reached, point.reply_lost), order=row.order, prompt=row.prompt, live=point.live
    )
    _begin(stage, point)
    await _until_death(stage, process)
    await _take_over(stage, OF_LIVE[row.intervention])
    return stage


async def run_late(late: Late) -> Stage:
    """Carry out a run in which the last request of the dead controller commits later."""
    assert 0 < late.seconds < LONGEST_REQUEST
    stage, process = await on_stage(Crash(late.begins, request=late.request, late=late.seconds))
    if late.aborts:
        stage.begins, stage.begin = copies, OF_LIVE["cancel"].act
    await _until_death(stage, process)
    assert stage.late, "the request is in flight"
    await _take_over(stage, OF_LIVE[late.intervention])
    return stage


async def run_pair(pair: Pair) -> Stage:
    """Carry out a run in which two interventions strike a move whose controller lives; its caches lag the second."""
    stage, process = await on_stage(order=pair.order, prompt=pair.prompt)
    processes = [process, Process(stage, of_class="blue")]
    for step in range(STEPS):
        if step == pair.at:
            OF_LIVE[pair.first].act(stage)
        stage.deliver(processes)
        if step == pair.later:
            OF_LIVE[pair.second].act(stage)
        for each in processes:
            await each.step(stage.order.value)
        stage.act_at_once()
        stage.pass_time(PACE)
    await settle(stage, processes)
    return stage


def _begin(stage: Stage, point: Point) -> None:
    if point.begins is not None:
        stage.begins, stage.begin = point.begins, OF_LIVE[point.begin].act


async def _until_death(stage: Stage, process: Process) -> None:
    """Let the controller lead until it dies, or until the step is reached and it has nothing more to do."""
    for _ in range(ROUNDS):
        before, waits = stage.revision, stage.begins
        stage.deliver([process])
        try:
            if stage.look():
                process.deliver()
                await process.work("migrations", VM)  # the abort, before the VM's own reconcile gets on with the move
            again = await process.step(stage.order.value)
            if stage.begins is not waits:
                process.deliver()
                await process.work("migrations", VM)
        except Died:
            break
        stage.act_at_once()
        if stage.revision == before:
            if not again:
                break
            stage.pass_time(1)
    assert stage.due or stage.dead, "the step was never reached"
    stage.next_controller()


async def _take_over(stage: Stage, intervention: Intervention) -> None:
    """Intervene; then let the next controller take over, and run until it has nothing more to do."""
    intervention.act(stage)
    others = [Process(stage, of_class="blue")] if intervention.other_class else []
    if intervention.process is not None:
        old = intervention.process is ProcessChange.OLD_LEADER
        await settle(stage, [OldProcess(stage) if old else Process(stage, policy=FASTER)], rounds=LEADS)
        stage.next_controller()
    last = [Process(stage), *others]
    await settle(stage, last)
    if (VIRTUAL_MACHINES.plural, VM) not in stage.objects:
        stage.pass_time(3600)  # for an hour, a migration of a VM that it never saw says so
        await settle(stage, last)


async def settle(stage: Stage, processes: Sequence[Process], *, rounds: int | None = None) -> None:
    """Run controllers, scheduler and kubelets until nothing changes any more, or for so many rounds."""
    for _ in range(ROUNDS if rounds is None else rounds):
        before = stage.revision
        stage.deliver(processes)
        again = [await process.step(stage.order.value) for process in processes]
        stage.act_at_once()
        if stage.revision == before:
            if not any(again) and not stage.late:
                return
            stage.pass_time(1)
    assert rounds is not None, f"not settled: {stage.objects}"
