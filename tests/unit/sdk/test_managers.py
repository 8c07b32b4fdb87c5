"""Arguments that managers refuse before any request, and the errors of a cluster that cannot be used."""

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
    """An API server without our resources."""

    def do_GET(self) -> None:
        """Answer as the API server does for an unknown path."""
        body = b"404 page not found\n"
        self.send_response(404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


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
def unreachable(tmp_path: Path) -> str:
    """Return a kubeconfig of a server that does not answer."""
    return str(kubeconfig(tmp_path / "config", "http://127.0.0.1:1"))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_manager_cannot_be_created_without_credentials(
    kind: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The error says what to do."""
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(NoClusterError, match="Start a local one with `vmsim up`"):
        kind()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_invalid_namespace_is_refused_when_the_manager_is_created(kind: Any, unreachable: str) -> None:
    """It would become part of a URL."""
    with pytest.raises(InvalidValueError, match=r"namespace is '\.\./x'"):
        kind(namespace="../x", kubeconfig=unreachable)


@pytest.mark.parametrize("kind", [VMManager, PodManager, ExporterState])
def test_a_missing_context_is_named(kind: Any, unreachable: str) -> None:
    """With the contexts that exist."""
    with pytest.raises(NoClusterError, match="context 'x', which is not there; there are test"):
        kind(kubeconfig=unreachable, context="x")._connection.run(lambda client: client.ready())


def test_a_missing_kubeconfig_is_named() -> None:
    """The cause is chained."""
    with pytest.raises(NoClusterError, match="cannot use /nowhere/config: it does not exist") as missing:
        VMManager(kubeconfig="/nowhere/config").list_vms()
    assert isinstance(missing.value.__cause__, KubeError)


def test_a_server_that_does_not_answer_is_named(unreachable: str) -> None:
    """At once: a refused connection needs no deadline."""
    with pytest.raises(NoClusterError, match=r"the API server does not answer: .*127\.0\.0\.1"):
        VMManager(kubeconfig=unreachable).get_vm_status("vm-1")


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
def test_a_cluster_without_our_resources_is_an_error_of_its_own(call: Any, without_crds: str) -> None:
    """With the command that installs them."""
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
        lambda vms: vms.create_vm(VM("a", 0.1, 0.1), labels={}),
        lambda vms: vms.create_vm("a", 0.1, 0.1, labels={"a b": "c"}),
        lambda vms: vms.create_vm("a", 0.1, 0.1, labels={"a": "b c"}),
        lambda vms: vms.create_vm("a", 0.1, 0.1, annotations={"a": 1}),
        lambda vms: vms.create_vm("a", 0.1, 0.1, annotations=["a"]),
        lambda vms: vms.create_vm("a", 0.1, 0.1, placement={"nodeSelektor": {}}),
        lambda vms: vms.create_vm("a", 0.1, 0.1, placement=["a"]),
        lambda vms: vms.delete_vm("a/b"),
        lambda vms: vms.wait_for_phase("a", "running"),
        lambda vms: vms.wait_for_phase("a", timeout=float("inf")),
        lambda vms: vms.drain("n1", strategy="live"),
    ],
)
def test_an_invalid_argument_is_refused_before_any_request(call: Any, unreachable: str) -> None:
    """A request would raise NoClusterError here."""
    with pytest.raises(InvalidValueError):
        call(VMManager(kubeconfig=unreachable))


def test_a_bare_pod_does_not_move_live(unreachable: str) -> None:
    """Nothing would copy its memory: it is said before anything is deleted."""
    with pytest.raises(InvalidValueError, match="strategy is 'Live', which bare pods cannot do"):
        PodManager(create_vm_crs=False, kubeconfig=unreachable).migrate(VM("vm-1", 0.1, 0.1), strategy="Live")


def test_an_invalid_value_that_was_assigned_to_a_vm_is_refused(unreachable: str) -> None:
    """Every call checks the fields again."""
    vm = VM("vm-1", 0.1, 0.1)
    vm.id = "../nodes"
    for call in (PodManager(kubeconfig=unreachable).create_pod, PodManager(kubeconfig=unreachable).delete_pod):
        with pytest.raises(InvalidValueError, match=r"id is '\.\./nodes'"):
            call(vm)


def test_every_error_is_a_simulator_error() -> None:
    """One except clause is enough."""
    from controller.sdk import errors  # noqa: PLC0415 - looked through, not used

    assert all(issubclass(getattr(errors, name), SimulatorError) for name in errors.__all__)


def test_the_repr_of_a_manager_names_its_namespace_and_kubeconfig(unreachable: str) -> None:
    """For a REPL."""
    assert repr(VMManager("lab", unreachable)) == f"VMManager('lab' of '{unreachable}')"
