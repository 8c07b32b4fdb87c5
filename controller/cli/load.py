"""`vmsim load`: creates the objects of a scenario, waits until its VMs run, and plays their consumption.

Guarantees: all problems of a file are reported together, each on a line of its own, before any request is sent; an
interrupted load undoes nothing, and prints how to undo it.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Final

import typer
from rich.console import Console
from rich.progress import TaskID
from rich.text import Text

from controller.cli import exits, preview, session
from controller.cli.connection import Connection
from controller.cli.lines import Lines, bar_with_reason
from controller.cli.scenarios import DryRun
from controller.kube import managers
from controller.kube.client import Client
from controller.operations import settings
from controller.operations.errors import SimulatorError
from controller.operations.text import counted, one_line
from controller.scenario import files
from controller.scenario.asking import Findings
from controller.scenario.errors import DocumentError, FleetRefusedError, NotRunningError, listed, reasons
from controller.scenario.fitting import pack_fleet
from controller.scenario.loading import Outcome, Progress, Stage, load, rehearse
from controller.scenario.player import Played, play
from controller.scenario.profiles import brief
from controller.scenario.scenario import Scenario
from controller.scenario.speed import of_play

_SPARSE: Final = 10.0
"""Seconds between two lines about a load, without a terminal."""
_SPARSE_PLAY: Final = 60.0
"""Seconds between two lines about a play, without a terminal."""


@dataclass(frozen=True, slots=True)
class Request:
    """The command's arguments; `rate` is in writes per second, `timeout` in seconds."""

    file: str
    namespace: str | None
    dry_run: DryRun | None
    exact_placement: bool
    play: bool
    speed: float | None
    rate: float
    timeout: float


def run(connection: Connection, request: Request) -> None:
    """Load and play the scenario, and exit."""
    scenario = read(request.file)
    if request.exact_placement:
        if all(vm.node is None for vm in scenario.fleet.vms):
            exits.fail(f"--exact-placement: no group of VMs in {request.file} has the field node")
        scenario = scenario.exact
    console = session.console()
    if request.dry_run is not None:
        console.print(preview.table(scenario), soft_wrap=False)
    if request.dry_run == DryRun.CLIENT:
        unread = dict.fromkeys(scenario.fleet.classes, settings.Reading())
        _print(console, preview.totals(scenario, unread))
        if request.play:
            _print(console, preview.pace(scenario, request.speed, unread))
        _print(console, preview.fitting(pack_fleet(scenario.fleet), unread))
        console.print("--dry-run=server uses the settings of the cluster's controller instead.")
        raise typer.Exit(0)

    async def work(client: Client, scope: session.Scope) -> int:
        where = request.namespace or scenario.namespace or scope.namespace
        places = settings.places(where, scope.home)
        readings = await settings.read_classes(client, places, scenario.fleet.classes)
        for reading in readings.values():
            for note in reading.notes:
                _print_error(note)
        plays = request.play and scenario.changes
        speed = of_play(request.speed, scenario.speed, readings) if plays else 1.0
        loading = _Loading(client, scenario, where, readings, console)
        await (loading.rehearse(request) if request.dry_run is not None else loading.run(request, speed))
        return 0

    session.run(connection, work, manager=managers.LOAD)


def read(file: str) -> Scenario:
    """Read a scenario; if it has problems, print all of them, and exit with code 1."""
    try:
        return files.read(file)
    except DocumentError as error:
        for problem in error.problems:
            sys.stderr.write(f"{one_line(str(problem))}\n")
        exits.fail(f"{file} cannot be used: {counted(len(error.problems), 'problem')}")
    except SimulatorError as error:
        exits.fail(str(error))


def summary(scenario: str, namespace: str, outcome: Outcome) -> str:
    """Return one line: what a load has created and found."""
    created = nodes_and_vms(len(outcome.created_nodes), len(outcome.created_vms))
    found = nodes_and_vms(len(outcome.found_nodes), len(outcome.found_vms))
    parts = [f"{created} created" if created else "", f"{found} there already" if found else ""]
    return f"{scenario} runs in namespace {namespace}: {', '.join(filter(None, parts)) or 'nothing to create'}"


def begun_elsewhere(elsewhere: Mapping[str, tuple[str, str]]) -> Iterator[str]:
    """Yield one line about the VMs that the scheduler did not put where the scenario names a node, if there are any."""
    if not elsewhere:
        return
    moves = (f"{name} on {node}, not {wanted}" for name, (wanted, node) in elsewhere.items())
    some = counted(len(elsewhere), "VM")
    yield f"The scheduler put {some} elsewhere: {listed(moves)}"


def nodes_and_vms(nodes: int, vms: int) -> str:
    """Return `2 nodes and 1 VM` and the like; empty if there are none."""
    return " and ".join(filter(None, (counted(nodes, "node") if nodes else "", counted(vms, "VM") if vms else "")))


