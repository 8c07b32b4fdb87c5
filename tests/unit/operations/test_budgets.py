"""The budgets that block every eviction of a VM's pod."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from controller.kube.meta import ObjectMeta
from controller.operations.budgets import Budget, Requirement, Selector, selects, unanswerable
from tests.unit.cli.builders import pod


def budget(namespace: str = "default", **spec: Any) -> Budget:
    """Return a budget as the API server tells it."""
    spec.setdefault("selector", {})
    return msgspec.convert({"metadata": {"name": "vms", "namespace": namespace}, "spec": spec}, Budget)


@pytest.mark.parametrize(
    ("spec", "demand"),
    [
        ({"maxUnavailable": 1}, "maxUnavailable 1"),
        ({"maxUnavailable": "10%"}, "maxUnavailable 10%"),
        ({"minAvailable": "50%"}, "minAvailable 50%"),
    ],
)
def test_a_budget_that_needs_a_scale_is_named(spec: dict[str, Any], demand: str) -> None:
    """A VM has none, so it allows nothing for ever."""
    (line,) = unanswerable([budget(**spec)], [pod("a", "n1")])
    assert line.startswith(f"PodDisruptionBudget default/vms has {demand}")
    assert "integer minAvailable" in line


def test_a_budget_with_an_integer_minimum_is_none_of_them() -> None:
    """It counts pods."""
    assert unanswerable([budget(minAvailable=2)], [pod("a", "n1")]) == []


def test_a_budget_of_another_namespace_is_none_of_them() -> None:
    """It covers the pods of its own."""
    assert unanswerable([budget("other", maxUnavailable=1)], [pod("a", "n1")]) == []


def test_a_budget_that_covers_no_pod_of_the_node_is_not_named() -> None:
    """It is none of this drain's business."""
    chosen = {"matchLabels": {"app": "web"}}
    assert unanswerable([budget(maxUnavailable=1, selector=chosen)], [pod("a", "n1")]) == []


@pytest.mark.parametrize(
    ("operator", "values", "taken"),
    [
        ("In", ("web", "db"), True),
        ("In", ("db",), False),
        ("NotIn", ("db",), True),
        ("NotIn", ("web",), False),
        ("Exists", (), True),
        ("DoesNotExist", (), False),
        ("Gt", ("1",), False),
    ],
)
def test_a_selectors_expressions_are_read_as_kubernetes_does(
    *, operator: str, values: tuple[str, ...], taken: bool
) -> None:
    """An unknown operator matches nothing."""
    selector = Selector(match_expressions=(Requirement(key="app", operator=operator, values=values),))
    assert selects(selector, {"app": "web"}) is taken


def test_an_absent_selector_takes_nothing_and_an_empty_one_everything() -> None:
    """As policy/v1 has it."""
    assert not selects(None, {})
    assert selects(Selector(), {})


def test_an_expression_about_a_label_that_is_not_there() -> None:
    """Not to be in a list is true of what is absent."""
    absent = {"NotIn": True, "DoesNotExist": True, "In": False, "Exists": False}
    for operator, taken in absent.items():
        selector = Selector(match_expressions=(Requirement(key="app", operator=operator, values=("web",)),))
        assert selects(selector, {}) is taken


def test_metadata_is_all_that_a_budget_needs() -> None:
    """One without a spec asks for nothing."""
    assert unanswerable([Budget(metadata=ObjectMeta(name="b", namespace="default"))], [pod("a", "n1")]) == []
