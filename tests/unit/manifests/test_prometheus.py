"""Prometheus' own tool accepts what is shipped for it, and every rule is tested."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.unit.manifests.promql import metric_names
from tests.unit.manifests.shipped import (
    DESCHEDULER_POLICY,
    PROMETHEUS,
    RULE_FILES,
    RULE_TESTS,
    expressions,
    load,
    rules,
)

PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool (Prometheus) is not in PATH")


def promtool(*arguments: str | Path) -> str:
    """Run promtool; return what it says, or fail with it."""
    done = subprocess.run([PROMTOOL or "promtool", *arguments], capture_output=True, text=True, check=False, timeout=15)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@cache
def rule_tests() -> list[dict[str, Any]]:
    """Every test of promtool's files."""
    return [test for path in RULE_TESTS for test in load(path)["tests"]]


@needs_promtool
def test_promtool_accepts_the_configuration() -> None:
    """And every rule file that it names."""
    assert "SUCCESS" in promtool("check", "config", PROMETHEUS / "prometheus.yml")


@needs_promtool
def test_promtool_accepts_the_rules_without_a_remark() -> None:
    """Its lint included: no rule is there twice."""
    promtool("check", "rules", "--lint=all", "--lint-fatal", *RULE_FILES)


@needs_promtool
@pytest.mark.parametrize("path", RULE_TESTS, ids=lambda path: path.name)
def test_the_rules_do_what_their_tests_say(path: Path) -> None:
    """promtool plays series of samples to them."""
    promtool("test", "rules", path)


def test_prometheus_reads_every_rule_file() -> None:
    """A rule file that the configuration does not name would be a rule that never runs."""
    named = {PROMETHEUS / name for name in load(PROMETHEUS / "prometheus.yml")["rule_files"]}
    assert named == set(RULE_FILES)


@pytest.mark.parametrize("record", [rule["record"] for rule in rules() if "record" in rule])
def test_every_recording_rule_has_a_promtool_test_with_a_sample(record: str) -> None:
    """One that queries just this rule and expects a sample of it."""
    queries = [query for test in rule_tests() for query in test.get("promql_expr_test", ())]
    assert any(query["expr"] == record and query["exp_samples"] for query in queries)


@pytest.mark.parametrize("alert", [rule["alert"] for rule in rules() if "alert" in rule])
def test_every_alert_has_a_promtool_test_that_fires_it_and_one_that_does_not(alert: str) -> None:
    """An alert that never fires and one that always does are both worth nothing."""
    asked = [case for test in rule_tests() for case in test.get("alert_rule_test", ()) if case["alertname"] == alert]
    assert {bool(case["exp_alerts"]) for case in asked} == {True, False}


@pytest.mark.parametrize("rule", [rule for rule in rules() if "alert" in rule], ids=lambda rule: rule["alert"])
def test_an_alert_says_how_bad_it_is_what_it_means_and_what_to_do(rule: dict[str, Any]) -> None:
    """Severity for the router; summary and description, which is longer, for the person."""
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert 0 < len(rule["annotations"]["summary"]) < len(rule["annotations"]["description"])


def test_what_the_rules_record_is_named_by_level_metric_and_operation() -> None:
    """Prometheus' convention, which tells recorded series from scraped ones; expressions name only those there are."""
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    assert {name for name in recorded if name.count(":") != 2} == set()
    named = {name for expression in expressions() for name in metric_names(expression.text) if ":" in name}
    assert named <= recorded


def test_metrics_that_other_controllers_have_too_are_selected_by_our_job() -> None:
    """Else an alert about vmsim would be fired by somebody else's controller in the same Prometheus."""
    shared = ("workqueue_", "controller_runtime_", "leader_election_", "rest_client_", "reflector_", "process_")
    for rule in rules():
        if any(name.startswith(shared) or name == "up" for name in metric_names(rule["expr"])):
            assert rule["expr"].count("{") == rule["expr"].count('{job="vmsim"'), rule["expr"]


def test_the_descheduler_s_policy_asks_for_what_the_rules_record_for_it() -> None:
    """Its Prometheus source knows one resource, and takes the node's name from `instance`."""
    policy = load(DESCHEDULER_POLICY)
    plugins = {plugin["name"]: plugin["args"] for profile in policy["profiles"] for plugin in profile["pluginConfig"]}
    balance = plugins["LowNodeUtilization"]
    assert set(balance["thresholds"]) == set(balance["targetThresholds"]) == {"MetricResource"}
    assert balance["thresholds"]["MetricResource"] < balance["targetThresholds"]["MetricResource"]
    assert balance["metricsUtilization"]["source"] == policy["metricsProviders"][0]["source"] == "Prometheus"
    by_node = {rule.get("record") for rule in rules() if '"instance", "$1", "node"' in rule["expr"]}
    assert balance["metricsUtilization"]["prometheus"]["query"] in by_node


def test_the_descheduler_s_policy_moves_what_a_migration_moved() -> None:
    """A migration's constraints are required affinity of its pod for as long as that lives, which nodeFit heeds."""
    [profile] = load(DESCHEDULER_POLICY)["profiles"]
    plugins = {plugin["name"]: plugin["args"] for plugin in profile["pluginConfig"]}
    assert plugins["DefaultEvictor"]["nodeFit"] is False
