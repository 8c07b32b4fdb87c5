"""`vmsim migrate`, `migrations` and `drain` as a person runs them, on a real control plane with the real controller."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from controller.controlplane.plane import ControlPlane
from tests.integration import accounts
from tests.integration.tools import PATIENCE, Controller, Kubectl
from tests.integration.vmsim import Vmsim
from tests.plane import install

pytestmark = pytest.mark.timeout(60)  # the first test starts a control plane

NODES = ("kwok-node-1", "kwok-node-2", "kwok-node-3")
LARGE = "0.60"
"""Two such VMs do not fit on one node."""
COMMANDS = (("migrate", "vm-1"), ("migrations",), ("drain", "kwok-node-1"))


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """Make a control plane of this module's own, since drains cordon nodes; our resources come later."""
    directory = tmp_path_factory.mktemp("cli-plane")
    with ControlPlane(directory / "state", nodes=len(NODES), audit_policy=accounts.audit_policy(directory)) as plane:
        yield plane


@pytest.fixture(scope="module")
def vmsim(plane: ControlPlane) -> Vmsim:
    """Return the program against this module's control plane."""
    return Vmsim.against(plane.kubeconfig)


@pytest.fixture(scope="module")
def without_resources(vmsim: Vmsim, plane: ControlPlane) -> dict[str, tuple[int, str, str]]:
    """Keep what the commands said before our resources were installed, and the nodes that were cordoned then."""
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
    """Return kubectl with a controller that runs; leave no VM, no migration and no cordon behind."""
    assert controller.process.poll() is None
    yield kubectl
    kubectl("delete", "vm,vmm", "--all", "--wait=true")
    kubectl("uncordon", *NODES)
    kubectl.eventually("get", "pods", "-o", "name", until=lambda text: not text)


def start(cluster: Kubectl, *names: str, memory: str = "0.05") -> dict[str, str]:
    """Make VMs run, spread over what is schedulable; return their nodes."""
    for name in names:
        cluster.apply_vm(name, cpu="0.05", memory=memory)
    return {name: cluster.wait_phase(name, "Running")["status"]["nodeName"] for name in names}


def start_on(cluster: Kubectl, node: str, *names: str, memory: str = "0.05") -> None:
    """Make VMs run on this node."""
    others = [other for other in NODES if other != node]
    cluster("cordon", *others)
    assert set(start(cluster, *names, memory=memory).values()) == {node}
    cluster("uncordon", *others)


def names() -> tuple[str, str, str]:
    """Return three VM names that no test used: what failed before would make the next migration wait."""
    run = uuid4().hex[:6]
    return f"a-{run}", f"b-{run}", f"c-{run}"


# --- before our resources are there --------------------------------------------------------------------------


@pytest.mark.parametrize("command", [command[0] for command in COMMANDS])
def test_a_cluster_without_our_resources_is_one_line(
    without_resources: dict[str, tuple[int, str, str]], command: str
) -> None:
    """It says what to run; a drain has cordoned nothing."""
    code, error, cordoned = without_resources[command]
    assert code == 1
    assert error == "error: the cluster does not know our resources: install them with vmsim install\n"
    assert cordoned == ""


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_cluster_that_is_not_there_is_one_line(vmsim: Vmsim, tmp_path: Path, command: tuple[str, ...]) -> None:
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


def test_migrate_prints_the_name_of_what_it_created(cluster: Kubectl, vmsim: Vmsim) -> None:
    """And nothing else, so that a script can use it."""
    vm, *_ = names()
    start(cluster, vm)
    done = vmsim("migrate", vm, "--reason", "tea time")
    assert (done.returncode, done.stderr) == (0, "")
    spec = cluster.json("get", "vmm", done.stdout.strip())["spec"]
    assert done.stdout.startswith(f"{vm}-")
    assert (spec["vmName"], spec["reason"], spec["priority"]) == (vm, "tea time", "user-triggered")


def test_migrate_waits_until_the_vm_runs_elsewhere(cluster: Kubectl, vmsim: Vmsim) -> None:
    """The last line says from where to where, and for how long it was away."""
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


