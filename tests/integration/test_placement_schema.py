"""The VM's placement fields have the API server's own schema: nothing is added to a VM, and no typo passes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final
from uuid import uuid4

import pytest

from controller.controlplane.plane import ControlPlane
from hack import placement_schema
from tests.integration.tools import Kubectl, vm_manifest

RESOURCES: Final = {"cpu": "0.10", "memory": "0.15"}
SELECTOR: Final = {
    "matchLabels": {"app": "db"},
    "matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["a", "b"]}],
}
NODE_TERM: Final = {
    "matchExpressions": [{"key": "zone", "operator": "In", "values": ["a", "b"]}, {"key": "gpu", "operator": "Exists"}],
    "matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": ["node-9"]}],
}
POD_TERM: Final = {
    "topologyKey": "kubernetes.io/hostname",
    "labelSelector": SELECTOR,
    "namespaces": ["default"],
    "namespaceSelector": SELECTOR,
    "matchLabelKeys": ["pod-template-hash"],
    "mismatchLabelKeys": ["tenant"],
}
POD_AFFINITY: Final = {
    "requiredDuringSchedulingIgnoredDuringExecution": [POD_TERM],
    "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": POD_TERM}],
}
PLACEMENT: Final[dict[str, Any]] = {
    "schedulerName": "second-scheduler",
    "nodeSelector": {"kubernetes.io/arch": "amd64"},
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [NODE_TERM]},
            "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": NODE_TERM}],
        },
        "podAffinity": POD_AFFINITY,
        "podAntiAffinity": POD_AFFINITY,
    },
    "tolerations": [
        {"key": "dedicated", "operator": "Equal", "value": "db", "effect": "NoExecute", "tolerationSeconds": 60},
        {"operator": "Exists"},
    ],
    "topologySpreadConstraints": [
        {
            "maxSkew": 1,
            "topologyKey": "zone",
            "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": SELECTOR,
            "matchLabelKeys": ["app"],
            "minDomains": 2,
            "nodeAffinityPolicy": "Honor",
            "nodeTaintsPolicy": "Ignore",
        },
        {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"},
    ],
    "priorityClassName": "system-node-critical",
}
"""Every field that the schema has."""


@pytest.fixture(scope="module", autouse=True)
def _no_refused_vm_exists(kubectl: Kubectl) -> Iterator[None]:
    """Check, once for all tests of this module, that no refused VM exists."""
    yield
    names = kubectl("get", "vm", "-o", "name").split()
    assert not [name for name in names if "/refused-" in name]


def refusal(kubectl: Kubectl, placement: Any, *options: str) -> str:
    """Try to create a VM; return the refusal."""
    manifest = vm_manifest(f"refused-{uuid4().hex[:8]}", {"resources": RESOURCES, **placement})
    return kubectl.refused("create", *options, "-f", "-", stdin=json.dumps(manifest))


def node_affinity(requirement: Any) -> Any:
    """Return an affinity that requires this of a node's labels."""
    terms = [{"matchExpressions": [requirement]}]
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}


def spread(**changes: Any) -> Any:
    """Return a spec's spread constraint with other fields."""
    constraint = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
    return {"topologySpreadConstraints": [{**constraint, **changes}]}


def unused(schema: Any, value: Any, at: str = "") -> Iterator[str]:
    """Yield the path of every field of a schema that a value has not; of a list, the first element counts."""
    if "items" in schema:
        yield from unused(schema["items"], value[0], f"{at}[0]")
    for name, below in schema.get("properties", {}).items():
        if name in value:
            yield from unused(below, value[name], f"{at}.{name}")
        else:
            yield f"{at}.{name}"


def test_the_crd_has_the_schema_of_this_api_server(plane: ControlPlane) -> None:
    """If this fails, the control plane's version has changed: `make manifests` writes the CRD again."""
    document = placement_schema.fetched(plane.kubectl, plane.kubeconfig)
    committed = placement_schema.CRD.read_text(encoding="utf-8")
    assert (
        placement_schema.written(committed, placement_schema.block(placement_schema.placement(document))) == committed
    )


