"""`vmsim migrate`, `migrations` and `drain` on a real control plane with the real controller."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from controller.controlplane.plane import ControlPlane
from tests.integration import accounts
from tests.integration.tools import TIMEOUT, Controller, Kubectl
from tests.integration.vmsim import Vmsim
from tests.plane import install

pytestmark = pytest.mark.timeout(60)  # the first test starts a control plane

NODES = ("kwok-node-1", "kwok-node-2", "kwok-node-3")
LARGE = "0.60"
"""Two such VMs do not fit on one node."""
COMMANDS = (("migrate", "vm-1"), ("migrations",), ("drain", "kwok-node-1"))


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """Run a control plane of this module's own, since drains cordon nodes; our resources are installed later."""
    directory = tmp_path_factory.mktemp("cli-plane")
    with ControlPlane(directory / "state", nodes=len(NODES), audit_policy=accounts.audit_policy(directory)) as plane:
        yield plane


@pytest.fixture(scope="module")
def vmsim(plane: ControlPlane) -> Vmsim:
    """Return the program against this module's control plane."""
    return Vmsim.against(plane.kubeconfig)


@pytest.fixture(scope="module")
def without_resources(vmsim: Vmsim, plane: ControlPlane) -> dict[str, tuple[int, str, str]]:
    """Return the results of the commands before our resources were installed, and the nodes cordoned then."""
    said = {command[0]: vmsim(*command) for command in COMMANDS}
    nodes = Kubectl(plane.kubectl, plane.kubeconfig)("get", "nodes", "-o", "jsonpath={.items[*].spec.unschedulable}")
    return {name: (done.returncode, done.stderr, nodes) for name, done in said.items()}


@pytest.fixture(scope="module")
def kubectl(plane: ControlPlane, without_resources: dict[str, tuple[int, str, str]]) -> Kubectl:
    """Install our resources; return kubectl."""
    assert without_resources
    install(plane)
    return Kubectl(plane.kubectl, plane.kubeconfig)


@pytest.fixture(scope="module")
def controller(plane: ControlPlane, kubectl: Kubectl, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controller]:
    """Run the controller for the namespace default alone."""
    assert kubectl.namespace == "default"
    log = tmp_path_factory.mktemp("cli-controller") / "log"
    with Controller.start(plane.kubeconfig, log, "--namespaces", "default") as process:
        yield process


@pytest.fixture
def cluster(kubectl: Kubectl, controller: Controller) -> Iterator[Kubectl]:
    """Return kubectl with a running controller; leave no VM, no migration and no cordon behind."""
    assert controller.process.poll() is None
    yield kubectl
    kubectl("delete", "vm,vmm", "--all", "--wait=true")
    kubectl("uncordon", *NODES)
    kubectl.eventually("get", "pods", "-o", "name", until=lambda text: not text)


def start(cluster: Kubectl, *names: str, memory: str = "0.05") -> dict[str, str]:
    """Start VMs on the schedulable nodes; return their nodes."""
    for name in names:
        cluster.apply_vm(name, cpu="0.05", memory=memory)
    return {name: cluster.wait_phase(name, "Running")["status"]["nodeName"] for name in names}


def start_on(cluster: Kubectl, node: str, *names: str, memory: str = "0.05") -> None:
    """Start VMs on this node."""
    others = [other for other in NODES if other != node]
    cluster("cordon", *others)
    assert set(start(cluster, *names, memory=memory).values()) == {node}
    cluster("uncordon", *others)


def names() -> tuple[str, str, str]:
    """Return three VM names that no test used: failed migrations of a name delay its next one."""
    run = uuid4().hex[:6]
    return f"a-{run}", f"b-{run}", f"c-{run}"


# --- before our resources are there --------------------------------------------------------------------------


