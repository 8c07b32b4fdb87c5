"""Which VMs a drain moves, when it is over, and what it says while it waits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.objects import VirtualMachine, VirtualMachineMigration
from controller.engine.store import Store
from controller.kube.kinds import Pod
from controller.kube.meta import Condition
from controller.operations.draining.survey import Caches, Survey, by_node_of_pod, by_node_of_vm, by_vm, survey
from controller.operations.draining.waits import REPORT_AFTER, Announcer, Cause, Wait, hindrance, waits
from controller.operations.waiting import UNNOTICED
from tests.unit.cli.builders import CREATED, migration, pod, vm


def caches(vms: Iterable[VirtualMachine], pods: Iterable[Pod], migrations: Iterable[VirtualMachineMigration]) -> Caches:
    """Return what a drain sees of a cluster."""
    found = Caches(Store(by_node_of_vm), Store(by_node_of_pod), Store(by_vm))
    found.vms.replace(vms, "1")
    found.pods.replace(pods, "1")
    found.migrations.replace(migrations, "1")
    return found


def look(
    *vms: VirtualMachine,
    pods: Iterable[Pod] = (),
    migrations: Iterable[VirtualMachineMigration] = (),
    ours: Mapping[str, VirtualMachineMigration | None] | None = None,
    refused: Mapping[str, str] | None = None,
    unanswered: Mapping[str, str] | None = None,
) -> Survey:
    """Survey node n1."""
    seen = caches(vms, pods, migrations)
    return survey("n1", seen, ours=ours or {}, refused=refused or {}, unanswered=unanswered or {})


def waiting_for(
    *vms: VirtualMachine,
    pods: Iterable[Pod] = (),
    migrations: Iterable[VirtualMachineMigration] = (),
    ours: Mapping[str, VirtualMachineMigration | None] | None = None,
) -> dict[str, Wait]:
    """Say what keeps the drain of node n1 from its end."""
    seen, own = caches(vms, pods, migrations), ours or {}
    return waits("n1", seen, survey("n1", seen, ours=own, refused={}, unanswered={}), ours=own, unanswered={})


def chosen(found: Survey) -> list[str]:
    """Return the names of the VMs that need a migration."""
    return [found.metadata.name for found in found.to_move.values()]


def test_every_vm_that_runs_on_the_node_moves() -> None:
    """And none of another node's; in an order that does not dance."""
    assert chosen(look(vm("b", "n1"), vm("a", "n1"), vm("c", "n2"))) == ["a", "b"]


@pytest.mark.parametrize("phase", ["Scheduled", "Failed", "Pending", "Stopped"])
def test_a_vm_that_does_not_run_is_not_moved(phase: str) -> None:
    """There is nothing to move yet, or no longer."""
    assert chosen(look(vm("a", "n1", phase=phase))) == []


def test_a_vm_that_is_to_stop_is_not_moved() -> None:
    """It leaves by itself."""
    assert chosen(look(vm("a", "n1", running=False), vm("b", "n1", deleted=True))) == []


def test_a_vm_with_an_unfinished_migration_is_not_moved_twice() -> None:
    """The other one may take it off the node."""
    assert chosen(look(vm("a", "n1"), migrations=[migration("a", phase="Scheduling")])) == []


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_finished_migration_is_no_hindrance(phase: str) -> None:
    """It is history."""
    assert chosen(look(vm("a", "n1"), migrations=[migration("a", phase=phase)])) == ["a"]


def test_a_record_is_no_hindrance() -> None:
    """It is never carried out."""
    assert chosen(look(vm("a", "n1"), migrations=[migration("a", record_of="uid")])) == ["a"]


def test_a_migration_of_the_same_name_in_another_namespace_is_no_hindrance() -> None:
    """It is about another VM."""
    assert chosen(look(vm("a", "n1"), migrations=[migration("a", namespace="other")])) == ["a"]


def test_a_vm_gets_one_migration_of_ours_only() -> None:
    """What failed once is for a person to judge."""
    failed = migration("a", phase="Failed")
    assert chosen(look(vm("a", "n1"), migrations=[failed], ours={"default/a": failed})) == []


def test_an_empty_node_is_drained() -> None:
    """There is nothing to wait for."""
    assert look(vm("a", "n2"), pods=[pod("a", "n2")]).settled


def test_a_pod_on_the_node_is_waited_for() -> None:
    """Even if the VM's status names another node already."""
    assert not look(vm("a", None, phase="Scheduling"), pods=[pod("a", "n1")]).settled


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_pod_that_has_ended_is_not_waited_for(phase: str) -> None:
    """It holds nothing."""
    assert look(vm("a", None, phase="Scheduling"), pods=[pod("a", "n1", phase=phase)]).settled


