"""What is asked before anything is made: one of each kind, quotas, and who looks at single objects."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from controller.domain import names
from controller.domain.resources import VIRTUAL_MACHINES
from controller.kube import errors
from controller.kube.resources import NODES
from controller.scenario.admission import Rules
from controller.scenario.asking import Findings, least_and_largest
from controller.scenario.errors import FleetRefusedError, NotRunningError, UnansweredError
from controller.scenario.fleet import DesiredNode, DesiredVM, Fleet
from controller.scenario.loading import Progress, Stage, load, rehearse
from controller.scenario.packing import Size
from controller.scenario.quotas import shortages
from controller.scenario.schema import parse
from controller.sdk.errors import RefusedError
from tests.unit.scenario.builders import Api

pytestmark = pytest.mark.looptime

FLEET = parse(
    """\
apiVersion: simulation.node-classifier.io/v1alpha1
kind: Scenario
name: demo
nodes:
  - {name: small, count: 50}
  - {name: big, cpu: 64, labels: {zone: a}}
vms:
  - name: web
    count: 100
    cpu: {uniform: {min: 0.01, max: 0.05}}
    memory: 0.01
  - {name: db, cpu: 0.2, memory: 0.2}
""",
    "s.yaml",
    Path("/nowhere"),
).fleet
WEB = sorted((vm for vm in FLEET.vms if vm.name.startswith("web")), key=lambda vm: vm.cpu)
VM_RULE = {"apiGroups": [names.GROUP], "resources": [names.VM_PLURAL], "operations": ["CREATE"]}


async def found(api: Api, fleet: Fleet = FLEET, **options: Any) -> Findings:
    """Ask, and make nothing."""
    options = {"deadline": 60.0, "report": lambda _: None, **options}
    _, findings = await rehearse(api, fleet, namespace="default", **options)
    assert api.tried == []
    return findings


def refusing(name: str, error: Exception) -> Api:
    """An API server that would refuse an object."""
    api = Api()
    api.errors[f"ASK {name}"] = [error]
    return api


def invalid(words: str) -> errors.InvalidError:
    """What the API server says to an object that it does not take."""
    return errors.InvalidError(422, "Invalid", words)


# --- what is asked -----------------------------------------------------------------------------------------------


async def test_one_of_each_group_and_the_least_and_the_largest_are_asked_for() -> None:
    """Not each of them."""
    api = Api()
    await found(api)
    assert sorted(api.asked) == sorted(["small-1", "big", WEB[0].name, WEB[-1].name, "db"])


def test_of_numbers_the_least_and_the_largest_are_taken() -> None:
    """CPU, memory and consumption, each; those with an annotation and those without are different."""
    vms = [DesiredVM(f"v-{n}", f"0.{n}", f"0.{9 - n}", f"0.{(n * 3) % 7}" if n < 8 else None) for n in range(1, 9)]
    assert [vm.name for vm in least_and_largest(vms)] == ["v-1", "v-7", "v-2", "v-8"]


async def test_a_load_asks_before_it_makes_anything() -> None:
    """And only for what is missing; the second time, nothing."""
    api = Api()
    api.after = api.run_all
    fleet = Fleet("demo", (DesiredNode("n-1"),), (DesiredVM("vm-1", "0.1", "0.1"),))
    await load(api, fleet, namespace="default", report=lambda _: None, deadline=60)
    assert api.asked == ["n-1", "vm-1"]
    await load(api, fleet, namespace="default", report=lambda _: None, deadline=60)
    assert api.asked == ["n-1", "vm-1"]


# --- what is refused ---------------------------------------------------------------------------------------------


async def test_a_refusal_names_its_place_and_the_servers_words_and_nothing_is_made() -> None:
    """Every group that is refused."""
    api = refusing("db", errors.ForbiddenError(403, "Forbidden", 'virtualmachines "db" is forbidden:\nno'))
    api.errors["ASK big"] = [invalid('Node "big" is invalid: spec.taints[1]: Duplicate value')]
    with pytest.raises(FleetRefusedError) as error:
        await load(api, FLEET, namespace="default", report=lambda _: None, deadline=60)
    assert api.tried == []
    assert [str(problem) for problem in error.value.problems] == [
        's.yaml:6: nodes[1]: node big: Node "big" is invalid: spec.taints[1]: Duplicate value',
        's.yaml:12: vms[1]: VM db: virtualmachines "db" is forbidden: no',
    ]


async def test_a_group_is_refused_once() -> None:
    """However many of it would be."""
    api = Api()
    for vm in FLEET.vms:
        api.errors[f"ASK {vm.name}"] = [invalid(f"{vm.name} is bad")]
    with pytest.raises(FleetRefusedError) as error:
        await found(api)
    assert len(error.value.problems) == 2


async def test_a_fleet_without_a_file_is_refused_by_name() -> None:
    """As the Python API makes one."""
    fleet = Fleet("demo", (), (DesiredVM("vm-1", "0.1", "0.1"),))
    with pytest.raises(FleetRefusedError, match=r"^nothing was made: VM vm-1: it is bad$"):
        await found(refusing("vm-1", invalid("it is bad")), fleet)


async def test_a_refusal_is_the_python_apis_own_with_the_servers_code_and_reason() -> None:
    """Of the first problem; a quota refuses as the API server does it."""
    fleet = Fleet("demo", (), (DesiredVM("vm-1", "0.1", "0.1"),))
    with pytest.raises(RefusedError) as refused:
        await found(refusing("vm-1", invalid("it is bad")), fleet)
    assert (refused.value.code, refused.value.reason) == (422, "Invalid")
    api = Api()
    api.put("resourcequotas", "default/q", **quota({VMS_OF_A_NAMESPACE: "0"}))
    with pytest.raises(RefusedError) as refused:
        await found(api, fleet)
    assert (refused.value.code, refused.value.reason) == (403, "Forbidden")


async def test_what_was_made_meanwhile_is_no_refusal() -> None:
    """The load looks at it."""
    findings = await found(refusing("db", errors.AlreadyExistsError(409, "AlreadyExists", "db already exists")))
    assert findings.warnings == ()


async def test_a_webhook_that_cannot_be_asked_refuses_nothing() -> None:
    """It has side effects, and what it says shows when the objects are made."""
    words = 'admission webhook "w.example.com" does not support dry run'
    findings = await found(refusing("db", errors.InvalidError(400, "BadRequest", words)))
    assert findings.warnings == (f"{words}: what it would refuse shows when it is made",)


async def test_an_api_server_that_cannot_say_is_asked_again_and_named() -> None:
    """A webhook that is down, say, until the deadline."""
    api = Api()
    down = errors.ServerError(500, "InternalError", "failed calling webhook")

    def fail(request: str) -> None:
        if request == "ASK db":
            raise down

    api.before = fail
    reports: list[Progress] = []
    words = "the API server has not answered everything after 30 s: VM db: failed calling webhook"
    with pytest.raises(UnansweredError, match=words):
        await found(api, deadline=30, report=reports.append)
    assert {step.stage for step in reports} == {Stage.ASKING}
    with pytest.raises(NotRunningError, match="not everything runs after 30 s: VM db: failed calling webhook"):
        await load(api, FLEET, namespace="default", report=lambda _: None, deadline=30)


async def test_the_last_words_on_one_question_outlast_the_answers_to_others() -> None:
    """Of a hundred, one is put off and the rest are answered meanwhile."""
    api = Api()
    webhook()(api)
    api.latency = 0.5
    api.errors[f"ASK {FLEET.vms[0].name}"] = [errors.TooManyRequestsError(429, "", "slow down", retry_after=60)]
    with pytest.raises(UnansweredError, match=f"VM {FLEET.vms[0].name}: slow down"):
        await found(api, deadline=30)


async def test_a_rehearsal_without_time_says_that_nothing_was_answered() -> None:
    """It runs nothing, and there are no words yet."""
    with pytest.raises(UnansweredError, match=r"^the API server has not answered everything after 0 s$"):
        await found(Api(), deadline=0)


async def test_who_looks_at_objects_is_asked_again_and_named() -> None:
    """As the objects are."""
    api = Api()
    api.errors["LIST validatingwebhookconfigurations"] = [
        errors.TooManyRequestsError(429, "TooManyRequests", "slow down", retry_after=60)
    ]
    reports: list[Progress] = []
    with pytest.raises(UnansweredError, match="webhooks and policies: slow down"):
        await found(api, deadline=30, report=reports.append)
    assert dict(reports[0].waiting).keys() == {"webhooks and policies"}


# --- who looks at single objects -------------------------------------------------------------------------------


def webhook(**rule: object) -> Callable[[Api], None]:
    """A webhook with one rule."""
    hooks = [{"rules": [VM_RULE | rule]}]

    def put(api: Api) -> None:
        api.put("validatingwebhookconfigurations", "/w", webhooks=hooks)

    return put


def policy(*, bound: bool, plural: str = "mutatingadmissionpolicies", **rule: object) -> Callable[[Api], None]:
    """A policy with one rule, and its binding."""

    def put(api: Api) -> None:
        api.put(plural, "/p", spec={"matchConstraints": {"resourceRules": [VM_RULE | rule]}})
        if bound:
            api.put(f"{plural.removesuffix('ies')}ybindings", "/b", spec={"policyName": "p"})

    return put


@pytest.mark.parametrize(
    ("put", "every"),
    [
        (webhook(), True),
        (webhook(apiGroups=["*"], resources=["*"], operations=["*"]), True),
        (webhook(apiGroups=["*"], resources=["*/*"], scope="Namespaced"), True),
        (webhook(operations=["UPDATE", "DELETE"]), False),
        (webhook(resources=["virtualmachines/status"]), False),
        (webhook(apiGroups=["kubevirt.io"]), False),
        (webhook(scope="Cluster"), False),
        (policy(bound=True), True),
        (policy(bound=True, plural="validatingadmissionpolicies"), True),
        (policy(bound=False), False),
    ],
)
async def test_every_object_is_asked_for_where_somebody_may_look_at_it(put: Callable[[Api], None], every: bool) -> None:  # noqa: FBT001 - a table's column
    """By the kind that a webhook or a bound policy names."""
    api = Api()
    put(api)
    await found(api)
    assert ({vm.name for vm in FLEET.vms} <= set(api.asked)) == every


@pytest.mark.parametrize("unknown", [1, 2])
async def test_policies_of_an_older_version_count(unknown: int) -> None:
    """Where the API server does not have that kind in newer ones."""
    api = Api()
    policy(bound=True)(api)
    tries = {"LIST mutatingadmissionpolicies": unknown, "LIST mutatingadmissionpolicybindings": unknown}

    def not_found(request: str) -> None:
        if tries.get(request, 0):
            tries[request] -= 1
            raise errors.NotFoundError(404, "NotFound", "the server could not find the requested resource")

    api.before = not_found
    await found(api)
    assert {vm.name for vm in FLEET.vms} <= set(api.asked)


def test_rules_about_one_kind_say_nothing_of_another() -> None:
    """Nor of another group's kind of the same name."""
    rules = Rules(frozenset({("", "nodes", "*"), ("kubevirt.io", names.VM_PLURAL, "*")}))
    assert rules.watch("", "nodes", namespaced=False)
    assert not rules.watch(names.GROUP, names.VM_PLURAL, namespaced=True)


