"""The label of a drain's migrations, and the commands that undo a drain."""

from __future__ import annotations

import pytest

from controller.cli.drain import aftermath
from controller.operations.draining.asking import label


@pytest.mark.parametrize("node", ["n1", "a" * 253, f"{'a' * 62}.b", f"{'a' * 61}.-b"])
def test_a_node_of_any_name_has_a_valid_label(node: str) -> None:
    """A label has at most 63 characters, and ends in a letter or digit."""
    value = label(node)
    assert node.startswith(value[:50].rstrip("-."))
    assert 0 < len(value) <= 63
    assert value[-1].isalnum()


def test_nodes_with_a_common_prefix_have_different_labels() -> None:
    """The undo of one drain must not cancel the migrations of another."""
    assert label(f"{'a' * 63}.east") != label(f"{'a' * 63}.west")
    assert label("n1") == "n1"


def test_the_undo_names_the_node() -> None:
    """It can be pasted into a shell."""
    assert "    kubectl uncordon n1" in aftermath(["n1"], waiting=False)


def test_the_undo_cancels_only_pending_migrations_of_the_drain() -> None:
    """By label and phase."""
    command = "kubectl delete vmm -A -l simulation.node-classifier.io/drain=n1 --field-selector status.phase=Pending"
    assert command in aftermath(["n1"], waiting=True)
