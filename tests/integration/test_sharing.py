"""Installations that share a cluster: each handles its own VMs, by class and by labels."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from controller.controlplane.plane import ControlPlane
from tests.integration.live_pods import LivePods
from tests.integration.tools import Controller, Kubectl, eventually

CLASS = "simulation.node-classifier.io/controller-class"


@pytest.fixture(scope="module")
def controllers(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Controller]]:
    """Run the default class, the class blue, and the class picky with a label selector."""
    logs = tmp_path_factory.mktemp("classes")
    flags = {
        "default": (),
        "blue": ("--controller-class", "blue"),
        "picky": ("--controller-class", "picky", "--selector", "tier in (gold, silver)"),
    }
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(Controller.start(plane.kubeconfig, logs / name, "--leader-elect", *arguments))
            for name, arguments in flags.items()
        }


@pytest.fixture(autouse=True)
def _tidy(kubectl: Kubectl, controllers: dict[str, Controller]) -> Iterator[None]:
    """Delete everything, and check for two live pods of a VM; without a controller, Kubernetes deletes a VM's pod."""
    assert all(process.process.poll() is None for process in controllers.values())
    with LivePods().following(kubectl) as watch:
        yield
        kubectl("delete", "vm,vmm", "--all", "--wait=true")
        kubectl("delete", "pods", "--all", "--wait=true")
    assert watch.violations == []


def vm(kubectl: Kubectl, name: str = "vm-1") -> Any:
    """Return a VM."""
    return json.loads(kubectl("get", "vm", name, "-o", "json"))


def test_each_class_has_a_lease_and_settings_of_its_own(kubectl: Kubectl, controllers: dict[str, Controller]) -> None:
    """So all of them lead, and each publishes its settings."""
    for name, process in controllers.items():
        own = "vmsim-controller" + ("" if name == "default" else f"-{name}")
        assert [sample.value for sample in process.samples("leader_election_master_status", name=own)] == [1]
        kubectl("get", "lease", own)
        kubectl.eventually("get", "configmap", own, "--ignore-not-found", "-o", "name", until=bool)


def test_a_vm_is_handled_by_its_class_alone(kubectl: Kubectl, controllers: dict[str, Controller]) -> None:
    """The logs of the others do not name it."""
    logs = {name: len(process.log.read_text()) for name, process in controllers.items()}
    kubectl.apply_vm("vm-1", labels={CLASS: "blue"})
    kubectl.wait_phase("vm-1", "Running")

    pod = kubectl("get", "pod", vm(kubectl)["status"]["podName"], "-o", "json")
    assert json.loads(pod)["metadata"]["labels"][CLASS] == "blue"
    known = {
        name: process.samples("kubevirt_vmi_info", namespace="default", name="vm-1")
        for name, process in controllers.items()
    }
    assert {name for name, series in known.items() if series} == {"blue"}
    handled = {name for name, process in controllers.items() if "default/vm-1" in process.log.read_text()[logs[name] :]}
    assert handled == {"blue"}


def test_a_vm_keeps_its_pod_when_its_class_changes(kubectl: Kubectl, controllers: dict[str, Controller]) -> None:
    """The new class replaces the pod when it is deleted."""
    kubectl.apply_vm("vm-1")
    kubectl.wait_phase("vm-1", "Running")
    pod = vm(kubectl)["status"]["podUID"]
    kubectl("label", "vm", "vm-1", f"{CLASS}=blue")
    kubectl.eventually("get", "pods", "-l", f"{CLASS}=blue", "-o", "name", until=bool)
    eventually(lambda: controllers["default"].metric("vmsim_vms") == 0)
    assert vm(kubectl)["status"]["podUID"] == pod

    log = controllers["default"].log
    before = len(log.read_text())
    kubectl("annotate", "vm", "vm-1", "simulation.node-classifier.io/cpu-consumption=0.07")
    kubectl.eventually(
        *("get", "vm", "vm-1", "-o", "jsonpath={.status.cpuConsumption}"), until=lambda text: text == "0.07"
    )
    assert vm(kubectl)["status"]["podUID"] == pod
    # A reconcile that was queued before may still come, but it has nothing to do; every act would be logged.
    assert "vm-1" not in log.read_text()[before:]


def test_a_vm_that_leaves_the_selection_keeps_its_pod(kubectl: Kubectl, controllers: dict[str, Controller]) -> None:
    """It does not count as deleted, and is unchanged when it is selected again."""
    kubectl.apply_vm("vm-1", labels={CLASS: "picky", "tier": "gold"})
    kubectl.wait_phase("vm-1", "Running")
    pod = vm(kubectl)["status"]["podUID"]
    kubectl("label", "vm", "vm-1", "tier=bronze", "--overwrite")
    eventually(lambda: controllers["picky"].metric("vmsim_vms") == 0)
    kubectl("annotate", "vm", "vm-1", "simulation.node-classifier.io/cpu-consumption=0.07")
    kubectl("label", "pods", "-l", f"{CLASS}=picky", "touched=yes")
    # A VM of ours that was asked for after all that runs, so what came before it was looked at.
    kubectl.apply_vm("vm-2", labels={CLASS: "picky", "tier": "silver"})
    kubectl.wait_phase("vm-2", "Running")
    assert vm(kubectl)["status"]["podUID"] == pod
    assert vm(kubectl)["status"]["cpuConsumption"] == "0.10"
    assert kubectl("get", "pod", vm(kubectl)["status"]["podName"], "-o", "jsonpath={.status.phase}") == "Running"

    kubectl("label", "vm", "vm-1", "tier=silver", "--overwrite")
    kubectl.eventually(
        *("get", "vm", "vm-1", "-o", "jsonpath={.status.cpuConsumption}"), until=lambda text: text == "0.07"
    )
    assert vm(kubectl)["status"]["podUID"] == pod


def test_a_migration_belongs_to_the_class_of_its_vm(kubectl: Kubectl) -> None:
    """Other classes do not touch it; one of a missing VM fails."""
    kubectl.apply_vm("vm-1", labels={CLASS: "blue"})
    kubectl.wait_phase("vm-1", "Running")
    for name, of in (("move", "vm-1"), ("lost", "missing")):
        body = {
            "apiVersion": "simulation.node-classifier.io/v1alpha1",
            "kind": "VirtualMachineMigration",
            "metadata": {"name": name},
            "spec": {"vmName": of},
        }
        kubectl("create", "-f", "-", stdin=json.dumps(body))
    for name, phase in (("move", "Succeeded"), ("lost", "Failed")):
        kubectl.eventually(
            *("get", "vmm", name, "-o", "jsonpath={.status.phase}"),
            until=lambda text, phase=phase: text == phase,  # type: ignore[misc]
            timeout=60,
        )
