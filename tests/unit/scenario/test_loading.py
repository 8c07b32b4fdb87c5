"""Loading: the objects that a load creates, the conflicts that prevent it, and the conditions that it waits for."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from io import StringIO
from itertools import pairwise
from typing import Any

import pytest
from rich.console import Console

from controller.cli.load import _bar
from controller.domain import names
from controller.domain.resources import VIRTUAL_MACHINES
from controller.kube import errors
from controller.kube.kinds import Taint
from controller.kube.resources import NODES
from controller.scenario.asking import Findings
from controller.scenario.errors import NoNamespaceError, NotRunningError, OccupiedError
from controller.scenario.fleet import DesiredNode, DesiredVM, Fleet
from controller.scenario.lacking import NO_CONTROLLER, NO_KWOK
from controller.scenario.loading import Outcome, Progress, Stage, load
from tests.unit.scenario.builders import RUNNING, Api

pytestmark = pytest.mark.looptime

NODE = DesiredNode("n-1", labels={"zone": "a"}, taints=(Taint(key="gpu", value="", effect="NoSchedule"),))
VM = DesiredVM("vm-1", "0.10", "0.20", "0.05", None)
FLEET = Fleet("demo", (NODE, DesiredNode("n-2", cpu="64")), (VM, DesiredVM("vm-2", "0.2", "0.3")))
OURS = {"labels": {names.SCENARIO_LABEL: "demo"}}


async def loaded(
    api: Api, fleet: Fleet = FLEET, *, deadline: float = 60.0, reports: list[Progress] | None = None
) -> Outcome:
    """Load a fleet into the namespace default."""
    seen = reports if reports is not None else []
    return await load(api, fleet, namespace="default", report=seen.append, deadline=deadline)


def working() -> Api:
    """Return an API server whose controller and KWOK act one second after a write."""
    api = Api()
    api.after = lambda _: asyncio.get_running_loop().call_later(1.0, api.run_all)
    return api


async def test_a_load_creates_missing_objects_and_waits_until_they_run() -> None:
    """Nothing exists before."""
    api = working()
    outcome = await loaded(api)
    assert sorted(api.names(NODES)) == ["n-1", "n-2"]
    assert outcome.created_vms == ("vm-1", "vm-2")
    assert [vm.status.phase for vm in outcome.vms] == ["Running", "Running"]


async def test_a_load_creates_all_nodes_before_the_first_vm() -> None:
    """The scheduler then chooses among all nodes."""
    api = working()
    await loaded(api)
    assert sorted(api.tried[:2]) == ["POST n-1", "POST n-2"]


def timed(api: Api) -> dict[str, float]:
    """Return the moment of each request's first arrival, which is filled as they arrive."""
    moments: dict[str, float] = {}
    clock = asyncio.get_running_loop().time
    api.before = lambda request: moments.setdefault(request, clock())
    return moments


async def test_a_load_creates_vms_once_the_new_nodes_are_ready() -> None:
    """Else the scheduler would put them on the first node that is ready, wherever they are to begin."""
    api = Api()
    moments = timed(api)
    api.after = lambda request: asyncio.get_running_loop().call_later(3, api.run_all) if "vm-" in request else None
    asyncio.get_running_loop().call_later(5, _only_nodes, api)
    await loaded(api)
    assert moments["POST n-2"] - moments["LIST nodes"] < 1
    assert 5 <= moments["POST vm-1"] - moments["LIST nodes"] < 6


async def test_nodes_that_do_not_become_ready_delay_vms_by_ten_seconds() -> None:
    """The VMs may run on others."""
    api = Api()
    moments = timed(api)
    with pytest.raises(NotRunningError) as error:
        await loaded(api, deadline=30)
    assert 10 <= moments["POST vm-1"] - moments["POST n-2"] < 12
    assert error.value.waiting.keys() == {"node n-1", "node n-2", "VM vm-1", "VM vm-2"}


async def test_a_second_load_writes_nothing() -> None:
    """Its outcome lists all objects as found."""
    api = working()
    await loaded(api)
    api.tried.clear()
    outcome = await loaded(api)
    assert api.tried == []
    assert (outcome.created_nodes, outcome.created_vms) == ((), ())
    assert (outcome.found_nodes, outcome.found_vms) == (("n-1", "n-2"), ("vm-1", "vm-2"))


