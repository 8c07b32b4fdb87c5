"""Checks a fleet before any of it is created: server-side dry runs, quotas and node capacity.

Guarantees: creates nothing. Of each group one object of each variant is sent (the smallest and the largest sizes), or
every object if a webhook or policy may match; the first refusal of a group is reported, with its place in the file and
the server's message. Resources that may not be read are named. An object whose dry run is impossible, since a webhook
has side effects, counts as accepted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Final, TypeAlias, TypeVar

from controller.domain.resources import VIRTUAL_MACHINES
from controller.engine.listing import everything
from controller.kube.errors import AlreadyExistsError, ForbiddenError, NotFoundError, StatusError
from controller.kube.kinds import Node, Pod
from controller.kube.resources import NODES, PODS, Resource
from controller.kube.verbs import CREATE_DEADLINE
from controller.operations.api import Api
from controller.operations.parallel import Requests, each
from controller.operations.text import counted, one_line
from controller.operations.vms import no_field_lost
from controller.scenario import admission
from controller.scenario.comparison import Comparison
from controller.scenario.errors import FleetRefusedError, Problem, listed
from controller.scenario.fitting import Policies, pack_fleet, size_of, used_by_node
from controller.scenario.fleet import DesiredNode, DesiredVM, Fleet, Origin, node_manifest, vm_manifest
from controller.scenario.packing import Packing
from controller.scenario.quotas import shortages

R = TypeVar("R")
_QUOTAS: Final[Resource[dict[str, Any]]] = Resource("", "v1", "resourcequotas", dict)
_NO_DRY_RUN: Final = "does not support dry run"
"""Part of the API server's answer if a webhook has side effects: the dry run is not carried out."""
_OVER_QUOTA: Final = (403, "Forbidden")
"""Code and reason of the API server's refusal of an object that exceeds a quota."""


Asked: TypeAlias = Callable[[int, int], None]
"""Takes the number of dry runs that are answered, and of all dry runs."""


@dataclass(frozen=True, slots=True)
class Findings:
    """The reasons why VMs may not run although all objects may be created.

    `packing` is the placement of the missing VMs on all nodes. `warnings` name the quotas that their pods would exceed,
    and the checks that were not possible.
    """

    packing: Packing
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Question:
    """An object to dry-run."""

    what: str
    origin: Origin | None
    resource: Resource[Any]
    body: dict[str, Any]
    namespace: str | None


@dataclass(frozen=True, slots=True, order=True)
class _Refusal:
    """A refusal of the API server."""

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
    policies: Policies,
    requests: Requests,
    asked: Asked,
) -> Findings:
    """Ask the API server whether it would accept the missing objects of a fleet; `nodes` are those of the cluster.

    `policies` are the controllers'; `requests` shows the requests that are being retried.

    Raises FleetRefusedError with every refusal, CRDOutdatedError, and the KubeErrors that a retry does not fix.
    """
    return await _Asking(
        client, fleet, missing, nodes, namespace=namespace, policies=policies, requests=requests, asked=asked
    ).run()


class _Asking:
    """One check of a fleet."""

    def __init__(
        self,
        client: Api,
        fleet: Fleet,
        missing: Comparison,
        nodes: Sequence[Node],
        *,
        namespace: str,
        policies: Policies,
        requests: Requests,
        asked: Asked,
    ) -> None:
        self._client = client
        self._fleet = fleet
        self._missing = missing
        self._nodes = nodes
        self._namespace = namespace
        self._policies = policies
        self._requests = requests
        self._asked = asked
        self._done = self._total = 0
        self._refused: dict[tuple[str, Origin | None], _Refusal] = {}
        self._warnings: list[str] = [*_unrequired(fleet, missing)]

    async def run(self) -> Findings:
        """Send all dry runs, then check quotas and capacity."""
        if not (self._missing.nodes or self._missing.vms):
            return Findings(self._packed(), tuple(self._warnings))
        rules = await self._requests.retrying("webhooks and policies", lambda: admission.read(self._client))
        if rules.unread:
            self._warnings.append(
                f"{' and '.join(rules.unread)} may not be read: every object was dry-run, in case one matches it"
            )
        self._look_for_nodes()
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
                server_deadline=CREATE_DEADLINE,
                dry_run=True,
                strict=True,
            )

        try:
            with no_field_lost():
                await self._requests.retrying(question.what, request)
        except AlreadyExistsError:
            pass  # another client created it meanwhile; the load compares it
        except StatusError as error:
            if _NO_DRY_RUN in error.message:
                self._warn(f"{one_line(error.message)}: its refusals show only when the object is created")
            else:
                problem = _problem(question.what, question.origin, error.message)
                self._refused.setdefault(group, _Refusal(problem, error.code, error.reason))
        self._done += 1
        self._asked(self._done, self._total)

    async def _ask_quotas(self) -> None:
        sizes = [size_of(vm, self._policies) for vm in self._missing.vms]
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

    def _look_for_nodes(self) -> None:
        """Warn of nodes that do not exist, but on which VMs would begin. With `exact` the packing says so."""
        there = {node.metadata.name for node in self._nodes} | {node.name for node in self._fleet.nodes}
        named = dict.fromkeys(vm.node for vm in self._missing.vms if vm.node is not None and not vm.exact)
        lost = [name for name in named if name not in there]
        if lost:
            self._warn(f"there is no node {listed(lost)}: VMs that are to begin there begin elsewhere")

    async def _pack(self) -> Packing:
        return self._packed(await self._readable("pods of all namespaces", PODS, None) if self._missing.vms else ())

    def _packed(self, pods: Iterable[Pod] | None = ()) -> Packing:
        used = used_by_node(pods or ())
        return pack_fleet(self._fleet, there=self._nodes, used=used, running=self._there(), policies=self._policies)

    async def _readable(self, what: str, resource: Resource[R], namespace: str | None) -> list[R] | None:
        """Return a list; None, with a warning, if it may not be read."""
        try:
            return await self._requests.retrying(what, lambda: everything(self._client, resource, namespace=namespace))
        except (ForbiddenError, NotFoundError):
            self._warn(f"{what} may not be read: the check leaves them out")
            return None

    def _there(self) -> frozenset[str]:
        missing = {vm.name for vm in self._missing.vms}
        return frozenset(vm.name for vm in self._fleet.vms if vm.name not in missing)

    def _warn(self, words: str) -> None:
        if words not in self._warnings:
            self._warnings.append(words)


def _unrequired(fleet: Fleet, missing: Comparison) -> Iterator[str]:
    """Yield one line about the VMs that exist without the required node."""
    if missing.unrequired:
        some = counted(len(missing.unrequired), "VM")
        yield (
            f"{some} of before may run on any node, since created without --exact-placement: "
            f"{listed(missing.unrequired)}; to require their nodes, first `vmsim unload {fleet.name}`"
        )


def one_of_each(nodes: Iterable[DesiredNode]) -> list[DesiredNode]:
    """Return one node of each variant within each group."""
    found: dict[object, DesiredNode] = {}
    for node in nodes:
        kind = (node.origin, node.cpu, node.memory, node.pods, tuple(sorted(node.labels.items())), node.taints)
        found.setdefault(kind, node)
    return list(found.values())


def least_and_largest(vms: Iterable[DesiredVM]) -> list[DesiredVM]:
    """Return the VMs of each group that have the smallest or the largest value of a number."""
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