def test_migrate_moves_to_the_node_that_was_named(cluster: Kubectl, vmsim: Vmsim) -> None:
    """With --to."""
    vm, *_ = names()
    source = start(cluster, vm)[vm]
    target = next(node for node in reversed(NODES) if node != source)
    assert vmsim("migrate", vm, "--to", target, "--wait").returncode == 0
    assert cluster.json("get", "vm", vm)["status"]["nodeName"] == target


def test_migrate_tells_why_it_failed(cluster: Kubectl, vmsim: Vmsim) -> None:
    """With exit code 1, the reason in one word, and the controller's message."""
    vm, *_ = names()
    start(cluster, vm)
    done = vmsim("migrate", vm, "--to", "nowhere", "--wait")
    status = cluster.json("get", "vmm", done.stdout.split()[0])["status"]
    assert done.returncode == 1
    assert status["failureReason"] == "TargetNotFound"
    assert done.stderr == f"error: {vm} did not move: TargetNotFound: {status['message']}\n"


@pytest.mark.usefixtures("cluster")
def test_migrating_a_vm_that_is_not_there_creates_nothing(kubectl: Kubectl, vmsim: Vmsim) -> None:
    """The error names VM and namespace."""
    done = vmsim("migrate", "nobody", "-n", "default")
    assert done.returncode == 1
    assert done.stderr == "error: there is no VM nobody in namespace default: see kubectl get vm -A\n"
    assert kubectl("get", "vmm", "-o", "name") == ""


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--to", "Not A Node"), "spec.targetNode must be a node's name"),
        (("--reason", "x" * 129), "spec.reason: Too long"),
    ],
    ids=["node", "reason"],
)
def test_what_the_api_server_refuses_is_told_in_its_words(
    cluster: Kubectl, vmsim: Vmsim, flags: tuple[str, ...], message: str
) -> None:
    """In one line."""
    vm, *_ = names()
    cluster.apply_vm(vm, running=False)
    done = vmsim("migrate", vm, *flags)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_ctrl_c_while_waiting_tells_how_to_cancel_and_that_works(cluster: Kubectl, vmsim: Vmsim) -> None:
    """The migration goes on until the line that was printed is pasted."""
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


def test_a_wait_can_be_bounded(cluster: Kubectl, vmsim: Vmsim) -> None:
    """Then the error says how it stands, and that it goes on."""
    vm, other, _ = names()
    start_on(cluster, NODES[0], vm, memory=LARGE)
    start_on(cluster, NODES[1], other, memory=LARGE)
    done = vmsim("migrate", vm, "--to", NODES[1], "--wait", "--timeout", "1")
    assert done.returncode == 1
    assert done.stderr.startswith("error: after 1 s the migration is Pending: ")
    assert "it goes on. To cancel it: kubectl patch vmm -n default" in done.stderr


def test_a_migration_that_is_deleted_while_one_waits_is_an_error(cluster: Kubectl, vmsim: Vmsim) -> None:
    """Nobody waits for what is not there."""
    vm, other, _ = names()
    start_on(cluster, NODES[0], vm, memory=LARGE)
    start_on(cluster, NODES[1], other, memory=LARGE)
    with vmsim.running("migrate", vm, "--to", NODES[1], "--wait") as (process, output):
        name = output.wait_for(lambda lines: any("Pending: " in line for line in lines))[0]
        cluster("delete", "vmm", name)
        assert process.wait(PATIENCE) == 1
        output.wait_for(lambda lines: lines[-1] == f"error: migration {name} was deleted")


@pytest.mark.usefixtures("cluster")
def test_the_kubeconfigs_own_namespace_is_meant(kubectl: Kubectl, vmsim: Vmsim, tmp_path: Path) -> None:
    """As with kubectl; no controller watches this one, so that the wait is in vain."""
    with kubectl.own_namespace(tmp_path) as own:
        own.apply_vm("lonely")
        done = vmsim("migrate", "lonely", "--wait", "--timeout", "0.1", "--kubeconfig", str(own.kubeconfig))
        assert done.returncode == 1
        assert f"kubectl patch vmm -n {own.namespace} lonely-" in done.stderr
        assert own("get", "vmm", "-o", "jsonpath={.items[*].spec.vmName}") == "lonely"


