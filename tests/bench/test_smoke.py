"""The cost of the controller must not grow unnoticed.

Only figures that are the same on every machine are compared (tests/bench/counting.py). A commit that changes a figure
on purpose records the new one in tests/bench/recorded.json, and its message says why.
"""

from __future__ import annotations

import json

import pytest

from controller.domain.objects import Strategy
from tests.bench import counting

RECORDED = counting.HERE / "recorded.json"
TOLERANCE = 1.10
"""The ratio to the recorded figure that is no regression: versions of Python count and store a little differently."""


def compare(what: str, found: float) -> None:
    """Fail if a figure is worse than the one recorded, naming both."""
    before = json.loads(RECORDED.read_text())[what]
    if found > before * TOLERANCE:
        raise AssertionError(
            f"{what}: {found:.0f}, it was {before} ({found / before - 1:+.0%}). "
            f"If that is intended, write the new figure into {RECORDED.name} and say why in the commit."
        )


async def test_a_vm_of_a_burst_costs_one_create_and_hardly_more_than_one_status_write() -> None:
    """It costs no read."""
    requests = await counting.requests_of_a_burst()

    creates, statuses = requests.pop("create pods"), requests.pop("patch virtualmachines")
    assert (creates, requests) == (1.0, {})
    assert 1.0 <= statuses <= 1.3, f"{statuses:.2f} status writes a VM, the target is 1.3"


async def test_a_migration_among_many_costs_two_writes_of_its_vm_and_two_of_its_own() -> None:
    """The claim ends the previous incarnation, the release publishes that the VM runs; headroom is read once for all.

    Before each claim, one dry run asks the API server whether it would create the target pod.
    """
    assert await counting.requests_of_moves(Strategy.RECREATE) == {
        "list pods": 1 / counting.BURST,
        "dry-run pods": 1.0,
        "patch virtualmachines": 2.0,
        "patch virtualmachinemigrations": 2.0,
        "delete pods": 1.0,
        "get pods": 1.0,
        "get virtualmachines": 1.0,
        "create pods": 1.0,
    }


async def test_a_live_migration_among_many_costs_eight_writes() -> None:
    """Three of its VM (claim, hand-over, release), two of its own, and of pods a create, a patch and a delete.

    The live reads: the VM before the create, the target before the hand-over, and the name of the source after it.
    """
    assert await counting.requests_of_moves(Strategy.LIVE) == {
        "list pods": 1 / counting.BURST,
        "dry-run pods": 1.0,
        "patch virtualmachines": 3.0,
        "patch virtualmachinemigrations": 2.0,
        "create pods": 1.0,
        "patch pods": 1.0,
        "delete pods": 1.0,
        "get pods": 2.0,
        "get virtualmachines": 1.0,
    }


async def test_a_fleet_at_its_goal_costs_no_request() -> None:
    """However long it exists, and however often its VMs are reconciled."""
    cluster = counting.new_fleet()
    process = await counting.start(cluster)
    cluster.requests.clear()
    cluster.pass_time(3600)
    for number in range(counting.BURST):
        await process.reconcile(f"default/vm-{number}")
    await process.settle()

    assert cluster.requests == []


async def test_the_calls_for_one_vm_have_not_grown() -> None:
    """From its creation to Running, counted in calls of our own functions."""
    compare("calls a VM from its creation to Running", await counting.calls_of_a_burst())


async def test_the_calls_of_a_reconcile_that_finds_nothing_to_do_have_not_grown() -> None:
    """Every event costs at least these."""
    compare("calls of a reconcile that finds nothing to do", await counting.calls_of_a_reconcile())


async def test_the_calls_of_a_reconcile_do_not_depend_on_the_number_of_vms() -> None:
    """A VM among 100 costs as many as one among 20."""
    process = await counting.start(counting.new_fleet(20))
    with counting.counted() as calls:
        await process.reconcile("default/vm-0")

    assert calls.count == await counting.calls_of_a_reconcile()


@pytest.mark.parametrize(("name", "noun"), [("pod", "pod"), ("vm", "VM")])
def test_the_decoded_part_of_an_object_has_not_grown(name: str, noun: str) -> None:
    """Fields that are not read are not decoded."""
    kept = counting.kept_bytes(name)

    assert kept < len(counting.sent(name)), "all fields are kept"
    compare(f"bytes kept of a {noun}", kept)


@pytest.mark.parametrize(("name", "noun"), [("pod", "pod"), ("vm", "VM")])
def test_the_memory_of_an_object_has_not_grown(name: str, noun: str) -> None:
    """It dominates the memory of a large fleet at rest."""
    compare(f"memory of a {noun}", counting.memory_of(name))


def test_a_regression_is_reported_with_the_old_and_the_new_figure() -> None:
    """Up to a tenth is tolerated."""
    what = "calls of a reconcile that finds nothing to do"
    before = json.loads(RECORDED.read_text())[what]
    compare(what, before * 1.09)

    with pytest.raises(AssertionError, match=rf"{before * 2}, it was {before} \(\+100%\)"):
        compare(what, before * 2)
