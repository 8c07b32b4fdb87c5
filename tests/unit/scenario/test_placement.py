"""The placement of a group's VMs: in their manifests, and in the comparison with VMs that exist."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from controller.domain import names
from controller.domain.objects import VirtualMachine
from controller.scenario.comparison import vm_conflict
from controller.scenario.fleet import DesiredVM, vm_manifest
from controller.scenario.scenario import Scenario
from controller.scenario.schema import parse

HEAD = """\
apiVersion: simulation.node-classifier.io/v1alpha1
kind: Scenario
name: demo
"""
VM = HEAD + "vms:\n  - name: web\n    cpu: 0.1\n    memory: 0.5\n    "
PLACED = """\
labels: {app: web, simulation.node-classifier.io/controller-class: blue}
    annotations: {simulation.node-classifier.io/boot-time: 90s, Example.com/Note: ""}
    schedulerName: packer
    nodeSelector: {gpu: "true"}
    affinity:
      nodeAffinity:
        requiredDuringSchedulingIgnoredDuringExecution:
          nodeSelectorTerms: [{matchExpressions: [{key: zone, operator: In, values: [a, b]}]}]
      podAntiAffinity:
        preferredDuringSchedulingIgnoredDuringExecution:
          - {weight: 7, podAffinityTerm: {topologyKey: zone, labelSelector: {}}}
      podAffinity: ~
    tolerations: [{key: gpu, operator: Exists, effect: NoExecute, tolerationSeconds: 30}, {operator: Exists, key: }]
    topologySpreadConstraints:
      - {maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: web}}}
    priorityClassName: high
"""


def read(text: str) -> Scenario:
    """Read a scenario."""
    return parse(text, "s.yaml", Path("/nowhere"))


def only(text: str) -> DesiredVM:
    """Return the one VM of a scenario."""
    [vm] = read(text).fleet.vms
    return vm


def made(vm: DesiredVM) -> dict[str, Any]:
    """Return the VM's manifest."""
    return vm_manifest(vm, "demo", "default")


def existing(vm: DesiredVM) -> VirtualMachine:
    """Return a VM as it was loaded."""
    return msgspec.convert(made(vm), VirtualMachine)


def test_a_group_takes_every_placement_field_of_a_vm() -> None:
    """As written; what is null is left out, as the API server would do."""
    assert made(only(VM + PLACED))["spec"] == {
        "resources": {"cpu": "0.10", "memory": "0.50"},
        "running": True,
        "schedulerName": "packer",
        "nodeSelector": {"gpu": "true"},
        "affinity": {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [
                        {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a", "b"]}]}
                    ]
                }
            },
            "podAntiAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {"weight": 7, "podAffinityTerm": {"topologyKey": "zone", "labelSelector": {}}}
                ]
            },
        },
        "tolerations": [
            {"key": "gpu", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30},
            {"operator": "Exists"},
        ],
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "zone",
                "whenUnsatisfiable": "DoNotSchedule",
                "labelSelector": {"matchLabels": {"app": "web"}},
            }
        ],
        "priorityClassName": "high",
    }


def test_a_vm_has_the_labels_and_annotations_of_its_group() -> None:
    """Beside those that loading writes."""
    metadata = made(only(VM + PLACED))["metadata"]
    assert metadata["labels"] == {"app": "web", names.CONTROLLER_CLASS: "blue", names.SCENARIO_LABEL: "demo"}
    assert metadata["annotations"] == {names.BOOT_TIME: "90s", "Example.com/Note": ""}


def test_the_vms_of_a_group_begin_on_its_nodes_in_turn() -> None:
    """As a preference."""
    vms = read(VM + "count: 3\n    node: [n-1, n-2]").fleet.vms
    assert [made(vm)["metadata"]["annotations"] for vm in vms] == [
        {names.START_NODE: "n-1"},
        {names.START_NODE: "n-2"},
        {names.START_NODE: "n-1"},
    ]


def test_exact_placement_requires_the_node() -> None:
    """Instead of preferring it; VMs without a node are as they were."""
    scenario = read(VM + "node: n-1\n  - {name: free, cpu: 0.1, memory: 0.1}")
    placed, free = scenario.exact.fleet.vms
    assert made(placed)["metadata"]["annotations"] == {names.REQUIRED_START_NODE: "n-1"}
    assert made(free) == made(scenario.fleet.vms[1])


def test_a_node_of_the_file_may_be_named_before_it_is_listed() -> None:
    """The order of a file's fields does not matter."""
    assert only(VM + "node: n-2\nnodes: [{name: n, count: 2}]").node == "n-2"


def test_problems_of_nodes_cause_no_problems_of_vms() -> None:
    """The unreadable group may have the node."""
    with pytest.raises(Exception, match=r"^s.yaml:9: nodes\[0\].cpu: [^;]*$"):
        read(VM + "node: n-1\nnodes: [{name: n, count: 2, cpu: lots}]")


def test_a_vm_as_it_was_loaded_is_no_conflict() -> None:
    """Nor is one that has more labels, or began on another node."""
    vm = only(VM + PLACED + "    node: n-1\n")
    assert vm_conflict(vm, existing(vm), "demo") is None
    assert vm_conflict(only(VM + "node: n-2"), existing(only(VM + "labels: {more: x}\n    node: n-1")), "demo") is None


@pytest.mark.parametrize(
    ("before", "now", "conflict"),
    [
        ("labels: {app: web}", "labels: {app: db}", "has label app web, not db"),
        ("", "annotations: {note: x}", "has annotation note unset, not x"),
        ("nodeSelector: {zone: a}", "nodeSelector: {zone: b}", "has another nodeSelector"),
        ("nodeSelector: {zone: a}", "", "has another nodeSelector"),
        ("", "schedulerName: a\n    priorityClassName: b", "has another priorityClassName and another schedulerName"),
    ],
)
def test_a_vm_with_another_placement_is_a_conflict(before: str, now: str, conflict: str) -> None:
    """As one of another size is."""
    assert vm_conflict(only(VM + now), existing(only(VM + before)), "demo") == (
        f"VM default/web {conflict}: first `vmsim unload demo`, or load it as it was"
    )
