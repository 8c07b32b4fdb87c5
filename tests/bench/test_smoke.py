"""The guard: what the controller costs may not grow unseen.

Only what is the same on every machine is counted (tests/bench/counting.py). A figure that grows on purpose, or shrinks,
is written into tests/bench/recorded.json by whoever changed it, and the change says why.
"""

from __future__ import annotations

import json

import pytest

from tests.bench import counting

RECORDED = counting.HERE / "recorded.json"
ROOM = 1.10
"""How much more than was recorded is no regression: versions of Python count and store a little differently."""


def compare(what: str, found: float) -> None:
    """Fail if a figure is worse than the one recorded, naming both."""
    before = json.loads(RECORDED.read_text())[what]
    if found > before * ROOM:
        raise AssertionError(
            f"{what}: {found:.0f}, it was {before} ({found / before - 1:+.0%}). "
            f"If that is meant, write the new figure into {RECORDED.name} and say why in the commit."
        )


async def test_a_vm_of_a_burst_costs_one_create_and_hardly_more_than_one_status_write() -> None:
    """And nothing is read."""
    requests = await counting.requests_of_a_burst()

    creates, statuses = requests.pop("create pods"), requests.pop("patch virtualmachines")
    assert (creates, requests) == (1.0, {})
    assert 1.0 <= statuses <= 1.3, f"{statuses:.2f} status writes a VM, the target is 1.3"


async def test_a_migration_among_many_costs_two_writes_of_its_vm_and_two_of_its_own() -> None:
    """The claim ends the life before, the release tells that the VM runs; the room on nodes is read once for all.

    Before each claim the API server is asked, once, whether it would make the target pod.
    """
    assert await counting.requests_of_moves() == {
        "list pods": 1 / counting.BURST,
        "dry-run pods": 1.0,
        "patch virtualmachines": 2.0,
        "patch virtualmachinemigrations": 2.0,
        "delete pods": 1.0,
        "get pods": 1.0,
        "get virtualmachines": 1.0,
        "create pods": 1.0,
    }


async def test_a_fleet_at_its_goal_costs_no_request() -> None:
    """However long it stands, and however often it is looked at."""
    cluster = counting.crowd()
    process = await counting.start(cluster)
    cluster.requests.clear()
    cluster.pass_time(3600)
    for number in range(counting.BURST):
        await process.reconcile(f"default/vm-{number}")
    await process.settle()

    assert cluster.requests == []


async def test_the_work_for_one_vm_has_not_grown() -> None:
    """From its creation to Running, counted in calls of our own functions."""
    compare("calls a VM from its creation to Running", await counting.calls_of_a_burst())


async def test_a_look_that_finds_nothing_to_do_has_not_grown() -> None:
    """It is what every event costs at least."""
    compare("calls of a look at a VM at its goal", await counting.calls_of_a_look())


async def test_the_work_for_one_vm_does_not_depend_on_how_many_there_are() -> None:
    """A look at a VM among 100 costs what it costs among 20."""
    few = counting.crowd(20)
    alone = await counting.start(few)
    with counting.counted() as calls:
        await alone.reconcile("default/vm-0")

    assert calls.count == await counting.calls_of_a_look()


@pytest.mark.parametrize(("name", "noun"), [("pod", "pod"), ("vm", "VM")])
def test_no_more_of_an_object_is_kept_than_was(name: str, noun: str) -> None:
    """What is not read is not decoded."""
    kept = counting.kept_bytes(name)

    assert kept < len(counting.sent(name)), "all of it is kept"
    compare(f"bytes kept of a {noun}", kept)


@pytest.mark.parametrize(("name", "noun"), [("pod", "pod"), ("vm", "VM")])
def test_an_object_takes_no_more_memory_than_it_did(name: str, noun: str) -> None:
    """It is what a large fleet costs at rest."""
    compare(f"memory of a {noun}", counting.memory_of(name))


def test_a_regression_is_told_with_the_old_figure_and_the_new() -> None:
    """And the room for small differences is a tenth."""
    what = "calls of a look at a VM at its goal"
    before = json.loads(RECORDED.read_text())[what]
    compare(what, before * 1.09)

    with pytest.raises(AssertionError, match=rf"{before * 2}, it was {before} \(\+100%\)"):
        compare(what, before * 2)
