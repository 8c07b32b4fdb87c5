"""A malformed object affects no other object, and no listener, reconciler, probe or scrape.

Every field of every kind is mutated, by the types that the codec decodes and by our CRDs' schemas. `make test` delivers
each field to the caches with some of the values, and to the reconcilers with one of them, the same each time.
`HYPOTHESIS_PROFILE=long` delivers each field with every value, and thousands of objects with several malformed fields.
"""

from __future__ import annotations

import os
from itertools import groupby
from random import Random
from typing import Any, Final

import pytest

from controller.domain import names
from controller.domain.resources import MIGRATIONS, VIRTUAL_MACHINES
from controller.kube import codec, errors
from controller.kube.resources import NODES, PODS, Resource
from tests.model.rules import Document
from tests.properties.odd_world import ODD_MARK, OddWorld
from tests.properties.oddities import KINDS, Mutation, fields, mutated, mutations

pytestmark = pytest.mark.looptime

LONG: Final = os.environ.get("HYPOTHESIS_PROFILE") == "long"
OF_VALUES: Final = 1 if LONG else 23
"""Each field is delivered to the caches with one in so many of the values."""
ALWAYS: Final = ("PhasePaused", "NaN")
"""The values that each field is delivered with in any case."""
BATCH: Final = 40
"""Malformed objects that the reconcilers see at a time."""
BATCHES: Final = 100 if LONG else 2
"""Batches of objects with several malformed fields."""
SEED: Final = int(os.environ.get("ODD_SEED", "1"))
_IDENTITY: Final = frozenset(("name", "namespace", "uid", "resourceVersion"))
_STAMP: Final = "2026-01-15T10:00:00Z"


def _conditions(*kinds: str) -> list[Document]:
    return [
        {"type": kind, "status": "True", "lastTransitionTime": _STAMP, "reason": "R", "message": "M"} for kind in kinds
    ]


_META: Final = {"creationTimestamp": _STAMP, "generation": 1, "labels": {}, "annotations": {}}
_AMOUNT: Final = {"cpu": "1", "memory": "1Gi"}
_CLAIM: Final = {"name": "m", "uid": "u", "sourceNode": "node-1", "sourceIncarnation": 0, "reservedNode": "node-2"}
SOUND: Final[dict[str, Document]] = {
    VIRTUAL_MACHINES.plural: {
        "metadata": {**_META, "namespace": "default"},
        "spec": {"resources": {"cpu": "0.10", "memory": "0.15"}, "running": True},
        "status": {
            "phase": "Running",
            "incarnation": 0,
            "nodeName": "node-3",
            "podName": "p",
            "podUID": "u",
            "createdAt": _STAMP,
            "startFailure": {"consecutiveFailCount": 1, "lastFailedPodUID": "u", "retryAfterTimestamp": _STAMP},
            "migration": _CLAIM,
            "conditions": _conditions("Ready", "PhasePending", "PhaseScheduling", "PhaseRunning"),
        },
    },
    MIGRATIONS.plural: {
        "metadata": {**_META, "namespace": "default"},
        "spec": {"vmName": "none", "unschedulableTimeoutSeconds": 30, "completionTimeoutSeconds": 30},
        "status": {
            "phase": "Succeeded",
            "vmUID": "u",
            "phaseTransitionTimestamps": [
                {"phase": phase, "phaseTransitionTimestamp": _STAMP} for phase in ("Pending", "Succeeded")
            ],
            "sourceNode": "node-1",
            "startTimestamp": _STAMP,
            "endTimestamp": _STAMP,
            "downtimeSeconds": "1.5",
            "conditions": _conditions("Completed"),
        },
    },
    PODS.plural: {
        "metadata": {
            **_META,
            "namespace": "default",
            "labels": {names.VM_LABEL: "none"},
            "annotations": {names.INCARNATION: "0", names.CPU_CONSUMPTION: "0.10", names.REQUESTED_CPU: "0.10"},
            "ownerReferences": [
                {
                    "apiVersion": names.API_VERSION,
                    "kind": names.VM_KIND,
                    "name": "none",
                    "uid": "u",
                    "controller": True,
                }
            ],
        },
        "spec": {
            "nodeName": "node-3",
            "containers": [{"name": "c", "resources": {"requests": _AMOUNT, "limits": _AMOUNT}}],
            "initContainers": [{"name": "i", "restartPolicy": "Always", "resources": {"requests": _AMOUNT}}],
            "overhead": _AMOUNT,
        },
        "status": {
            "phase": "Running",
            "startTime": _STAMP,
            "conditions": _conditions("PodScheduled", "Ready"),
            "containerStatuses": [{"name": "c", "allocatedResources": _AMOUNT, "resources": {"requests": _AMOUNT}}],
        },
    },
    NODES.plural: {
        "metadata": {**_META, "namespace": "", "labels": {"type": "kwok"}},
        "spec": {"taints": [{"key": "k", "value": "v", "effect": "NoExecute"}]},
        "status": {
            "allocatable": {"cpu": "32", "memory": "256Gi", "pods": "110"},
            "conditions": _conditions("Ready"),
        },
    },
}