def test_progress_is_drawn_on_a_terminal(cluster: Kubectl, vmsim: Vmsim) -> None:
    """What it waits for, on a line that goes away again."""
    vm, other, _ = names()
    start_on(cluster, NODES[0], vm, memory=LARGE)
    start_on(cluster, NODES[1], other, memory=LARGE)
    code, drawn = vmsim.on_terminal("migrate", vm, "--to", NODES[1], "--wait", "--timeout", "1")
    assert code == 1
    assert "⠋" in drawn
    assert "Pending: " in drawn
    assert "error: after 1 s the migration is Pending: " in drawn.splitlines()[-1]


# --- migrations ----------------------------------------------------------------------------------------------


def test_migrations_shows_what_moved_and_why_others_did_not(cluster: Kubectl, vmsim: Vmsim) -> None:
    """kubectl's columns, and the message."""
    vm, other, _ = names()
    start(cluster, vm, other)
    vmsim("migrate", vm, "--wait", "--reason", "drill")
    vmsim("migrate", other, "--wait", "--to", "nowhere")
    done = vmsim("migrations")
    header, *rows = done.stdout.splitlines()
    assert header.split() == ["NAME", "PHASE", "VM", "SOURCE", "TARGET", "REASON", "DOWNTIME", "AGE", "MESSAGE"]
    moved = next(row.split() for row in rows if f" {vm} " in row)
    failed = next(row for row in rows if f" {other} " in row)
    assert (moved[1], moved[5]) == ("Succeeded", "drill")
    assert "TargetNotFound: " in failed


def test_migrations_of_every_namespace_say_which(cluster: Kubectl, vmsim: Vmsim) -> None:
    """With -A."""
    vm, *_ = names()
    start(cluster, vm)
    vmsim("migrate", vm, "--wait")
    header, row = vmsim("migrations", "-A").stdout.splitlines()
    assert header.split()[0] == "NAMESPACE"
    assert row.split()[0] == "default"


@pytest.mark.usefixtures("cluster")
def test_no_migrations_is_said_like_kubectl(vmsim: Vmsim) -> None:
    """On standard error, with exit code 0."""
    done = vmsim("migrations", "--namespace", "kube-system")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "No migrations in namespace kube-system.\n"


# --- drain ---------------------------------------------------------------------------------------------------


def test_drain_moves_every_vm_off_a_cordoned_node(cluster: Kubectl, vmsim: Vmsim) -> None:
    """Each by a migration that says so, and goes first."""
    vms = names()
    start_on(cluster, NODES[0], *vms)
    done = vmsim("drain", NODES[0])
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == f"{NODES[0]} is cordoned"
    assert done.stdout.splitlines()[-1] == f"{NODES[0]} is drained; 3 VMs moved"
    assert cluster.json("get", "node", NODES[0])["spec"]["unschedulable"] is True
    found = {vm["metadata"]["name"]: vm["status"] for vm in cluster.json("get", "vm")["items"]}
    assert {status["phase"] for status in found.values()} == {"Running"}
    assert NODES[0] not in {status["nodeName"] for status in found.values()}
    migrations = [migration["spec"] for migration in cluster.json("get", "vmm")["items"]]
    assert sorted(spec["vmName"] for spec in migrations) == sorted(vms)
    assert {(spec["priority"], spec["reason"]) for spec in migrations} == {("system-critical", "Drain")}


def test_drain_leaves_other_nodes_vms_alone(cluster: Kubectl, vmsim: Vmsim) -> None:
    """And has its own reason, if that is wanted."""
    vm, other, _ = names()
    start_on(cluster, NODES[0], vm)
    start_on(cluster, NODES[1], other)
    pod = cluster.json("get", "vm", other)["status"]["podName"]
    assert vmsim("drain", NODES[0], "--reason", "new disk").returncode == 0
    assert cluster.json("get", "vm", other)["status"]["podName"] == pod
    (migration,) = cluster.json("get", "vmm")["items"]
    assert (migration["spec"]["vmName"], migration["spec"]["reason"]) == (vm, "new disk")


def test_draining_an_empty_node_cordons_it(cluster: Kubectl, vmsim: Vmsim) -> None:
    """Twice is no error."""
    for _ in range(2):
        done = vmsim("drain", NODES[2])
        assert (done.returncode, done.stdout.splitlines()[-1]) == (0, f"{NODES[2]} is drained; 0 VMs moved")
    assert cluster.json("get", "node", NODES[2])["spec"]["unschedulable"] is True


