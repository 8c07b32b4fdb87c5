"""The job of the measured controller in Kopf's usual style: handlers of changes, indexes, pod events.

A VM's creation creates its pod, an update copies its consumption to the pod, and each event of the pod is published in
the VM's status. The measured controller's own pure functions make the pod's manifest and derive the status, so both do
the same. Guarantees: the last event of a pod determines its VM's status, since Kopf handles the events of one object
in sequence and no other client writes that status; Kopf retries a handler that fails, and a status write is retried
here.

Not implemented, since the benchmark does not measure it: migrations, start backoff, lost nodes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Final

import kopf
import msgspec
from aiohttp import ClientError
from kubernetes_asyncio import client, config

from controller.domain import names, ownership
from controller.domain.objects import VirtualMachine, VMStatus
from controller.domain.vm import launcher, status
from controller.domain.vm.policy import LauncherPolicy
from controller.domain.vm.state import HISTORY_LIMIT
from controller.kube import times
from controller.kube.kinds import Pod

_VMS: Final = (names.GROUP, names.VERSION, names.VM_PLURAL)
_POLICY: Final = LauncherPolicy()
_MERGE_PATCH: Final = "application/merge-patch+json"
_ATTEMPTS: Final = 5


@kopf.on.login()
def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
    """Use the kubeconfig."""
    return kopf.login_with_kubeconfig(**kwargs)


@kopf.on.startup()
async def start(settings: kopf.OperatorSettings, memo: kopf.Memo, **_: Any) -> None:
    """Switch Kopf's Events off, and open the connections for the handlers."""
    settings.posting.enabled = False
    await config.load_kube_config()
    memo.api = client.ApiClient()


@kopf.on.cleanup()
async def stop(memo: kopf.Memo, **_: Any) -> None:
    """Close the connections."""
    await memo.api.close()


@kopf.index(*_VMS)
async def machines(namespace: str, name: str, body: kopf.Body, **_: Any) -> dict[tuple[str, str], Any]:
    """Index every VM, for the events of its pod."""
    return {(namespace, name): body}


@kopf.index("pods", labels={names.VM_LABEL: kopf.PRESENT})
async def launchers(namespace: str, labels: kopf.Labels, body: kopf.Body, **_: Any) -> dict[tuple[str, str], Any]:
    """Index every launcher pod, for the changes of its VM."""
    return {(namespace, labels[names.VM_LABEL]): body}


@kopf.on.create(*_VMS)
@kopf.on.resume(*_VMS)
async def ensure_pod(body: kopf.Body, launchers: kopf.Index, memo: kopf.Memo, **_: Any) -> None:
    """Create the VM's pod, unless it exists."""
    vm = msgspec.convert(dict(body), VirtualMachine)
    if vm.spec.running and not launchers.get((vm.metadata.namespace, vm.metadata.name)):
        await _create(memo.api, vm, vm.status.incarnation or 0)


@kopf.on.update(*_VMS)
async def carry_consumption(body: kopf.Body, launchers: kopf.Index, memo: kopf.Memo, **_: Any) -> None:
    """Copy the VM's consumption to its pod, whose event then publishes it; delete the pod of a stopped VM."""
    vm = msgspec.convert(dict(body), VirtualMachine)
    api = client.CoreV1Api(memo.api)
    for found in launchers.get((vm.metadata.namespace, vm.metadata.name), ()):
        pod = msgspec.convert(dict(found), Pod)
        if not vm.spec.running:
            delete = api.delete_namespaced_pod
            await _answered(
                delete(pod.metadata.name, pod.metadata.namespace, _preload_content=False), HTTPStatus.NOT_FOUND
            )
            continue
        used = launcher.consumption(vm, launcher.requested(vm)).shares
        wanted = launcher.usage_annotations(used, _POLICY.reference)
        if any(pod.metadata.annotations.get(key) != value for key, value in wanted.items()):
            change = {"metadata": {"uid": pod.metadata.uid, "annotations": wanted}}
            await _answered(
                api.patch_namespaced_pod(
                    *(pod.metadata.name, pod.metadata.namespace, change),
                    _content_type=_MERGE_PATCH,
                    _preload_content=False,
                ),
                HTTPStatus.NOT_FOUND,
            )


