"""The real local control plane: start, change, crash, repair and removal."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from controller.controlplane import schedulers
from controller.controlplane.errors import SchedulerRefusedError, SettingsChangedError
from controller.controlplane.nodes import NodeCapacity
from controller.controlplane.plane import ControlPlane
from tests.integration.sockets import ListeningSocket, listening_sockets
from tests.integration.vmsim import BIN
from tests.plane import install

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

COMPONENTS = [
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-scheduler-most-allocated",
    "kwok-controller",
]
MOST_ALLOCATED = {"most-allocated": schedulers.find("most-allocated")}
FAIRNESS = {
    "kube-apiserver": {
        "enable-priority-and-fairness": "true",
        "max-requests-inflight": "400",
        "max-mutating-requests-inflight": "200",
    }
}


def kubectl(plane: ControlPlane, *arguments: str, manifest: dict[str, Any] | None = None) -> str:
    """Run kubectl against a plane; return what it prints."""
    result = subprocess.run(
        [plane.kubectl, f"--kubeconfig={plane.kubeconfig}", "--request-timeout=10s", *arguments],
        input=json.dumps(manifest) if manifest else None,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return result.stdout or result.stderr


def nodes(plane: ControlPlane) -> list[str]:
    """List the names of the nodes that are Ready."""
    template = '{range .items[*]}{.metadata.name} {.status.conditions[?(@.type=="Ready")].status}{"\\n"}{end}'
    lines = kubectl(plane, "get", "nodes", f"--output=jsonpath={template}").splitlines()
    return [line.split()[0] for line in lines if line.endswith(" True")]


def pids(plane: ControlPlane) -> dict[str, int | None]:
    """Map the components to their process ids."""
    return {component.name: component.pid for component in plane.status()}


def sockets_of(plane: ControlPlane) -> list[ListeningSocket]:
    """Return the sockets on which the components listen."""
    return listening_sockets({name: pid for name, pid in pids(plane).items() if pid is not None})


def eventually(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition was never true"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory whose name has a space."""
    return tmp_path_factory.mktemp("a checkout")


@pytest.fixture(scope="module")
def plane(directory: Path) -> Iterator[ControlPlane]:
    """Run one plane for all tests that leave it healthy."""
    with ControlPlane(directory, nodes=2, scheduler_files=MOST_ALLOCATED) as running:
        yield running


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """Run a second plane beside it, with every option set."""
    directory = tmp_path_factory.mktemp("another")
    policy = directory / "audit-policy.yaml"
    policy.write_text("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: Metadata\n")
    with ControlPlane(directory, nodes=1, audit_policy=policy, component_args=FAIRNESS) as running:
        yield running


def test_up_returns_with_ready_nodes(plane: ControlPlane) -> None:
    """Pods can be scheduled at once."""
    assert nodes(plane) == ["kwok-node-1", "kwok-node-2"]


def test_up_starts_every_component(plane: ControlPlane) -> None:
    """The five of a control plane with fake nodes, and the additional scheduler."""
    assert sorted(pids(plane)) == COMPONENTS
    assert None not in pids(plane).values()


def test_every_socket_is_on_loopback(plane: ControlPlane) -> None:
    """etcd has no authentication."""
    sockets = sockets_of(plane)

    assert sorted({socket.component for socket in sockets}) == COMPONENTS
    assert [socket for socket in sockets if not socket.is_loopback] == []


@pytest.mark.parametrize("scheduler", ["default-scheduler", "most-allocated"])
def test_a_pod_runs_right_after_up(plane: ControlPlane, scheduler: str) -> None:
    """The schedulers, the default service account and the nodes exist when `up` returns."""
    assert runs(plane, f"of-{scheduler}", scheduler)


def runs(plane: ControlPlane, name: str, scheduler: str) -> bool:
    """Create a pod; return whether its scheduler places it."""
    spec = {
        "containers": [{"name": "main", "image": "none"}],
        "tolerations": [{"key": "kwok.x-k8s.io/node", "operator": "Exists"}],
        "schedulerName": scheduler,
    }
    manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
    assert kubectl(plane, "create", "--filename=-", manifest=manifest) == f"pod/{name} created\n"
    return "condition met" in kubectl(plane, "wait", f"pod/{name}", "--for=condition=Ready", "--timeout=20s")


def test_rbac_refuses_an_unknown_user(plane: ControlPlane) -> None:
    """So that missing permissions of the controller show in tests."""
    assert kubectl(plane, "auth", "can-i", "list", "pods", "--as=unknown").strip() == "no"


def test_up_again_changes_nothing(plane: ControlPlane) -> None:
    """`up` is safe to repeat."""
    before = pids(plane)

    plane.up()

    assert pids(plane) == before


def test_the_number_of_nodes_can_be_changed_on_a_running_plane(plane: ControlPlane, directory: Path) -> None:
    """The last number counts; the highest nodes are deleted first."""
    before = pids(plane)

    ControlPlane(directory, nodes=4).up()
    grown = nodes(plane)
    ControlPlane(directory, nodes=1).up()
    shrunk = nodes(plane)

    assert grown == ["kwok-node-1", "kwok-node-2", "kwok-node-3", "kwok-node-4"]
    assert shrunk == ["kwok-node-1"]
    assert pids(plane) == before


