"""Every oracle complains of its defect: one that never complains proves nothing."""

from __future__ import annotations

from tests.faults.builders import migration, pod, seen, vm
from tests.faults.oracles import (
    Evidence,
    after_settling,
    broken_histories,
    judge,
    touched_foreign_objects,
    traffic,
    wrong_live_pods,
)
from tests.faults.witness import Seen

UNDISTURBED = (
    seen(vm("Pending", "Scheduling", podUID="p1", incarnation=0)),
    seen(pod("p1")),
    seen(vm("Pending", "Scheduling", "Running", podUID="p1", incarnation=0)),
)


def evidence(*history: Seen) -> Evidence:
    """Return a run that settled with its last event."""
    return Evidence(history, len(history))


REFERENCE = evidence(*UNDISTURBED)


def test_a_run_like_the_undisturbed_one_is_good() -> None:
    """Names and UIDs may differ."""
    other = (
        seen(vm("Pending", "Scheduling", uid="other", podUID="p9", incarnation=0)),
        seen(pod("p9", owner="other")),
        seen(vm("Pending", "Scheduling", "Running", uid="other", podUID="p9", incarnation=0)),
    )
    assert judge(evidence(*other), REFERENCE) == []


def test_two_live_pods_are_reported_if_one_of_them_terminates() -> None:
    """A terminating pod is live."""
    history = [seen(pod("p1", deletionTimestamp="2026-01-01T00:00:00Z")), seen(pod("p2", resourceVersion="7"))]
    [complaint] = wrong_live_pods(history)
    assert complaint == "VM vm has 2 live pods: virt-launcher-p1, virt-launcher-p2 (at version 7)"


def test_ended_deleted_and_other_vms_pods_are_not_counted_as_live() -> None:
    """So there is no complaint."""
    deleted = [seen(pod("p1")), seen(pod("p1"), deleted=True), seen(pod("p2"))]
    ended = [seen(pod("p1")), seen(pod("p1", phase="Failed")), seen(pod("p2"))]
    others = [seen(pod("p1")), seen(pod("p2", owner="another")), seen(pod("p3", owner=None))]
    assert [*wrong_live_pods(deleted), *wrong_live_pods(ended), *wrong_live_pods(others)] == []


def test_a_touched_foreign_object_is_reported() -> None:
    """An object that exists at the start is not touched yet."""
    foreign = pod("x", owner=None, name="virt-launcher-vm-00000")
    assert list(touched_foreign_objects([seen(foreign, first=True)])) == []
    assert len(list(touched_foreign_objects([seen(foreign)]))) == 1


def test_a_history_that_loses_a_transition_is_reported() -> None:
    """It may only grow at its end."""
    history = [seen(vm("Pending", "Scheduling", "Running")), seen(vm("Pending", "Running"))]
    assert len(list(broken_histories(history))) == 1


def test_a_phase_twice_in_a_row_is_reported() -> None:
    """Staying in a phase is no transition."""
    assert len(list(broken_histories([seen(vm("Pending", "Running", "Running"))]))) == 1


def test_a_change_after_settling_is_reported() -> None:
    """Writes and deletions."""
    run = Evidence((*UNDISTURBED, seen(vm("Pending")), seen(pod("p1"), deleted=True)), len(UNDISTURBED))
    assert len(list(after_settling(run))) == 2


def test_another_end_state_is_reported() -> None:
    """The VM is in another phase than undisturbed."""
    run = evidence(*UNDISTURBED[:2], seen(vm("Pending", "Scheduling", "Failed", podUID="p1", incarnation=0)))
    assert any("ends with" in complaint for complaint in judge(run, REFERENCE))


def test_a_status_with_an_unknown_pod_is_reported() -> None:
    """It has to name the running pod."""
    run = evidence(*UNDISTURBED[:2], seen(vm("Pending", "Scheduling", "Running", podUID="none", incarnation=0)))
    assert any("ends with" in complaint for complaint in judge(run, REFERENCE))


def test_a_deleted_extra_pod_is_reported() -> None:
    """Creates and deletes are counted, not only the objects at the end."""
    run = evidence(*UNDISTURBED, seen(pod("p2", phase="Failed")), seen(pod("p2"), deleted=True))
    assert any("counts" in complaint for complaint in judge(run, REFERENCE))
    assert traffic(run.history) - traffic(UNDISTURBED) == {"Pod created": 1, "Pod deleted": 1}


def test_a_lost_phase_is_reported_but_a_wait_for_a_create_is_not() -> None:
    """A Pending between two incarnations only means that the next pod waits."""
    lost = evidence(*UNDISTURBED[:2], seen(vm("Pending", "Running", podUID="p1", incarnation=0)))
    assert any("phases published" in complaint for complaint in judge(lost, REFERENCE))
    restarted = ("Pending", "Scheduling", "Running", "Scheduling", "Running")
    pending = ("Pending", "Scheduling", "Running", "Pending", "Scheduling", "Running")
    assert judge(evidence(seen(vm(*pending))), evidence(seen(vm(*restarted)))) == []
    waits = ("Pending", "Scheduling", "Pending", "Scheduling", "Running")
    assert judge(evidence(seen(vm(*waits))), evidence(seen(vm("Pending", "Scheduling", "Running")))) == []


def test_a_missing_migration_is_reported() -> None:
    """So is one with another end."""
    reference = evidence(seen(migration("Succeeded")))
    assert judge(evidence(), reference) != []
    assert judge(evidence(seen(migration("Failed"))), reference) != []