@pytest.mark.parametrize("command", [command[0] for command in COMMANDS])
def test_a_command_without_our_resources_prints_one_line(
    without_resources: dict[str, tuple[int, str, str]], command: str
) -> None:
    """It names the command to run; a drain has cordoned nothing."""
    code, error, cordoned = without_resources[command]
    assert code == 1
    assert error == "error: the cluster does not know our resources: install them with vmsim install\n"
    assert cordoned == ""


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_command_without_a_cluster_prints_one_line(vmsim: Vmsim, tmp_path: Path, command: tuple[str, ...]) -> None:
    """With the address that was tried."""
    config = tmp_path / "config"
    config.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "c",
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
                "users": [{"name": "u", "user": {}}],
            }
        )
    )
    done = vmsim(*command, "--kubeconfig", str(config))
    assert done.returncode == 1
    assert done.stderr.startswith("error: the API server does not answer: ")
    assert "127.0.0.1" in done.stderr
    assert done.stderr.count("\n") == 1


# --- migrate -------------------------------------------------------------------------------------------------


def test_migrate_prints_only_the_name_of_the_migration(cluster: Kubectl, vmsim: Vmsim) -> None:
    """A script can use the output."""
    vm, *_ = names()
    start(cluster, vm)
    done = vmsim("migrate", vm, "--reason", "tea time")
    assert (done.returncode, done.stderr) == (0, "")
    spec = cluster.json("get", "vmm", done.stdout.strip())["spec"]
    assert done.stdout.startswith(f"{vm}-")
    assert (spec["vmName"], spec["reason"], spec["priority"]) == (vm, "tea time", "user-triggered")


def test_migrate_waits_until_the_vm_runs_elsewhere(cluster: Kubectl, vmsim: Vmsim) -> None:
    """The last line has source, target and downtime."""
    vm, *_ = names()
    source = start(cluster, vm)[vm]
    done = vmsim("migrate", vm, "--wait")
    assert (done.returncode, done.stderr) == (0, "")
    status = cluster.json("get", "vm", vm)["status"]
    name, *_, last = done.stdout.splitlines()
    downtime = cluster.json("get", "vmm", name)["status"]["downtimeSeconds"]
    assert status["phase"] == "Running"
    assert status["nodeName"] != source
    assert last == f"{vm}: {source} → {status['nodeName']}, downtime {downtime} s"


def test_a_vm_moves_live_if_asked_to(cluster: Kubectl, vmsim: Vmsim) -> None:
    """The controller's default is to recreate it. The guest is paused for a moment, and is never down."""
    vm, *_ = names()
    source = start(cluster, vm, memory="0.002")[vm]
    before = cluster.json("get", "vm", vm)["status"]["conditions"]
    done = vmsim("migrate", vm, "--strategy", "Live", "--wait")
    assert (done.returncode, done.stderr) == (0, "")
    status = cluster.json("get", "vm", vm)["status"]
    assert status["nodeName"] != source
    ready = [
        next(found for found in conditions if found["type"] == "Ready") for conditions in (before, status["conditions"])
    ]
    assert ready[0]["lastTransitionTime"] == ready[1]["lastTransitionTime"]
    assert cluster.json("get", "vmm", done.stdout.split()[0])["status"]["strategy"] == "Live"


def test_a_live_move_is_cancelled_before_its_hand_over(cluster: Kubectl, vmsim: Vmsim) -> None:
    """By the name of its VM, which stays where it is; a second time there is nothing to cancel."""
    vm, *_ = names()
    source = start(cluster, vm, memory="0.40")[vm]
    name = vmsim("migrate", vm, "--strategy", "Live").stdout.strip()
    cluster.eventually("get", "vmm", name, "-o", "jsonpath={.status.phase}", until="Running".__eq__)
    done = vmsim("migrate", vm, "--cancel")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{name}: Cancelled: ")
    assert cluster.json("get", "vm", vm)["status"]["nodeName"] == source
    again = vmsim("migrate", vm, "--cancel")
    assert (again.returncode, again.stderr) == (
        1,
        f"error: VM {vm} has no migration in progress: see vmsim migrations -n default\n",
    )


