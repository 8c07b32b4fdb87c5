"""Whose turn it is: limits, ranks, and nobody starved behind another node's queue."""

from __future__ import annotations

from controller.reconcilers.turns import Limits, Rank, Turns


def rank(priority: int, age: int) -> Rank:
    """A rank; less goes first."""
    return priority, f"2026-01-15T10:00:{age:02}Z", "default/m"


def test_a_free_slot_is_ones_turn() -> None:
    """Nobody else is there."""
    assert Turns(Limits()).ask("a", rank(3, 0), "node-1") is None


def test_a_turn_is_taken_when_it_is_given() -> None:
    """Others ask while the claim is still on its way."""
    turns = Turns(Limits(cluster=1))
    assert turns.ask("a", rank(3, 0), "node-1") is None
    assert turns.ask("b", rank(3, 1), "node-2") == "1 migrations are under way; at most 1 may be at once"
    assert turns.ended("a") == ["b"]
    assert turns.ask("b", rank(3, 1), "node-2") is None


def test_a_full_cluster_makes_wait_and_says_so() -> None:
    """Five at once."""
    turns = Turns(Limits())
    for number in range(5):
        turns.claimed(f"vm-{number}", f"node-{number}")
    assert turns.ask("a", rank(3, 0), "node-9") == "5 migrations are under way; at most 5 may be at once"


def test_a_node_that_two_leave_makes_its_third_wait_but_no_other() -> None:
    """The limit is the node's own."""
    turns = Turns(Limits())
    turns.claimed("vm-1", "node-1")
    turns.claimed("vm-2", "node-1")
    assert turns.ask("a", rank(0, 0), "node-1") == "2 VMs are leaving node-1 already; at most 2 may at once"
    assert turns.ask("b", rank(3, 9), "node-2") is None


def test_the_last_slot_goes_to_the_better_rank() -> None:
    """Priority first, then age."""
    turns = Turns(Limits(cluster=1))
    turns.claimed("vm-1", "node-9")
    for key, order in (("old", rank(3, 1)), ("young", rank(3, 2)), ("urgent", rank(0, 3))):
        turns.ask(key, order, f"node-of-{key}")
    assert turns.ended("vm-1") == ["urgent"]
    assert turns.ask("old", rank(3, 1), "node-of-old") == "1 migrations of higher priority or greater age go first"
    assert turns.ask("urgent", rank(0, 3), "node-of-urgent") is None
    assert turns.ask("old", rank(3, 1), "node-of-old") is not None


def test_a_claim_taken_twice_takes_one_slot() -> None:
    """A rollback writes the claim again."""
    turns = Turns(Limits(cluster=2))
    turns.claimed("vm-1", "node-1")
    turns.claimed("vm-1", "node-1")
    assert turns.ask("a", rank(3, 0), "node-2") is None


def test_the_end_of_what_had_no_slot_wakes_nobody() -> None:
    """It is looked at often."""
    turns = Turns(Limits())
    turns.ask("a", rank(3, 0), "node-1")
    assert turns.ended("vm-1") == []


def test_zero_means_no_limit() -> None:
    """Storms may be rehearsed without."""
    turns = Turns(Limits(cluster=0, outbound=0))
    for number in range(100):
        turns.claimed(f"vm-{number}", "node-1")
    assert turns.ask("a", rank(3, 0), "node-1") is None


def test_who_waits_no_more_stands_in_nobodys_way() -> None:
    """Cancelled, or failed."""
    turns = Turns(Limits(cluster=1))
    turns.claimed("vm-1", "node-9")
    turns.ask("gone", rank(0, 0), "node-1")
    turns.forget("gone")
    assert turns.ended("vm-1") == []
    assert turns.ask("a", rank(3, 0), "node-2") is None
