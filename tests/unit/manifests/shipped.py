"""What the repository ships for Prometheus and Grafana, read for the tests."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parents[3]
PROMETHEUS = REPOSITORY / "manifests" / "prometheus"
GRAFANA = REPOSITORY / "manifests" / "grafana"
DESCHEDULER_POLICY = REPOSITORY / "manifests" / "descheduler" / "policy.yaml"
RULE_FILES = sorted((PROMETHEUS / "rules").glob("*.yaml"))
RULE_TESTS = sorted((PROMETHEUS / "tests").glob("*.test.yaml"))


@dataclass(frozen=True, slots=True)
class Expression:
    """A piece of PromQL and where it stands."""

    where: str
    text: str


def load(path: Path) -> Any:
    """Return what a YAML or JSON file holds."""
    text = path.read_text()
    return json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)


def rules() -> list[dict[str, Any]]:
    """Return every rule, recording or alerting."""
    return [rule for path in RULE_FILES for group in load(path)["groups"] for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    """Return the Grafana dashboard."""
    loaded: dict[str, Any] = load(GRAFANA / "dashboards" / "vmsim.json")
    return loaded


def panels() -> list[dict[str, Any]]:
    """Return the dashboard's panels without its row headings."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def expressions() -> list[Expression]:
    """Return every PromQL expression that is shipped or shown to people, Grafana's variables in it and all."""
    return [*_of_rules(), *_of_dashboard(), *_of_documentation(), *_of_policy()]


def _of_rules() -> Iterator[Expression]:
    for rule in rules():
        yield Expression(f"rule {rule.get('record') or rule['alert']}", rule["expr"])


def _of_dashboard() -> Iterator[Expression]:
    for panel in panels():
        for target in panel["targets"]:
            yield Expression(f"panel {panel['title']!r}", target["expr"])
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            series = re.fullmatch(r"label_values\((.+), *\w+\)", variable["query"]["query"])
            assert series is not None, variable
            yield Expression(f"variable {variable['name']}", series[1])


def _of_documentation() -> Iterator[Expression]:
    text = (REPOSITORY / "docs" / "metrics.md").read_text()
    for block in re.findall(r"```promql\n(.*?)```", text, re.DOTALL):
        for line in filter(None, block.splitlines()):
            yield Expression("docs/metrics.md", line)


def _of_policy() -> Iterator[Expression]:
    for profile in load(DESCHEDULER_POLICY)["profiles"]:
        for plugin in profile["pluginConfig"]:
            if metrics := plugin["args"].get("metricsUtilization"):
                yield Expression("descheduler policy", metrics["prometheus"]["query"])
