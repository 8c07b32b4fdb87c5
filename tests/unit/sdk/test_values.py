"""The arguments that callers may pass, and the values that the resources get."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.ratio import CPU_MAX, MAX_LENGTH, MEMORY_MAX, parse_ratio
from controller.kube import codec
from controller.operations.errors import InvalidValueError
from controller.sdk import _values


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.1, "0.1"),
        (0.1 + 0.2, "0.3"),
        (0.15, "0.15"),
        (1, "1"),
        (1.0, "1"),
        (0, "0"),
        (-0.0, "0"),
        (1e-5, "0.00001"),
        (1e-300, "0"),
        (1 / 3, "0.333333333"),
        (1000, "1000"),
        (Decimal("0.20"), "0.2"),
        (Decimal("1e-3"), "0.001"),
        (Fraction(1, 4), "0.25"),
        ("0.20", "0.20"),
        ("0", "0"),
    ],
    ids=repr,
)
def test_a_number_becomes_the_decimal_that_the_caller_wrote(number: Any, text: str) -> None:
    """A string is not changed."""
    assert _values.cpu(number) == text


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        -0.1,
        1000.1,
        10**400,
        Decimal("NaN"),
        Decimal("sNaN"),
        True,
        None,
        [],
        "1e3",
        "-1",
        "",
    ],
    ids=lambda value: repr(value)[:12],
)
def test_an_invalid_share_is_refused_by_name(value: Any) -> None:
    """The error says what is valid."""
    with pytest.raises(InvalidValueError, match=r"^cpu_consumption is .*want a .* from 0 to 1000"):
        _values.cpu(value, "cpu_consumption")


def test_memory_is_at_most_the_whole_node() -> None:
    """CPU may be more."""
    assert _values.cpu(1.5) == "1.5"
    with pytest.raises(InvalidValueError, match=r"memory is 1\.5: want a number from 0 to 1, such as 0\.15"):
        _values.memory(1.5)


@given(st.floats(min_value=0, max_value=1000))
def test_every_float_within_bounds_is_a_ratio(number: float) -> None:
    """It differs by less than the places that are kept."""
    text = _values.cpu(number)
    assert len(text) <= MAX_LENGTH
    assert abs(parse_ratio(text, field="cpu", maximum=CPU_MAX) - Decimal(number)) <= Decimal("1e-9")


@given(st.decimals(min_value=0, max_value=1, allow_nan=False))
def test_every_decimal_within_bounds_is_a_ratio(number: Decimal) -> None:
    """With any number of places."""
    assert abs(parse_ratio(_values.memory(number), field="memory", maximum=MEMORY_MAX) - number) <= Decimal("1e-9")


@pytest.mark.parametrize("name", ["a", "vm-1", "0", "a" * 43])
def test_a_dns_label_names_a_vm(name: str) -> None:
    """It becomes part of a host name."""
    assert _values.vm_name(name) == name


@pytest.mark.parametrize("name", ["", "a" * 44, "VM-1", "-a", "a-", "a.b", "a_b", "a\n", "ä", None, 1])
def test_a_name_that_is_no_dns_label_is_refused(name: Any) -> None:
    """The API server would refuse it, later and in more words."""
    with pytest.raises(InvalidValueError, match=r"^id is .*: want 1 to 43 characters of a-z, 0-9 and -"):
        _values.vm_name(name, "id")


def test_a_namespace_is_a_dns_label() -> None:
    """Of up to 63 characters; any other text must not become part of a URL."""
    assert _values.namespace("a" * 63) == "a" * 63
    with pytest.raises(InvalidValueError, match=r"^namespace is 'a/b'"):
        _values.namespace("a/b")


@pytest.mark.parametrize("name", ["", "a..b", "-a", "a.", "A", "a/b", "a" * 254])
def test_an_invalid_node_name_is_refused(name: str) -> None:
    """Dots are allowed between labels."""
    assert _values.node_name("kwok-node-1.example") == "kwok-node-1.example"
    with pytest.raises(InvalidValueError, match=r"^target_node is "):
        _values.node_name(name, "target_node")


@pytest.mark.parametrize("phase", ["running", "", "Ready", None])
def test_an_unknown_phase_is_refused(phase: Any) -> None:
    """The error lists the phases."""
    with pytest.raises(InvalidValueError, match="want one of Pending, Scheduling, Scheduled, Running, Failed, Stopped"):
        _values.phase(phase)


@pytest.mark.parametrize("strategy", ["live", "", "Post-copy", 1, True])
def test_another_strategy_is_refused_with_those_there_are(strategy: Any) -> None:
    """None is the controller's default."""
    assert (_values.strategy(None), _values.strategy("Live")) == (None, "Live")
    with pytest.raises(InvalidValueError, match=r"strategy is .*: want Recreate or Live, or None"):
        _values.strategy(strategy)


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), None, "5", True])
def test_a_timeout_that_is_infinite_or_invalid_is_refused(seconds: Any) -> None:
    """A call always ends."""
    with pytest.raises(InvalidValueError, match=r"^timeout is .*: want a number of seconds from 0 up"):
        _values.seconds(seconds)


@pytest.mark.parametrize("amount", ["0", "-1", "many", "", 0, -2, None])
def test_a_capacity_that_is_not_above_zero_is_refused(amount: Any) -> None:
    """Of a node."""
    assert _values.quantity(16, "cpu") == "16"
    with pytest.raises(InvalidValueError, match=r"^cpu is .*: want a quantity above 0, such as 32, 500m or 256Gi"):
        _values.quantity(amount, "cpu")


def test_any_mapping_is_a_placement() -> None:
    """It becomes plain dicts, which can be encoded."""
    frozen = MappingProxyType({"nodeSelector": MappingProxyType({"zone": "a"})})
    assert codec.encode(_values.placement(frozen)) == b'{"nodeSelector":{"zone":"a"}}'


@pytest.mark.parametrize(
    "call",
    [
        lambda: _values.annotation_map({"note": "\ud800"}),
        lambda: _values.placement({"schedulerName": "\ud800"}),
        lambda: _values.placement({"nodeSelector": {"\ud800": "a"}}),
    ],
    ids=["annotation", "value", "key"],
)
def test_text_that_cannot_be_encoded_is_refused(call: Callable[[], object]) -> None:
    """A lone surrogate."""
    with pytest.raises(InvalidValueError):
        call()
