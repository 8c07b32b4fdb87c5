"""Whether a scenario fits: the nodes that each group may use, and the lines about it."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import msgspec

from controller.cli.preview import fitting
from controller.domain.capacity import Amount
from controller.domain.ratio import ReferenceNode
from controller.domain.vm.policy import LauncherPolicy
from controller.kube.kinds import Node
from controller.kube.scheduling import Toleration
from controller.operations.settings import Reading
from controller.scenario.fitting import pack_fleet
from controller.scenario.scenario import Scenario
from controller.scenario.schema import parse

HEAD = """\
apiVersion: simulation.node-classifier.io/v1alpha1
kind: Scenario
name: demo
"""
ZONES = """
nodes:
  - {name: a, count: 2, labels: {zone: a}}
  - {name: b, labels: {zone: b}, taints: [{key: dedicated, effect: NoSchedule}]}
vms:
"""
VM = "cpu: 0.5, memory: 0.1"


def read(text: str) -> Scenario:
    """Read what follows the head."""
    return parse(HEAD + text, "s.yaml", Path("/nowhere"))


def said(text: str) -> list[str]:
    """Return the lines for the user about a scenario."""
    return list(fitting(pack_fleet(read(text).fleet), {None: Reading()}))


def node(name: str, cpu: str, **spec: object) -> Node:
    """Return a node of the cluster."""
    allocatable = {"cpu": cpu, "memory": "256Gi", "pods": "110"}
    metadata = {"name": name, "labels": {"type": "kwok"}}
    return msgspec.convert({"metadata": metadata, "spec": spec, "status": {"allocatable": allocatable}}, Node)


def test_a_vm_that_fits_no_node_is_named_with_the_nearest_node() -> None:
    """Though the sums suffice."""
    assert said("nodes: [{name: n, count: 4, cpu: 8, memory: 64Gi}]\nvms: [{name: v, cpu: 0.5, memory: 0.1}]") == [
        "No room for 1 of 1 VMs:",
        "  v: 16 CPUs and 25.6 GiB; no node has as much, the nearest is n-1: 8 CPUs and 64 GiB",
    ]


def test_tainted_nodes_do_not_count() -> None:
    """PreferNoSchedule excludes no node."""
    vms = "vms: [{name: v, cpu: 0.5, memory: 0.1}]"
    tainted = "nodes: [{name: n, count: 4, taints: [{key: dedicated, value: x, effect: NoSchedule}]}]\n"
    assert said(tainted + vms)[0] == "No node takes these VMs: 4 tainted dedicated=x:NoSchedule."
    assert said(tainted.replace("NoSchedule", "PreferNoSchedule") + vms) == ["Every VM finds room."]


def test_vms_that_fit_only_in_sum_are_named_with_the_remaining_capacity() -> None:
    """Three nodes of ten CPUs, five VMs of six."""
    vms = "vms: [{name: v, count: 5, cpu: 0.1875, memory: 0.1}]"
    assert said(f"nodes: [{{name: n, count: 3, cpu: 10}}]\n{vms}") == [
        "No room for 2 of 5 VMs:",
        "  v: 2 of 5, up to 6 CPUs and 25.6 GiB; most is left on n-1: 4 CPUs and 230.4 GiB",
    ]


def test_a_refusal_is_uncertain_if_only_some_vms_fit_no_node_at_all() -> None:
    """0.4 + 0.3 + 0.3 fill both nodes, but largest first places only four of the six."""
    vms = """vms:
  - {name: a, count: 2, cpu: 0.4, memory: 0.01}
  - {name: b, count: 5, cpu: {choice: [{value: 2, weight: 1}, {value: 0.3, weight: 4}]}, memory: 0.01}
