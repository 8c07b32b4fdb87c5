"""The metrics that an expression names are told apart from everything else in it."""

from __future__ import annotations

import pytest

from tests.unit.manifests.promql import PromQLError, metric_names


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ("up", {"up"}),
        ('node_vm_count{node="kwok-node-1"}', {"node_vm_count"}),
        ('a{b="c", d=~"e|f"} / on (b, d) group_left (g) h', {"a", "h"}),
        ("sum by (le) (rate(x_bucket[5m]))", {"x_bucket"}),
        ("sum(rate(x_bucket[5m])) without (le)", {"x_bucket"}),
        ("max by(node)(a) > 1 or max by(node)(b) > bool 1", {"a", "b"}),
        ("histogram_quantile(0.99, sum by (name, le) (rate(q_bucket[$__rate_interval])))", {"q_bucket"}),
        ("topk by (vmi, vmim) (1, max_over_time(m[1d]))", {"m"}),
        ('label_replace(a, "instance", "$1", "node", "(.+)")', {"a"}),
        ("node:node_cpu_usage_ratio:max offset 5m", {"node:node_cpu_usage_ratio:max"}),
        ("max_over_time(rate(a[5m])[1h:30s] @ 1609746000)", {"a"}),
        ('absent(up{job="it\'s (not) a {metric}"} == 1) # nor(is) this', {"up"}),
        ("1e3 + 0x1f + -Inf + NaN + .5", set()),
        ("a AND b Unless IGNORING (c) d", {"a", "b", "d"}),
        ("vector(0)", set()),
        ('`raw` == "b"', set()),
    ],
)
def test_only_metrics_are_named(expression: str, names: set[str]) -> None:
    """Neither functions, keywords, labels, durations, numbers, strings nor comments are."""
    assert metric_names(expression) == names


@pytest.mark.parametrize(
    "expression",
    ['{__name__="a"}', 'a{__name__=~"b"}', "$metric", "rate(${metric}[5m])", "a[5m", "a; b", '{job="vmsim"}'],
)
def test_what_the_text_does_not_tell_is_refused(expression: str) -> None:
    """Nothing is skipped silently."""
    with pytest.raises(PromQLError):
        metric_names(expression)
