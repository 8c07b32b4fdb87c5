"""Our nodes are brought to what is wanted; those of others are neither touched nor waited for."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from controller.controlplane.api import MANAGER, ApiServer
from controller.controlplane.errors import NotReadyError
from controller.controlplane.fleet import Fleet
from controller.controlplane.nodes import NodeCapacity, node_manifest
from tests.unit.controlplane.support import RecordingReporter

READY = [{"type": "Ready", "status": "True"}]


class Server:
    """Nodes, which are ready as soon as they are made."""

    def __init__(self, *nodes: dict[str, Any]) -> None:
        self.nodes = {node["metadata"]["name"]: node for node in nodes}
        self.writes: list[str] = []

    def get(self, _path: str) -> Mapping[str, Any]:
        """List them."""
        return {"items": list(self.nodes.values())}

    def post(self, _path: str, body: dict[str, Any]) -> None:
        """Make one."""
        name = body["metadata"]["name"]
        self.writes.append(f"create {name}")
        self.nodes[name] = ready(made_by(MANAGER, body))

    def patch(self, path: str, _body: Mapping[str, Any]) -> None:
        """Note it."""
        self.writes.append(f"patch {path.split('/')[-2]}")

    def delete(self, path: str) -> None:
        """Take one away."""
        name = path.rpartition("/")[2]
        self.writes.append(f"delete {name}")
        del self.nodes[name]


def made_by(manager: str, node: dict[str, Any], **entry: str) -> dict[str, Any]:
    """Return a node as the API server notes it."""
    written = {"manager": manager, "operation": "Update", **entry}
    played = {"manager": "kwok-controller", "operation": "Update", "subresource": "status"}
    return {**node, "metadata": {**node["metadata"], "managedFields": [written, played]}}


def ready(node: dict[str, Any]) -> dict[str, Any]:
    """Return a node that KWOK has taken over."""
    return {**node, "status": {**node["status"], "conditions": READY}}


def ours(name: str, manager: str = MANAGER) -> dict[str, Any]:
    """Return a node that `up` made earlier."""
    return ready(made_by(manager, node_manifest(name, NodeCapacity())))


def strange(name: str, *, fake: bool = True, capacity: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return a node of somebody else, which is not ready."""
    annotations = {"annotations": {"kwok.x-k8s.io/node": "fake"}} if fake else {}
    return {"metadata": {"name": name, **annotations}, "spec": {}, "status": {"capacity": dict(capacity or {})}}


def converge(server: Server, report: RecordingReporter, count: int) -> None:
    """Have so many nodes."""
    Fleet(cast(ApiServer, server), report, Path("logs")).converge(count, NodeCapacity(), seconds=0.05)


@pytest.mark.parametrize("fake", [True, False])
@pytest.mark.parametrize("name", ["mine", "kwok-node-x", "kwok-node-01", "node-1"])
@pytest.mark.parametrize("capacity", [{"pods": "1M", "cpu": "1k"}, {}, {"pods": "some"}])
def test_nodes_of_others_are_left_alone(
    report: RecordingReporter, name: str, capacity: dict[str, str], *, fake: bool
) -> None:
    """Whatever they hold, and although they are not ready."""
    server = Server(strange(name, fake=fake, capacity=capacity), ours("kwok-node-1"))
    converge(server, report, 2)
    assert server.writes == ["create kwok-node-2"]


def test_a_name_of_ours_that_is_taken_is_left_and_told(report: RecordingReporter) -> None:
    """A real node may be called so; the others are made."""
    server = Server(strange("kwok-node-1", fake=False), strange("kwok-node-7", fake=False))
    converge(server, report, 2)
    assert server.writes == ["create kwok-node-2"]
    assert report.warned == ["node kwok-node-1 is there and is no fake one: it is left alone"]


@pytest.mark.parametrize("manager", ["kubectl-create", "kubectl-client-side-apply", "OpenAPI-Generator", "curl"])
@pytest.mark.parametrize("capacity", [{"pods": "1M"}, NodeCapacity().resources()])
def test_a_fake_node_that_somebody_else_made_is_left_under_any_name(
    report: RecordingReporter, manager: str, capacity: dict[str, str]
) -> None:
    """It has neither another size nor an end, and is told only where it is in the way."""
    theirs = [made_by(manager, strange(name, capacity=capacity)) for name in ("kwok-node-1", "kwok-node-7")]
    server = Server(*theirs)
    converge(server, report, 2)
    assert server.writes == ["create kwok-node-2"]
    assert report.warned == ["node kwok-node-1 is there and was made by somebody else: it is left alone"]


def test_a_write_of_the_status_alone_makes_nobody_its_maker(report: RecordingReporter) -> None:
    """Somebody else's node, which an earlier release gave our size, say."""
    server = Server(made_by("unknown", strange("kwok-node-7"), subresource="status"))
    converge(server, report, 0)
    assert server.writes == []


@pytest.mark.parametrize("manager", [MANAGER, "unknown"], ids=["this release", "one that gave no name"])
def test_our_nodes_get_our_size_and_number(report: RecordingReporter, manager: str) -> None:
    """Those of planes that earlier releases made, too."""
    small = ours("kwok-node-1", manager)
    small["status"]["capacity"] = {"pods": "5"}
    server = Server(small, ours("kwok-node-2", manager))
    converge(server, report, 1)
    assert server.writes == ["patch kwok-node-1", "delete kwok-node-2"]
    assert report.warned == []


def test_a_node_of_ours_is_waited_for(report: RecordingReporter) -> None:
    """Pods could not land there yet."""
    server = Server(made_by(MANAGER, node_manifest("kwok-node-1", NodeCapacity())))
    with pytest.raises(NotReadyError, match="kwok-node-1"):
        converge(server, report, 1)