def test_migrate_moves_to_the_given_node(cluster: Kubectl, vmsim: Vmsim) -> None:
    """With --to."""
    vm, *_ = names()
    source = start(cluster, vm)[vm]
    target = next(node for node in reversed(NODES) if node != source)
    assert vmsim("migrate", vm, "--to", target, "--wait").returncode == 0
    assert cluster.json("get", "vm", vm)["status"]["nodeName"] == target


def test_migrate_prints_why_it_failed(cluster: Kubectl, vmsim: Vmsim) -> None:
    """With exit code 1, the reason in one word, and the controller's message."""
    vm, *_ = names()
    start(cluster, vm)
    done = vmsim("migrate", vm, "--to", "nowhere", "--wait")
    status = cluster.json("get", "vmm", done.stdout.split()[0])["status"]
    assert done.returncode == 1
    assert status["failureReason"] == "TargetNotFound"
    assert done.stderr == f"error: {vm} did not move: TargetNotFound: {status['message']}\n"


@pytest.mark.usefixtures("cluster")
def test_migrate_of_a_missing_vm_creates_nothing(kubectl: Kubectl, vmsim: Vmsim) -> None:
    """The error names VM and namespace."""
    done = vmsim("migrate", "missing", "-n", "default")
    assert done.returncode == 1
    assert done.stderr == "error: there is no VM missing in namespace default: see kubectl get vm -A\n"
    assert kubectl("get", "vmm", "-o", "name") == ""


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--to", "Not A Node"), "spec.targetNode must be a node's name"),
        (("--reason", "x" * 129), "spec.reason: Too long"),
    ],
    ids=["node", "reason"],
)
def test_a_refusal_of_the_api_server_is_printed_in_its_words(
    cluster: Kubectl, vmsim: Vmsim, flags: tuple[str, ...], message: str
) -> None:
    """In one line."""
    vm, *_ = names()
    cluster.apply_vm(vm, running=False)
    done = vmsim("migrate", vm, *flags)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_ctrl_c_in_a_wait_prints_a_command_that_cancels(cluster: Kubectl, vmsim: Vmsim) -> None:
    """The migration continues until that command runs."""
    vm, other, _ = names()
    start_on(cluster, NODES[0], vm, memory=LARGE)
    start_on(cluster, NODES[1], other, memory=LARGE)
    code, text = vmsim.interrupted("migrate", vm, "--to", NODES[1], "--wait", after="Pending: ")
    name = text.split()[0]
    assert code == 130
    assert "The migration goes on." in text
    assert "Traceback" not in text
    assert cluster.json("get", "vmm", name)["status"]["phase"] == "Pending"
    command = next(line for line in text.splitlines() if "kubectl patch" in line)
    cluster.shell(command)
    cluster.eventually("get", "vmm", name, "-o", "jsonpath={.status.failureReason}", until="Cancelled".__eq__)
    assert cluster.json("get", "vm", vm)["status"]["nodeName"] == NODES[0]


def test_ctrl_c_twice_in_a_wait_cancels_the_migration(cluster: Kubectl, vmsim: Vmsim) -> None:
    """The command ends when the controller has cancelled it."""
    vm, other, _ = names()
    start_on(cluster, NODES[0], vm, memory=LARGE)
    start_on(cluster, NODES[1], other, memory=LARGE)
    with vmsim.running("migrate", vm, "--to", NODES[1], "--wait") as (process, output):
        output.wait_for(lambda lines: any("Pending: " in line for line in lines))
        process.send_signal(signal.SIGINT)
        output.wait_for(lambda lines: any("Ctrl-C again" in line for line in lines))
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT) == 130
        output.join()
        name, *_, last = output.wait_for(lambda _: True)
    assert last.startswith(f"{name}: Cancelled: ")
    assert cluster.json("get", "vm", vm)["status"]["nodeName"] == NODES[0]


