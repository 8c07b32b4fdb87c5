"""The checks before a load: dry runs of each variant, webhooks and policies, quotas, and node capacity."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from controller.domain import names
from controller.domain.ratio import ReferenceNode
from controller.domain.resources import VIRTUAL_MACHINES
from controller.domain.vm.policy import LauncherPolicy
from controller.kube import errors
from controller.kube.resources import NODES
from controller.operations.vms import Template
from controller.scenario.admission import Rules
from controller.scenario.asking import Findings, least_and_largest
from controller.scenario.errors import FleetRefusedError, NotRunningError, UnansweredError
from controller.scenario.fleet import DesiredNode, DesiredVM, Fleet
from controller.scenario.free import Size
from controller.scenario.loading import Progress, Stage, load, rehearse
from controller.scenario.quotas import shortages
from controller.scenario.schema import parse
from controller.sdk.errors import CRDOutdatedError, RefusedError
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


async def checked(api: Api, fleet: Fleet = FLEET, **options: Any) -> Findings:
    """Run the checks of a load; nothing is written."""
    options = {"deadline": 60.0, "report": lambda _: None, **options}
    _, findings = await rehearse(api, fleet, namespace="default", **options)
    assert api.tried == []
    return findings


def refusing(name: str, error: Exception) -> Api:
    """Return an API server that refuses an object."""
    api = Api()
    api.errors[f"ASK {name}"] = [error]
    return api


def invalid(words: str) -> errors.InvalidError:
    """Return the API server's refusal of an invalid object."""
    return errors.InvalidError(422, "Invalid", words)


# --- dry runs ----------------------------------------------------------------------------------------------------


async def test_a_check_dry_runs_each_node_variant_and_the_smallest_and_largest_vm_of_a_group() -> None:
    """No other object is sent."""
    api = Api()
    await checked(api)
    assert sorted(api.asked) == sorted(["small-1", "big", WEB[0].name, WEB[-1].name, "db"])


def test_least_and_largest_picks_the_extremes_of_each_number() -> None:
    """CPU, memory and consumption; VMs with an annotation and VMs without one are separate groups."""
    vms = [DesiredVM(f"v-{n}", f"0.{n}", f"0.{9 - n}", f"0.{(n * 3) % 7}" if n < 8 else None) for n in range(1, 9)]
    assert [vm.name for vm in least_and_largest(vms)] == ["v-1", "v-7", "v-2", "v-8"]


async def test_a_load_dry_runs_only_missing_objects() -> None:
    """A second load sends no dry run."""
    api = Api()
    api.after = api.run_all
    fleet = Fleet("demo", (DesiredNode("n-1"),), (DesiredVM("vm-1", "0.1", "0.1"),))
    await load(api, fleet, namespace="default", report=lambda _: None, deadline=60)
    assert api.asked == ["n-1", "vm-1"]
    await load(api, fleet, namespace="default", report=lambda _: None, deadline=60)
    assert api.asked == ["n-1", "vm-1"]


# --- refusals ----------------------------------------------------------------------------------------------------


async def test_a_refusal_quotes_its_place_and_the_server_and_nothing_is_created() -> None:
    """One problem for each refused group."""
    api = refusing("db", errors.ForbiddenError(403, "Forbidden", 'virtualmachines "db" is forbidden:\nno'))
    api.errors["ASK big"] = [invalid('Node "big" is invalid: spec.taints[1]: Duplicate value')]
    with pytest.raises(FleetRefusedError) as error:
        await load(api, FLEET, namespace="default", report=lambda _: None, deadline=60)
    assert api.tried == []
    assert [str(problem) for problem in error.value.problems] == [
        's.yaml:6: nodes[1]: node big: Node "big" is invalid: spec.taints[1]: Duplicate value',
        's.yaml:12: vms[1]: VM db: virtualmachines "db" is forbidden: no',
    ]


async def test_a_crd_of_an_older_release_is_an_error_before_anything_is_created() -> None:
    """Else all VMs would lose their placement in silence."""
    api = Api(unknown=frozenset({"affinity", "nodeSelector"}))
    vm = DesiredVM("vm-1", "0.1", "0.1", template=Template(placement={"nodeSelector": {"zone": "a"}}))
    fleet = Fleet("demo", (DesiredNode("n-1"),), (vm,))
    with pytest.raises(CRDOutdatedError, match=r"without spec\.nodeSelector: run `vmsim install`"):
        await load(api, fleet, namespace="default", report=lambda _: None, deadline=60)
    assert api.tried == []