def named(plural: str, name: str) -> Document:
    """Return a well-formed object."""
    document = mutated(SOUND[plural])
    document["metadata"] |= {"name": name, "uid": f"uid-{name}", "resourceVersion": "1"}
    return document


def decodes(resource: Resource[Any], document: Document) -> bool:
    """Whether the object's metadata decodes."""
    try:
        codec.decode_object(codec.encode(document), resource.type)
    except errors.MalformedReplyError:
        return False
    return True


def resource_of(plural: str) -> Resource[Any]:
    """Return the resource of this plural."""
    return next(resource for resource in KINDS if resource.plural == plural)


async def running() -> OddWorld:
    """Return a world in which two VMs run."""
    world = OddWorld()
    for node in ("node-1", "node-2", "node-3"):
        world.cluster.add_large_node(node)
    for vm in ("moving", "deleted"):
        world.cluster.apply_vm(vm)
    await world.until(lambda: all(world.cluster.status(vm)["phase"] == "Running" for vm in ("moving", "deleted")))
    return world


# --- the caches and their listeners -------------------------------------------------------------------------------


@pytest.mark.parametrize("plural", [resource.plural for resource in KINDS])
async def test_no_listener_fails_on_a_malformed_object(plural: str) -> None:
    """It is added, changed, corrected and deleted by watches, and is in a list."""
    world = await running()
    try:
        chosen = [
            mutation
            for at, mutation in enumerate(mutations(plural))
            if at % OF_VALUES == SEED % OF_VALUES or mutation.value in ALWAYS
        ]
        assert {mutation.at for mutation in chosen} == set(fields(plural))
        for count, mutation in enumerate(chosen):
            await _show(world, mutation, f"odd-{count}")
            if count % 500 == 0:
                await world.judge()
            world.process.pending.clear()
            world.process.moving.clear()
        for mutation in chosen:
            if mutation.at[0] != "metadata":
                malformed = mutated(named(plural, f"odd-{len(world.cluster.objects)}"), mutation)
                world.cluster.store_malformed(plural, malformed)
        await world.deliver(expired=True)
        await world.judge()
    finally:
        await world.close()
    print(f"{plural}: {len(chosen)} malformed objects delivered to the caches")  # noqa: T201 - shown with -s


async def _show(world: OddWorld, mutation: Mutation, name: str) -> None:
    plural = mutation.plural
    sound = named(plural, name)
    malformed = mutated(sound, mutation)
    began = {**sound, "status": {"phase": "Pending", "incarnation": 0}}
    events = [
        (began, False),
        (malformed, False),
        (sound, False),
        (malformed, False),
        (malformed, True),
        (malformed, False),
        (malformed, True),
    ]
    for document, deleted in events:
        world.cluster.revision += 1
        if mutation.at[:2] != ("metadata", "resourceVersion") and isinstance(document.get("metadata"), dict):
            version = str(world.cluster.revision)
            document = {**document, "metadata": {**document["metadata"], "resourceVersion": version}}  # noqa: PLW2901
        world.cluster.deliver_event(plural, document, deleted=deleted)
    try:
        await world.deliver()
        key = f"{sound['metadata'].get('namespace', '')}/{name}"
        renamed = mutation.at[0] == "metadata" and mutation.at[1:2] in {(), *((part,) for part in _IDENTITY)}
        assert renamed or all(store.get(key) is None for store in world._stores()), (
            "the cache still has the deleted object"
        )
    except AssertionError as error:
        raise AssertionError(f"{mutation!r}: {error}") from error
    if mutation.at[:1] == ("metadata",):
        world.cluster.revision += 1
        sound["metadata"]["resourceVersion"] = str(world.cluster.revision)
        world.cluster.deliver_event(plural, sound, deleted=True)
        await world.deliver()


# --- the reconcilers ------------------------------------------------------------------------------------------------


