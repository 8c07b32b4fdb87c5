"""`vmsim load` and `unload`, run as a user runs them, on a real control plane with the real controller."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from controller.controlplane.plane import ControlPlane
from tests.integration.tools import TIMEOUT, Controller, Kubectl, eventually, sweep
from tests.integration.vmsim import Vmsim
from tests.plane import install

pytestmark = pytest.mark.timeout(60)  # the first test starts a control plane

WRITES_OF_OBJECTS = """
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: Metadata
    verbs: [create, update, patch, delete]
    resources:
      - {group: "", resources: [nodes]}
      - {group: simulation.node-classifier.io, resources: [virtualmachines]}
  - level: None
"""
NODES = ["quickstart-node-1", "quickstart-node-2", "quickstart-node-3"]
VMS = ["db-1", "db-2", "web-1", "web-2", "web-3", "web-4"]
ONE_VM = """
apiVersion: simulation.node-classifier.io/v1alpha1
kind: Scenario
name: one
vms:
  - {name: large, cpu: 900, memory: 0.1}
"""


CONSUMPTION = "simulation.node-classifier.io/cpu-consumption"
ANOTHER_CONSUMPTION = f"""
apiVersion: simulation.node-classifier.io/v1alpha1
kind: VirtualMachine
metadata: {{name: web-1, annotations: {{{CONSUMPTION}: "0.9"}}}}
spec: {{resources: {{cpu: "0.15", memory: "0.10"}}}}
"""
NOT_THAT_NAME = """
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: not-that-name}
spec:
  matchConstraints:
    resourceRules:
      - apiGroups: [simulation.node-classifier.io]
        apiVersions: ["*"]
        operations: [CREATE]
        resources: [virtualmachines]
  validations: [{expression: "object.metadata.name != 'web-3'", message: not that name}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: not-that-name}
spec: {policyName: not-that-name, validationActions: [Deny]}
"""


ZONES = """
apiVersion: simulation.node-classifier.io/v1alpha1
kind: Scenario
name: placed
nodes:
  - {name: a, count: 2, labels: {topology.kubernetes.io/zone: a}}
  - {name: b, count: 2, labels: {topology.kubernetes.io/zone: b}}
  - {name: small, cpu: 4}
vms:
  - name: web
    count: 6
    cpu: 0.10
    memory: 0.05
    labels: {app: web}
    topologySpreadConstraints:
      - maxSkew: 1
        topologyKey: topology.kubernetes.io/zone
        whenUnsatisfiable: DoNotSchedule
        labelSelector: {matchLabels: {app: web}}
  - {name: db, count: 2, cpu: 0.25, memory: 0.30, node: [a-2, b-2]}
  - {name: large, cpu: 0.30, memory: 0.10, node: small}
"""


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """Run a control plane of this module's own without nodes; our resources are installed later."""
    policy = tmp_path_factory.mktemp("policy") / "policy.yaml"
    policy.write_text(WRITES_OF_OBJECTS)
    with ControlPlane(tmp_path_factory.mktemp("scenarios") / "state", nodes=0, audit_policy=policy) as plane:
        yield plane


@pytest.fixture(scope="module")
def vmsim(plane: ControlPlane) -> Vmsim:
    """Return the program against this module's control plane."""
    return Vmsim.against(plane.kubeconfig)


@pytest.fixture(scope="module")
def without_resources(vmsim: Vmsim, plane: ControlPlane) -> tuple[int, str, str]:
    """Return the result of a load before our resources were installed, and the nodes after it."""
    done = vmsim("load", "quickstart")
    return done.returncode, done.stderr, Kubectl(plane.kubectl, plane.kubeconfig)("get", "nodes", "-o", "name")


@pytest.fixture(scope="module")
def kubectl(plane: ControlPlane, without_resources: tuple[int, str, str]) -> Kubectl:
    """Install our resources; return kubectl."""
    assert without_resources
    install(plane)
    return Kubectl(plane.kubectl, plane.kubeconfig)


