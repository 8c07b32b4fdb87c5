"""KWOK's configuration gets our stage once, and a restarted KWOK finds its nodes free."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from controller import package_data
from controller.controlplane import kwok
from controller.controlplane.api import ApiServer

WRITTEN = "kind: KwokctlConfiguration\nstatus: {}\n---\nkind: Stage\nmetadata: {name: pod-ready}\n"


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    """Return a configuration as kwokctl leaves it."""
    path = tmp_path / "kwok.yaml"
    path.write_text(WRITTEN)
    return path


def stages(configuration: Path) -> list[str]:
    """Return the names of the stages, in their order."""
    documents = yaml.safe_load_all(configuration.read_text())
    return [document["metadata"]["name"] for document in documents if document["kind"] == "Stage"]


def test_our_stage_is_appended_to_those_that_are_there(configuration: Path) -> None:
    """KWOK's own stay, or no node would become ready."""
    assert kwok.append_stage(configuration)
    assert configuration.read_text().startswith(WRITTEN)
    assert stages(configuration) == ["pod-ready", "pod-ready-again"]


def test_a_stage_that_is_there_is_no_news(configuration: Path) -> None:
    """A KWOK that runs is left alone."""
    kwok.append_stage(configuration)
    assert not kwok.append_stage(configuration)
    assert stages(configuration) == ["pod-ready", "pod-ready-again"]


def test_another_state_of_our_stage_is_replaced(configuration: Path) -> None:
    """That of an earlier release, or half of it."""
    kwok.append_stage(configuration)
    configuration.write_text(configuration.read_text()[:-100])

    assert kwok.append_stage(configuration)
    assert stages(configuration) == ["pod-ready", "pod-ready-again"]


def test_nothing_is_appended_where_kwokctl_has_not_come_that_far(tmp_path: Path) -> None:
    """It would write over it."""
    assert not kwok.append_stage(tmp_path / "kwok.yaml")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("log", "name"),
    [
        ('{"msg":"a","id":"host_1"}\n{"msg":"b","id":"host_1"}\n', "host_1"),
        ('some text\n[1]\n{"msg":"no name"}\n{"id":5}\n{"id":"host_2"}\n', "host_2"),
        ("", None),
        ('{"id":"cut o', None),
    ],
)
def test_the_name_of_a_kwok_stands_in_its_log(tmp_path: Path, log: str, name: str | None) -> None:
    """On every line that it wrote in order."""
    (tmp_path / "log").write_text(log)
    assert kwok.identity(tmp_path / "log") == name


def test_a_kwok_without_a_log_has_no_name(tmp_path: Path) -> None:
    """It never ran."""
    assert kwok.identity(tmp_path / "log") is None


class Server:
    """Some Leases, and what was deleted of them."""

    def __init__(self, **holders: str) -> None:
        self.holders = holders
        self.deleted: list[tuple[str, str | None]] = []

    def get(self, _path: str) -> Mapping[str, Any]:
        """List the Leases; one has no holder."""
        items = [
            {"metadata": {"name": name, "resourceVersion": f"v-{name}"}, "spec": {"holderIdentity": holder}}
            for name, holder in self.holders.items()
        ]
        return {"items": [*items, {"metadata": {"name": "free", "resourceVersion": "1"}}]}

    def delete(self, path: str, *, unchanged_since: str | None = None) -> None:
        """Note it."""
        self.deleted.append((path.rpartition("/")[2], unchanged_since))


def test_only_the_leases_of_the_kwok_that_ended_are_deleted() -> None:
    """In the state in which they were seen: somebody else may take one over meanwhile."""
    server = Server(ours="host_1", theirs="host_2", kubelet="node-7")
    kwok.release_leases(cast(ApiServer, server), "host_1")
    assert server.deleted == [("ours", "v-ours")]


def test_the_stage_leaves_pods_alone_that_go_or_have_ended() -> None:
    """It acts on what runs and is not ready, and at once: a delayed patch met pods that had failed meanwhile."""
    stage = yaml.safe_load(package_data.path("manifests/kwok/pod-ready-again.yaml").read_text())
    rules = {rule["key"].split(" ")[0]: rule for rule in stage["spec"]["selector"]["matchExpressions"]}
    assert rules[".metadata.deletionTimestamp"]["operator"] == "DoesNotExist"
    assert rules[".status.phase"] == {"key": ".status.phase", "operator": "In", "values": ["Running"]}
    assert "delay" not in json.dumps(stage)
