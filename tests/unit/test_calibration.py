"""The model of copying meets what was measured."""

from __future__ import annotations

import pytest

from hack.calibration import (
    FIXED_650,
    FIXED_900,
    FIXED_IDLE,
    TUNED_650,
    TUNED_900,
    TUNED_IDLE,
    Measurement,
    means,
    table,
)


@pytest.mark.parametrize("measurement", [TUNED_650, FIXED_650], ids=lambda each: each.name)
def test_a_busy_vms_mean_time_bytes_rounds_and_downtime_are_near_the_measured_ones(measurement: Measurement) -> None:
    """Time and bytes within 15 %, downtime within 25 %, rounds within a factor of 2."""
    converged = measurement.converged()
    assert len(converged) == 300
    found, published = means(converged), measurement.published
    assert found.total == pytest.approx(published["total"], rel=0.15)
    assert found.mib == pytest.approx(published["mib"], rel=0.15)
    assert found.downtime == pytest.approx(published["downtime"], rel=0.25)
    assert published["rounds"] / 2 <= found.rounds <= published["rounds"] * 2


def test_a_vm_that_dirties_almost_what_the_link_carries_converges_only_if_tuned() -> None:
    """Every time, and never."""
    assert len(TUNED_900.converged()) == TUNED_900.seeds
    assert FIXED_900.converged() == []


@pytest.mark.parametrize("measurement", [TUNED_IDLE, FIXED_IDLE], ids=lambda each: each.name)
def test_an_idle_vms_downtime_is_near_the_measured_one(measurement: Measurement) -> None:
    """Within 25 %."""
    found = means(measurement.converged())
    assert found.downtime == pytest.approx(measurement.published["downtime"], rel=0.25)


def test_the_table_has_predicted_figures_and_in_brackets_published_ones() -> None:
    """A row without either has a dash, or only the prediction."""
    lines = list(table([FIXED_IDLE, FIXED_900._replace(seeds=1)]))
    assert lines[2:] == [
        "| idle, 300 ms | 100% (all) | 5.4 | 561 | 1 | 0.276 (0.244) |",
        "| 900 Mb/s, 300 ms | 0% (none) | - | - | - | - |",
    ]
