"""A minute of what `make soak` does for half an hour."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.controlplane.plane import ControlPlane
from tests.faults.soak import NODES, carry_out
from tests.faults.soaked import Wish
from tests.plane import install

pytestmark = [pytest.mark.integration, pytest.mark.timeout(420)]

MIB = 2**20
MOST_DESCRIPTORS = 64
"""A connection for each of 32 workers at the most, the watches, and what any process has open."""


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[ControlPlane]:
    """One with nodes, to be broken."""
    with ControlPlane(tmp_path / "plane", nodes=NODES) as plane:
        install(plane)
        yield plane


def test_a_minute_of_churn_faults_and_outages_loses_nothing(plane: ControlPlane, tmp_path: Path) -> None:
    """Every VM is as its user wants it, had one live pod at most, and the process has not grown."""
    wish = Wish(seconds=60, vms=40, acts=4, fault_every=2, outage_every=18, sample_every=3)
    with asyncio.Runner() as runner:
        soaked = runner.run(carry_out(plane, tmp_path / "run", wish))
    told = "\n".join(soaked.lines())
    assert soaked.complaints == (), told
    assert soaked.settled is not None, told
    assert sum(soaked.outages.values()) >= 2, told
    assert soaked.faults.total() >= 10, told
    # A minute tells leaks that are gross: the slope is for half an hour to tell.
    assert soaked.growth(lambda sample: sample.memory) < 16 * MIB, told
    assert soaked.samples[-1].descriptors < MOST_DESCRIPTORS, told
    assert soaked.samples[-1].tasks <= soaked.samples[0].tasks, told
