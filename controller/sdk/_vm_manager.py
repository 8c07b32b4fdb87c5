"""VirtualMachine resources, one call at a time.

Guarantees: a call returns once the cluster has done what the call promises, or raises; it never waits longer than its
timeout plus the time of its requests, each of which has a deadline of 15 s.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any, overload

from controller.kube.client import Client
from controller.operations import vms, waiting
from controller.operations.draining.drain import UNHEARD, Drain
from controller.operations.draining.order import Order
from controller.operations.errors import InvalidValueError
from controller.operations.placement_schema import PlacementFields
from controller.sdk import _fleet, _moves, _values
from controller.sdk._connection import Connection
from controller.sdk._fleet import VM
from controller.sdk._moves import MigrationResult
from controller.sdk._status import VMStatus, vm_status
from controller.sdk._values import Ratio, Strategy


class VMManager:
    """VirtualMachines of one namespace.

    `kubeconfig` is a file's path; None means what kubectl would use: $KUBECONFIG, then ~/.kube/config, then the pod's
    service account. `context` is one of its contexts; None means the current one. May be used from several threads.

    Every method raises kinds of SimulatorError (see controller.sdk.errors): NoClusterError, CRDMissingError and
    RefusedError in all methods, others as each method says. Creating a manager sends nothing, but raises NoClusterError
    if there are no credentials.
    """

    def __init__(
        self, namespace: str = "default", kubeconfig: str | None = None, *, context: str | None = None
    ) -> None:
        self._connection = Connection(namespace, kubeconfig, context)
        self._namespace = self._connection.namespace

    def get_vm_status(self, name: str) -> VMStatus:
        """Return the present status of a VM. Raises NoSuchVMError."""
        _values.vm_name(name)
        return vm_status(self._connection.run(lambda client: vms.get(client, self._namespace, name)))

    def list_vms(self) -> list[dict[str, Any]]:
        """Return every VM of the namespace as kubectl's JSON shows it: `vm["metadata"]["name"]`."""
        return self._connection.run(lambda client: vms.list_as_shown(client, self._namespace))

    @overload
    def create_vm(self, vm: VM, /) -> VMStatus: ...

    @overload
    def create_vm(
        self,
        name: str,
        cpu: Ratio,
        memory: Ratio,
        *,
        cpu_consumption: Ratio | None = None,
        memory_consumption: Ratio | None = None,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
        placement: PlacementFields | None = None,
    ) -> VMStatus: ...

    def create_vm(
        self,
        name: str | VM,
        cpu: Ratio | None = None,
        memory: Ratio | None = None,
        *,
        cpu_consumption: Ratio | None = None,
        memory_consumption: Ratio | None = None,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
        placement: PlacementFields | None = None,
    ) -> VMStatus:
        """Create a VM that is to run; return its status, which is Pending: `wait_for_phase` waits until it runs.

        `cpu` (0 to 1000) and `memory` (0 to 1) are the shares of one reference node that the VM requests. The
        consumptions, within the same bounds, are what it uses; None means as much as it requests. Its pod takes over
        the `labels` and `annotations`. `placement` are the fields of its spec that decide its node, as in YAML:
        `{"nodeSelector": {"zone": "a"}}`. A `VM` may be given instead of these arguments.

        Raises InvalidValueError, VMExistsError, CRDOutdatedError.
        """
        if isinstance(name, VM):
            if (cpu, memory, cpu_consumption, memory_consumption, labels, annotations, placement) != (None,) * 7:
                raise InvalidValueError("create_vm takes either a VM, or a name with cpu and memory")
            request = _fleet.request(name, self._namespace)
        else:
            request = vms.VMRequest(
                name=_values.vm_name(name),
                namespace=self._namespace,
                cpu=_values.cpu(cpu),
                memory=_values.memory(memory),
                cpu_consumption=None if cpu_consumption is None else _values.cpu(cpu_consumption, "cpu_consumption"),
                memory_consumption=(
                    None if memory_consumption is None else _values.memory(memory_consumption, "memory_consumption")
                ),
            )
        template = vms.Template(
            labels=_values.label_map(labels or {}),
            annotations=_values.annotation_map(annotations or {}),
            placement=_values.placement(placement or {}),
        )
        return vm_status(self._connection.run(lambda client: vms.create(client, request, template)))

    def delete_vm(self, name: str) -> None:
        """Delete a VM; the controller deletes its pod. Raises NoSuchVMError."""
        _values.vm_name(name)
        self._connection.run(lambda client: vms.delete(client, self._namespace, name))

    def wait_for_phase(self, name: str, phase: str = "Running", timeout: float = 60.0) -> VMStatus:
        """Wait until a VM is in a phase, or has passed through it since the call; return its status then.

        `timeout` is in seconds. Scheduling and Scheduled last for milliseconds only: a phase that ended before the call
        is in the status's conditions, and does not count.

        Raises NoSuchVMError, also if the VM is deleted meanwhile; NoControllerError if no controller acts on the VM for
        10 s; after the timeout UnschedulableError, with the scheduler's reason, or TimedOutError.
        """
        _values.vm_name(name)
        wanted, within = _values.phase(phase), _values.seconds(timeout)
        found = self._connection.run(
            lambda client: waiting.for_phase(client, self._namespace, name, wanted, timeout=within)
        )
        return vm_status(found)

    def drain(
        self,
        *nodes: str,
        reason: str = "Drain",
        parallel_nodes: int = 1,
        timeout: float = 300.0,
        strategy: Strategy | None = None,
    ) -> dict[str, MigrationResult]:
        """Cordon nodes, and move the VMs of all namespaces off them; return each move by `namespace/name`.

        All nodes are cordoned first, then drained one after the other, or `parallel_nodes` at a time. They stay
        cordoned. `timeout` is in seconds, for all nodes together. `strategy` is as in `PodManager.migrate`.

        Raises NoSuchNodeError, DrainFailedError, whose `failed` says why VMs did not move, and TimedOutError, after
        which the migrations continue.
        """
        if not nodes:
            raise InvalidValueError("drain takes the names of one or more nodes")
        order = Order(
            tuple(_values.node_name(node, "node") for node in nodes),
            reason,
            _values.seconds(timeout),
            _values.count(parallel_nodes, "parallel_nodes"),
            strategy=_values.strategy(strategy),
        )

        async def work(client: Client) -> dict[str, MigrationResult]:
            outcomes = await Drain(client, order, UNHEARD, Random()).run()  # noqa: S311 - spreads retries
            return {
                key: _moves.of_migration(migration) for outcome in outcomes for key, migration in outcome.moved.items()
            }

        return self._connection.run(work)

    def cleanup_all_vms(self) -> int:
        """Delete every VM of the namespace; return how many there were. The controller deletes their pods."""
        return self._connection.run(lambda client: vms.delete_all(client, self._namespace))

    def __repr__(self) -> str:
        """Name the namespace and the cluster."""
        return f"VMManager({self._connection!r})"
