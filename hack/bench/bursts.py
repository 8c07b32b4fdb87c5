"""Many VMs created at once: their time to Running, and the cost for the controller and the API server."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from controller.kube.resources import Resource
from hack.bench import machine, objects
from hack.bench.contestants import Launch
from hack.bench.figures import percentile
from hack.bench.objects import Brief
from hack.bench.process import Running, started
from hack.bench.stage import Stage
from hack.bench.watching import until, watching

_SETTLE: Final = 3.0
"""Seconds that a contestant gets before and after the burst, for its other work."""


async def burst(stage: Stage, launch: Launch | None, vms: int, *, deadline: float) -> dict[str, float]:
    """Measure a burst of VMs on an empty plane; without a program to launch, of bare pods."""
    names = [f"vm-{number}" for number in range(vms)]
    if launch is None:
        return await _run(stage, objects.PODS, [objects.bare_pod(name) for name in names], None, deadline=deadline)
    async with started(launch, stage.plane.kubeconfig, stage.log) as process:
        await process.ready()
        await asyncio.sleep(_SETTLE)
        return await create_vms(stage, names, process, deadline=deadline)


async def create_vms(stage: Stage, names: Sequence[str], process: Running, *, deadline: float) -> dict[str, float]:
    """Create VMs at once and wait until all run."""
    return await _run(stage, objects.VMS, [objects.vm(name) for name in names], process, deadline=deadline)


async def _run(
    stage: Stage,
    resource: Resource[Brief],
    bodies: Sequence[dict[str, object]],
    process: Running | None,
    *,
    deadline: float,
) -> dict[str, float]:
    clock = asyncio.get_running_loop().time
    ran: dict[str, float] = {}
    all_run = asyncio.Event()

    def seen(item: Brief, deleted: bool, at: float) -> None:  # noqa: FBT001 - a callback's signature
        if item.running and not deleted:
            ran.setdefault(item.metadata.name, at)
            if len(ran) == len(bodies):
                all_run.set()

    before, plane = stage.writes(), stage.plane.pids()
    cpu, plane_cpu = process.cpu if process else 0.0, machine.cpu_of(plane)
    async with watching(stage.client, resource, seen) as watch:
        began = clock()
        dead = [asyncio.create_task(process.ended())] if process else []
        try:
            await stage.create_all(resource, bodies)
            created = clock()
            await until(
                all_run.wait(),
                watch,
                *dead,
                deadline=deadline,
                what=lambda: f"{len(ran)} of {len(bodies)} ran",
            )
        finally:
            for task in dead:
                task.cancel()
    await asyncio.sleep(_SETTLE)
    plane_cpu = machine.cpu_of(plane) - plane_cpu
    writes = stage.writes().since(before)
    seconds = max(ran.values()) - began
    times = sorted(at - began for at in ran.values())
    figures = {
        "vms": len(bodies),
        "seconds": seconds,
        "per_second": len(bodies) / seconds,
        "created_in": created - began,
        "half_run_in": percentile(times, 0.5),
        "plane_cpu_ms": 1000 * plane_cpu / len(bodies),
        "pod_posts": writes.of("POST pods") / len(bodies),
        "status_writes": writes.status / len(bodies),
        "event_writes": writes.of("POST events", "write events") / len(bodies),
        "other_writes": writes.of("write pods", "write virtualmachines", "DELETE pods") / len(bodies),
    }
    if process is not None:
        process.check()
        figures |= {"cpu_ms": 1000 * (process.cpu - cpu) / len(bodies), "rss_mib": machine.memory_mib(process.pid)}
    return figures
