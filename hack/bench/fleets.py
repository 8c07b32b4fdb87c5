"""Large fleets, which are created once and restored for each measurement.

A fleet is a copy of a control plane's whole directory, made while the plane was stopped. Each is grown from the next
smaller one by our own controller, so writes of a contestant that starts on it show in its counters. Guarantees: a
saved fleet is complete; a fleet that was created for other versions or CRDs is not used.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Final

from controller.controlplane import kwokctl
from controller.controlplane.lock import Lock, locked
from controller.controlplane.plane import ControlPlane
from controller.controlplane.report import Reporter
from controller.controlplane.versions import DISTRIBUTIONS
from controller.kube.resources import LEASES
from hack.bench import bursts, contestants, objects, stage
from hack.bench.contestants import OURS, REPOSITORY, STATE
from hack.bench.process import started

_HOME: Final = STATE / "fleets"
_LIVE: Final = _HOME / "live"
_CRDS: Final = REPOSITORY / "manifests" / "crds"
_NODE_LEASES: Final = "kube-node-lease"
_USUAL: Final = 10_000
"""Every fleet has nodes for at least so many VMs, so that a smaller, earlier fleet can be grown for a larger run."""
_LOCK_TIMEOUT: Final = 3600.0
_STEP: Final = 2000
"""VMs created at a time while a fleet is grown."""


def nodes_of(sizes: list[int]) -> int:
    """Return the number of nodes of all these fleets, which differ only in their VMs."""
    return objects.nodes_for(max(_USUAL, *sizes))


def exclusive(report: Reporter) -> AbstractContextManager[Lock]:
    """Lock the fleets: two runs would end each other's control planes."""
    return locked(_HOME / "lock", waiting_for="measuring fleets", timeout=_LOCK_TIMEOUT, report=report)


async def create(sizes: list[int], report: Reporter) -> None:
    """Create the missing fleets, the smallest first."""
    nodes = nodes_of(sizes)
    before = 0
    for size in sorted(sizes):
        if not _saved(size, nodes).exists():
            report.say(f"creating a fleet of {size} VMs on {nodes} nodes; later runs use it again")
            async with _grown(before, nodes, report) as place:
                launch = contestants.prepare(OURS, report)
                assert launch is not None  # noqa: S101 - ours is a process
                async with started(launch, place.plane.kubeconfig, place.log) as process:
                    await process.ready()
                    for first in range(before, size, _STEP):
                        names = [f"fleet-{number}" for number in range(first, min(size, first + _STEP))]
                        await bursts.create_vms(place, names, process, deadline=600.0)
                await place.quiet()
                await _stop(place)
                _save(size, nodes)
        before = size


@asynccontextmanager
async def restored(size: int, nodes: int, report: Reporter) -> AsyncIterator[stage.Stage]:
    """Start a control plane from a saved fleet."""
    plane = ControlPlane(_LIVE, nodes=nodes, report=report, wait=300.0)
    plane.down()
    shutil.rmtree(_LIVE, ignore_errors=True)
    shutil.copytree(_saved(size, nodes), _LIVE, symlinks=True)
    try:
        plane.up()
        async with stage.on(plane, _LIVE) as place:
            yield place
    finally:
        plane.down()


@asynccontextmanager
async def _grown(size: int, nodes: int, report: Reporter) -> AsyncIterator[stage.Stage]:
    """Start a control plane from a saved fleet, or an empty one if `size` is 0."""
    if size:
        async with restored(size, nodes, report) as place:
            yield place
        return
    plane = ControlPlane(_LIVE, nodes=nodes, report=report, wait=300.0)
    plane.down()
    shutil.rmtree(_LIVE, ignore_errors=True)
    try:
        plane.up()
        await stage.install(plane)
        async with stage.on(plane, _LIVE) as place:
            yield place
    finally:
        plane.down()


async def _stop(place: stage.Stage) -> None:
    """End every component, etcd last, and keep the data without the node Leases that KWOK holds.

    A KWOK that is started later has another identity, and would not serve the nodes until their Leases expire.
    """
    *others, kwok = kwokctl.COMPONENTS
    place.plane.stop_component(kwok)
    leases = await place.client.list_page(LEASES, namespace=_NODE_LEASES, limit=0)
    for lease in leases.items:
        metadata = lease.metadata
        await place.client.delete(LEASES, metadata.name, namespace=_NODE_LEASES, uid=metadata.uid)
    for name in reversed(others):
        place.plane.stop_component(name)


def _save(size: int, nodes: int) -> None:
    saved = _saved(size, nodes)
    partial = saved.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(_LIVE, partial, symlinks=True, ignore=shutil.ignore_patterns("*.log", "*.log.1"))
    partial.rename(saved)


def _saved(size: int, nodes: int) -> Path:
    content = sha256("".join(f"{one.name}{one.version}" for one in DISTRIBUTIONS).encode())
    for path in sorted(_CRDS.glob("*.yaml")):
        content.update(path.read_bytes())
    return _HOME / f"{size}-on-{nodes}-{content.hexdigest()[:10]}"