def test_a_wait_ends_at_its_timeout(cluster: Kubectl, vmsim: Vmsim) -> None:
    """The error has the state of the migration, and says that it continues."""
    vm, other, _ = names()
    start_on(cluster, NODES[0], vm, memory=LARGE)
    start_on(cluster, NODES[1], other, memory=LARGE)
    done = vmsim("migrate", vm, "--to", NODES[1], "--wait", "--timeout", "1")
    assert done.returncode == 1
    assert done.stderr.startswith("error: after 1 s the migration is Pending: ")
    assert "it goes on. To cancel it: kubectl patch vmm -n default" in done.stderr


def test_a_wait_ends_when_the_migration_is_deleted(cluster: Kubectl, vmsim: Vmsim) -> None:
    """With exit code 1."""
    vm, other, _ = names()
    start_on(cluster, NODES[0], vm, memory=LARGE)
    start_on(cluster, NODES[1], other, memory=LARGE)
    with vmsim.running("migrate", vm, "--to", NODES[1], "--wait") as (process, output):
        name = output.wait_for(lambda lines: any("Pending: " in line for line in lines))[0]
        cluster("delete", "vmm", name)
        assert process.wait(TIMEOUT) == 1
        output.wait_for(lambda lines: lines[-1] == f"error: migration {name} was deleted")


@pytest.mark.usefixtures("cluster")
def test_migrate_uses_the_kubeconfigs_namespace(kubectl: Kubectl, vmsim: Vmsim, tmp_path: Path) -> None:
    """As kubectl does; no controller watches this one, so the wait fails."""
    with kubectl.own_namespace(tmp_path) as own:
        own.apply_vm("lonely")
        done = vmsim("migrate", "lonely", "--wait", "--timeout", "0.1", "--kubeconfig", str(own.kubeconfig))
        assert done.returncode == 1
        assert f"kubectl patch vmm -n {own.namespace} lonely-" in done.stderr
        assert own("get", "vmm", "-o", "jsonpath={.items[*].spec.vmName}") == "lonely"


def test_progress_is_drawn_on_a_terminal(cluster: Kubectl, vmsim: Vmsim) -> None:
    """On a line that is erased at the end."""
    vm, other, _ = names()
    start_on(cluster, NODES[0], vm, memory=LARGE)
    start_on(cluster, NODES[1], other, memory=LARGE)
    code, drawn = vmsim.on_terminal("migrate", vm, "--to", NODES[1], "--wait", "--timeout", "1")
    assert code == 1
    assert "⠋" in drawn
    assert "Pending: " in drawn
    assert "error: after 1 s the migration is Pending: " in drawn.splitlines()[-1]


# --- migrations ----------------------------------------------------------------------------------------------


def test_migrations_lists_moves_and_the_messages_of_failed_ones(cluster: Kubectl, vmsim: Vmsim) -> None:
    """kubectl's columns, and the message."""
    vm, other, _ = names()
    start(cluster, vm, other)
    vmsim("migrate", vm, "--wait", "--reason", "drill")
    vmsim("migrate", other, "--wait", "--to", "nowhere")
    done = vmsim("migrations")
    header, *rows = done.stdout.splitlines()
    assert header.split() == [
        *("NAME", "PHASE", "VM", "STRATEGY", "SOURCE", "TARGET", "REASON", "DOWNTIME", "AGE", "MESSAGE")
    ]
    moved = next(row.split() for row in rows if f" {vm} " in row)
    failed = next(row for row in rows if f" {other} " in row)
    assert (moved[1], moved[3], moved[6]) == ("Succeeded", "Recreate", "drill")
    assert "TargetNotFound: " in failed


def test_migrations_of_all_namespaces_have_a_namespace_column(cluster: Kubectl, vmsim: Vmsim) -> None:
    """With -A."""
    vm, *_ = names()
    start(cluster, vm)
    vmsim("migrate", vm, "--wait")
    header, row = vmsim("migrations", "-A").stdout.splitlines()
    assert header.split()[0] == "NAMESPACE"
    assert row.split()[0] == "default"


