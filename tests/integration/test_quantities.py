"""Our parsed quantities against the API server's canonical forms."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from controller.kube.quantity import QuantityError, parse_quantity
from tests.integration.tools import Kubectl

DIGITS = st.text("0123456789", min_size=1, max_size=22)
NUMBERS = st.one_of(DIGITS, DIGITS.map("{}.".format), DIGITS.map(".{}".format), st.tuples(DIGITS, DIGITS).map(".".join))
EXPONENTS = st.builds("{}{}{}".format, st.sampled_from("eE"), st.sampled_from(["", "+", "-"]), st.integers(0, 30))
SUFFIXES = st.one_of(st.sampled_from(["", *"numkMGTPE", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"]), EXPONENTS)
QUANTITIES = st.builds("{}{}{}".format, st.sampled_from(["", "+"]), NUMBERS, SUFFIXES)


def pod(quantities: list[str]) -> str:
    """Return an object with any number of quantities, none of which it rounds: a pod's volumes."""
    volumes = [{"name": f"q{number}", "emptyDir": {"sizeLimit": text}} for number, text in enumerate(quantities)]
    spec = {"containers": [{"name": "c", "image": "none"}], "volumes": volumes}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "quantities"}, "spec": spec})


def canonical(kubectl: Kubectl, quantities: list[str]) -> list[str]:
    """Return the API server's canonical form of each, by a dry run."""
    text = kubectl("create", "--dry-run=server", "--validate=ignore", "-o", "json", "-f", "-", stdin=pod(quantities))
    found = {volume["name"]: volume.get("emptyDir") for volume in json.loads(text)["spec"]["volumes"]}
    return [found[f"q{number}"]["sizeLimit"] for number in range(len(quantities))]


@settings(
    max_examples=6,
    deadline=None,
    database=None,
    derandomize=True,
    phases=(Phase.generate,),
    suppress_health_check=list(HealthCheck),
)
@given(st.lists(QUANTITIES, min_size=300, max_size=300))
def test_every_quantity_equals_its_canonical_form(kubectl: Kubectl, quantities: list[str]) -> None:
    """Digits, suffix and exponent, rounding included."""
    different = [
        (written, canonical_form)
        for written, canonical_form in zip(quantities, canonical(kubectl, quantities), strict=True)
        if parse_quantity(written) != parse_quantity(canonical_form)
    ]
    assert different == []


def test_a_negative_quantity_equals_its_canonical_form(kubectl: Kubectl) -> None:
    """A LimitRange accepts it, and rounds to thousandths, away from zero."""
    written = {"a": "-1.5Ki", "b": "-.5", "c": "-12E", "d": "-1e3", "e": "-100u", "f": "-9Ei"}
    most = {f"example.com/{name}": text for name, text in written.items()}
    spec = {"limits": [{"type": "Container", "max": most}]}
    manifest = {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "negative"}, "spec": spec}
    text = kubectl("create", "--dry-run=server", "-o", "json", "-f", "-", stdin=json.dumps(manifest))
    stored = {name: parse_quantity(quantity) for name, quantity in json.loads(text)["spec"]["limits"][0]["max"].items()}
    rounded = {**written, "e": "-1m"}
    assert stored == {f"example.com/{name}": parse_quantity(text) for name, text in rounded.items()}


@pytest.mark.parametrize(
    "text", ["abc", "1 Gi", "1K", "1ki", "1..2", "1e", "1e+", "1e1.5", "1e3k", "--1", "NaN", "1_0"]
)
def test_a_text_that_we_refuse_is_refused_by_the_server(kubectl: Kubectl, text: str) -> None:
    """But a text without a number, such as `k`, which it reads as 0."""
    with pytest.raises(QuantityError):
        parse_quantity(text)
    refused = kubectl.refused("create", "--dry-run=server", "--validate=ignore", "-f", "-", stdin=pod([text]))
    assert "quantit" in refused
