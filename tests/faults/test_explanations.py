"""An explanation excuses what it is about and nothing else."""

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
    """A run that had settled with its last event."""
    return Evidence(history, len(history))


def record() -> VirtualMachineMigration:
    """The record of an eviction."""
    return msgspec.structs.replace(migration("Succeeded"), spec=MigrationSpec(vm_name="vm", record_of="p1"))


RUNS = (seen(pod("p1")), seen(vm("Pending", "Running", podUID="p1", incarnation=1)))
TOLD = evidence(*RUNS, seen(record()))


def test_an_eviction_that_nobody_saw_has_no_record() -> None:
    """Whether the process was dead, or its watch had a gap."""
    assert explain("pod evicted", KILLED, evidence(*RUNS), TOLD) is not None
    assert explain("pod evicted", "410 as an event", evidence(*RUNS), TOLD) is not None
    assert explain("pod evicted", "500", evidence(*RUNS), TOLD) is None
    assert explain("node lost", KILLED, evidence(*RUNS), TOLD) is None


def test_a_missing_record_excuses_nothing_else() -> None:
    """The VM has to run all the same."""
    stuck = evidence(RUNS[0], seen(vm("Pending", podUID="p1", incarnation=1)))
    assert explain("pod evicted", KILLED, stuck, TOLD) is None


def test_who_may_not_record_writes_no_record() -> None:
    """And may write everything else."""
    assert explain("node lost", "403", evidence(*RUNS), TOLD) is not None
    assert explain("migrate", "403", evidence(*RUNS), TOLD) is None


def test_a_late_create_saves_a_life() -> None:
    """Only there, and it saves no pod."""
    more = evidence(RUNS[0], seen(vm("Pending", "Running", podUID="p1", incarnation=2)))
    assert explain("pod deleted twice", LATE, evidence(*RUNS), more) is not None
    assert explain("pod deleted", LATE, evidence(*RUNS), more) is None
    assert explain("pod deleted twice", "500", evidence(*RUNS), more) is None
    assert explain("pod deleted twice", LATE, evidence(*RUNS, seen(pod("p2"))), more) is None
