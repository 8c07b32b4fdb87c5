"""The scenarios: acts of a user during which a fault strikes, and their required end.

Guarantees: a scenario has one possible end. Where a fault could change the order of events (a migration that ends
before the VM is deleted), a finalizer on the pod enforces it: each step waits until the one before has been seen.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from controller.domain import ownership
from controller.domain.objects import Strategy
from controller.kube.kinds import Pod
from tests.faults.stage import VM, Scene, runs
from tests.faults.witness import ClusterState

Play: TypeAlias = Callable[[Scene], Awaitable[None]]
End: TypeAlias = Callable[[ClusterState], bool]

LIVE: Final = "live"
"""The scenario of an undisturbed live migration; the names of the others begin with it."""
_SECOND: Final = "vm-2"
_ENDS: Final = 2
_UNENDING: Final = 3600.0
"""Seconds of copying that no run outlasts: whatever the fault, the act comes before the hand-over."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """`prepare` runs before the fault is set, `act` after; `ended` is the state that must be reached.

    `copying`: seconds for which a live migration copies.
    """

    name: str
    prepare: Play
    act: Play
    ended: End
    copying: float = 1.0


def _migrated(seen: ClusterState, vm: str = VM) -> bool:
    migration = seen.migration(vm)
    return migration is not None and migration.finished and runs(seen, vm)


def _deleted(seen: ClusterState) -> bool:
    return seen.vm(VM) is None and not any(
        (owner := ownership.owner(pod)) is not None and owner.name == VM for pod in seen.pods.values()
    )


def _later(seen: ClusterState, than: int) -> bool:
    """Whether the VM runs in a later incarnation."""
    vm = seen.vm(VM)
    return runs(seen) and vm is not None and (vm.status.incarnation or 0) > than


async def _nothing(scene: Scene) -> None:
    del scene


async def _have_running(scene: Scene) -> None:
    await scene.stage.create_vm()
    await scene.running()


async def _have_stopped(scene: Scene) -> None:
    await _have_running(scene)
    await scene.stage.run_vm(running=False)
    await scene.until(_stopped, "the VM is stopped")


def _stopped(seen: ClusterState) -> bool:
    vm = seen.vm(VM)
    return vm is not None and vm.status.phase == "Stopped" and not seen.pods_of(vm)


async def _create(scene: Scene) -> None:
    await scene.stage.create_vm()


async def _stop(scene: Scene) -> None:
    await scene.stage.run_vm(running=False)


async def _start(scene: Scene) -> None:
    await scene.stage.run_vm(running=True)


async def _delete(scene: Scene) -> None:
    await scene.stage.delete_vm()


async def _recreate(scene: Scene) -> None:
    first = scene.vm().metadata.uid
    await scene.stage.delete_vm()
    await scene.stage.create_vm()
    await scene.until(
        lambda seen: (vm := seen.vm(VM)) is not None and vm.metadata.uid != first, "the VM has another UID"
    )


async def _delete_pod(scene: Scene) -> None:
    await scene.stage.delete_pod(scene.pod())


async def _delete_pod_twice(scene: Scene) -> None:
    first = scene.pod()
    await scene.stage.delete_pod(first)
    await scene.until(lambda seen: _later(seen, 0), "the VM runs in another pod")
    await scene.stage.delete_pod(scene.pod())


async def _evict(scene: Scene) -> None:
    await scene.stage.evict(scene.pod())


async def _fail(scene: Scene) -> None:
    await scene.stage.fail(scene.pod())


async def _lose_node(scene: Scene) -> None:
    await scene.stage.delete_node(scene.stage.node_a)


async def _open_and_have_running(scene: Scene) -> None:
    await _have_running(scene)
    await scene.stage.open(scene.stage.node_b)


async def _migrate(scene: Scene) -> None:
    await scene.stage.migrate()


async def _have_running_with_finalizer(scene: Scene) -> None:
    await _open_and_have_running(scene)
    await scene.stage.hold(scene.pod())
    await scene.until(
        lambda seen: any(pod.metadata.finalizers for pod in seen.pods.values()), "the pod has a finalizer"
    )


def _terminates(seen: ClusterState) -> bool:
    """Whether the migration is in phase Terminating, and so is the source with its finalizer."""
    vm, migration = seen.vm(VM), seen.migration(VM)
    return (
        vm is not None
        and any(pod.terminating for pod in seen.pods_of(vm))
        and migration is not None
        and migration.status.phase == "Terminating"
    )


async def _migrate_and_delete(scene: Scene) -> None:
    source = scene.pod()
    await scene.stage.migrate()
    await scene.until(_terminates, "the source terminates")
    await scene.stage.delete_vm()
    await scene.until(lambda seen: seen.vm(VM) is None, "the VM is deleted")
    await scene.stage.release(source)


def _deleted_with_its_migration(seen: ClusterState) -> bool:
    return seen.migration(VM) is None and _deleted(seen)


async def _migrate_and_lose_target(scene: Scene) -> None:
    source = scene.pod()
    await scene.stage.migrate()
    await scene.until(_terminates, "the source terminates")
    await scene.stage.close(scene.stage.node_b)  # the target fits no node, so it waits until it is deleted
    await scene.stage.release(source)
    await scene.until(_target_waits, "the target waits for a node")
    await scene.stage.delete_pod(scene.pod())
    await scene.stage.open(scene.stage.node_b)


def _target_waits(seen: ClusterState) -> bool:
    """Whether the VM's second incarnation has its pod, and the VM's status and the migration's name it."""
    vm, migration = seen.vm(VM), seen.migration(VM)
    if vm is None or migration is None:
        return False
    pods = seen.pods_of(vm)
    return (
        len(pods) == 1
        and ownership.incarnation(pods[0]) == 1
        and vm.status.pod_uid == pods[0].metadata.uid
        and migration.status.target_pod == pods[0].metadata.name
    )


