"""The manifest of a VM's launcher pod."""

from __future__ import annotations

import json

import pytest

from controller.domain import names
from controller.domain.ratio import ReferenceNode
from controller.domain.vm import launcher
from controller.domain.vm.policy import LauncherPolicy
from controller.kube.scheduling import Toleration
from tests.unit.domain.builders import POLICY, vm


def manifest(policy: LauncherPolicy = POLICY, **changes: object) -> dict[str, object]:
    """The pod of a VM's first incarnation, as the API server gets it."""
    machine = vm(**changes)  # type: ignore[arg-type]
    spec = launcher.requested(machine)
    body = launcher.manifest(machine, 0, spec, launcher.consumption(machine, spec).shares, policy)
    decoded: dict[str, object] = json.loads(json.dumps(body))
    return decoded


def test_requests_come_from_the_spec_and_usage_from_the_annotations() -> None:
    """Requests and usage are independent."""
    body = manifest(annotations={names.CPU_CONSUMPTION: "0.50"})
    assert body["spec"]["containers"][0]["resources"] == {"requests": {"cpu": "4800m", "memory": "54975581388"}}  # type: ignore[index]
    annotations = body["metadata"]["annotations"]  # type: ignore[index]
    assert (annotations[names.CPU_CONSUMPTION], annotations[names.KWOK_USAGE_CPU]) == ("0.50", "16000m")
    assert (annotations[names.MEMORY_CONSUMPTION], annotations[names.REQUESTED_CPU]) == ("0.20", "0.15")


def test_the_reference_node_scales_every_request() -> None:
    """Twice the node, twice the request."""
    policy = LauncherPolicy(reference=ReferenceNode.of(cpu="64", memory="512Gi"))
    requests = manifest(policy)["spec"]["containers"][0]["resources"]["requests"]  # type: ignore[index]
    assert requests["cpu"] == "9600m"


def test_the_owner_reference_does_not_block_the_owners_deletion() -> None:
    """blockOwnerDeletion would need a permission on finalizers."""
    [owner] = manifest()["metadata"]["ownerReferences"]  # type: ignore[index]
    assert owner == {
        "apiVersion": "simulation.node-classifier.io/v1alpha1",
        "kind": "VirtualMachine",
        "name": "vm-1",
        "uid": "uid-1",
        "controller": True,
    }


def test_by_default_only_fake_nodes_are_eligible() -> None:
    """No simulated VM runs on a real node by accident."""
    spec = manifest()["spec"]
    assert spec["nodeSelector"] == {"type": "kwok"}  # type: ignore[index]
    assert spec["tolerations"] == [{"key": "kwok.x-k8s.io/node", "operator": "Exists", "effect": "NoSchedule"}]  # type: ignore[index]


@pytest.mark.parametrize(
    ("toleration", "written"),
    [
        (Toleration("a", "Exists"), {"key": "a", "operator": "Exists"}),
        (Toleration("a", "Equal", "b"), {"key": "a", "operator": "Equal", "value": "b"}),
        (Toleration("a", "Equal", "", "NoExecute"), {"key": "a", "operator": "Equal", "effect": "NoExecute"}),
    ],
)
def test_a_toleration_without_a_value_or_an_effect_matches_any(toleration: Toleration, written: dict[str, str]) -> None:
    """As the API defines it."""
    policy = LauncherPolicy(reference=POLICY.reference, tolerations=(toleration,))
    assert manifest(policy)["spec"]["tolerations"] == [written]  # type: ignore[index]


def test_with_no_selector_any_node_is_eligible() -> None:
    """An empty selector is left out."""
    policy = LauncherPolicy(reference=POLICY.reference, node_selector={})
    assert "nodeSelector" not in manifest(policy)["spec"]  # type: ignore[operator]


def test_the_pod_meets_the_restricted_security_level() -> None:
    """No privilege, no volume, no token."""
    spec = manifest()["spec"]
    [container] = spec["containers"]  # type: ignore[index]
    assert "volumes" not in spec  # type: ignore[operator]
    assert spec["automountServiceAccountToken"] is False  # type: ignore[index]
    assert spec["securityContext"]["runAsNonRoot"] is True  # type: ignore[index]
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}  # type: ignore[index]
    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
