"""Loading: creates the missing nodes and VMs of a fleet, and waits until all of them run.

Guarantees: idempotent, a second load writes nothing; nothing is written if an existing object conflicts or a dry run is
refused; an object that another client creates meanwhile is accepted if it equals the desired one; VMs are created once
the new nodes are ready, so that the scheduler has the choice; no wait outlasts the deadline, and the reasons for
waiting are reported every second and at the deadline, in the API server's or the scheduler's words.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from random import Random
from typing import Any, Final, TypeVar

from controller.domain.objects import VirtualMachine
from controller.domain.resources import VIRTUAL_MACHINES
from controller.engine.listing import everything
from controller.engine.store import Store
from controller.kube.errors import AlreadyExistsError, NotFoundError
from controller.kube.kinds import Node
from controller.kube.meta import ObjectOnly
from controller.kube.resources import NODES, Resource
from controller.kube.verbs import CREATE_DEADLINE
from controller.operations.api import Api
from controller.operations.parallel import TICK, Requests, each, reporting
from controller.operations.vms import no_field_lost
from controller.operations.waiting import Silence
from controller.operations.watching import ChangeSignal, watching
from controller.scenario.asking import Findings, ask
from controller.scenario.comparison import Comparison, compare, node_conflict, vm_conflict
from controller.scenario.errors import NoNamespaceError, NotRunningError, OccupiedError, UnansweredError
from controller.scenario.fitting import DEFAULT_POLICIES, Policies
from controller.scenario.fleet import DesiredNode, DesiredVM, Fleet, node_manifest, selector, vm_manifest
from controller.scenario.lacking import lacking

T = TypeVar("T")
UNNOTICED: Final = 10.0
"""Seconds without progress of silent objects after which we suspect that no controller or KWOK runs."""
_PACE: Final = 0.1
"""Seconds between two checks of all objects: a check costs time in the number of VMs, and changes come singly."""
_MANY: Final = 100
"""Dry runs above which their progress is reported."""
_NOT_CREATED: Final = "not created"
_NAMESPACES: Final = Resource("", "v1", "namespaces", ObjectOnly)


class Stage(StrEnum):
    """The stages of a load."""

    ASKING = "asking"
    CREATING = "creating"
    READYING = "readying"
    STARTING = "starting"


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a load: dry runs answered, objects created, created nodes ready, or nodes ready and VMs running.

    While it waits, `waiting` holds each object that is not ready, with the reason (empty if unknown); while it asks or
    creates, only the requests that are retried or slow.
    """

    stage: Stage
    done: int
    total: int
    waiting: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a load. `vms` are all VMs of the fleet, as they were when the last of them ran."""

    created_nodes: tuple[str, ...]
    created_vms: tuple[str, ...]
    found_nodes: tuple[str, ...]
    """Nodes that existed before the load."""
    found_vms: tuple[str, ...]
    vms: tuple[VirtualMachine, ...]
    elsewhere: Mapping[str, tuple[str, str]]
    """VMs that the scheduler did not put on the node that the fleet names: that node, and the actual one."""


def _ignore(_: Findings) -> None:
    """Ignore the findings."""


async def load(
    client: Api,
    fleet: Fleet,
    *,
    namespace: str,
    report: Callable[[Progress], None],
    deadline: float,
    warn: Callable[[Findings], None] = _ignore,
    policies: Policies = DEFAULT_POLICIES,
) -> Outcome:
    """Create the missing objects of a fleet and wait until it runs, within `deadline` seconds.

    `report` is called with every change. `warn` is called before the first create, with the reasons why VMs may not
    run where they should under the `policies` of their controllers. A VM that is stopped is not waited for.

    Raises OccupiedError if existing objects conflict, FleetRefusedError if the API server refuses objects,
    NoNamespaceError, CRDOutdatedError, NotRunningError after the deadline, and the KubeErrors that a retry does not
    fix.
    """
    loading = _Load(client, fleet, namespace, policies, report)
    try:
        async with asyncio.timeout(deadline):
            return await loading.run(warn)
    except TimeoutError:
        raise NotRunningError(deadline, dict(loading.waiting), elsewhere(fleet.vms, loading.vms)) from None


async def rehearse(
    client: Api,
    fleet: Fleet,
    *,
    namespace: str,
    report: Callable[[Progress], None],
    deadline: float,
    policies: Policies = DEFAULT_POLICIES,
) -> tuple[Comparison, Findings]:
    """Run the checks of a load without creating; return the missing objects, and the reasons why VMs may not run.

    Raises the errors of `load`, but UnansweredError after the deadline.
    """
    loading = _Load(client, fleet, namespace, policies, report)
    try:
        async with asyncio.timeout(deadline):
            return await loading.ask()
    except TimeoutError:
        raise UnansweredError(deadline, dict(loading.retried)) from None


class _Load:
    """One load of a fleet."""

    def __init__(
        self, client: Api, fleet: Fleet, namespace: str, policies: Policies, report: Callable[[Progress], None]
    ) -> None:
        self._client = client
        self._fleet = fleet
        self._namespace = namespace
        self._policies = policies
        self._report = report
        self._requests = Requests(Random(), self._publish)  # noqa: S311 - spreads retries
        self._stage = Stage.ASKING
        self._done = self._total = 0
        # The objects that are still to be created.
        self._uncreated: dict[str, None] = {}
        self._lacking_now: tuple[tuple[str, str], ...] = ()
        self._seen: Store[VirtualMachine] | None = None

    @property
    def waiting(self) -> tuple[tuple[str, str], ...]:
        """Every object that is not done yet, with the reason."""
        if self._stage in (Stage.READYING, Stage.STARTING):
            return self._lacking_now
        # Retried requests come first: of many only the first are shown.
        retried = dict(self.retried)
        rest = ((name, _NOT_CREATED) for name in self._uncreated if name not in retried)
        return (*retried.items(), *rest) or (("the API server", "no answer"),)

    @property
    def retried(self) -> tuple[tuple[str, str], ...]:
        """The requests that are retried or slow, with the API server's last message."""
        prefix = f"{_NOT_CREATED}: " if self._stage == Stage.CREATING else ""
        return tuple((what, f"{prefix}{why}") for what, why in self._requests.waiting.items())

    @property
    def vms(self) -> tuple[VirtualMachine, ...]:
        """The VMs of the fleet as they were last seen; none before the first wait."""
        if self._seen is None:
            return ()
        found = (self._seen.get(f"{self._namespace}/{desired.name}") for desired in self._fleet.vms)
        return tuple(vm for vm in found if vm is not None)

    async def ask(self) -> tuple[Comparison, Findings]:
        """Compare the fleet with the cluster, and dry-run the missing objects."""
        return await reporting(self._ask(), self._publish)

    async def _ask(self) -> tuple[Comparison, Findings]:
        missing, nodes = await self._compare()
        findings = await ask(
            self._client,
            self._fleet,
            missing,
            nodes,
            namespace=self._namespace,
            policies=self._policies,
            requests=self._requests,
            asked=self._count_questions,
        )
        return missing, findings

    async def run(self, warn: Callable[[Findings], None]) -> Outcome:
        """Compare, ask, create, wait."""
        missing, findings = await self.ask()
        if missing.nodes or missing.vms or findings.warnings:
            warn(findings)
        await self._create(missing)
        await self._wait(Stage.STARTING, self._fleet)
        created_nodes = tuple(desired.name for desired in missing.nodes)
        created_vms = tuple(desired.name for desired in missing.vms)
        return Outcome(
            created_nodes=created_nodes,
            created_vms=created_vms,
            found_nodes=_without(self._fleet.nodes, created_nodes),
            found_vms=_without(self._fleet.vms, created_vms),
            vms=self.vms,
            elsewhere=elsewhere(self._fleet.vms, self.vms),
        )

    def _count_questions(self, done: int, total: int) -> None:
        self._done, self._total = done, total
        if total > _MANY:
            self._publish()

    def _publish(self) -> None:
        """Report the progress of the requests, if they are many, retried or creates."""
        retried = self.retried
        if retried or self._total > _MANY or self._stage == Stage.CREATING:
            self._report(Progress(self._stage, self._done, self._total, retried))

    async def _compare(self) -> tuple[Comparison, list[Node]]:
        """Read the existing objects, VMs first: in a cluster without our resources no node may be created."""
        vms = await everything(self._client, VIRTUAL_MACHINES, namespace=self._namespace)
        try:
            await self._client.get(_NAMESPACES, self._namespace)
        except NotFoundError as error:
            raise NoNamespaceError(
                f"there is no namespace {self._namespace}: kubectl create namespace {self._namespace}"
            ) from error
        nodes = await everything(self._client, NODES)
        compared = compare(self._fleet, nodes=nodes, vms=vms)
        if compared.conflicts:
            raise OccupiedError(compared.conflicts)
        return compared, nodes

    async def _create(self, missing: Comparison) -> None:
        """Create nodes, then VMs. No node takes a VM before it is ready, so the first ready one would get them all."""
        self._stage, self._done, self._total = Stage.CREATING, 0, len(missing.nodes) + len(missing.vms)
        await self._create_all(
            {f"node {desired.name}": partial(self._create_node, desired) for desired in missing.nodes}
        )
        if missing.nodes and missing.vms:
            await self._wait(Stage.READYING, replace(self._fleet, nodes=missing.nodes, vms=()))
        await self._create_all({f"VM {desired.name}": partial(self._create_vm, desired) for desired in missing.vms})

    async def _create_all(self, creations: Mapping[str, Callable[[], Awaitable[None]]]) -> None:
        if not creations:
            return
        self._stage, self._uncreated = Stage.CREATING, dict.fromkeys(creations)
        self._publish()

        async def create(name: str) -> None:
            await creations[name]()
            del self._uncreated[name]
            self._done += 1
            self._publish()

        await reporting(each(creations, create), self._publish)

    async def _create_node(self, desired: DesiredNode) -> None:
        body = node_manifest(desired, self._fleet.name)
        there = await self._create_object(f"node {desired.name}", NODES, body, None)
        if there is not None and (why := node_conflict(desired, there, self._fleet.name)) is not None:
            raise OccupiedError([why])

    async def _create_vm(self, desired: DesiredVM) -> None:
        body = vm_manifest(desired, self._fleet.name, self._namespace)
        there = await self._create_object(f"VM {desired.name}", VIRTUAL_MACHINES, body, self._namespace)
        if there is not None and (why := vm_conflict(desired, there, self._fleet.name)) is not None:
            raise OccupiedError([why])

    async def _create_object(
        self, what: str, resource: Resource[T], body: Mapping[str, Any], namespace: str | None
    ) -> T | None:
        """Create an object; return the existing object of its name, if there is one."""
        client, name = self._client, body["metadata"]["name"]
        try:
            with no_field_lost():
                await self._requests.retrying(
                    what,
                    lambda: client.create(
                        resource, body, namespace=namespace, server_deadline=CREATE_DEADLINE, strict=True
                    ),
                )
        except AlreadyExistsError:
            return await self._requests.retrying(what, lambda: client.get(resource, name, namespace=namespace))
        return None

    async def _wait(self, stage: Stage, fleet: Fleet) -> None:
        """Wait until all nodes of a fleet are ready and all VMs run.

        Nodes that are to be ready before there are VMs are not waited for once none has become ready for a while.
        """
        clock = asyncio.get_running_loop().time
        signal = ChangeSignal()
        label = selector(fleet.name)
        async with AsyncExitStack() as stack:
            watch = stack.enter_async_context
            nodes = await watch(watching(self._client, NODES, signal.touch, label_selector=label))
            vms = await watch(
                watching(self._client, VIRTUAL_MACHINES, signal.touch, namespace=self._namespace, label_selector=label)
            )
            total = len(fleet.nodes) + len(fleet.vms)
            silence = Silence(clock(), UNNOTICED)
            self._stage, self._seen = stage, vms
            while True:
                lacks = list(lacking(fleet, self._namespace, nodes, vms))
                unnoticed = silence.lasts(sum(lack.silent for lack in lacks), clock())
                self._lacking_now = tuple(
                    (lack.name, lack.suspicion if lack.silent and unnoticed else lack.why) for lack in lacks
                )
                self._report(Progress(self._stage, total - len(self.waiting), total, self.waiting))
                if not self.waiting or (unnoticed and stage == Stage.READYING):
                    return
                await signal.change(TICK)
                await asyncio.sleep(_PACE)


def elsewhere(fleet: Iterable[DesiredVM], vms: Iterable[VirtualMachine]) -> dict[str, tuple[str, str]]:
    """Return the VMs whose first pod is not on the desired node, with that node and the actual one."""
    desired = {vm.name: vm.node for vm in fleet if vm.node is not None}
    return {
        name: (wanted, node)
        for vm in vms
        if (wanted := desired.get(name := vm.metadata.name)) is not None
        and (node := vm.status.node_name) not in (None, wanted)
        and not vm.status.incarnation
    }


def _without(all_of: Iterable[DesiredNode] | Iterable[DesiredVM], created: tuple[str, ...]) -> tuple[str, ...]:
    new = set(created)
    return tuple(desired.name for desired in all_of if desired.name not in new)
