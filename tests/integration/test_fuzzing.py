"""Random specs and annotations, valid and not, derived from the CRDs' own schemas, against the real API server.

Every request is reached, or refused with a message that names the field. None ends the controller or affects another
VM. The requests are the same each time; `FUZZ_EXAMPLES=500` sends more and other ones, and `--log-cli-level=INFO`
counts them.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from controller.domain import names
from controller.domain.ratio import RatioError, parse_ratio
from tests.integration.tools import Controller, Kubectl, vm_manifest

_log = logging.getLogger(__name__)

CRDS: Final = Path(__file__).resolve().parents[2] / "manifests" / "crds"
EXAMPLES: Final = int(os.environ.get("FUZZ_EXAMPLES", "25"))
TIMEOUT: Final = 45.0
MISSING: Final = "<missing>"
"""A mutation that takes the field away."""
ANNOTATIONS: Final = (names.CPU_CONSUMPTION, names.MEMORY_CONSUMPTION)
At = tuple[str, ...]
Mutation = tuple[At, Any]


@dataclass(frozen=True, slots=True)
class Long:
    """A long string, short to print."""

    letter: str
    length: int


# --- what may be asked for --------------------------------------------------------------------------------------


@cache
def schema(plural: str) -> Any:
    """Return the schema of a resource's spec, from its CRD."""
    crd = yaml.safe_load((CRDS / f"{plural}.yaml").read_text())
    return crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]


def leaves(part: Any, at: At) -> Iterator[tuple[At, Any]]:
    """Yield every field of a schema, with its own schema."""
    yield at, part
    for name, inner in part.get("properties", {}).items():
        yield from leaves(inner, (*at, name))


def conforming(part: Any) -> st.SearchStrategy[Any]:  # noqa: PLR0911 - one way out per type
    """Values that a field's schema admits, its bounds above all."""
    rules = " ".join(rule["rule"] for rule in part.get("x-kubernetes-validations", ()))
    pattern = re.search(r"matches\('([^']+)'\)", rules)
    bound = re.search(r"double\(self\) <= ([0-9.]+)", rules)
    if part.get("x-kubernetes-int-or-string"):
        return st.sampled_from([0, 1, "0", "64Mi", "1250M"])
    match part["type"]:
        case "string" if "enum" in part:
            return st.sampled_from(part["enum"])
        case "string" if bound is not None:
            most = float(bound[1])
            return st.sampled_from(["0", "0.01", "0.05", "0.10", "0.00000000000001", "1.0", str(int(most))])
        case "string" if pattern is not None:
            return st.from_regex(pattern[1], fullmatch=True).filter(lambda text: len(text) <= part["maxLength"])
        case "string":
            return st.text("abc-", min_size=1, max_size=min(part.get("maxLength", 8), 8))
        case "boolean":
            return st.booleans()
        case "integer":
            low = part.get("minimum", 0)
            return st.sampled_from([low, low + 1, part.get("maximum", 2**31 - 1)])
        case "array":
            return st.lists(conforming(part["items"]), min_size=part.get("minItems", 0), max_size=2)
        case _ if "additionalProperties" in part:
            return st.dictionaries(st.text("abc-", min_size=1), conforming(part["additionalProperties"]), max_size=2)
        case _:
            return composed(part)


def composed(part: Any) -> st.SearchStrategy[Any]:
    """Objects with the required fields of a schema, and one other field at most, so that they stay small."""
    # flatmap, because a strategy's repr has those of its parts, but not those that are made when it is drawn from.
    fields = {name: st.just(below).flatmap(conforming) for name, below in part.get("properties", {}).items()}
    needed = {name: fields.pop(name) for name in part.get("required", ()) if name in fields}
    with_one = [st.fixed_dictionaries({**needed, name: below}) for name, below in fields.items()]
    return st.one_of(st.fixed_dictionaries(needed), *with_one)


def invalid(part: Any) -> st.SearchStrategy[Any]:
    """Values that a field's schema refuses, or nearly: other types, too long, too large, missing."""
    longest = part.get("maxLength", 16)
    beyond = [part["minimum"] - 1, part["maximum"] + 1] if "maximum" in part else []
    found = [
        MISSING,
        None,
        True,
        0.5,
        [],
        {},
        ["0.1"],
        {"a": "b"},
        2**63,
        Long("x", longest + 1),
        Long("9", 100_000),
        *beyond,
    ]
    texts = ["", "NaN", "1e3", "-1", "0x1", " 0.1", "1000.1", "UPPER", "a.b", "१", "\u0000", "'; DROP TABLE vms"]
    return st.sampled_from([*found, *texts])


