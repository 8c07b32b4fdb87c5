"""VMs by their launcher pods: create, move and delete them, and read where they are.

Guarantees: with VM resources only the controller creates, moves and deletes pods; a call changes the VM, or creates a
migration. Without VM resources the pods are bare: only the caller manages them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from uuid import uuid4

from controller.domain.objects import VirtualMachine
from controller.domain.vm.policy import LauncherPolicy
from controller.kube.client import Client
from controller.kube.kinds import Pod
from controller.kube.verbs import Getter
from controller.operations import assignments, bare, migrations, vms, waiting
from controller.operations.errors import InvalidValueError
from controller.sdk import _fleet, _moves, _values
from controller.sdk._connection import Connection
from controller.sdk._fleet import VM
from controller.sdk._moves import MigrationResult
from controller.sdk._values import Strategy


class PodManager:
    """Launcher pods of one namespace.

    With `create_vm_crs` (the default) each VM is a VirtualMachine resource, and the controller, which must be running,
    creates its pod, moves it, and replaces it when it is lost. Without, the manager itself creates bare launcher pods
    as the controller would: by the reference node, node selector and tolerations that the controller has published
    when the manager creates its first pod, or else by its defaults. The scheduler places them, and a lost one is not
    replaced.

    `kubeconfig` and `context` are as in VMManager. Every method raises SimulatorError; times are in seconds.
    """

    def __init__(
        self,
        *,
        create_vm_crs: bool = True,
        namespace: str = "default",
        kubeconfig: str | None = None,
        context: str | None = None,
    ) -> None:
        self._bare = not create_vm_crs
        self._connection = Connection(namespace, kubeconfig, context)
        self._namespace = self._connection.namespace
        self._policy: LauncherPolicy | None = None

    def create_pod(self, vm: VM, timeout: float = 60.0) -> None:
        """Create a VM, and wait until its pod is created and `vm.pod_name` is set; it need not have a node yet.

        Raises VMExistsError; NoControllerError if no controller acts on the VM for 10 s, and TimedOutError: in both
        cases the VM exists, and starts when a controller does.
        """
        request, within = _fleet.request(vm, self._namespace), _values.seconds(timeout)

        async def work(client: Client) -> None:
            if self._bare:
                policy = await self._settled_policy(client)
                _found(vm, await bare.create(client, request, policy, run_id=str(uuid4())))
                return
            await vms.create(client, request)
            _placed(
                vm,
                await waiting.until(
                    client,
                    self._namespace,
                    request.name,
                    lambda found: found.status.pod_name is not None,
                    wanted="Scheduling",
                    timeout=within,
                ),
            )

        self._connection.run(work)

    def delete_pod(self, vm: VM, timeout: float = 60.0) -> None:
        """Delete a VM, and wait until its pod no longer exists: a pod that is deleted alone would be replaced.

        Raises NoSuchVMError; TimedOutError when the pod is still being deleted.
        """
        name, within = _values.vm_name(vm.id, "id"), _values.seconds(timeout)

        async def work(client: Client) -> None:
            if self._bare:
                await bare.delete(client, self._namespace, name, timeout=within)
            else:
                await waiting.until_no_pod(client, await vms.delete(client, self._namespace, name), timeout=within)

        self._connection.run(work)
        vm.pod_name = vm.node_name = None

    def migrate(
        self,
        vm: VM,
        target_node: str | None = None,
        *,
        reason: str | None = None,
        timeout: float = 300.0,
        strategy: Strategy | None = None,
    ) -> MigrationResult:
        """Move a VM to another node, and wait until it runs there.

        `strategy` says how: with Recreate its pod is deleted, then another is created; with Live another is created
        beside it and takes over, which a bare pod cannot do. None is the controller's default.

        Without a `target_node` the scheduler chooses any node but the present one. When the limits make migrations
        wait, this one precedes those without a priority, as that of `vmsim migrate` does. `reason`, in a few words of
        your own, is shown in `kubectl get vmm`; a bare pod does not keep it.

        Raises NoSuchVMError; MigrationFailedError, after which a VM runs where it fits; NoControllerError if no
        controller acts on the migration for 10 s; TimedOutError: the migration continues, and the message says how to
        cancel it. Ctrl-C does not cancel it either.
        """
        request, within = _fleet.request(vm, self._namespace), _values.seconds(timeout)
        node = None if target_node is None else _values.node_name(target_node, "target_node")
        how = _values.strategy(strategy)
        if self._bare and how == "Live":
            raise InvalidValueError("strategy is 'Live', which bare pods cannot do: they are recreated")

        async def work(client: Client) -> MigrationResult:
            if self._bare:
                policy = await self._settled_policy(client)
                moved = await bare.migrate(client, request, policy, run_id=str(uuid4()), to=node, timeout=within)
                return _moves.of_bare(moved)
            order = migrations.MigrationRequest(
                request.name, self._namespace, to=node, reason=reason, priority="user-triggered", strategy=how
            )
            created = await migrations.create(client, order)
            last = await migrations.follow(client, created, timeout=within)
            return _moves.of_migration(last)

        result = self._connection.run(work)
        vm.pod_name, vm.node_name = result.target_pod, result.target_node
        return result

    def update_vm_node_assignments(self, vms: Iterable[VM], timeout: float = 30.0) -> None:
        """Set the `pod_name` and `node_name` of each VM from the cluster.

        Waits until each VM is running, failed, stopped or unschedulable (`node_name` is then None), and until its
        status agrees with its pod. The controller derives the status from the pod by itself, so a wrong status is
        corrected when this returns.

        Raises NoSuchVMError; NoControllerError if a status stays wrong for 10 s, with the status and the facts;
        TimedOutError.
        """
        wanted, within = {_values.vm_name(vm.id, "id"): vm for vm in vms}, _values.seconds(timeout)

        async def work(client: Client) -> None:
            if self._bare:
                places = (bare.place(client, self._namespace, name, timeout=within) for name in wanted)
                for vm, pod in zip(wanted.values(), await asyncio.gather(*places), strict=True):
                    _found(vm, pod)
                return
            found = await assignments.settled(client, self._namespace, tuple(wanted), timeout=within)
            for name, vm in wanted.items():
                _placed(vm, found[name])

        self._connection.run(work)

    async def _settled_policy(self, client: Getter) -> LauncherPolicy:
        """Return the policy of bare pods, the same for all pods of this manager."""
        if self._policy is None:
            self._policy = (await self._connection.settings(client)).policy
        return self._policy

    def __repr__(self) -> str:
        """Name the namespace and the cluster."""
        return f"PodManager({self._connection!r}, create_vm_crs={not self._bare})"


def _placed(vm: VM, found: VirtualMachine) -> None:
    vm.pod_name, vm.node_name = found.status.pod_name, found.status.node_name


def _found(vm: VM, pod: Pod) -> None:
    vm.pod_name, vm.node_name = pod.metadata.name, pod.spec.node_name
