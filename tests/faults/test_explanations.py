"""An explanation excuses its own difference and nothing else."""

from __future__ import annotations

import msgspec

from controller.domain.objects import MigrationSpec, VirtualMachineMigration
from tests.faults.builders import migration, pod, seen, vm
from tests.faults.explanations import explain
from tests.faults.oracles import Evidence
from tests.faults.witness import Seen

KILLED = "killed before commit"
LATE = "killed, commits 8 s later"


def evidence(*history: Seen) -> Evidence:
    """Return a run that settled with its last event."""
    return Evidence(history, len(history))


def record() -> VirtualMachineMigration:
    """Return the record of an eviction."""
    return msgspec.structs.replace(migration("Succeeded"), spec=MigrationSpec(vm_name="vm", record_of="p1"))


RUNS = (seen(pod("p1")), seen(vm("Pending", "Running", podUID="p1", incarnation=1)))
RECORDED = evidence(*RUNS, seen(record()))


def test_a_missing_record_is_explained_if_the_eviction_was_not_seen() -> None:
    """The process was dead, or its watch had a gap."""
    assert explain("pod evicted", KILLED, evidence(*RUNS), RECORDED) is not None
    assert explain("pod evicted", "410 as an event", evidence(*RUNS), RECORDED) is not None
    assert explain("pod evicted", "500", evidence(*RUNS), RECORDED) is None
    assert explain("node lost", KILLED, evidence(*RUNS), RECORDED) is None


def test_a_missing_record_excuses_no_other_difference() -> None:
    """The VM has to run."""
    stuck = evidence(RUNS[0], seen(vm("Pending", podUID="p1", incarnation=1)))
    assert explain("pod evicted", KILLED, stuck, RECORDED) is None


def test_a_missing_record_is_explained_if_its_write_was_forbidden() -> None:
    """Only in the scenarios that have a record."""
    assert explain("node lost", "403", evidence(*RUNS), RECORDED) is not None
    assert explain("migrate", "403", evidence(*RUNS), RECORDED) is None


def test_a_late_create_may_save_an_incarnation() -> None:
    """Only in its scenarios, and it excuses no further pod."""
    more = evidence(RUNS[0], seen(vm("Pending", "Running", podUID="p1", incarnation=2)))
    assert explain("pod deleted twice", LATE, evidence(*RUNS), more) is not None
    assert explain("pod deleted", LATE, evidence(*RUNS), more) is None
    assert explain("pod deleted twice", "500", evidence(*RUNS), more) is None
    assert explain("pod deleted twice", LATE, evidence(*RUNS, seen(pod("p2"))), more) is None


def test_a_target_may_have_a_later_number() -> None:
    """Only in live migrations, and it excuses no further pod."""
    later = evidence(RUNS[0], seen(vm("Pending", "Running", podUID="p1", incarnation=2)))
    assert explain("live, cancelled", KILLED, later, evidence(*RUNS)) is not None
    assert explain("live, cancelled", "cut in mid-line", later, evidence(*RUNS)) is None
    assert explain("migrate", KILLED, later, evidence(*RUNS)) is None
    assert explain("live", KILLED, Evidence((*later.history, seen(pod("p2"))), 3), evidence(*RUNS)) is None