def test_a_vm_gets_no_field_that_it_was_not_given(kubectl: Kubectl) -> None:
    """Each field of the schema is used; the server stores them as they are, and running alone has a default."""
    name = f"placed-{uuid4().hex[:8]}"
    schema = kubectl.json("get", "crd", "virtualmachines.simulation.node-classifier.io")
    spec = schema["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    assert list(unused({"properties": {name: spec[name] for name in placement_schema.FIELDS}}, PLACEMENT)) == []
    wanted = {"resources": RESOURCES, "running": False, **PLACEMENT}
    kubectl("create", "-f", "-", stdin=json.dumps(vm_manifest(name, wanted)))
    try:
        assert kubectl.json("get", "vm", name)["spec"] == wanted
    finally:
        kubectl("delete", "vm", name, "--wait=false")


def test_a_vm_without_placement_has_none(kubectl: Kubectl) -> None:
    """Not even an empty one."""
    manifest = json.dumps(vm_manifest("plain", {"resources": RESOURCES}))
    vm = json.loads(kubectl("create", "--dry-run=server", "-f", "-", "-o", "json", stdin=manifest))
    assert vm["spec"] == {"resources": RESOURCES, "running": True}


@pytest.mark.parametrize(
    ("placement", "field"),
    [
        ({"nodeselector": {}}, "spec.nodeselector"),
        ({"tolerations": [{"operatr": "Exists"}]}, "spec.tolerations[0].operatr"),
        ({"affinity": {"nodeAfinity": {}}}, "spec.affinity.nodeAfinity"),
        (spread(labelselector={}), "spec.topologySpreadConstraints[0].labelselector"),
    ],
)
def test_a_misspelt_field_is_refused(kubectl: Kubectl, placement: Any, field: str) -> None:
    """By kubectl's strict validation, its default, with the path of the field."""
    assert f'unknown field "{field}"' in refusal(kubectl, placement, "--validate=strict")


@pytest.mark.parametrize(
    ("placement", "field", "value"),
    [
        ({"tolerations": [{"operator": "Exist"}]}, "tolerations[0].operator", "Exist"),
        ({"tolerations": [{"operator": "Exists", "effect": "NoSchedul"}]}, "tolerations[0].effect", "NoSchedul"),
        (spread(whenUnsatisfiable="Never"), "topologySpreadConstraints[0].whenUnsatisfiable", "Never"),
        (spread(nodeTaintsPolicy="honor"), "topologySpreadConstraints[0].nodeTaintsPolicy", "honor"),
        (
            {"affinity": node_affinity({"key": "zone", "operator": "in", "values": ["a"]})},
            "nodeSelectorTerms[0].matchExpressions[0].operator",
            "in",
        ),
        (
            spread(labelSelector={"matchExpressions": [{"key": "app", "operator": "Gt", "values": ["1"]}]}),
            "topologySpreadConstraints[0].labelSelector.matchExpressions[0].operator",
            "Gt",
        ),
    ],
)
def test_a_misspelt_word_is_refused(kubectl: Kubectl, placement: Any, field: str, value: str) -> None:
    """The message names the field and what it may be; no client needs to validate."""
    message = refusal(kubectl, placement, "--validate=false")
    assert f'{field}: Unsupported value: "{value}": supported values: ' in message


@pytest.mark.parametrize(
    ("placement", "words"),
    [
        ({"schedulerName": "x" * 254}, "spec.schedulerName: Too long: may not be more than 253 bytes"),
        ({"priorityClassName": "x" * 254}, "spec.priorityClassName: Too long: may not be more than 253 bytes"),
        ({"nodeSelector": {"zone": 1}}, "spec.nodeSelector.zone in body must be of type string"),
        (
            {
                "affinity": {
                    "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}
                }
            },
            "nodeSelectorTerms in body should have at least 1 items",
        ),
        ({"affinity": node_affinity({"operator": "Exists"})}, "matchExpressions[0].key: Required value"),
        (spread(maxSkew=0), "maxSkew in body should be greater than or equal to 1"),
        (spread(minDomains=0), "minDomains in body should be greater than or equal to 1"),
        (spread(topologyKey=""), "topologyKey in body should be at least 1 chars long"),
        ({"topologySpreadConstraints": spread()["topologySpreadConstraints"] * 2}, "[1]: Duplicate value"),
        *(
            (
                {
                    "affinity": {
                        "nodeAffinity": {
                            "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": weight, "preference": {}}]
                        }
                    }
                },
                f"weight in body should be {bound}",
            )
            for weight, bound in ((0, "greater than or equal to 1"), (101, "less than or equal to 100"))
        ),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_what_no_pod_may_have_is_refused(kubectl: Kubectl, placement: Any, words: str) -> None:
    """The API server's bounds for pods are checked when the VM is created, not when its pod is."""
    assert words in refusal(kubectl, placement)


def test_explain_shows_kubernetes_words(kubectl: Kubectl) -> None:
    """Down to the last field, with its values."""
    text = kubectl("explain", "vm.spec.topologySpreadConstraints.whenUnsatisfiable")
    assert re.search(r"^ENUM:\n +DoNotSchedule\n +ScheduleAnyway$", text, re.MULTILINE)
    assert "WhenUnsatisfiable indicates how to deal with a pod if it doesn't satisfy the" in text
