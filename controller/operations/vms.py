"""VMs: create, read and delete them.

Guarantees: a create loses no field: one that the cluster's CRD does not have is an error; a delete carries the UID of
the VM that was read, so a newer VM of the same name is never deleted; a VM that exists already and a VM that does not
exist each raise an error type of their own.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import msgspec

from controller.domain import names
from controller.domain.objects import VirtualMachine, VMSpec
from controller.domain.resources import VIRTUAL_MACHINES
from controller.domain.vm import launcher, placement
from controller.engine.listing import everything
from controller.kube.errors import AlreadyExistsError, ConflictError, InvalidError, NotFoundError
from controller.kube.resources import Resource
from controller.kube.verbs import CREATE_DEADLINE
from controller.operations.api import Api
from controller.operations.errors import CRDOutdatedError, VMExistsError, no_such_vm
from controller.operations.placement_schema import PlacementFields

AS_WRITTEN: Final[Resource[dict[str, Any]]] = Resource(names.GROUP, names.VERSION, names.VM_PLURAL, dict)
"""VMs as plain dicts, with every field that the API server returns."""
_UNKNOWN: Final = re.compile(r'unknown field "(spec\.[^"]*)"')
"""What the API server says of a field that a strict create has and the CRD has not."""
_AT_ONCE: Final = 16
"""Deletes in flight at the same time."""


@dataclass(frozen=True, slots=True)
class VMRequest:
    """A VM to create. Ratios are plain decimal strings; a consumption of None is the ratio of the spec."""

    name: str
    namespace: str
    cpu: str
    memory: str
    cpu_consumption: str | None = None
    memory_consumption: str | None = None


@dataclass(frozen=True)
class Template:
    """What VMs may have in common: labels, annotations, and the fields of the spec that decide the node, as in YAML."""

    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    placement: PlacementFields = field(default_factory=PlacementFields)

    @cached_property
    def spec(self) -> VMSpec:
        """The placement as it is decoded from a VM."""
        return msgspec.convert(self.placement, VMSpec)

    @cached_property
    def checksums(self) -> str:
        """The checksums of the placement, to compare it with a VM's."""
        return placement.checksums(self.spec)


PLAIN: Final = Template()


def manifest(request: VMRequest, template: Template = PLAIN) -> dict[str, Any]:
    """Return the body of the VM to create."""
    consumption = launcher.consumption_annotations(request.cpu_consumption, request.memory_consumption)
    annotations = {**template.annotations, **consumption}
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.VM_KIND,
        "metadata": {
            "name": request.name,
            "namespace": request.namespace,
            **({"labels": dict(template.labels)} if template.labels else {}),
            **({"annotations": annotations} if annotations else {}),
        },
        "spec": {"resources": {"cpu": request.cpu, "memory": request.memory}, "running": True, **template.placement},
    }


async def create(client: Api, request: VMRequest, template: Template = PLAIN) -> VirtualMachine:
    """Create a VM. Raises VMExistsError, CRDOutdatedError, or the KubeError of a refusal."""
    body = manifest(request, template)
    try:
        with no_field_lost():
            return await client.create(
                VIRTUAL_MACHINES,
                body,
                namespace=request.namespace,
                server_deadline=CREATE_DEADLINE,
                strict=True,
            )
    except AlreadyExistsError as error:
        raise VMExistsError(
            f"there is a VM {request.name} in namespace {request.namespace} already: "
            "delete it first, or choose another name"
        ) from error


@contextmanager
def no_field_lost(kind: str = names.VM_KIND) -> Iterator[None]:
    """Raise CRDOutdatedError for the refusal of a strict create whose fields the cluster's CRD does not have."""
    try:
        yield
    except InvalidError as error:
        if not (fields := _UNKNOWN.findall(error.message)):
            raise
        raise CRDOutdatedError(
            f"the cluster's {kind} resource is of an older release, without {', '.join(fields)}: run `vmsim install`"
        ) from error


async def get(client: Api, namespace: str, name: str) -> VirtualMachine:
    """Read a VM. Raises NoSuchVMError."""
    try:
        return await client.get(VIRTUAL_MACHINES, name, namespace=namespace)
    except NotFoundError as error:
        if not error.reason:  # the resource is not served
            raise
        raise no_such_vm(name, namespace) from error


async def list_as_shown(client: Api, namespace: str) -> list[dict[str, Any]]:
    """Return every VM of a namespace as `kubectl get -o json` shows it: without managedFields."""
    found = await everything(client, AS_WRITTEN, namespace=namespace)
    for vm in found:
        vm["metadata"].pop("managedFields", None)
    return found


async def delete(client: Api, namespace: str, name: str) -> VirtualMachine:
    """Delete a VM, and its pod by garbage collection; return the VM as it was read. Raises NoSuchVMError."""
    vm = await get(client, namespace, name)
    await _delete(client, vm)
    return vm


async def delete_all(client: Api, namespace: str) -> int:
    """Delete every VM that exists now; return how many were deleted."""
    found = await everything(client, VIRTUAL_MACHINES, namespace=namespace)
    return sum(await _all(client, found))


async def _all(client: Api, found: Iterable[VirtualMachine]) -> list[bool]:
    """Delete all of these VMs, then raise the first error: the failure of one delete does not stop the others."""
    slots = asyncio.Semaphore(_AT_ONCE)

    async def one(vm: VirtualMachine) -> bool:
        async with slots:
            return await _delete(client, vm)

    ended = await asyncio.gather(*map(one, found), return_exceptions=True)
    for outcome in ended:
        if isinstance(outcome, BaseException):
            raise outcome
    return [outcome for outcome in ended if isinstance(outcome, bool)]


async def _delete(client: Api, vm: VirtualMachine) -> bool:
    """Delete the VM of this UID; return False if it no longer exists."""
    metadata = vm.metadata
    try:
        await client.delete(VIRTUAL_MACHINES, metadata.name, namespace=metadata.namespace, uid=metadata.uid)
    except (NotFoundError, ConflictError):
        return False
    return True
