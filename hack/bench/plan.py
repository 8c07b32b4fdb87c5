"""The measurements of a run, their order, and how they are carried out.

Guarantees: a round measures each contestant once, and each round begins with another one; the figures of one are
written before the next begins; a contestant that fails is reported, and the others are still measured.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import uvloop

from controller.controlplane.report import Reporter
from controller.kube.errors import KubeError
from controller.operations.errors import SimulatorError
from hack.bench import bursts, contestants, fleets, live, machine, moves, objects, stage, standing
from hack.bench.contestants import Contestant, Launch
from hack.bench.errors import BenchError
from hack.bench.figures import Results, Sample
from hack.bench.process import Running, started

BURST: Final = "burst"
FLEET: Final = ("cold", "idle", "latency", "change")
GROWTH: Final = "growth"
MIGRATIONS: Final = "migrations"
LIVE: Final = "live"
MEASURES: Final = (BURST, *FLEET, GROWTH, MIGRATIONS, LIVE)

_BURST_RATE: Final = 4.0
"""A burst with fewer VMs per second counts as stuck."""
_MIGRATORS: Final = (contestants.BARE, contestants.OURS)


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes of the measurements. Times are in seconds."""

    vms: int = 2000
    rounds: int = 3
    fleet: int = 10_000
    growth: tuple[int, ...] = (1000, 5000, 10_000, 20_000)
    added: int = 500
    idle: float = 60.0
    rate: float = 20.0
    latency: float = 30.0
    singles: int = 20
    migrations: int = 500


QUICK: Final = Sizes(
    vms=200, rounds=1, fleet=500, growth=(200, 500), added=100, idle=10.0, latency=5.0, singles=5, migrations=50
)


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the benchmark."""

    sizes: Sizes
    measures: frozenset[str]
    contestants: tuple[Contestant, ...]
    results: Results
    path: Path
    report: Reporter

    async def carry_out(self) -> None:
        """Carry out all chosen measures."""
        launches = {one.name: contestants.prepare(one, self.report) for one in self.contestants}
        for measure in MEASURES:
            if measure in self.measures:
                self.results.drop(measure)
        if BURST in self.measures:
            await self._bursts(launches)
        for measure in (MIGRATIONS, LIVE):
            if measure in self.measures:
                await self._migrations(launches, measure)
        if self.measures & {*FLEET, GROWTH}:
            with fleets.exclusive(self.report):
                await self._fleets(launches)

    async def _bursts(self, launches: dict[str, Launch | None]) -> None:
        for number in range(self.sizes.rounds):
            for one in _rotated(self.contestants, number):
                vms = int(self.sizes.vms * one.share)
                async with (
                    self._measured(BURST, one, number) as note,
                    stage.fresh(objects.nodes_for(self.sizes.vms), self.report) as place,
                ):
                    note(BURST, await bursts.burst(place, launches[one.name], vms, deadline=vms / _BURST_RATE + 30))

    async def _migrations(self, launches: dict[str, Launch | None], measure: str) -> None:
        vms, live_ones = self.sizes.migrations, measure == LIVE
        nodes = objects.nodes_for(2 * vms if live_ones else vms)
        for number in range(self.sizes.rounds):
            for one in _rotated(self.contestants, number):
                if one not in _MIGRATORS:
                    continue
                launch = launches[one.name]
                async with self._measured(measure, one, number) as note, stage.fresh(nodes, self.report) as place:
                    if live_ones:
                        fast = launch.with_flags("--speed", f"{contestants.SPEED}") if launch is not None else None
                        note(measure, await live.move(place, fast, vms))
                    else:
                        note(measure, await moves.move(place, launch, vms))

    async def _fleets(self, launches: dict[str, Launch | None]) -> None:
        sizes = set(self.sizes.growth) if GROWTH in self.measures else set()
        if self.measures & set(FLEET):
            sizes.add(self.sizes.fleet)
        nodes = fleets.nodes_of(list(sizes))
        await fleets.create(sorted(sizes), self.report)
        for number, size in enumerate(sorted(sizes)):
            for one in _rotated(self.contestants, number):
                launch = launches[one.name]
                if launch is None or not one.fleets:
                    continue
                async with (
                    self._measured(f"fleet of {size}", one, 0) as note,
                    fleets.restored(size, nodes, self.report) as place,
                    started(launch, place.plane.kubeconfig, place.log) as process,
                ):
                    await self._fleet(place, process, size, note)

    async def _fleet(
        self, place: stage.Stage, process: Running, size: int, note: Callable[[str, dict[str, float]], None]
    ) -> None:
        sizes, names = self.sizes, [f"fleet-{number}" for number in range(size)]
        cold = await standing.cold(place, process, size)
        if size == sizes.fleet:
            if "cold" in self.measures:
                note("cold", cold)
            if "idle" in self.measures:
                note("idle", await standing.idle(place, process, sizes.idle))
            if "latency" in self.measures:
                times = await standing.latency(place, process, names, rate=sizes.rate, seconds=sizes.latency)
                note("latency", times)
            if "change" in self.measures:
                note("change", await standing.single(place, process, names, sizes.singles))
        if GROWTH in self.measures and size in sizes.growth:
            added = [f"vm-{number}" for number in range(sizes.added)]
            grown = await bursts.create_vms(place, added, process, deadline=sizes.added / _BURST_RATE + 30)
            note(f"{GROWTH} {size}", {**grown, "cold_rss_mib": cold["rss_mib"], "cold_settled": cold["settled"]})

    @asynccontextmanager
    async def _measured(
        self, what: str, one: Contestant, number: int
    ) -> AsyncIterator[Callable[[str, dict[str, float]], None]]:
        """Yield a function that records figures; a failure is recorded, too."""
        load, at = machine.load(), datetime.now(UTC).isoformat(timespec="seconds")

        def note(measure: str, values: dict[str, float]) -> None:
            self.results.samples.append(Sample(measure, one.name, number, values, round(load, 2), at))
            self.results.write(self.path)
            text = "  ".join(f"{key} {value:.4g}" for key, value in values.items())
            self.report.say(f"{measure}, {one.name}, round {number + 1} (load before: {load:.1f}): {text}")

        try:
            yield note
        except* (BenchError, KubeError, SimulatorError) as group:
            reasons = "; ".join(str(error) for error in group.exceptions)
            self.results.failures.append(f"{what} of {one.name}, round {number + 1}: {reasons}")
            self.results.write(self.path)
            self.report.warn(self.results.failures[-1])


def _rotated(items: tuple[Contestant, ...], number: int) -> tuple[Contestant, ...]:
    first = number % len(items)
    return items[first:] + items[:first]


def run(order: Run) -> None:
    """Carry a run out, on the event loop that takes the least CPU from the contestants."""
    with asyncio.Runner(loop_factory=uvloop.Loop) as runner:
        runner.run(order.carry_out())
