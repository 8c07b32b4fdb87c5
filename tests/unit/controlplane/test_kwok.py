"""KWOK's configuration gets our stage once, and a restarted KWOK finds no other holder of its nodes' Leases."""

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
    """Return a configuration as kwokctl writes it."""
    path = tmp_path / "kwok.yaml"
    path.write_text(WRITTEN)
    return path


def stages(configuration: Path) -> list[str]:
    """Return the names of the stages, in order."""
    documents = yaml.safe_load_all(configuration.read_text())
    return [document["metadata"]["name"] for document in documents if document["kind"] == "Stage"]


def test_our_stage_is_appended_to_the_existing_ones(configuration: Path) -> None:
    """KWOK's own stages stay, since they make nodes ready."""
    assert kwok.append_stage(configuration)
    assert configuration.read_text().startswith(WRITTEN)
    assert stages(configuration) == ["pod-ready", "pod-ready-again"]


def test_our_stage_is_appended_only_once(configuration: Path) -> None:
    """A KWOK that runs needs no restart."""
    kwok.append_stage(configuration)
    assert not kwok.append_stage(configuration)
    assert stages(configuration) == ["pod-ready", "pod-ready-again"]


def test_a_different_version_of_our_stage_is_replaced(configuration: Path) -> None:
    """An earlier release's, or an incomplete one."""
    kwok.append_stage(configuration)
    configuration.write_text(configuration.read_text()[:-100])

    assert kwok.append_stage(configuration)
    assert stages(configuration) == ["pod-ready", "pod-ready-again"]


def test_nothing_is_appended_before_kwokctl_has_written_the_file(tmp_path: Path) -> None:
    """kwokctl would overwrite it."""
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
def test_the_identity_of_a_kwok_is_read_from_its_log(tmp_path: Path, log: str, name: str | None) -> None:
    """Every well-formed line of the log contains it."""
    (tmp_path / "log").write_text(log)
    assert kwok.identity(tmp_path / "log") == name


def test_a_kwok_without_a_log_has_no_identity(tmp_path: Path) -> None:
    """It has never run."""
    assert kwok.identity(tmp_path / "log") is None


class Server:
    """Some Leases, and a record of the deleted ones."""

    def __init__(self, **holders: str) -> None:
        self.holders = holders
        self.deleted: list[tuple[str, str | None]] = []

    def get(self, _path: str) -> Mapping[str, Any]:
        """Return the Leases; one has no holder."""
        items = [
            {"metadata": {"name": name, "resourceVersion": f"v-{name}"}, "spec": {"holderIdentity": holder}}
            for name, holder in self.holders.items()
        ]
        return {"items": [*items, {"metadata": {"name": "free", "resourceVersion": "1"}}]}

    def delete(self, path: str, *, unchanged_since: str | None = None) -> None:
        """Record the deletion."""
        self.deleted.append((path.rpartition("/")[2], unchanged_since))


def test_only_the_leases_of_the_kwok_that_ended_are_deleted() -> None:
    """At the version that was read, since another holder may take one over meanwhile."""
    server = Server(ours="host_1", theirs="host_2", kubelet="node-7")
    kwok.release_leases(cast(ApiServer, server), "host_1")
    assert server.deleted == [("ours", "v-ours")]


def test_the_stage_ignores_pods_that_are_being_deleted_or_have_ended() -> None:
    """It acts at once on running pods that are not ready: a delayed patch could reach pods that have failed since."""
    stage = yaml.safe_load(package_data.path("manifests/kwok/pod-ready-again.yaml").read_text())
    rules = {rule["key"].split(" ")[0]: rule for rule in stage["spec"]["selector"]["matchExpressions"]}
    assert rules[".metadata.deletionTimestamp"]["operator"] == "DoesNotExist"
    assert rules[".status.phase"] == {"key": ".status.phase", "operator": "In", "values": ["Running"]}
    assert "delay" not in json.dumps(stage)