async def test_a_create_loses_no_field_if_its_dry_run_was_impossible() -> None:
    """A webhook with side effects accepts none."""
    api = Api(unknown=frozenset({"nodeSelector"}))
    api.errors["ASK vm-1"] = [errors.InvalidError(400, "BadRequest", "webhook does not support dry run")]
    vm = DesiredVM("vm-1", "0.1", "0.1", template=Template(placement={"nodeSelector": {"zone": "a"}}))
    with pytest.raises(CRDOutdatedError):
        await load(api, Fleet("demo", (), (vm,)), namespace="default", report=lambda _: None, deadline=60)
    assert not api.names(VIRTUAL_MACHINES)


async def test_a_group_has_one_refusal_however_many_objects_are_refused() -> None:
    """Of 101 refused VMs in two groups, two are reported."""
    api = Api()
    for vm in FLEET.vms:
        api.errors[f"ASK {vm.name}"] = [invalid(f"{vm.name} is bad")]
    with pytest.raises(FleetRefusedError) as error:
        await checked(api)
    assert len(error.value.problems) == 2


async def test_a_refusal_names_the_object_of_a_fleet_without_a_file() -> None:
    """The Python API builds such fleets."""
    fleet = Fleet("demo", (), (DesiredVM("vm-1", "0.1", "0.1"),))
    with pytest.raises(FleetRefusedError, match=r"^nothing was created: VM vm-1: it is bad$"):
        await checked(refusing("vm-1", invalid("it is bad")), fleet)


async def test_a_refusal_has_the_code_and_reason_of_its_first_problem() -> None:
    """An exceeded quota has those of the API server's own refusal."""
    fleet = Fleet("demo", (), (DesiredVM("vm-1", "0.1", "0.1"),))
    with pytest.raises(RefusedError) as refused:
        await checked(refusing("vm-1", invalid("it is bad")), fleet)
    assert (refused.value.code, refused.value.reason) == (422, "Invalid")
    api = Api()
    api.put("resourcequotas", "default/q", **quota({VMS_OF_A_NAMESPACE: "0"}))
    with pytest.raises(RefusedError) as refused:
        await checked(api, fleet)
    assert (refused.value.code, refused.value.reason) == (403, "Forbidden")


async def test_an_object_that_was_created_meanwhile_is_no_refusal() -> None:
    """The load compares it."""
    findings = await checked(refusing("db", errors.AlreadyExistsError(409, "AlreadyExists", "db already exists")))
    assert findings.warnings == ()


async def test_a_webhook_without_dry_run_support_is_a_warning() -> None:
    """It has side effects; its refusals show when the objects are created."""
    words = 'admission webhook "w.example.com" does not support dry run'
    findings = await checked(refusing("db", errors.InvalidError(400, "BadRequest", words)))
    assert findings.warnings == (f"{words}: its refusals show only when the object is created",)


async def test_a_failing_dry_run_is_retried_and_reported_until_the_deadline() -> None:
    """The webhook behind it is down."""
    api = Api()
    down = errors.ServerError(500, "InternalError", "failed calling webhook")

    def fail(request: str) -> None:
        if request == "ASK db":
            raise down

    api.before = fail
    reports: list[Progress] = []
    words = "the API server has not answered everything after 30 s: VM db: failed calling webhook"
    with pytest.raises(UnansweredError, match=words):
        await checked(api, deadline=30, report=reports.append)
    assert {step.stage for step in reports} == {Stage.ASKING}
    with pytest.raises(NotRunningError, match="not everything runs after 30 s: VM db: failed calling webhook"):
        await load(api, FLEET, namespace="default", report=lambda _: None, deadline=30)


async def test_the_last_error_of_one_dry_run_survives_the_answers_to_others() -> None:
    """One of a hundred is throttled; the others succeed meanwhile."""
    api = Api()
    webhook()(api)
    api.latency = 0.5
    api.errors[f"ASK {FLEET.vms[0].name}"] = [errors.TooManyRequestsError(429, "", "slow down", retry_after=60)]
    with pytest.raises(UnansweredError, match=f"VM {FLEET.vms[0].name}: slow down"):
        await checked(api, deadline=30)


async def test_a_check_with_a_deadline_of_0_reports_no_answer() -> None:
    """No request has an error to quote."""
    with pytest.raises(UnansweredError, match=r"^the API server has not answered everything after 0 s$"):
        await checked(Api(), deadline=0)


async def test_a_throttled_list_of_webhooks_is_retried_and_reported() -> None:
    """It is named "webhooks and policies"."""
    api = Api()
    api.errors["LIST validatingwebhookconfigurations"] = [
        errors.TooManyRequestsError(429, "TooManyRequests", "slow down", retry_after=60)
    ]
    reports: list[Progress] = []
    with pytest.raises(UnansweredError, match="webhooks and policies: slow down"):
        await checked(api, deadline=30, report=reports.append)
    assert dict(reports[0].waiting).keys() == {"webhooks and policies"}