@pytest.mark.usefixtures("cluster")
def test_an_empty_list_of_migrations_is_reported_as_kubectl_does(vmsim: Vmsim) -> None:
    """On standard error, with exit code 0."""
    done = vmsim("migrations", "--namespace", "kube-system")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "No migrations in namespace kube-system.\n"


# --- drain ---------------------------------------------------------------------------------------------------


def test_drain_moves_every_vm_off_a_cordoned_node(cluster: Kubectl, vmsim: Vmsim) -> None:
    """Each by a migration with the drain's label, reason and priority; between an estimate, and how far it was off."""
    vms = names()
    start_on(cluster, NODES[0], *vms)
    done = vmsim("drain", NODES[0])
    assert (done.returncode, done.stderr) == (0, "")
    estimate, cordoned, *_, drained, off = done.stdout.splitlines()
    assert estimate.startswith("by the model, 1 node can be drained in ")
    assert (cordoned, drained) == (f"{NODES[0]} is cordoned", f"{NODES[0]} is drained; 3 VMs moved")
    assert off.startswith("it took ")
    assert cluster.json("get", "node", NODES[0])["spec"]["unschedulable"] is True
    found = {vm["metadata"]["name"]: vm["status"] for vm in cluster.json("get", "vm")["items"]}
    assert {status["phase"] for status in found.values()} == {"Running"}
    assert NODES[0] not in {status["nodeName"] for status in found.values()}
    migrations = [migration["spec"] for migration in cluster.json("get", "vmm")["items"]]
    assert sorted(spec["vmName"] for spec in migrations) == sorted(vms)
    assert {(spec["priority"], spec["reason"]) for spec in migrations} == {("system-critical", "Drain")}


def test_drain_moves_no_vm_of_another_node(cluster: Kubectl, vmsim: Vmsim) -> None:
    """Its reason can be set."""
    vm, other, _ = names()
    start_on(cluster, NODES[0], vm)
    start_on(cluster, NODES[1], other)
    pod = cluster.json("get", "vm", other)["status"]["podName"]
    assert vmsim("drain", NODES[0], "--reason", "new disk").returncode == 0
    assert cluster.json("get", "vm", other)["status"]["podName"] == pod
    (migration,) = cluster.json("get", "vmm")["items"]
    assert (migration["spec"]["vmName"], migration["spec"]["reason"]) == (vm, "new disk")


def test_draining_an_empty_node_cordons_it(cluster: Kubectl, vmsim: Vmsim) -> None:
    """Also a second time."""
    for _ in range(2):
        done = vmsim("drain", NODES[2])
        assert (done.returncode, done.stdout.splitlines()[-2]) == (0, f"{NODES[2]} is drained; 0 VMs moved")
    assert cluster.json("get", "node", NODES[2])["spec"]["unschedulable"] is True


@pytest.mark.usefixtures("cluster")
def test_draining_a_missing_node_prints_one_line(vmsim: Vmsim) -> None:
    """With exit code 1."""
    done = vmsim("drain", "nowhere")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: there is no node nowhere: see kubectl get nodes\n"


def test_drain_lists_vms_that_fit_no_other_node(cluster: Kubectl, vmsim: Vmsim) -> None:
    """The VMs and the cordon stay; the command that uncordons is printed."""
    vm, other, _ = names()
    start_on(cluster, NODES[0], vm, other)
    cluster("cordon", *NODES[1:])
    done = vmsim("drain", NODES[0])
    assert done.returncode == 1
    assert f"default/{vm}: failed: NoSuitableNode: " in done.stdout
    assert f"default/{other}: failed: NoSuitableNode: " in done.stdout
    assert f"kubectl uncordon {NODES[0]}\n" in done.stderr
    assert done.stderr.endswith("error: 2 of 2 VMs did not move\n")
    assert {item["status"]["nodeName"] for item in cluster.json("get", "vm")["items"]} == {NODES[0]}


