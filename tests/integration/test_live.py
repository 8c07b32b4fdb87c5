"""Live migrations on a real control plane: two pods, one VM."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.tools import Controller, Kubectl, eventually, sweep


@pytest.fixture(autouse=True)
def _no_vms(kubectl: Kubectl, controller: Controller, clean: None) -> Iterator[None]:  # noqa: ARG001 - order
    """Delete the migrations, too."""
    yield
    sweep(kubectl)
    kubectl("delete", "vmm", "--all", "--wait=true")


def begin(kubectl: Kubectl, name: str = "live") -> None:
    """Begin a live migration of vm-1, and wait until its memory is copied."""
    body = {
        "apiVersion": "simulation.node-classifier.io/v1alpha1",
        "kind": "VirtualMachineMigration",
        "metadata": {"name": name},
        "spec": {"vmName": "vm-1", "strategy": "Live"},
    }
    kubectl("create", "-f", "-", stdin=json.dumps(body))
    reached(kubectl, "Running", name)


def reached(kubectl: Kubectl, phase: str, name: str = "live") -> Any:
    """Wait until a migration has passed a phase; return its status."""
    text = kubectl.eventually(
        *("get", "vmm", name, "-o", "json"),
        until=lambda text: any(
            step["phase"] == phase for step in json.loads(text)["status"].get("phaseTransitionTimestamps", [])
        ),
        timeout=40,
    )
    return json.loads(text)["status"]


def settled(kubectl: Kubectl) -> Any:
    """Wait until no claim is left; return the VM's status."""
    return kubectl.wait_vm("vm-1", lambda vm: "migration" not in vm["status"], timeout=60)["status"]


def conditions(vm: Any) -> set[str]:
    """The types of a VM's conditions."""
    return {each["type"] for each in vm["status"].get("conditions", ())}


def copying(controller: Controller) -> set[str]:
    """The migrations of vm-1 that have sent memory, and have to send more, by the metrics."""
    series = ("data_processed", "data_remaining", "dirty_memory_rate", "memory_transfer_rate")
    found = [controller.samples(f"kubevirt_vmi_migration_{name}_bytes", name="vm-1") for name in series]
    return set.intersection(*({each.labels["migration_name"] for each in one if each.value > 0} for one in found))


def test_a_vm_moves_live_and_stays_running(kubectl: Kubectl, controller: Controller) -> None:
    """It is counted once, and keeps its requests, so its restart is still required."""
    kubectl.apply_vm("vm-1")
    before = kubectl.wait_phase("vm-1", "Running")["status"]
    kubectl.apply_vm("vm-1", cpu="0.20")
    kubectl.wait_vm("vm-1", lambda vm: "RestartRequired" in conditions(vm))
    with kubectl.running(
        "get", "vm", "vm-1", "-w", "-o", "jsonpath={.status.phase} {.status.nodeName}{'\\n'}"
    ) as watch:
        begin(kubectl)
        status = reached(kubectl, "Succeeded")
        after = settled(kubectl)
        lines = watch.wait_for(lambda lines: after["nodeName"] in lines[-1])
    assert {line.split()[0] for line in lines} == {"Running"}
    route = (status["sourceNode"], status["targetNode"])
    assert route == (before["nodeName"], after["nodeName"])
    assert before["nodeName"] != after["nodeName"]
    assert [step["phase"] for step in status["phaseTransitionTimestamps"]][-3:] == [
        *("TargetReady", "Running", "Succeeded")
    ]
    [pod] = kubectl.json("get", "pods")["items"]
    assert pod["spec"]["containers"][0]["resources"]["requests"]["cpu"] == "3200m"
    assert "RestartRequired" in {each["type"] for each in after["conditions"]}
    eventually(lambda: controller.samples("node_vm_count", node=after["nodeName"])[0].value == 1)
    assert sum(sample.value for sample in controller.samples("node_vm_count")) == 1


def test_a_move_that_is_undone_leaves_the_vm_where_it_was(kubectl: Kubectl, controller: Controller) -> None:
    """Cancelled, then with its target evicted, which is no eviction of the VM; each attempt takes a later number."""
    kubectl.apply_vm("vm-1")
    before = kubectl.wait_phase("vm-1", "Running")["status"]
    begin(kubectl)
    eventually(lambda: copying(controller) == {"live"})
    kubectl("patch", "vmm", "live", "--type=merge", "-p", '{"spec":{"cancel":true}}')
    assert reached(kubectl, "Failed")["failureReason"] == "Cancelled"
    assert settled(kubectl)["podUID"] == before["podUID"]
    eventually(lambda: copying(controller) == set())

    begin(kubectl, "again")
    pods = kubectl.json("get", "pods")["items"]
    assert len({pod["spec"]["nodeName"] for pod in pods}) == 2
    [target] = [pod["metadata"]["name"] for pod in pods if pod["metadata"]["uid"] != before["podUID"]]
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": target, "namespace": "default"}}
    path = f"/api/v1/namespaces/default/pods/{target}/eviction"
    kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(eviction))
    assert reached(kubectl, "Failed", "again")["failureReason"] == "TargetLost"
    after = settled(kubectl)
    assert (after["podUID"], after["incarnation"], after["lastIncarnation"]) == (before["podUID"], 0, 2)
    assert len(kubectl.json("get", "vmm")["items"]) == 2
