"""`decide` and the migration state machine settle from any state, reachable or not.

The same view gives the same plan. Carrying plans out, without other changes, leads in a few steps to a view whose plan
is empty or waits. No plan creates a pod while the view has a live one of the VM. A finished migration stays finished.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.domain import names
from controller.domain.migration.decide import decide as decide_migration
from controller.domain.migration.phases import Reason
from controller.domain.migration.plan import Answers, Ask, ClaimVM, Refused, WriteMigration
from controller.domain.migration.plan import Plan as MigrationPlan
from controller.domain.migration.plan import View as MigrationView
from controller.domain.objects import VirtualMachine, VirtualMachineMigration
from controller.domain.resources import VIRTUAL_MACHINES
from controller.domain.vm.decide import decide
from controller.domain.vm.plan import Circumstances, CreatePod, View
from controller.kube.kinds import Pod
from controller.kube.resources import PODS
from tests.model.cluster import Cluster
from tests.model.rules import Document
from tests.unit.reconcilers.harness import POLICY, Process

STEPS: Final = 12
"""More than the longest sequence: delete old pods, delete the current one, move the incarnation, create."""
NOW: Final = datetime(2026, 1, 15, 10, 0, tzinfo=UTC)
FEW: Final = settings(
    max_examples=200, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
VM_PHASES: Final = ("Pending", "Scheduling", "Scheduled", "Running", "Failed", "Stopped")
MIGRATION_PHASES: Final = ("Pending", "Terminating", "Scheduling", "Starting", "Succeeded", "Failed")


def maybe(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Document]:
    """Return documents with any of these fields."""
    return st.fixed_dictionaries({}, optional=fields)


INCARNATION: Final = st.integers(0, 3)
CLAIM: Final = maybe(
    name=st.just("m-1"),
    uid=st.sampled_from(["mine", "another's"]),
    sourceNode=st.just("node-1"),
    sourceIncarnation=INCARNATION,
    rollback=st.booleans(),
)
VM_STATUS: Final = maybe(
    phase=st.sampled_from(VM_PHASES),
    incarnation=INCARNATION,
    podUID=st.just("seen"),
    podName=st.just("virt-launcher-vm-1-xxxxx"),
    nodeName=st.just("node-1"),
    startFailure=maybe(
        consecutiveFailCount=INCARNATION,
        retryAfterTimestamp=st.sampled_from(["2026-01-15T09:00:00Z", "2026-01-15T10:01:00Z"]),
    ),
    migration=CLAIM,
)
VM: Final = st.builds(
    lambda running, cpu, status: {
        "metadata": {"name": "vm-1", "namespace": "default"},
        "spec": {"resources": {"cpu": cpu, "memory": "0.10"}, "running": running},
        "status": {"phase": "Pending", **status},
    },
    st.booleans(),
    st.sampled_from(["0.10", "plenty"]),
    VM_STATUS,
)
FAILED: Final = msgspec.convert(
    {
        "metadata": {"name": "m-0", "namespace": "default", "uid": "before"},
        "spec": {"vmName": "vm-1"},
        "status": {
            "phase": "Failed",
            "vmUID": "vm",
            "startTimestamp": "2026-01-15T09:59:00Z",
            "endTimestamp": "2026-01-15T10:00:00Z",
        },
    },
    VirtualMachineMigration,
)
"""It causes a backoff of 20 s."""
PODS_OF_ONE: Final = st.lists(
    st.fixed_dictionaries(
        {
            "incarnation": st.none() | INCARNATION,
            "phase": st.sampled_from(["Pending", "Running", "Failed", "Succeeded"]),
            "owner": st.sampled_from(["vm", "vm", "vm", "predecessor"]),
            "node": st.none() | st.just("node-1"),
            "terminating": st.booleans(),
        }
    ),
    max_size=3,
    unique_by=lambda pod: (pod["owner"], pod["incarnation"]),
)


def pod_of(vm: Document, drawn: Document) -> Document:
    """Return a pod of a VM, or of its namesake."""
    uid = vm["metadata"]["uid"] if drawn["owner"] == "vm" else "predecessor"
    owner = {"apiVersion": names.API_VERSION, "kind": names.VM_KIND, "name": "vm-1", "uid": uid, "controller": True}
    incarnation = drawn["incarnation"]
    metadata: Document = {
        "name": names.pod_name("vm-1", uid, 99 if incarnation is None else incarnation),
        "namespace": "default",
        "labels": {names.VM_LABEL: "vm-1"},
        "annotations": {} if incarnation is None else {names.INCARNATION: str(incarnation)},
        "ownerReferences": [owner],
    }
    if drawn["terminating"]:
        metadata["deletionTimestamp"] = "2026-01-15T10:00:00Z"
    spec = {} if drawn["node"] is None else {"nodeName": drawn["node"]}
    return {"metadata": metadata, "spec": spec, "status": {"phase": drawn["phase"]}}


def view_of(process: Process) -> View:
    """Return the VM and its pods in a process's caches."""
    return View(process.caches.vms.get("default/vm-1"), process.caches.pods.by_index("default/vm-1"))