async def test_a_load_creates_only_missing_objects() -> None:
    """A deleted VM is created again."""
    api = working()
    await loaded(api)
    api.remove(VIRTUAL_MACHINES, "default/vm-2")
    api.tried.clear()
    outcome = await loaded(api)
    assert api.tried == ["POST vm-2"]
    assert outcome.created_vms == ("vm-2",)


async def test_a_load_ignores_the_current_consumption() -> None:
    """It changes while a scenario plays."""
    api = working()
    await loaded(api)
    api.put(VIRTUAL_MACHINES.plural, "default/vm-1", metadata={"annotations": {names.CPU_CONSUMPTION: "0.99"}})
    api.tried.clear()
    await loaded(api)
    assert api.tried == []


@pytest.mark.parametrize(
    ("plural", "namespace", "name", "parts", "complaint"),
    [
        ("virtualmachines", "default", "vm-1", {}, "VM default/vm-1 exists already, and demo did not create it"),
        (
            "virtualmachines",
            "default",
            "vm-1",
            {"metadata": {"labels": {names.SCENARIO_LABEL: "other"}}},
            "VM default/vm-1 exists already, and belongs to other",
        ),
        (
            "virtualmachines",
            "default",
            "vm-1",
            {"metadata": OURS, "spec": {"resources": {"cpu": "0.11", "memory": "0.20"}}},
            "VM default/vm-1 has cpu 0.11, not 0.10: first `vmsim unload demo`",
        ),
        (
            "virtualmachines",
            "default",
            "vm-1",
            {"metadata": {**OURS, "deletionTimestamp": "2026-01-15T10:29:50Z"}},
            "VM default/vm-1 is being deleted",
        ),
        ("nodes", "", "n-1", {}, "node n-1 exists already, and demo did not create it"),
        (
            "nodes",
            "",
            "n-1",
            {"metadata": OURS, "status": {"allocatable": {"cpu": "16", "memory": "256Gi", "pods": "110"}}},
            "node n-1 has cpu 16, not 32",
        ),
    ],
)
async def test_a_conflict_is_an_error_before_any_write(
    plural: str, namespace: str, name: str, parts: dict[str, Any], complaint: str
) -> None:
    """Also if most of the fleet could be created."""
    api = Api()
    api.put(plural, f"{namespace}/{name}", **parts)
    with pytest.raises(OccupiedError) as error:
        await loaded(api)
    assert api.tried == []
    [conflict] = error.value.conflicts
    assert conflict.startswith(complaint)


async def test_a_load_reports_every_conflict() -> None:
    """Not only the first."""
    api = Api()
    api.put(NODES.plural, "/n-2")
    for name in ("vm-1", "vm-2"):
        api.put(VIRTUAL_MACHINES.plural, f"default/{name}")
    with pytest.raises(OccupiedError) as error:
        await loaded(api)
    assert [conflict.split(" exists ")[0] for conflict in error.value.conflicts] == [
        "node n-2",
        "VM default/vm-1",
        "VM default/vm-2",
    ]


async def test_a_vm_of_another_namespace_is_no_conflict() -> None:
    """VM names are unique within a namespace."""
    api = working()
    api.put("namespaces", "/other")
    api.put(VIRTUAL_MACHINES.plural, "other/vm-1")
    assert (await loaded(api)).created_vms == ("vm-1", "vm-2")


async def test_equal_quantities_and_ratios_are_no_conflict() -> None:
    """In any notation."""
    api = working()
    await loaded(api)
    again = Fleet(
        "demo", (NODE, DesiredNode("n-2", cpu="64000m", memory="274877906944")), (DesiredVM("vm-1", "0.1", "0.2"),)
    )
    assert (await loaded(api, again)).found_vms == ("vm-1",)


async def test_a_cordon_and_an_added_label_are_no_conflict() -> None:
    """Users change these of a loaded scenario."""
    api = working()
    await loaded(api)
    node = api.objects[NODES.plural, "/n-1"]
    api.put(NODES.plural, "/n-1", spec={**node["spec"], "unschedulable": True})
    api.put(NODES.plural, "/n-1", metadata={"labels": {**node["metadata"]["labels"], "mine": "1"}})
    assert (await loaded(api)).created_nodes == ()


