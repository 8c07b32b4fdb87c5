"""`decide` and the migration state machine from any state at all, reachable or not: they come to rest.

The same view gives the same plan; carrying plans out, with nobody else doing anything, leads in a few steps to a view
whose plan is empty or waits; no plan creates a pod while a live one of the VM is in view; what has ended stays ended.
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
"""More than the longest way there is: delete what is old, delete what is current, move on, create."""
NOW: Final = datetime(2026, 1, 15, 10, 0, tzinfo=UTC)
FEW: Final = settings(
    max_examples=200, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
VM_PHASES: Final = ("Pending", "Scheduling", "Scheduled", "Running", "Failed", "Stopped")
MIGRATION_PHASES: Final = ("Pending", "Terminating", "Scheduling", "Starting", "Succeeded", "Failed")


def maybe(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Document]:
    """Documents with any of these fields."""
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
"""It makes the next one wait for 20 s."""
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


def pod_of(vm: Document, wish: Document) -> Document:
    """Make a pod of a VM, or of one that had its name before."""
    uid = vm["metadata"]["uid"] if wish["owner"] == "vm" else "predecessor"
    owner = {"apiVersion": names.API_VERSION, "kind": names.VM_KIND, "name": "vm-1", "uid": uid, "controller": True}
    incarnation = wish["incarnation"]
    metadata: Document = {
        "name": names.pod_name("vm-1", uid, 99 if incarnation is None else incarnation),
        "namespace": "default",
        "labels": {names.VM_LABEL: "vm-1"},
        "annotations": {} if incarnation is None else {names.INCARNATION: str(incarnation)},
        "ownerReferences": [owner],
    }
    if wish["terminating"]:
        metadata["deletionTimestamp"] = "2026-01-15T10:00:00Z"
    spec = {} if wish["node"] is None else {"nodeName": wish["node"]}
    return {"metadata": metadata, "spec": spec, "status": {"phase": wish["phase"]}}


def view_of(process: Process) -> View:
    """Return what the process sees of the VM."""
    return View(process.caches.vms.get("default/vm-1"), process.caches.pods.by_index("default/vm-1"))


@FEW
@given(VM, PODS_OF_ONE)
def test_from_any_state_a_vm_comes_to_rest(vm: Document, pods: list[Document]) -> None:
    """Nobody schedules and nothing fails meanwhile; only what terminates goes."""
    cluster = Cluster(now=NOW)
    cluster.add_node("node-1")
    made = cluster.add(VIRTUAL_MACHINES.plural, vm)
    for wish in pods:
        cluster.add(PODS.plural, pod_of(made, wish))
    process = Process(cluster)
    cluster.pass_time(60)  # what a process before may have left under way has settled

    async def rest() -> None:
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
        raise AssertionError(f"still restless: {view_of(process)}")

    asyncio.run(rest())


@FEW
@given(
    vm=VM,
    pods=PODS_OF_ONE,
    phase=st.sampled_from(MIGRATION_PHASES),
    spec=maybe(cancel=st.booleans(), recordOf=st.just("gone")),
    refused=st.none()
    | st.builds(Refused, st.sampled_from([Reason.NO_ROOM, Reason.LIMIT]), st.just("no"), st.booleans()),
    history=st.sampled_from([(), (FAILED,)]),
    there=st.booleans(),
)
def test_from_any_state_a_migration_comes_to_rest(
    *,
    vm: Document,
    pods: list[Document],
    phase: str,
    spec: Document,
    refused: Refused | None,
    history: tuple[VirtualMachineMigration, ...],
    there: bool,
) -> None:
    """With the VM and its pods standing still, each step but the first few is to wait."""
    vm = {**vm, "metadata": {**vm["metadata"], "uid": "vm"}}
    found: VirtualMachine | None = msgspec.convert(vm, VirtualMachine) if there else None
    migration = msgspec.convert(
        {
            "metadata": {"name": "m-1", "namespace": "default", "uid": "mine"},
            "spec": {"vmName": "vm-1", **spec},
            "status": {"phase": phase},
        },
        VirtualMachineMigration,
    )
    seen = tuple(msgspec.convert(pod_of(vm, wish), Pod) for wish in pods)
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
                    assert not ended, "what has ended is not written again"
                    migration = msgspec.structs.replace(migration, status=action.status)
                case ClaimVM():
                    assert found is not None
                    status = msgspec.structs.replace(found.status, migration=action.claim)
                    found = msgspec.structs.replace(found, status=status)
        ended = migration.finished
    else:
        raise AssertionError(f"still restless: {migration} {found}")
    claim = found.status.migration if found is not None else None
    assert not (ended and claim is not None and claim.uid == "mine"), "it has ended and holds its VM"