def test_a_foreign_pod_is_not_waited_for() -> None:
    """A drain of ours is about VMs."""
    assert look(pods=[pod("a", "n1", kind="Job")]).settled


def test_a_migration_in_progress_is_waited_for_although_the_pod_is_gone() -> None:
    """The VM has left, but has not arrived."""
    found = look(vm("a", None, phase="Scheduling"), ours={"default/a": migration("a", phase="Scheduling")})
    assert found.in_progress == {"default/a"}
    assert not found.settled


def test_a_drain_ends_well_when_every_migration_succeeded() -> None:
    """And says which."""
    found = look(vm("a", "n2"), pods=[pod("a", "n2")], ours={"default/a": migration("a", phase="Succeeded")})
    assert found.settled
    assert found.moved == {"default/a"}
    assert not found.failed


def test_a_failed_migration_ends_the_drain_although_its_vm_stays() -> None:
    """Nothing will move it."""
    failed = migration("a", phase="Failed", failure_reason="NoRoom", message="Full")
    found = look(vm("a", "n1"), pods=[pod("a", "n1")], migrations=[failed], ours={"default/a": failed})
    assert found.settled
    assert found.failed == {"default/a": "NoRoom: Full"}


def test_one_failure_does_not_keep_the_others_from_moving() -> None:
    """The drain goes on until all have ended."""
    ours = {"default/a": migration("a", phase="Failed"), "default/b": migration("b", phase="Starting")}
    assert not look(vm("a", "n1"), vm("b", None), pods=[pod("a", "n1")], ours=ours).settled


def test_a_deleted_migration_is_a_failure() -> None:
    """A user cancelled it."""
    assert look(vm("a", "n1"), ours={"default/a": None}).failed == {"default/a": "its migration was deleted"}


@pytest.mark.parametrize("vms", [[], [vm("a", None, running=False)]], ids=["deleted", "stopped"])
def test_a_vm_that_was_stopped_or_deleted_meanwhile_is_no_failure(vms: list[VirtualMachine]) -> None:
    """It has left the node, too."""
    found = look(*vms, ours={"default/a": migration("a", phase="Failed", failure_reason="VMStopped")})
    assert found.settled
    assert not found.failed


def waiting(reason: str, phase: str = "Pending") -> VirtualMachineMigration:
    """Return a migration that waits for a reason."""
    return migration(phase=phase, conditions=(Condition(type="Completed", reason=reason),))


def test_a_hindrance_is_worth_a_line() -> None:
    """A person may be able to help."""
    assert hindrance(waiting("NoRoom")) == "NoRoom"


@pytest.mark.parametrize("other", [waiting("WaitingForTurn"), waiting("NoRoom", "Starting"), migration()])
def test_waiting_for_a_slot_is_no_hindrance(other: VirtualMachineMigration) -> None:
    """It passes by itself."""
    assert hindrance(other) is None


# --- what is refused -----------------------------------------------------------------------------------------


def test_a_refused_migration_is_not_asked_for_again() -> None:
    """The API server has said no."""
    assert chosen(look(vm("a", "n1"), vm("b", "n1"), refused={"default/a": "exceeded quota"})) == ["b"]


def test_a_refused_vm_ends_the_drain_as_a_failure_once_the_others_have_left() -> None:
    """With the server's words."""
    found = look(vm("a", "n1"), pods=[pod("a", "n1")], refused={"default/a": "exceeded quota"})
    assert found.settled
    assert found.failed == {"default/a": "exceeded quota"}


@pytest.mark.parametrize("phase", ["Pending", "Scheduling"])
def test_a_refused_vm_that_a_foreign_migration_moves_is_waited_for(phase: str) -> None:
    """A later migration clears the refusal."""
    other = migration("a", phase=phase)
    found = look(vm("a", "n1"), pods=[pod("a", "n1")], migrations=[other], refused={"default/a": "exceeded quota"})
    assert not found.settled
    assert not found.failed
    assert found.left == ("default/a",)


@pytest.mark.parametrize("node", ["n2", None])
def test_a_refused_vm_that_has_left_has_not_failed(node: str | None) -> None:
    """However it left."""
    found = look(vm("a", node), refused={"default/a": "exceeded quota"})
    assert found.settled
    assert not found.failed


def test_a_refused_vm_whose_other_migration_failed_is_refused_still() -> None:
    """Nothing moves it any more."""
    failed = migration("a", phase="Failed")
    found = look(vm("a", "n1"), pods=[pod("a", "n1")], migrations=[failed], refused={"default/a": "exceeded quota"})
    assert found.settled
    assert found.failed == {"default/a": "exceeded quota"}