def on(api: Api, name: str, node: str | None, incarnation: int = 0) -> None:
    """Make a VM run on a node."""
    status = {**RUNNING, "nodeName": node, "incarnation": incarnation}
    api.put(VIRTUAL_MACHINES.plural, f"default/{name}", status=status)


async def test_a_load_names_the_vms_that_the_scheduler_put_elsewhere() -> None:
    """Those of an earlier load, too; not those that moved since, and those without a node in the file."""
    api = Api()
    api.after = api.run_all
    wanted = {"kept": "n-1", "elsewhere": "n-1", "moved": "n-1", "free": None, "earlier": "n-1"}
    fleet = Fleet("demo", (), tuple(DesiredVM(name, "0.1", "0.1", node=node) for name, node in wanted.items()))
    await loaded(api, Fleet("demo", (), fleet.vms[-1:]))
    on(api, "earlier", "n-2")
    placed = {"POST kept": ("n-1", 0), "POST elsewhere": ("n-2", 0), "POST moved": ("n-2", 1), "POST free": ("n-2", 0)}
    api.after = lambda request: on(api, request.removeprefix("POST "), *placed[request])
    assert (await loaded(api, fleet)).elsewhere == dict.fromkeys(("elsewhere", "earlier"), ("n-1", "n-2"))


async def test_a_load_names_the_vms_that_the_scheduler_put_elsewhere_at_the_deadline() -> None:
    """Others do not run yet."""
    api = Api()
    api.after = lambda request: on(api, "there", "n-2") if request == "POST there" else None
    vms = (DesiredVM("there", "0.1", "0.1", node="n-1"), DesiredVM("waits", "0.1", "0.1"))
    with pytest.raises(NotRunningError) as error:
        await loaded(api, Fleet("demo", (), vms), deadline=30)
    assert error.value.elsewhere == {"there": ("n-1", "n-2")}


async def test_a_load_names_vms_that_exist_without_the_required_node() -> None:
    """It does not change them; VMs that were created with the requirement have it."""
    api = working()
    fleet = Fleet("demo", (), (DesiredVM("loose", "0.1", "0.1", node="n-1"),))
    exact = (replace(fleet.vms[0], exact=True), DesiredVM("tight", "0.1", "0.1", node="n-1", exact=True))
    await loaded(api, replace(fleet, vms=(fleet.vms[0], exact[1])))
    found: list[Findings] = []
    await load(api, replace(fleet, vms=exact), namespace="default", report=print, deadline=60, warn=found.append)
    [warning] = found[0].warnings
    assert warning == (
        "1 VM of before may run on any node, since created without --exact-placement: loose; "
        "to require their nodes, first `vmsim unload demo`"
    )


async def test_a_load_does_not_wait_for_a_stopped_vm() -> None:
    """A user stopped it."""
    api = working()
    await loaded(api)
    vm = api.objects[VIRTUAL_MACHINES.plural, "default/vm-1"]
    api.put(VIRTUAL_MACHINES.plural, "default/vm-1", spec={**vm["spec"], "running": False}, status={"phase": "Stopped"})
    outcome = await loaded(api)
    assert [found.status.phase for found in outcome.vms] == ["Stopped", "Running"]


@pytest.mark.parametrize("name", ["n-1", "vm-1"])
async def test_a_create_with_a_lost_reply_succeeds_on_retry(name: str) -> None:
    """The retry finds the object that the first request created."""
    api = working()
    api.errors[f"POST {name}"] = [errors.TransportError("reset")]
    outcome = await loaded(api)
    assert name in outcome.created_nodes + outcome.created_vms
    assert api.tried.count(f"POST {name}") == 2


async def test_a_foreign_vm_created_during_a_load_is_a_conflict() -> None:
    """It is created after the comparison and stays unchanged."""
    api = working()
    api.before = lambda request: [api.put(VIRTUAL_MACHINES.plural, "default/vm-1")] if request == "POST vm-1" else []
    with pytest.raises(OccupiedError, match="VM default/vm-1 exists already, and demo did not create it"):
        await loaded(api)


