"""Constructs that the code must not contain: unsafe calls, and duplicates of what has one place."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCES = [path for folder in ("controller", "hack") for path in sorted((REPOSITORY / folder).rglob("*.py"))]

FORBIDDEN_CALLS = {
    *("eval", "exec", "compile", "__import__"),
    *("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"),
    *("asyncio.create_subprocess_shell", "yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load"),
    *("tempfile.mktemp", "ssl._create_unverified_context"),
}
FORBIDDEN_MODULES = {"pickle", "marshal", "shelve", "dill", "telnetlib", "commands"}
VERBS = {"get", "list_page", "watch", "create", "merge_patch", "apply", "delete"}
VERB_MODULES = ["controller/kube/client.py", "controller/kube/verbs.py"]
"""What carries the verbs out, and their protocols."""
LOG_METHODS = {"debug", "info", "warning", "error", "exception", "critical", "log"}


def literal(node: ast.expr) -> bool:
    """Return whether an expression is a literal, or a choice of two."""
    return isinstance(node, ast.Constant) or (
        isinstance(node, ast.IfExp) and literal(node.body) and literal(node.orelse)
    )


def problems(tree: ast.AST) -> Iterator[str]:
    """Yield the problems of a module, each with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [name.name for name in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from (f"{node.lineno}: imports {name}" for name in modules if name in FORBIDDEN_MODULES)
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        if name in FORBIDDEN_CALLS:
            yield f"{node.lineno}: calls {name}"
        for keyword in node.keywords:
            constant = keyword.value.value if isinstance(keyword.value, ast.Constant) else True
            if keyword.arg == "shell" and constant is not False:
                yield f"{node.lineno}: starts a shell"
        logger, _, method = name.rpartition(".")
        if logger.endswith("_log") and method in LOG_METHODS and not literal(node.args[0]):
            yield f"{node.lineno}: logs an event that is not a literal"


def imports(path: Path) -> set[str]:
    """Return the top-level packages that a module imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
    return found


def test_only_the_transport_imports_the_http_client() -> None:
    """The product's own HTTP server is exempt."""
    users = {str(path.relative_to(REPOSITORY)) for path in SOURCES if "aiohttp" in imports(path)}
    others = ("controller/serving/", "hack/")
    assert {path for path in users if not path.startswith(others)} == {
        "controller/kube/transport.py",
    }


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_no_module_has_an_unsafe_call_or_a_computed_log_event(path: Path) -> None:
    """No shell, no evaluation, no unsafe loader; log events are literals, and values go into fields."""
    assert list(problems(ast.parse(path.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("subprocess.run('x', shell=True)", "1: starts a shell"),
        ("subprocess.run('x', shell=wanted)", "1: starts a shell"),
        ("import pickle", "1: imports pickle"),
        ("from pickle import loads", "1: imports pickle"),
        ("yaml.load(text, Loader=yaml.Loader)", "1: calls yaml.load"),
        ("eval(text)", "1: calls eval"),
        ("_log.info(f'VM {name}')", "1: logs an event that is not a literal"),
        ("self._log.warning('VM %s' % name)", "1: logs an event that is not a literal"),
    ],
)
def test_the_check_finds_what_it_is_for(source: str, problem: str) -> None:
    """A check that never finds anything would pass, too."""
    assert list(problems(ast.parse(source))) == [problem]


def verbs(tree: ast.AST) -> Iterator[str]:
    """Yield the API verbs that a module defines: functions with a verb's name that take a resource."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name in VERBS:
            annotations = [each.annotation for each in (*node.args.posonlyargs, *node.args.args)]
            if any(each is not None and ast.unparse(each).startswith("Resource[") for each in annotations):
                yield node.name


def test_a_verb_has_one_protocol_and_one_client() -> None:
    """Users of verbs take a sum of the protocols, and wrappers of a client repeat no parameter."""
    found = {str(path.relative_to(REPOSITORY)): sorted(verbs(ast.parse(path.read_text()))) for path in SOURCES}
    assert {path: names for path, names in found.items() if names} == dict.fromkeys(VERB_MODULES, sorted(VERBS))


@pytest.mark.parametrize(
    "source",
    [
        "class Api(Protocol):\n    async def get(self, resource: Resource[T], name: str) -> T: ...",
        "class Wrapper:\n    def get(self, resource: Resource[Any], /, *rest): return self.api.get(resource, *rest)",
        "def get(client: Api, resource: Resource[Pod], name: str) -> Pod: ...",
    ],
    ids=["a protocol", "a wrapper", "a function"],
)
def test_a_repeated_signature_is_found(source: str) -> None:
    """In any class."""
    assert list(verbs(ast.parse(source))) == ["get"]


def test_methods_with_a_verbs_name_and_no_resource_are_ignored() -> None:
    """A store and a queue have a `get`, too."""
    assert list(verbs(ast.parse("class Store:\n    def get(self, key: str) -> T | None: ..."))) == []
