"""Kubernetes quantities: the whole grammar, exactly, in bounded time."""

from __future__ import annotations

import time
from decimal import Decimal
from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.kube.quantity import LARGEST, LONGEST, QuantityError, parse_quantity, round_up

DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
SUFFIXES = {
    **{suffix: Fraction(10) ** power for suffix, power in DECIMAL.items()},
    **{suffix: Fraction(2) ** power for suffix, power in BINARY.items()},
    **{
        f"{letter}{sign}{power}": Fraction(10) ** int(f"{sign}{power}")
        for letter in "eE"
        for sign in ("", "+", "-")
        for power in (0, 1, 3, 9, 12)
    },
}
DIGITS = st.text("0123456789", min_size=1, max_size=12)
NUMBERS = st.one_of(DIGITS, DIGITS.map("{}.".format), DIGITS.map(".{}".format), st.tuples(DIGITS, DIGITS).map(".".join))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("32", "32"),
        ("500m", "0.5"),
        ("256Gi", "274877906944"),
        ("1.5k", "1500"),
        ("0", "0"),
        ("1E", "1e18"),
        ("12E", "12e18"),
        ("1E3", "1000"),
        ("256e9", "256000000000"),
        ("129e6", "129000000"),
        ("1e-3", "0.001"),
        ("5E+2", "500"),
        ("+1.5", "1.5"),
        ("-1.5Ki", "-1536"),
        (".5", "0.5"),
        ("1.", "1"),
        ("1.Gi", "1073741824"),
        ("250u", "0.00025"),
        ("3n", "3e-9"),
        ("007", "7"),
    ],
)
def test_quantities_are_read_as_kubernetes_reads_them(text: str, value: str) -> None:
    """Sign, decimal exponent, decimal and binary suffix."""
    assert parse_quantity(text) == Decimal(value)


@given(st.sampled_from(["", "+", "-"]), NUMBERS, st.sampled_from(sorted(SUFFIXES)))
def test_every_quantity_of_the_grammar_is_exact_to_a_billionth_away_from_zero(
    sign: str, number: str, suffix: str
) -> None:
    """Compared with fractions, which are exact."""
    whole, _, places = number.partition(".")
    value = Fraction(int(f"{whole}{places}" or "0"), 10 ** len(places)) * SUFFIXES[suffix]
    wanted = Fraction(ceil(value * 10**9), 10**9)
    if suffix in BINARY:
        wanted = min(wanted, Fraction(2**63 - 1))
    wanted = min(wanted, Fraction(LARGEST))
    assert Fraction(parse_quantity(f"{sign}{number}{suffix}")) == (-wanted if sign == "-" else wanted)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "abc",
        "1 Gi",
        " 1",
        "1\n",
        "1KB",
        "1K",
        "1ki",
        "Gi",
        "+",
        "-",
        ".",
        "1..2",
        "1e",
        "1e+",
        "1e1.5",
        "1e3k",
        "--1",
        "NaN",
        "Infinity",
        "1_0",
        "0x1",
        "٣",
        "1e2147483648",
        "1e99999999999999999999",
        None,
        5,
        True,
        0.5,
        ["1"],
        {},
    ],
)
def test_an_invalid_quantity_is_refused(text: object) -> None:
    """The message shows the form."""
    with pytest.raises(QuantityError, match="is no quantity: want"):
        parse_quantity(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e2147483647", LARGEST),
        ("-9e999999999", -LARGEST),
        ("1e-2147483648", None),
        ("1e-2147483647", Decimal("1e-9")),
        ("0e2147483647", Decimal(0)),
        ("9" * LONGEST, LARGEST),
        ("8Ei", Decimal(2**63 - 1)),
        ("0.0000000001Ki", Decimal("103e-9")),
    ],
)
def test_a_quantity_with_a_huge_exponent_takes_no_time(text: str, value: Decimal | None) -> None:
    """Its power of ten is not computed."""
    began = time.process_time()
    if value is None:
        with pytest.raises(QuantityError):
            parse_quantity(text)
    else:
        assert parse_quantity(text) == value
    assert time.process_time() - began < 0.1


def test_a_megabyte_of_digits_is_refused_in_a_short_message() -> None:
    """It does not fill the log."""
    began = time.process_time()
    with pytest.raises(QuantityError) as refused:
        parse_quantity("9" * 10**6)
    assert time.process_time() - began < 0.1
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize("text", ["1e3", "12E", "256Gi", "1e20", "10k", "1000000m"])
def test_a_value_prints_as_plain_digits(text: str) -> None:
    """It is written into manifests."""
    assert str(parse_quantity(text)).isdigit()


def test_rounding_up_goes_to_the_next_whole_step() -> None:
    """As the scheduler rounds to millicores and bytes."""
    assert round_up(Decimal("0.0001"), Decimal("0.001")) == Decimal("0.001")
    assert round_up(Decimal("1.5"), Decimal(1)) == 2
    assert round_up(Decimal(2), Decimal(1)) == 2
