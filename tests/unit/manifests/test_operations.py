"""What docs/operations.md says of flags, overlays and tests is so."""

from __future__ import annotations

import ast
import os
import re
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from controller.cli.main import app
from controller.domain import names
from tests.unit.manifests.kustomizations import MANIFESTS, built, container_of, of_kind, the
from tests.unit.manifests.shipped import REPOSITORY

TEXT = (REPOSITORY / "docs" / "operations.md").read_text()
BLOCKS = [yaml.safe_load(block) for block in re.findall(r"^```yaml\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)]
OVERLAYS = [block for block in BLOCKS if block["kind"] == "Kustomization"]
[YOURS, BLUE] = OVERLAYS
TESTS = sorted(set(re.findall(r"`(test_\w+\.py)::(test_\w+)`", TEXT)))


def row(flag: Any) -> str:
    """Return a flag's row of the table."""
    spelt = ", ".join(f"`{spelling}`" for spelling in (*flag.opts, *flag.secondary_opts))
    variable = f"`{flag.envvar}`" if flag.envvar else "–"  # noqa: RUF001 - as the page has it
    return f"| {spelt} | {variable} | {default(flag)} | {flag.help} |"


def default(flag: Any) -> str:
    """Return a flag's default as --help tells it."""
    if isinstance(flag.show_default, str):
        return flag.show_default
    if isinstance(flag.default, bool):
        [spelling] = flag.opts if flag.default else flag.secondary_opts
        return f"`{spelling}`"
    return f"`{flag.default.value if isinstance(flag.default, Enum) else flag.default}`"


def test_the_table_of_flags_is_that_of_help() -> None:
    """Each with its variable, default and meaning, in the same order, and none besides."""
    command = typer.main.get_command(app).commands["controller"]  # type: ignore[attr-defined]
    table = TEXT.split("| flag | variable | default | |\n|---|---|---|---|\n")[1].split("\n\n")[0]
    assert table.splitlines() == [row(flag) for flag in command.params if flag.name != "help"]


def build(overlay: Any, directory: Path) -> Any:
    """Build an overlay of the page as if it were in manifests/overlays."""
    place = MANIFESTS / "overlays" / "yours"
    elsewhere = {
        key: [os.path.relpath((place / path).resolve(), directory.resolve()) for path in overlay.get(key, ())]
        for key in ("resources", "components")
    }
    (directory / "kustomization.yaml").write_text(yaml.safe_dump({**overlay, **elsewhere}))
    return built(directory)


def test_an_overlay_of_yours_changes_image_and_flags(tmp_path: Path) -> None:
    """As the page shows it."""
    container = container_of(build(YOURS, tmp_path))
    assert container["image"].startswith("registry.example.com/vmsim:")
    assert "--reference-cpu=64" in container["args"]


def test_a_second_installation_shares_nothing_with_the_first(tmp_path: Path) -> None:
    """Neither a name in the cluster nor the namespace, nor does it touch the resources."""
    objects = build(BLUE, tmp_path)

    def identities(group: Any) -> set[tuple[str, str | None, str]]:
        return {(one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]) for one in group}

    assert identities(objects) & identities(built(MANIFESTS / "base")) == set()
    assert of_kind(objects, "CustomResourceDefinition") == []
    deployment = the(objects, "Deployment", "vmsim-controller-blue")
    assert deployment["metadata"]["namespace"] == "vmsim-blue"
    assert deployment["spec"]["template"]["spec"]["serviceAccountName"] == "vmsim-controller-blue"
    for binding in of_kind(objects, "ClusterRoleBinding", "RoleBinding"):
        [subject] = binding["subjects"]
        assert (subject["namespace"], subject["name"]) == ("vmsim-blue", "vmsim-controller-blue")
        assert binding["roleRef"]["name"].endswith("-blue")
    named = {
        name for role in of_kind(objects, "Role") for rule in role["rules"] for name in rule.get("resourceNames", ())
    }
    assert named == {names.installation("blue")}


@pytest.mark.parametrize(("file", "name"), TESTS, ids=lambda value: value.removesuffix(".py"))
def test_each_test_that_is_named_exists(file: str, name: str) -> None:
    """Under the name by which one would run it."""
    tree = ast.parse((REPOSITORY / "tests" / "integration" / file).read_text())
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize("name", [names.CONTROLLER_CLASS, names.VM_LABEL])
def test_labels_are_spelt_as_the_controller_reads_them(name: str) -> None:
    """Where a person is told to write them."""
    assert re.search(rf"{re.escape(name)}(?![-\w/])", TEXT)
