"""All VMs move at the same time: by migrations, compared with a bare delete and create of as many pods.

Guarantees: downtimes are measured by the pods alone, in the same way for both: from the moment at which a VM has no
running pod that is not being deleted until it has one again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from controller.domain import names
from controller.kube.resources import PODS
from hack.bench import bursts, objects
from hack.bench.contestants import Launch
from hack.bench.counters import Writes
from hack.bench.errors import BenchError
from hack.bench.figures import percentile
from hack.bench.objects import NAMESPACE, Brief
from hack.bench.process import Running, started
from hack.bench.stage import Stage, each
from hack.bench.watching import until, watching

_DEADLINE: Final = 300.0
_SERVER_DEADLINE: Final = 30.0


@dataclass(slots=True)
class _Pods:
    """The running pods and downtimes of all VMs, by the pods' label that names the VM."""

    moving: int
    running: dict[str, set[str]] = field(default_factory=dict)
    """UIDs of running pods by VM."""
    down: dict[str, float] = field(default_factory=dict)
    downtimes: dict[str, float] = field(default_factory=dict)
    deleted: dict[str, asyncio.Event] = field(default_factory=dict)
    """Set once the pod of this name is deleted."""
    ended: float = 0.0
    all_moved: asyncio.Event = field(default_factory=asyncio.Event)

    def seen(self, item: Brief, deleted: bool, at: float) -> None:  # noqa: FBT001 - a callback's signature
        vm = item.metadata.labels.get(names.VM_LABEL, "")
        running = self.running.setdefault(vm, set())
        before = bool(running)
        if item.running and not deleted:
            running.add(item.metadata.uid)
        else:
            running.discard(item.metadata.uid)
        if before and not running:
            self.down[vm] = at
        elif running and not before and vm in self.down:
            self.downtimes.setdefault(vm, at - self.down.pop(vm))
            self.ended = at
            if len(self.downtimes) == self.moving:
                self.all_moved.set()
        if deleted and item.metadata.name in self.deleted:
            self.deleted[item.metadata.name].set()


async def move(stage: Stage, launch: Launch | None, vms: int) -> dict[str, float]:
    """Start VMs, then move all of them; without a program to launch, move bare pods directly."""
    vm_names = [f"vm-{number}" for number in range(vms)]
    async with running(stage, launch, vm_names) as process:
        return await _move(stage, vm_names, process)


@asynccontextmanager
async def running(stage: Stage, launch: Launch | None, vm_names: list[str]) -> AsyncIterator[Running | None]:
    """Start VMs; yield their program. Without one to launch, start bare pods, and yield None."""
    if launch is None:
        await bursts.burst(stage, None, len(vm_names), deadline=_DEADLINE)
        yield None
        return
    async with started(launch, stage.plane.kubeconfig, stage.log) as process:
        await process.ready()
        await bursts.create_vms(stage, vm_names, process, deadline=_DEADLINE)
        yield process


async def _move(stage: Stage, vm_names: list[str], process: Running | None) -> dict[str, float]:
    clock = asyncio.get_running_loop().time
    pods = _Pods(moving=len(vm_names))
    page = await stage.client.list_page(objects.PODS, namespace=NAMESPACE, limit=0)
    cpu = process.cpu if process else 0.0
    before = stage.writes()
    async with watching(stage.client, objects.PODS, pods.seen) as watch:
        for item in page.items:
            pods.seen(item, deleted=False, at=clock())
        began = clock()
        work = _move_pods(stage, page.items, pods) if process is None else _create_migrations(stage, vm_names)
        await carried_out(work, pods.all_moved, watch, lambda: f"{len(pods.downtimes)} of {len(vm_names)} VMs moved")
    figures = {}
    if process is not None:
        figures = await costs(stage, process, len(vm_names), cpu=cpu, before=before)
    downtimes = sorted(pods.downtimes.values())
    return {
        **figures,
        "vms": len(vm_names),
        "per_second": len(vm_names) / (pods.ended - began),
        "downtime_p50": percentile(downtimes, 0.5),
        "downtime_p95": percentile(downtimes, 0.95),
    }


async def carried_out(
    work: Coroutine[Any, Any, object], over: asyncio.Event, watch: asyncio.Task[None], what: Callable[[], str]
) -> None:
    """Send the requests of `work`, and wait until the watch has shown that all is over. Raises BenchError."""
    requests = asyncio.create_task(work)
    try:
        await until(over.wait(), watch, deadline=_DEADLINE, what=what)
        await requests
    finally:
        requests.cancel()


async def costs(stage: Stage, process: Running, count: int, *, cpu: float, before: Writes) -> dict[str, float]:
    """Wait until all migrations have succeeded; return what one cost since the CPU and the writes before them."""
    await _all_succeeded(stage)
    writes = stage.writes().since(before)
    return {
        "cpu_ms": 1000 * (process.cpu - cpu) / count,
        "vm_writes": writes.status / count,
        "migration_writes": writes.of("write virtualmachinemigrations/status") / count,
    }


async def _create_migrations(stage: Stage, vm_names: list[str]) -> None:
    await stage.create_all(objects.MIGRATIONS, (objects.migration(f"move-{name}", name) for name in vm_names))


async def _move_pods(stage: Stage, items: list[Brief], pods: _Pods) -> None:
    """Delete every pod at once; create each successor as soon as the pod is deleted."""
    pods.deleted |= {item.metadata.name: asyncio.Event() for item in items}

    async def delete(item: Brief) -> None:
        await stage.client.delete(PODS, item.metadata.name, namespace=NAMESPACE, uid=item.metadata.uid)

    async def create_successor(item: Brief) -> None:
        await pods.deleted[item.metadata.name].wait()
        body = objects.bare_pod(item.metadata.labels[names.VM_LABEL], incarnation=1)
        await stage.client.create(objects.PODS, body, namespace=NAMESPACE, server_deadline=_SERVER_DEADLINE)

    async with asyncio.TaskGroup() as group:
        group.create_task(each(items, delete))
        for item in items:
            group.create_task(create_successor(item))


async def _all_succeeded(stage: Stage) -> None:
    """Wait until every migration is Succeeded. Raises BenchError."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + _DEADLINE
    while True:
        page = await stage.client.list_page(objects.MIGRATIONS, namespace=NAMESPACE, limit=0)
        phases = [item.status.phase for item in page.items]
        if all(phase == "Succeeded" for phase in phases):
            return
        if "Failed" in phases or clock() > deadline:
            raise BenchError(f"only {phases.count('Succeeded')} of {len(phases)} migrations succeeded")
        await asyncio.sleep(1.0)