def mutations(plural: str) -> st.SearchStrategy[Mutation]:
    """One field and a value for it; sometimes a field that does not exist."""
    fields = list(leaves(schema(plural), ("spec",)))
    parents = [at for at, part in fields if "properties" in part]
    known = st.sampled_from(fields).flatmap(
        lambda found: st.tuples(st.just(found[0]), conforming(found[1]) | invalid(found[1]))
    )
    unknown = st.tuples(st.sampled_from([(*at, "nonsense") for at in parents]), st.sampled_from(["", 1, {}]))
    ratio = conforming(schema(names.VM_PLURAL)["properties"]["resources"]["properties"]["cpu"])
    text: st.SearchStrategy[Any] = ratio | st.sampled_from(
        ["", "a lot", "1e9", "-0", "NaN", Long("9", 200_000), "\ud7ff☃", None, 1, {}]
    )
    annotations = st.tuples(st.sampled_from([("metadata", "annotations", name) for name in ANNOTATIONS]), text)
    return st.one_of(known, known, known, unknown, annotations)


@dataclass(frozen=True, slots=True)
class Story:
    """The create of one VM or migration, and its later edits."""

    plural: str
    name: str
    born: list[Mutation]
    edits: list[list[Mutation]]


def stories() -> st.SearchStrategy[Story]:
    """Mostly VMs, under any name."""
    plain = st.uuids().map(lambda number: f"fuzz-{number.hex[:8]}")
    name = st.one_of(plain, plain, plain, plain, st.sampled_from(["", "-a", "a.b", "A", "f" * 43, "f" * 44, "f" * 254]))

    def of(plural: str) -> st.SearchStrategy[Story]:
        changes = st.lists(mutations(plural), max_size=2)
        return st.builds(Story, st.just(plural), name, st.just([]) | changes, st.lists(changes, max_size=4))

    return st.one_of(of(names.VM_PLURAL), of(names.VM_PLURAL), of(names.MIGRATION_PLURAL))


# --- asking for it ----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Gateway:
    """The API server by way of `kubectl proxy`; records the refused and the admitted requests."""

    port: int
    refused: list[str] = field(default_factory=list)
    admitted: set[tuple[str, str]] = field(default_factory=set)

    @classmethod
    @contextmanager
    def open(cls, kubectl: Kubectl) -> Iterator[Gateway]:
        """Serve while the context lasts."""
        with kubectl.running("proxy", "--port=0") as output:
            [line, *_] = output.wait_for(lambda lines: any("Starting to serve" in line for line in lines))
            yield cls(int(line.rpartition(":")[2]))

    def ask(self, method: str, story: Story, body: Any, changed: list[Mutation]) -> None:
        """Send a request; a refusal must name one of the fields that were changed."""
        path = f"/apis/{names.API_VERSION}/namespaces/default/{story.plural}"
        path += f"/{story.name}" if method == "PATCH" else ""
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, f"{path}?fieldValidation=Strict", json.dumps(body), {"Content-Type": kind})
            answer = connection.getresponse()
            message = json.loads(answer.read()).get("message", "")
        finally:
            connection.close()
        if answer.status < 300:
            self.admitted.add((story.plural, story.name))
            return
        asked = f"{method} {json.dumps(body)[:2000]}: {answer.status} {message[:2000]}"
        if answer.status == 409 and method == "POST":
            return  # two stories have one name
        assert answer.status in (400, 422), asked
        fields = [".".join(at) for at, _ in changed] + ["metadata.name"] * (method == "POST")
        annotations = any(at[:2] == ("metadata", "annotations") for at, _ in changed)
        fixed = any(f"{'.'.join(at[:2])} is immutable" in message for at, _ in changed)
        named = any(name in message for name in fields) or (annotations and "annotations" in message)
        assert named or fixed, asked
        self.refused.append(message)

    def play(self, story: Story) -> None:
        """Create it, then edit it."""
        body = vm_manifest(story.name, base(story.plural))
        body["kind"] = names.VM_KIND if story.plural == names.VM_PLURAL else names.MIGRATION_KIND
        self.ask("POST", story, changed(body, story.born), story.born)
        for edit in story.edits if (story.plural, story.name) in self.admitted else ():
            self.ask("PATCH", story, changed({}, edit, missing=None), edit)


def base(plural: str) -> Any:
    """Return a valid spec."""
    if plural == names.VM_PLURAL:
        return {"resources": {"cpu": "0.01", "memory": "0.01"}}
    return {"vmName": "mover"}


