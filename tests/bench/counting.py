"""What the guard counts: figures that are the same on every machine, because no clock takes part in them.

The controller's work is counted on the model of the API server that its promises are tested on, decoding on objects
as a real API server sent them.
"""

from __future__ import annotations

import gc
import json
import sys
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Final

import msgspec

from controller.domain.objects import VirtualMachine
from controller.domain.resources import MIGRATIONS, VIRTUAL_MACHINES
from controller.kube import codec
from controller.kube.kinds import Pod
from controller.reconcilers.migration.slots import Limits
from tests.model.cluster import Cluster
from tests.unit.reconcilers.harness import Process

HERE: Final = Path(__file__).parent
OURS: Final = str(HERE.parents[1] / "controller")
BURST: Final = 100
"""VMs created at once."""
_KEPT: Final = 500
"""Objects of which the memory is measured."""


@dataclass(slots=True)
class Calls:
    """Calls of the controller's own Python functions; a coroutine counts each time that it goes on."""

    count: int = 0
    _files: dict[str, bool] = field(default_factory=dict)

    def see(self, frame: FrameType, event: str, _: Any) -> None:
        """Count, as a profile function."""
        if event == "call":
            file = frame.f_code.co_filename
            ours = self._files.get(file)
            if ours is None:
                ours = self._files[file] = file.startswith(OURS)
            self.count += ours


@contextmanager
def counted() -> Iterator[Calls]:
    """Count calls while the context lasts."""
    calls, before = Calls(), sys.getprofile()
    sys.setprofile(calls.see)
    try:
        yield calls
    finally:
        sys.setprofile(before)


def crowd(count: int = BURST) -> Cluster:
    """Return a cluster with a node and so many new VMs."""
    cluster = Cluster()
    cluster.add_node()
    for number in range(count):
        cluster.apply_vm(f"vm-{number}", cpu="0.001", memory="0.001")
    return cluster


async def start(cluster: Cluster, limits: Limits | None = None) -> Process:
    """Let all VMs get their pods, the pods run a second later, and the VMs say so."""
    process = Process(cluster, limits=limits)
    for _ in range(3):
        process.deliver()
        await process.step()
    cluster.pass_time(1)
    cluster.run_pods()
    await process.settle()
    vms = [document for (plural, _), document in cluster.objects.items() if plural == VIRTUAL_MACHINES.plural]
    assert {vm["status"]["phase"] for vm in vms} == {"Running"}
    return process


async def requests_of_a_burst() -> dict[str, float]:
    """Count requests a VM, from its creation to Running, of VMs that were created at once."""
    cluster = crowd()
    await start(cluster)
    return {kind: count / BURST for kind, count in Counter(cluster.requests).items()}


async def requests_of_moves() -> dict[str, float]:
    """Count requests a migration, of migrations without limits that were asked for at once."""
    cluster = crowd()
    process = await start(cluster, Limits(cluster=0, outbound=0))
    cluster.add_node("node-2")
    cluster.pass_time(3600)
    cluster.requests.clear()
    for number in range(BURST):
        cluster.migrate(f"move-{number}", vm=f"vm-{number}")
    await process.settle()
    phases = [
        document["status"]["phase"] for (plural, _), document in cluster.objects.items() if plural == MIGRATIONS.plural
    ]
    assert phases == ["Succeeded"] * BURST
    return {kind: count / BURST for kind, count in Counter(cluster.requests).items()}


async def calls_of_a_burst() -> float:
    """Count calls a VM, from its creation to Running, of VMs that were created at once."""
    cluster = crowd()
    with counted() as calls:
        await start(cluster)
    return calls.count / BURST


async def calls_of_a_look() -> int:
    """Count the calls of one reconcile that finds its VM at its goal."""
    process = await start(crowd())
    with counted() as calls:
        await process.reconcile("default/vm-0")
    return calls.count


def kept_bytes(name: str) -> int:
    """Return how much of an object, as JSON, is left once it is decoded."""
    return len(msgspec.json.encode(codec.decode(sent(name), _KINDS[name])))


def memory_of(name: str) -> float:
    """Return the memory that one decoded object holds, in bytes."""
    raw, kind = sent(name), _KINDS[name]
    codec.decode(raw, kind)
    gc.collect()
    tracemalloc.start()
    try:
        kept = [codec.decode(raw, kind) for _ in range(_KEPT)]
        return tracemalloc.get_traced_memory()[0] / len(kept)
    finally:
        tracemalloc.stop()


def sent(name: str) -> bytes:
    """Return an object as an API server sends it: JSON without blanks."""
    return json.dumps(json.loads((HERE / f"{name}.json").read_text()), separators=(",", ":")).encode()


_KINDS: Final[dict[str, Any]] = {"pod": Pod, "vm": VirtualMachine}
