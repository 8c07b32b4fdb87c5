"""Live migrations at once: what each costs does not depend on how many move beside it."""

from __future__ import annotations

import asyncio

import looptime
import pytest

from tests.bench.counting import counted
from tests.bench.moving import A_NODE, VMS, Cost, Moving

pytestmark = pytest.mark.timeout(120)  # it takes seconds, and the machine may be busy

FEW, MANY = A_NODE, 6 * A_NODE
"""The VMs of one source, and of six."""
WRITES = 8
"""Three of the VM, two of the migration, and of pods a create, a patch and a delete."""
RECONCILES = 18
"""Of both controllers; most are for the events of its own writes and of its pods."""
TOLERANCE = 1.01
"""The allowed ratio of the calls that follow a migration among `MANY` to those among `FEW`. Observed is no difference,
of about 1,920; one call more for each migration beside it would be 125 more."""
COPYING = ("domain/copying/", "reconcilers/migration/copying.py")


@pytest.fixture(scope="module")
def costs() -> list[Cost]:
    """The cost of each of 500 live migrations at once, without limits."""

    async def moved() -> list[Cost]:
        moving = Moving()
        async with moving.running():
            return await moving.move(range(VMS))

    with asyncio.Runner(loop_factory=looptime.new_event_loop) as runner:
        return runner.run(moved())


def test_a_live_migration_among_500_costs_eight_writes_and_one_for_each_30_seconds_of_copying(
    costs: list[Cost],
) -> None:
    """However often its pace changes: among 25 that begin together it does so up to 24 times."""
    assert len(costs) == VMS
    assert {cost.records for cost in costs} == {0, 1}
    assert [cost for cost in costs if cost.writes > WRITES + cost.records] == []


def test_a_live_migration_among_500_costs_18_reconciles_and_two_for_each_30_seconds_of_copying(
    costs: list[Cost],
) -> None:
    """One that writes the checkpoint, and one for the event of that write."""
    assert [cost for cost in costs if len(cost.reconciles) > RECONCILES + 2 * cost.records] == []


def test_a_change_of_pace_reconciles_no_other_migration(costs: list[Cost]) -> None:
    """While a migration copies, only its checkpoint does."""
    assert [cost for cost in costs if cost.while_copying > 2 * cost.records] == []


async def cost_among(count: int) -> tuple[float, float]:
    """Return the calls that follow how far one of so many migrations is, and its passes over a store."""
    moving = Moving()
    async with moving.running():
        with counted(*COPYING) as calls:
            await moving.move(range(count))
    return calls.count / count, calls.passes / count


@pytest.mark.looptime
async def test_following_a_migration_costs_the_same_among_migrations_on_other_links() -> None:
    """Of 150 as of 25. Preflight passes over the nodes once; nothing passes over VMs, pods or migrations."""
    few, passes = await cost_among(FEW)
    many, among_many = await cost_among(MANY)

    assert many <= few * TOLERANCE, f"{many:.0f} calls among {MANY}, {few:.0f} among {FEW}"
    assert passes == among_many == 1