@kopf.on.event("pods", labels={names.VM_LABEL: kopf.PRESENT})
async def follow(
    body: kopf.Body,
    machines: kopf.Index,
    memo: kopf.Memo,
    *,
    type: str | None,  # noqa: A002 - Kopf's name
    **_: Any,
) -> None:
    """Publish the state of a pod; replace a deleted one."""
    pod = msgspec.convert(dict(body), Pod)
    found = machines.get((pod.metadata.namespace, pod.metadata.labels[names.VM_LABEL]), ())
    vm = next((msgspec.convert(dict(vm), VirtualMachine) for vm in found), None)
    if vm is None or vm.metadata.deletion_timestamp is not None or not ownership.belongs_to(pod, vm):
        return
    # The index may not contain our last write yet, but this pod's memo does.
    vm = msgspec.structs.replace(vm, status=memo.get("status", vm.status))
    incarnation = ownership.incarnation(pod) or 0
    if type != "DELETED":
        memo.status = await _publish(memo.api, vm, _status(vm, pod, incarnation))
    elif vm.spec.running:
        await _create(memo.api, vm, incarnation + 1)


def _status(vm: VirtualMachine, pod: Pod, incarnation: int) -> VMStatus:
    now = times.timestamp(datetime.now(UTC))
    used = launcher.consumption(vm, launcher.requested(vm)).shares
    target = VMStatus(
        phase=str(status.pod_phase(pod)),
        node_name=pod.spec.node_name,
        pod_name=pod.metadata.name,
        pod_uid=pod.metadata.uid,
        incarnation=incarnation,
        created_at=vm.status.created_at or vm.metadata.creation_timestamp,
        cpu_consumption=used.cpu_text,
        memory_consumption=used.memory_text,
    )
    return status.extend(
        vm,
        target,
        steps=status.new_steps(vm.status, incarnation, pod, now),
        standing=(status.pod_readiness(pod),),
        now=now,
        history_limit=HISTORY_LIMIT,
    )


async def _publish(api: client.ApiClient, vm: VirtualMachine, wanted: VMStatus) -> VMStatus:
    """Write a status; Kopf does not retry the handlers of events, so a failed write is retried here."""
    if wanted == vm.status:
        return wanted
    change = {"metadata": {"uid": vm.metadata.uid}, "status": msgspec.to_builtins(wanted)}
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            await _answered(
                client.CustomObjectsApi(api).patch_namespaced_custom_object_status(
                    *(names.GROUP, names.VERSION, vm.metadata.namespace, names.VM_PLURAL, vm.metadata.name, change),
                    _content_type=_MERGE_PATCH,
                    _preload_content=False,
                ),
                HTTPStatus.NOT_FOUND,
            )
        except (kopf.TemporaryError, ClientError):
            if attempt == _ATTEMPTS:
                raise
            await asyncio.sleep(attempt)
        else:
            break
    return wanted


async def _create(api: client.ApiClient, vm: VirtualMachine, incarnation: int) -> None:
    spec = launcher.requested(vm)
    body = launcher.manifest(vm, incarnation, spec, launcher.consumption(vm, spec).shares, _POLICY)
    create = client.CoreV1Api(api).create_namespaced_pod
    await _answered(create(vm.metadata.namespace, body, _preload_content=False), HTTPStatus.CONFLICT)


async def _answered(request: Awaitable[Any], *fine: HTTPStatus) -> None:
    """Await a reply without decoding it. Raises TemporaryError for an HTTP error other than `fine`."""
    response = await request
    text = await response.text()
    if response.status >= HTTPStatus.BAD_REQUEST and response.status not in fine:
        raise kopf.TemporaryError(text, delay=1)
