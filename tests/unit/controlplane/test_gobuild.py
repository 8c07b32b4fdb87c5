"""The Go build reports its progress, and survives interrupts and concurrent processes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from controller.controlplane.binaries import obtain
from controller.controlplane.gobuild import GoBuild, find_go, go_environment
from controller.controlplane.program_errors import GoCommandError, GoMissingError
from controller.controlplane.sources import Sources
from controller.controlplane.versions import ETCD, KWOK
from tests.unit.controlplane.support import VERSIONS, RecordingReporter, write_go


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """Return an empty directory to build in."""
    (tmp_path / "workspace").mkdir()
    return tmp_path / "workspace"


def ignore(_: str) -> None:
    """Ignore the progress."""


def test_go_on_the_search_path_is_taken(tmp_path: Path) -> None:
    """The user's own Go comes first."""
    go = write_go(tmp_path / "path" / "go", version="1.26.0")
    write_go(tmp_path / "venv" / "go", version="1.27.3")

    assert find_go(str(tmp_path / "path"), tmp_path / "venv", "etcd v3.7.3") == go.path


def test_the_virtualenvs_go_replaces_one_that_is_too_old(tmp_path: Path) -> None:
    """An operating system's old Go on PATH is skipped."""
    write_go(tmp_path / "path" / "go", version="1.25.9")
    ours = write_go(tmp_path / "venv" / "go", version="1.27.3")

    assert find_go(str(tmp_path / "path"), tmp_path / "venv", "etcd v3.7.3") == ours.path


def test_the_error_of_a_missing_go_names_those_that_are_too_old(tmp_path: Path) -> None:
    """It gives each one's version, the purpose of Go, and a way to install one."""
    write_go(tmp_path / "path" / "go", version="1.25.9")

    message = r"building etcd v3\.7\.3 needs Go 1\.26 or newer, which is missing \(found .*path/go 1\.25\)"
    with pytest.raises(GoMissingError, match=message) as raised:
        find_go(str(tmp_path / "path"), tmp_path / "venv", "etcd v3.7.3")
    assert "pip install 'vmsim[local]'" in raised.value.hint


def test_the_environment_overrides_settings_that_would_change_the_result() -> None:
    """Proxies and caches stay the user's; the platform and the modules are overridden."""
    environment = go_environment({"GOOS": "plan9", "GOARCH": "mips", "GOFLAGS": "-mod=mod", "GOPROXY": "off"})

    assert environment == {
        "GOPROXY": "off",
        "GOFLAGS": "-mod=readonly",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
        "CGO_ENABLED": "0",
    }


def test_both_go_commands_get_the_pinned_flags(workspace: Path, report: RecordingReporter, tmp_path: Path) -> None:
    """With other flags, `go list` would count other packages than `go build` compiles."""
    go = write_go(tmp_path / "path" / "go")

    list(GoBuild(ETCD, go.path, workspace, report, ignore).run(ETCD.binaries))

    flags = "-trimpath -ldflags -s -w go.etcd.io/etcd/server/v3"
    assert [call.endswith(flags) for call in go.calls("list") + go.calls("build")] == [True, True]


def test_progress_counts_compiled_packages(workspace: Path, report: RecordingReporter, tmp_path: Path) -> None:
    """The total is the number of packages that are not compiled yet."""
    go = write_go(tmp_path / "path" / "go")

    list(GoBuild(ETCD, go.path, workspace, report, ignore).run(ETCD.binaries))

    title = f"building etcd v3.7.3 with {go.path}"
    steps = [(done, total) for name, done, total, _ in report.progress if name == title]
    assert steps == [(1, 2), (2, 2)]


def test_module_downloads_are_reported(workspace: Path, report: RecordingReporter, tmp_path: Path) -> None:
    """Downloading modules takes minutes."""
    go = write_go(tmp_path / "path" / "go")

    list(GoBuild(ETCD, go.path, workspace, report, ignore).run(ETCD.binaries))

    assert report.progress[0] == ("listing the packages to compile for etcd v3.7.3", 0, 0, "1 modules downloaded")


