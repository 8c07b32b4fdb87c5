"""A rolling drain is planned and done: by VMs that are recreated, and back by VMs that move live."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import pytest

from controller.controlplane.plane import ControlPlane
from controller.domain import names
from tests.integration.tools import Controller, Kubectl, vm_manifest
from tests.integration.vmsim import Vmsim
from tests.plane import install

pytestmark = pytest.mark.timeout(120)  # the first test starts a control plane

NODES: Final = 6
VMS: Final = 24
CLUSTER, OUTBOUND, AT_ONCE = 4, 2, 3
"""The limits of the controller, and how many nodes are drained at the same time."""
SPEED: Final = 100
"""A VM copies for 20 simulated seconds and more."""
SIZE: Final = {"resources": {"cpu": "0.05", "memory": "0.05"}}
OLD, NEW = ([f"kwok-node-{number}" for number in range(first, first + NODES)] for first in (1, NODES + 1))


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """Run a control plane of this module's own, since drains cordon nodes."""
    with ControlPlane(tmp_path_factory.mktemp("drain-plane") / "state", nodes=2 * NODES) as plane:
        install(plane)
        yield plane


@pytest.fixture(scope="module")
def cluster(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubectl]:
    """Run the controller, and as many VMs on each of the old nodes."""
    kubectl = Kubectl(plane.kubectl, plane.kubeconfig)
    log = tmp_path_factory.mktemp("drain-controller") / "log"
    with Controller.start(
        plane.kubeconfig, log, "--parallel-migrations-per-cluster", str(CLUSTER), "--speed", str(SPEED)
    ):
        fleet = [_vm(number) for number in range(VMS)]
        kubectl("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": fleet}))
        kubectl.eventually(
            *("get", "vm", "-o", "jsonpath={.items[*].status.phase}"),
            until=lambda phases: phases.split() == ["Running"] * VMS,
        )
        yield kubectl


def _vm(number: int) -> dict[str, Any]:
    begins = {names.REQUIRED_START_NODE: OLD[number % NODES]}
    return vm_manifest(f"vm-{number:03}", SIZE, namespace="default", annotations=begins)


@pytest.mark.parametrize(("strategy", "leave", "to"), [("Recreate", OLD, NEW), ("Live", NEW, OLD)])
def test_a_rolling_drain_goes_as_planned(
    cluster: Kubectl, plane: ControlPlane, strategy: str, leave: list[str], to: list[str]
) -> None:
    """Each VM moves once, in the plan's order, to a node that it names, and never more at once than the limits."""
    vmsim = Vmsim.against(plane.kubeconfig)
    cluster("uncordon", *to)
    drain = ("drain", *leave, "--strategy", strategy, "--parallel-nodes", str(AT_ONCE))
    planned = vmsim(*drain, "--plan", "-o", "json")
    assert planned.returncode == 0, planned.stderr
    assert not cluster.json("get", "vmm")["items"]
    done = vmsim(*drain)
    assert done.returncode == 0, done.stdout + done.stderr
    made = cluster.json("get", "vmm")["items"]
    cluster("delete", "vmm", "--all")

    moves = {f"default/{migration['spec']['vmName']}": migration["status"] for migration in made}
    assert Counter(migration["spec"]["strategy"] for migration in made) == {strategy: VMS}
    assert Counter(move["phase"] for move in moves.values()) == {"Succeeded": VMS}
    plan = json.loads(planned.stdout)
    assert (len(plan["moves"]), plan["atOnce"]) == (VMS, CLUSTER)
    order: dict[str, list[str]] = {}
    for each in plan["moves"]:
        order.setdefault(each["node"], []).append(each["vm"])
        assert moves[each["vm"]]["sourceNode"] == each["node"]
        assert moves[each["vm"]]["targetNode"] in each["candidates"]
    assert at_once(list(moves.values())) <= CLUSTER
    lines = done.stdout.splitlines()
    asked = [line.partition(":")[0] for line in lines if line.endswith(" created")]
    for vms in order.values():
        assert [vm for vm in asked if vm in vms] == vms
        assert at_once([moves[vm] for vm in vms]) <= OUTBOUND
    # Nodes that are drained at the same time begin in any order.
    begun = list(dict.fromkeys(moves[vm]["sourceNode"] for vm in asked))
    assert all(leave.index(node) < at + AT_ONCE for at, node in enumerate(begun))
    assert lines[0].startswith(f"by the model, {NODES} nodes can be drained in ")
    assert lines[-1].startswith("it took ")


def at_once(moves: list[dict[str, str]]) -> int:
    """Return how many of these moves were in progress at the same time, at most."""
    edges = sorted([(move["startTimestamp"], 1) for move in moves] + [(move["endTimestamp"], -1) for move in moves])
    most = now = 0
    for _, change in edges:
        now += change
        most = max(most, now)
    return most