@FEW
@given(VM, PODS_OF_ONE)
def test_a_vm_settles_from_any_state(vm: Document, pods: list[Document]) -> None:
    """Without a scheduler and without faults; only terminating pods are deleted."""
    cluster = Cluster(now=NOW)
    cluster.add_node("node-1")
    created = cluster.add(VIRTUAL_MACHINES.plural, vm)
    for drawn in pods:
        cluster.add(PODS.plural, pod_of(created, drawn))
    process = Process(cluster)
    cluster.pass_time(60)  # creates of a previous process have settled

    async def settle() -> None:
        for _ in range(STEPS):
            before = cluster.revision
            process.deliver()
            view = view_of(process)
            plan = decide(view, POLICY, Circumstances(now=cluster.now))
            assert plan == decide(view, POLICY, Circumstances(now=cluster.now))
            live = [pod for pod in view.pods if not pod.done]
            assert not live or not any(isinstance(action, CreatePod) for action in plan.actions)
            await process.reconcile()
            cluster.finish_deletions()
            if cluster.revision == before:
                return
        raise AssertionError(f"not settled: {view_of(process)}")

    asyncio.run(settle())


@FEW
@given(
    vm=VM,
    pods=PODS_OF_ONE,
    phase=st.sampled_from(MIGRATION_PHASES),
    spec=maybe(cancel=st.booleans(), recordOf=st.just("gone")),
    refused=st.none()
    | st.builds(Refused, st.sampled_from([Reason.NO_ROOM, Reason.LIMIT]), st.just("no"), st.booleans()),
    history=st.sampled_from([(), (FAILED,)]),
    exists=st.booleans(),
)
def test_a_migration_settles_from_any_state(
    *,
    vm: Document,
    pods: list[Document],
    phase: str,
    spec: Document,
    refused: Refused | None,
    history: tuple[VirtualMachineMigration, ...],
    exists: bool,
) -> None:
    """While the VM and its pods do not change, the plan is empty or waits after a few steps."""
    vm = {**vm, "metadata": {**vm["metadata"], "uid": "vm"}}
    found: VirtualMachine | None = msgspec.convert(vm, VirtualMachine) if exists else None
    migration = msgspec.convert(
        {
            "metadata": {"name": "m-1", "namespace": "default", "uid": "mine"},
            "spec": {"vmName": "vm-1", **spec},
            "status": {"phase": phase},
        },
        VirtualMachineMigration,
    )
    seen = tuple(msgspec.convert(pod_of(vm, drawn), Pod) for drawn in pods)
    ended = migration.finished
    for _ in range(STEPS):
        view = MigrationView(migration, found, seen, NOW, history=history)
        plan = decide_migration(view, POLICY)
        if isinstance(plan, Ask):
            answers = Answers(slot=refused is None, node="node-2", accepted=True, refused=refused)
            plan = decide_migration(msgspec.structs.replace(view, answers=answers), POLICY)
        assert isinstance(plan, MigrationPlan)
        if not plan.actions:
            break
        for action in plan.actions:
            match action:
                case WriteMigration():
                    assert not ended, "a finished migration is not written again"
                    migration = msgspec.structs.replace(migration, status=action.status)
                case ClaimVM():
                    assert found is not None
                    status = msgspec.structs.replace(found.status, migration=action.claim)
                    found = msgspec.structs.replace(found, status=status)
        ended = migration.finished
    else:
        raise AssertionError(f"not settled: {migration} {found}")
    claim = found.status.migration if found is not None else None
    assert not (ended and claim is not None and claim.uid == "mine"), "a finished migration still claims its VM"
