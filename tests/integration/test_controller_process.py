"""The controller as a process: flags and variables, probes and metrics, signals, and failures."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from controller import __version__
from controller.controlplane.plane import ControlPlane
from tests.integration import accounts
from tests.integration.sockets import listening_sockets
from tests.integration.tools import Controller, Kubectl, eventually
from tests.plane import install

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """Make a control plane of this module's own: its API server may fail, and no other controller acts in it."""
    directory = tmp_path_factory.mktemp("own-plane")
    with ControlPlane(directory / "state", nodes=2, audit_policy=accounts.audit_policy(directory)) as plane:
        install(plane)
        yield plane


@pytest.fixture(scope="module")
def kubectl(plane: ControlPlane) -> Kubectl:
    """Return kubectl against this module's control plane."""
    return Kubectl(plane.kubectl, plane.kubeconfig)


@pytest.fixture(scope="module")
def shared(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controller]:
    """Run one controller for the tests that only read from it; it watches an unused namespace."""
    log = tmp_path_factory.mktemp("shared") / "log"
    with Controller.start(plane.kubeconfig, log, "--namespaces", "unused", "--workers", "3") as process:
        yield process


@pytest.fixture
def start(plane: ControlPlane, tmp_path: Path) -> Callable[..., AbstractContextManager[Controller]]:
    """Return a function that starts a controller with further flags."""

    def start(*arguments: str) -> AbstractContextManager[Controller]:
        return Controller.start(plane.kubeconfig, tmp_path / f"{uuid4().hex}.log", *arguments)

    return start


@pytest.fixture
def name() -> str:
    """Return a VM name of the test's own."""
    return f"process-{uuid4().hex[:8]}"


@contextmanager
def namespaces(kubectl: Kubectl, directory: Path, count: int) -> Iterator[list[Kubectl]]:
    """Create several namespaces."""
    if not count:
        yield []
        return
    with kubectl.own_namespace(directory) as first, namespaces(kubectl, directory, count - 1) as others:
        yield [first, *others]


