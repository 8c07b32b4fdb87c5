"""The reconcilers' state of a VM is dropped with the VM."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from controller.domain.migration.limits import Limits
from controller.domain.resources import MIGRATIONS, VIRTUAL_MACHINES
from controller.engine.store import Store
from tests.model.cluster import Cluster
from tests.unit.reconcilers.harness import wave

VMS = 40
"""A burst, so that statuses are pending, too."""


def state_of(subject: object, seen: set[int] | None = None) -> Iterator[str]:
    """Yield every string in the state of one of our objects, the caches of the cluster left out."""
    seen = set() if seen is None else seen
    if id(subject) in seen or isinstance(subject, Store | Cluster):
        return
    seen.add(id(subject))
    if isinstance(subject, str):
        yield subject
    parts: Iterable[Any] = ()
    if isinstance(subject, dict):
        parts = [*subject.keys(), *subject.values()]
    elif isinstance(subject, set | frozenset | list | tuple | deque):
        parts = subject
    elif type(subject).__module__.startswith("controller."):
        parts = [
            getattr(subject, name, None)
            for name in (*getattr(subject, "__slots__", ()), *getattr(subject, "__dict__", ()))
        ]
    for part in parts:
        yield from state_of(part, seen)


async def test_no_state_remains_of_vms_that_were_moved_evicted_and_deleted() -> None:
    """Neither by name nor by UID; there is state while they move."""
    cluster, process = await wave(Limits(cluster=0, outbound=0), 2, VMS)
    parts = (process.reconciler, process.migrations)
    for _ in range(6):
        process.deliver()
        await process.step()
        cluster.finish_deletions()
    assert any("vm-" in text for text in state_of(parts))
    await process.settle()
    for number in range(0, VMS, 2):
        cluster.evict(cluster.status(f"vm-{number}")["podName"])
    await process.settle()
    for number in range(VMS):
        cluster.remove(VIRTUAL_MACHINES, f"default/vm-{number}")
    await process.settle()
    for plural, key in list(cluster.objects):
        if plural == MIGRATIONS.plural:
            cluster.remove(MIGRATIONS, key)
    await process.settle()
    assert cluster.pods() == []
    assert [text for text in state_of(parts) if "vm-" in text or "move-" in text or text.startswith("uid-")] == []