async def test_where_webhooks_may_not_be_read_every_object_is_asked_for() -> None:
    """And that is said."""
    api = Api()

    def forbidden(request: str) -> None:
        if request == "LIST validatingwebhookconfigurations":
            raise errors.ForbiddenError(403, "Forbidden", "no")

    api.before = forbidden
    findings = await found(api)
    assert len(api.asked) == len(FLEET.nodes) + len(FLEET.vms)
    assert findings.warnings == (
        "validatingwebhookconfigurations may not be read: every object was asked for, as if one looked at each",
    )


# --- quotas and room -------------------------------------------------------------------------------------------


def quota(hard: dict[str, str], used: dict[str, str] | None = None, **spec: object) -> dict[str, Any]:
    """A quota as the API server shows it."""
    return {
        "metadata": {"name": "q", "namespace": "default"},
        "spec": spec,
        "status": {"hard": hard, "used": used or {}},
    }


VMS_OF_A_NAMESPACE = f"count/{names.VM_PLURAL}.{names.GROUP}"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            quota({VMS_OF_A_NAMESPACE: "4"}, {VMS_OF_A_NAMESPACE: "2"}),
            f"has no room for 3 VMs: {VMS_OF_A_NAMESPACE}, 3",
        ),
        (quota({"pods": "2"}), "has no room for the pods of 3 VMs: pods, 3 more than 0 of 2"),
        (quota({"count/pods": "2"}), "has no room for the pods of 3 VMs: count/pods"),
        (quota({"requests.cpu": "5"}, {"requests.cpu": "500m"}), "requests.cpu, 4.8 more than 500m of 5"),
        (quota({"cpu": "4"}), "has no room for the pods of 3 VMs: cpu, 4.8 more"),
        (quota({"requests.memory": "5Gi"}), "requests.memory, 6.0Gi more than 0 of 5Gi"),
        (quota({"limits.cpu": "100"}), "wants limits.cpu, which VMs' pods do not set"),
        (quota({"pods": "2"}, scopes=["NotTerminating"]), "pods"),
    ],
)
def test_what_the_sum_exceeds_is_told(given: dict[str, Any], words: str) -> None:
    """Of VMs and of their pods."""
    [shortage] = shortages([given], [Size(1600, 2 * 1024**3)] * 3)
    assert words in shortage.words
    assert shortage.refused == (VMS_OF_A_NAMESPACE in words)


