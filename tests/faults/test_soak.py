"""A soak of one minute; `make soak` takes half an hour."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.controlplane.plane import ControlPlane
from tests.faults.soak import NODES, carry_out
from tests.faults.soaked import SoakPlan
from tests.plane import install

pytestmark = [pytest.mark.integration, pytest.mark.timeout(420)]

MIB = 2**20
MOST_DESCRIPTORS = 64
"""At most a connection for each of 32 workers, the watches, and the descriptors of every process."""


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[ControlPlane]:
    """Start one with nodes, whose components the test kills."""
    with ControlPlane(tmp_path / "plane", nodes=NODES) as plane:
        install(plane)
        yield plane


def test_a_minute_of_churn_faults_and_outages_loses_nothing(plane: ControlPlane, tmp_path: Path) -> None:
    """Every VM is as wanted and had at most one live pod, and the process has not grown."""
    plan = SoakPlan(seconds=60, vms=40, acts=4, fault_every=2, outage_every=18, sample_every=3)
    with asyncio.Runner() as runner:
        soaked = runner.run(carry_out(plane, tmp_path / "run", plan))
    report = "\n".join(soaked.lines())
    assert soaked.complaints == (), report
    assert soaked.settled is not None, report
    assert sum(soaked.outages.values()) >= 2, report
    assert soaked.faults.total() >= 10, report
    # A minute shows only large leaks; the slope needs half an hour.
    assert soaked.growth(lambda sample: sample.memory) < 16 * MIB, report
    assert soaked.samples[-1].descriptors < MOST_DESCRIPTORS, report
    assert soaked.samples[-1].tasks <= soaked.samples[0].tasks, report
