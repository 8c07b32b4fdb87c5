"""One run: a scenario on a stage, a controller behind a proxy, at most one fault, and the result.

Guarantees: every wait ends; no process outlives the run; a run that could not be carried out has a problem, and never
counts as good.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from controller.kube.client import Client
from controller.kube.errors import KubeError
from tests.faults.oracles import Evidence
from tests.faults.proxy import Fault, Proxy
from tests.faults.scenarios import Scenario
from tests.faults.stage import Scene, Stage, StuckError
from tests.faults.streams import TimeTravel
from tests.faults.subject import Subject
from tests.faults.wire import Upstream
from tests.faults.witness import ClusterState, Seen, Witness, WitnessError
from tests.faults.zygote import Zygote

BOUND: Final = 60.0
"""Seconds within which a scenario has to settle, whatever the fault. The worst case is the sum of a request's
deadline (15 s), the wait for a create of unknown outcome (20 s) and a failed pod's backoff (10 to 16 s)."""
_PREPARED: Final = 0.3
_QUIET: Final = 1.5
"""Seconds without a change after which a run that has reached its end counts as settled."""
_WATCHED: Final = 3.0
"""Seconds for which a settled run is watched: nothing may be written."""
_FUTILE: Final = 3
"""Writes of one object that the server may refuse meanwhile: a silent watch does not show that all is done."""


@dataclass(frozen=True, slots=True)
class Ran:
    """The result of a run. Without `evidence` it did not settle or was not carried out; `problem` is the reason.

    `writes` are those that the controller sent after the fault was set, in order; `events` counts, by resource, those
    that it was sent.
    """

    scenario: str
    evidence: Evidence | None
    seconds: float
    struck: bool
    writes: tuple[str, ...] = ()
    events: Counter[str] = field(default_factory=Counter)
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Lab:
    """The means that all runs share."""

    zygote: Zygote
    upstream: Upstream
    client: Client
    directory: Path

    async def run(self, scenario: Scenario, fault: Fault, stage: Stage, *, bound: float = BOUND) -> Ran:
        """Play a scenario with a fault. An error of the run itself is its `problem`, and never raised."""
        began = asyncio.get_running_loop().time()
        directory = self.directory / stage.name
        directory.mkdir(parents=True, exist_ok=True)
        try:
            await stage.reset()
            async with (
                Subject.run(self.zygote, self.upstream, stage, directory, copying=scenario.copying) as (subject, proxy),
                Witness(self.client, stage.name) as witness,
            ):
                scene = Scene(stage, witness, bound)
                await scenario.prepare(scene)
                await witness.settled(lambda _: True, quiet=_PREPARED, seconds=bound)
                if isinstance(fault, TimeTravel):
                    fault.remember(await self.upstream.ask("GET", proxy.listed[fault.resource], None, b""))
                return await _Play(scenario, fault, subject, proxy, scene, bound).run()
        except (TimeoutError, KubeError, StuckError, WitnessError) as error:
            seconds = asyncio.get_running_loop().time() - began
            why = f"could not be carried out: {str(error) or type(error).__name__}"
            return Ran(scenario.name, None, seconds, fault.struck, problem=why)


class _Play:
    """The part of a run in which the fault is set. Lives for one call."""

    def __init__(  # noqa: PLR0917 - made in one place
        self, scenario: Scenario, fault: Fault, subject: Subject, proxy: Proxy, scene: Scene, bound: float
    ) -> None:
        self._scenario = scenario
        self._fault = fault
        self._subject = subject
        self._proxy = proxy
        self._scene = scene
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._ends = self._began + bound
        self._writes = len(proxy.writes)
        self._events = Counter(proxy.events)
        self._before = tuple(scene.witness.history)

    async def run(self) -> Ran:
        """Set the fault, act, wait for the end, and check that it lasts."""
        witness = self._scene.witness
        self._proxy.fault = self._fault
        try:
            await self._scenario.act(self._scene)
            await self._proxy.delivered()  # late writes are a part of the run
            left = self._ends - self._loop.time()
            at = await witness.settled(self._scenario.ended, quiet=_QUIET, seconds=left)
        except (StuckError, WitnessError) as error:
            return self._ran(f"{error}: {_state(witness.cluster)}")
        if at is None:
            return self._ran(f"not settled in time: {_state(witness.cluster)}")
        settled, quiet = len(witness.history), len(self._proxy.writes)
        await asyncio.sleep(_WATCHED)
        late = self._proxy.writes[quiet:]
        problem = "".join(f"{call} was carried out after the run had settled; " for call in late if call.committed)
        for name, futile in Counter(call.name for call in late).items():
            if futile > _FUTILE:
                problem += f"{futile} writes of {name} were sent in vain after the run had settled; "
        return self._ran(problem, at=at, evidence=self._evidence(settled))

    def _evidence(self, settled: int) -> Evidence:
        """Return the objects that existed when the fault was set as the start, and the events since then."""
        last = {seen.item.metadata.uid: seen for seen in self._before}
        standing = tuple(replace(seen, first=True) for seen in last.values() if not seen.deleted)
        since = len(self._before)
        fresh: Sequence[Seen] = self._scene.witness.history[since:]
        return Evidence((*standing, *fresh), len(standing) + settled - since)

    def _ran(self, problem: str, *, at: float | None = None, evidence: Evidence | None = None) -> Ran:
        return Ran(
            self._scenario.name,
            evidence,
            (self._loop.time() if at is None else at) - self._began,
            self._fault.struck,
            tuple(map(str, self._proxy.writes[self._writes :])),
            self._proxy.events - self._events,
            problem or self._subject.problem(),
        )


def _state(seen: ClusterState) -> str:
    """Return the existing objects in a few words."""
    vms = [f"{vm.metadata.name} {vm.status.phase} in incarnation {vm.status.incarnation}" for vm in seen.vms.values()]
    pods = [
        f"{pod.metadata.name} {'terminating' if pod.terminating else pod.status.phase}" for pod in seen.pods.values()
    ]
    migrations = [f"{found.metadata.name} {found.status.phase}" for found in seen.migrations.values()]
    return "; ".join((*vms, *pods, *migrations))