def changed(body: Any, mutations: list[Mutation], *, missing: Any = MISSING) -> Any:
    """Return a document with fields set, and missing ones removed (in a patch: None)."""
    for (*parents, last), value in mutations:
        inner = body
        for parent in parents:
            if not isinstance(inner.get(parent), dict):
                inner[parent] = {}
            inner = inner[parent]
        if value == MISSING and missing == MISSING:
            inner.pop(last, None)
        else:
            inner[last] = missing if value == MISSING else written(value)
    return body


def written(value: Any) -> Any:
    """Return a value as it is sent."""
    return value.letter * value.length if isinstance(value, Long) else value


# --- what becomes of it -----------------------------------------------------------------------------------------


def reached(vm: Any) -> bool:
    """Whether a VM has the state of its spec, or says why not."""
    status = vm["status"]
    ready = next((found for found in status.get("conditions", ()) if found["type"] == "Ready"), None)
    if ready is None:
        return False
    if not vm["spec"]["running"]:
        return bool(status["phase"] == "Stopped")
    if not shown(vm):
        return False
    if status["phase"] == "Running":
        return bool(ready["status"] == "True")
    explained = ready["reason"] in ("Unschedulable", "FailedCreate", "NotScheduled") or status["phase"] == "Failed"
    return bool(explained and ready["message"])


def shown(vm: Any) -> bool:
    """Whether the status has the VM's use: the annotation if it is a ratio, else the spec, and a warning."""
    annotations = vm["metadata"].get("annotations", {})
    warned = any(found["type"] == "InvalidConsumption" for found in vm["status"]["conditions"])
    bad = False
    for name, key, most in zip(ANNOTATIONS, ("cpu", "memory"), (1000, 1), strict=True):
        wanted = annotations.get(name)
        try:
            parse_ratio(wanted if wanted is not None else "0", field=name, maximum=Decimal(most))
        except RatioError:
            wanted, bad = None, True
        if vm["status"].get(f"{key}Consumption") != (wanted or vm["spec"]["resources"][key]):
            return False
    return warned == bad


def explained(migration: Any) -> bool:
    """Whether a migration has ended with a reason, or says why it waits."""
    status = migration["status"]
    if status["phase"] == "Succeeded":
        return True
    reasons = [found["reason"] for found in status.get("conditions", ()) if found["type"] == "Completed"]
    return bool(
        reasons and reasons[0] and (status["phase"] != "Failed" or (status["failureReason"] and status["message"]))
    )


def wait_for_all(kubectl: Kubectl, kind: str, until: Callable[[Any], bool]) -> list[Any]:
    """Wait until every object of a kind satisfies `until`; return them."""
    ends = time.monotonic() + TIMEOUT
    while True:
        items: list[Any] = kubectl.json("get", kind)["items"]
        late = [item for item in items if not until(item)]
        if not late:
            return items
        assert time.monotonic() < ends, json.dumps(late)[:4000]
        time.sleep(0.3)


@pytest.mark.timeout(max(120, 2 * EXAMPLES))
@pytest.mark.usefixtures("clean")
def test_every_random_spec_is_reached_or_refused_by_its_field(kubectl: Kubectl, controller: Controller) -> None:
    """Other VMs are not affected."""
    kubectl.apply_vm("bystander", cpu="0.01", memory="0.01")
    kubectl.apply_vm("mover", cpu="0.01", memory="0.01")
    kubectl.wait_phase("mover", "Running")
    before = kubectl.wait_phase("bystander", "Running")
    with Gateway.open(kubectl) as gateway:

        @settings(
            max_examples=EXAMPLES,
            derandomize="FUZZ_EXAMPLES" not in os.environ,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(st.lists(stories(), min_size=3, max_size=3))
        def play(drawn: list[Story]) -> None:
            for story in drawn:
                gateway.play(story)

        play()
    _log.info("%d objects admitted, %d requests refused", len(gateway.admitted), len(gateway.refused))
    assert len(gateway.refused) > EXAMPLES / 4, "the requests are too tame"
    assert len(gateway.admitted) > EXAMPLES / 4, "the requests are too wild"
    wait_for_all(kubectl, "vm", reached)
    wait_for_all(kubectl, "vmm", explained)
    after = kubectl.json("get", "vm", "bystander")
    assert after["status"]["podUID"] == before["status"]["podUID"]
    assert controller.process.poll() is None
    assert "Traceback" not in controller.log.read_text()
