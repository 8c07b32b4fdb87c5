"""A real Prometheus, configured as shipped, with a real controller's metrics."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest

from tests.integration.prometheus_tools import Prometheus, Sample
from tests.integration.tools import Controller, Kubectl, sweep
from tests.unit.manifests.promql import metric_names
from tests.unit.manifests.shipped import DESCHEDULER_POLICY, REPOSITORY, expressions, load, rules

PROMETHEUS = shutil.which("prometheus")
PROMTOOL = shutil.which("promtool")
pytestmark = pytest.mark.timeout(60)

QUERIES = {name for rule in rules() if (name := rule.get("record", "")).startswith("instance:")}
"""What a descheduler may ask for."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """The nodes of the VMs: `calm` uses 0.15 CPU and 0.20 memory, `hot` 1.5 and 0.15."""

    calm: str
    hot: str
    nodes: frozenset[str]

    def used(self, calm: float, hot: float) -> dict[str, float]:
        """Return each node's use, given that of the VMs."""
        return {name: calm * (name == self.calm) + hot * (name == self.hot) for name in self.nodes}


@pytest.fixture(scope="module")
def fleet(kubectl: Kubectl, controller: Controller) -> Iterator[Fleet]:
    """Run two VMs on three nodes, so that at least one is idle; one VM uses more than a whole node."""
    assert controller.process.poll() is None
    kubectl.apply_vm("calm", cpu="0.15", memory="0.20")
    kubectl.apply_vm("hot", annotations={"simulation.node-classifier.io/cpu-consumption": "1.5"})
    calm, hot = (kubectl.wait_phase(name, "Running")["status"]["nodeName"] for name in ("calm", "hot"))
    nodes = kubectl("get", "nodes", "-o", "name").replace("node/", "").split()
    yield Fleet(calm, hot, frozenset(nodes))
    sweep(kubectl)


