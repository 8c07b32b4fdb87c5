"""Names and ratios: pure, exact, bounded."""

from __future__ import annotations

import re
from decimal import ROUND_FLOOR, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain import names
from controller.domain.ratio import CPU_MAX, MEMORY_MAX, RatioError, ReferenceNode, parse_ratio
from controller.kube import naming
from controller.kube.quantity import QuantityError, parse_quantity

REFERENCE = ReferenceNode.of(cpu="32", memory="256Gi")


def test_pod_names_are_the_same_in_every_release() -> None:
    """Other names would give running VMs a second pod."""
    assert names.pod_name("vm-1", "0b8bd1c2-5f0e-4a7c-9d3e-0c1f2a3b4c5d", 3) == "virt-launcher-vm-1-vkzp9"


@given(uid=st.uuids(), incarnation=st.integers(0, 10**6))
def test_a_pods_name_is_a_dns_label(uid: object, incarnation: int) -> None:
    """Also for the longest VM name: it is a hostname."""
    name = names.pod_name("v" * names.MAX_VM_NAME, str(uid), incarnation)
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name)


@given(st.integers(0, 50), st.integers(0, 50))
def test_incarnations_of_a_vm_have_different_pod_names(one: int, other: int) -> None:
    """Among the first fifty of this VM."""
    same = names.pod_name("vm", "uid", one) == names.pod_name("vm", "uid", other)
    assert same == (one == other)


@given(st.text("abz019-.", max_size=251).map(lambda middle: f"a{middle}0"), st.uuids())
def test_a_migrations_name_is_the_same_for_one_seed_and_valid_for_any_vm(vm: str, seed: object) -> None:
    """A create can be repeated; the name ends in a suffix, as a generateName does."""
    name = names.migration_name(vm, str(seed))
    assert name == names.migration_name(vm, str(seed))
    assert name != names.migration_name(vm, f"{seed}-")
    assert re.fullmatch(r"a[-.a-z0-9]{0,56}-[a-z0-9]{5}", name)
    assert not re.search(r"[-.]-[a-z0-9]{5}$", name)


# No regular expression: texts of this length that match one are found too slowly.
@given(st.text("abz019-.", max_size=251).map(lambda middle: f"a{middle}0"), st.integers(1, 253))
def test_a_label_value_identifies_one_name(name: str, cut: int) -> None:
    """A name that fits is its own label value; that of a longer one differs from those of its prefixes."""
    value = naming.label_value(name)
    assert re.fullmatch(r"[a-z0-9]([-._a-z0-9]{0,61}[a-z0-9])?", value)
    assert (value == name) == (len(name) <= 63)
    assert naming.label_value(name[:cut]) != value or name[:cut] == name


def test_label_values_of_long_names_that_differ_at_their_end_differ() -> None:
    """Nodes of cloud providers have such names."""
    values = {naming.label_value(f"{'ip-10-0-0-1.' * 8}node-{number}") for number in range(2000)}
    assert len(values) == 2000


@pytest.mark.parametrize(
    "value",
    [
        "abc",
        "-1",
        "+1",
        "NaN",
        "Infinity",
        "1e400",
        "1e3",
        "",
        " 1",
        "1 ",
        ".5",
        "5.",
        "0x1",
        "1_0",
        "٣",
        0.1,
        1,
        None,
        True,
    ],
)
def test_a_value_that_is_no_plain_decimal_is_refused(value: object) -> None:
    """The message names the field and the bound."""
    with pytest.raises(RatioError, match=r"^spec\.resources\.cpu is .* from 0 to 1000"):
        parse_ratio(value, field="spec.resources.cpu", maximum=CPU_MAX)


def test_a_ratio_above_its_bound_is_refused() -> None:
    """Memory is at most 1."""
    with pytest.raises(RatioError, match="from 0 to 1,"):
        parse_ratio("1.1", field="spec.resources.memory", maximum=MEMORY_MAX)


def test_a_huge_value_is_refused_before_any_arithmetic_and_shown_short() -> None:
    """A megabyte of digits costs nothing and does not fill the log."""
    with pytest.raises(RatioError) as refused:
        parse_ratio("9" * 10**6, field="x", maximum=CPU_MAX)
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize("value", ["0", "0.15", "1000", "1000.0", "007"])
def test_plain_decimals_within_bounds_are_ratios(value: str) -> None:
    """Exact decimals."""
    assert parse_ratio(value, field="x", maximum=CPU_MAX) == Decimal(value)


def test_a_reference_node_without_cpu_is_refused() -> None:
    """Both quantities must be above 0."""
    with pytest.raises(QuantityError, match="must be above 0"):
        ReferenceNode.of(cpu="0", memory="1Gi")


def test_requests_are_ratio_times_reference() -> None:
    """15 % of 32 cores, 20 % of 256 GiB."""
    assert REFERENCE.cpu_quantity(Decimal("0.15")) == "4800m"
    assert REFERENCE.memory_quantity(Decimal("0.25")) == str(64 * 2**30)


def test_requests_of_a_huge_reference_node_are_exact() -> None:
    """Beyond the 28 digits of a decimal's default context."""
    huge = ReferenceNode.of(cpu="9E", memory="7.9Ei")
    ratio = Decimal("0.99999999999999")
    assert huge.cpu_quantity(ratio) == f"{9 * 10**7 * (10**14 - 1)}m"
    assert huge.memory_quantity(ratio) == str(79 * 2**60 // 10 * (10**14 - 1) // 10**14)


@given(st.decimals(0, 1, places=6, allow_nan=False))
def test_a_request_is_rounded_down_by_less_than_one_unit(ratio: Decimal) -> None:
    """A millicore or a byte."""
    cpu = parse_quantity(REFERENCE.cpu_quantity(ratio))
    memory = parse_quantity(REFERENCE.memory_quantity(ratio))
    assert 0 <= ratio * 32 - cpu < Decimal("0.001")
    assert 0 <= ratio * 256 * 2**30 - memory < 1


@pytest.mark.parametrize("count", [3, 7, 10, 64])
def test_ratios_that_add_up_to_one_fit_on_one_node(count: int) -> None:
    """Requests round down."""
    ratio = (Decimal(1) / count).quantize(Decimal("0.000001"), ROUND_FLOOR)
    assert count * parse_quantity(REFERENCE.memory_quantity(ratio)) <= 256 * 2**30
    assert count * parse_quantity(REFERENCE.cpu_quantity(ratio)) <= 32