# --- what is not answered ------------------------------------------------------------------------------------


def test_a_migration_that_was_not_answered_is_asked_for_again() -> None:
    """As long as its VM runs on the node."""
    found = look(vm("a", "n1"), pods=[pod("a", "n1")], unanswered={"default/a": "timed out"})
    assert chosen(found) == ["a"]
    assert not found.in_progress
    assert not found.settled


@pytest.mark.parametrize(
    "vms", [[], [vm("a", None, phase="Scheduling")], [vm("a", "n2")]], ids=["deleted", "on its way", "elsewhere"]
)
def test_a_drain_does_not_end_while_the_outcome_of_a_create_is_unknown(vms: list[VirtualMachine]) -> None:
    """The VM may be on its way by the migration that was asked for."""
    found = look(*vms, unanswered={"default/a": "timed out"})
    assert not found.settled
    assert found.left == ("default/a",)


def test_an_unanswered_create_is_reported_with_its_error() -> None:
    """At once, and once."""
    seen, unanswered = caches([vm("a", "n1"), vm("b", "n1")], [], []), {"default/a": "timed out"}
    told = waits(
        "n1", seen, survey("n1", seen, ours={}, refused={}, unanswered=unanswered), ours={}, unanswered=unanswered
    )
    assert list(told) == ["default/a"]
    announcer = Announcer()
    (line,) = announcer.due(told, 0)
    assert line.startswith("default/a: ")
    assert line.endswith("is retried: timed out")
    assert announcer.due({"default/a": told["default/a"]._replace(words="other")}, 99) == []


KEYS = st.sampled_from(["default/a", "default/b", "default/c"])
PHASES = st.sampled_from(["Pending", "Terminating", "Scheduling", "Starting", "Succeeded", "Failed"])
NODES = st.sampled_from(["n1", "n2", None])


@given(
    vms=st.dictionaries(
        KEYS,
        st.builds(
            lambda node, phase, on: (node, phase, on),
            NODES,
            st.sampled_from(["Running", "Scheduled", "Scheduling"]),
            st.booleans(),
        ),
    ),
    pods=st.dictionaries(KEYS, NODES),
    others=st.dictionaries(KEYS, PHASES),
    ours=st.dictionaries(KEYS, st.none() | PHASES),
    refused=st.sets(KEYS),
    unanswered=st.sets(KEYS),
)
def test_a_drain_ends_exactly_when_nothing_keeps_it(  # noqa: PLR0917 - a cluster has many parts
    vms: dict[str, tuple[str | None, str, bool]],
    pods: dict[str, str | None],
    others: dict[str, str],
    ours: dict[str, str | None],
    refused: set[str],
    unanswered: set[str],
) -> None:
    """Whatever keeps it is asked for next, or has words; what is over is neither asked for nor on its way."""
    seen = caches(
        [vm(key[8:], node, phase=phase, running=on) for key, (node, phase, on) in vms.items()],
        [pod(key[8:], node) for key, node in pods.items()],
        [migration(key[8:], name=f"their-{key[8:]}", phase=phase) for key, phase in others.items()],
    )
    own = {key: None if phase is None else migration(key[8:], phase=phase) for key, phase in ours.items()}
    no, said = dict.fromkeys(refused - own.keys(), "no"), dict.fromkeys(unanswered - own.keys() - refused, "late")
    found = survey("n1", seen, ours=own, refused=no, unanswered=said)
    told = waits("n1", seen, found, ours=own, unanswered=said)
    asked = set(found.to_move)
    assert found.settled == (not found.left)
    assert asked.isdisjoint(own.keys() | no.keys())
    assert set(found.left) == (asked - said.keys()) | told.keys()
    assert said.keys() <= set(found.left)
    if found.settled:
        assert not said
        assert all(migration is None or migration.finished for migration in own.values())
        assert found.on_node <= found.failed.keys()


# --- what it waits for ---------------------------------------------------------------------------------------


def terminating(of: str, *finalizers: str) -> Pod:
    """Return a pod on n1 whose deletion has begun."""
    going = pod(of, "n1")
    metadata = msgspec.structs.replace(going.metadata, deletion_timestamp=CREATED, finalizers=finalizers)
    return msgspec.structs.replace(going, metadata=metadata)


def test_nothing_is_waited_for_on_an_empty_node() -> None:
    """So nothing is said."""
    assert waiting_for(vm("a", "n2"), pods=[pod("a", "n2")]) == {}


def test_a_vm_that_is_about_to_be_asked_for_is_not_waited_for() -> None:
    """Its migration comes first."""
    assert waiting_for(vm("a", "n1"), pods=[pod("a", "n1")]) == {}


