"""The scheduler's rules about one node, as far as they concern that node alone: node affinity and taints.

Guarantees: pure, and equal to the scheduler's plugins NodeAffinity, TaintToleration and NodeUnschedulable. A term
without requirements matches no node. A requirement or toleration with an operator of a later release is left to the
scheduler: it counts as fulfilled.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from controller.kube.kinds import Node, Taint
from controller.kube.scheduling import NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Toleration

UNSCHEDULABLE: Final = Taint(key="node.kubernetes.io/unschedulable", effect="NoSchedule")
"""The taint that the scheduler assumes on a cordoned node; a pod that tolerates it may be placed there."""
_REPELLING: Final = ("NoSchedule", "NoExecute")
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,19}", re.ASCII)


def repels(taint: Taint, tolerations: Iterable[Toleration]) -> bool:
    """Whether a taint keeps a pod with these tolerations off a node."""
    return taint.effect in _REPELLING and not any(tolerates(toleration, taint) for toleration in tolerations)


def tolerates(toleration: Toleration, taint: Taint) -> bool:
    """Whether a toleration tolerates a taint: corev1.Toleration.ToleratesTaint."""
    if toleration.effect not in ("", taint.effect) or toleration.key not in ("", taint.key):
        return False
    if toleration.operator in ("", "Equal"):
        return toleration.value == taint.value
    return True


def selects(selector: NodeSelector | None, node: Node) -> bool:
    """Whether a required node selector matches a node; None matches every node."""
    return selector is None or any(_matches(term, node) for term in selector.node_selector_terms)


def _matches(term: NodeSelectorTerm, node: Node) -> bool:
    if not term.match_expressions and not term.match_fields:
        return False
    fields = {"metadata.name": node.metadata.name}
    return all(holds(wanted, node.metadata.labels) for wanted in term.match_expressions) and all(
        holds(wanted, fields) for wanted in term.match_fields
    )


def holds(wanted: NodeSelectorRequirement, labels: Mapping[str, str]) -> bool:
    """Whether labels fulfil a requirement."""
    found = labels.get(wanted.key)
    match wanted.operator:
        case "In" | "NotIn":
            held = (found in wanted.values) is (wanted.operator == "In")
        case "Exists" | "DoesNotExist":
            held = (found is not None) is (wanted.operator == "Exists")
        case "Gt":
            held = _compared(found, wanted.values) > 0
        case "Lt":
            held = _compared(found, wanted.values) < 0
        case _:
            held = True
    return held


def _compared(label: str | None, values: tuple[str, ...]) -> int:
    """Compare a label with the one value of `Gt` and `Lt`, as Go's int64: 1, -1, or 0 if one is none."""
    texts = (label or "", *values)
    if len(texts) != 2 or not all(_INTEGER.fullmatch(text) and -(2**63) <= int(text) < 2**63 for text in texts):  # noqa: PLR2004 - two sides
        return 0
    left, right = map(int, texts)
    return (left > right) - (left < right)
