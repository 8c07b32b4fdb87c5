"""docker-compose.yaml is valid, self-contained, pinned, and lets in nobody from outside."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from controller.cli.main import app
from controller.controlplane.nodes import NodeCapacity, node_manifest
from tests.unit.manifests.shipped import GRAFANA, PROMETHEUS, REPOSITORY, load

COMPOSE = REPOSITORY / "docker-compose.yaml"
KWOK = REPOSITORY / "manifests" / "kwok"
SERVICES: dict[str, Any] = load(COMPOSE)["services"]
HARDENED = sorted(SERVICES.keys() - {"cluster"})  # a whole control plane writes, and is started as root by its image


def mounts(service: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return source, target and mode of each of a service's mounts."""
    found = []
    for volume in service.get("volumes", ()):
        source, target, *mode = volume.split(":")
        found.append((source, target, *(mode or ["rw"])))
    return found


def in_container(service: str, path: str) -> Path:
    """Return the file of the repository that a container sees at a path."""
    for source, target, _ in mounts(SERVICES[service]):
        if path == target or path.startswith(f"{target}/"):
            return REPOSITORY / source / path[len(target) :].lstrip("/")
    raise AssertionError(f"{service} has nothing at {path}")


def has_compose() -> bool:
    """Whether `docker compose` is there; it reads files without an engine."""
    command = ["docker", "compose", "version"]
    return bool(shutil.which("docker")) and not subprocess.run(command, capture_output=True, check=False).returncode


def test_the_file_has_the_form_that_the_compose_specification_asks_for() -> None:
    """By the specification's own schema."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=15)
    assert done.returncode == 0, done.stdout


@pytest.mark.skipif(not has_compose(), reason="docker has no compose plugin here")
def test_docker_compose_reads_the_file() -> None:
    """References between services, variables and merged keys included."""
    command = ["docker", "compose", "--file", str(COMPOSE), "config", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=15)
    assert done.returncode == 0, done.stderr


def test_every_published_port_is_on_loopback() -> None:
    """The cluster asks for no credentials, so it must not be reachable from other machines."""
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert ports
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in ports), ports
    assert not any("network_mode" in service for service in SERVICES.values())


@pytest.mark.parametrize("name", SERVICES)
def test_images_are_pinned_to_a_release(name: str) -> None:
    """`latest`, or a tag that moves with minor releases, is another image tomorrow."""
    service = SERVICES[name]
    if "image" in service:
        assert re.search(r":v?\d+\.\d+\.\d+(-[\w.]+)?$", service["image"]), service["image"]
    else:
        assert service["build"] == "."


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_mounted_exists_and_is_read_only(name: str) -> None:
    """Docker makes an empty folder of what does not exist. Data goes to volumes, which are declared."""
    for source, _, mode in mounts(SERVICES[name]):
        if source.startswith("./"):
            assert (REPOSITORY / source).exists(), source
            assert mode == "ro", source
        else:
            assert source in load(COMPOSE)["volumes"]


@pytest.mark.parametrize("name", HARDENED)
def test_containers_have_no_more_rights_than_they_need(name: str) -> None:
    """No capability, no way to gain one, no writable root file system."""
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("name", SERVICES)
def test_what_runs_on_says_whether_it_is_well_and_comes_back(name: str) -> None:
    """What runs once is waited for by the others, or is the last."""
    service = SERVICES[name]
    once = service.get("command", [""])[1:2] == ["apply"]
    assert ("healthcheck" in service, service.get("restart")) == ((False, None) if once else (True, "unless-stopped"))


def test_services_wait_for_what_they_need() -> None:
    """For its being well, or done, not only for its start."""
    waits = {
        (name, on): how["condition"] for name, it in SERVICES.items() for on, how in it.get("depends_on", {}).items()
    }
    assert waits == {
        ("setup", "cluster"): "service_healthy",
        ("controller", "setup"): "service_completed_successfully",
        ("examples", "controller"): "service_healthy",
        ("grafana", "prometheus"): "service_healthy",
    }


def test_the_controller_s_variables_are_some_that_it_reads() -> None:
    """By its own help."""
    result = CliRunner().invoke(app, ["controller", "--help"], env={"COLUMNS": "200"})
    known = set(re.findall(r"VMSIM_\w+", result.output))
    assert set(SERVICES["controller"]["environment"]) <= known


def test_the_controller_finds_its_kubeconfig_and_that_names_the_cluster() -> None:
    """At the port on which the cluster's container listens."""
    path = in_container("controller", SERVICES["controller"]["environment"]["VMSIM_KUBECONFIG"])
    server = load(path)["clusters"][0]["cluster"]["server"]
    assert server == "http://cluster:8080"
    assert SERVICES["cluster"]["ports"][0].endswith(":8080")
    assert f"--server={server}" in SERVICES["setup"]["command"]
    assert f"--server={server}" in SERVICES["examples"]["command"]


@pytest.mark.parametrize("name", ["setup", "examples"])
def test_what_is_applied_is_mounted(name: str) -> None:
    """Each --filename names something of the repository."""
    names = [item.partition("=")[2] for item in SERVICES[name]["command"] if item.startswith("--filename=")]
    assert names
    assert all(in_container(name, path).exists() for path in names)


def test_prometheus_and_grafana_find_what_is_shipped_for_them() -> None:
    """Configuration and rules; data source and dashboard. The data source is the Prometheus of this file."""
    flags = dict(item.split("=") for item in SERVICES["prometheus"]["command"])
    assert in_container("prometheus", flags["--config.file"]) == PROMETHEUS / "prometheus.yml"
    assert ("prometheus", flags["--storage.tsdb.path"], "rw") in mounts(SERVICES["prometheus"])
    assert load(PROMETHEUS / "prometheus.yml")["scrape_configs"][0]["static_configs"] == [
        {"targets": ["controller:8080"]}
    ]
    assert in_container("grafana", "/etc/grafana/provisioning") == GRAFANA / "provisioning"
    (provider,) = load(GRAFANA / "provisioning" / "dashboards" / "vmsim.yaml")["providers"]
    assert in_container("grafana", provider["options"]["path"]) == GRAFANA / "dashboards"
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert in_container("grafana", home) == GRAFANA / "dashboards" / "vmsim.json"
    (source,) = load(GRAFANA / "provisioning" / "datasources" / "prometheus.yaml")["datasources"]
    assert source["url"] == "http://prometheus:9090"


def test_grafana_knows_how_often_prometheus_scrapes() -> None:
    """It derives from it the intervals of rates; too short ones show nothing."""
    (source,) = load(GRAFANA / "provisioning" / "datasources" / "prometheus.yaml")["datasources"]
    assert source["jsonData"]["timeInterval"] == load(PROMETHEUS / "prometheus.yml")["global"]["scrape_interval"]


def test_the_fake_nodes_are_those_of_make_up() -> None:
    """Name, labels, taint and size, so that VMs land on them and ratios mean the same."""
    shipped = list(yaml.safe_load_all((KWOK / "nodes.yaml").read_text()))
    wanted = [node_manifest(f"kwok-node-{number}", NodeCapacity()) for number in (1, 2, 3)]
    for manifest in wanted:
        del manifest["status"]["phase"]  # KWOK's to say
    assert shipped == wanted
