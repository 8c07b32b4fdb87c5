"""Parsed scenarios: names, sizes and initial consumption; and that a VM's values do not depend on other VMs."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain import names
from controller.domain.ratio import CPU_MAX, MEMORY_MAX, parse_ratio
from controller.kube.kinds import Taint
from controller.scenario import files
from controller.scenario.fleet import DesiredNode, DesiredVM, node_manifest, vm_manifest
from controller.scenario.scenario import Scenario, VMGroup
from controller.scenario.schema import parse

HEAD = """\
apiVersion: simulation.node-classifier.io/v1alpha1
kind: Scenario
name: demo
"""
RANDOM = """
  - name: {name}
    count: {count}
    cpu: {{normal: {{mean: 0.2, stddev: 0.1, min: 0.05, max: 0.4}}}}
    memory: {{uniform: {{min: 0.1, max: 0.3}}}}
    consumption:
      cpu: {{walk: {{start: 0.5, step: 0.1, every: 1m, min: 0.1, max: 0.9}}}}
      memory: {{sine: {{mean: 0.5, amplitude: 0.3, period: 1h, spread: 1}}}}
"""


def read(text: str, directory: Path = Path("/nowhere")) -> Scenario:
    """Read what follows the head."""
    return parse(HEAD + text, "s.yaml", directory)


def group(count: int, name: str = "web", *, seed: int = 0) -> Scenario:
    """Return a group of VMs whose sizes and consumption are random."""
    return read(f"seed: {seed}\nvms:\n" + RANDOM.format(name=name, count=count))


def test_names_are_numbered_if_a_group_has_a_count() -> None:
    """Also if the count is 1."""
    fleet = read(
        "nodes: [{name: a, count: 2}, {name: b, count: 1}, {name: c}]\n"
        "vms: [{name: web, count: 2, cpu: 1, memory: 1}, {name: db, cpu: 1, memory: 1}]"
    ).fleet
    assert [node.name for node in fleet.nodes] == ["a-1", "a-2", "b-1", "c"]
    assert [vm.name for vm in fleet.vms] == ["web-1", "web-2", "db"]


def test_a_node_has_every_field_of_its_group() -> None:
    """Quantities may be YAML numbers."""
    [node] = read(
        "nodes: [{name: n, cpu: 64, memory: 1Ti, pods: 250, labels: {zone: a, tier: ''}, "
        "taints: [{key: gpu, value: big, effect: NoSchedule}, {key: x, effect: NoExecute}]}]"
    ).fleet.nodes
    taints = (Taint(key="gpu", value="big", effect="NoSchedule"), Taint(key="x", value="", effect="NoExecute"))
    assert node == DesiredNode("n", "64", "1Ti", 250, {"zone": "a", "tier": ""}, taints)


def test_the_taint_of_fake_nodes_may_be_written(tmp_path: Path) -> None:
    """KWOK's documentation has it; the API server accepts each pair of key and effect once."""
    copied = "{key: kwok.x-k8s.io/node, value: fake, effect: NoSchedule}"
    others = "{key: kwok.x-k8s.io/node, value: fake, effect: NoExecute}, {key: a, effect: NoSchedule}"
    [node] = read(f"nodes: [{{name: n, taints: [{copied}, {others}, {copied}]}}]", tmp_path).fleet.nodes
    written = [(taint["key"], taint["effect"]) for taint in node_manifest(node, "demo")["spec"]["taints"]]
    assert written == [
        ("kwok.x-k8s.io/node", "NoSchedule"),
        ("kwok.x-k8s.io/node", "NoExecute"),
        ("a", "NoSchedule"),
    ]


def test_a_node_has_the_reference_capacity_by_default() -> None:
    """It has the label, annotation and taint of a fake node."""
    [node] = read("nodes: [{name: n}]").fleet.nodes
    manifest = node_manifest(node, "demo")
    assert manifest["status"]["allocatable"] == {"cpu": "32", "memory": "256Gi", "pods": "110"}
    assert manifest["metadata"]["annotations"]["kwok.x-k8s.io/node"] == "fake"
    assert manifest["metadata"]["labels"].items() >= {"type": "kwok", names.SCENARIO_LABEL: "demo"}.items()
    assert manifest["spec"]["taints"] == [{"key": "kwok.x-k8s.io/node", "value": "fake", "effect": "NoSchedule"}]


def test_consumption_is_a_share_of_the_request() -> None:
    """The annotation is a share of the reference node."""
    [vm] = read("vms: [{name: v, cpu: 0.4, memory: 0.5, consumption: {cpu: 2.5, memory: 0.1}}]").fleet.vms
    assert vm == DesiredVM("v", "0.40", "0.50", "1.00", "0.05")
    assert vm_manifest(vm, "demo", "default")["metadata"]["annotations"] == {
        names.CPU_CONSUMPTION: "1.00",
        names.MEMORY_CONSUMPTION: "0.05",
    }


def test_a_vm_without_consumption_has_no_annotation() -> None:
    """Nothing is played for it."""
    scenario = read("vms: [{name: v, cpu: 0.4, memory: 0.5}]")
    assert scenario.parts == ()
    assert "annotations" not in vm_manifest(scenario.fleet.vms[0], "demo", "default")["metadata"]


def test_a_larger_count_changes_no_other_vm() -> None:
    """Neither sizes nor consumption at any time."""
    few, many = group(3), group(4)
    assert many.fleet.vms[:3] == few.fleet.vms
    assert [part.at(12345.0) for part in many.parts[:3]] == [part.at(12345.0) for part in few.parts]


def test_another_group_changes_no_vm_of_a_group() -> None:
    """It stands before the group."""
    alone = group(3)
    second = read("vms:\n" + RANDOM.format(name="other", count=5) + RANDOM.format(name="web", count=3))
    assert second.fleet.vms[5:] == alone.fleet.vms


