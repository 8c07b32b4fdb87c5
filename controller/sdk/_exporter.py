"""Scenarios written in Python: nodes and VMs, loaded as `vmsim load` loads them from a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Final

from controller.kube.client import Client
from controller.operations.errors import InvalidValueError
from controller.operations.waiting import Silence, no_controller
from controller.scenario.fleet import DesiredNode, DesiredVM, Fleet
from controller.scenario.lacking import NO_CONTROLLER
from controller.scenario.loading import Outcome, Progress, load
from controller.sdk import _fleet, _values
from controller.sdk._connection import Connection
from controller.sdk._fleet import VM, Node

FLEET: Final = "python-api"
"""The value of the label by which `vmsim unload` finds the objects that were loaded from Python."""
_PATIENCE: Final = 3.0
"""Seconds for which no controller must have acted on any VM, after the ten seconds that each VM gets."""


class ExporterState:
    """Loads scenarios into one namespace of a cluster. `kubeconfig` and `context` are as in VMManager."""

    def __init__(
        self, namespace: str = "default", kubeconfig: str | None = None, *, context: str | None = None
    ) -> None:
        self._connection = Connection(namespace, kubeconfig, context)

    def load_scenario(self, nodes: Iterable[Node], *, create_nodes: bool = False, timeout: float = 300.0) -> None:
        """Create the VMs of these nodes, and wait until all of them run; the real scheduler places them.

        With `create_nodes` the nodes are created, too: fake ones, which KWOK manages. Objects that an earlier call
        created are not changed, so loading twice changes nothing. Sets the `pod_name` and `node_name` of each VM.
        `vmsim unload python-api` removes everything that was loaded. `timeout` is in seconds.

        Raises InvalidValueError for a VM or node that is listed twice; OccupiedError, with nothing changed, if a
        foreign object has one of the names; NoNamespaceError; RefusedError if a quota, an admission policy or a webhook
        refuses an object, with nothing created unless the dry runs accepted it; NoControllerError if no controller acts
        on any VM for some 13 s; NotRunningError after the timeout, with the reason for each VM.
        """
        wanted, namespace = list(nodes), self._connection.namespace
        vms = {vm.id: vm for node in wanted for vm in node.vms}
        fleet, within = _fleet_of(wanted, create_nodes=create_nodes), _values.seconds(timeout)

        async def work(client: Client) -> Outcome:
            settings = await self._connection.settings(client)
            report = _Watchdog(namespace, monotonic)
            return await load(
                client, fleet, namespace=namespace, report=report, deadline=within, policies={None: settings.policy}
            )

        outcome = self._connection.run(work)
        for found in outcome.vms:
            vm = vms[found.metadata.name]
            vm.pod_name, vm.node_name = found.status.pod_name, found.status.node_name

    def __repr__(self) -> str:
        """Name the namespace and the cluster."""
        return f"ExporterState({self._connection!r})"


def _fleet_of(nodes: list[Node], *, create_nodes: bool) -> Fleet:
    vms = [vm for node in nodes for vm in node.vms]
    _unique("VM", (vm.id for vm in vms))
    _unique("node", (node.name for node in nodes))
    return Fleet(
        name=FLEET,
        nodes=tuple(_node(node) for node in nodes) if create_nodes else (),
        vms=tuple(_vm(vm) for vm in vms),
    )


def _unique(what: str, names: Iterable[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InvalidValueError(f"{what} {twice[0]} is listed twice: give each {what} a name of its own")


def _node(node: Node) -> DesiredNode:
    return DesiredNode(
        name=node.name, cpu=str(node.cpu), memory=str(node.memory), pods=node.pods, labels=dict(node.labels)
    )


def _vm(vm: VM) -> DesiredVM:
    request = _fleet.request(vm, "default")
    return DesiredVM(name=request.name, cpu=request.cpu, memory=request.memory)


class _Watchdog:
    """Ends a load that no controller acts on, before its timeout."""

    def __init__(self, namespace: str, clock: Callable[[], float]) -> None:
        self._namespace = namespace
        self._clock = clock
        self._silence = Silence(clock(), _PATIENCE)

    def __call__(self, progress: Progress) -> None:
        """Check the progress of the load. Raises NoControllerError."""
        silent = sum(why == NO_CONTROLLER for _, why in progress.waiting)
        all_are = silent == len(progress.waiting)
        if self._silence.lasts(silent if all_are else -1, self._clock()) and all_are and silent:
            raise no_controller(f"VMs waiting for their pods: {silent}", self._namespace)
