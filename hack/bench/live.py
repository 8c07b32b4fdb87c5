"""All VMs move live at the same time, compared with as many bare pods that are made beside the old ones, which then go.

Guarantees: both are measured by the pods alone, in the same way: a VM has moved once its source pod is deleted. Bare
sources are deleted as soon as their successors run, as a hand-over without any copying would allow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from controller.domain import names
from controller.kube.resources import PODS
from hack.bench import moves, objects
from hack.bench.contestants import Launch
from hack.bench.objects import NAMESPACE, Brief
from hack.bench.process import Running
from hack.bench.stage import Stage, each
from hack.bench.watching import watching

_SERVER_DEADLINE: Final = 30.0


class _Ends:
    """The sources that are not deleted yet, and the VMs whose successor runs."""

    def __init__(self, sources: Iterable[Brief]) -> None:
        self.sources = {item.metadata.uid: item for item in sources}
        self.left = set(self.sources)
        self.succeeded = {_vm(item): asyncio.Event() for item in self.sources.values()}
        self.ended = 0.0
        self.all_gone = asyncio.Event()

    def seen(self, item: Brief, deleted: bool, at: float) -> None:  # noqa: FBT001 - a callback's signature
        uid = item.metadata.uid
        if uid not in self.sources:
            if item.running and not deleted:
                self.succeeded[_vm(item)].set()
        elif deleted and uid in self.left:
            self.left.discard(uid)
            self.ended = at
            if not self.left:
                self.all_gone.set()


def _vm(item: Brief) -> str:
    return item.metadata.labels[names.VM_LABEL]


async def move(stage: Stage, launch: Launch | None, vms: int) -> dict[str, float]:
    """Start VMs, then move all of them live; without a program to launch, replace bare pods directly."""
    vm_names = [f"vm-{number}" for number in range(vms)]
    async with moves.running(stage, launch, vm_names) as process:
        return await _move(stage, vm_names, process)


async def _move(stage: Stage, vm_names: list[str], process: Running | None) -> dict[str, float]:
    clock = asyncio.get_running_loop().time
    page = await stage.client.list_page(objects.PODS, namespace=NAMESPACE, limit=0)
    ends = _Ends(page.items)
    cpu = process.cpu if process else 0.0
    before = stage.writes()
    async with watching(stage.client, objects.PODS, ends.seen) as watch:
        began = clock()
        migrations = (objects.migration(f"move-{name}", name, strategy="Live") for name in vm_names)
        work = stage.create_all(objects.MIGRATIONS, migrations) if process is not None else _replace(stage, ends)
        await moves.carried_out(
            work, ends.all_gone, watch, lambda: f"{len(vm_names) - len(ends.left)} of {len(vm_names)} VMs moved"
        )
    figures = {"vms": float(len(vm_names)), "per_second": len(vm_names) / (ends.ended - began)}
    if process is not None:
        figures |= await moves.costs(stage, process, len(vm_names), cpu=cpu, before=before)
    return figures


async def _replace(stage: Stage, ends: _Ends) -> None:
    """Create a successor of every pod at once; delete each pod as soon as its successor runs."""

    async def create_successor(source: Brief) -> None:
        body = objects.bare_pod(_vm(source), incarnation=1)
        await stage.client.create(objects.PODS, body, namespace=NAMESPACE, server_deadline=_SERVER_DEADLINE)

    async def delete(source: Brief) -> None:
        await ends.succeeded[_vm(source)].wait()
        await stage.client.delete(PODS, source.metadata.name, namespace=NAMESPACE, uid=source.metadata.uid)

    sources = ends.sources.values()
    async with asyncio.TaskGroup() as group:
        group.create_task(each(sources, create_successor))
        for source in sources:
            group.create_task(delete(source))
