"""The configuration of an additional scheduler is checked before anything starts, and its file is never written."""

import os
from pathlib import Path

import pytest
import yaml

from controller.controlplane import schedulers
from controller.controlplane.errors import InvalidSettingError, SchedulerFileError, SchedulerRefusedError
from controller.controlplane.layout import Layout

KIND = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n"
PACKING = f"{KIND}profiles: [{{schedulerName: packing}}]\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a configuration with the profile `packing`."""
    path = tmp_path / "packing.yaml"
    path.write_text(PACKING)
    return path


def read(file: Path, content: str, name: str = "packing") -> schedulers.Scheduler:
    """Read a configuration with this content."""
    file.write_text(content)
    [scheduler] = schedulers.read({name: file})
    return scheduler


def test_a_shipped_configuration_is_found_by_its_name() -> None:
    """It has a profile of that name."""
    [scheduler] = schedulers.read({"most-allocated": schedulers.find("most-allocated")})

    assert scheduler.component == "kube-scheduler-most-allocated"


def test_a_file_takes_precedence_over_a_shipped_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of that name does not."""
    monkeypatch.chdir(tmp_path)
    Path("most-allocated").mkdir()
    assert schedulers.find("most-allocated").name == "most-allocated.yaml"
    Path("most-allocated").rmdir()
    Path("most-allocated").write_text(PACKING)

    assert schedulers.find("most-allocated") == Path("most-allocated")


def test_a_missing_file_is_refused_with_the_shipped_names() -> None:
    """The name may have been one of them, with a typo."""
    with pytest.raises(InvalidSettingError, match=r"there is no file most-alocated; .* with vmsim: most-allocated"):
        schedulers.find("most-alocated")


@pytest.mark.parametrize("name", ["", "Packing", "a/b", "-a", "a b", "a" * 64, "default-scheduler"])
def test_a_name_that_cannot_be_a_second_schedulers_is_refused(name: str, file: Path) -> None:
    """It becomes part of the names of files."""
    with pytest.raises(InvalidSettingError, match="--scheduler"):
        schedulers.read({name: file})


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("profiles: [", "is no YAML"),
        ("[" * 6000, "is nested too deeply"),
        (f"{PACKING}extenders: {'[' * 60}{']' * 60}\n", "is nested too deeply"),
        (f"{PACKING}extenders: &a [*a]\n", "is nested too deeply"),
        ("d: 2024-99-99", "is no YAML: month must be in 1..12"),
        ("d: !!int ''", "is no YAML"),
        (f"{PACKING}# {'x' * 1024 * 1024}\n", "is larger than 1048576 bytes"),
        ("--- 1\n--- 2\n", "is no YAML"),
        ("", "does not have `apiVersion: kubescheduler.config.k8s.io/v1`"),
        ("- 1", "does not have `apiVersion: kubescheduler.config.k8s.io/v1`"),
        (PACKING.replace("/v1", "/v1beta3"), "does not have `apiVersion: kubescheduler.config.k8s.io/v1`"),
        (f"{PACKING}clientConnection: 5\n", "has a clientConnection that is no mapping"),
        (KIND, r"has no profile; add `profiles: \[{schedulerName: packing}\]` to it"),
        (f"{KIND}profiles: 5\n", "has no profile; add "),
        (f"{KIND}profiles: [{{}}]\n", "has a profile without a name, .* add `schedulerName: packing` to it"),
        (f"{KIND}profiles: [5]\n", "add `schedulerName: packing` to it"),
        (f"{KIND}profiles: [{{schedulerName: [packing]}}]\n", "add `schedulerName: packing` to it"),
        (PACKING.replace("packing", "other"), "has no profile packing, but other; `--scheduler other=.*` would fit"),
        (PACKING.replace("}]", "}, {schedulerName: default-scheduler}]"), "which the plane's own scheduler has, too"),
    ],
)
def test_a_file_that_does_not_configure_the_scheduler_is_refused(file: Path, content: str, reason: str) -> None:
    """The error says what to write."""
    with pytest.raises(SchedulerFileError, match=reason) as failed:
        read(file, content)

    assert str(file) in str(failed.value)


@pytest.mark.parametrize("content", [None, b"\xff\xfe\xff"])
def test_an_unreadable_file_is_refused(tmp_path: Path, content: bytes | None) -> None:
    """A folder, and a file that is no text."""
    file = tmp_path / "configuration"
    file.mkdir() if content is None else file.write_bytes(content)

    with pytest.raises(SchedulerFileError, match=r"is no regular file|is no text in UTF-8"):
        schedulers.read({"packing": file})


def test_a_pipe_and_a_device_are_refused_without_a_read(tmp_path: Path) -> None:
    """A pipe without a writer would wait for ever, and a device may have no end."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    for file in (pipe, Path("/dev/zero")):
        with pytest.raises(SchedulerFileError, match="is no regular file"):
            schedulers.read({"packing": schedulers.find(str(file))})