def test_vms_of_a_group_differ() -> None:
    """In size and in consumption."""
    scenario = group(20)
    assert len({vm.cpu for vm in scenario.fleet.vms}) > 10
    assert len({vm.memory for vm in scenario.fleet.vms}) > 10
    assert len({part.at(3600.0) for part in scenario.parts}) > 10


def test_the_seed_determines_all_values() -> None:
    """Another seed gives other values."""
    assert group(5, seed=1) == group(5, seed=1)
    assert group(5, seed=1).fleet.vms != group(5, seed=2).fleet.vms


def test_a_groups_seed_overrides_the_scenarios() -> None:
    """So that one group can be drawn anew."""
    own = read("seed: 1\nvms: [{name: v, seed: 2, cpu: {uniform: {min: 0, max: 1}}, memory: 1}]")
    same = read("seed: 2\nvms: [{name: v, cpu: {uniform: {min: 0, max: 1}}, memory: 1}]")
    assert own.fleet == same.fleet


def test_seeded_values_never_change() -> None:
    """On no machine and in no release: users' results depend on them."""
    scenario = group(2)
    assert [(vm.cpu, vm.memory) for vm in scenario.fleet.vms] == [("0.3011", "0.2832"), ("0.1135", "0.1524")]
    assert [part.at(7200.0) for part in scenario.parts] == [("0.1806", "0.1329"), ("0.0374", "0.1217")]


def test_a_trace_is_played_from_its_first_row(tmp_path: Path) -> None:
    """Its path is relative to the scenario; times may start anywhere; values are rounded."""
    (tmp_path / "t.csv").write_text("time, cpu, memory, host\n1700000, 0.123456, 0.5, x\n1700060,0.5,0.6,x\n\n")
    trace = "{trace: {file: t.csv, end: repeat}}"
    [part] = read(
        f"vms: [{{name: v, cpu: 1, memory: 1, consumption: {{cpu: {trace}, memory: {trace}}}}}]", tmp_path
    ).parts
    assert [part.at(seconds) for seconds in (0.0, 59.0, 60.0, 119.0, 120.0)] == [
        ("0.1235", "0.50"),
        ("0.1235", "0.50"),
        ("0.50", "0.60"),
        ("0.50", "0.60"),
        ("0.1235", "0.50"),
    ]


@pytest.mark.parametrize("name", files.shipped())
def test_a_shipped_scenario_parses_and_has_its_files_name(name: str) -> None:
    """It has nodes, and consumption that changes."""
    scenario = files.read(name)
    assert scenario.name == name
    assert scenario.fleet.nodes
    assert scenario.changes


@pytest.mark.parametrize("name", files.shipped())
def test_shipped_scenarios_can_be_loaded_side_by_side(name: str) -> None:
    """Their node names differ from each other's and from the local control plane's."""
    others = [files.read(other).fleet for other in files.shipped() if other != name]
    taken = {node.name for fleet in others for node in fleet.nodes} | {f"kwok-node-{number}" for number in range(99)}
    assert not taken & {node.name for node in files.read(name).fleet.nodes}


def test_the_vms_of_hot_node_fit_only_its_large_node() -> None:
    """They exceed the reference size."""
    scenario = files.read("hot-node")
    assert {vm.cpu for vm in scenario.vm_groups[0].vms} == {"1.20"}
    assert sorted(Decimal(node.cpu) for node in scenario.fleet.nodes) == [32, 32, 32, 128]


def test_the_diurnal_groups_have_opposite_peaks() -> None:
    """The batch jobs peak at midnight, the shops at noon."""
    shop, batch, _ = files.read("diurnal").vm_groups

    def busy(group: VMGroup, hour: int) -> float:
        curves = [part.cpu for part in group.parts if part.cpu is not None]
        return float(mean(curve.profile.at(hour * 3600.0, curve.seed) for curve in curves))

    assert [busy(shop, hour) > 0.7 for hour in (0, 12)] == [False, True]
    assert [busy(batch, hour) > 0.7 for hour in (0, 12)] == [True, False]
    assert max(busy(shop, 0), busy(batch, 12)) < 0.3


@given(
    seed=st.integers(0, 2**63 - 1),
    mean=st.integers(0, 4000),
    amplitude=st.integers(0, 4000),
    hours=st.floats(0, 24 * 366, allow_nan=False),
)
def test_the_controller_accepts_every_value_of_a_scenario(seed: int, mean: int, amplitude: int, hours: float) -> None:
    """Plain decimals within bounds, at any time, for any seed."""
    middle, swing = Decimal(max(mean, amplitude)) / 10000, Decimal(min(mean, amplitude)) / 10000
    scenario = read(
        f"seed: {seed}\n"
        "vms:\n"
        "  - name: v\n"
        "    cpu: {uniform: {min: 0, max: 1000}}\n"
        "    memory: {choice: [0, 0.3333, 1]}\n"
        "    consumption:\n"
        f"      cpu: {{sine: {{mean: {middle}, amplitude: {swing}, period: 7m, spread: 1}}}}\n"
        f"      memory: {{walk: {{start: {middle}, step: {swing}, every: 13s, min: 0, max: 1}}}}\n"
    )
    [part] = scenario.parts
    cpu, memory = part.at(hours * 3600)
    parse_ratio(cpu, field="cpu", maximum=CPU_MAX)
    parse_ratio(memory, field="memory", maximum=MEMORY_MAX)
    for vm in scenario.fleet.vms:
        parse_ratio(vm.cpu, field="cpu", maximum=CPU_MAX)
        parse_ratio(vm.memory, field="memory", maximum=MEMORY_MAX)
