"""The configuration of kwokctl: it downloads nothing, listens on loopback only, and chooses no port."""

from pathlib import Path

import pytest

from controller.controlplane.errors import InvalidSettingError
from controller.controlplane.kwokctl import Component, check_paths, configuration, environment, read_components
from controller.controlplane.ports import Ports
from tests.unit.controlplane.support import VERSIONS

BINARIES = {name: Path("/cache") / name for name in VERSIONS}
PORTS = Ports(
    etcd=1,
    etcd_peer=2,
    kube_apiserver=3,
    kube_controller_manager=4,
    kube_scheduler=5,
    kwok_controller=6,
)


def test_servers_are_bound_to_loopback() -> None:
    """By default all of them listen on every address."""
    options = configuration(BINARIES, PORTS, {}, None)["options"]

    assert options["bindAddress"] == "127.0.0.1"


def test_every_port_is_set() -> None:
    """Two kwokctl that choose ports themselves would choose the same ones."""
    options = configuration(BINARIES, PORTS, {}, None)["options"]

    ports = {name: value for name, value in options.items() if name.endswith("Port")}
    assert ports == {
        "etcdPort": 1,
        "etcdPeerPort": 2,
        "kubeApiserverPort": 3,
        "kubeControllerManagerPort": 4,
        "kubeSchedulerPort": 5,
        "kwokControllerPort": 6,
    }


def test_every_binary_is_set() -> None:
    """kwokctl downloads a binary that is not set."""
    options = configuration(BINARIES, PORTS, {}, None)["options"]

    binaries = {value for name, value in options.items() if name.endswith("Binary")}
    assert binaries == {str(path) for name, path in BINARIES.items() if name != "kwokctl"}


def test_the_audit_policy_is_set_if_the_plane_has_one() -> None:
    """kwokctl copies it and configures the log."""
    options = configuration(BINARIES, PORTS, {}, Path("/policy.yaml"))["options"]

    assert options["kubeAuditPolicy"] == "/policy.yaml"


def test_the_callers_component_arguments_come_after_our_own() -> None:
    """A component uses the last value of a repeated flag."""
    args = {"kube-scheduler": {"v": "4"}, "kube-apiserver": {"max-requests-inflight": "400"}}

    patches = configuration(BINARIES, PORTS, args, None)["componentsPatches"]

    assert patches == [
        {"name": "kube-apiserver", "extraArgs": [{"key": "max-requests-inflight", "value": "400"}]},
        {
            "name": "kube-controller-manager",
            "extraArgs": [
                {"key": "leader-elect", "value": "false"},
                {"key": "use-service-account-credentials", "value": "true"},
            ],
        },
        {
            "name": "kube-scheduler",
            "extraArgs": [{"key": "leader-elect", "value": "false"}, {"key": "v", "value": "4"}],
        },
    ]


def test_the_environment_has_our_kubectl_and_none_of_the_users_kwok_settings() -> None:
    """KWOK_* variables would override the configuration."""
    given = {"PATH": "/bin", "HOME": "/home/me", "KWOK_RUNTIME": "docker", "LANG": "C"}

    assert environment(given, Path("/state"), Path("/venv/bin/kubectl")) == {
        "PATH": "/venv/bin:/bin",
        "HOME": "/state",
        "LANG": "C",
    }


def test_directory_with_a_comma_is_refused() -> None:
    """Before the start, which would fail in a component."""
    with pytest.raises(InvalidSettingError, match="comma"):
        check_paths(Path("/a, b"), [])


def test_binary_that_looks_like_a_file_in_an_archive_is_refused() -> None:
    """kwokctl would try to download it."""
    with pytest.raises(InvalidSettingError, match="contains a #"):
        check_paths(Path("/state"), [Path("/cache/#1/etcd")])


def test_components_are_read_from_kwokctls_configuration(tmp_path: Path) -> None:
    """Later starts are the same as the first one."""
    (tmp_path / "kwok.yaml").write_text(
        "kind: KwokConfiguration\n"
        "---\n"
        "kind: KwokctlConfiguration\n"
        "components:\n"
        "- name: etcd\n"
        "  binary: /bin/etcd\n"
        "  args: [--name=node0]\n"
        "  envs:\n"
        "  - {name: ETCD_UNSUPPORTED_ARCH, value: arm64}\n"
        "---\n"
        "kind: Stage\n"
    )

    assert read_components(tmp_path) == {
        "etcd": Component("etcd", "/bin/etcd", ("--name=node0",), {"ETCD_UNSUPPORTED_ARCH": "arm64"})
    }


@pytest.mark.parametrize("content", ["", "kind: Stage\n", "a: [\n", "just text\n"])
def test_unfinished_configuration_has_no_components(tmp_path: Path, content: str) -> None:
    """kwokctl may have been killed at any moment."""
    (tmp_path / "kwok.yaml").write_text(content)

    assert read_components(tmp_path) == {}


def test_missing_configuration_has_no_components(tmp_path: Path) -> None:
    """kwokctl may have been killed before it wrote the file."""
    assert read_components(tmp_path) == {}
