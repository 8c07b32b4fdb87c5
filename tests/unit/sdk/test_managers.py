"""What managers refuse before they ask, and what they make of a cluster that is none."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from controller.kube.errors import KubeError
from controller.sdk.errors import CRDMissingError, InvalidValueError, NoClusterError, SimulatorError
from controller.sdk.node import VM
from controller.sdk.pod_manager import PodManager
from controller.sdk.prometheus_exporter import ExporterState
from controller.sdk.vm_manager import VMManager
from tests.unit.kube.builders import kubeconfig

KINDS = [VMManager, PodManager, ExporterState]


class _Bare(BaseHTTPRequestHandler):
    """An API server that knows no resource of ours."""

    def do_GET(self) -> None:
        """Answer as the API server does for a path that is not there."""
        body = b"404 page not found\n"
        self.send_response(404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""


@pytest.fixture(scope="module")
def without_crds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return a kubeconfig of a cluster without our resources."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Bare) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        config = tmp_path_factory.mktemp("without-crds") / "config"
        yield str(kubeconfig(config, f"http://127.0.0.1:{server.server_port}"))
        server.shutdown()
        thread.join()


@pytest.fixture
def nobody(tmp_path: Path) -> str:
    """Return a kubeconfig that leads nowhere."""
    return str(kubeconfig(tmp_path / "config", "http://127.0.0.1:1"))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_no_credentials_are_an_error_when_the_manager_is_made(
    kind: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With what to do."""
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(NoClusterError, match="Start a local one with `vmsim up`"):
        kind()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_namespace_that_cannot_be_is_refused_when_the_manager_is_made(kind: Any, nobody: str) -> None:
    """It would be part of a URL."""
    with pytest.raises(InvalidValueError, match=r"namespace is '\.\./x'"):
        kind(namespace="../x", kubeconfig=nobody)


@pytest.mark.parametrize("kind", [VMManager, PodManager, ExporterState])
def test_a_context_that_is_not_there_is_an_error_that_names_it(kind: Any, nobody: str) -> None:
    """And those that are."""
    with pytest.raises(NoClusterError, match="context 'x', which is not there; there are test"):
        kind(kubeconfig=nobody, context="x")._connection.run(lambda client: client.ready())


def test_a_kubeconfig_that_is_not_there_is_an_error_that_names_it() -> None:
    """And its cause is chained."""
    with pytest.raises(NoClusterError, match="cannot use /nowhere/config: it does not exist") as missing:
        VMManager(kubeconfig="/nowhere/config").list_vms()
    assert isinstance(missing.value.__cause__, KubeError)


def test_a_server_that_does_not_answer_is_an_error_that_names_it(nobody: str) -> None:
    """At once: a refused connection needs no deadline."""
    with pytest.raises(NoClusterError, match=r"the API server does not answer: .*127\.0\.0\.1"):
        VMManager(kubeconfig=nobody).get_vm_status("vm-1")


@pytest.mark.parametrize(
    "call",
    [
        lambda config: VMManager(kubeconfig=config).get_vm_status("vm-1"),
        lambda config: VMManager(kubeconfig=config).list_vms(),
        lambda config: VMManager(kubeconfig=config).delete_vm("vm-1"),
        lambda config: VMManager(kubeconfig=config).wait_for_phase("vm-1"),
        lambda config: VMManager(kubeconfig=config).cleanup_all_vms(),
        lambda config: PodManager(kubeconfig=config).delete_pod(VM("vm-1", 0.1, 0.1)),
        lambda config: PodManager(kubeconfig=config).migrate(VM("vm-1", 0.1, 0.1)),
        lambda config: PodManager(kubeconfig=config).update_vm_node_assignments([VM("vm-1", 0.1, 0.1)]),
        lambda config: ExporterState(kubeconfig=config).load_scenario([]),
    ],
    ids=["get", "list", "delete", "wait", "cleanup", "delete_pod", "migrate", "update", "load"],
)
def test_a_cluster_without_our_resources_is_told_apart(call: Any, without_crds: str) -> None:
    """With what to run."""
    with pytest.raises(CRDMissingError, match="install them with vmsim install"):
        call(without_crds)


@pytest.mark.parametrize(
    "call",
    [
        lambda vms: vms.get_vm_status("a/b"),
        lambda vms: vms.create_vm("a/b", 0.1, 0.1),
        lambda vms: vms.create_vm("a"),
        lambda vms: vms.create_vm("a", 0.1, 1.1),
        lambda vms: vms.create_vm("a", 0.1, 0.1, cpu_consumption="much"),
        lambda vms: vms.create_vm(VM("a", 0.1, 0.1), 0.1),
        lambda vms: vms.delete_vm("a/b"),
        lambda vms: vms.wait_for_phase("a", "running"),
        lambda vms: vms.wait_for_phase("a", timeout=float("inf")),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_sent(call: Any, nobody: str) -> None:
    """Or the error would be that nobody answers."""
    with pytest.raises(InvalidValueError):
        call(VMManager(kubeconfig=nobody))


def test_a_vm_that_was_spoilt_since_is_refused_too(nobody: str) -> None:
    """Its fields can be assigned."""
    vm = VM("vm-1", 0.1, 0.1)
    vm.id = "../nodes"
    for call in (PodManager(kubeconfig=nobody).create_pod, PodManager(kubeconfig=nobody).delete_pod):
        with pytest.raises(InvalidValueError, match=r"id is '\.\./nodes'"):
            call(vm)


def test_every_error_has_one_root() -> None:
    """So that one except clause is enough."""
    from controller.sdk import errors  # noqa: PLC0415 - looked through, not used

    assert all(issubclass(getattr(errors, name), SimulatorError) for name in errors.__all__)


def test_a_manager_says_where_it_works(nobody: str) -> None:
    """In a REPL."""
    assert repr(VMManager("lab", nobody)) == f"VMManager('lab' of '{nobody}')"