@cache
def vmsim(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end, without any of our variables and without a cluster."""
    clean = {"PATH": str(Path(sys.executable).parent), "HOME": "/nonexistent", "COLUMNS": "100"}
    return subprocess.run(
        [Path(sys.executable).parent / "vmsim", *arguments],
        env={**clean, **environment},
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )


# --- help and version ------------------------------------------------------------------------------------------


def test_the_version_is_the_packages() -> None:
    """`vmsim --version` prints one line."""
    done = vmsim("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"vmsim {__version__}\n", "")


def test_help_lists_the_commands() -> None:
    """`vmsim --help` names each command with a sentence."""
    done = vmsim("--help")
    assert done.returncode == 0
    assert re.search(r"^  controller +\S", done.stdout, re.MULTILINE)


KUBECTLS = ("--context", "--cluster", "--user", "--namespace", "--request-timeout")
"""Flags that every command takes as kubectl does."""


def options(text: str) -> dict[str, str]:
    """Parse a help text: each option's name to its explanation, on one line."""
    starts = re.split(r"^  (?:-\w, )?(--[\w-]+)", text.partition("\nOptions:\n")[2], flags=re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in zip(starts[1::2], starts[2::2], strict=True)}


def test_help_shows_default_and_variable_of_every_flag() -> None:
    """No other reference is needed."""
    done = vmsim("controller", "--help")
    assert done.returncode == 0
    found = options(done.stdout)
    assert found.pop("--help")
    assert set(found) >= {
        *("--kubeconfig", "--namespaces", "--workers", "--metrics-bind-address", "--log-format", "--log-level"),
        *("--reference-cpu", "--reference-memory", "--node-selector"),
    }
    for flag in KUBECTLS:  # they have no variable with kubectl, either
        assert "[default: " in found.pop(flag), flag
    for flag, text in found.items():
        assert f"env var: VMSIM_{flag.removeprefix('--').replace('-', '_').upper()};" in text, flag
        assert re.search(r"default: \S", text), flag


def test_help_shows_that_the_default_address_is_loopback() -> None:
    """Metrics and probes are local unless a flag says otherwise."""
    assert "default: 127.0.0.1:" in options(vmsim("controller", "--help").stdout)["--metrics-bind-address"]


# --- flags and variables ---------------------------------------------------------------------------------------


@pytest.mark.timeout(40)
def test_every_flag_can_be_a_variable(plane: ControlPlane, kubectl: Kubectl, tmp_path: Path) -> None:
    """A controller without flags obeys its variables."""
    with kubectl.own_namespace(tmp_path) as own:
        variables = {
            "VMSIM_KUBECONFIG": str(plane.kubeconfig),
            "VMSIM_NAMESPACES": own.namespace,
            "VMSIM_WORKERS": "3",
            "VMSIM_METRICS_BIND_ADDRESS": "127.0.0.1:0",
            "VMSIM_LOG_FORMAT": "json",
            "VMSIM_LOG_LEVEL": "debug",
            "VMSIM_REFERENCE_CPU": "8",
            "VMSIM_REFERENCE_MEMORY": "64Gi",
            "VMSIM_NODE_SELECTOR": "type=kwok,kubernetes.io/hostname=kwok-node-2",
            "VMSIM_BOOT_TIME": "30s",
            "VMSIM_SPEED": "10",
        }
        with Controller.run(tmp_path / "log", environment=variables) as process:
            starting = process.wait_for("starting")
            assert starting["cluster"] == str(plane.kubeconfig)
            assert starting["namespaces"] == own.namespace
            assert starting["workers"] == 3
            own.apply_vm("vm", cpu="0.5", memory="0.25")
            vm = own.wait_phase("vm", "Running")
            assert vm["status"]["nodeName"] == "kwok-node-2"
            pod = own.json("get", "pod", vm["status"]["podName"])
            assert pod["spec"]["containers"][0]["resources"]["requests"] == {"cpu": "4", "memory": str(16 * 1024**3)}
            assert process.wait_for("pod created")["level"] == "debug"
            [runs] = [each for each in vm["status"]["conditions"] if each["type"] == "PhaseRunning"]
            booted = datetime.fromisoformat(runs["lastTransitionTime"])
            assert booted - datetime.fromisoformat(pod["status"]["startTime"]) == timedelta(seconds=3)
            stays = {each["key"]: each.get("tolerationSeconds") for each in pod["spec"]["tolerations"]}
            assert stays["node.kubernetes.io/not-ready"] == stays["node.kubernetes.io/unreachable"] == 30


def test_a_flag_overrides_its_variable(plane: ControlPlane, tmp_path: Path) -> None:
    """The command line wins."""
    variables = {"VMSIM_WORKERS": "3", "VMSIM_METRICS_BIND_ADDRESS": "nonsense"}
    flags = ("--kubeconfig", str(plane.kubeconfig), "--metrics-bind-address", "127.0.0.1:0", "--workers", "5")
    with Controller.run(tmp_path / "log", *flags, environment=variables) as process:
        assert process.wait_for("starting")["workers"] == 5


def test_the_kubeconfig_variable_is_kubectls(plane: ControlPlane, tmp_path: Path) -> None:
    """Without a flag, KUBECONFIG names the cluster."""
    variables = {"KUBECONFIG": str(plane.kubeconfig), "VMSIM_METRICS_BIND_ADDRESS": "127.0.0.1:0"}
    with Controller.run(tmp_path / "log", environment=variables) as process:
        assert process.wait_for("starting")["cluster"] == str(plane.kubeconfig)
        process.wait_for("caches filled")


@pytest.mark.timeout(40)
def test_only_the_named_namespaces_are_handled(
    kubectl: Kubectl, start: Callable[..., AbstractContextManager[Controller]], tmp_path: Path
) -> None:
    """VMs of other namespaces stay as they were written."""
    with namespaces(kubectl, tmp_path, 3) as (first, second, other):
        other.apply_vm("vm")
        untouched = other.json("get", "vm", "vm")
        with start("--namespaces", f"{first.namespace}, {second.namespace}"):
            for own in (first, second):
                own.apply_vm("vm")
            for own in (first, second):
                own.wait_phase("vm", "Running")
        assert other.json("get", "vm", "vm") == untouched
        assert other("get", "pods", "-o", "name") == ""


def test_the_console_format_is_no_json(plane: ControlPlane, tmp_path: Path) -> None:
    """A file gets no colours."""
    log = tmp_path / "log"
    flags = ("--kubeconfig", str(plane.kubeconfig), "--metrics-bind-address", "127.0.0.1:0", "--log-format", "console")
    with Controller.run(log, *flags):
        eventually(lambda: "caches filled" in log.read_text())
    assert "{" not in log.read_text()
    assert "\x1b" not in log.read_text()
    assert "stopped" in log.read_text()


def test_the_log_level_hides_lower_levels(plane: ControlPlane, tmp_path: Path) -> None:
    """At level error, a healthy controller logs nothing."""
    log = tmp_path / "log"
    flags = ("--kubeconfig", str(plane.kubeconfig), "--metrics-bind-address", "127.0.0.1:0")
    with Controller.run(log, *flags, "--log-level", "error") as process:
        eventually(lambda: listening_sockets({"controller": process.process.pid}) != [])
    assert log.read_text() == ""


def test_every_log_line_is_json(shared: Controller) -> None:
    """Without a terminal each line is an object with time, level and event."""
    lines = [json.loads(line) for line in shared.log.read_text().splitlines()]
    assert lines
    for line in lines:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", line["timestamp"])
        assert line["level"] in ("debug", "info", "warning", "error")
        assert line["event"]


# --- metrics and probes ----------------------------------------------------------------------------------------


def test_port_0_takes_a_free_port_and_logs_it(shared: Controller) -> None:
    """The log has the address of the metrics."""
    assert re.fullmatch(r"http://127\.0\.0\.1:[1-9]\d+", shared.url)
    assert shared.get("/metrics")[0] == 200


def test_the_metrics_have_the_names_that_dashboards_know(shared: Controller) -> None:
    """Every series of the workqueue and of the reconciles exists from the start."""
    text = shared.get("/metrics")[1]
    for series in (
        'workqueue_depth{name="virtualmachine"}',
        'workqueue_adds_total{name="virtualmachine"}',
        'workqueue_retries_total{name="virtualmachine"}',
        'workqueue_queue_duration_seconds_count{name="virtualmachine"}',
        'workqueue_work_duration_seconds_count{name="virtualmachine"}',
        'workqueue_unfinished_work_seconds{name="virtualmachine"}',
        'workqueue_longest_running_processor_seconds{name="virtualmachine"}',
        'controller_runtime_reconcile_total{controller="virtualmachine",result="success"}',
        'controller_runtime_reconcile_total{controller="virtualmachine",result="error"}',
        'controller_runtime_reconcile_errors_total{controller="virtualmachine"}',
        'controller_runtime_reconcile_time_seconds_count{controller="virtualmachine"}',
        'controller_runtime_active_workers{controller="virtualmachine"}',
        "process_resident_memory_bytes",
        'leader_election_master_status{name="vmsim-controller"}',
        'reflector_lists_total{name="pods/unused"}',
        'reflector_watches_total{name="virtualmachines/unused"}',
        'reflector_short_watches_total{name="nodes"}',
        'vmsim_reflector_relists_total{cause="expired",name="virtualmachinemigrations/unused"}',
        'vmsim_vms{phase="Running"}',
        "vmsim_migration_downtime_seconds_count",
        "kubevirt_vmi_migrations_in_pending_phase",
        'kubevirt_vmi_phase_transition_time_from_creation_seconds_count{phase="Running"}',
        'kubevirt_vmi_migration_phase_transition_time_from_creation_seconds_count{phase="Succeeded"}',
    ):
        assert re.search(rf"^{re.escape(series)} 0\.0$|^{re.escape(series)} [1-9]", text, re.MULTILINE), series
    assert 'controller_runtime_max_concurrent_reconciles{controller="virtualmachine"} 3.0' in text


def test_requests_to_the_api_server_are_counted(shared: Controller, plane: ControlPlane) -> None:
    """At least each list and watch of the start."""
    [host] = {sample.labels["host"] for sample in shared.samples("rest_client_requests_total")}
    assert f"https://{host}" in plane.kubeconfig.read_text()
    eventually(lambda: shared.samples("rest_client_requests_total", method="GET", code="200")[0].value >= 8)


def test_metrics_show_current_caches_and_a_running_event_loop(shared: Controller) -> None:
    """Bookmarks come about each minute."""
    stale = {sample.labels["name"]: sample.value for sample in shared.samples("vmsim_reflector_staleness_seconds")}
    assert stale.keys() == {
        *("nodes", "pods/unused", "virtualmachines/unused", "virtualmachinemigrations/unused"),
    }
    assert max(stale.values()) < 90
    [lag] = shared.samples("vmsim_event_loop_lag_seconds")
    assert 0 <= lag.value < 5


def test_series_of_single_vms_can_be_switched_off(
    start: Callable[..., AbstractContextManager[Controller]], kubectl: Kubectl, name: str
) -> None:
    """Those of nodes and of the whole fleet stay."""
    with start("--no-vm-metrics") as without, start() as with_them:
        kubectl.apply_vm(name)
        kubectl.wait_phase(name, "Running")
        for process in (without, with_them):
            eventually(lambda process=process: sum(s.value for s in process.samples("node_vm_count")) == 1)  # type: ignore[misc]
            assert [s.value for s in process.samples("vmsim_vms", phase="Running")] == [1]
        assert without.samples("kubevirt_vmi_info") == []
        [series] = with_them.samples("kubevirt_vmi_info", name=name)
        status = json.loads(kubectl("get", "vm", name, "-o", "json"))["status"]
        assert (series.labels["node"], series.labels["vmi_pod"]) == (status["nodeName"], status["podName"])
        assert series.labels["phase"] == "running"
        kubectl("delete", "vm", name)
        eventually(lambda: not with_them.samples("kubevirt_vmi_info"))


@pytest.mark.parametrize("probe", ["/healthz", "/readyz"])
def test_a_controller_that_works_is_healthy_and_ready(shared: Controller, probe: str) -> None:
    """Both probes answer 200."""
    eventually(lambda: shared.get(probe) == (200, "ok"))


def test_an_unknown_path_is_not_found(shared: Controller) -> None:
    """No other path is served."""
    assert shared.get("/debug")[0] == 404


def test_the_controller_listens_on_loopback_alone(shared: Controller) -> None:
    """On one socket."""
    sockets = listening_sockets({"controller": shared.process.pid})
    assert [(socket.address, socket.is_loopback) for socket in sockets] == [("127.0.0.1", True)]


@pytest.mark.timeout(90)
def test_the_controller_survives_an_outage_of_the_api_server(
    plane: ControlPlane, kubectl: Kubectl, start: Callable[..., AbstractContextManager[Controller]], name: str
) -> None:
    """Healthy but not ready during the outage; ready and at work afterwards."""
    with start("--namespaces", "default") as process:
        plane.stop_component("kube-apiserver")
        try:
            eventually(lambda: process.get("/readyz")[0] == 503)
            problems = process.get("/readyz")[1].splitlines()
            assert "watch of pods in default is down" in problems
            assert problems[-1].startswith("API server: ")
            assert process.get("/healthz") == (200, "ok")
        finally:
            plane.start_component("kube-apiserver")
        eventually(lambda: process.get("/readyz") == (200, "ok"), timeout=30)
        kubectl.apply_vm(name)
        kubectl.wait_phase(name, "Running", timeout=40)
        kubectl("delete", "vm", name)


@pytest.mark.timeout(60)
def test_the_controller_waits_for_its_crd(kubectl: Kubectl, plane: ControlPlane, tmp_path: Path) -> None:
    """It is not ready before the resource is installed, and starts once it is."""
    kubectl("delete", "-f", str(REPOSITORY / "manifests" / "crds"))
    with Controller.run(
        tmp_path / "log", "--kubeconfig", str(plane.kubeconfig), "--metrics-bind-address", "127.0.0.1:0"
    ) as process:
        try:
            eventually(lambda: process.get("/readyz")[0] == 503)
            assert "cache of VMs is not filled yet" in process.get("/readyz")[1]
            assert process.get("/healthz") == (200, "ok")
        finally:
            install(plane)
        process.wait_for("caches filled", timeout=30)
        # A watch is requested once its cache is filled; the probe is ready once the watches are open, a moment later.
        eventually(lambda: process.get("/readyz") == (200, "ok"))


# --- stopping --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_stops_the_controller_cleanly(
    start: Callable[..., AbstractContextManager[Controller]], number: signal.Signals
) -> None:
    """Exit code 0; `stopped` is the last log line."""
    with start() as process:
        assert process.stop(number) == 0
        assert [line["event"] for line in process.lines()][-2:] == ["stopping", "stopped"]
        assert "Traceback" not in process.log.read_text()