@pytest.mark.parametrize("phase", ["Scheduled", "Pending", "Failed"])
def test_a_vm_that_does_not_run_is_named_with_its_phase(phase: str) -> None:
    """It does not move, and only the drain reports why."""
    (wait,) = waiting_for(vm("a", "n1", phase=phase), pods=[pod("a", "n1")]).values()
    assert wait.cause is Cause.NOT_RUNNING
    assert phase in wait.words
    assert "only a Running VM moves" in wait.words


@pytest.mark.parametrize(
    ("vms", "why"),
    [
        ([], "was deleted"),
        ([vm("a", "n1", deleted=True)], "is being deleted"),
        ([vm("a", "n1", running=False)], "stop"),
    ],
    ids=["gone", "going", "stopped"],
)
def test_a_pod_that_is_held_is_named_with_its_finalizers(vms: list[VirtualMachine], why: str) -> None:
    """They are what a person has to look after."""
    (wait,) = waiting_for(*vms, pods=[terminating("a", "example.com/backup")]).values()
    assert why in wait.words
    assert "pod virt-launcher-a-abcde has been terminating since" in wait.words
    assert "held by finalizer example.com/backup" in wait.words


def test_a_foreign_migration_is_named() -> None:
    """The drain waits for it."""
    other = migration("a", name="theirs", phase="Pending", message="No room")
    (wait,) = waiting_for(vm("a", "n1"), pods=[pod("a", "n1")], migrations=[other]).values()
    assert wait.words == "migration theirs, which is not of this drain, is Pending: No room"


def test_a_migration_of_ours_says_how_far_it_is() -> None:
    """In the words of `vmsim migrate --wait`."""
    mine = migration("a", phase="Terminating", source_pod="virt-1", source_node="n1")
    (wait,) = waiting_for(vm("a", "n1"), pods=[pod("a", "n1")], ours={"default/a": mine}).values()
    assert wait == Wait(Cause.MOVING, "Terminating", "Terminating: virt-1 terminates on n1")


def test_a_migration_that_no_controller_writes_about_asks_for_the_controller() -> None:
    """Most likely no controller runs."""
    (wait,) = waiting_for(vm("a", "n1"), pods=[pod("a", "n1")], ours={"default/a": migration("a")}).values()
    assert wait.cause is Cause.UNNOTICED
    assert "no controller has taken it up" in wait.words


SLOT = Wait(Cause.SLOT, "", "Pending: 5 migrations are under way; at most 5 may be at once")
NO_ROOM = Wait(Cause.PENDING, "NoRoom", "Pending: No room")
SLOW = Wait(Cause.NOT_RUNNING, "Scheduled", "the VM is Scheduled")
NOBODY = Wait(Cause.UNNOTICED, "", "Pending: no controller has taken it up")


@pytest.mark.parametrize(
    ("wait", "seconds"), [(NO_ROOM, 0), (SLOW, REPORT_AFTER), (SLOT, REPORT_AFTER), (NOBODY, UNNOTICED)]
)
def test_a_wait_is_reported_within_ten_seconds_by_its_cause(wait: Wait, seconds: float) -> None:
    """The message of a controller at once, other waits after five seconds, a missing controller after ten."""
    announcer = Announcer()
    times = [at for at in range(15) if announcer.due({"default/a": wait}, at)]
    assert times == [seconds]
    assert seconds <= 10


def test_a_wait_that_has_passed_is_never_reported() -> None:
    """Another one begins anew."""
    announcer = Announcer()
    assert announcer.due({"default/a": SLOW}, 0) == []
    assert announcer.due({}, 4) == []
    assert announcer.due({"default/a": SLOW}, 6) == []


def test_another_cause_of_the_same_vm_is_reported_too() -> None:
    """It is news."""
    announcer = Announcer()
    assert announcer.due({"default/a": NO_ROOM}, 0) == ["default/a: Pending: No room"]
    assert announcer.due({"default/a": SLOW}, 1) == []
    assert announcer.due({"default/a": SLOW}, 1 + REPORT_AFTER) == ["default/a: the VM is Scheduled"]


def test_vms_that_wait_for_the_same_reason_share_a_line() -> None:
    """Or a hundred VMs would be a hundred lines."""
    announcer = Announcer()
    found = {f"default/{name}": SLOT for name in "abc"}
    announcer.due(found, 0)
    assert announcer.due(found, REPORT_AFTER) == [f"default/a and 2 more: {SLOT.words}"]


def test_at_the_timeout_every_wait_is_reported() -> None:
    """Whether it has lasted or not."""
    assert Announcer().due({"default/a": SLOW}, 0, all_now=True) == ["default/a: the VM is Scheduled"]
