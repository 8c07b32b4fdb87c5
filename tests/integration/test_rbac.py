"""The shipped rights of the controller equal the rights that it uses, by the API server's audit log.

The controller runs on a control plane of this module's own, with a token of the manifests' ServiceAccount.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from controller.controlplane.layout import Layout
from controller.controlplane.plane import ControlPlane
from tests.integration import accounts
from tests.integration.tools import Controller, Kubectl, eventually

pytestmark = pytest.mark.timeout(120)

HOME = accounts.SHIPPED_HOME
TEAMS = ("team-a", "team-b")
USER = accounts.user(HOME)
GROUP = "simulation.node-classifier.io"
OURS = (f"{GROUP}/virtualmachines", f"{GROUP}/virtualmachinemigrations")
READ = frozenset({"get", "list", "watch"})
WRITE = frozenset({"create", "update", "patch", "delete", "deletecollection"})

Right = tuple[str, str]
"""A verb, and what it is about: `group/resource`, `group/resource/subresource`, or a path of the API server."""
Start = Callable[..., AbstractContextManager[Controller]]


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """Run a control plane whose audit log has the ServiceAccount's requests."""
    directory = tmp_path_factory.mktemp("rbac-plane")
    policy = accounts.audit_policy(directory, USER)
    with ControlPlane(directory / "state", nodes=3, audit_policy=policy) as plane:
        yield plane


@pytest.fixture(scope="module")
def kubectl(plane: ControlPlane) -> Kubectl:
    """Return the administrator's kubectl, after the namespaces of the namespaced overlay are created."""
    kubectl = Kubectl(plane.kubectl, plane.kubeconfig)
    for name in TEAMS:
        kubectl("create", "namespace", name)
        kubectl("wait", "--for=create", "serviceaccount/default", "-n", name, "--timeout=15s")
    return kubectl


@pytest.fixture(scope="module")
def cluster_wide(kubectl: Kubectl) -> None:
    """Give the account the rights of the base."""
    install(kubectl, "base")


@pytest.fixture
def namespaced(kubectl: Kubectl, cluster_wide: None) -> Iterator[None]:
    """Give the account the rights of the namespaced overlay, and remove those of the base."""
    del cluster_wide
    install(kubectl, "overlays/namespaced")
    kubectl("delete", "clusterrolebinding,clusterrole", accounts.ACCOUNT)
    wait_until_may(kubectl, "no", "list", "pods")
    wait_until_may(kubectl, "yes", "list", "nodes")
    yield
    kubectl("delete", "clusterrolebinding,clusterrole", f"{accounts.ACCOUNT}-nodes", "--ignore-not-found")
    kubectl("apply", "-f", str(accounts.MANIFESTS / "base" / "controller" / "cluster-role.yaml"))


@pytest.fixture
def without_nodes(kubectl: Kubectl, namespaced: None) -> None:
    """Remove the ClusterRole that lets it read nodes."""
    del namespaced
    kubectl("delete", "clusterrolebinding,clusterrole", f"{accounts.ACCOUNT}-nodes")
    wait_until_may(kubectl, "no", "list", "nodes")


@pytest.fixture
def start(plane: ControlPlane, tmp_path: Path) -> Start:
    """Return a function that starts the controller with the account's token and the Deployment's election."""

    def start(*arguments: str) -> AbstractContextManager[Controller]:
        own = accounts.acting_as_shipped(plane.kubeconfig, tmp_path)
        common = ("--kubeconfig", str(own), "--metrics-bind-address", "127.0.0.1:0", "--log-level", "debug")
        return Controller.run(tmp_path / "log", *common, *arguments)

    return start


def install(kubectl: Kubectl, path: str) -> None:
    """Apply a part of the manifests, and wait for our resources."""
    kubectl("apply", "-k", str(accounts.MANIFESTS / path))
    kubectl.established()


