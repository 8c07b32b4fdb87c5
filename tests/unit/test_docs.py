"""The names in the documents exist: links, files, and functions, classes and tests that are named with their file."""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
DOCUMENTS = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
ROOTS = [REPOSITORY / folder for folder in ("", "controller", "tests")]

# A file, with what stands beside it: `reconcilers/vm.py` `_adopt`, `begin`. A link's target may stand in between.
FILE = re.compile(r"`(?P<path>[\w./-]+\.py)(?:::(?P<test>\w+))?`(?:\]\([^)]*\))?(?P<beside>(?:,?\s+`\w+`)*)")
# What a document calls a file of tests: `P` is [`tests/…/test_promises.py`](…); then: P `a_name`, `another`.
SHORT = re.compile(r"`(?P<short>\w)` is\s+\[`(?P<path>[\w./-]+\.py)`\]")
LINK = re.compile(r"\]\((?!\w+:)(?P<target>[^)#]*)(?:#(?P<heading>[^)]*))?\)")
# Names that can only be ours: private ones, and calls.
OURS = re.compile(r"`(?P<name>_[a-z]\w*|[a-z]\w*(?=\([^`]*\)`))")
pytestmark = pytest.mark.timeout(60)  # the first test reads every module of the repository

PROMQL = {"rate", "increase", "histogram_quantile"}


@cache
def defined(path: Path) -> frozenset[str]:
    """Return the names of a module's functions and classes, at any depth, and of its and their assignments."""
    names: set[str] = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.Module | ast.ClassDef):
            names.update(
                name.id
                for statement in node.body
                if isinstance(statement, ast.Assign | ast.AnnAssign)
                for name in ast.walk(statement)
                if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)
            )
    return frozenset(names)


@cache
def defined_anywhere() -> frozenset[str]:
    """Return the names that any module of the repository defines."""
    modules = (path for folder in ("controller", "hack", "tests") for path in (REPOSITORY / folder).rglob("*.py"))
    return frozenset().union(*map(defined, modules))


def find(path: str, last: Path | None) -> Path | None:
    """Find a file by what a document calls it: by its path, beside the file named before it, or a test by its name."""
    places = [root / path for root in ROOTS] + ([last.parent / path] if last else [])
    if found := next((place for place in places if place.is_file()), None):
        return found
    tests = list((REPOSITORY / "tests").rglob(path)) if path.startswith("test_") else []
    return tests[0] if len(tests) == 1 else None


def headings(text: str) -> set[str]:
    """Return the anchors that GitHub makes of a document's headings."""
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def missing_links(text: str, folder: Path) -> Iterator[str]:
    """Yield the links within the repository that lead to no file, or to no heading of one."""
    for match in LINK.finditer(text):
        target, heading = folder / match["target"], match["heading"]
        if not target.exists():
            yield match["target"]
        elif heading and heading not in headings(target.read_text(encoding="utf-8") if match["target"] else text):
            yield f"{match['target']}#{heading}"


def missing_names(text: str) -> Iterator[str]:
    """Yield the files, and the names that a document gives with a file, that are not there."""
    last: Path | None = None
    for match in FILE.finditer(text):
        if (path := find(match["path"], last)) is None:
            yield match["path"]
            continue
        last = path
        names = [*([match["test"]] if match["test"] else []), *re.findall(r"`(\w+)`", match["beside"])]
        yield from (f"{match['path']} {name}" for name in names if name not in defined(path))
    for short in SHORT.finditer(text):
        for cited in re.finditer(rf"\b{short['short']}\s+((?:`\w+`(?:,\s+)?)+)", text):
            tests = (f"test_{name}" for name in re.findall(r"`(\w+)`", cited[1]))
            yield from (f"{short['path']} {name}" for name in tests if name not in defined(REPOSITORY / short["path"]))
    known = defined_anywhere() | PROMQL | set(dir(builtins))
    yield from (match["name"] for match in OURS.finditer(text) if match["name"] not in known)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_each_link_has_a_target(document: Path) -> None:
    """A file that is moved needs its links updated."""
    assert list(missing_links(document.read_text(encoding="utf-8"), document.parent)) == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_each_file_function_and_test_that_is_named_exists(document: Path) -> None:
    """A function that is renamed or moved is renamed in the documents, too."""
    assert list(missing_names(document.read_text(encoding="utf-8"))) == []


def test_the_file_of_the_promises_is_recognized() -> None:
    """Without the definition of `P` no promise would be checked."""
    text = (REPOSITORY / "docs" / "design.md").read_text(encoding="utf-8")
    assert {short["short"] for short in SHORT.finditer(text)} == {"P", "L"}


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("`reconcilers/vm/reconciler.py`, [`domain/vm/decide.py`](x) `decide`, `_start`", []),
        ("`telemetry/nodes.py`, `vms.py`; `tests/conftest.py`", []),
        ("`test_docs.py::test_each_link_has_a_target`", []),
        ("`telemetry/nodes.py`, `no_such.py`", ["no_such.py"]),
        ("`no/such.py` `decide`", ["no/such.py"]),
        ("`domain/vm/decide.py` `decide`, `gone`", ["domain/vm/decide.py gone"]),
        ("[`domain/vm/decide.py`](x)\n`Gone`", ["domain/vm/decide.py Gone"]),
        ("`test_docs.py::test_gone`", ["test_docs.py test_gone"]),
        ("`D` is\n[`tests/unit/test_docs.py`](x). D `each_link_has_a_target`", []),
        ("`D` is [`tests/unit/test_docs.py`](x). D\n`gone`", ["tests/unit/test_docs.py test_gone"]),
        ("what `_gone_for_good` did, and `gone_for_good(1)`", ["_gone_for_good", "gone_for_good"]),
        ("`decide(view) -> plan`, `_start`, `rate()`", []),
    ],
)
def test_the_check_finds_what_it_is_for(text: str, missing: list[str]) -> None:
    """A check that never finds anything would pass, too."""
    assert list(missing_names(text)) == missing


def test_a_broken_link_is_found() -> None:
    """Also one to a missing heading; external links are not checked."""
    text = "# Here, too\n[a](gone.md#x) [b](design.md#promises) [c](design.md#x) [](https://x.org) [](#here-too) [](#x)"
    assert list(missing_links(text, REPOSITORY / "docs")) == ["gone.md", "design.md#x", "#x"]
