"""What the API server says to a fleet before any of it is made: server-side dry runs, quotas, and room.

Guarantees: makes nothing. Of each group one object of every kind of difference is asked for (of sizes the least and the
largest), or every object where somebody's webhook or policy may look at single ones; one refusal of a group is told,
with its place in the file and the server's words. What may not be read is named. What the server cannot be asked, since
a webhook has side effects, counts as accepted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Final, TypeAlias, TypeVar

from controller.domain.resources import VIRTUAL_MACHINES
from controller.domain.vm.launcher import LauncherPolicy
from controller.engine.listing import everything
from controller.kube.errors import AlreadyExistsError, ForbiddenError, NotFoundError, StatusError
from controller.kube.kinds import Node
from controller.kube.resources import NODES, PODS, Resource
from controller.operations.api import SERVER_DEADLINE, Api
from controller.operations.parallel import Requests, each
from controller.operations.text import one_line
from controller.scenario import admission
from controller.scenario.comparison import Comparison
from controller.scenario.errors import FleetRefusedError, Problem
from controller.scenario.fleet import DesiredNode, DesiredVM, Fleet, Origin, node_manifest, vm_manifest
from controller.scenario.packing import Packing, demand, pack_fleet, used_by_node
from controller.scenario.quotas import shortages

R = TypeVar("R")
_QUOTAS: Final[Resource[dict[str, Any]]] = Resource("", "v1", "resourcequotas", dict)
_NO_DRY_RUN: Final = "does not support dry run"
"""What the API server answers where a webhook has side effects: it asks nobody then."""
_OVER_QUOTA: Final = (403, "Forbidden")
"""How it refuses what exceeds a quota: code and reason."""


Asked: TypeAlias = Callable[[int, int], None]
"""Told how many of how many questions are answered."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What keeps VMs of a fleet from running, though all of it may be made.

    `packing` is how the VMs that are not there yet find room among all nodes. `warnings` are quotas that their pods
    would exceed, and what could not be looked at.
    """

    packing: Packing
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Question:
    """An object to ask for."""

    what: str
    origin: Origin | None
    resource: Resource[Any]
    body: dict[str, Any]
    namespace: str | None


@dataclass(frozen=True, slots=True, order=True)
class _Refusal:
    """What the API server would refuse, and how."""

    problem: Problem
    code: int
    reason: str


async def ask(
    client: Api,
    fleet: Fleet,
    missing: Comparison,
    nodes: Sequence[Node],
    *,
    namespace: str,
    requests: Requests,
    asked: Asked,
) -> Findings:
    """Ask the API server whether it would take what is missing of a fleet; `nodes` are those of the cluster.

    What it waits for stands in `requests`.

    Raises FleetRefusedError with everything that it would refuse, and the KubeErrors of reads that waiting will not
    mend.
    """
    return await _Asking(client, fleet, missing, nodes, namespace=namespace, requests=requests, asked=asked).run()


class _Asking:
    """One round of questions."""

    def __init__(
        self,
        client: Api,
        fleet: Fleet,
        missing: Comparison,
        nodes: Sequence[Node],
        *,
        namespace: str,
        requests: Requests,
        asked: Asked,
    ) -> None:
        self._client = client
        self._fleet = fleet
        self._missing = missing
        self._nodes = nodes
        self._namespace = namespace
        self._requests = requests
        self._asked = asked
        self._done = self._total = 0
        self._refused: dict[tuple[str, Origin | None], _Refusal] = {}
        self._warnings: list[str] = []

    async def run(self) -> Findings:
        """Ask all questions."""
        if not (self._missing.nodes or self._missing.vms):
            return Findings(pack_fleet(self._fleet, there=self._nodes, running=self._there()), ())
        rules = await self._requests.patiently("webhooks and policies", lambda: admission.read(self._client))
        if rules.unread:
            self._warnings.append(
                f"{' and '.join(rules.unread)} may not be read: every object was asked for, as if one looked at each"
            )
        questions = list(self._questions(rules))
        self._total = len(questions)
        await each(questions, self._ask)
        await self._ask_quotas()
        if self._refused:
            refusals = sorted(self._refused.values())
            first = refusals[0]
            raise FleetRefusedError((one.problem for one in refusals), code=first.code, reason=first.reason)
        return Findings(await self._pack(), tuple(self._warnings))

    def _questions(self, rules: admission.Rules) -> Iterator[_Question]:
        nodes: Iterable[DesiredNode] = self._missing.nodes
        if not rules.watch(NODES.group, NODES.plural, namespaced=False):
            nodes = one_of_each(nodes)
        for desired in nodes:
            yield _Question(
                f"node {desired.name}", desired.origin, NODES, node_manifest(desired, self._fleet.name), None
            )
        vms: Iterable[DesiredVM] = self._missing.vms
        if not rules.watch(VIRTUAL_MACHINES.group, VIRTUAL_MACHINES.plural, namespaced=True):
            vms = least_and_largest(vms)
        for vm in vms:
            body = vm_manifest(vm, self._fleet.name, self._namespace)
            yield _Question(f"VM {vm.name}", vm.origin, VIRTUAL_MACHINES, body, self._namespace)

    async def _ask(self, question: _Question) -> None:
        group = (question.resource.plural, question.origin)
        if group in self._refused:
            return

        async def request() -> None:
            await self._client.create(
                question.resource,
                question.body,
                namespace=question.namespace,
                server_deadline=SERVER_DEADLINE,
                dry_run=True,
            )

        try:
            await self._requests.patiently(question.what, request)
        except AlreadyExistsError:
            pass  # somebody was faster; the load will look at it
        except StatusError as error:
            if _NO_DRY_RUN in error.message:
                self._warn(f"{one_line(error.message)}: what it would refuse shows when it is made")
            else:
                problem = _problem(question.what, question.origin, error.message)
                self._refused.setdefault(group, _Refusal(problem, error.code, error.reason))
        self._done += 1
        self._asked(self._done, self._total)

    async def _ask_quotas(self) -> None:
        policy = LauncherPolicy()
        sizes = [demand("", vm.name, vm.cpu, vm.memory, policy).size for vm in self._missing.vms]
        if not sizes:
            return
        quotas = await self._readable("resourcequotas", _QUOTAS, self._namespace)
        for shortage in shortages(quotas or (), sizes):
            if shortage.refused:
                first = self._missing.vms[0].origin
                origin = replace(first, field="vms") if first is not None else None
                problem = _problem("", origin, shortage.words)
                self._refused[shortage.words, None] = _Refusal(problem, *_OVER_QUOTA)
            else:
                self._warn(shortage.words)

    async def _pack(self) -> Packing:
        pods = await self._readable("pods of all namespaces", PODS, None) if self._missing.vms else []
        return pack_fleet(self._fleet, there=self._nodes, used=used_by_node(pods or ()), running=self._there())

    async def _readable(self, what: str, resource: Resource[R], namespace: str | None) -> list[R] | None:
        """Read a list; None if it may not be read, which is a warning."""
        try:
            return await self._requests.patiently(what, lambda: everything(self._client, resource, namespace=namespace))
        except (ForbiddenError, NotFoundError):
            self._warn(f"{what} may not be read: what they take is not counted")
            return None

    def _there(self) -> frozenset[str]:
        missing = {vm.name for vm in self._missing.vms}
        return frozenset(vm.name for vm in self._fleet.vms if vm.name not in missing)

    def _warn(self, words: str) -> None:
        if words not in self._warnings:
            self._warnings.append(words)


def one_of_each(nodes: Iterable[DesiredNode]) -> list[DesiredNode]:
    """Return the first node of each group, and of each kind where there are no groups."""
    found: dict[object, DesiredNode] = {}
    for node in nodes:
        kind = (node.origin, node.cpu, node.memory, node.pods, tuple(sorted(node.labels.items())), node.taints)
        found.setdefault(kind, node)
    return list(found.values())


def least_and_largest(vms: Iterable[DesiredVM]) -> list[DesiredVM]:
    """Return of each group the VMs with the least and the largest of each number."""
    groups: dict[object, list[DesiredVM]] = {}
    for vm in vms:
        groups.setdefault((vm.origin, vm.cpu_consumption is None, vm.memory_consumption is None), []).append(vm)
    chosen: list[DesiredVM] = []
    for group in groups.values():
        picked: dict[int, None] = {}
        for number in ("cpu", "memory", "cpu_consumption", "memory_consumption"):
            sizes = [Decimal(getattr(vm, number) or 0) for vm in group]
            least, largest = min(sizes), max(sizes)
            if least != largest or not picked:
                picked |= dict.fromkeys((sizes.index(least), sizes.index(largest)))
        chosen += [group[index] for index in picked]
    return chosen


def _problem(what: str, origin: Origin | None, words: str) -> Problem:
    place = origin or Origin("", "", 0, "")
    return Problem(place.file, place.line, place.field, one_line(f"{what}: {words}" if what else words))