def wait_until_may(kubectl: Kubectl, answer: str, *request: str) -> None:
    """Wait until the API server enforces a change of the account's rights."""

    def answered() -> bool:
        # The exit code of can-i is the answer, too.
        return kubectl.shell(f"kubectl auth can-i {' '.join(request)} -A --as={USER} || true").strip() == answer

    eventually(answered)


def granted(kubectl: Kubectl) -> set[Right]:
    """Return the rights that the bindings in the cluster give the account."""
    found = set()
    for binding in kubectl.json("get", "clusterrolebindings,rolebindings", "-A")["items"]:
        if any((s.get("namespace"), s["name"]) == (HOME, accounts.ACCOUNT) for s in binding.get("subjects", ())):
            where = ("-n", binding["metadata"]["namespace"]) if binding["roleRef"]["kind"] == "Role" else ()
            found |= rights(kubectl.json("get", binding["roleRef"]["kind"], binding["roleRef"]["name"], *where))
    return found


def rights(role: Any) -> set[Right]:
    """Return what a role grants, one by one."""
    found = set()
    for rule in role["rules"]:
        about = [f"{group}/{resource}" for group in rule.get("apiGroups", ()) for resource in rule.get("resources", ())]
        found |= {(verb, what) for verb in rule["verbs"] for what in (*about, *rule.get("nonResourceURLs", ()))}
    return found


def used(entries: list[Any]) -> set[Right]:
    """Return the rights that requests needed."""
    found = set()
    for entry in entries:
        about = entry.get("objectRef", {})
        if "resource" in about:
            parts = (about.get("apiGroup", ""), about["resource"], *filter(None, (about.get("subresource"),)))
            found.add((entry["verb"], "/".join(parts)))
        else:
            found.add((entry["verb"], entry["requestURI"]))
    return found


def refused(entries: list[Any]) -> list[str]:
    """Return the requests that the account had no right to make."""
    return [accounts.described(entry) for entry in entries if accounts.is_denied(entry)]


def migrate(kubectl: Kubectl, name: str, vm: str, namespace: str = "default", **spec: Any) -> None:
    """Create a migration, and wait for its end."""
    body = {
        "apiVersion": f"{GROUP}/v1alpha1",
        "kind": "VirtualMachineMigration",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"vmName": vm, **spec},
    }
    kubectl("create", "-f", "-", stdin=json.dumps(body))
    kubectl("wait", f"vmm/{name}", "-n", namespace, "--for=jsonpath={.status.endTimestamp}", "--timeout=30s")


def patch(kubectl: Kubectl, vm: str, change: Any, *flags: str) -> None:
    """Merge a change into a VM."""
    kubectl("patch", "vm", vm, "--type=merge", "-p", json.dumps(change), *flags)


def live(kubectl: Kubectl, vm: str) -> Any:
    """Return the status of a running VM."""
    return kubectl.wait_phase(vm, "Running", timeout=30)["status"]


# --- in the whole cluster ----------------------------------------------------------------------------------------


def test_every_right_is_used_and_every_use_has_its_right(
    kubectl: Kubectl, plane: ControlPlane, start: Start, cluster_wide: None
) -> None:
    """In everything that the controller does; no right is a wildcard."""
    del cluster_wide
    with start() as process:
        process.wait_for("published the settings")
    # Another process has other settings.
    with start("--reference-cpu=64") as process:
        process.wait_for("published the settings")
        play_everything(kubectl)
        assert process.get("/readyz") == (200, "ok")
    entries = accounts.requests_of(plane.audit_log, USER)
    assert refused(entries) == []
    assert used(entries) == granted(kubectl)


