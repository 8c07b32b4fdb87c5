"""What a migration asks for, and how it is told in one line."""

from __future__ import annotations

import pytest

from controller.operations.migrations import Wish, failure, how_to_cancel, manifest, progress, success
from controller.operations.waiting import UNNOTICED
from tests.unit.cli.builders import migration


def test_the_name_begins_with_the_vms() -> None:
    """The API server makes it unique."""
    body = manifest(Wish(vm="vm-1", namespace="here"))
    assert body["metadata"] == {"generateName": "vm-1-", "namespace": "here"}


def test_only_what_was_said_is_in_the_spec() -> None:
    """Defaults are the schema's."""
    body = manifest(Wish(vm="vm-1", namespace="here"))
    assert body["spec"] == {"vmName": "vm-1"}


def test_every_wish_is_in_the_spec() -> None:
    """Under the schema's names."""
    body = manifest(Wish("v", "here", to="n2", reason="why", priority="user-triggered", labels={"a": "b"}))
    assert body["spec"] == {"vmName": "v", "targetNode": "n2", "reason": "why", "priority": "user-triggered"}
    assert body["metadata"]["labels"] == {"a": "b"}


def test_the_way_to_cancel_can_be_pasted() -> None:
    """Namespace, name, and JSON in quotes that a shell leaves alone."""
    command = """kubectl patch vmm -n here vm-1-abcde --type=merge -p '{"spec":{"cancel":true}}'"""
    assert how_to_cancel("here", "vm-1-abcde") == command


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ({"phase": "Pending"}, "Pending"),
        ({"phase": "Pending", "message": "No node\nhas room"}, "Pending: No node has room"),
        (
            {"phase": "Terminating", "source_pod": "virt-1", "source_node": "n1"},
            "Terminating: virt-1 leaves n1",
        ),
        ({"phase": "Scheduling"}, "Scheduling: the target waits for a node"),
        ({"phase": "Scheduling", "target_pod": "virt-2"}, "Scheduling: virt-2 waits for a node"),
        ({"phase": "Starting", "target_pod": "virt-2", "target_node": "n2"}, "Starting: virt-2 starts on n2"),
        ({"phase": "Starting", "message": "Slowly"}, "Starting: Slowly"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_phase_says_what_happens(status: dict[str, str], words: str) -> None:
    """The controller's message, if there is one, knows best."""
    assert progress(migration(**status), 0) == words


def test_a_migration_that_nobody_notices_makes_one_wonder() -> None:
    """Most likely no controller runs."""
    assert "does `vmsim controller` run" in progress(migration(), UNNOTICED)


def test_a_migration_with_a_message_was_noticed() -> None:
    """It may wait for long, and for a good reason."""
    assert progress(migration(message="No room"), 2 * UNNOTICED) == "Pending: No room"


def test_success_says_from_where_to_where_and_for_how_long() -> None:
    """In one line."""
    moved = migration(phase="Succeeded", source_node="n1", target_node="n2", downtime_seconds="0.5")
    assert success(moved) == "vm-1: n1 → n2, downtime 0.5 s"


def test_a_failure_says_why_in_one_line() -> None:
    """In one word, then for a person."""
    assert failure(migration(phase="Failed", failure_reason="NoRoom", message="All\nfull")) == "NoRoom: All full"
