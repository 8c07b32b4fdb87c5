"""The oracles complain of what must not be: one that never does would prove nothing."""

from __future__ import annotations

from tests.faults.builders import migration, pod, seen, vm
from tests.faults.oracles import (
    Evidence,
    after_settling,
    broken_histories,
    judge,
    touched_strangers,
    traffic,
    two_live_pods,
)
from tests.faults.witness import Seen

UNDISTURBED = (
    seen(vm("Pending", "Scheduling", podUID="p1", incarnation=0)),
    seen(pod("p1")),
    seen(vm("Pending", "Scheduling", "Running", podUID="p1", incarnation=0)),
)


def evidence(*history: Seen) -> Evidence:
    """A run that had settled with its last event."""
    return Evidence(history, len(history))


REFERENCE = evidence(*UNDISTURBED)


def test_a_run_like_the_undisturbed_one_is_good() -> None:
    """Whatever its names and UIDs are."""
    other = (
        seen(vm("Pending", "Scheduling", uid="other", podUID="p9", incarnation=0)),
        seen(pod("p9", owner="other")),
        seen(vm("Pending", "Scheduling", "Running", uid="other", podUID="p9", incarnation=0)),
    )
    assert judge(evidence(*other), REFERENCE) == []


def test_two_live_pods_are_seen_although_one_terminates() -> None:
    """Terminating is alive."""
    history = [seen(pod("p1", deletionTimestamp="2026-01-01T00:00:00Z")), seen(pod("p2", resourceVersion="7"))]
    [complaint] = two_live_pods(history)
    assert complaint == "VM vm has 2 live pods at version 7: ['virt-launcher-p1', 'virt-launcher-p2']"


def test_a_pod_that_has_ended_or_is_gone_does_not_live() -> None:
    """Nor does another VM's pod count."""
    gone = [seen(pod("p1")), seen(pod("p1"), deleted=True), seen(pod("p2"))]
    ended = [seen(pod("p1")), seen(pod("p1", phase="Failed")), seen(pod("p2"))]
    others = [seen(pod("p1")), seen(pod("p2", owner="another")), seen(pod("p3", owner=None))]
    assert [*two_live_pods(gone), *two_live_pods(ended), *two_live_pods(others)] == []


def test_a_touched_stranger_is_seen() -> None:
    """What was there from the start was not touched yet."""
    stranger = pod("x", owner=None, name="virt-launcher-vm-00000")
    assert list(touched_strangers([seen(stranger, first=True)])) == []
    assert len(list(touched_strangers([seen(stranger)]))) == 1


def test_a_history_that_loses_a_transition_is_seen() -> None:
    """It may only grow at its end."""
    history = [seen(vm("Pending", "Scheduling", "Running")), seen(vm("Pending", "Running"))]
    assert len(list(broken_histories(history))) == 1


def test_a_phase_passed_twice_in_a_row_is_seen() -> None:
    """Staying is no transition."""
    assert len(list(broken_histories([seen(vm("Pending", "Running", "Running"))]))) == 1


def test_a_write_after_settling_is_seen() -> None:
    """Whatever it writes, and although it deletes."""
    run = Evidence((*UNDISTURBED, seen(vm("Pending")), seen(pod("p1"), deleted=True)), len(UNDISTURBED))
    assert len(list(after_settling(run))) == 2


def test_another_end_is_seen() -> None:
    """A VM that is in another phase than undisturbed."""
    run = evidence(*UNDISTURBED[:2], seen(vm("Pending", "Scheduling", "Failed", podUID="p1", incarnation=0)))
    assert any("ends with" in complaint for complaint in judge(run, REFERENCE))


def test_a_status_that_names_no_pod_there_is_is_seen() -> None:
    """It has to name the pod that runs."""
    run = evidence(*UNDISTURBED[:2], seen(vm("Pending", "Scheduling", "Running", podUID="gone", incarnation=0)))
    assert any("ends with" in complaint for complaint in judge(run, REFERENCE))


def test_a_pod_too_many_is_counted_although_it_is_gone() -> None:
    """Creates and deletes are counted, not only what is left."""
    run = evidence(*UNDISTURBED, seen(pod("p2", phase="Failed")), seen(pod("p2"), deleted=True))
    assert any("counts" in complaint for complaint in judge(run, REFERENCE))
    assert traffic(run.history) - traffic(UNDISTURBED) == {"Pod created": 1, "Pod deleted": 1}


def test_a_lost_phase_is_seen_and_a_wait_for_a_create_is_not_held_against_it() -> None:
    """Pending between two lives only says that the next pod waits."""
    lost = evidence(*UNDISTURBED[:2], seen(vm("Pending", "Running", podUID="p1", incarnation=0)))
    assert any("phases told" in complaint for complaint in judge(lost, REFERENCE))
    lives = ("Pending", "Scheduling", "Running", "Scheduling", "Running")
    held = ("Pending", "Scheduling", "Running", "Pending", "Scheduling", "Running")
    assert judge(evidence(seen(vm(*held))), evidence(seen(vm(*lives)))) == []
    waits = ("Pending", "Scheduling", "Pending", "Scheduling", "Running")
    assert judge(evidence(seen(vm(*waits))), evidence(seen(vm("Pending", "Scheduling", "Running")))) == []


def test_a_migration_that_is_missing_is_seen() -> None:
    """So is one that ended otherwise."""
    reference = evidence(seen(migration("Succeeded")))
    assert judge(evidence(), reference) != []
    assert judge(evidence(seen(migration("Failed"))), reference) != []
