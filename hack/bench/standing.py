"""The cost of an existing fleet: at the start, at rest, and at changes of single VMs.

All figures are measured from outside: times by our own watch, writes by the API server's counters, CPU by the kernel.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random
from typing import Final

from controller.domain import names
from hack.bench import machine, objects
from hack.bench.errors import BenchError
from hack.bench.figures import percentile
from hack.bench.objects import NAMESPACE, VMS, Brief
from hack.bench.process import Running
from hack.bench.stage import Stage
from hack.bench.watching import until, watching

_WINDOW: Final = 1.0
_SAMPLE: Final = 0.05
_AT_REST: Final = 0.05
"""A start has ended when the CPU share over a window is below this."""
_COLD_DEADLINE: Final = 300.0
_CHANGE_DEADLINE: Final = 60.0
_SINGLE_PAUSE: Final = 0.3


async def cold(stage: Stage, process: Running, vms: int) -> dict[str, float]:
    """Measure a start in progress: until the process is ready, and until it has no work left.

    The end is when its CPU use falls below 5 % for a second. Raises BenchError unless every VM was reconciled by then.
    """
    before = stage.writes()
    ready = await process.ready()
    settled, cpu = await _at_rest(process)
    reconciled = await process.reconciled()
    if reconciled < vms:
        raise BenchError(f"it came to rest after {reconciled:.0f} reconciles, fewer than its {vms} VMs")
    return {
        "ready": ready,
        "settled": settled,
        "cpu": cpu,
        "writes": stage.writes().since(before).total,
        "rss_mib": machine.memory_mib(process.pid),
    }


async def _at_rest(process: Running) -> tuple[float, float]:
    """Return the end of the last window with work, in seconds since the start, and the CPU seconds until then."""
    clock = asyncio.get_running_loop().time
    readings = [(clock(), process.cpu)]
    while clock() < process.started + _COLD_DEADLINE:
        await asyncio.sleep(_SAMPLE)
        process.check()
        readings.append((clock(), process.cpu))
        recent = [reading for reading in readings if reading[0] >= readings[-1][0] - _WINDOW]
        (began, first), (ended, last) = recent[0], recent[-1]
        if ended - began > _WINDOW - 2 * _SAMPLE and last - first < _AT_REST * _WINDOW:
            return began - process.started, first
    raise BenchError(f"it did not come to rest within {_COLD_DEADLINE:.0f} s")


async def idle(stage: Stage, process: Running, seconds: float) -> dict[str, float]:
    """Measure a fleet at rest."""
    before, cpu = stage.writes(), process.cpu
    await asyncio.sleep(seconds)
    process.check()
    used = process.cpu - cpu
    return {
        "seconds": seconds,
        "writes": stage.writes().since(before).total,
        "cpu_percent": 100 * used / seconds,
        "rss_mib": machine.memory_mib(process.pid),
    }


async def latency(
    stage: Stage, process: Running, vms: Sequence[str], *, rate: float, seconds: float
) -> dict[str, float]:
    """Measure changes of consumption at an even rate: from the patch of the annotation to the status that shows it."""
    count = int(rate * seconds)
    before, cpu = stage.writes(), process.cpu
    times = await _change(stage, Random(1).sample(vms, count), pause=1 / rate)  # noqa: S311 - no secret
    await asyncio.sleep(_WINDOW)
    process.check()
    return {
        **_percentiles(times),
        "changes": count,
        "cpu_ms": 1000 * (process.cpu - cpu) / count,
        "writes": (stage.writes().since(before).total - count) / count,
    }


async def single(stage: Stage, process: Running, vms: Sequence[str], count: int) -> dict[str, float]:
    """Measure single changes, each well after the previous one."""
    times = await _change(stage, Random(2).sample(vms, count), pause=_SINGLE_PAUSE)  # noqa: S311 - no secret
    process.check()
    return {**_percentiles(times), "changes": count}


async def _change(stage: Stage, vms: Sequence[str], *, pause: float) -> list[float]:
    """Change VMs' consumption, one every `pause` seconds; return the times until the statuses show it, sorted."""
    clock = asyncio.get_running_loop().time
    wanted = {name: f"0.{number + 1:06}" for number, name in enumerate(vms)}
    sent: dict[str, float] = {}
    took: dict[str, float] = {}
    all_seen = asyncio.Event()

    def seen(item: Brief, deleted: bool, at: float) -> None:  # noqa: FBT001 - a callback's signature
        name = item.metadata.name
        if not deleted and name in sent and item.status.cpu_consumption == wanted[name]:
            took.setdefault(name, at - sent[name])
            if len(took) == len(wanted):
                all_seen.set()

    async def change(name: str) -> None:
        body = {"metadata": {"annotations": {names.CPU_CONSUMPTION: wanted[name]}}}
        sent[name] = clock()
        await stage.client.merge_patch(objects.VMS, name, body, namespace=NAMESPACE)

    async with watching(stage.client, VMS, seen) as watch:
        began = clock()
        async with asyncio.TaskGroup() as group:
            for number, name in enumerate(vms):
                await asyncio.sleep(max(0.0, began + number * pause - clock()))
                group.create_task(change(name))
        await until(
            all_seen.wait(),
            watch,
            deadline=_CHANGE_DEADLINE,
            what=lambda: f"{len(took)} of {len(wanted)} changes were published in a status",
        )
    return sorted(took.values())


def _percentiles(times: Sequence[float]) -> dict[str, float]:
    return {f"{name}_ms": 1000 * percentile(times, share) for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1))}
