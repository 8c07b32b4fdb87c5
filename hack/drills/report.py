"""A drill's result as a value: computed from the history, written and read as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import msgspec

from controller.observe import ends, judge
from controller.observe.history import ClusterState, MigrationSeen, Seen
from hack.drills.stage import Round, Stage

ROLLED_BACK = "RolledBack"


class Migrations(msgspec.Struct, frozen=True):
    """The outcomes of the requested migrations, by their own status; `recorded` counts records of evictions."""

    asked: int = 0
    succeeded: int = 0
    failed: int = 0
    rolled_back: int = 0
    unfinished: int = 0
    recorded: int = 0
    failures: dict[str, int] = {}

    @classmethod
    def of(cls, picture: ClusterState, asked: Sequence[str]) -> Self:
        """Count them; a migration that was rolled back also counts as failed."""
        found = [picture.migrations.get(uid) for uid in asked]
        failures = Counter(one.failure for one in found if one is not None and one.phase == "Failed")
        succeeded = sum(_is(one, "Succeeded") for one in found)
        return cls(
            asked=len(asked),
            succeeded=succeeded,
            failed=failures.total(),
            rolled_back=failures[ROLLED_BACK],
            unfinished=len(asked) - succeeded - failures.total(),
            recorded=sum(one.record for one in picture.migrations.values()),
            failures=dict(sorted(failures.items())),
        )


def _is(migration: MigrationSeen | None, phase: str) -> bool:
    return migration is not None and migration.phase == phase


class Spread(msgspec.Struct, frozen=True):
    """The fewest and the most VMs on a node."""

    least: int = 0
    most: int = 0


class RoundReport(msgspec.Struct, frozen=True):
    """One round; times are in seconds since the observation began, downtimes are measured by the pod watch."""

    label: str
    began: float
    ended: float
    migrations: Migrations
    moves: int
    downtimes: list[float]
    longest_without_pod: float
    longest_without_pod_vm: str
    spread_before: Spread
    spread_after: Spread
    most_on_a_node: int
    most_down_at_once: int = 0
    most_down_at_once_of_a_node: int = 0


class Report(msgspec.Struct, frozen=True):
    """The result of a drill. `problems` is empty if and only if the drill passed."""

    drill: str
    seed: int
    vms: int
    nodes: int
    started: str
    seconds: float
    events: int
    rounds: list[RoundReport]
    loads: dict[str, list[tuple[float, int]]]
    double_lives: list[str]
    not_running: list[str]
    complaints: list[str]
    remarks: list[str]
    strategy: str = ""
    """Of the migrations; empty for the controller's default."""

    @property
    def problems(self) -> list[str]:
        """All reasons for which the drill fails."""
        return [*self.double_lives, *self.not_running, *self.complaints]

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a report that `write` wrote."""
        return msgspec.json.decode(path.read_bytes(), type=cls)


def judged(stage: Stage, *, drill: str, seed: int, started: str) -> Report:
    """Judge a drill by the events observed so far."""
    history = tuple(stage.observer.history)
    picture = stage.observer.picture
    until = stage.observer.now
    loads = judge.loads(history)
    return Report(
        drill=drill,
        seed=seed,
        vms=len(stage.vms),
        nodes=len(loads),
        started=started,
        seconds=round(until, 3),
        events=len(history),
        rounds=[_round(part, history, picture, loads, until) for part in stage.rounds],
        loads={node: [(round(at, 3), count) for at, count in points] for node, points in loads.items()},
        double_lives=[f"at {breach.at:.3f} s {breach.what}" for breach in ends.breaches(history)],
        not_running=judge.not_running(picture, stage.vms),
        complaints=list(stage.complaints),
        remarks=_remarks(picture, stage),
        strategy=str(stage.strategy or ""),
    )


def _round(
    part: Round,
    history: Sequence[Seen],
    picture: ClusterState,
    loads: dict[str, list[tuple[float, int]]],
    until: float,
) -> RoundReport:
    inside = [outage for outage in judge.outages(history) if part.began <= outage.began <= part.ended]
    longest = max(inside, key=lambda outage: outage.seconds(until), default=None)
    past = [event for event in history if event.at <= part.ended]
    return RoundReport(
        label=part.label,
        began=round(part.began, 3),
        ended=round(part.ended, 3),
        migrations=Migrations.of(picture, part.migrations),
        moves=judge.moves(past, since=part.began),
        downtimes=sorted(round(outage.seconds(until), 3) for outage in inside if outage.ended is not None),
        longest_without_pod=round(longest.seconds(until), 3) if longest else 0.0,
        longest_without_pod_vm=longest.vm if longest else "",
        spread_before=Spread(*judge.spread(history, part.began)),
        spread_after=Spread(*judge.spread(history, part.ended)),
        most_on_a_node=max(
            (count for points in loads.values() for at, count in points if part.began <= at <= part.ended),
            default=judge.spread(history, part.began)[1],
        ),
        most_down_at_once=judge.most_at_once(inside),
        most_down_at_once_of_a_node=judge.most_at_once_of_a_node(inside),
    )


def _remarks(picture: ClusterState, stage: Stage) -> list[str]:
    """Return how statuses differ from pods; such a difference alone does not fail a drill."""
    found = []
    for uid, name in stage.vms.items():
        vm = picture.vms.get(uid)
        pod = picture.serving(uid)
        status = (vm.phase, vm.node) if vm else ("deleted", None)
        actual = ("Running", pod.node) if pod else ("not Running", None)
        if status != actual:
            found.append(f"VM {name}: {status[0]} on {status[1]} by its status, {actual[0]} on {actual[1]} by its pod")
    return found