# --- webhooks and policies -------------------------------------------------------------------------------------


def webhook(**rule: object) -> Callable[[Api], None]:
    """Return a function that stores a webhook with one rule."""
    hooks = [{"rules": [VM_RULE | rule]}]

    def put(api: Api) -> None:
        api.put("validatingwebhookconfigurations", "/w", webhooks=hooks)

    return put


def policy(*, bound: bool, plural: str = "mutatingadmissionpolicies", **rule: object) -> Callable[[Api], None]:
    """Return a function that stores a policy with one rule, and its binding."""

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
async def test_every_object_is_dry_run_if_a_webhook_or_bound_policy_may_match(
    put: Callable[[Api], None],
    every: bool,  # noqa: FBT001 - a table's column
) -> None:
    """Selected by the group, resource, operation and scope of its rule."""
    api = Api()
    put(api)
    await checked(api)
    assert ({vm.name for vm in FLEET.vms} <= set(api.asked)) == every


@pytest.mark.parametrize("unknown", [1, 2])
async def test_policies_of_an_older_api_version_are_read(unknown: int) -> None:
    """The API server does not serve the kind in newer versions."""
    api = Api()
    policy(bound=True)(api)
    tries = {"LIST mutatingadmissionpolicies": unknown, "LIST mutatingadmissionpolicybindings": unknown}

    def not_found(request: str) -> None:
        if tries.get(request, 0):
            tries[request] -= 1
            raise errors.NotFoundError(404, "NotFound", "the server could not find the requested resource")

    api.before = not_found
    await checked(api)
    assert {vm.name for vm in FLEET.vms} <= set(api.asked)


def test_rules_match_only_their_group_and_resource() -> None:
    """Not the resource of the same name in another group."""
    rules = Rules(frozenset({("", "nodes", "*"), ("kubevirt.io", names.VM_PLURAL, "*")}))
    assert rules.watch("", "nodes", namespaced=False)
    assert not rules.watch(names.GROUP, names.VM_PLURAL, namespaced=True)


async def test_every_object_is_dry_run_if_webhooks_may_not_be_read() -> None:
    """A warning says so."""
    api = Api()

    def forbidden(request: str) -> None:
        if request == "LIST validatingwebhookconfigurations":
            raise errors.ForbiddenError(403, "Forbidden", "no")

    api.before = forbidden
    findings = await checked(api)
    assert len(api.asked) == len(FLEET.nodes) + len(FLEET.vms)
    assert findings.warnings == (
        "validatingwebhookconfigurations may not be read: every object was dry-run, in case one matches it",
    )


# --- quotas and capacity ---------------------------------------------------------------------------------------


def quota(hard: dict[str, str], used: dict[str, str] | None = None, **spec: object) -> dict[str, Any]:
    """Return a quota as the API server shows it."""
    return {
        "metadata": {"name": "q", "namespace": "default"},
        "spec": spec,
        "status": {"hard": hard, "used": used or {}},
    }


async def test_a_node_that_does_not_exist_is_a_warning() -> None:
    """Nodes of the fleet and of the cluster exist; a VM that may begin there alone has no room."""
    api = Api()
    api.put(NODES.plural, "/there")
    wanted = ("n-1", "there", "lost", None)
    vms = tuple(DesiredVM(f"vm-{number}", "0.1", "0.1", node=node) for number, node in enumerate(wanted))
    fleet = Fleet("demo", (DesiredNode("n-1"),), vms)
    words = "there is no node lost: VMs that are to begin there begin elsewhere"
    assert (await checked(api, fleet)).warnings == (words,)
    exact = replace(fleet, vms=tuple(replace(vm, exact=vm.node == "lost") for vm in vms))
    found = await checked(api, exact)
    assert (found.warnings, [group.group for group in found.packing.unplaced]) == ((), ["vm-2"])


VMS_OF_A_NAMESPACE = f"count/{names.VM_PLURAL}.{names.GROUP}"


