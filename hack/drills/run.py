"""Carries out one drill: fleet, controller, observer, scenario, verdict."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Final

from controller import signals
from controller.domain.objects import Strategy
from controller.kube import credentials
from controller.kube.client import Client
from controller.observe import history
from controller.observe.observer import Observer
from hack.drills.cluster import Cluster
from hack.drills.drill import Drill
from hack.drills.errors import DrillError
from hack.drills.process import Controller
from hack.drills.report import Report, judged
from hack.drills.seeding import SizeError
from hack.drills.stage import Stage

_LAST_WAIT: Final = 30.0
_QUIET: Final = 2.0
"""Seconds without a change of any VM, pod or migration after which a drill is over, so that late errors are seen."""


@dataclass(frozen=True, slots=True)
class Order:
    """The requested drill; `nodes` is None on a cluster that has its own, `strategy` for the controller's default."""

    drill: Drill
    vms: int
    nodes: int | None
    seed: int
    reports: Path
    directory: Path | None
    deadline: float
    strategy: Strategy | None = None


async def carry_out(order: Order, cluster: Cluster, *, say: Callable[[str], None]) -> Report:
    """Run a drill to its end and judge it. Raises DrillError if it cannot be carried out."""
    with signals.handled(_cancel_once()):
        return await _carry_out(order, cluster, say)


async def _carry_out(order: Order, cluster: Cluster, say: Callable[[str], None]) -> Report:
    started = datetime.now(UTC).isoformat(timespec="seconds")
    async with _stage(order, cluster, say) as stage:
        try:
            stage.desired = order.drill.fleet(stage.rng, order.vms, len(stage.observer.picture.nodes))
        except SizeError as error:
            raise DrillError(f"{order.drill.name} {error}") from None
        say(f"starting {len(stage.desired)} VMs")
        await stage.controller.start()
        await stage.seed(stage.desired)
        await order.drill.run(stage)
        await _finish(stage)
        history.write(stage.observer.history, order.reports / f"{order.drill.name}.history.jsonl")
        return judged(stage, drill=order.drill.name, seed=order.seed, started=started)


async def _finish(stage: Stage) -> None:
    """Wait until the cluster is quiet, stop the controller, and wait until the observer has seen every event."""
    try:
        await asyncio.wait_for(stage.observer.quiet(_QUIET), _LAST_WAIT)
    except TimeoutError:
        stage.complaints.append(f"the cluster did not come to rest within {_LAST_WAIT:.0f} s")
    await stage.controller.stop()
    try:
        await asyncio.wait_for(stage.observer.caught_up(), _LAST_WAIT)
    except TimeoutError:
        raise DrillError(f"the pod watch did not catch up within {_LAST_WAIT:.0f} s") from None
    if stage.observer.broken.done():
        stage.observer.broken.result()


@asynccontextmanager
async def _stage(order: Order, cluster: Cluster, say: Callable[[str], None]) -> AsyncIterator[Stage]:
    log = order.reports / "controller.log"
    async with (
        await Client.connect(credentials.Source(cluster.kubeconfig, listed=True), manager="vmsim-drills") as client,
        cluster.namespace() as namespace,
        Controller(cluster.kubeconfig, log, "--namespaces", namespace) as controller,
        Observer(client, namespace, Random()) as observer,  # noqa: S311 - no secret
    ):
        ends_at = asyncio.get_running_loop().time() + order.deadline
        rng = Random(order.seed)  # noqa: S311 - no secret
        yield Stage(client, observer, controller, namespace, rng, ends_at, say, order.strategy)


def _cancel_once() -> Callable[[], None]:
    """Return a handler: the first request to stop cancels the drill, and later ones are ignored."""
    task = asyncio.current_task()
    interrupted = False

    def interrupt() -> None:
        nonlocal interrupted
        if not interrupted and task is not None:
            interrupted = True
            task.cancel()

    return interrupt
