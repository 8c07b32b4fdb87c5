"""Counts figures that are the same on every machine, since none depends on a clock.

The controller's work is counted on the model of the API server that the tests of its promises use; decoding on objects
that a real API server sent.
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

from controller.domain import names
from controller.domain.migration.limits import Limits
from controller.domain.objects import Strategy, VirtualMachine
from controller.domain.resources import MIGRATIONS, VIRTUAL_MACHINES
from controller.engine.store import Store
from controller.kube import codec
from controller.kube.kinds import Pod
from controller.kube.resources import PODS
from tests.model.cluster import Cluster
from tests.unit.reconcilers.harness import Process

HERE: Final = Path(__file__).parent
OURS: Final = str(HERE.parents[1] / "controller")
BURST: Final = 100
"""VMs created at once."""
_DECODED: Final = 500
"""Objects whose memory is measured."""
_PASS: Final = Store.__iter__.__code__


@dataclass(slots=True)
class Calls:
    """The number of calls of the controller's own Python functions; each resumption of a coroutine counts.

    `files`: how the paths of the files begin whose functions are counted.
    """

    files: tuple[str, ...] = (OURS,)
    count: int = 0
    passes: int = 0
    """Iterations over all objects of a store."""
    _files: dict[str, bool] = field(default_factory=dict)

    def see(self, frame: FrameType, event: str, _: Any) -> None:
        """Count a call; a profile function."""
        if event == "call":
            file = frame.f_code.co_filename
            ours = self._files.get(file)
            if ours is None:
                ours = self._files[file] = file.startswith(self.files)
            self.count += ours
            self.passes += frame.f_code is _PASS


@contextmanager
def counted(*files: str) -> Iterator[Calls]:
    """Count the calls of functions in these files or folders of the controller, or in all, while the context lasts."""
    calls, before = Calls(tuple(f"{OURS}/{file}" for file in files) or (OURS,)), sys.getprofile()
    sys.setprofile(calls.see)
    try:
        yield calls
    finally:
        sys.setprofile(before)


def new_fleet(count: int = BURST) -> Cluster:
    """Return a cluster with a node and so many new VMs."""
    cluster = Cluster()
    cluster.add_node()
    for number in range(count):
        cluster.apply_vm(f"vm-{number}", cpu="0.001", memory="0.001")
    return cluster


def run(cluster: Cluster, name: str, node: str, *, cpu: str, memory: str = "0.01") -> None:
    """Write a VM that runs on a node, as if a controller had started it there."""
    vm = cluster.apply_vm(name, cpu=cpu, memory=memory)
    owner = {"apiVersion": names.API_VERSION, "kind": names.VM_KIND, "name": name, "uid": vm["metadata"]["uid"]}
    metadata = {
        "name": f"virt-launcher-{name}",
        "namespace": "default",
        "labels": {names.VM_LABEL: name},
        "annotations": {names.INCARNATION: "0"},
        "ownerReferences": [{**owner, "controller": True}],
    }
    added = cluster.add(PODS.plural, {"metadata": metadata, "spec": {"nodeName": node}, "status": {"phase": "Running"}})
    status = {"podName": added["metadata"]["name"], "podUID": added["metadata"]["uid"], "nodeName": node}
    cluster.set_status(
        VIRTUAL_MACHINES, f"default/{name}", {"phase": "Running", "incarnation": 0, "conditions": [], **status}
    )


async def start(cluster: Cluster, limits: Limits | None = None) -> Process:
    """Run the controller until all VMs are Running; their pods run a second after their creation."""
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
    """Return the requests per VM, from its creation to Running, of VMs that were created at once."""
    cluster = new_fleet()
    await start(cluster)
    return {kind: count / BURST for kind, count in Counter(cluster.requests).items()}


async def requests_of_moves(strategy: Strategy) -> dict[str, float]:
    """Return the requests per migration, of migrations without limits that were created at once."""
    cluster = new_fleet()
    process = await start(cluster, Limits(cluster=0, outbound=0))
    cluster.add_node("node-2")
    cluster.pass_time(3600)
    cluster.requests.clear()
    for number in range(BURST):
        cluster.migrate(f"move-{number}", vm=f"vm-{number}", strategy=strategy)
    await process.settle()
    phases = [
        document["status"]["phase"] for (plural, _), document in cluster.objects.items() if plural == MIGRATIONS.plural
    ]
    assert phases == ["Succeeded"] * BURST
    return {kind: count / BURST for kind, count in Counter(cluster.requests).items()}


async def calls_of_a_burst() -> float:
    """Return the calls per VM, from its creation to Running, of VMs that were created at once."""
    cluster = new_fleet()
    with counted() as calls:
        await start(cluster)
    return calls.count / BURST


async def calls_of_a_reconcile() -> int:
    """Return the calls of one reconcile that finds nothing to do."""
    process = await start(new_fleet())
    with counted() as calls:
        await process.reconcile("default/vm-0")
    return calls.count


def kept_bytes(name: str) -> int:
    """Return the size of an object's decoded fields, as JSON, in bytes."""
    return len(msgspec.json.encode(codec.decode(sent(name), _KINDS[name])))


def memory_of(name: str) -> float:
    """Return the memory of one decoded object, in bytes."""
    raw, kind = sent(name), _KINDS[name]
    codec.decode(raw, kind)
    gc.collect()
    tracemalloc.start()
    try:
        objects = [codec.decode(raw, kind) for _ in range(_DECODED)]
        return tracemalloc.get_traced_memory()[0] / len(objects)
    finally:
        tracemalloc.stop()


def sent(name: str) -> bytes:
    """Return an object as an API server sends it: JSON without spaces."""
    return json.dumps(json.loads((HERE / f"{name}.json").read_text()), separators=(",", ":")).encode()


_KINDS: Final[dict[str, Any]] = {"pod": Pod, "vm": VirtualMachine}