async def test_a_load_respects_retry_after() -> None:
    """The create is retried after 20 s."""
    api = working()
    began = asyncio.get_running_loop().time()
    api.errors["POST vm-1"] = [errors.TooManyRequestsError(429, "TooManyRequests", "slow down", retry_after=20)]
    assert (await loaded(api)).created_vms == ("vm-1", "vm-2")
    assert asyncio.get_running_loop().time() - began >= 20


def failing(api: Api, *requests: str) -> None:
    """Fail requests as the API server does when a webhook is down."""

    def fail(request: str) -> None:
        if request in requests:
            raise errors.ServerError(500, "InternalError", "failed calling webhook")

    api.before = fail


async def test_a_failing_create_is_reported_every_second_and_at_the_deadline() -> None:
    """In the server's words; created objects are not listed."""
    api = working()
    failing(api, "POST vm-1")
    clock = asyncio.get_running_loop().time
    seen: list[tuple[float, str | None]] = []
    began = clock()
    with pytest.raises(NotRunningError) as error:
        await load(
            api,
            FLEET,
            namespace="default",
            report=lambda progress: seen.append((clock() - began, dict(progress.waiting).get("VM vm-1"))),
            deadline=30,
        )
    why = "not created: failed calling webhook (500 InternalError)"
    moments = [moment for moment, words in seen if words == why]
    assert moments[0] < 1 + 1  # the nodes are ready after a second
    assert max(later - earlier for earlier, later in pairwise([*moments, 30.0])) <= 1.01
    assert error.value.waiting == {"VM vm-1": why}


async def test_no_vm_is_created_while_a_node_is_not() -> None:
    """The error names the node alone."""
    api = working()
    failing(api, "POST n-2")
    with pytest.raises(NotRunningError, match=r"after 30 s: node n-2: not created: failed calling webhook"):
        await loaded(api, deadline=30)


async def test_an_unanswered_create_is_reported_within_ten_seconds() -> None:
    """There is no message to quote."""
    api = working()
    clock = asyncio.get_running_loop().time
    reported: list[float] = []

    def slow(request: str) -> None:
        api.latency = 60.0 if request == "POST n-1" else 0.0

    api.before = slow
    began = clock()

    def report(progress: Progress) -> None:
        reported.extend(clock() - began for what, why in progress.waiting if (what, why) == silent)

    silent = ("node n-1", "not created: no answer yet")
    with pytest.raises(NotRunningError) as error:
        await load(api, FLEET, namespace="default", report=report, deadline=30)
    assert reported[0] < 10
    assert dict([silent]).items() <= error.value.waiting.items()


async def test_an_error_is_not_reported_after_its_retry_succeeds() -> None:
    """The create was throttled once."""
    api = working()
    api.errors["POST vm-1"] = [errors.TooManyRequestsError(429, "TooManyRequests", "slow down", retry_after=2)]
    reports: list[Progress] = []
    await loaded(api, reports=reports)
    reported = [dict(step.waiting).get("VM vm-1") for step in reports if step.stage == Stage.CREATING]
    assert "not created: slow down (429 TooManyRequests)" in reported
    assert reported[-1] is None


async def test_without_a_terminal_the_first_error_is_printed_at_once() -> None:
    """Further errors are printed at intervals."""
    api = working()
    failing(api, "POST vm-1", "POST vm-2")
    out = StringIO()
    with _bar(Console(file=out, width=200), "demo") as report, pytest.raises(NotRunningError):
        await load(api, FLEET, namespace="default", report=report, deadline=9)
    assert out.getvalue().splitlines() == [
        "creating, 0 of 4",
        "readying, 0 of 2: node n-1, node n-2: not ready",
        "creating, 2 of 4",
        "creating, 2 of 4: VM vm-1: not created: failed calling webhook (500 InternalError)",
    ]


async def test_at_most_16_creates_are_in_flight() -> None:
    """Of a hundred."""
    api = working()
    api.latency = 0.5
    await loaded(api, Fleet("demo", (), tuple(DesiredVM(f"vm-{number}", "0.1", "0.1") for number in range(100))))
    assert api.most_in_flight == 16