@pytest.fixture(scope="module")
def prometheus(controller: Controller, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Run Prometheus as shipped, but for its target and its intervals."""
    if PROMETHEUS is None:
        pytest.skip("prometheus is not in PATH")
    target = urlsplit(controller.url).netloc
    with Prometheus.start(PROMETHEUS, tmp_path_factory.mktemp("prometheus"), [target]) as running:
        yield running


def by(label: str, samples: list[Sample]) -> dict[str, float]:
    """Return the values by a label that differs in each sample."""
    found = {labels[label]: value for labels, value in samples}
    assert len(found) == len(samples), samples
    return found


def settled(prometheus: Prometheus, query: str, label: str, values: dict[str, float]) -> list[Sample]:
    """Wait until a query returns these values and no others; return the samples."""
    return prometheus.eventually(query, until=lambda found: by(label, found) == pytest.approx(values))


def test_prometheus_scrapes_and_evaluates_without_an_error(prometheus: Prometheus, fleet: Fleet) -> None:
    """The target is up, and every rule evaluates. A counter's family without suffix shows OpenMetrics."""
    prometheus.eventually("up", until=lambda samples: [value for _, value in samples] == [1])
    prometheus.eventually("node:node_vm_count:max", until=lambda samples: len(samples) == len(fleet.nodes))
    (target,) = prometheus.api("targets", state="active")["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")
    assert prometheus.api("metadata", metric="workqueue_adds")["workqueue_adds"][0]["type"] == "counter"
    judged = {rule["name"]: (rule["health"], rule.get("lastError", "")) for rule in prometheus.rules_evaluated_again()}
    assert judged == {rule.get("record") or rule["alert"]: ("ok", "") for rule in rules()}


def test_the_descriptions_queries_return_each_nodes_vms_and_use(prometheus: Prometheus, fleet: Fleet) -> None:
    """`node_vm_count{node="…"}` and `node_cpu_usage_ratio{node="…"}`: one sample each, idle nodes included."""
    for metric, values in (("node_vm_count", fleet.used(1, 1)), ("node_cpu_usage_ratio", fleet.used(0.15, 1.5))):
        settled(prometheus, metric, "node", values)
        for node, value in values.items():
            assert by("node", prometheus.query(f'{metric}{{node="{node}"}}')) == pytest.approx({node: value})


def test_a_descheduler_gets_one_sample_a_node_within_0_and_1(prometheus: Prometheus, fleet: Fleet) -> None:
    """`instance` is the node's name; an idle node has 0, an overcommitted one 1."""
    policy = load(DESCHEDULER_POLICY)["profiles"][0]["pluginConfig"][0]
    query = policy["args"]["metricsUtilization"]["prometheus"]["query"]
    expected = {node: min(use, 1) for node, use in fleet.used(0.15, 1.5).items()}
    assert {0, 1} <= set(expected.values())
    samples = settled(prometheus, query, "instance", expected)
    assert all(set(labels) == {"__name__", "instance"} for labels, _ in samples)


def test_an_over_committed_node_is_an_alert(prometheus: Prometheus, fleet: Fleet) -> None:
    """Pending for five minutes, with the node and the resource."""
    alerts = prometheus.eventually('ALERTS{alertname="VmsimNodeOvercommitted"}', until=bool)
    assert [(labels["node"], labels["resource"], labels["alertstate"]) for labels, _ in alerts] == [
        (fleet.hot, "cpu", "pending")
    ]


def test_two_replicas_are_one_sample_a_node(prometheus: Prometheus, controller: Controller, fleet: Fleet) -> None:
    """The same controller under two names stands for two, in pods of which service discovery tells node and namespace.

    The rules make one of them, and the names of simulated nodes win over that of the pods'.
    """
    port = urlsplit(controller.url).port
    prometheus.aim([f"127.0.0.1:{port}", f"localhost:{port}"], node="real", namespace="monitoring")
    try:
        prometheus.eventually(
            "count by (node) (node_cpu_usage_ratio)", until=lambda found: [value for _, value in found] == [2] * 3
        )
        assert {rule["health"] for rule in prometheus.rules_evaluated_again()} == {"ok"}
        for query in QUERIES:
            assert set(by("instance", prometheus.query(query))) == fleet.nodes
        assert by("phase", prometheus.query("phase:vmsim_vms:max"))["Running"] == 2
        assert sum(value for _, value in prometheus.query("node:kubevirt_vmi_phase:sum")) == 2
    finally:
        prometheus.aim([f"127.0.0.1:{port}"])


def test_a_deleted_node_disappears_for_the_descheduler(prometheus: Prometheus, kubectl: Kubectl, fleet: Fleet) -> None:
    """A new node has 0; a deleted one has no sample at once."""
    node = kubectl.json("get", "node", min(fleet.nodes))
    labels = {**node["metadata"]["labels"], "kubernetes.io/hostname": "passing"}
    metadata = {"name": "passing", "labels": labels, "annotations": {"kwok.x-k8s.io/node": "fake"}}
    manifest = {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": {"taints": node["spec"]["taints"]}}
    kubectl("create", "-f", "-", stdin=json.dumps(manifest))
    try:
        for query in QUERIES:
            prometheus.eventually(query, until=lambda found: by("instance", found).get("passing") == 0)
    finally:
        kubectl("delete", "node", "passing")
    for query in ('node_vm_count{node="passing"}', *(f'{query}{{instance="passing"}}' for query in QUERIES)):
        prometheus.eventually(query, until=lambda found: not found)


def test_the_documentation_lists_exactly_the_exposed_metrics(controller: Controller) -> None:
    """By the first column of its tables; two examples stand for the process's own metrics."""
    text = (REPOSITORY / "docs" / "metrics.md").read_text().partition("## Prometheus")[0]
    rows = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
    documented = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    families = set(re.findall(r"^# TYPE (\S+)", controller.get("/metrics")[1], re.MULTILINE))
    assert documented <= families
    assert {name for name in families - documented if not name.startswith("process_")} == set()


def test_every_metric_in_a_rule_panel_or_document_is_exposed(controller: Controller) -> None:
    """By the controller, or recorded by a rule; `up` is Prometheus' own."""
    known = exposed(controller.get("/metrics")[1]) | {rule["record"] for rule in rules() if "record" in rule} | {"up"}
    asked = {(name, expression.where) for expression in expressions() for name in metric_names(expression.text)}
    assert {(name, where) for name, where in asked if name not in known} == set()


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not in PATH")
@pytest.mark.usefixtures("fleet")
def test_promtool_reports_only_one_name(controller: Controller) -> None:
    """The description's: Prometheus reserves `_count` for histograms."""
    done = subprocess.run(
        [PROMTOOL or "promtool", "check", "metrics"],
        input=controller.get("/metrics")[1],
        capture_output=True,
        text=True,
        check=False,
        timeout=10,
    )
    remarks = (done.stdout + done.stderr).splitlines()
    assert [remark.partition(" ")[0] for remark in remarks] == ["node_vm_count"], remarks


def exposed(text: str) -> set[str]:
    """Return the name of every series that an exposition can have, also of families without samples."""
    found = set()
    for name, kind in re.findall(r"^# TYPE (\S+) (\w+)$", text, re.MULTILINE):
        found |= {f"{name}{suffix}" for suffix in ("_bucket", "_sum", "_count")} if kind == "histogram" else {name}
    return found
