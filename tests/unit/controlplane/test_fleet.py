"""Our nodes get the wanted number and size; those of other clients are neither changed nor waited for."""

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
    """Nodes, which are ready as soon as they are created."""

    def __init__(self, *nodes: dict[str, Any]) -> None:
        self.nodes = {node["metadata"]["name"]: node for node in nodes}
        self.writes: list[str] = []

    def get(self, _path: str) -> Mapping[str, Any]:
        """List them."""
        return {"items": list(self.nodes.values())}

    def post(self, _path: str, body: dict[str, Any]) -> None:
        """Create a node."""
        name = body["metadata"]["name"]
        self.writes.append(f"create {name}")
        self.nodes[name] = ready(made_by(MANAGER, body))

    def patch(self, path: str, _body: Mapping[str, Any]) -> None:
        """Record the patch."""
        self.writes.append(f"patch {path.split('/')[-2]}")

    def delete(self, path: str) -> None:
        """Delete a node."""
        name = path.rpartition("/")[2]
        self.writes.append(f"delete {name}")
        del self.nodes[name]


def made_by(manager: str, node: dict[str, Any], **entry: str) -> dict[str, Any]:
    """Return a node whose `managedFields` name its creator."""
    written = {"manager": manager, "operation": "Update", **entry}
    played = {"manager": "kwok-controller", "operation": "Update", "subresource": "status"}
    return {**node, "metadata": {**node["metadata"], "managedFields": [written, played]}}


def ready(node: dict[str, Any]) -> dict[str, Any]:
    """Return a node that KWOK has taken over."""
    return {**node, "status": {**node["status"], "conditions": READY}}


def ours(name: str, manager: str = MANAGER) -> dict[str, Any]:
    """Return a node that `up` created earlier."""
    return ready(made_by(manager, node_manifest(name, NodeCapacity())))


def foreign(name: str, *, fake: bool = True, capacity: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return a node of another client, which is not ready."""
    annotations = {"annotations": {"kwok.x-k8s.io/node": "fake"}} if fake else {}
    return {"metadata": {"name": name, **annotations}, "spec": {}, "status": {"capacity": dict(capacity or {})}}


def converge(server: Server, report: RecordingReporter, count: int) -> None:
    """Bring the nodes to this number."""
    Fleet(cast(ApiServer, server), report, Path("logs")).converge(count, NodeCapacity(), seconds=0.05)


@pytest.mark.parametrize("fake", [True, False])
@pytest.mark.parametrize("name", ["mine", "kwok-node-x", "kwok-node-01", "node-1"])
@pytest.mark.parametrize("capacity", [{"pods": "1M", "cpu": "1k"}, {}, {"pods": "some"}])
def test_nodes_of_other_clients_are_left_unchanged(
    report: RecordingReporter, name: str, capacity: dict[str, str], *, fake: bool
) -> None:
    """Whatever their capacity, and although they are not ready."""
    server = Server(foreign(name, fake=fake, capacity=capacity), ours("kwok-node-1"))
    converge(server, report, 2)
    assert server.writes == ["create kwok-node-2"]


def test_a_foreign_node_under_one_of_our_names_is_left_unchanged_and_reported(report: RecordingReporter) -> None:
    """A real node may have such a name; the other nodes are created."""
    server = Server(foreign("kwok-node-1", fake=False), foreign("kwok-node-7", fake=False))
    converge(server, report, 2)
    assert server.writes == ["create kwok-node-2"]
    assert report.warned == ["node kwok-node-1 exists and is not a fake node: it is left unchanged"]


@pytest.mark.parametrize("manager", ["kubectl-create", "kubectl-client-side-apply", "OpenAPI-Generator", "curl"])
@pytest.mark.parametrize("capacity", [{"pods": "1M"}, NodeCapacity().resources()])
def test_a_fake_node_of_another_client_is_left_unchanged_under_any_name(
    report: RecordingReporter, manager: str, capacity: dict[str, str]
) -> None:
    """It is neither resized nor deleted, and reported only if it has one of the wanted names."""
    theirs = [made_by(manager, foreign(name, capacity=capacity)) for name in ("kwok-node-1", "kwok-node-7")]
    server = Server(*theirs)
    converge(server, report, 2)
    assert server.writes == ["create kwok-node-2"]
    assert report.warned == ["node kwok-node-1 exists and was created by another client: it is left unchanged"]


def test_a_write_of_the_status_alone_does_not_make_a_node_ours(report: RecordingReporter) -> None:
    """An earlier release may have written our size into a foreign node."""
    server = Server(made_by("unknown", foreign("kwok-node-7"), subresource="status"))
    converge(server, report, 0)
    assert server.writes == []


@pytest.mark.parametrize("manager", [MANAGER, "unknown"], ids=["this release", "one that gave no name"])
def test_our_nodes_get_our_size_and_number(report: RecordingReporter, manager: str) -> None:
    """Also those of planes that earlier releases created."""
    small = ours("kwok-node-1", manager)
    small["status"]["capacity"] = {"pods": "5"}
    server = Server(small, ours("kwok-node-2", manager))
    converge(server, report, 1)
    assert server.writes == ["patch kwok-node-1", "delete kwok-node-2"]
    assert report.warned == []


def test_our_nodes_are_waited_for_until_they_are_ready(report: RecordingReporter) -> None:
    """Before that, pods cannot land there."""
    server = Server(made_by(MANAGER, node_manifest("kwok-node-1", NodeCapacity())))
    with pytest.raises(NotReadyError, match="kwok-node-1"):
        converge(server, report, 1)
