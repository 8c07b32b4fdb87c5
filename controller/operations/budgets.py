"""PodDisruptionBudgets that never allow the eviction of a VM's pod.

The disruption controller resolves `maxUnavailable` and percentages by the scale subresource of a pod's owner. A
VirtualMachine has none, so such a budget never allows a disruption (kubernetes/kubernetes, pkg/controller/disruption,
getExpectedPodCount). Guarantees: pure; a selector with an unknown operator matches nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from controller.kube.kinds import Pod
from controller.kube.meta import ObjectMeta, Value
from controller.kube.resources import Resource


class Requirement(Value, frozen=True):
    """metav1.LabelSelectorRequirement."""

    key: str = ""
    operator: str = ""
    values: tuple[str, ...] = ()


class Selector(Value, frozen=True):
    """metav1.LabelSelector; an empty one selects every pod of its namespace."""

    match_labels: dict[str, str] = msgspec.field(default_factory=dict)
    match_expressions: tuple[Requirement, ...] = ()


class BudgetSpec(Value, frozen=True):
    """policyv1.PodDisruptionBudgetSpec: the limits are integers, or percentages as strings."""

    min_available: Any = None
    max_unavailable: Any = None
    selector: Selector | None = None


class Budget(Value, frozen=True):
    """policyv1.PodDisruptionBudget."""

    metadata: ObjectMeta
    spec: BudgetSpec = BudgetSpec()


BUDGETS: Final = Resource("policy", "v1", "poddisruptionbudgets", Budget)


def unanswerable(budgets: Iterable[Budget], pods: Iterable[Pod]) -> list[str]:
    """Return a line, with the fix, for each budget that covers one of these pods and never allows its eviction."""
    covered = list(pods)
    return [
        f"PodDisruptionBudget {budget.metadata.key} has {demand}, which needs an owner with a scale subresource. "
        "A VM has none, so the budget allows no eviction and kubectl drain waits for ever; migrations go on. "
        "Give the budget an integer minAvailable"
        for budget in budgets
        if (demand := _demand(budget.spec)) is not None
        and any(
            pod.metadata.namespace == budget.metadata.namespace and selects(budget.spec.selector, pod.metadata.labels)
            for pod in covered
        )
    ]


def _demand(spec: BudgetSpec) -> str | None:
    if spec.max_unavailable is not None:
        return f"maxUnavailable {spec.max_unavailable}"
    return f"minAvailable {spec.min_available}" if isinstance(spec.min_available, str) else None


def selects(selector: Selector | None, labels: Mapping[str, str]) -> bool:
    """Whether a selector matches an object with these labels; an absent selector matches none."""
    return (
        selector is not None
        and all(labels.get(key) == value for key, value in selector.match_labels.items())
        and all(_meets(requirement, labels) for requirement in selector.match_expressions)
    )


def _meets(requirement: Requirement, labels: Mapping[str, str]) -> bool:
    value = labels.get(requirement.key)
    match requirement.operator:
        case "In":
            return value is not None and value in requirement.values
        case "NotIn":
            return value is None or value not in requirement.values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
    return False
