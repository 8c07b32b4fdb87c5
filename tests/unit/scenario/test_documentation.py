"""docs/scenarios.md: its examples load, and its tables are complete."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from controller.scenario import files, schema
from controller.scenario.schema import parse

TEXT = (Path(__file__).parents[3] / "docs" / "scenarios.md").read_text()
SCENARIOS = re.findall(r"^```yaml\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
[TRACE] = re.findall(r"^```csv\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
FIELD = re.compile(r"`([a-zA-Z]+)`")


@pytest.mark.parametrize("text", SCENARIOS, ids=lambda text: re.findall(r"^name: (.*)$", text, re.MULTILINE)[0])
def test_every_example_parses(text: str, tmp_path: Path) -> None:
    """With the trace beside it."""
    (tmp_path / "trace.csv").write_text(TRACE)
    scenario = parse(text, "docs/scenarios.md", tmp_path)
    assert scenario.fleet.vms
    assert scenario.changes


def test_the_document_has_two_examples() -> None:
    """Without examples the test above has no cases."""
    assert len(SCENARIOS) == 2


@pytest.mark.parametrize(
    ("head", "fields"),
    [
        ("field", schema.FIELDS),
        ("field of a group of nodes", schema.NODE_FIELDS),
        ("field of a group of VMs", schema.VM_FIELDS),
    ],
)
def test_the_tables_list_exactly_the_fields_of_the_schema(head: str, fields: tuple[str, ...]) -> None:
    """One table for each kind of mapping."""
    table = TEXT.split(f"| {head} | meaning | default |\n")[1].split("\n\n")[0]
    named = [name for row in table.splitlines()[1:] for name in FIELD.findall(row.split("|")[1])]
    assert sorted(named) == sorted(fields)


def test_the_first_table_lists_exactly_the_shipped_scenarios() -> None:
    """By name."""
    table = TEXT.split("| shipped | what happens |\n")[1].split("\n\n")[0]
    assert sorted(re.findall(r"^\| `([-a-z]+)`", table, re.MULTILINE)) == files.shipped()