def test_ctrl_c_in_a_drain_prints_commands_that_undo_it(cluster: Kubectl, vmsim: Vmsim) -> None:
    """After them the node is schedulable, and no migration is left."""
    vm, second, third = names()
    start_on(cluster, NODES[0], vm, memory=LARGE)
    start_on(cluster, NODES[1], second, memory=LARGE)
    start_on(cluster, NODES[2], third, memory=LARGE)
    code, text = vmsim.interrupted("drain", NODES[0], after=f"default/{vm}: Pending: ")
    assert code == 130
    assert "Traceback" not in text
    assert cluster.json("get", "node", NODES[0])["spec"]["unschedulable"] is True
    assert cluster("get", "vmm", "-o", "jsonpath={.items[*].status.phase}") == "Pending"
    commands = [line for line in text.splitlines() if line.startswith("    kubectl ")]
    cluster.shell("\n".join(commands))
    assert cluster("get", "vmm", "-o", "name") == ""
    assert "unschedulable" not in cluster.json("get", "node", NODES[0])["spec"]
    assert cluster.json("get", "vm", vm)["status"]["nodeName"] == NODES[0]


def test_a_drain_ends_at_its_timeout(cluster: Kubectl, vmsim: Vmsim) -> None:
    """It names the VMs that are left."""
    vm, second, third = names()
    start_on(cluster, NODES[0], vm, memory=LARGE)
    start_on(cluster, NODES[1], second, memory=LARGE)
    start_on(cluster, NODES[2], third, memory=LARGE)
    done = vmsim("drain", NODES[0], "--timeout", "1")
    assert done.returncode == 1
    assert done.stderr.endswith(f"error: after 1 s 1 VM not done: default/{vm}\n")


def test_a_refused_migration_does_not_stop_the_others_of_a_drain(cluster: Kubectl, vmsim: Vmsim) -> None:
    """The refusal is printed at the end, in the server's words."""
    first, second, third = sorted(names())
    start_on(cluster, NODES[0], first, second, third)
    quota = "count/virtualmachinemigrations.simulation.node-classifier.io=1"
    try:
        cluster("create", "quota", "one-move", f"--hard={quota}")
        cluster.eventually("get", "quota", "one-move", "-o", "jsonpath={.status.used}", until=bool)
        done = vmsim("drain", NODES[0])
    finally:
        cluster("delete", "quota", "one-move", "--ignore-not-found")
    assert done.returncode == 1
    assert f"default/{first}: {NODES[0]} → " in done.stdout
    for refused in (second, third):
        assert f"default/{refused}: refused: " in done.stdout
    assert "exceeded quota: one-move" in done.stdout
    assert done.stderr.endswith("error: 2 of 3 VMs did not move\n")


def test_a_drain_names_a_budget_that_allows_no_eviction(cluster: Kubectl, vmsim: Vmsim) -> None:
    """The drain continues: migrations do not depend on budgets."""
    vm, *_ = names()
    start_on(cluster, NODES[0], vm)
    try:
        cluster("create", "pdb", "vms", "--selector=kubevirt.io=virt-launcher", "--max-unavailable=1")
        done = vmsim("drain", NODES[0])
    finally:
        cluster("delete", "pdb", "vms", "--ignore-not-found")
    assert done.returncode == 0
    assert "note: PodDisruptionBudget default/vms has maxUnavailable 1" in done.stdout