@pytest.mark.usefixtures("cluster")
def test_draining_a_node_that_is_not_there_is_one_line(vmsim: Vmsim) -> None:
    """With exit code 1."""
    done = vmsim("drain", "nowhere")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: there is no node nowhere: see kubectl get nodes\n"


def test_drain_lists_what_has_nowhere_to_go(cluster: Kubectl, vmsim: Vmsim) -> None:
    """The VMs stay where they are, and so does the cordon; how to take it back is said."""
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


def test_ctrl_c_in_a_drain_undoes_nothing_but_tells_how_and_that_works(cluster: Kubectl, vmsim: Vmsim) -> None:
    """The lines that were printed are pasted: the node is schedulable again, and no VM is going to move."""
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


def test_a_drain_can_be_bounded(cluster: Kubectl, vmsim: Vmsim) -> None:
    """Then it names what is left."""
    vm, second, third = names()
    start_on(cluster, NODES[0], vm, memory=LARGE)
    start_on(cluster, NODES[1], second, memory=LARGE)
    start_on(cluster, NODES[2], third, memory=LARGE)
    done = vmsim("drain", NODES[0], "--timeout", "1")
    assert done.returncode == 1
    assert done.stderr.endswith(f"error: after 1 s 1 VM not done: default/{vm}\n")


def test_a_refused_migration_keeps_no_other_vm_on_the_node(cluster: Kubectl, vmsim: Vmsim) -> None:
    """All others leave; the refusal is told at the end, in the server's words."""
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
    """It goes on: a migration asks no budget."""
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
def test_a_drain_says_within_ten_seconds_what_holds_a_pod(cluster: Kubectl, vmsim: Vmsim) -> None:
    """By the pod's name, and the finalizer's."""
    vm, *_ = names()
    start_on(cluster, NODES[0], vm)
    pod = cluster.json("get", "vm", vm)["status"]["podName"]
    cluster("patch", "pod", pod, "--type=merge", "-p", '{"metadata":{"finalizers":["example.com/hold"]}}')
    try:
        cluster("delete", "vm", vm, "--wait=false")
        cluster("wait", "pod", pod, "--for=jsonpath={.metadata.deletionTimestamp}", "--timeout=30s")
        with vmsim.running("drain", NODES[0]) as (process, output):
            held = f"pod {pod} has been terminating since"
            lines = output.wait_for(lambda lines: any(held in line for line in lines), 30)
            assert any("held by finalizer example.com/hold" in line for line in lines)
            cluster("patch", "pod", pod, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
            assert process.wait(30) == 0
    finally:
        if cluster("get", "pod", pod, "--ignore-not-found", "-o", "name"):
            cluster("patch", "pod", pod, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')


def test_a_drain_waits_for_a_migration_that_somebody_else_began(cluster: Kubectl, vmsim: Vmsim) -> None:
    """It adds none for that VM; once there is room the node is empty."""
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
    """It is full in the end."""
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
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{vm}: " in done.stdout.splitlines()[-1]


def test_the_plugins_usage_shows_what_to_type(vmsim: Vmsim) -> None:
    """Not the file's name."""
    assert vmsim("migrate", "--help", program="kubectl-vmsim").stdout.startswith("Usage: kubectl vmsim migrate ")


def test_kubectl_completes_the_plugin(plane: ControlPlane, vmsim: Vmsim) -> None:
    """As the user presses Tab after `kubectl vmsim mi`."""
    done = subprocess.run(
        [plane.kubectl, "__complete", "vmsim", "mi"],
        env=vmsim.environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.stdout.split() == ["migrate", "migrations", ":4"]


def test_a_shell_completes_what_its_script_asks_for(vmsim: Vmsim) -> None:
    """The script that `vmsim --show-completion` prints is run by a real bash."""
    environment = {**vmsim.environment, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    script = """
        eval "$(vmsim --show-completion bash)"
        COMP_WORDS=(vmsim dr) COMP_CWORD=1
        _vmsim_completion vmsim
        echo "${COMPREPLY[@]}"
    """
    done = subprocess.run(
        ["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    assert done.stdout == "drain\n"