"""
    assert said(f"seed: 2\nnodes: [{{name: n, count: 2}}]\n{vms}")[1:3] == [
        "No room for 2 of 7 VMs, placed one by one, the largest first; another order may do better:",
        "  b: 2 of 5, up to 64 CPUs and 2.6 GiB; no node has as much, the nearest is n-1: 32 CPUs and 256 GiB",
    ]


def test_the_number_of_pods_limits_a_node() -> None:
    """The message names a node without free pods."""
    assert said("nodes: [{name: n, pods: 2}]\nvms: [{name: v, count: 3, cpu: 0.1, memory: 0.1}]") == [
        "The VMs request more than these nodes have: without others, some will not run.",
        "No room for 1 of 3 VMs:",
        "  v: 1 of 3, 3.2 CPUs and 25.6 GiB; most is left on n: 25.6 CPUs and 204.8 GiB, but no pod",
    ]


def test_a_demand_is_rounded_as_the_pods_manifest() -> None:
    """Three VMs of 0.3333 fit on a reference node."""
    assert said("nodes: [{name: n}]\nvms: [{name: v, count: 3, cpu: 0.3333, memory: 0.3333}]") == [
        "Every VM finds room."
    ]


def test_nodes_of_the_cluster_count_less_their_used_capacity() -> None:
    """An existing node of the scenario counts as it is; running VMs are not placed again."""
    scenario = read("nodes: [{name: a}]\nvms: [{name: v, count: 3, cpu: 0.5, memory: 0.1}]")
    there = [node("a", "16"), node("b", "32"), node("c", "64", unschedulable=True)]
    used = {"b": Amount(cpu=Decimal(20))}
    packing = pack_fleet(scenario.fleet, there=there, used=used, running={"v-1"})
    assert [group.names for group in packing.unplaced] == [("v-3",)]
    assert packing.unplaced[0].reach.barred == {"cordoned": 1}
    assert not pack_fleet(scenario.fleet, there=there, used=used, running={"v-1", "v-2"}).unplaced


def test_a_node_with_unreadable_quantities_is_barred() -> None:
    """Its capacity is unknown."""
    scenario = read("vms: [{name: v, cpu: 0.5, memory: 0.1}]")
    assert next(fitting(pack_fleet(scenario.fleet, there=[node("a", "many")]), {None: Reading()})) == (
        "No node takes these VMs: 1 with quantities that cannot be read."
    )


def test_the_policy_decides_which_nodes_accept_vms() -> None:
    """By its tolerations and its node selector."""
    scenario = read(
        "nodes: [{name: n, taints: [{key: a, value: x, effect: NoExecute}]}]\nvms: [{name: v, cpu: 0.1, memory: 0.1}]"
    )
    assert pack_fleet(scenario.fleet).unplaced[0].reach.barred == {"tainted a=x:NoExecute": 1}
    default = LauncherPolicy()
    tolerant = LauncherPolicy(tolerations=(*default.tolerations, Toleration("a", "Exists")))
    assert not pack_fleet(scenario.fleet, policies={None: tolerant}).unplaced
    elsewhere = LauncherPolicy(node_selector={"zone": "a"})
    assert pack_fleet(scenario.fleet, policies={None: elsewhere}).unplaced[0].reach.barred == {
        "without the label zone=a": 1
    }


BLUE = "labels: {simulation.node-classifier.io/controller-class: blue}"


def test_a_vm_is_judged_by_the_policy_of_its_class() -> None:
    """Its size and its nodes."""
    fleet = read(f"nodes: [{{name: n}}]\nvms: [{{name: v, {VM}, {BLUE}}}, {{name: w, {VM}}}]").fleet
    assert fleet.classes == ("blue", None)
    elsewhere = LauncherPolicy(node_selector={"zone": "a"})
    [unplaced] = pack_fleet(fleet, policies={"blue": elsewhere}).unplaced
    assert (unplaced.group, unplaced.reach.barred) == ("v", {"without the label zone=a": 1})
    larger = LauncherPolicy(reference=ReferenceNode.of(cpu="128", memory="256Gi"))
    [unplaced] = pack_fleet(fleet, policies={"blue": larger}).unplaced
    assert unplaced.group == "v"


def test_the_lines_name_the_source_of_each_classs_policy() -> None:
    """Once if it is the same."""
    fleet = read(f"vms: [{{name: v, {VM}, {BLUE}}}, {{name: w, {VM}}}]").fleet
    packing = pack_fleet(fleet, there=[node("a", "8", unschedulable=True)])
    *_, line = fitting(packing, {"blue": Reading(config_map="ConfigMap a/b"), None: Reading()})
    assert line.endswith("this check uses those of ConfigMap a/b (class blue) and their defaults (no class).")
    *_, line = fitting(packing, {"blue": Reading(), None: Reading()})
    assert line.endswith("this check uses their defaults.")


def test_the_lines_name_the_source_of_the_policy() -> None:
    """The controller's defaults, or the settings that it has published."""
    fleet = read("vms: [{name: v, cpu: 0.1, memory: 0.1}]").fleet
    packing = pack_fleet(fleet, there=[node("a", "8", unschedulable=True)])
    *_, default = fitting(packing, {None: Reading()})
    *_, published = fitting(packing, {None: Reading(config_map="ConfigMap a/b")})
    assert default.endswith("this check uses their defaults.")
    assert published.endswith("this check uses those of ConfigMap a/b.")


def test_a_fleet_without_vms_has_no_lines() -> None:
    """One without nodes has a single line."""
    assert said("nodes: [{name: n}]") == []
    assert said("vms: [{name: v, cpu: 0.1, memory: 0.1}]") == ["No node takes these VMs: there is none here."]