def test_a_name_that_no_file_can_have_is_refused() -> None:
    """It is longer than a file system allows."""
    with pytest.raises(InvalidSettingError, match="cannot be read: File name too long"):
        schedulers.find("a" * 5000)


def test_two_schedulers_with_a_profile_of_one_name_are_refused(file: Path, tmp_path: Path) -> None:
    """Both would place the same pods."""
    both = tmp_path / "both.yaml"
    both.write_text(PACKING.replace("}]", "}, {schedulerName: spreading}]"))

    with pytest.raises(SchedulerFileError, match="has a profile packing, which scheduler packing has, too"):
        schedulers.read({"packing": file, "spreading": both})


def test_the_copy_that_runs_has_the_planes_kubeconfig_and_no_limits(file: Path) -> None:
    """kube-scheduler ignores `--kubeconfig` beside a file."""
    scheduler = read(file, PACKING)

    copy = yaml.safe_load(schedulers.merged(scheduler, Path("/plane/kubeconfig")))

    assert copy == {
        **yaml.safe_load(PACKING),
        "clientConnection": {"qps": 5000, "burst": 10000, "kubeconfig": "/plane/kubeconfig"},
    }
    assert file.read_text() == PACKING


def test_the_copy_keeps_the_files_own_limits(file: Path) -> None:
    """They may be what is tried."""
    scheduler = read(file, f"{PACKING}clientConnection: {{qps: 20, kubeconfig: /other}}\n")

    copy = yaml.safe_load(schedulers.merged(scheduler, Path("/plane/kubeconfig")))

    assert copy["clientConnection"] == {"qps": 20, "burst": 10000, "kubeconfig": "/plane/kubeconfig"}


def test_what_the_plane_overrides_is_said(file: Path) -> None:
    """Its kubeconfig and the absence of leader election win over the file's."""
    more = "clientConnection: {kubeconfig: /other}\nleaderElection: {leaderElect: true}\n"

    assert schedulers.overridden(read(file, PACKING)) == []
    assert schedulers.overridden(read(file, PACKING + more)) == [
        "scheduler packing uses the plane's kubeconfig, not /other",
        "scheduler packing runs without leader election, being the only one of its name",
    ]


REFUSAL = r"""
echo 'E1130 1 options.go:205] "The manifest file is empty, ignoring."' >&2
echo 'E1130 1 run.go:72] "command failed" err="unknown field \"profiles[0].x\""' >&2
exit 1
"""


@pytest.mark.parametrize(
    ("script", "reason"),
    [(REFUSAL, 'unknown field "profiles[0].x"'), ("echo killed >&2; exit 137", "killed")],
    ids=["its log", "anything else"],
)
def test_the_reason_for_which_kube_scheduler_refuses_a_file_is_told(file: Path, script: str, reason: str) -> None:
    """Without the log around it."""
    program = file.with_name("kube-scheduler")
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)

    with pytest.raises(SchedulerRefusedError) as failed:
        schedulers.check(program, read(file, PACKING))

    assert str(failed.value) == f"kube-scheduler refuses {file}: {reason}"


def test_a_scheduler_listens_on_loopback_alone_and_elects_no_leader(tmp_path: Path) -> None:
    """At the port of its record."""
    layout = Layout.of(tmp_path)

    component = schedulers.component("kube-scheduler-packing", layout, 20001)

    assert component.binary == str(layout.program("kube-scheduler-packing"))
    assert {"--bind-address=127.0.0.1", "--secure-port=20001", "--leader-elect=false"} <= set(component.args)
