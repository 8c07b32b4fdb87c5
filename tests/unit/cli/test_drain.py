"""How a drain names its migrations, and how it is undone."""

from __future__ import annotations

import pytest

from controller.cli.drain import aftermath
from controller.operations.draining.asking import label


@pytest.mark.parametrize("node", ["n1", "a" * 253, f"{'a' * 62}.b", f"{'a' * 61}.-b"])
def test_any_node_can_be_named_in_a_label(node: str) -> None:
    """A label ends in a letter or digit, at 63 characters at the latest."""
    value = label(node)
    assert node.startswith(value[:50].rstrip("-."))
    assert 0 < len(value) <= 63
    assert value[-1].isalnum()


def test_two_nodes_whose_names_begin_alike_are_told_apart() -> None:
    """What undoes the drain of one must not cancel the migrations of the other's."""
    assert label(f"{'a' * 63}.east") != label(f"{'a' * 63}.west")
    assert label("n1") == "n1"


def test_the_way_back_names_the_node() -> None:
    """It can be pasted."""
    assert "    kubectl uncordon n1" in aftermath(["n1"], waiting=False)


def test_the_way_back_cancels_what_waits_of_this_drain_only() -> None:
    """By label, and by phase."""
    command = "kubectl delete vmm -A -l simulation.node-classifier.io/drain=n1 --field-selector status.phase=Pending"
    assert command in aftermath(["n1"], waiting=True)
