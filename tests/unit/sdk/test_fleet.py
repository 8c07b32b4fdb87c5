"""VMs and nodes as callers write them, and the scenario that is built from them."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from controller.operations.errors import InvalidValueError, NoControllerError
from controller.scenario.fleet import DesiredNode, DesiredVM
from controller.scenario.lacking import NO_CONTROLLER
from controller.scenario.loading import Progress, Stage
from controller.sdk import node
from controller.sdk._exporter import _fleet_of, _Watchdog
from controller.sdk._fleet import VM, Node, request

UNNOTICED = ("VM vm-1", NO_CONTROLLER)


def test_a_vm_has_the_fields_of_the_description() -> None:
    """By these names and in this order."""
    vm = VM(id="my-vm", cpu_consumption=0.1, memory_consumption=0.15, pod_name="virt-launcher-my-vm-x7k9m")
    assert [field.name for field in fields(vm)][:4] == ["id", "cpu_consumption", "memory_consumption", "pod_name"]
    assert vm.node_name is None


def test_a_vm_requests_what_it_consumes() -> None:
    """In exact decimals."""
    asked = request(VM("vm-1", 0.1 + 0.2, "0.20"), "default")
    assert (asked.cpu, asked.memory, asked.cpu_consumption) == ("0.3", "0.20", None)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"id": "my_vm"}, "id"),
        ({"cpu_consumption": float("nan")}, "cpu_consumption"),
        ({"memory_consumption": 1.1}, "memory_consumption"),
    ],
    ids=["id", "cpu", "memory"],
)
def test_an_invalid_field_of_a_vm_is_refused_by_name(wrong: dict[str, Any], field: str) -> None:
    """When the object is created, before any request."""
    with pytest.raises(InvalidValueError, match=f"^{field} is "):
        VM(**{"id": "vm-1", "cpu_consumption": 0.1, "memory_consumption": 0.1, **wrong})


@pytest.mark.parametrize(
    "wrong", [{"name": "a/b"}, {"cpu": "0"}, {"memory": "lots"}, {"pods": 0}, {"pods": 1.5}], ids=str
)
def test_an_invalid_field_of_a_node_is_refused_by_name(wrong: dict[str, Any]) -> None:
    """As of a VM."""
    with pytest.raises(InvalidValueError, match=f"^{next(iter(wrong))} is "):
        Node(**{"name": "n1", **wrong})


def test_a_scenario_has_the_vms_of_all_nodes_and_the_nodes_on_request() -> None:
    """VMs need not run on the node under which they are listed."""
    nodes = [Node("n1", vms=[VM("a", 0.1, 0.1)], cpu=16, labels={"rack": "x"}), Node("n2", vms=[VM("b", 0.2, 0.2)])]
    assert _fleet_of(nodes, create_nodes=False).nodes == ()
    fleet = _fleet_of(nodes, create_nodes=True)
    assert fleet.nodes == (DesiredNode("n1", cpu="16", labels={"rack": "x"}), DesiredNode("n2"))
    assert fleet.vms == (DesiredVM("a", "0.1", "0.1"), DesiredVM("b", "0.2", "0.2"))


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ([Node("n1", vms=[VM("a", 0.1, 0.1)]), Node("n2", vms=[VM("a", 0.2, 0.2)])], "VM a is listed twice"),
        ([Node("n1"), Node("n1")], "node n1 is listed twice"),
    ],
    ids=["vm", "node"],
)
def test_a_duplicate_name_is_refused(nodes: list[Node], words: str) -> None:
    """Before anything is created."""
    with pytest.raises(InvalidValueError, match=words):
        _fleet_of(nodes, create_nodes=False)


def test_the_public_module_exports_the_same_classes() -> None:
    """Under whichever name it is imported."""
    assert (node.VM, node.Node) == (VM, Node)


# --- a load that no controller acts on -----------------------------------------------------------------------


class Clock:
    """A clock that the test sets."""

    now = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def progress(*waiting: tuple[str, str]) -> Progress:
    """Return the progress of a load of three VMs."""
    return Progress(Stage.STARTING, 3 - len(waiting), 3, waiting)


def test_a_load_that_no_controller_acts_on_is_ended() -> None:
    """After three seconds without a change."""
    clock = Clock()
    watchdog = _Watchdog("default", clock)
    watchdog(progress(UNNOTICED, UNNOTICED))
    clock.now = 2.9
    watchdog(progress(UNNOTICED, UNNOTICED))
    clock.now = 3.0
    with pytest.raises(
        NoControllerError, match=r"VMs waiting for their pods: 2, and no controller .* namespace default"
    ):
        watchdog(progress(UNNOTICED, UNNOTICED))


@pytest.mark.parametrize(
    "other",
    [progress(UNNOTICED), progress(UNNOTICED, ("VM vm-2", "Scheduling")), progress()],
    ids=["fewer", "moving", "none"],
)
def test_a_load_with_progress_is_not_ended(other: Progress) -> None:
    """A busy controller may reach a VM late."""
    clock = Clock()
    watchdog = _Watchdog("default", clock)
    for second in range(20):
        clock.now = float(second)
        watchdog(other if second % 3 == 0 else progress(UNNOTICED, UNNOTICED))


def test_a_load_with_one_vm_in_progress_is_not_ended() -> None:
    """A controller acts on it."""
    clock = Clock()
    watchdog = _Watchdog("default", clock)
    for second in range(20):
        clock.now = float(second)
        watchdog(progress(UNNOTICED, ("VM vm-2", "Scheduling")))
