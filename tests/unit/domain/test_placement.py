"""A VM's placement fields, merged with what the installation and a migration demand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain import capacity, names
from controller.domain.objects import VMSpec
from controller.domain.vm import placement
from controller.domain.vm.inherited import HINTS
from controller.domain.vm.placement import ANYWHERE, Placement, PlacementError
from controller.domain.vm.plan import PatchPod, WriteStatus
from controller.domain.vm.policy import FAKE_TAINT, LauncherPolicy
from controller.kube.kinds import Node, NodeSpec, Taint
from controller.kube.meta import ObjectMeta
from controller.kube.scheduling import Affinity, Toleration
from tests.unit.domain.builders import POLICY, condition, plan_for, published, running, settled, vm

NODES = ("n1", "n2", "n3")
KEYS = ("zone", "disk", "type")
VALUES = ("a", "b", "3")
TAINTS = (
    Taint(key="zone", value="a", effect="NoSchedule"),
    Taint(key="zone", value="b", effect="NoExecute"),
    Taint(key="disk", value="", effect="PreferNoSchedule"),
)

labels = st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES), max_size=3)


def expressions() -> st.SearchStrategy[dict[str, Any]]:
    """Requirements on labels that the API server accepts."""
    key = st.sampled_from(KEYS)
    return st.one_of(
        st.fixed_dictionaries(
            {
                "key": key,
                "operator": st.sampled_from(("In", "NotIn")),
                "values": st.lists(st.sampled_from(VALUES), min_size=1),
            }
        ),
        st.fixed_dictionaries({"key": key, "operator": st.sampled_from(("Exists", "DoesNotExist"))}),
        st.fixed_dictionaries(
            {
                "key": key,
                "operator": st.sampled_from(("Gt", "Lt")),
                "values": st.sampled_from(("2", "3", "4")).map(lambda text: [text]),
            }
        ),
    )


fields = st.fixed_dictionaries(
    {
        "key": st.just("metadata.name"),
        "operator": st.sampled_from(("In", "NotIn")),
        "values": st.sampled_from(NODES).map(lambda name: [name]),
    }
)
terms = st.fixed_dictionaries(
    {}, optional={"matchExpressions": st.lists(expressions(), max_size=2), "matchFields": st.lists(fields, max_size=1)}
)
affinities = st.one_of(
    st.none(),
    st.lists(terms, min_size=1, max_size=3).map(
        lambda found: {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": found}}}
    ),
)
tolerations = st.lists(
    st.builds(
        Toleration,
        key=st.sampled_from(("zone", "disk")),
        operator=st.sampled_from(("Exists", "Equal", "")),
        value=st.sampled_from(("", "a", "b")),
        effect=st.sampled_from(("", "NoSchedule", "NoExecute")),
    ),
    max_size=2,
).map(tuple)
specs = st.builds(
    VMSpec,
    node_selector=labels,
    affinity=affinities.map(lambda found: None if found is None else msgspec.convert(found, Affinity)),
    tolerations=tolerations,
)
policies = st.builds(LauncherPolicy, node_selector=labels, speed=st.sampled_from((1.0, 10.0)))
name_or_none = st.one_of(st.none(), st.sampled_from(NODES))
placements = st.builds(
    Placement,
    node=name_or_none,
    avoid=name_or_none,
    rather=name_or_none,
    rather_not=name_or_none,
    selector=labels.map(lambda found: tuple(sorted(found.items()))),
)
nodes = st.builds(
    Node,
    metadata=st.builds(ObjectMeta, name=st.sampled_from(NODES), labels=labels),
    spec=st.builds(NodeSpec, unschedulable=st.booleans(), taints=st.lists(st.sampled_from(TAINTS)).map(tuple)),
)


def allows(pod: Mapping[str, Any], node: Node) -> bool:
    """The scheduler's rule, written down from its documentation: the selector, and one of the affinity's terms."""
    own = node.metadata.labels
    if any(own.get(key) != value for key, value in pod.get("nodeSelector", {}).items()):
        return False
    required = (pod.get("affinity", {}).get("nodeAffinity") or {}).get("requiredDuringSchedulingIgnoredDuringExecution")
    if required is None:
        return True

    def holds(wanted: Mapping[str, Any], found: Mapping[str, str]) -> bool:
        key, values = wanted["key"], wanted.get("values", [])
        there = key in found
        number = int(found[key]) if there and found[key].isdigit() else None
        return {
            "In": there and found[key] in values,
            "NotIn": not there or found[key] not in values,
            "Exists": there,
            "DoesNotExist": not there,
            "Gt": number is not None and number > int(values[0]) if wanted["operator"] == "Gt" else False,
            "Lt": number is not None and number < int(values[0]) if wanted["operator"] == "Lt" else False,
        }[wanted["operator"]]

    def matches(term: Mapping[str, Any]) -> bool:
        wanted = [(each, own) for each in term.get("matchExpressions", [])]
        wanted += [(each, {"metadata.name": node.metadata.name}) for each in term.get("matchFields", [])]
        return bool(wanted) and all(holds(*each) for each in wanted)

    return any(matches(term) for term in required["nodeSelectorTerms"])


def demanded(policy: LauncherPolicy, where: Placement, node: Node) -> bool:
    """Whether a node is one that the installation and the migration allow, whatever the VM wants."""
    name, own = node.metadata.name, node.metadata.labels
    wanted = (*policy.node_selector.items(), *where.selector)
    return where.node in (None, name) and where.avoid != name and all(own.get(key) == value for key, value in wanted)


def fits(spec: VMSpec, policy: LauncherPolicy) -> bool:
    """Whether a VM contradicts its installation in no field."""
    try:
        placement.check(spec, policy)
    except PlacementError:
        return False
    return True


@given(specs, policies, placements, nodes)
def test_a_pod_may_run_exactly_where_vm_installation_and_migration_allow_it(
    spec: VMSpec, policy: LauncherPolicy, where: Placement, node: Node
) -> None:
    """No term of the VM's loosens a demand, and no demand widens a term of the VM's."""
    alone = placement.fields(spec, LauncherPolicy(node_selector={}), ANYWHERE)
    merged = placement.fields(spec, policy, where)
    if fits(spec, policy):
        assert allows(merged, node) == (allows(alone, node) and demanded(policy, where, node))
    else:
        assert not (allows(alone, node) and demanded(policy, where, node)), "only what no node fulfils is refused"


@given(specs.filter(lambda spec: fits(spec, POLICY)), placements, nodes)
def test_preflight_excludes_exactly_the_nodes_that_the_scheduler_excludes(
    spec: VMSpec, where: Placement, node: Node
) -> None:
    """By selector, affinity, cordon and taints."""
    pod = placement.fields(spec, POLICY, where)
    cordon = Taint(key="node.kubernetes.io/unschedulable", effect="NoSchedule")
    taints = [*node.spec.taints, *([cordon] if node.spec.unschedulable else [])]

    def tolerated(taint: Taint) -> bool:
        return taint.effect == "PreferNoSchedule" or any(
            each.get("key", taint.key) == taint.key
            and each.get("effect", taint.effect) == taint.effect
            and (each.get("operator", "Equal") == "Exists" or each.get("value", "") == taint.value)
            for each in ({key: value for key, value in one.items() if value != ""} for one in pod["tolerations"])
        )

    expected = allows(pod, node) and all(tolerated(taint) for taint in taints)
    assert (capacity.obstacle(node, placement.requirements(spec, POLICY), where) is None) == expected


def test_what_a_vm_prefers_is_kept_beside_what_a_record_prefers() -> None:
    """Preferences add up."""
    own = msgspec.convert(
        {
            "nodeAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {"weight": 1, "preference": {"matchExpressions": [{"key": "zone", "operator": "Exists"}]}}
                ]
            },
            "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "zone"}]},
        },
        Affinity,
    )
    found = placement.fields(VMSpec(affinity=own), POLICY, Placement(rather="n1", rather_not="n2"))["affinity"]
    preferred = found["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert [each["weight"] for each in preferred] == [1, 100, 100]
    assert found["podAntiAffinity"] == own.pod_anti_affinity


def test_the_fields_that_only_the_scheduler_reads_reach_the_pod_unchanged() -> None:
    """Spread, scheduler and priority."""
    spread = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
    spec = VMSpec(scheduler_name="packing", topology_spread_constraints=(spread,), priority_class_name="high")
    found = placement.fields(spec, POLICY, ANYWHERE)
    assert found["topologySpreadConstraints"] == [spread]
    assert (found["schedulerName"], found["priorityClassName"]) == ("packing", "high")


def test_a_vm_without_placement_gets_the_installations_alone() -> None:
    """No empty field is written."""
    assert placement.fields(VMSpec(), POLICY, ANYWHERE) == {
        "nodeSelector": {"type": "kwok"},
        "tolerations": [{"key": FAKE_TAINT.key, "operator": "Exists", "effect": "NoSchedule"}],
    }


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ({"nodeSelector": {"type": "metal"}}, "spec.nodeSelector has type=metal"),
        (
            {
                "affinity": {
                    "nodeAffinity": {
                        "requiredDuringSchedulingIgnoredDuringExecution": {
                            "nodeSelectorTerms": [
                                {"matchExpressions": [{"key": "type", "operator": "NotIn", "values": ["kwok"]}]}
                            ]
                        }
                    }
                }
            },
            "spec.affinity requires type NotIn kwok",
        ),
    ],
)
def test_a_field_that_contradicts_the_installation_is_named(spec: dict[str, Any], named: str) -> None:
    """With the value that the installation demands."""
    with pytest.raises(PlacementError, match=f"{named}.*nodes with type=kwok"):
        placement.check(msgspec.convert(spec, VMSpec), POLICY)


def test_an_edited_field_is_told_from_an_unchanged_one() -> None:
    """By its JSON name; the order of keys does not matter."""
    before = VMSpec(node_selector={"a": "1", "b": "2"}, scheduler_name="packing")
    recorded = placement.checksums(before)
    assert placement.checksums(VMSpec(node_selector={"b": "2", "a": "1"}, scheduler_name="packing")) == recorded
    after = VMSpec(node_selector={"a": "1"}, priority_class_name="high")
    assert placement.differing(recorded, placement.checksums(after)) == (
        "nodeSelector",
        "priorityClassName",
        "schedulerName",
    )
    assert placement.checksums(VMSpec()) == ""


@pytest.mark.parametrize(("incarnation", "expected"), [(0, Placement(rather="n1")), (1, ANYWHERE)])
def test_only_a_vms_first_pod_prefers_its_start_node(incarnation: int, expected: Placement) -> None:
    """A later one is the scheduler's."""
    machine = vm(annotations={names.START_NODE: "n1"})
    assert placement.at_start(machine, incarnation, rather_not=None) == expected