@pytest.fixture(scope="module")
def controller(plane: ControlPlane, kubectl: Kubectl, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controller]:
    """Run the controller."""
    assert kubectl.namespace == "default"
    with Controller.start(plane.kubeconfig, tmp_path_factory.mktemp("controller") / "log") as process:
        yield process


@pytest.fixture
def cluster(kubectl: Kubectl, controller: Controller) -> Iterator[Kubectl]:
    """Return kubectl with a running controller; leave no VM and no node behind."""
    assert controller.process.poll() is None
    yield kubectl
    sweep(kubectl)
    kubectl("delete", "nodes", "--all")


@pytest.fixture
def quickstart(cluster: Kubectl, vmsim: Vmsim) -> subprocess.CompletedProcess[str]:
    """Load quickstart without playing it; return the result."""
    assert cluster("get", "nodes", "-o", "name") == ""
    return vmsim("load", "quickstart", "--no-play")


def existing(kubectl: Kubectl, kind: str) -> list[str]:
    """Return the names of the objects of a kind."""
    return kubectl("get", kind, "-o", "jsonpath={.items[*].metadata.name}").split()


def test_a_load_without_our_resources_names_the_install_command(without_resources: tuple[int, str, str]) -> None:
    """No node is created."""
    code, said, nodes = without_resources
    assert (code, nodes) == (1, "")
    assert "vmsim install" in said


def test_a_load_returns_once_everything_runs(quickstart: subprocess.CompletedProcess[str], cluster: Kubectl) -> None:
    """All nodes and VMs of quickstart."""
    assert quickstart.returncode == 0, quickstart.stderr
    assert quickstart.stdout.endswith("quickstart runs in namespace default: 3 nodes and 6 VMs created\n")
    assert existing(cluster, "nodes") == NODES
    phases = cluster("get", "vm", "-o", "jsonpath={range .items[*]}{.metadata.name}={.status.phase} {end}").split()
    assert phases == [f"{name}=Running" for name in VMS]


def test_a_second_load_writes_nothing(
    quickstart: subprocess.CompletedProcess[str], plane: ControlPlane, vmsim: Vmsim
) -> None:
    """By the API server's audit log."""
    assert quickstart.returncode == 0
    assert sum(_writes(plane.audit_log).values()) >= len(NODES + VMS), "the log sees the first load"
    began = datetime.now(UTC)
    again = vmsim("load", "quickstart", "--no-play")
    assert again.stdout == "quickstart runs in namespace default: 3 nodes and 6 VMs there already\n"
    assert _writes(plane.audit_log, since=began) == {}


def _writes(log: Path, *, since: datetime | None = None) -> dict[str, int]:
    """Count the writes to nodes and VMs that a load could have made: all of ours but those of a VM's status."""
    counts: dict[str, int] = {}
    for line in log.read_text().splitlines():
        entry = json.loads(line)
        received = datetime.fromisoformat(entry["requestReceivedTimestamp"])
        ours = entry.get("userAgent", "").startswith("vmsim/") and "subresource" not in entry["objectRef"]
        if ours and (since is None or received > since):
            what = f"{entry['verb']} {entry['requestURI']}"
            counts[what] = counts.get(what, 0) + 1
    return counts


def test_a_dry_run_on_the_server_creates_nothing(cluster: Kubectl, vmsim: Vmsim) -> None:
    """Of a scenario that can be loaded."""
    done = vmsim("load", "quickstart", "--dry-run=server")
    assert done.returncode == 0, done.stderr
    assert "3 nodes and 6 VMs would be created, and the API server accepts them.\nEvery VM finds room.\n" in done.stdout
    assert existing(cluster, "nodes") + existing(cluster, "vm") == []