def play_everything(kubectl: Kubectl) -> None:
    """Make the controller do everything it can, each step with the rights that it needs in addition."""
    # Pods and status, then a patch of the pod.
    kubectl.apply_vm("vm")
    live(kubectl, "vm")
    kubectl("annotate", "vm", "vm", f"{GROUP}/cpu-consumption=0.05")
    kubectl.wait_vm("vm", lambda vm: vm["status"]["cpuConsumption"] == "0.05")
    # The same event twice is a series, which is patched.
    for _ in range(2):
        patch(kubectl, "vm", {"spec": {"running": False}})
        kubectl.wait_phase("vm", "Stopped")
        patch(kubectl, "vm", {"spec": {"running": True}})
        live(kubectl, "vm")
    # The source is deleted, and looked for by name before the target is made.
    migrate(kubectl, "moves", "vm")
    # A VM that the cache lacks is looked for; of many migrations, the oldest are deleted.
    migrate(kubectl, "missing", "missing")
    for number in range(6):
        migrate(kubectl, f"cancelled-{number}", "vm", cancel=True)
    kubectl.eventually("get", "vmm", "-o", "name", until=lambda text: text.count("cancelled-") == 5)
    # An eviction is recorded.
    pod = live(kubectl, "vm")["podName"]
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": "default"}}
    path = f"/api/v1/namespaces/default/pods/{pod}/eviction"
    kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(eviction))
    kubectl.eventually("get", "vmm", "-o", "jsonpath={.items[*].spec.reason}", until=lambda text: "Evicted" in text)
    # A claim whose migration does not exist is checked.
    status = live(kubectl, "vm")
    claim = {
        "name": "missing",
        "uid": "missing",
        "sourceNode": "kwok-node-1",
        "sourceIncarnation": status["incarnation"],
    }
    patch(kubectl, "vm", {"status": {"migration": claim}}, "--subresource=status")
    kubectl.wait_vm("vm", lambda vm: "migration" not in vm["status"])
    # A node that does not exist is read.
    kubectl("delete", "node", live(kubectl, "vm")["nodeName"])
    kubectl.wait_vm("vm", lambda vm: vm["status"].get("podName") not in (None, pod, status["podName"]), timeout=30)
    kubectl("delete", "vm", "vm")
    kubectl.eventually("get", "pods", "-o", "name", until=lambda text: not text)


def test_the_rights_to_review_are_those_that_secure_metrics_need(
    kubectl: Kubectl, plane: ControlPlane, start: Start, cluster_wide: None
) -> None:
    """The component grants both, and a scrape uses both."""
    del cluster_wide
    before = granted(kubectl)
    kubectl("apply", "-f", str(accounts.MANIFESTS / "components" / "secure-metrics" / "roles.yaml"))
    added = granted(kubectl) - before
    asked = len(accounts.requests_of(plane.audit_log, USER))
    token = kubectl("create", "token", accounts.ACCOUNT, "-n", HOME).strip()
    with start("--metrics-auth") as process:
        # The account is authenticated; it has many rights, but not that to scrape.
        request = Request(f"{process.url}/metrics", headers={"Authorization": f"Bearer {token}"})  # noqa: S310 - ours
        with pytest.raises(HTTPError) as denied:
            urlopen(request, timeout=10)  # noqa: S310 - ours
        assert denied.value.code == HTTPStatus.FORBIDDEN
        denied.value.close()
    entries = accounts.requests_of(plane.audit_log, USER)[asked:]
    assert refused(entries) == []
    assert added == {right for right in used(entries) if right[1].endswith("reviews")}


@pytest.mark.parametrize(("role", "verbs"), [("view", READ), ("edit", READ | WRITE), ("admin", READ | WRITE)])
def test_kubernetes_own_roles_get_our_kinds(
    kubectl: Kubectl, cluster_wide: None, role: str, verbs: frozenset[str]
) -> None:
    """The roles view, edit and admin include VMs and migrations of a namespace, but not their status."""
    del cluster_wide
    wanted = {(verb, kind) for verb in verbs for kind in OURS}

    def ours() -> set[Right]:
        return {right for right in rights(kubectl.json("get", "clusterrole", role)) if right[1].startswith(GROUP)}

    eventually(lambda: bool(ours()))
    eventually(lambda: ours() == wanted)


