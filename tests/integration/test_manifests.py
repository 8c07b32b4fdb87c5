"""The manifests on a real control plane with VMs: accepted, restricted, spread, upgraded and removed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from controller.controlplane import command
from controller.controlplane.plane import ControlPlane
from tests.faults.proxy import Exchange, Fault, Proxy
from tests.faults.wire import Upstream
from tests.integration import accounts
from tests.integration.accounts import MANIFESTS, SHIPPED_HOME
from tests.integration.conftest import REPOSITORY
from tests.integration.tools import Controller, Kubectl
from tests.unit.manifests.kustomizations import built, write_overlay

pytestmark = pytest.mark.timeout(120)

BASE = str(MANIFESTS / "base")
TEAMS = ("team-a", "team-b")
CRD = "virtualmachines.simulation.node-classifier.io"
COMPLETE = [
    path.parent for path in sorted(MANIFESTS.rglob("[Kk]ustomization*")) if "kind: Component" not in path.read_text()
]
"""Every folder that can be applied; rights alone have no namespace to be in, and are applied with one."""
DRY = ("apply", "--dry-run=server", "--warnings-as-errors")
MACHINES = ("machine-1", "machine-2")
"""Nodes that KWOK keeps up, but that say nothing of being fake."""


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """Run a control plane of this module's own: our resources are installed and removed in it."""
    with ControlPlane(tmp_path_factory.mktemp("manifests-plane") / "state", nodes=2) as plane:
        yield plane


@pytest.fixture(scope="module")
def kubectl(plane: ControlPlane) -> Kubectl:
    """Return kubectl, after manifests/base and the namespaces of its namespaced overlay are installed."""
    kubectl = Kubectl(plane.kubectl, plane.kubeconfig)
    install(kubectl)
    for name in TEAMS:
        kubectl("create", "namespace", name)
    return kubectl


@pytest.fixture
def controller(plane: ControlPlane, kubectl: Kubectl, tmp_path: Path) -> Iterator[Controller]:
    """Run a controller with the account of manifests/base; delete all VMs afterwards."""
    with acting(plane, tmp_path) as process:
        yield process
        kubectl("delete", "vmm,vm", "--all")
        kubectl.eventually("get", "pods", "-o", "name", until=lambda text: not text)


def install(kubectl: Kubectl) -> None:
    """Apply manifests/base, and wait for our resources."""
    kubectl("apply", "-k", BASE)
    kubectl.established()


@contextmanager
def acting(plane: ControlPlane, directory: Path) -> Iterator[Controller]:
    """Run a controller with the flags of the Deployment."""
    kubeconfig = accounts.acting_as_shipped(plane.kubeconfig, directory)
    flags = ("--kubeconfig", str(kubeconfig), "--metrics-bind-address", "127.0.0.1:0", "--log-level", "debug")
    with Controller.run(directory / "log", *flags) as process:
        process.wait_for("leading", timeout=30)
        yield process


def uids(kubectl: Kubectl) -> dict[str, str]:
    """Return the identity of every VM and pod in the default namespace."""
    found = kubectl.json("get", "vm,pods")["items"]
    return {f"{item['kind']}/{item['metadata']['name']}": item["metadata"]["uid"] for item in found}


def patch(kubectl: Kubectl, vm: str, change: Any, *flags: str) -> Any:
    """Merge a change into a VM; return the VM."""
    return kubectl.json("patch", "vm", vm, "--type=merge", "-p", json.dumps(change), *flags)


# --- what is applied ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", COMPLETE, ids=lambda folder: str(folder.relative_to(MANIFESTS)))
def test_the_server_accepts_every_folder(kubectl: Kubectl, folder: Path) -> None:
    """With `--dry-run=server`, defaults, schemas and admission included, without a warning."""
    assert "(server dry run)" in kubectl(*DRY, "-k", str(folder))


