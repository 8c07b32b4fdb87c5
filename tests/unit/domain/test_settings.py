"""The published settings and their text in a ConfigMap."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.migration.limits import Limits
from controller.domain.ratio import ReferenceNode
from controller.domain.settings import DEFAULTS, PublishedSettings, decode, encode, parse_selector, parse_tolerations
from controller.domain.vm.policy import LauncherPolicy
from controller.kube.quantity import binary_quantity, parse_quantity

WORDS = st.text("abcXYZ019-_./", max_size=8).map(lambda text: f"a{text}z")
SIZES = st.one_of(
    st.builds(
        lambda number, suffix: parse_quantity(f"{number}{suffix}"),
        st.integers(1, 10**6),
        st.sampled_from(("", "n", "m", "k", "G", "E", "Ki", "Mi", "Gi", "Ei", "e9")),
    ),
    st.decimals(Decimal("1e-9"), Decimal(2**60), places=9).map(lambda number: parse_quantity(f"{number:f}")),
).filter(lambda size: size <= 2**60)
SELECTORS = st.dictionaries(WORDS, st.one_of(st.just(""), WORDS), max_size=3).map(
    lambda labels: parse_selector(",".join(f"{key}={value}" for key, value in labels.items()))
)
TAINTS = st.builds(
    lambda key, value, effect: f"{key}{value}{effect}",
    WORDS,
    st.one_of(st.just(""), st.just("="), WORDS.map(lambda word: f"={word}")),
    st.sampled_from(("", ":NoSchedule", ":PreferNoSchedule", ":NoExecute")),
)
TOLERATIONS = st.lists(TAINTS, max_size=3).map(lambda taints: parse_tolerations(",".join(taints)))
SETTINGS = st.builds(
    PublishedSettings,
    policy=st.builds(
        LauncherPolicy,
        reference=st.builds(ReferenceNode, cpu=SIZES, memory=SIZES),
        node_selector=SELECTORS,
        tolerations=TOLERATIONS,
        boot_time=st.integers(0, 3_600_000).map(lambda milliseconds: milliseconds / 1000),
    ),
    limits=st.builds(Limits, cluster=st.integers(0, 10**6), outbound=st.integers(0, 10**6)),
    version=WORDS,
)


@given(SETTINGS)
def test_decoding_returns_what_was_encoded(settings: PublishedSettings) -> None:
    """Without a problem."""
    assert decode(encode(settings)) == (settings, ())


def test_the_text_is_that_of_the_flags() -> None:
    """As `kubectl get configmap -o yaml` shows it."""
    assert encode(DEFAULTS) == {
        "reference-cpu": "32",
        "reference-memory": "256Gi",
        "node-selector": "type=kwok",
        "tolerations": "kwok.x-k8s.io/node:NoSchedule",
        "boot-time": "0s",
        "parallel-migrations-per-cluster": "5",
        "parallel-outbound-migrations-per-node": "2",
        "version": "",
    }


def test_a_missing_key_is_the_default_and_an_unknown_one_is_ignored() -> None:
    """Of an older and of a later controller."""
    assert decode({"of-a-later-release": "1"}) == (DEFAULTS, ())


@pytest.mark.parametrize(
    ("key", "text", "problem"),
    [
        ("reference-cpu", "many", "'many' is no quantity"),
        ("reference-cpu", "1e27", "'1e27' is not a node size: want more than 0, and at most 1Ei"),
        ("reference-memory", "0", "'0' is not a node size: want more than 0"),
        ("node-selector", "zone", "'zone' is not of the form key=value"),
        ("tolerations", "a:Sometimes", "'a:Sometimes' is not a taint"),
        ("boot-time", "2h", "'2h' is not a boot time: want a duration"),
        ("parallel-migrations-per-cluster", "-1", "'-1' is not a limit"),
        ("parallel-outbound-migrations-per-node", "", "'' is not a limit"),
    ],
)
def test_a_value_that_cannot_be_read_costs_only_itself(key: str, text: str, problem: str) -> None:
    """Its default is used, which the line says."""
    other = PublishedSettings(
        policy=LauncherPolicy(ReferenceNode.of(cpu="64", memory="1Ti"), {"zone": "a"}, (), 90.0), limits=Limits(7, 8)
    )
    data = encode(other)
    settings, [line] = decode({**data, key: text})
    assert line.startswith(f"{key}: {problem}")
    assert line.endswith("; its default is used")
    assert encode(settings) == {**data, key: encode(DEFAULTS)[key]}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("256Gi", "256Gi"),
        ("1536Mi", "1536Mi"),
        ("1024Gi", "1Ti"),
        ("1000", "1000"),
        ("0.5", "0.5"),
        ("1024e18", "1024000000000000000000"),
    ],
)
def test_bytes_have_the_largest_suffix_of_a_whole_number(text: str, shown: str) -> None:
    """As Kubernetes shows them."""
    assert binary_quantity(parse_quantity(text)) == shown