def storable(mutation: Mutation) -> bool:
    """Whether an API server can store such an object: it sets the identity itself."""
    if mutation.at[0] in ("apiVersion", "kind"):
        return False
    if mutation.at[0] != "metadata":
        return True
    return (
        len(mutation.at) > 1
        and mutation.at[1] not in _IDENTITY
        and decodes(resource_of(mutation.plural), mutated(named(mutation.plural, "x"), mutation))
    )


async def serve(batch: list[tuple[Mutation, ...]]) -> None:
    """Mutate VMs, pods and migrations in use, and nodes; then create, migrate and delete other VMs."""
    world = await running()
    cluster = world.cluster
    try:
        hosts = {at: f"host-{at}" for at, found in enumerate(batch) if found[0].plural != NODES.plural}
        for host in hosts.values():
            cluster.apply_vm(host)
        await world.until(lambda: all(cluster.status(host)["phase"] == "Running" for host in hosts.values()))
        for at, found in enumerate(batch):
            _spoil(world, at, found)
        await world.until(lambda: True)
        await world.deliver(expired=True)
        await _serve_the_sound(world)
        await world.judge()
        cluster.remove_odd()
        await world.until(lambda: True)
        await world.judge()
    except AssertionError as error:
        if len(batch) > 1:
            for found in batch:
                await serve([found])  # to find the one that fails
        raise AssertionError(f"{batch!r}: {error}") from error
    finally:
        await world.close()


def _spoil(world: OddWorld, at: int, found: tuple[Mutation, ...]) -> None:
    cluster, plural, host = world.cluster, found[0].plural, f"host-{at}"
    if plural == NODES.plural:
        cluster.store_malformed(plural, mutated(named(plural, f"odd-{at}"), *found))
        return
    if plural == MIGRATIONS.plural:
        migration = named(plural, f"odd-{at}")
        migration["spec"]["vmName"] = host
        if at % 2:
            migration["status"] = {"phase": "Pending"}
        cluster.store_malformed(plural, mutated(migration, *found))
        return
    if plural == VIRTUAL_MACHINES.plural:
        document = cluster.vm(host)
    else:
        document = next(pod for pod in cluster.pods() if pod["metadata"]["labels"][names.VM_LABEL] == host)
    if found[0].at[:2] in (("status", "migration"), ("status", "startFailure")):
        part = str(found[0].at[1])
        document = {**document, "status": {**document["status"], part: SOUND[plural]["status"][part]}}
    cluster.store_malformed(plural, mutated(document, *found))


async def _serve_the_sound(world: OddWorld) -> None:
    """Create a VM, move one, delete one."""
    cluster = world.cluster
    cluster.apply_vm("created")
    before = cluster.status("moving")["nodeName"]
    cluster.migrate("valid", vm="moving", priority="system-critical")
    uid = cluster.vm("deleted")["metadata"]["uid"]
    cluster.remove(VIRTUAL_MACHINES, "default/deleted")

    def served() -> bool:
        moved = cluster.migration("valid")["phase"] == "Succeeded" and cluster.status("moving")["phase"] == "Running"
        return moved and cluster.status("created")["phase"] == "Running" and not cluster.live(uid)

    await world.until(served)
    assert cluster.status("moving")["nodeName"] != before
    assert ODD_MARK not in cluster.vm("moving")
    assert cluster.touched == []


@pytest.mark.parametrize("plural", [resource.plural for resource in KINDS])
async def test_other_vms_are_served_beside_malformed_objects(plural: str) -> None:
    """One is created, one moves, one is deleted; probes and scrapes answer."""
    rng = Random(SEED)  # noqa: S311 - no secret
    possible = [mutation for mutation in mutations(plural) if storable(mutation)]
    if not LONG:
        possible = [rng.choice(list(same)) for _, same in groupby(possible, lambda mutation: mutation.at)]
    for at in range(0, len(possible), BATCH):
        await serve([(mutation,) for mutation in possible[at : at + BATCH]])
    print(f"{plural}: {len(possible)} malformed objects delivered to the reconcilers")  # noqa: T201 - shown with -s


async def test_other_vms_are_served_beside_objects_with_several_malformed_fields() -> None:
    """Of all kinds at once."""
    rng = Random(SEED)  # noqa: S311 - no secret
    possible = {
        resource.plural: [found for found in mutations(resource.plural) if storable(found)] for resource in KINDS
    }
    for _ in range(BATCHES):
        kinds = [rng.choice(KINDS).plural for _ in range(BATCH)]
        await serve([tuple(rng.sample(possible[plural], rng.randint(2, 5))) for plural in kinds])
    print(f"{BATCH * BATCHES} objects with several malformed fields")  # noqa: T201 - shown with -s