def test_a_required_start_node_is_the_only_one() -> None:
    """As `vmsim load --exact-placement` writes it."""
    machine = vm(annotations={names.REQUIRED_START_NODE: "n1"})
    assert placement.at_start(machine, 0, rather_not=None) == Placement(node="n1")


def test_an_edit_of_a_placement_field_requires_a_restart_and_names_the_field() -> None:
    """The pod stays where it is."""
    before = vm()
    after = msgspec.structs.replace(before, spec=msgspec.structs.replace(before.spec, scheduler_name="packing"))
    found = condition(published(plan_for(after, running(before))), "RestartRequired")
    assert (found.status, found.reason) == ("True", "PlacementChanged")
    assert "has the schedulerName of an earlier spec" in found.message


def test_a_vm_that_contradicts_its_installation_gets_no_pod() -> None:
    """Its condition says what does."""
    machine = vm()
    machine = msgspec.structs.replace(
        machine, spec=msgspec.structs.replace(machine.spec, node_selector={"type": "metal"})
    )
    plan = plan_for(machine)
    assert not plan.wants_pod
    found = published(plan)
    assert (found.phase, condition(found, "InvalidSpec").reason) == ("Failed", "ContradictsInstallation")
    assert "type=metal" in condition(found, "InvalidSpec").message


