"""Our nodes are brought to what is wanted; those of others are neither touched nor waited for."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from hack.controlplane.api import ApiServer
from hack.controlplane.errors import NotReadyError
from hack.controlplane.fleet import Fleet
from hack.controlplane.nodes import NodeCapacity, node_manifest
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
        self.nodes[name] = ready(body)

    def patch(self, path: str, _body: Mapping[str, Any]) -> None:
        """Note it."""
        self.writes.append(f"patch {path.split('/')[-2]}")

    def delete(self, path: str) -> None:
        """Take one away."""
        name = path.rpartition("/")[2]
        self.writes.append(f"delete {name}")
        del self.nodes[name]


def ready(node: dict[str, Any]) -> dict[str, Any]:
    """Return a node that KWOK has taken over."""
    return {**node, "status": {**node["status"], "conditions": READY}}


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
    server = Server(strange(name, fake=fake, capacity=capacity), ready(node_manifest("kwok-node-1", NodeCapacity())))
    converge(server, report, 2)
    assert server.writes == ["create kwok-node-2"]


def test_a_name_of_ours_that_is_taken_is_left_and_told(report: RecordingReporter) -> None:
    """A real node may be called so; the others are made."""
    server = Server(strange("kwok-node-1", fake=False), strange("kwok-node-7", fake=False))
    converge(server, report, 2)
    assert server.writes == ["create kwok-node-2"]
    assert report.warned == ["node kwok-node-1 is there and is no fake one: it is left alone"]


def test_a_fake_node_under_a_name_of_ours_gets_our_size(report: RecordingReporter) -> None:
    """It is one of those that were asked for."""
    server = Server(ready(strange("kwok-node-1", capacity={"pods": "1M"})))
    converge(server, report, 1)
    assert server.writes == ["patch kwok-node-1"]


def test_a_node_of_ours_is_waited_for(report: RecordingReporter) -> None:
    """Pods could not land there yet."""
    server = Server(node_manifest("kwok-node-1", NodeCapacity()))
    with pytest.raises(NotReadyError, match="kwok-node-1"):
        converge(server, report, 1)
