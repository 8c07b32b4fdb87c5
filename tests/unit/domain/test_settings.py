"""The published settings and their text in a ConfigMap."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.copying.policy import CopyingPolicy, WritableSet
from controller.domain.migration.limits import Limits
from controller.domain.objects import Strategy
from controller.domain.ratio import ReferenceNode
from controller.domain.settings import DEFAULTS, PublishedSettings, decode, encode, parse_selector, parse_tolerations
from controller.domain.vm.policy import LauncherPolicy
from controller.kube.quantity import binary_quantity, parse_quantity, shortest_quantity

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
BYTES = st.one_of(st.integers(1, 2**60), st.sampled_from((1250 * 10**6, 10 * 2**20, 10**18, 2**60))).map(float)


def decimals(most: int, places: int) -> st.SearchStrategy[float]:
    """Numbers from 0 on with so many decimal places."""
    return st.integers(0, most * 10**places).map(lambda number: number / 10**places)


LIVE = st.builds(
    CopyingPolicy,
    bandwidth_per_migration=st.one_of(st.just(0.0), BYTES),
    bandwidth_per_node=BYTES,
    dirty_rate=BYTES,
    writable_set=st.one_of(
        decimals(100, 4).map(lambda per_cent: WritableSet(per_cent / 100)),
        BYTES.map(lambda size: WritableSet(None, size)),
    ),
    dirty_rate_jitter=decimals(1, 6),
    allow_auto_converge=st.booleans(),
    allow_post_copy=st.booleans(),
    allow_workload_disruption=st.booleans(),
    completion_timeout_per_gib=st.integers(0, 86_400).map(float),
    progress_timeout=st.integers(0, 86_400).map(float),
    max_downtime=st.integers(1, 2_000_000).map(lambda milliseconds: milliseconds / 1000),
)
SETTINGS = st.builds(
    PublishedSettings,
    policy=st.builds(
        LauncherPolicy,
        reference=st.builds(ReferenceNode, cpu=SIZES, memory=SIZES),
        node_selector=SELECTORS,
        tolerations=TOLERATIONS,
        boot_time=st.integers(0, 3_600_000).map(lambda milliseconds: milliseconds / 1000),
        speed=st.integers(1, 10**7).map(lambda hundredths: hundredths / 100),
    ),
    limits=st.builds(Limits, cluster=st.integers(0, 10**6), outbound=st.integers(0, 10**6)),
    strategy=st.sampled_from(Strategy),
    live=LIVE,
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
        "speed": "1",
        "migration-strategy": "Recreate",
        "bandwidth-per-migration": "0",
        "migration-bandwidth-per-node": "1250M",
        "dirty-rate": "10Mi",
        "writable-set": "3%",
        "dirty-rate-jitter": "0.15",
        "allow-auto-converge": "false",
        "allow-post-copy": "false",
        "allow-workload-disruption": "false",
        "completion-timeout-per-gib": "150",
        "progress-timeout": "150",
        "max-downtime": "0.3s",
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
        ("speed", "0", "'0' is not a speed: want a number from 0.01 to 100000"),
        ("speed", "nan", "'nan' is not a speed"),
        ("migration-strategy", "Warm", "'Warm' is not a strategy: want Recreate or Live"),
        ("bandwidth-per-migration", "-1", "'-1' is not a bandwidth: want bytes a second"),
        ("bandwidth-per-migration", "1250m", "'1250m' is not a bandwidth: want bytes a second"),
        ("migration-bandwidth-per-node", "0", "'0' is not a node's bandwidth: want bytes a second"),
        ("dirty-rate", "inf", "'inf' is not a dirty rate: want bytes a second"),
        ("writable-set", "101%", "'101%' is not a writable working set: want a share of memory in use"),
        ("writable-set", "-1Mi", "'-1Mi' is not a writable working set"),
        ("dirty-rate-jitter", "1.5", "'1.5' is not a jitter: want a number from 0 to 1"),
        ("allow-post-copy", "yes", "'yes' is neither true nor false"),
        ("completion-timeout-per-gib", "-1", "'-1' is not a timeout: want whole seconds"),
        ("progress-timeout", "86401", "'86401' is not a timeout: want whole seconds, of at most 86400"),
        ("max-downtime", "0s", "'0s' is not a downtime: want a duration from 1ms to 2000s"),
    ],
)
def test_a_value_that_cannot_be_read_costs_only_itself(key: str, text: str, problem: str) -> None:
    """Its default is used, which the line says."""
    other = PublishedSettings(
        policy=LauncherPolicy(ReferenceNode.of(cpu="64", memory="1Ti"), {"zone": "a"}, (), 90.0, 10.0),
        limits=Limits(7, 8),
        strategy=Strategy.LIVE,
        live=CopyingPolicy(64e6, 125e6, 2e6, WritableSet(None, 4096.0), 0.0, True, True, True, 10.0, 20.0, 1.5),
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


@pytest.mark.parametrize(
    ("text", "shown"),
    [("64Mi", "64Mi"), ("1250M", "1250M"), ("1250000000", "1250M"), ("1024", "1Ki"), ("1000", "1k"), ("0", "0")],
)
def test_a_rate_has_the_suffix_that_makes_it_shortest(text: str, shown: str) -> None:
    """Binary or decimal, as people write it."""
    assert shortest_quantity(parse_quantity(text)) == shown