def test_the_check_reports_requests_beyond_the_rights(tmp_path: Path) -> None:
    """The check after every controller of the tests; a request that was allowed another time is not reported."""
    entries = [
        {
            "verb": verb,
            "requestURI": f"/api/v1/{resource}",
            "user": {"username": username},
            "objectRef": {"resource": resource},
            "annotations": {"authorization.k8s.io/decision": decision},
        }
        for verb, resource, decision, username in (
            ("list", "pods", "forbid", accounts.user()),
            ("list", "pods", "allow", accounts.user()),
            ("watch", "pods", "forbid", accounts.user()),
            ("list", "nodes", "forbid", "another"),
        )
    ]
    audit = Layout.of(tmp_path).audit_log
    audit.parent.mkdir(parents=True)
    audit.write_text("".join(f"{json.dumps(entry, separators=(',', ':'))}\n" for entry in entries))
    assert accounts.forbidden(tmp_path / "kubeconfig", tmp_path / "log") == ["watch /api/v1/pods"]


# --- in some namespaces ------------------------------------------------------------------------------------------


def play_in_teams(kubectl: Kubectl) -> None:
    """Run and move a VM in each team's namespace; one elsewhere is not handled."""
    kubectl.apply_vm("other")
    for team in TEAMS:
        kubectl.apply_vm("vm", namespace=team)
    for team in TEAMS:
        before = kubectl.wait_phase("vm", "Running", namespace=team, timeout=30)["status"]
        migrate(kubectl, "moves", "vm", team)
        after = kubectl.json("get", "vm", "vm", "-n", team)["status"]
        assert (after["phase"], kubectl.json("get", "vmm", "moves", "-n", team)["status"]["phase"]) == (
            "Running",
            "Succeeded",
        )
        assert after["nodeName"] != before["nodeName"]


@pytest.fixture
def _tidy(kubectl: Kubectl) -> Iterator[None]:
    """Leave no VM, no migration and no pod behind."""
    yield
    for namespace in ("default", *TEAMS):
        kubectl("delete", "vmm,vm", "--all", "-n", namespace)
        kubectl("delete", "pods", "--all", "--force", "--grace-period=0", "-n", namespace)


@pytest.mark.usefixtures("namespaced", "_tidy")
def test_rights_in_its_namespaces_and_on_nodes_are_enough(kubectl: Kubectl, plane: ControlPlane, start: Start) -> None:
    """It sends no request elsewhere, and serves the metrics of its nodes."""
    before = len(accounts.requests_of(plane.audit_log, USER))
    with start(f"--namespaces={','.join(TEAMS)}") as process:
        process.wait_for("leading")
        play_in_teams(kubectl)
        eventually(lambda: process.metric("node_vm_count") == len(TEAMS))
    entries = accounts.requests_of(plane.audit_log, USER)[before:]
    assert refused(entries) == []
    assert used(entries) <= granted(kubectl) | {("get", "/readyz")}
    abouts = [entry.get("objectRef", {}) for entry in entries]
    assert {about.get("namespace") for about in abouts if about.get("resource") != "nodes"} == {*TEAMS, HOME}
    assert kubectl.json("get", "vm", "other")["status"] == {"phase": "Pending", "conditions": []}


@pytest.mark.usefixtures("without_nodes", "_tidy")
def test_the_controller_works_without_the_right_to_read_nodes(
    kubectl: Kubectl, plane: ControlPlane, start: Start
) -> None:
    """VMs run and move by the scheduler's choice; there are no metrics of nodes; the refusal is logged once."""
    before = len(accounts.requests_of(plane.audit_log, USER))
    with start(f"--namespaces={','.join(TEAMS)}") as process:
        process.wait_for("leading")
        play_in_teams(kubectl)
        assert process.get("/readyz") == (200, "ok")
        assert process.samples("node_vm_count") == []
        logged = [line for line in process.lines() if line["event"] == "going on without it"]
    assert [(line["level"], line["resource"]) for line in logged] == [("warning", "nodes")]
    assert 'cannot list resource "nodes"' in logged[0]["error"]
    assert refused(accounts.requests_of(plane.audit_log, USER)[before:]) == ["list /api/v1/nodes?limit=500"]