async def _have_two_running(scene: Scene) -> None:
    await scene.stage.create_vm()
    await scene.stage.create_vm(_SECOND)
    await scene.running(VM, _SECOND)
    await scene.stage.open(scene.stage.node_b)


async def _drain(scene: Scene) -> None:
    await scene.stage.close(scene.stage.node_a)
    await scene.stage.migrate(VM)
    await scene.stage.migrate(_SECOND)


def _drained(seen: ClusterState) -> bool:
    return _migrated(seen, VM) and _migrated(seen, _SECOND)


async def _move(scene: Scene) -> None:
    await scene.stage.migrate(strategy=Strategy.LIVE)


async def _move_until_copying(scene: Scene) -> tuple[Pod, Pod]:
    """Return the ends of a live migration that copies."""
    await _move(scene)
    await scene.until(_copies, "the migration copies")
    return scene.ends()


def _copies(seen: ClusterState) -> bool:
    vm, migration = seen.vm(VM), seen.migration(VM)
    copying = migration is not None and migration.status.phase == "Running"
    return copying and vm is not None and len(seen.pods_of(vm)) == _ENDS


async def _move_and_cancel(scene: Scene) -> None:
    await _move_until_copying(scene)
    await scene.stage.cancel()


async def _move_and_evict_target(scene: Scene) -> None:
    _, target = await _move_until_copying(scene)
    await scene.stage.evict(target)


async def _move_and_delete_source(scene: Scene) -> None:
    source, _ = await _move_until_copying(scene)
    await scene.stage.delete_pod(source)


async def _move_and_stop(scene: Scene) -> None:
    await _move_until_copying(scene)
    await _stop(scene)


def _failed(seen: ClusterState) -> bool:
    migration = seen.migration(VM)
    return migration is not None and migration.status.phase == "Failed"


SCENARIOS: Final[Mapping[str, Scenario]] = {
    scenario.name: scenario
    for scenario in (
        Scenario("create", _nothing, _create, runs),
        Scenario("stop", _have_running, _stop, _stopped),
        Scenario("start", _have_stopped, _start, runs),
        Scenario("delete", _have_running, _delete, _deleted),
        Scenario("recreate", _have_running, _recreate, runs),
        Scenario("pod deleted", _have_running, _delete_pod, lambda seen: _later(seen, 0)),
        Scenario("pod deleted twice", _have_running, _delete_pod_twice, lambda seen: _later(seen, 0)),
        Scenario("pod evicted", _open_and_have_running, _evict, lambda seen: _later(seen, 0) and _recorded(seen)),
        Scenario("pod failed", _have_running, _fail, lambda seen: _later(seen, 0)),
        Scenario("node lost", _open_and_have_running, _lose_node, lambda seen: _later(seen, 0) and _recorded(seen)),
        Scenario("migrate", _open_and_have_running, _migrate, _migrated),
        Scenario("migrate, VM deleted", _have_running_with_finalizer, _migrate_and_delete, _deleted_with_its_migration),
        Scenario("migrate, target lost", _have_running_with_finalizer, _migrate_and_lose_target, _migrated),
        Scenario("drain", _have_two_running, _drain, _drained),
        Scenario(LIVE, _open_and_have_running, _move, _migrated),
        *(
            Scenario(f"{LIVE}, {name}", _open_and_have_running, act, ended, copying=_UNENDING)
            for name, act, ended in (
                ("cancelled", _move_and_cancel, _migrated),
                ("target evicted", _move_and_evict_target, _migrated),
                ("source deleted", _move_and_delete_source, lambda seen: _migrated(seen) and _later(seen, 1)),
                ("stopped", _move_and_stop, lambda seen: _failed(seen) and _stopped(seen)),
            )
        ),
    )
}


def _recorded(seen: ClusterState) -> bool:
    """Whether the eviction's record, if there is one, has finished."""
    return all(found.finished for found in seen.migrations.values())