@pytest.mark.parametrize(
    "given",
    [
        quota({VMS_OF_A_NAMESPACE: "5"}, {VMS_OF_A_NAMESPACE: "2"}),
        quota({"pods": "3", "requests.cpu": "4.8", "requests.memory": "6Gi", "count/secrets": "0"}),
        quota({"pods": "many"}),
        quota({"pods": "2"}, scopes=["BestEffort"]),
        quota({"pods": "2"}, scopeSelector={"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In"}]}),
        {"metadata": {"name": "new"}},
    ],
)
def test_what_has_room_or_does_not_count_vms_is_passed_over(given: dict[str, Any]) -> None:
    """To the last pod."""
    assert list(shortages([given], [Size(1600, 2 * 1024**3)] * 3)) == []


async def test_a_quota_of_vms_refuses_and_one_of_pods_warns() -> None:
    """The VMs themselves may be made; they do not run."""
    api = Api()
    api.put("resourcequotas", "default/q", **quota({"pods": "10"}))
    assert "quota q has no room for the pods of 101 VMs" in (await found(api)).warnings[0]
    api.put("resourcequotas", "default/q", **quota({VMS_OF_A_NAMESPACE: "10"}))
    with pytest.raises(FleetRefusedError, match="quota q has no room for 101 VMs"):
        await found(api)