def test_a_group_uses_only_the_nodes_of_its_selector_affinity_and_tolerations() -> None:
    """The nodes that do not take it are counted by the reason; other groups do not use its nodes in its place."""
    affinity = (
        "affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: "
        "{nodeSelectorTerms: [{matchExpressions: [{key: zone, operator: NotIn, values: [a]}]}]}}}"
    )
    assert said(f"{ZONES}  - {{name: v, count: 5, {VM}, nodeSelector: {{zone: a}}}}")[1:4] == [
        "No room for 1 of 5 VMs:",
        "  v: 1 of 5, 16 CPUs and 25.6 GiB; most is left on a-1: 0 CPUs and 204.8 GiB",
        "Nodes that take no VM: 1 without the label zone=a.",
    ]
    assert said(f"{ZONES}  - {{name: v, {VM}, {affinity}}}")[0] == (
        "No node takes these VMs: 2 that their node affinity excludes, 1 tainted dedicated:NoSchedule."
    )
    tolerant = "tolerations: [{key: dedicated, operator: Exists}]"
    assert said(f"{ZONES}  - {{name: v, count: 2, {VM}, {affinity}, {tolerant}}}") == ["Every VM finds room."]
    assert said(f"{ZONES}  - {{name: v, count: 6, {VM}, {tolerant}}}") == ["Every VM finds room."]


def test_groups_with_different_requirements_see_different_nodes() -> None:
    """Each with its own nodes that do not take it."""
    lines = said(
        f"{ZONES}  - {{name: here, count: 4, {VM}}}\n"
        f"  - {{name: there, count: 2, {VM}, nodeSelector: {{zone: b}}}}\n"
        f"  - {{name: nowhere, {VM}, nodeSelector: {{zone: c}}}}\n"
    )
    assert lines[:5] == [
        "No room for 3 of 7 VMs:",
        "  there: 2 of 2, up to 16 CPUs and 25.6 GiB; no node takes it",
        "  nowhere: 16 CPUs and 25.6 GiB; no node takes it",
        "Nodes that do not take there: 2 without the label zone=b, 1 tainted dedicated:NoSchedule.",
        "Nodes that do not take nowhere: 3 without the label zone=c.",
    ]


def test_groups_without_requirements_count_as_one() -> None:
    """Whatever their labels."""
    text = f"{ZONES}  - {{name: a, {VM}}}\n  - {{name: b, {VM}, labels: {{app: b}}, priorityClassName: high}}"
    assert pack_fleet(read(text).fleet).reaches == 1


def test_a_group_that_contradicts_the_installation_is_told_with_the_reason() -> None:
    """No pod is made of its VMs."""
    lines = said(f"{ZONES}  - {{name: v, {VM}, nodeSelector: {{type: real}}}}")
    assert lines[1].startswith("  v: 16 CPUs and 25.6 GiB; spec.nodeSelector has type=real, but this installation runs")


def test_what_only_the_scheduler_knows_is_named_with_the_groups() -> None:
    """A preference keeps no VM from running."""
    spread = "topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: %s}]"
    apart = (
        "affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: "
        "[{topologyKey: zone, labelSelector: {}}]}}"
    )
    small = "cpu: 0.01, memory: 0.01"
    assert said(
        f"{ZONES}  - {{name: a, {small}, {spread % 'DoNotSchedule'}, priorityClassName: high}}\n"
        f"  - {{name: b, {small}, {apart}, schedulerName: packer}}\n"
        f"  - {{name: c, {small}, {spread % 'ScheduleAnyway'}, {apart}}}\n"
    ) == [
        "Every VM finds room.",
        (
            "Not judged, since the scheduler alone knows: topology spread (a), preemption (a), pod affinity (b, c), "
            "scheduler packer (b)."
        ),
    ]


def test_a_preferred_node_restricts_nothing_and_an_exact_one_does() -> None:
    """The reason is that node's."""
    vms = f"  - {{name: v, count: 3, {VM}, node: a-1}}\n  - {{name: w, {VM}, node: b}}"
    scenario = read(ZONES + vms)
    assert not pack_fleet(scenario.fleet).unplaced
    lines = list(fitting(pack_fleet(scenario.exact.fleet), {None: Reading()}))
    assert lines == [
        "The VMs request more than these nodes have: without others, some will not run.",
        "No room for 2 of 4 VMs:",
        "  w: 16 CPUs and 25.6 GiB; may begin on b alone, a node tainted dedicated:NoSchedule",
        "  v: 1 of 3, 16 CPUs and 25.6 GiB; most is left on a-1: 0 CPUs and 204.8 GiB",
    ]


def test_an_exact_node_may_be_one_of_the_cluster() -> None:
    """One that is not there takes no VM."""
    fleet = read(f"vms: [{{name: v, count: 2, {VM}, node: [c, d]}}]").exact.fleet
    [unplaced] = pack_fleet(fleet, there=[node("c", "32")]).unplaced
    assert (unplaced.names, unplaced.reach.problem) == (("v-2",), "may begin on d alone, a node that does not exist")


def test_a_vm_that_tolerates_it_may_use_a_cordoned_node() -> None:
    """As for the scheduler."""
    tolerant = "tolerations: [{key: node.kubernetes.io/unschedulable, operator: Exists}]"
    fleet = read(f"vms: [{{name: v, {VM}}}, {{name: w, {VM}, {tolerant}}}]").fleet
    packing = pack_fleet(fleet, there=[node("c", "64", unschedulable=True)])
    assert [group.group for group in packing.unplaced] == ["v"]
