"""A plane's processes are distinguished from all others, and are surely ended."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from controller.controlplane import processes
from controller.controlplane.layout import Layout
from controller.controlplane.processes import Process, belongs_to, component_of, parse_ps

LAYOUT = Layout(Path("/repo/.vmsim"))
WORKDIR = "/repo/.vmsim/controlplane/.kwok/clusters/vmsim"


def test_a_component_is_recognized_by_the_path_of_its_program() -> None:
    """The path names the plane."""
    process = Process(7, (f"{WORKDIR}/bin/etcd", "--name=node0"))

    assert component_of(process, LAYOUT.workdir) == "etcd"


def test_a_component_is_recognized_in_a_command_line_of_one_string() -> None:
    """`ps` prints it so on macOS."""
    process = Process(7, (f"{WORKDIR}/bin/kube-apiserver --etcd-prefix=/registry",))

    assert component_of(process, LAYOUT.workdir) == "kube-apiserver"


@pytest.mark.parametrize(
    "argv",
    [
        ("/usr/bin/etcd", f"--data-dir={WORKDIR}/etcd"),
        ("tail", "-f", f"{WORKDIR}/logs/etcd.log"),
        ("/other/.vmsim/controlplane/.kwok/clusters/vmsim/bin/etcd",),
        ("/usr/bin/kubectl", "--kubeconfig=/repo/.vmsim/kubeconfig", "get", "pods"),
        ("/cache/kwokctl", "create", "cluster", "--kubeconfig=/other/.vmsim/kubeconfig"),
        (),
    ],
    ids=["another etcd", "reader of a log", "another plane", "kubectl", "another kwokctl", "nameless"],
)
def test_other_processes_do_not_belong_to_the_plane(argv: tuple[str, ...]) -> None:
    """`down` ends only the plane's processes."""
    assert not belongs_to(Process(7, argv), LAYOUT)


def test_kwokctl_that_starts_the_plane_belongs_to_it() -> None:
    """It would start components while `down` ends them."""
    argv = ("/cache/kwokctl", "--name=vmsim", "create", "cluster", "--kubeconfig=/repo/.vmsim/kubeconfig")

    assert belongs_to(Process(7, argv), LAYOUT)


def test_ps_output_is_read_without_zombies() -> None:
    """A zombie has ended."""
    output = "    1 Ss   /sbin/launchd\n   42 Z    (etcd)\n  314 S+   /a b/bin/etcd --name=node0\n"

    assert parse_ps(output) == [Process(1, ("/sbin/launchd",)), Process(314, ("/a b/bin/etcd --name=node0",))]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """Return the layout of a plane in a temporary directory."""
    return Layout.of(tmp_path / "state")


@pytest.fixture
def start(layout: Layout) -> Iterator[Callable[[str], subprocess.Popen[bytes]]]:
    """Return a function that starts stand-ins for components; they end with the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start_component(name: str) -> subprocess.Popen[bytes]:
        program = layout.workdir / "bin" / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.symlink_to("/bin/sleep")
        process = subprocess.Popen([program, "600"])
        started.append(process)
        # Popen returns when a pipe closes in the exec, which is a moment before the kernel shows the new arguments.
        arguments = Path(f"/proc/{process.pid}/cmdline")
        while arguments.exists() and not arguments.read_bytes():
            time.sleep(0.001)
        return process

    yield start_component
    for process in started:
        process.kill()
        process.wait()


def test_running_components_are_found(layout: Layout, start: Callable[[str], subprocess.Popen[bytes]]) -> None:
    """In this machine's real process list."""
    process = start("etcd")

    assert processes.components(processes.running(), layout.workdir) == {"etcd": process.pid}


def test_zombies_do_not_count_as_running(layout: Layout, start: Callable[[str], subprocess.Popen[bytes]]) -> None:
    """A container may lack an init process that reaps them."""
    process = start("etcd")
    os.kill(process.pid, 9)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, but not reaped

    assert processes.components(processes.running(), layout.workdir) == {}


def test_all_components_are_ended(layout: Layout, start: Callable[[str], subprocess.Popen[bytes]]) -> None:
    """With SIGKILL."""
    started = [start("etcd"), start("kube-apiserver")]

    assert processes.kill_all(layout, timeout=5) == 2
    assert [process.wait(timeout=5) for process in started] == [-9, -9]


def test_ending_one_component_spares_the_others(
    layout: Layout, start: Callable[[str], subprocess.Popen[bytes]]
) -> None:
    """Tests of outages need this."""
    start("etcd")
    other = start("kube-apiserver")

    processes.kill_component(layout.workdir, "etcd", timeout=5)

    assert processes.components(processes.running(), layout.workdir) == {"kube-apiserver": other.pid}


def test_ending_no_process_is_no_error(layout: Layout) -> None:
    """It returns at once."""
    started = time.monotonic()

    assert processes.kill_all(layout, timeout=5) == 0
    assert time.monotonic() - started < 1