def test_a_load_uses_the_settings_that_a_controller_has_published(
    cluster: Kubectl, vmsim: Vmsim, plane: ControlPlane, tmp_path: Path
) -> None:
    """Those in the VMs' namespace; without any, those in the namespace of the kubeconfig."""
    flags = ("--kubeconfig", str(plane.kubeconfig), "--metrics-bind-address", "127.0.0.1:0", "--reference-cpu", "64")
    cluster("create", "namespace", "doubled")
    try:
        with Controller.run(tmp_path / "log", *flags, "-n", "doubled") as process:
            process.wait_for("published the settings")
        doubled = vmsim("load", "quickstart", "--dry-run=server", "-n", "doubled")
        cluster("delete", "configmap", "vmsim-controller", "-n", "doubled")
        single = vmsim("load", "quickstart", "--dry-run=server", "-n", "doubled")
    finally:
        cluster("delete", "namespace", "doubled", "--wait=false")
    assert (doubled.stderr, single.stderr) == ("", "")
    assert "requested:    66.4 of 96 CPUs" in doubled.stdout
    assert "here of 64 CPUs and 256 GiB, by ConfigMap doubled/vmsim-controller;" in doubled.stdout
    assert "requested:    33.2 of 96 CPUs" in single.stdout
    assert "here of 32 CPUs and 256 GiB, by ConfigMap default/vmsim-controller;" in single.stdout


def test_a_load_reports_refusals_before_it_creates_anything(cluster: Kubectl, vmsim: Vmsim) -> None:
    """One VM of four by a policy, and all of them together by a quota."""
    cluster("apply", "-f", "-", stdin=NOT_THAT_NAME)
    try:
        eventually(lambda: vmsim("load", "quickstart", "--dry-run=server").returncode == 1)  # it is in force
        done = vmsim("load", "quickstart")
    finally:
        cluster("delete", "-f", "-", stdin=NOT_THAT_NAME)
    assert done.returncode == 1
    assert "quickstart.yaml:14: vms[0]: VM web-3: " in done.stderr
    assert "denied request: not that name\nerror: nothing was created" in done.stderr
    assert existing(cluster, "nodes") + existing(cluster, "vm") == []


def test_a_load_reports_an_exceeded_quota_before_it_creates_anything(cluster: Kubectl, vmsim: Vmsim) -> None:
    """The sum of the VMs exceeds its limit."""
    cluster("create", "quota", "few", "--hard=count/virtualmachines.simulation.node-classifier.io=5")
    try:
        cluster.eventually("get", "quota", "few", "-o", "jsonpath={.status.hard}", until=bool)
        done = vmsim("load", "quickstart")
    finally:
        cluster("delete", "quota", "few")
    assert done.returncode == 1
    assert "vms: quota few is too small for 6 VMs: count/virtualmachines" in done.stderr
    assert existing(cluster, "nodes") + existing(cluster, "vm") == []


def test_a_conflict_of_server_side_apply_names_the_player(
    quickstart: subprocess.CompletedProcess[str], cluster: Kubectl, vmsim: Vmsim
) -> None:
    """Not the controller, which did not write the annotation."""
    assert quickstart.returncode == 0
    consumption = cluster.json("get", "vm", "web-1")["metadata"]["annotations"][CONSUMPTION]
    with vmsim.running("load", "quickstart", "--speed", "10") as (_, output):
        output.wait_for(lambda lines: any("playing" in line for line in lines))
        path = f"jsonpath={{.metadata.annotations.{CONSUMPTION.replace('.', chr(92) + '.')}}}"
        cluster.eventually("get", "vm", "web-1", "-o", path, until=lambda now: now != consumption)
        said = cluster.refused("apply", "--server-side", "-f", "-", stdin=ANOTHER_CONSUMPTION)
    assert 'with "vmsim-load"' in said
    assert CONSUMPTION in said
    assert "vmsim-controller" not in said


def test_consumption_changes_during_a_play_and_reaches_the_status(
    quickstart: subprocess.CompletedProcess[str], cluster: Kubectl, vmsim: Vmsim
) -> None:
    """Ctrl-C ends the play, and the VMs stay."""
    assert quickstart.returncode == 0
    seen: set[str] = set()

    def moved(text: str) -> bool:
        seen.add(text)
        return len(seen) > 3

    with vmsim.running("load", "quickstart", "--speed", "10") as (process, output):
        output.wait_for(lambda lines: any("playing quickstart at 10x" in line for line in lines))
        cluster.eventually("get", "vm", "web-1", "-o", "jsonpath={.status.cpuConsumption}", until=moved)
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT) == 130
        output.join()
        said = output.wait_for(lambda _: True)
    assert "    vmsim unload quickstart" in said
    assert existing(cluster, "vm") == VMS