def test_the_server_accepts_all_components_at_once(kubectl: Kubectl, tmp_path: Path) -> None:
    """But the ServiceMonitor, whose kind is the Prometheus operator's."""
    objects = built(write_overlay(tmp_path))
    known = [one for one in objects if one["kind"] != "ServiceMonitor"]
    assert len(known) == len(objects) - 1
    assert "(server dry run)" in kubectl(*DRY, "-f", "-", stdin=yaml.safe_dump_all(known))


@pytest.fixture
def machines(kubectl: Kubectl) -> Iterator[None]:
    """Create two nodes besides the fake ones."""
    for name in MACHINES:
        node = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": name,
                "annotations": {"kwok.x-k8s.io/node": "fake"},
                "labels": {"kubernetes.io/hostname": name},
            },
            "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "20"}},
        }
        kubectl("apply", "-f", "-", stdin=json.dumps(node))
    yield
    kubectl("delete", "pdb", "vmsim-controller", "-n", SHIPPED_HOME)
    kubectl("apply", "-k", BASE)
    kubectl("delete", "node", *MACHINES)


def nodes_of_replicas(kubectl: Kubectl) -> list[str]:
    """Return the nodes of the controller's pods that are not terminating, in order."""
    pods = kubectl.json("get", "pods", "-n", SHIPPED_HOME)["items"]
    return sorted(pod["spec"]["nodeName"] for pod in pods if "deletionTimestamp" not in pod["metadata"])


@pytest.mark.usefixtures("machines")
def test_two_replicas_are_admitted_spread_rolled_and_drained(kubectl: Kubectl) -> None:
    """In a restricted namespace, on two nodes that are not fake; a drain moves only one of them."""
    rolled = ("rollout", "status", "deployment/vmsim-controller", "-n", SHIPPED_HOME, "--timeout=30s")
    kubectl("apply", "-k", str(MANIFESTS / "overlays" / "ha"))
    kubectl(*rolled)
    kubectl("rollout", "restart", "deployment/vmsim-controller", "-n", SHIPPED_HOME)
    kubectl(*rolled)
    assert nodes_of_replicas(kubectl) == list(MACHINES)
    kubectl("drain", MACHINES[0], "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=30s")
    kubectl(*rolled)
    assert nodes_of_replicas(kubectl) == [MACHINES[1]] * 2


