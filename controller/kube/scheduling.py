"""Kubernetes' scheduling vocabulary, as frozen values: node selectors, node affinity, tolerations.

Guarantees: a value encodes to what it was decoded from, except for fields that this release's schema does not have.
Pod affinity is retained as JSON: the scheduler alone can evaluate it.
"""

from __future__ import annotations

from typing import Any

from controller.kube.meta import Value


class NodeSelectorRequirement(Value, frozen=True):
    """corev1.NodeSelectorRequirement. `operator`: In, NotIn, Exists, DoesNotExist, Gt or Lt."""

    key: str = ""
    operator: str = ""
    values: tuple[str, ...] = ()


class NodeSelectorTerm(Value, frozen=True):
    """corev1.NodeSelectorTerm: requirements that all have to hold. A term without any matches no node."""

    match_expressions: tuple[NodeSelectorRequirement, ...] = ()
    match_fields: tuple[NodeSelectorRequirement, ...] = ()


class NodeSelector(Value, frozen=True):
    """corev1.NodeSelector: terms of which one has to match."""

    node_selector_terms: tuple[NodeSelectorTerm, ...] = ()


class PreferredSchedulingTerm(Value, frozen=True):
    """corev1.PreferredSchedulingTerm. `weight`: 1 to 100."""

    weight: int = 0
    preference: NodeSelectorTerm = NodeSelectorTerm()


class NodeAffinity(Value, frozen=True):
    """corev1.NodeAffinity: the nodes that a pod requires, and those that it prefers."""

    required_during_scheduling_ignored_during_execution: NodeSelector | None = None
    preferred_during_scheduling_ignored_during_execution: tuple[PreferredSchedulingTerm, ...] = ()


class Affinity(Value, frozen=True):
    """corev1.Affinity."""

    node_affinity: NodeAffinity | None = None
    pod_affinity: dict[str, Any] | None = None
    pod_anti_affinity: dict[str, Any] | None = None


class Toleration(Value, frozen=True):
    """corev1.Toleration: an empty key with `Exists` tolerates every taint, an empty effect every effect."""

    key: str = ""
    operator: str = ""
    value: str = ""
    effect: str = ""
    toleration_seconds: int | None = None
