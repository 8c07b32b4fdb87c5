"""Live moves: a controller that crashes at every step, interventions, late requests, and pairs of interventions.

A share of the runs, chosen by a fixed seed, is part of `make test`; with EXHAUSTIVE=1, as in `make faults`, all are.
"""

from __future__ import annotations

import os

import pytest

from tests.exhaustive.crashes import run, run_late, run_pair
from tests.exhaustive.endings import LATE, LENIENT, Late, Row, pairs, rows
from tests.exhaustive.live import OF_LIVE
from tests.exhaustive.test_interventions import judge
from tests.exhaustive.verdicts import verdict

WHOLE = os.environ.get("EXHAUSTIVE") == "1"
ROWS = list(rows(share=1.0 if WHOLE else 0.1))
PAIRS = list(pairs(share=1.0 if WHOLE else 0.02))


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_a_live_move_ends_well_whatever_happens_while_its_controller_crashes(row: Row) -> None:
    """The next controller brings it to an end, and the VM is in one pod all the time."""
    stage = await run(row)
    assert verdict(stage, row.end, lenient=LENIENT.get(row.intervention, frozenset()), until=stage.replaced) == []


@pytest.mark.parametrize("late", LATE, ids=lambda late: late.name)
async def test_a_request_that_commits_under_the_next_controller_does_no_harm(late: Late) -> None:
    """The guards of the request, or the next controller, see to that."""
    stage = await run_late(late)
    assert verdict(stage, late.end) == []


@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", sorted({pair.first for pair in PAIRS}))
async def test_every_pair_of_interventions_at_every_step_ends_in_a_valid_state(first: str) -> None:
    """At most one pod, no claim left, and every migration finished."""
    for pair in PAIRS:
        if pair.first == first:
            judge(await run_pair(pair), str(pair))


def test_every_intervention_strikes_and_every_step_is_reached() -> None:
    """Also in the share that `make test` runs."""
    assert {row.intervention for row in ROWS} == OF_LIVE.keys()
    assert {row.point.name for row in ROWS if row.intervention != "nothing"} == {row.point.name for row in rows()}