def test_the_size_of_nodes_can_be_changed_on_a_running_plane(plane: ControlPlane, directory: Path) -> None:
    """The last size counts."""
    ControlPlane(directory, nodes=1, capacity=NodeCapacity(cpu="4", memory="8Gi", pods=20)).up()

    allocatable = json.loads(kubectl(plane, "get", "node", "kwok-node-1", "--output=json"))["status"]["allocatable"]
    assert allocatable == {"cpu": "4", "memory": "8Gi", "pods": "20"}


@pytest.mark.parametrize("name", ["mine", "kwok-node-7"])
def test_up_accepts_a_foreign_node(plane: ControlPlane, name: str) -> None:
    """KWOK gives a node without capacity a million pods, written as 1M; its name may look like ours."""
    before = nodes(plane)
    mine = {"name": name, "annotations": {"kwok.x-k8s.io/node": "fake"}, "labels": {"type": "kwok"}}
    kubectl(plane, "create", "--filename=-", manifest={"apiVersion": "v1", "kind": "Node", "metadata": mine})
    try:
        assert "condition met" in kubectl(plane, "wait", f"node/{name}", "--for=condition=Ready", "--timeout=20s")
        plane.up()
        assert kubectl(plane, "get", "node", name, "--output=jsonpath={.status.capacity.pods}") == "1M"
        assert set(before) < set(nodes(plane))
    finally:
        kubectl(plane, "delete", "node", name)


def test_two_planes_run_side_by_side(plane: ControlPlane, other: ControlPlane) -> None:
    """They share no port, no process and no object."""
    ports = [{socket.port for socket in sockets_of(each)} for each in (plane, other)]
    kubectl(plane, "create", "namespace", "only-here")

    assert ports[0].isdisjoint(ports[1])
    assert set(plane.pids()).isdisjoint(other.pids())
    assert "not found" in kubectl(other, "get", "namespace", "only-here")


def definitions(plane: ControlPlane) -> list[dict[str, Any]]:
    """Return the definitions of our resources, without what differs between two installations."""
    names = [f"{plural}.simulation.node-classifier.io" for plural in ("virtualmachines", "virtualmachinemigrations")]
    found = []
    for name in names:
        crd = json.loads(kubectl(plane, "get", "crd", name, "--output=json", "--show-managed-fields"))
        for field in ("uid", "resourceVersion", "creationTimestamp"):
            del crd["metadata"][field]
        for entry in [*crd["metadata"]["managedFields"], *crd["status"]["conditions"]]:
            entry.pop("time", None)
            entry.pop("lastTransitionTime", None)
        crd["metadata"]["managedFields"].sort(key=json.dumps)
        found.append(crd)
    return found


def versions(plane: ControlPlane) -> list[str]:
    """Return the resource versions of the definitions."""
    return kubectl(plane, "get", "crd", "--output=jsonpath={.items[*].metadata.resourceVersion}").split()