class _Loading:
    """One load and its play, with their output."""

    def __init__(
        self, client: Client, scenario: Scenario, namespace: str, readings: preview.Readings, console: Console
    ) -> None:
        self._client = client
        self._scenario = scenario
        self._namespace = namespace
        self._readings = readings
        self._policies = {of_class: reading.settings.policy for of_class, reading in readings.items()}
        self._console = console

    async def rehearse(self, request: Request) -> None:
        """Compare and dry-run against the cluster, and print what a load would create and whether it fits."""
        _print(self._console, preview.totals(self._scenario, self._readings))
        if request.play:
            _print(self._console, preview.pace(self._scenario, request.speed, self._readings))
        with _refusals(self._scenario.name), _bar(self._console, self._scenario.name) as report:
            missing, findings = await rehearse(
                self._client,
                self._scenario.fleet,
                namespace=self._namespace,
                report=report,
                deadline=request.timeout,
                policies=self._policies,
            )
        new = nodes_and_vms(len(missing.nodes), len(missing.vms))
        self._console.print("")
        self._console.print(
            f"In namespace {self._namespace} of this cluster: "
            + (f"{new} would be created, and the API server accepts them." if new else "all of it exists already.")
        )
        _print(self._console, self._warnings(findings))

    async def run(self, request: Request, speed: float) -> None:
        """Load, and play if there is anything to play."""
        name = self._scenario.name
        try:
            with _refusals(name), _bar(self._console, name) as report:
                outcome = await load(
                    self._client,
                    self._scenario.fleet,
                    namespace=self._namespace,
                    report=report,
                    deadline=request.timeout,
                    warn=self._warn,
                    policies=self._policies,
                )
        except NotRunningError as error:
            _print(self._console, begun_elsewhere(error.elsewhere))
            raise
        except asyncio.CancelledError:
            _print_error(f"\nThe objects created so far stay. To delete them:\n\n    vmsim unload {name}\n")
            raise
        self._console.print(summary(name, self._namespace, outcome))
        _print(self._console, begun_elsewhere(outcome.elsewhere))
        if request.play and self._scenario.parts:
            await self._play(outcome, speed, request.rate)

    def _warn(self, findings: Findings) -> None:
        """Print what may keep VMs from running, before they are created."""
        _print(self._console, self._warnings(findings, quietly=True))

    def _warnings(self, findings: Findings, *, quietly: bool = False) -> Iterator[str]:
        """Yield what may keep VMs from running; `quietly` omits that every VM fits."""
        if not quietly or findings.packing.unplaced:
            yield from preview.fitting(findings.packing, self._readings)
        yield from findings.warnings

    async def _play(self, outcome: Outcome, speed: float, rate: float) -> None:
        name = self._scenario.name
        if self._scenario.changes:
            self._console.print(f"playing {name} at {speed:g}x; Ctrl-C ends the play, and the VMs stay")
        try:
            with _line(self._console, name) as report:
                last = await play(
                    self._client,
                    self._scenario.parts,
                    {vm.metadata.name: vm for vm in outcome.vms},
                    namespace=self._namespace,
                    speed=speed,
                    report=report,
                    rng=Random(),  # noqa: S311 - spreads retries
                    rate=rate,
                )
        except asyncio.CancelledError:
            _print_error(f"\nThe VMs stay, and keep their consumption. To delete them:\n\n    vmsim unload {name}\n")
            raise
        if self._scenario.changes or last.writes:
            self._console.print(f"played {name} to its end: {state(last)}")


@contextmanager
def _refusals(name: str) -> Iterator[None]:
    """Print each refusal on a line of its own, and raise CommandError."""
    try:
        yield
    except FleetRefusedError as error:
        for problem in error.problems:
            _print_error(one_line(str(problem)))
        found = counted(len(error.problems), "problem")
        raise exits.CommandError(f"nothing was created, {name} cannot be loaded: {found}") from error


def state(played: Played) -> str:
    """Return one line: the progress of a play."""
    words = [brief(int(played.seconds)), counted(played.writes, "write"), f"{counted(played.playing, 'VM')} playing"]
    if played.lost:
        words.append(f"no longer {reasons(played.lost)}")
    if played.trouble is not None:
        words.append(f"trying again: {one_line(played.trouble)}")
    return ", ".join(words)


@contextmanager
def _bar(console: Console, name: str) -> Iterator[Callable[[Progress], None]]:
    """Show the progress of a load: a bar on a terminal, lines at intervals elsewhere."""
    if not console.is_terminal:
        lines = Lines(console, every=_SPARSE)
        troubled: set[Stage] = set()

        def print_line(progress: Progress) -> None:
            if progress.waiting:
                troubled.add(progress.stage)  # a stage's first problem is printed at once, later ones at intervals
            if progress.done < progress.total or progress.waiting:  # the caller prints the end
                why = f": {one_line(reasons(dict(progress.waiting)))}" if progress.waiting else ""
                words = f"{progress.stage}, {progress.done} of {progress.total}{why}"
                lines.report((progress.stage, progress.stage in troubled), words)

        yield print_line
        return
    with bar_with_reason(console) as bars:
        task: TaskID = bars.add_task(f"loading {name}", total=None, why="")

        def report(progress: Progress) -> None:
            bars.update(
                task,
                description=f"{progress.stage} {name}",
                total=progress.total,
                completed=progress.done,
                why=one_line(reasons(dict(progress.waiting))),
            )

        yield report


@contextmanager
def _line(console: Console, name: str) -> Iterator[Callable[[Played], None]]:
    """Show the progress of a play: one line that is replaced on a terminal, lines at intervals elsewhere."""
    if not console.is_terminal:
        lines = Lines(console, every=_SPARSE_PLAY, state=(None, 0))  # the beginning is printed already
        yield lambda played: lines.report((played.trouble, len(played.lost)), state(played))
        return
    with console.status("") as status:
        yield lambda played: status.update(Text(f"{name}: {state(played)}", no_wrap=True, overflow="ellipsis"))


def _print(console: Console, lines: Iterable[str]) -> None:
    for line in lines:
        console.print(line)


def _print_error(text: str) -> None:
    sys.stderr.write(f"{text}\n")