@pytest.mark.timeout(60)
def test_a_second_signal_ends_the_controller_at_once(
    plane: ControlPlane, kubectl: Kubectl, start: Callable[..., AbstractContextManager[Controller]], tmp_path: Path
) -> None:
    """The first one waits for a request that hangs."""
    with kubectl.own_namespace(tmp_path) as own, start("--namespaces", own.namespace) as process:
        own("create", "quota", "none", "--hard=pods=0")
        own.eventually("get", "quota", "none", "-o", "jsonpath={.status.hard.pods}", until=lambda text: text == "0")
        own.apply_vm("refused")
        [server] = [status.pid for status in plane.status() if status.name == "kube-apiserver" and status.pid]
        os.kill(server, signal.SIGSTOP)
        try:
            # The refused pod is tried again and again; now a try hangs.
            eventually(lambda: process.metric("controller_runtime_active_workers") == 1, timeout=20)
            process.process.send_signal(signal.SIGTERM)
            process.wait_for("stopping")
            assert process.process.poll() is None
            assert process.stop(timeout=2) == 130
        finally:
            os.kill(server, signal.SIGCONT)


def test_the_controller_stops_without_a_cluster(tmp_path: Path) -> None:
    """It never reached one."""
    away = tmp_path / "kubeconfig"
    away.write_text(json.dumps(unreachable_cluster()))
    flags = ("--kubeconfig", str(away), "--metrics-bind-address", "127.0.0.1:0")
    with Controller.run(tmp_path / "log", *flags) as process:
        process.wait_for("listing again")
        assert process.get("/healthz") == (200, "ok")
        assert process.get("/readyz")[0] == 503
        assert process.stop(timeout=5) == 0