async def test_vms_have_the_size_and_the_nodes_of_the_controllers_policy() -> None:
    """For quotas and for the cluster's nodes."""
    api = Api()
    api.put("resourcequotas", "default/q", **quota({"requests.cpu": "32"}))
    allocatable = {"cpu": "64", "memory": "256Gi", "pods": "110"}
    api.put(NODES.plural, "/there", metadata={"labels": {"zone": "a"}}, status={"allocatable": allocatable})
    fleet = Fleet(name="demo", nodes=(), vms=(DesiredVM(name="vm-1", cpu="1", memory="0.1"),))
    policy = LauncherPolicy(reference=ReferenceNode.of(cpu="64", memory="256Gi"), node_selector={"zone": "a"})
    assert (await checked(api, fleet)).packing.spaces == 0
    found = await checked(api, fleet, policies={None: policy})
    assert (found.packing.spaces, found.packing.unplaced) == (1, ())
    assert "requests.cpu, 64 more than 0 of 32" in found.warnings[0]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            quota({VMS_OF_A_NAMESPACE: "4"}, {VMS_OF_A_NAMESPACE: "2"}),
            f"is too small for 3 VMs: {VMS_OF_A_NAMESPACE}, 3",
        ),
        (quota({"pods": "2"}), "is too small for the pods of 3 VMs: pods, 3 more than 0 of 2"),
        (quota({"count/pods": "2"}), "is too small for the pods of 3 VMs: count/pods"),
        (quota({"requests.cpu": "5"}, {"requests.cpu": "500m"}), "requests.cpu, 4.8 more than 500m of 5"),
        (quota({"cpu": "4"}), "is too small for the pods of 3 VMs: cpu, 4.8 more"),
        (quota({"requests.memory": "5Gi"}), "requests.memory, 6.0Gi more than 0 of 5Gi"),
        (quota({"limits.cpu": "100"}), "requires limits.cpu, which VMs' pods do not set"),
        (quota({"pods": "2"}, scopes=["NotTerminating"]), "pods"),
    ],
)
def test_a_shortage_names_the_quota_that_the_sum_exceeds(given: dict[str, Any], words: str) -> None:
    """Only a quota of VMs refuses them."""
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
def test_a_quota_that_suffices_or_does_not_count_vms_is_no_shortage(given: dict[str, Any]) -> None:
    """The last pod fits."""
    assert list(shortages([given], [Size(1600, 2 * 1024**3)] * 3)) == []


async def test_a_quota_of_vms_refuses_and_one_of_pods_warns() -> None:
    """VMs over a quota of pods are created, but do not run."""
    api = Api()
    api.put("resourcequotas", "default/q", **quota({"pods": "10"}))
    assert "quota q is too small for the pods of 101 VMs" in (await checked(api)).warnings[0]
    api.put("resourcequotas", "default/q", **quota({VMS_OF_A_NAMESPACE: "10"}))
    with pytest.raises(FleetRefusedError, match="quota q is too small for 101 VMs"):
        await checked(api)


async def test_packing_counts_the_free_capacity_of_all_nodes() -> None:
    """Nodes of the scenario and of the cluster, less the requests of their pods."""
    api = Api()
    fleet = Fleet("demo", (DesiredNode("n-1", cpu="8"),), (DesiredVM("vm-1", "0.5", "0.1"),))
    assert (await checked(api, fleet)).packing.unplaced
    status = {"allocatable": {"cpu": "32", "memory": "256Gi", "pods": "110"}}
    api.put(NODES.plural, "/other", metadata={"labels": {"type": "kwok"}}, status=status)
    assert not (await checked(api, fleet)).packing.unplaced
    requests = {"cpu": "20", "memory": "1Gi"}
    spec = {"nodeName": "other", "containers": [{"name": "c", "resources": {"requests": requests}}]}
    api.put("pods", "elsewhere/foreign", spec=spec, status={"phase": "Running"})
    assert (await checked(api, fleet)).packing.unplaced


async def test_quotas_and_pods_that_may_not_be_read_are_warnings() -> None:
    """The check leaves them out."""
    api = Api()

    def forbidden(request: str) -> None:
        if request in ("LIST resourcequotas", "LIST pods"):
            raise errors.ForbiddenError(403, "Forbidden", "no")

    api.before = forbidden
    assert (await checked(api)).warnings == (
        "resourcequotas may not be read: the check leaves them out",
        "pods of all namespaces may not be read: the check leaves them out",
    )


async def test_a_load_warns_of_vms_that_do_not_fit_and_creates_them() -> None:
    """Capacity may be added later."""
    api = Api()
    warned: list[Findings] = []
    fleet = Fleet("demo", (DesiredNode("n-1", cpu="8"),), (DesiredVM("vm-1", "0.5", "0.1"),))
    run = partial(load, api, fleet, namespace="default", report=lambda _: None, deadline=15)
    with pytest.raises(NotRunningError):
        await run(warn=warned.append)
    assert [group.names for group in warned[0].packing.unplaced] == [("vm-1",)]
    assert VIRTUAL_MACHINES.plural in {plural for plural, _ in api.objects}