def vmsim_install(plane: ControlPlane) -> str:
    """Install our resources by the command; return its output."""
    command = [str(BIN / "vmsim"), "install", "--kubeconfig", str(plane.kubeconfig)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def test_install_and_the_script_create_the_same_definitions(plane: ControlPlane, other: ControlPlane) -> None:
    """With the same field managers; either leaves the other's objects unchanged."""
    install(plane)
    said = vmsim_install(other)

    assert "virtualmachinemigrations.simulation.node-classifier.io is installed" in said
    assert definitions(plane) == definitions(other)
    before = versions(plane), versions(other)
    vmsim_install(plane)
    install(other)
    assert (versions(plane), versions(other)) == before
    assert "No resources found" in kubectl(other, "get", "virtualmachines,virtualmachinemigrations")


def test_audit_policy_gives_an_audit_log(other: ControlPlane) -> None:
    """Tests count requests by it."""
    kubectl(other, "get", "nodes", "--field-selector=metadata.name=audited")

    eventually(lambda: "metadata.name%3Daudited" in other.audit_log.read_text())


def test_component_arguments_are_in_force(other: ControlPlane) -> None:
    """Priority and fairness, which kwokctl switches off, is on."""
    assert "flowcontrol" in kubectl(other, "get", "--raw=/metrics")
    assert "apiserver_flowcontrol_nominal_limit_seats" in kubectl(other, "get", "--raw=/metrics")


def test_other_settings_are_refused_while_the_plane_exists(plane: ControlPlane, directory: Path) -> None:
    """Nothing is discarded silently."""
    with pytest.raises(SettingsChangedError, match="kube-apiserver"):
        ControlPlane(directory, component_args=FAIRNESS).up()

    assert None not in pids(plane).values()


def packing(other: ControlPlane, file: Path) -> ControlPlane:
    """Return the second plane with a scheduler `packing` of this file."""
    return ControlPlane(other.kubeconfig.parent, nodes=1, scheduler_files={"packing": file})


@pytest.fixture(scope="module")
def configuration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the configuration of a scheduler `packing`."""
    file = tmp_path_factory.mktemp("configuration") / "packing.yaml"
    file.write_text(MOST_ALLOCATED["most-allocated"].read_text().replace("most-allocated", "packing"))
    return file


def test_a_scheduler_is_added_to_a_running_plane(other: ControlPlane, configuration: Path) -> None:
    """Nothing else is restarted."""
    before = pids(other)

    packing(other, configuration).up()

    after = pids(other)
    assert after.pop("kube-scheduler-packing") is not None
    assert after == before
    assert runs(other, "packed", "packing")


def test_a_changed_file_restarts_its_scheduler_alone(other: ControlPlane, configuration: Path) -> None:
    """At the next `up`."""
    before = pids(other)
    configuration.write_text(configuration.read_text() + "parallelism: 4\n")

    packing(other, configuration).up()

    assert {name for name, pid in pids(other).items() if pid != before[name]} == {"kube-scheduler-packing"}


def test_a_file_that_kube_scheduler_refuses_changes_nothing(other: ControlPlane, configuration: Path) -> None:
    """The error is the one of its log; the scheduler goes on with the earlier configuration."""
    before = pids(other)
    bad = configuration.with_name("bad.yaml")
    bad.write_text(configuration.read_text().replace("MostAllocated", "MostAlocated"))

    with pytest.raises(SchedulerRefusedError, match=r'scoringStrategy\.type: Unsupported value: "MostAlocated"'):
        packing(other, bad).up()

    assert pids(other) == before
    assert runs(other, "packed-again", "packing")


def test_apiserver_can_be_stopped_and_started_alone(plane: ControlPlane) -> None:
    """The other components keep running, and the objects are kept."""
    kubectl(plane, "create", "namespace", "before-the-outage")
    before = pids(plane)

    plane.stop_component("kube-apiserver")
    refused = kubectl(plane, "get", "namespaces")
    during = pids(plane)
    plane.start_component("kube-apiserver")

    assert "refused" in refused
    assert during == {**before, "kube-apiserver": None}
    assert "before-the-outage" in kubectl(plane, "get", "namespaces")


def test_up_restarts_dead_components(plane: ControlPlane) -> None:
    """With their objects, whichever have died; a reboot ends all of them."""
    kubectl(plane, "create", "namespace", "before-the-crash")
    for pid in plane.pids():
        os.kill(pid, signal.SIGKILL)

    plane.up()

    assert None not in pids(plane).values()
    assert "before-the-crash" in kubectl(plane, "get", "namespaces")
    assert nodes(plane) == ["kwok-node-1", "kwok-node-2"]


def test_up_replaces_a_damaged_plane(other: ControlPlane, capfd: pytest.CaptureFixture[str]) -> None:
    """It says so."""
    kubectl(other, "create", "namespace", "before-the-damage")
    other.stop_component("etcd")
    for file in other.logs.parent.glob("pki/*"):
        file.unlink()

    other.up()

    assert "creating it again, its objects are lost" in capfd.readouterr().err
    assert "not found" in kubectl(other, "get", "namespace", "before-the-damage")
    assert nodes(other) == ["kwok-node-1"]


def start_up(directory: Path) -> subprocess.Popen[bytes]:
    """Run `up` as a process of its own; return once it has started etcd."""
    process = subprocess.Popen(
        [BIN / "vmsim", "up", "--state", directory],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    eventually(lambda: any("etcd" in line for line in command_lines(ControlPlane(directory))))
    return process


def command_lines(plane: ControlPlane) -> list[str]:
    """Return the command lines of a plane's processes."""
    paths = (Path(f"/proc/{pid}/cmdline") for pid in plane.pids())
    return [path.read_text() for path in paths if path.exists()]


def is_alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


def test_interrupted_up_leaves_no_process(tmp_path: Path) -> None:
    """By Ctrl-C during a start."""
    process = start_up(tmp_path)

    process.send_signal(signal.SIGINT)

    assert process.wait(timeout=20) == 130
    assert ControlPlane(tmp_path).pids() == []


def test_down_cleans_up_after_a_killed_up(tmp_path: Path) -> None:
    """The plane is half started."""
    process = start_up(tmp_path)
    process.kill()
    process.wait(timeout=20)
    plane = ControlPlane(tmp_path)

    plane.down()

    assert plane.pids() == []
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_up_starts_over_after_a_killed_up(tmp_path: Path) -> None:
    """A second run is enough."""
    process = start_up(tmp_path)
    process.kill()
    process.wait(timeout=20)

    with ControlPlane(tmp_path, nodes=1) as plane:
        assert nodes(plane) == ["kwok-node-1"]


def test_down_leaves_no_process_and_no_data(tmp_path: Path) -> None:
    """Also if a component had died before; a second run is no error."""
    plane = ControlPlane(tmp_path, nodes=1, scheduler_files=MOST_ALLOCATED)
    plane.up()
    plane.stop_component("kube-scheduler")
    ended = plane.pids()

    plane.down()
    plane.down()

    assert plane.pids() == []
    assert [pid for pid in ended if is_alive(pid)] == []
    assert not plane.kubeconfig.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]
