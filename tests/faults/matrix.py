"""The matrix of all faults at all places of all scenarios, and the execution of its runs side by side.

Guarantees: the places are those of an undisturbed run of the same scenario (its writes, and the events it receives);
the cells depend on nothing else, so the same command tries the same faults. A run in which the fault never struck
shows nothing and is counted separately.
"""

from __future__ import annotations

import asyncio
import math
import re
import shutil
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from controller.kube import credentials
from controller.kube.client import Client
from tests.faults.explanations import explain
from tests.faults.oracles import judge
from tests.faults.proxy import Fault
from tests.faults.requests import CRASHES, FORBIDDEN, REQUEST_FAULTS, Act, AtWrite
from tests.faults.run import BOUND, Lab, Ran
from tests.faults.scenarios import LIVE, SCENARIOS
from tests.faults.stage import Stage
from tests.faults.streams import SILENCE, WATCH_FAULTS, Kind, Silence
from tests.faults.wire import DRY_RUN, STATE, Upstream
from tests.faults.zygote import Zygote

IDLE_LIMIT: Final = 120.0
"""Seconds after which the controller's client ends a silent watch."""
WRITE: Final = "write"
CREATE: Final = "POST pods"
"""The write that no 403 strikes in a live migration: a forbidden target rightly ends it."""
_EVERY: Final = 1000
_OF_WRITES: Final[Mapping[str, Act]] = {**CRASHES, **REQUEST_FAULTS}
_OF_WATCHES: Final[Mapping[str, Kind]] = {**WATCH_FAULTS, SILENCE: Silence}


@dataclass(frozen=True, slots=True)
class Cell:
    """A fault at one place of a scenario: at its n-th write, or at the n-th event of a resource."""

    scenario: str
    fault: str
    at: str
    nth: int

    def make(self) -> Fault:
        """Make the fault."""
        if self.at == WRITE:
            return AtWrite(self.nth, _OF_WRITES[self.fault], dry_runs=self.fault != FORBIDDEN)
        return _OF_WATCHES[self.fault](self.at, self.nth)

    @property
    def bound(self) -> float:
        """Seconds within which it must settle."""
        return BOUND + IDLE_LIMIT if self.fault == SILENCE else BOUND

    def __str__(self) -> str:
        """Return its name for messages."""
        return f"{self.scenario} / {self.fault} / {self.at} {self.nth}"


_NO_NAME: Final = re.compile(r"\W+")


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of a cell: good if there are no complaints and the fault struck.

    `explained` is the reason why it may differ from the undisturbed run.
    """

    cell: Cell
    struck: bool
    seconds: float
    complaints: tuple[str, ...]
    explained: str | None = None


def cells(reference: Ran) -> Iterator[Cell]:
    """Return every cell of a scenario, given its undisturbed run."""
    committed = [write for write in reference.writes if not write.endswith(DRY_RUN)]
    for fault in _OF_WRITES:
        for nth, write in enumerate(committed if fault == FORBIDDEN else reference.writes, 1):
            if not (fault == FORBIDDEN and write == CREATE and reference.scenario.startswith(LIVE)):
                yield Cell(reference.scenario, fault, WRITE, nth)
    for fault, kind in _OF_WATCHES.items():
        for resource in STATE:
            for nth in range(1, min(reference.events[resource], 1 if kind.lasting else _EVERY) + 1):
                yield Cell(reference.scenario, fault, resource, nth)


@asynccontextmanager
async def laboratory(kubeconfig: Path, directory: Path) -> AsyncIterator[Lab]:
    """Yield what runs share, on a control plane with our CRDs; no process is left."""
    async with (
        await Client.connect(credentials.find(str(kubeconfig))) as client,
        Upstream.connect(kubeconfig) as upstream,
        Zygote.start() as zygote,
    ):
        yield Lab(zygote, upstream, client, directory)


class Matrix:
    """Carries out runs, as many at once as there are stages. Use `build`."""

    def __init__(self, lab: Lab, stages: Sequence[Stage]) -> None:
        self._lab = lab
        self._free: asyncio.Queue[Stage] = asyncio.Queue()
        self._references: dict[str, Ran] = {}
        for stage in stages:
            self._free.put_nowait(stage)

    @classmethod
    async def build(cls, lab: Lab, stages: int) -> Matrix:
        """Build the stages."""
        built = [Stage(lab.client, f"faults-{number}") for number in range(1, stages + 1)]
        await asyncio.gather(*(stage.build() for stage in built))
        return cls(lab, built)

    async def references(self, scenarios: Iterable[str]) -> list[Ran]:
        """Play scenarios undisturbed; every other run of them is compared with this one."""

        async def one(name: str) -> Ran:
            async with self._stage() as stage:
                return await self._lab.run(SCENARIOS[name], Fault(), stage)

        ran = await asyncio.gather(*map(one, scenarios))
        for reference in ran:
            if reference.problem or reference.evidence is None:
                raise AssertionError(f"{reference.scenario}, undisturbed: {reference.problem}")
            if complaints := judge(reference.evidence, reference.evidence):
                raise AssertionError(f"{reference.scenario}, undisturbed: {complaints}")
            self._references[reference.scenario] = reference
        return ran

    async def verdicts(
        self, wanted: Iterable[Cell], report: Callable[[Verdict], None], *, seconds: float = math.inf
    ) -> list[Verdict]:
        """Try cells whose scenarios have their references, in their order; `report` gets each verdict.

        After so many seconds no further run begins.
        """
        clock = asyncio.get_running_loop().time
        ends = clock() + seconds

        async def one(cell: Cell) -> Verdict | None:
            async with self._stage() as stage:
                if clock() > ends:
                    return None
                ran = await self._lab.run(SCENARIOS[cell.scenario], cell.make(), stage, bound=cell.bound)
                verdict = self._judge(cell, ran)
                if verdict.complaints:
                    self._save(cell, ran, stage)
            report(verdict)
            return verdict

        async with asyncio.TaskGroup() as runs:
            tasks = [runs.create_task(one(cell)) for cell in wanted]
        return [verdict for task in tasks if (verdict := task.result()) is not None]

    def _save(self, cell: Cell, ran: Ran, stage: Stage) -> None:
        """Save the log and the writes of a bad run, which the stage's next run would overwrite."""
        saved = self._lab.directory.parent / "bad" / _NO_NAME.sub("-", str(cell))
        shutil.copytree(self._lab.directory / stage.name, saved, dirs_exist_ok=True)
        (saved / "writes.txt").write_text("".join(f"{write}\n" for write in ran.writes))

    def _judge(self, cell: Cell, ran: Ran) -> Verdict:
        undisturbed = self._references[cell.scenario].evidence
        problems = (ran.problem,) if ran.problem else ()
        if ran.evidence is None or undisturbed is None:
            return Verdict(cell, ran.struck, ran.seconds, problems)
        complaints = tuple(judge(ran.evidence, undisturbed))
        reason = explain(cell.scenario, cell.fault, ran.evidence, undisturbed) if complaints else None
        return Verdict(cell, ran.struck, ran.seconds, problems if reason else (*problems, *complaints), reason)

    @asynccontextmanager
    async def _stage(self) -> AsyncIterator[Stage]:
        """Yield a stage as soon as one is free."""
        stage = await self._free.get()
        try:
            yield stage
        finally:
            self._free.put_nowait(stage)