@pytest.mark.timeout(180)
def test_a_drain_names_a_blocked_pod_and_its_finalizer_within_ten_seconds(cluster: Kubectl, vmsim: Vmsim) -> None:
    """The pod is terminating."""
    vm, *_ = names()
    start_on(cluster, NODES[0], vm)
    pod = cluster.json("get", "vm", vm)["status"]["podName"]
    cluster("patch", "pod", pod, "--type=merge", "-p", '{"metadata":{"finalizers":["example.com/hold"]}}')
    try:
        cluster("delete", "vm", vm, "--wait=false")
        cluster("wait", "pod", pod, "--for=jsonpath={.metadata.deletionTimestamp}", "--timeout=30s")
        with vmsim.running("drain", NODES[0]) as (process, output):
            blocked = f"pod {pod} has been terminating since"
            lines = output.wait_for(lambda lines: any(blocked in line for line in lines), 30)
            assert any("held by finalizer example.com/hold" in line for line in lines)
            cluster("patch", "pod", pod, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
            assert process.wait(30) == 0
    finally:
        if cluster("get", "pod", pod, "--ignore-not-found", "-o", "name"):
            cluster("patch", "pod", pod, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')


def test_a_drain_waits_for_another_clients_migration(cluster: Kubectl, vmsim: Vmsim) -> None:
    """It creates none for that VM; once there is capacity the node is empty."""
    vm, second, third = names()
    start_on(cluster, NODES[0], vm, memory=LARGE)
    start_on(cluster, NODES[1], second, memory=LARGE)
    start_on(cluster, NODES[2], third, memory=LARGE)
    name = vmsim("migrate", vm).stdout.strip()
    cluster.eventually("get", "vmm", name, "-o", "jsonpath={.status.message}", until=bool)
    with vmsim.running("drain", NODES[0]) as (process, output):
        output.wait_for(lambda lines: f"{NODES[0]} is cordoned" in lines)
        cluster("delete", "vm", second)
        assert process.wait(30) == 0
    assert cluster("get", "vmm", "-o", "name").split() == [
        f"virtualmachinemigration.simulation.node-classifier.io/{name}"
    ]
    assert cluster.json("get", "vm", vm)["status"]["nodeName"] == NODES[1]


def test_a_drain_draws_a_bar_on_a_terminal(cluster: Kubectl, vmsim: Vmsim) -> None:
    """It is full at the end."""
    vm, other, _ = names()
    start_on(cluster, NODES[0], vm, other)
    code, drawn = vmsim.on_terminal("drain", NODES[0])
    assert code == 0
    assert f"draining {NODES[0]}" in drawn
    assert "2/2" in drawn


# --- as a plugin, and completion -----------------------------------------------------------------------------


def test_kubectl_finds_the_plugin(cluster: Kubectl, vmsim: Vmsim) -> None:
    """`kubectl vmsim migrate` is `vmsim migrate`, on the cluster that kubectl uses."""
    vm, *_ = names()
    start(cluster, vm)
    done = subprocess.run(
        [cluster.path, "vmsim", "migrate", vm, "--wait"],
        env=vmsim.environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{vm}: " in done.stdout.splitlines()[-1]


def test_the_plugins_usage_shows_the_kubectl_command(vmsim: Vmsim) -> None:
    """Not the name of the plugin's file."""
    assert vmsim("migrate", "--help", program="kubectl-vmsim").stdout.startswith("Usage: kubectl vmsim migrate ")


def test_kubectl_completes_the_plugin(plane: ControlPlane, vmsim: Vmsim) -> None:
    """As for Tab after `kubectl vmsim mi`."""
    done = subprocess.run(
        [plane.kubectl, "__complete", "vmsim", "mi"],
        env=vmsim.environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.stdout.split() == ["migrate", "migrations", ":4"]


def test_bash_completes_with_the_printed_script(vmsim: Vmsim) -> None:
    """`vmsim --show-completion` prints it."""
    environment = {**vmsim.environment, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    script = """
        eval "$(vmsim --show-completion bash)"
        COMP_WORDS=(vmsim dr) COMP_CWORD=1
        _vmsim_completion vmsim
        echo "${COMPREPLY[@]}"
    """
    done = subprocess.run(
        ["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=True
    )
    assert done.stdout == "drain\n"
