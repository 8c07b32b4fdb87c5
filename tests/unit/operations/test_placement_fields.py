"""The flaws of placement fields, by the CRD's schema."""

from __future__ import annotations

from typing import Any

import pytest

from controller.operations.placement_schema import FIELDS, flaws

SPREAD = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}


def test_fields_without_a_flaw_have_none() -> None:
    """A field that is None counts as absent."""
    fields: dict[str, Any] = dict.fromkeys(FIELDS)
    assert list(flaws(fields)) == []
    fields["tolerations"] = [{"key": "a", "operator": "Exists", "tolerationSeconds": 5, "value": None}]
    fields["topologySpreadConstraints"] = [{**SPREAD, "labelSelector": {"matchLabels": {"app": "web"}}}]
    fields["nodeSelector"] = {"any.example.com/key": "value"}
    assert list(flaws(fields)) == []


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"nodeSelektor": {}}, "nodeSelektor: unknown field: did you mean nodeSelector?"),
        ({"zzz": {}}, f"zzz: unknown field: known are {', '.join(FIELDS)}"),
        ({1: {}}, f"[1]: unknown field: known are {', '.join(FIELDS)}"),
        ({"schedulerName": 5}, "schedulerName: want a string, not a number"),
        ({"schedulerName": "s" * 254}, "schedulerName: has 254 characters: want at least 0 and at most 253"),
        ({"nodeSelector": {"a": True}}, "nodeSelector.a: want a string, not a truth value"),
        ({"nodeSelector": {"a": None}}, "nodeSelector.a: want a string, not nothing"),
        (
            {"topologySpreadConstraints": [SPREAD | {"labelSelector": {"matchLabels": {"app": None}}}]},
            "topologySpreadConstraints[0].labelSelector.matchLabels.app: want a string, not nothing",
        ),
        ({"nodeSelector": ["a"]}, "nodeSelector: want a mapping, not a list"),
        ({"tolerations": ({},)}, "tolerations: want a list, not tuple"),
        ({"tolerations": [{"effect": "no"}]}, "tolerations[0].effect: want one of NoExecute, NoSchedule, PreferNo"),
        (
            {"tolerations": [{"tolerationSeconds": True}]},
            "tolerations[0].tolerationSeconds: want a whole number, not a",
        ),
        ({"topologySpreadConstraints": [SPREAD | {"topologyKey": ""}]}, "topologySpreadConstraints[0].topologyKey: is"),
        (
            {"topologySpreadConstraints": [SPREAD | {"maxSkew": 0}]},
            "topologySpreadConstraints[0].maxSkew: want a whole",
        ),
        ({"affinity": {"nodeAffinity": []}}, "affinity.nodeAffinity: want a mapping, not a list"),
        (
            {
                "affinity": {
                    "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}
                }
            },
            "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: want at least one",
        ),
        (
            {"affinity": {"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 101}]}}},
            "affinity.podAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: want a whole",
        ),
    ],
)
def test_a_flaw_is_named_with_its_path(fields: dict[str, Any], words: str) -> None:
    """As the API server would refuse it."""
    assert str(next(flaws(fields))).startswith(words)


def test_every_flaw_is_found() -> None:
    """One hides no other."""
    found = list(flaws({"tolerations": [{"keey": "a"}, 5], "topologySpreadConstraints": [{}]}))
    assert [flaw.message for flaw in found] == [
        "unknown field: did you mean key?",
        "want a mapping, not a number",
        "is required",
        "is required",
        "is required",
    ]


def selecting(operator: str, *values: str, key: str = "zone") -> dict[str, Any]:
    """Return a node affinity of one expression, which is as in any selector."""
    terms = [{"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}]
    required = {"nodeSelectorTerms": terms}
    return {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"nodeSelector": {"zone": "a b"}}, ["want at most 63 letters, digits, -, _ and dots, not 'a b'"]),
        ({"nodeSelector": {"a b": "a"}}, ["is no label: want name or example.com/name"]),
        ({"nodeSelector": {1: "a"}}, ["is no label: want name or example.com/name"]),
        (selecting("In", "a b"), ["want at most 63 letters, digits, -, _ and dots, not 'a b'"]),
        (selecting("Exists", key="a b"), ["want the key of a label: name or example.com/name, not 'a b'"]),
        (selecting("In"), ["In takes at least one value"]),
        (selecting("NotIn"), ["NotIn takes at least one value"]),
        (selecting("Exists", "a"), ["Exists takes no values"]),
        (selecting("DoesNotExist", "a"), ["DoesNotExist takes no values"]),
        (selecting("Gt", "1", "2"), ["Gt takes one value"]),
        (selecting("Lt"), ["Lt takes one value"]),
        (selecting("Lt", "many"), ["want a whole number as a string, not 'many'"]),
        (selecting("In", "", "a"), []),
        (selecting("Gt", "-1"), []),
        (selecting("DoesNotExist"), []),
    ],
)
def test_a_selector_has_labels_and_the_values_that_its_operators_take(fields: dict[str, Any], words: list[str]) -> None:
    """The server would say so only when the pod is created."""
    assert [flaw.message for flaw in flaws(fields)] == words