async def test_vms_are_placed_beside_what_runs() -> None:
    """On nodes of the scenario and of the cluster, less what their pods hold."""
    api = Api()
    fleet = Fleet("demo", (DesiredNode("n-1", cpu="8"),), (DesiredVM("vm-1", "0.5", "0.1"),))
    assert (await found(api, fleet)).packing.homeless
    status = {"allocatable": {"cpu": "32", "memory": "256Gi", "pods": "110"}}
    api.put(NODES.plural, "/other", metadata={"labels": {"type": "kwok"}}, status=status)
    assert not (await found(api, fleet)).packing.homeless
    requests = {"cpu": "20", "memory": "1Gi"}
    spec = {"nodeName": "other", "containers": [{"name": "c", "resources": {"requests": requests}}]}
    api.put("pods", "elsewhere/stranger", spec=spec, status={"phase": "Running"})
    assert (await found(api, fleet)).packing.homeless


async def test_what_may_not_be_read_is_named_and_not_counted() -> None:
    """Quotas, and other namespaces' pods."""
    api = Api()

    def forbidden(request: str) -> None:
        if request in ("LIST resourcequotas", "LIST pods"):
            raise errors.ForbiddenError(403, "Forbidden", "no")

    api.before = forbidden
    assert (await found(api)).warnings == (
        "resourcequotas may not be read: what they take is not counted",
        "pods of all namespaces may not be read: what they take is not counted",
    )


async def test_a_load_warns_of_what_will_not_run_before_it_waits_for_it() -> None:
    """It makes it all the same: somebody may make room."""
    api = Api()
    told: list[Findings] = []
    fleet = Fleet("demo", (DesiredNode("n-1", cpu="8"),), (DesiredVM("vm-1", "0.5", "0.1"),))
    run = partial(load, api, fleet, namespace="default", report=lambda _: None, deadline=5)
    with pytest.raises(NotRunningError):
        await run(warn=told.append)
    assert [group.names for group in told[0].packing.homeless] == [("vm-1",)]
    assert VIRTUAL_MACHINES.plural in {plural for plural, _ in api.objects}