def unreachable_cluster() -> dict[str, Any]:
    """Return a kubeconfig whose server does not exist."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "away",
        "contexts": [{"name": "away", "context": {"cluster": "away", "user": "away"}}],
        "clusters": [{"name": "away", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "away", "user": {"token": "none"}}],
    }


# --- failing ---------------------------------------------------------------------------------------------------


def complaint(done: subprocess.CompletedProcess[str]) -> str:
    """Return the one line of standard error of a failed command."""
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def test_a_port_in_use_is_one_line_that_names_the_flag(plane: ControlPlane, shared: Controller) -> None:
    """A second instance prints the next step."""
    address = shared.url.removeprefix("http://")
    flags = ("--kubeconfig", str(plane.kubeconfig), "--metrics-bind-address", address)
    message = complaint(vmsim("controller", *flags))
    assert address in message
    assert "--metrics-bind-address" in message


def test_no_cluster_is_one_line_that_says_what_to_do() -> None:
    """Neither a flag, a variable nor a file names a cluster."""
    message = complaint(vmsim("controller"))
    assert "no cluster to talk to" in message
    assert "vmsim up" in message


@pytest.mark.parametrize(
    "content",
    [
        None,
        "{}",
        "",
        "just text",
        "not: [yaml",
        json.dumps({**unreachable_cluster(), "current-context": "elsewhere"}),
    ],
    ids=["missing", "nothing", "empty", "text", "broken", "no-context"],
)
def test_an_unusable_kubeconfig_is_one_line_that_names_it(tmp_path: Path, content: str | None) -> None:
    """Whatever is wrong with the file."""
    file = tmp_path / "kubeconfig"
    if content is not None:
        file.write_text(content)
    message = complaint(vmsim("controller", "--kubeconfig", str(file)))
    assert str(file) in message
    assert "object does not support" not in message
    if content is None:
        assert re.search("no such file|not exist|not found", message, re.IGNORECASE)


@pytest.mark.parametrize(
    ("flag", "value", "named"),
    [
        ("--workers", "0", "--workers"),
        ("--workers", "many", "--workers"),
        ("--log-format", "xml", "--log-format"),
        ("--log-level", "loud", "--log-level"),
        ("--reference-cpu", "abc", "--reference-cpu"),
        ("--reference-memory", "0", "--reference-memory"),
        ("--metrics-bind-address", "nowhere", "--metrics-bind-address"),
        ("--metrics-bind-address", "127.0.0.1:65536", "--metrics-bind-address"),
        ("--namespaces", "a,Bad_Name", "--namespaces"),
        ("--node-selector", "kwok", "--node-selector"),
        ("--tolerations", "a:Never", "--tolerations"),
        ("--tolerations", "=b", "--tolerations"),
        ("--no-such-flag", "1", "--no-such-flag"),
    ],
)
def test_a_bad_flag_is_refused(flag: str, value: str, named: str) -> None:
    """Exit code 2, before anything is read, and no traceback."""
    done = vmsim("controller", flag, value)
    assert done.returncode == 2
    assert named in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bad_variable_is_refused_by_name() -> None:
    """The message names the variable, not the flag."""
    done = vmsim("controller", VMSIM_WORKERS="0")
    assert done.returncode == 2
    assert "VMSIM_WORKERS" in done.stderr
