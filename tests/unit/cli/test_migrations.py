"""The table of `vmsim migrations`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec

from controller.cli.migrations import table
from controller.domain.objects import MigrationSpec, VirtualMachineMigration
from controller.domain.settings import PublishedSettings
from controller.operations.copying import estimates
from tests.unit.cli.builders import drawn, migration
from tests.unit.observe.builders import LIVE, move

NOW = datetime(2026, 1, 15, 10, 30, tzinfo=UTC)

MOVED = migration(
    phase="Succeeded",
    start_timestamp="2026-01-15T10:29:50.000000Z",
    source_node="n1",
    target_node="n2",
    reason="drill",
    downtime_seconds="1.234",
    message="Moved",
)


def rows(*migrations: VirtualMachineMigration, namespaces: bool = False, width: int = 200) -> list[str]:
    """Return the table's lines."""
    return drawn(table(migrations, namespaces=namespaces, now=NOW), width)


def test_a_row_has_kubectls_columns() -> None:
    """In the same order, and the strategy; without a message for a success."""
    header, row = rows(MOVED)
    columns = ["NAME", "PHASE", "VM", "STRATEGY", "SOURCE", "TARGET", "REASON", "DOWNTIME", "AGE", "MESSAGE"]
    assert header.split() == columns
    assert row.split() == ["vm-1-abcde", "Succeeded", "vm-1", "Recreate", "n1", "n2", "drill", "1.234", "10s"]


def test_a_migration_that_has_not_begun_shows_the_strategy_that_was_asked_for() -> None:
    """If it names none, the controller's holds when it begins."""
    asked = msgspec.structs.replace(migration(), spec=MigrationSpec(vm_name="vm-1", strategy="Live"))
    assert "  vm-1  Live  " in " ".join(rows(asked))


def test_a_migration_that_copies_shows_how_far_it_is() -> None:
    """Beside the reason why its hand-over waits, if there is one."""
    copying = move(began=NOW - timedelta(seconds=5.25))
    status = msgspec.structs.replace(copying.status, message="n2 is silent")
    waiting = msgspec.structs.replace(copying, status=status)
    found = estimates((copying,), PublishedSettings(live=LIVE), NOW)
    figures = "50%: 500 B processed, 500 B remaining, ends in 5s"
    for shown, message in ((copying, figures), (waiting, f"n2 is silent; {figures}")):
        assert drawn(table([shown], namespaces=False, now=NOW, estimated=found), 200)[1].endswith(f"  {message}")


def test_the_namespace_is_the_first_column_for_all_namespaces() -> None:
    """As with kubectl's -A."""
    header, row = rows(migration(namespace="other"), namespaces=True)
    assert header.split()[:2] == ["NAMESPACE", "NAME"]
    assert row.split()[:2] == ["other", "vm-1-abcde"]


def test_a_pending_migration_shows_its_message() -> None:
    """Without `-o wide`."""
    assert rows(migration(message="No node has room"))[1].endswith("10s  No node has room")


def test_a_failed_migration_shows_its_reason_and_message() -> None:
    """The reason is one word."""
    row = rows(migration(phase="Failed", failure_reason="RolledBack", message="Nowhere to go"))[1]
    assert row.endswith("10s  RolledBack: Nowhere to go")


def test_the_oldest_migration_is_first_in_each_namespace() -> None:
    """The newest is then next to the shell's prompt."""
    lines = rows(
        migration(name="c", created="2026-01-15T10:29:58Z"),
        migration(name="a", namespace="other", created="2026-01-15T10:29:51Z"),
        migration(name="b", created="2026-01-15T10:29:59Z"),
        namespaces=True,
    )
    assert [line.split()[1] for line in lines[1:]] == ["c", "b", "a"]


def test_markup_in_a_reason_is_shown_unchanged() -> None:
    """Unbalanced markup would otherwise raise an exception."""
    assert "[/red]x" in rows(migration(reason="[/red]x"))[1]


def test_a_narrow_terminal_folds_the_message() -> None:
    """It is never truncated."""
    words = "No node has room for what the VM requests, not even an empty one"
    text = " ".join(" ".join(rows(migration(message=words), width=80)).split())
    assert all(word in text for word in words.split())