def test_an_unload_deletes_exactly_the_objects_of_the_load(
    quickstart: subprocess.CompletedProcess[str], cluster: Kubectl, vmsim: Vmsim
) -> None:
    """When it returns, all of them are deleted; a foreign VM is not."""
    assert quickstart.returncode == 0
    cluster.apply_vm("mine", running=False)
    done = vmsim("unload", "quickstart")
    assert (done.returncode, done.stdout) == (0, "quickstart is unloaded: 3 nodes and 6 VMs removed\n")
    assert [existing(cluster, kind) for kind in ("nodes", "vm", "pods")] == [[], ["mine"], []]
    assert vmsim("unload", "quickstart").stdout == "quickstart is unloaded: nothing of it was there\n"


def test_a_foreign_vm_of_the_same_name_prevents_a_load(cluster: Kubectl, vmsim: Vmsim) -> None:
    """Nothing is created, and the VM stays unchanged."""
    cluster.apply_vm("web-1", running=False)
    before = cluster("get", "vm", "web-1", "-o", "jsonpath={.metadata.generation}")
    done = vmsim("load", "quickstart")
    assert done.returncode == 1
    assert done.stderr.startswith("error: nothing was changed: VM default/web-1 exists already, and quickstart did not")
    assert (existing(cluster, "nodes"), existing(cluster, "vm")) == ([], ["web-1"])
    assert cluster("get", "vm", "web-1", "-o", "jsonpath={.metadata.generation}") == before


def test_the_scheduler_places_vms_by_the_file_and_a_vm_that_it_put_elsewhere_is_named(
    cluster: Kubectl, vmsim: Vmsim, tmp_path: Path
) -> None:
    """Three in each zone, two where they are to begin, and one whose node is too small."""
    path = tmp_path / "placed.yaml"
    path.write_text(ZONES)
    done = vmsim("load", str(path), "--no-play")
    assert done.returncode == 0, done.stderr
    nodes = {vm["metadata"]["name"]: vm["status"]["nodeName"] for vm in cluster.json("get", "vm")["items"]}
    assert sorted(nodes[f"web-{number}"][0] for number in range(1, 7)) == list("aaabbb")
    assert (nodes["db-1"], nodes["db-2"]) == ("a-2", "b-2")
    assert done.stdout.endswith(f"The scheduler put 1 VM elsewhere: large on {nodes['large']}, not small\n")
    assert len(cluster.json("get", "pods", "-l", "app=web")["items"]) == 6
    again = vmsim("load", str(path), "--no-play", "--exact-placement")
    assert again.stdout.splitlines() == [
        (
            "3 VMs of before may run on any node, since created without --exact-placement: db-1, db-2, large; "
            "to require their nodes, first `vmsim unload placed`"
        ),
        "placed runs in namespace default: 5 nodes and 9 VMs there already",
        f"The scheduler put 1 VM elsewhere: large on {nodes['large']}, not small",
    ]


def test_a_load_quotes_the_scheduler_for_a_vm_that_fits_no_node(cluster: Kubectl, vmsim: Vmsim, tmp_path: Path) -> None:
    """At the deadline."""
    path = tmp_path / "one.yaml"
    path.write_text(ONE_VM)
    done = vmsim("load", str(path), "--timeout", "2")
    assert done.returncode == 1
    assert done.stderr.startswith("error: not everything runs after 2 s: VM large: Scheduling: no nodes available")
    assert existing(cluster, "vm") == ["large"]


def test_a_bar_shows_the_progress_on_a_terminal(cluster: Kubectl, vmsim: Vmsim) -> None:
    """Of both commands."""
    code, drawn = vmsim.on_terminal("load", "quickstart", "--no-play")
    assert code == 0
    assert "9/9" in drawn
    assert "━" in drawn
    code, drawn = vmsim.on_terminal("unload", "quickstart")
    assert code == 0
    assert "9/9" in drawn
    assert existing(cluster, "vm") == []
