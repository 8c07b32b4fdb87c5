"""Acts of users on a fleet: VMs are started, stopped, moved, edited, evicted, deleted and created again.

Guarantees: one task at a time acts on a VM, and whether it should run is known (`wanted`), whatever the API server
answered; an outage of the server ends nothing.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Any, Final, TypeAlias

from controller.domain import names
from controller.domain.migration.retention import KEPT
from controller.domain.objects import VirtualMachine
from controller.domain.resources import MIGRATIONS, VIRTUAL_MACHINES
from controller.kube import errors
from controller.kube.client import Client
from controller.kube.kinds import Pod
from controller.kube.meta import ObjectOnly
from controller.kube.resources import PODS, Resource

_DEADLINE: Final = 10.0
_RETRY: Final = 0.5
Act: TypeAlias = Callable[[str], Awaitable[None]]


class Churn:
    """Acts on the VMs `soak-1` to `soak-<count>` of a namespace."""

    def __init__(self, client: Client, namespace: str, count: int, rng: Random) -> None:
        self._client = client
        self._namespace = namespace
        self._rng = rng
        self._moves = 0
        self.wanted: dict[str, bool] = {f"soak-{number}": True for number in range(1, count + 1)}
        """Whether each VM should run."""
        self.done: Counter[str] = Counter()
        """The number of acts of each kind."""

    async def seed(self) -> None:
        """Create the fleet, and for each VM as many finished migrations as are retained, a constant number."""
        for name in self.wanted:
            await self._surely(self._create, name)
            for _ in range(KEPT):
                await self._surely(self._migrate_and_cancel, name)

    async def run(self, *, per_second: float, tasks: int) -> None:
        """Act until cancelled; each task has VMs of its own."""
        fleet = list(self.wanted)
        await asyncio.gather(
            *(self._act(fleet[number::tasks], tasks / per_second) for number in range(min(tasks, len(fleet))))
        )

    async def repair(self) -> None:
        """Create the VMs whose replacement was interrupted between delete and create."""
        for name in self.wanted:
            await self._surely(self._create, name)
            await self._surely(self._write_running, name)

    async def _act(self, mine: Sequence[str], pause: float) -> None:
        acts: dict[str, tuple[int, Act]] = {
            "annotate": (6, self._annotate),
            "stop or start": (3, self._toggle),
            "delete and create": (2, self._replace),
            "migrate": (3, self._migrate),
            "delete the pod": (1, self._delete_pod),
            "evict the pod": (1, self._evict),
        }
        weights = [weight for weight, _ in acts.values()]
        while True:
            await asyncio.sleep(pause * (0.5 + self._rng.random()))
            [kind] = self._rng.choices(list(acts), weights)
            try:
                await acts[kind][1](self._rng.choice(mine))
            except errors.KubeError:
                self.done[f"{kind}: refused, or the server was away"] += 1
            else:
                self.done[kind] += 1

    async def _surely(self, act: Act, name: str) -> None:
        """Retry an act until the server has answered it: it must not be half done."""
        while True:
            try:
                return await act(name)
            except (errors.NotFoundError, errors.AlreadyExistsError):
                return None
            except errors.KubeError:
                await asyncio.sleep(_RETRY)

    async def _create(self, name: str) -> None:
        body = {
            "apiVersion": names.API_VERSION,
            "kind": names.VM_KIND,
            "metadata": {"name": name},
            "spec": {"resources": {"cpu": "0.01", "memory": "0.01"}, "running": self.wanted[name]},
        }
        await self._client.create(VIRTUAL_MACHINES, body, namespace=self._namespace, server_deadline=_DEADLINE)

    async def _delete(self, name: str) -> None:
        vm = await self._vm(name)
        await self._client.delete(VIRTUAL_MACHINES, name, namespace=self._namespace, uid=vm.metadata.uid)

    async def _vm(self, name: str) -> VirtualMachine:
        return await self._client.get(VIRTUAL_MACHINES, name, namespace=self._namespace)

    async def _pod(self, name: str) -> Pod:
        vm = await self._vm(name)
        return await self._client.get(PODS, vm.status.pod_name or "none", namespace=self._namespace)

    async def _patch(self, name: str, body: dict[str, Any]) -> None:
        await self._client.merge_patch(VIRTUAL_MACHINES, name, body, namespace=self._namespace)

    async def _annotate(self, name: str) -> None:
        used = f"{self._rng.randrange(100) / 100:.2f}"
        await self._patch(name, {"metadata": {"annotations": {names.CPU_CONSUMPTION: used}}})

    async def _toggle(self, name: str) -> None:
        self.wanted[name] = not self.wanted[name]
        await self._surely(self._write_running, name)

    async def _write_running(self, name: str) -> None:
        await self._patch(name, {"spec": {"running": self.wanted[name]}})

    async def _replace(self, name: str) -> None:
        await self._surely(self._delete, name)
        await self._surely(self._create, name)

    async def _migrate(self, name: str) -> None:
        await self._request_migration(name, cancel=False)

    async def _migrate_and_cancel(self, name: str) -> None:
        await self._request_migration(name, cancel=True)

    async def _request_migration(self, name: str, *, cancel: bool) -> None:
        self._moves += 1
        body = {
            "apiVersion": names.API_VERSION,
            "kind": names.MIGRATION_KIND,
            "metadata": {"name": f"{name}-{self._moves}"},
            "spec": {"vmName": name, "cancel": cancel},
        }
        await self._client.create(MIGRATIONS, body, namespace=self._namespace, server_deadline=_DEADLINE)

    async def _delete_pod(self, name: str) -> None:
        pod = await self._pod(name)
        await self._client.delete(PODS, pod.metadata.name, namespace=self._namespace, uid=pod.metadata.uid)

    async def _evict(self, name: str) -> None:
        pod = (await self._pod(name)).metadata.name
        evictions = Resource("", "v1", f"pods/{pod}/eviction", ObjectOnly)
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}}
        await self._client.create(evictions, body, namespace=self._namespace, server_deadline=_DEADLINE)