def test_the_error_of_a_failed_build_contains_the_compilers_output(
    workspace: Path, report: RecordingReporter, tmp_path: Path
) -> None:
    """The last lines of it."""
    go = write_go(tmp_path / "path" / "go", during_build="echo 'etcd.go:1: undefined: x' >&2; exit 1")

    with pytest.raises(GoCommandError, match="undefined: x"):
        list(GoBuild(ETCD, go.path, workspace, report, ignore).run(ETCD.binaries))


def test_binaries_built_before_a_failure_are_kept(sources: Sources, report: RecordingReporter, tmp_path: Path) -> None:
    """Each binary is cached as soon as it is built."""
    write_go(tmp_path / "path" / "go", during_build='case "$out" in */kwokctl) exit 1 ;; esac')

    with pytest.raises(GoCommandError):
        obtain(replace(sources, build=True), report)

    assert [path.name for path in sources.cache_of(KWOK).iterdir()] == ["kwok"]


# A build that runs until it is ended, with a child process like a compiler. Both are found by their pids.
_ENDLESS = 'sleep 600 & echo $! >"$0.child"; echo $$ >"$0.pid"; wait'


def start_build(sources: Sources, *shell: str) -> subprocess.Popen[bytes]:
    """Run `vmsim up --obtain-only` as a process of its own, with only the fake Go as a source."""
    return subprocess.Popen(
        [*shell, Path(sys.executable).with_name("vmsim"), "up", "--obtain-only", "--no-download"],
        env={**os.environ, "PATH": sources.search_path, "VMSIM_CACHE_DIR": str(sources.cache)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def new_output(process: subprocess.Popen[bytes]) -> bytes:
    """Return a process's new output on standard error since the last call, without waiting for more."""
    assert process.stderr is not None
    os.set_blocking(process.stderr.fileno(), False)
    try:
        return os.read(process.stderr.fileno(), 65536)
    except BlockingIOError:
        return b""


def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition is true."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_running(pid_file: Path) -> bool:
    """Return whether the process whose pid is in a file is alive."""
    status = Path(f"/proc/{pid_file.read_text().strip()}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


@pytest.mark.parametrize("shell", [(), ("/bin/sh", "-c", "trap '' INT; exec \"$@\"", "sh")], ids=["fore", "background"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_interrupt_ends_the_build_and_leaves_no_files(
    sources: Sources, tmp_path: Path, number: signal.Signals, shell: tuple[str, ...]
) -> None:
    """Compilers end, too; SIGTERM has the same effect as Ctrl-C, also for a background job of a script."""
    go = write_go(tmp_path / "path" / "go", during_build=_ENDLESS)
    pid_file = go.path.with_name("go.pid")
    process = start_build(sources, *shell)
    until(lambda: pid_file.exists() and bool(pid_file.read_text()))

    process.send_signal(number)
    _, stderr = process.communicate(timeout=10)

    assert process.returncode == 130
    assert b"interrupted" in stderr
    assert b"Traceback" not in stderr
    until(lambda: not is_running(pid_file))  # it was killed, but may not be reaped yet
    until(lambda: not is_running(go.path.with_name("go.child")))
    assert list(sources.cache_of(ETCD).iterdir()) == []


def test_two_processes_build_everything_once(sources: Sources, tmp_path: Path) -> None:
    """The second one waits, and then finds all binaries in the cache."""
    both_are_there = tmp_path / "both-are-there"
    go = write_go(tmp_path / "path" / "go", during_build=f"while [ ! -e {both_are_there} ]; do sleep 0.05; done")

    processes = [start_build(sources) for _ in range(2)]
    said = bytearray()

    def one_waits() -> bool:
        for process in processes:
            said.extend(new_output(process))
        return b"another process, which is obtaining" in said

    until(one_waits)
    both_are_there.touch()
    outputs = [process.communicate(timeout=15)[0] for process in processes]

    assert [process.returncode for process in processes] == [0, 0]
    assert outputs[0] == outputs[1]
    assert len(go.calls("build")) == len(VERSIONS)