async def test_a_load_without_the_crds_creates_no_node() -> None:
    """VMs are listed first."""
    api = Api()

    def unknown(request: str) -> None:
        if request == "LIST virtualmachines":
            raise errors.NotFoundError(404, "", "404 page not found")

    api.before = unknown
    with pytest.raises(errors.NotFoundError):
        await loaded(api)
    assert api.tried == []


async def test_a_missing_namespace_is_an_error_before_any_write() -> None:
    """The message has the command that creates it."""
    api = Api()
    with pytest.raises(NoNamespaceError, match="kubectl create namespace nowhere"):
        await load(api, FLEET, namespace="nowhere", report=lambda _: None, deadline=60)
    assert api.tried == []


async def test_a_load_without_a_controller_names_it_after_10_s() -> None:
    """Nodes become ready without a controller."""
    api = Api()
    reports: list[Progress] = []
    asyncio.get_running_loop().call_later(5, _only_nodes, api)
    with pytest.raises(NotRunningError) as error:
        await loaded(api, deadline=30, reports=reports)
    assert error.value.waiting == {"VM vm-1": NO_CONTROLLER, "VM vm-2": NO_CONTROLLER}
    assert asyncio.get_running_loop().time() == pytest.approx(30, abs=0.1)
    early = next(step for step in reports if step.stage == Stage.STARTING)
    assert ("VM vm-1", "Pending") in early.waiting


def _only_nodes(api: Api) -> None:
    for name in ("n-1", "n-2"):
        api.put(NODES.plural, f"/{name}", spec=api.objects[NODES.plural, f"/{name}"]["spec"] | {"taints": []})


async def test_a_slow_controller_is_not_reported_as_missing() -> None:
    """It acts on a VM every five seconds; the last VM waits for a minute."""
    api = Api()
    reports: list[Progress] = []
    fleet = Fleet("demo", (), tuple(DesiredVM(f"vm-{number}", "0.1", "0.1") for number in range(1, 13)))
    for number in range(1, 13):
        run = partial(api.put, VIRTUAL_MACHINES.plural, f"default/vm-{number}", status=RUNNING)
        asyncio.get_running_loop().call_later(5 * number, run)
    await loaded(api, fleet, deadline=70, reports=reports)
    assert {why for step in reports for _, why in step.waiting} == {"Pending"}


async def test_a_load_without_kwok_names_it() -> None:
    """The node does not become ready."""
    api = Api()
    with pytest.raises(NotRunningError) as error:
        await loaded(api, Fleet("demo", (DesiredNode("n-1"),), ()), deadline=30)
    assert error.value.waiting == {"node n-1": NO_KWOK}


async def test_a_load_quotes_the_scheduler_at_the_deadline() -> None:
    """For each VM that is unschedulable."""
    api = working()
    api.unfit["vm-2"] = "0/2 nodes are available"
    with pytest.raises(NotRunningError, match="VM vm-2: Scheduling: 0/2 nodes are available"):
        await loaded(api, deadline=30)


async def test_a_load_says_until_when_a_guest_boots() -> None:
    """So nobody looks for a fault; other reasons for a guest that does not run say no more than the phase."""
    api = Api()
    words = {"vm-1": "Pod p has started; its guest boots until 10:31:30Z", "vm-2": "Pod q is not ready yet"}

    def act(request: str) -> None:
        name = request.removeprefix("POST ")
        ready = {"type": "Ready", "status": "False", "reason": "GuestNotRunning", "message": words[name]}
        status = {"phase": "Scheduled", "conditions": [ready]}
        api.put(VIRTUAL_MACHINES.plural, f"default/{name}", status=status)

    api.after = act
    with pytest.raises(NotRunningError) as error:
        await loaded(api, replace(FLEET, nodes=()), deadline=30)
    assert error.value.waiting == {"VM vm-1": f"Scheduled: {words['vm-1']}", "VM vm-2": "Scheduled"}


async def test_progress_ends_with_all_objects_running() -> None:
    """It starts with the creates."""
    api = working()
    reports: list[Progress] = []
    await loaded(api, reports=reports)
    assert reports[0] == Progress(Stage.CREATING, 0, 4)
    assert reports[-1] == Progress(Stage.STARTING, 4, 4)


async def test_an_empty_fleet_is_loaded_at_once() -> None:
    """It has no object to wait for."""
    assert (await loaded(Api(), Fleet("demo", (), ()))).vms == ()
