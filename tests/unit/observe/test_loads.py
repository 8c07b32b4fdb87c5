"""Who holds how much where: sums that are exact and that forget."""

from __future__ import annotations

from decimal import Decimal

from controller.domain.capacity import NOTHING, Amount
from controller.observe.loads import Ledger

SOME = Amount(Decimal("0.1"), Decimal(3), 1)
ODD = Amount(pods=1, unknown=True)


def test_what_is_held_is_summed_by_node() -> None:
    """Whoever holds it."""
    ledger = Ledger()
    for who, node in (("a", "n1"), ("b", "n1"), ("c", "n2")):
        ledger.put(who, node, SOME)
    assert [ledger.on("n1"), ledger.on("n2"), ledger.on("n3")] == [SOME + SOME, SOME, NOTHING]


def test_who_holds_something_elsewhere_holds_it_here_no_more() -> None:
    """A pod has one node."""
    ledger = Ledger()
    ledger.put("a", "n1", SOME)
    ledger.put("a", "n2", SOME)
    assert [ledger.on("n1"), ledger.on("n2")] == [NOTHING, SOME]


def test_what_was_added_and_taken_away_leaves_nothing() -> None:
    """Not even a crumb."""
    ledger = Ledger()
    for who in "abc":
        ledger.put(who, "n", SOME)
    assert [ledger.drop(who) for who in "abca"] == ["n", "n", "n", None]
    assert ledger.on("n") == NOTHING


def test_a_sum_is_unknown_only_while_a_part_of_it_is() -> None:
    """One odd pod costs its node nothing once it is gone."""
    ledger = Ledger()
    ledger.put("a", "n", SOME)
    ledger.put("odd", "n", ODD)
    assert ledger.on("n").unknown
    ledger.drop("odd")
    assert ledger.on("n") == SOME