def test_the_namespace_is_restricted(kubectl: Kubectl) -> None:
    """Pods with more rights than the controller's are refused."""
    kubectl("apply", "-k", BASE)
    template = kubectl.json("get", "deployment", "vmsim-controller", "-n", SHIPPED_HOME)["spec"]["template"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod", "namespace": SHIPPED_HOME}}
    create = ("create", "--dry-run=server", "-f", "-")
    assert "pod/pod created" in kubectl(*create, stdin=json.dumps({**pod, "spec": template["spec"]}))
    beyond: list[dict[str, Any]] = [{"hostNetwork": True}, {"securityContext": {}}]
    for changes in beyond:
        complaint = kubectl.refused(*create, stdin=json.dumps({**pod, "spec": {**template["spec"], **changes}}))
        assert 'violates PodSecurity "restricted:latest"' in complaint


# --- upgrades ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("controller")
def test_applying_the_manifests_again_changes_no_vm_and_no_pod(kubectl: Kubectl) -> None:
    """All of them, the resources alone, and by the script."""
    kubectl.apply_vm("vm")
    kubectl.wait_phase("vm", "Running")
    before = uids(kubectl)
    kubectl("apply", "-k", BASE)
    kubectl("apply", "-f", str(MANIFESTS / "crds"))
    environment = {**kubectl.environment, "KUBECTL": str(kubectl.path)}
    subprocess.run([REPOSITORY / "hack" / "setup_vm_crd.sh"], env=environment, check=True, timeout=60)
    kubectl("apply", "-k", BASE)
    assert uids(kubectl) == before
    # The controller keeps working: a VM is still served.
    kubectl.apply_vm("after")
    kubectl.wait_phase("after", "Running")
    assert uids(kubectl).items() > before.items()


@pytest.fixture
def future(kubectl: Kubectl) -> Iterator[None]:
    """Install the resource as a later release might define it."""
    schema = "/spec/versions/0/schema/openAPIV3Schema/properties"
    added = [
        {"op": "add", "path": f"{schema}/{part}/properties/future", "value": {"type": "string", "maxLength": 20}}
        for part in ("spec", "status")
    ]
    kubectl("patch", "crd", CRD, "--type=json", "-p", json.dumps(added))
    yield
    kubectl("apply", "-f", str(MANIFESTS / "crds"))


@pytest.mark.usefixtures("controller", "future")
def test_a_field_of_a_later_release_is_not_changed(kubectl: Kubectl) -> None:
    """In spec and status, through every status write of this release."""
    kubectl.apply_vm("vm")
    kubectl.wait_phase("vm", "Running")

    def known(vm: Any) -> bool:
        return all(vm[part].get("future") == "yes" for part in ("spec", "status"))

    # Until the API server serves the new schema, it drops the fields.
    kubectl.wait_vm("vm", lambda _: "future" in patch(kubectl, "vm", {"spec": {"future": "yes"}})["spec"])
    patch(kubectl, "vm", {"status": {"future": "yes"}}, "--subresource=status")
    before = kubectl.wait_vm("vm", known)
    patch(kubectl, "vm", {"spec": {"running": False}})
    assert known(kubectl.wait_phase("vm", "Stopped"))
    patch(kubectl, "vm", {"spec": {"running": True}})
    after = kubectl.wait_phase("vm", "Running")
    assert known(after)
    assert after["status"]["incarnation"] > before["status"]["incarnation"]


# --- without a controller ----------------------------------------------------------------------------------------


def test_nothing_is_lost_while_no_controller_runs(plane: ControlPlane, kubectl: Kubectl, tmp_path: Path) -> None:
    """VMs keep running, deleted ones lose their pods; other changes wait for the next controller."""
    with acting(plane, tmp_path):
        for name in ("runs", "deleted", "loses-its-pod"):
            kubectl.apply_vm(name)
        for name in ("runs", "deleted", "loses-its-pod"):
            kubectl.wait_phase(name, "Running")
    before = uids(kubectl)
    kubectl("delete", "vm", "deleted")
    kubectl("delete", "pod", kubectl.json("get", "vm", "loses-its-pod")["status"]["podName"])
    kubectl.apply_vm("new")
    migration = {
        "apiVersion": "simulation.node-classifier.io/v1alpha1",
        "kind": "VirtualMachineMigration",
        "metadata": {"name": "move", "namespace": "default"},
        "spec": {"vmName": "runs"},
    }
    kubectl("create", "-f", "-", stdin=json.dumps(migration))
    # The garbage collector looks for kinds that are new to it every 30 s.
    kubectl.eventually("get", "pods", "-o", "name", until=lambda text: text.count("virt-launcher-") == 1, timeout=45)
    vms = {vm["metadata"]["name"]: vm["status"] for vm in kubectl.json("get", "vm")["items"]}
    assert {name: status["phase"] for name, status in vms.items()} == {
        "runs": "Running",
        "loses-its-pod": "Running",  # what it was last known to be
        "new": "Pending",
    }
    assert kubectl.json("get", "pod", vms["runs"]["podName"])["metadata"]["uid"] == vms["runs"]["podUID"]
    assert kubectl.json("get", "vmm", "move")["status"] == {"phase": "Pending", "conditions": []}
    with acting(plane, tmp_path):
        # What changed moments before a controller went waits 20 s for its successor: a create might be on its way.
        kubectl("wait", "vmm/move", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=40s")
        lost = vms["loses-its-pod"]["podName"]
        kubectl.wait_vm("loses-its-pod", lambda vm: vm["status"].get("podName") not in (None, lost), timeout=40)
        kubectl("wait", "vm", "--all", "--for=condition=Ready", "--timeout=40s")
        assert uids(kubectl)["VirtualMachine/runs"] == before["VirtualMachine/runs"]
        kubectl("delete", "vmm,vm", "--all")


# --- removal -----------------------------------------------------------------------------------------------------


def test_the_controller_can_be_removed_and_the_vms_stay(plane: ControlPlane, kubectl: Kubectl, tmp_path: Path) -> None:
    """All but the resources is removed; VMs and pods stay the same, also after a new installation."""
    with acting(plane, tmp_path):
        kubectl.apply_vm("stays")
        kubectl.wait_phase("stays", "Running")
    before = uids(kubectl)
    kubectl("delete", "-k", BASE, "-l", "app.kubernetes.io/name=vmsim")
    assert kubectl("get", "namespace", SHIPPED_HOME, "--ignore-not-found") == ""
    assert kubectl("get", "clusterrole,clusterrolebinding", "-l", "app.kubernetes.io/name=vmsim", "-o", "name") == ""
    assert uids(kubectl) == before
    install(kubectl)
    with acting(plane, tmp_path):
        kubectl.apply_vm("stays", cpu="0.20")
        kubectl("wait", "vm/stays", "--for=condition=RestartRequired", "--timeout=15s")
        assert uids(kubectl) == before
        kubectl("delete", "vm", "stays")


def test_the_whole_installation_can_be_removed(plane: ControlPlane, kubectl: Kubectl, tmp_path: Path) -> None:
    """First the VMs, with a controller; then everything. A new installation works."""
    with acting(plane, tmp_path):
        kubectl.apply_vm("goes")
        kubectl.wait_phase("goes", "Running")
        kubectl("delete", "vmm,vm", "--all", "--all-namespaces")
        kubectl.eventually("get", "pods", "-o", "name", until=lambda text: not text)
    kubectl("delete", "-k", BASE)
    assert kubectl("get", "crd", "-o", "name") == ""
    assert kubectl("get", "clusterrole,clusterrolebinding,namespace", "-o", "name").count("vmsim") == 0
    install(kubectl)


class Newborn(Fault):
    """Shows each CRD in its first list as it was created: without conditions."""

    def __init__(self) -> None:
        self._created: dict[str, str] = {}

    async def on_request(self, exchange: Exchange) -> web.StreamResponse:
        """Record the resource version at which a CRD was created, and list it at that one."""
        call = exchange.call
        if call.resource != "customresourcedefinitions":
            return await exchange.pass_on()
        if call.method == "PATCH":
            answer = await exchange.forward()
            self._created[call.name] = json.loads(answer.body)["metadata"]["resourceVersion"]
            return exchange.reply(answer)
        name = exchange.url.query.get("fieldSelector", "").removeprefix("metadata.name=")
        created = self._created.pop(name, None) if call.listing else None
        if created is None:
            return await exchange.pass_on()
        self.struck = True
        return await exchange.pass_on(exchange.url.update_query(resourceVersion=created, resourceVersionMatch="Exact"))


async def test_the_setup_script_waits_for_a_crd_without_conditions(
    plane: ControlPlane, kubectl: Kubectl, tmp_path: Path
) -> None:
    """The API server shows a new CRD before its conditions; `kubectl wait` fails on that."""
    kubectl("delete", "-f", str(MANIFESTS / "crds"))
    async with Upstream.connect(plane.kubeconfig) as upstream, Proxy.serve(upstream, crash=lambda: None) as proxy:
        proxy.fault = Newborn()
        environment = {
            **kubectl.environment,
            "KUBECONFIG": str(proxy.kubeconfig(tmp_path / "kubeconfig", "default")),
            "KUBECTL": str(kubectl.path),
            # Only a list can be asked to be as old as the CRD; what kubectl makes of it is the same.
            "KUBE_FEATURE_WatchListClient": "false",
        }
        await command.run(str(REPOSITORY / "hack" / "setup_vm_crd.sh"), environment=environment, deadline=60)
        assert proxy.fault.struck