def test_a_running_vm_whose_spec_comes_to_contradict_its_installation_keeps_its_pod() -> None:
    """The contradiction is told; it holds from the next start."""
    before = vm()
    after = msgspec.structs.replace(before, spec=msgspec.structs.replace(before.spec, node_selector={"type": "metal"}))
    plan = plan_for(after, running(before))
    assert all(isinstance(action, WriteStatus) for action in plan.actions)
    assert published(plan).phase == "Running"
    assert condition(published(plan), "InvalidSpec").status == "True"


def test_annotations_that_are_left_out_are_a_condition() -> None:
    """It names their keys."""
    machine = vm(annotations={"big": "x" * 65536})
    found = condition(published(plan_for(machine, running(machine))), "AnnotationsLeftOut")
    assert (found.reason, found.message) == (
        "TooLarge",
        "A pod takes over 64 KiB of annotations at most; left out: big",
    )


def test_a_hint_is_patched_onto_the_running_pod_and_any_other_edit_is_not() -> None:
    """Nor does either require a restart."""
    before = vm(annotations={"app": "a"})
    after = vm(
        annotations={"app": "b", HINTS[0]: "true"}, labels={"app": "b"}, status=settled(before, running(before)).status
    )
    plan = plan_for(after, running(before))
    assert [action for action in plan.actions if not isinstance(action, WriteStatus)] == [
        PatchPod(running(before), {}, {HINTS[0]: "true"})
    ]
    assert not [action for action in plan.actions if isinstance(action, WriteStatus)]


def test_a_start_node_that_is_no_name_is_told_and_not_used() -> None:
    """A preference keeps no VM from its start."""
    machine = vm(annotations={names.START_NODE: "Node_1"})
    assert placement.at_start(machine, 0, rather_not=None) == ANYWHERE
    found = condition(published(plan_for(machine, running(machine))), "InvalidStartNode")
    assert "'Node_1'" in found.message
