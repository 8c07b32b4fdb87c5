"""How far a live migration is, in words: KubeVirt's figures, and when it ends."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from controller.cli.copying import size, summary, words
from controller.domain.settings import PublishedSettings
from controller.operations.copying import estimates
from tests.unit.observe.builders import BEGAN, LIVE, NEVER_CONVERGES, move


def told(seconds: float, **guest: Any) -> str:
    """Return what is told of a move some seconds after it began to copy."""
    now = BEGAN + timedelta(seconds=seconds)
    return words(estimates((move(**guest),), PublishedSettings(live=LIVE), now)["a"], now)


def test_a_move_that_converges_is_told_with_the_time_that_is_left() -> None:
    """Round one sends 1,000 bytes in 10 s, after 0.25 s."""
    assert told(5.25) == "50%: 500 B processed, 500 B remaining, ends in 5s"


def test_a_move_that_does_not_converge_is_told_with_its_timeout() -> None:
    """Nobody waits for an end that does not come."""
    assert told(1, timeout=60, **NEVER_CONVERGES).endswith("remaining, does not converge: times out in 59s")


def test_a_move_whose_end_is_not_known_is_told_so() -> None:
    """It has no timeout."""
    assert told(1, **NEVER_CONVERGES).endswith("remaining, does not converge soon")


def test_a_move_that_has_copied_all_ends_now() -> None:
    """The hand-over follows."""
    assert told(60) == "100%: 1000 B processed, 0 B remaining, ends in 0s"


def test_several_moves_are_summed_up_until_the_last_ends() -> None:
    """For the bar of a node; without an end if one of them has none."""
    now = BEGAN + timedelta(seconds=5.25)
    found = tuple(
        estimates((move("a"), move("b", ("n3", "n4"), bandwidth=50)), PublishedSettings(live=LIVE), now).values()
    )
    assert summary(found, now) == "2 copying: 1.2 KiB remaining, 15s left"
    endless = replace(found[0], end=None)
    assert summary((endless, found[1]), now) == "2 copying: 1.2 KiB remaining"
    assert summary((), now) == ""


@pytest.mark.parametrize(
    ("amount", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (96.5 * 2**20, "96.5 MiB"), (7.1 * 2**30, "7.1 GiB")],
)
def test_bytes_are_told_in_few_figures(amount: float, text: str) -> None:
    """In binary units, as Kubernetes shows memory."""
    assert size(amount) == text
