"""`vmsim load` and `vmsim unload`: flags, dry runs, and output."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from controller.cli.load import begun_elsewhere, state, summary
from controller.cli.preview import _short, pace, span, totals
from controller.cli.scenarios import complete, complete_dry_run
from controller.cli.unload import name_of
from controller.domain.objects import VirtualMachine
from controller.domain.ratio import ReferenceNode
from controller.domain.settings import PublishedSettings
from controller.domain.vm.policy import LauncherPolicy
from controller.operations.settings import Reading
from controller.scenario import files
from controller.scenario.errors import reasons
from controller.scenario.loading import Outcome
from controller.scenario.player import Played
from tests.unit.cli.builders import run

HEAD = """\
apiVersion: simulation.node-classifier.io/v1alpha1
kind: Scenario
name: demo
"""

pytestmark = pytest.mark.usefixtures("own_logging")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("load",), "Missing argument"),
        (("load", "quickstart", "--speed", "0"), "Invalid value for '--speed'"),
        (("load", "quickstart", "--speed", "nan"), "Invalid value for '--speed'"),
        (("load", "quickstart", "--rate", "0"), "Invalid value for '--rate'"),
        (("load", "quickstart", "--rate", "inf"), "Invalid value for '--rate'"),
        (("load", "quickstart", "--timeout", "-1"), "Invalid value for '--timeout'"),
        (("unload",), "Missing argument"),
        (("unload", "quickstart", "--timeout", "nan"), "Invalid value for '--timeout'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_bad_argument_is_exit_code_2(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], complaint: str
) -> None:
    """No request is sent."""
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert complaint in " ".join(err.split())


@pytest.mark.parametrize("command", ["load", "unload"])
def test_a_command_prints_every_problem_of_a_file_on_a_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: str
) -> None:
    """The last line counts them; no request is sent."""
    path = tmp_path / "s.yaml"
    path.write_text(HEAD + "speed: fast\nseed: -1\n")
    code, out, err = run(capsys, command, str(path), "--kubeconfig", "/nowhere/config")
    assert (code, out) == (1, "")
    lines = err.splitlines()
    assert lines[0].startswith(f"{path}:4: speed: want a number")
    assert lines[1].startswith(f"{path}:5: seed: want a whole number")
    assert lines[2:] == [f"error: {path} cannot be used: 2 problems"]


@pytest.mark.parametrize("command", ["load", "unload"])
def test_a_missing_kubeconfig_is_one_line(capsys: pytest.CaptureFixture[str], command: str) -> None:
    """Exit code 1, no traceback."""
    code, out, err = run(capsys, command, "quickstart", "--kubeconfig", "/nowhere/config")
    assert (code, out, err) == (1, "", "error: cannot use /nowhere/config: it does not exist\n")


def test_a_dry_run_needs_no_cluster(capsys: pytest.CaptureFixture[str]) -> None:
    """It prints the objects, and their share of the nodes."""
    code, out, err = run(capsys, "load", "quickstart", "--dry-run", "--kubeconfig", "/nowhere/config")
    assert (code, err) == (0, "")
    lines = [line.rstrip() for line in out.splitlines()]
    assert lines[0].split() == ["KIND", "NAME", "COUNT", "CPU", "MEMORY", "USES", "CPU", "USES", "MEMORY"]
    assert lines[1] == "Node  quickstart-node-1 to 3      3  32               256Gi"
    assert "requested:    33.2 of 96 CPUs (35%), 256 of 768 GiB (33%), 6 of 330 pods" in lines
    assert "Plays at 1x, the controller's default." in lines
    assert "32 CPUs and 256 GiB, the controller's default; what they use" in " ".join(lines)
    assert lines[-1] == "--dry-run=server uses the settings of the cluster's controller instead."


def test_the_preview_uses_the_settings_that_the_controller_has_published() -> None:
    """And names the ConfigMap."""
    policy = LauncherPolicy(reference=ReferenceNode.of(cpu="64", memory="1536Gi"))
    reading = Reading(PublishedSettings(policy), "ConfigMap default/vmsim-controller")
    lines = list(totals(files.read("quickstart"), {None: reading}))
    assert "requested:    66.4 of 96 CPUs (69%), 1536 of 768 GiB (200%), 6 of 330 pods" in lines
    assert "64 CPUs and 1536 GiB, by ConfigMap default/vmsim-controller; what they use" in " ".join(lines)


def test_the_preview_uses_the_settings_of_each_class(tmp_path: Path) -> None:
    """A VM's shares are of its own controller's reference node."""
    path = tmp_path / "s.yaml"
    blue = "{name: b, cpu: 0.5, memory: 0.5, labels: {simulation.node-classifier.io/controller-class: blue}}"
    path.write_text(f"{HEAD}vms: [{{name: a, cpu: 0.5, memory: 0.5}}, {blue}]\n")
    policy = LauncherPolicy(reference=ReferenceNode.of(cpu="64", memory="512Gi"))
    readings = {None: Reading(), "blue": Reading(PublishedSettings(policy), "ConfigMap a/vmsim-controller-blue")}
    text = "\n".join(totals(files.read(str(path)), readings))
    assert "requested:    48 of 0 CPUs, 384 of 0 GiB, 2 of 0 pods" in text
    assert (
        "a reference node, here of 32 CPUs and 256 GiB, the controller's default (no class), and of 64 CPUs and "
        "512 GiB, by ConfigMap a/vmsim-controller-blue (class blue); what they use"
    ) in text


def test_dry_run_takes_the_values_of_kubectl(capsys: pytest.CaptureFixture[str]) -> None:
    """After `=`, or no value; the next argument is not its value."""
    alone = run(capsys, "load", "--dry-run", "quickstart", "--kubeconfig", "/nowhere/config")
    assert alone[0] == 0
    assert run(capsys, "load", "quickstart", "--dry-run=client", "--kubeconfig", "/nowhere/config") == alone
    code, _, err = run(capsys, "load", "quickstart", "--dry-run=none", "--kubeconfig", "/nowhere/config")
    assert (code, "'none' is not one of 'client', 'server'" in " ".join(err.split())) == (2, True)


def test_a_dry_run_on_the_server_needs_a_cluster(capsys: pytest.CaptureFixture[str]) -> None:
    """The output that needs no cluster comes first."""
    code, out, err = run(capsys, "load", "quickstart", "--dry-run=server", "--kubeconfig", "/nowhere/config")
    assert (code, out.splitlines()[0].split()[:3]) == (1, ["KIND", "NAME", "COUNT"])
    assert err.startswith("error: ")


def test_completion_offers_values_and_files_after_dry_run() -> None:
    """The flag may have no value."""
    assert complete_dry_run("s") == ["server"]
    assert complete_dry_run("qu") == ["quickstart"]


def test_a_dry_run_reports_requests_beyond_the_capacity(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """38.4 CPUs of 32."""
    path = tmp_path / "s.yaml"
    path.write_text(HEAD + "nodes: [{name: n}]\nvms: [{name: v, count: 3, cpu: 0.4, memory: 0.1}]\n")
    _, out, _ = run(capsys, "load", str(path), "--dry-run")
    assert "requested:    38.4 of 32 CPUs (120%), 76.8 of 256 GiB (30%), 3 of 110 pods" in out
    assert "The VMs request more than these nodes have" in out
    assert "Plays" not in out


def test_a_dry_run_without_nodes_prints_no_percentages(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The nodes may exist already."""
    path = tmp_path / "s.yaml"
    path.write_text(HEAD + "vms: [{name: v, cpu: 0.5, memory: 0.5}]\n")
    code, out, _ = run(capsys, "load", str(path), "--dry-run")
    assert code == 0
    assert "requested:    16 of 0 CPUs, 128 of 0 GiB, 1 of 0 pods" in out


def test_a_dry_run_prints_the_largest_capacity(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A quantity is clamped to 1e27."""
    path = tmp_path / "s.yaml"
    path.write_text(HEAD + "nodes: [{name: n, cpu: 1e27}]\nvms: [{name: v, cpu: 0.5, memory: 0.5}]\n")
    code, out, _ = run(capsys, "load", str(path), "--dry-run")
    assert code == 0
    assert f"requested:    16 of 1{'0' * 27} CPUs (0%)" in out


def test_the_speed_flag_overrides_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    """Without it, the file's speed holds. What a dry run without a request assumes of the controller is said."""
    flag = run(capsys, "load", "diurnal", "--dry-run", "--speed", "7")[1]
    assert "Plays at 7x, if the controller runs with --speed 7 or 1." in flag
    file = run(capsys, "load", "diurnal", "--dry-run")[1]
    assert "Plays at 144x, if the controller runs with --speed 144 or 1." in file
    assert "Plays at" not in run(capsys, "load", "diurnal", "--dry-run", "--no-play")[1]


@pytest.mark.parametrize(
    ("scenario", "asked", "speed", "line"),
    [
        ("quickstart", None, 10.0, "Plays at 10x, by ConfigMap default/vmsim-controller."),
        ("quickstart", 10.0, 10.0, "Plays at 10x."),
        ("diurnal", None, 1.0, "Plays at 144x."),
    ],
)
def test_the_preview_knows_the_controllers_speed(scenario: str, asked: float | None, speed: float, line: str) -> None:
    """From its published settings."""
    reading = Reading(PublishedSettings(LauncherPolicy(speed=speed)), "ConfigMap default/vmsim-controller")
    assert list(pace(files.read(scenario), asked, {None: reading})) == [line]


@pytest.mark.parametrize(
    ("created", "found", "words"),
    [
        ((1, 2), (0, 0), "1 node and 2 VMs created"),
        ((0, 0), (3, 1), "3 nodes and 1 VM there already"),
        ((0, 1), (2, 4), "1 VM created, 2 nodes and 4 VMs there already"),
        ((0, 0), (0, 0), "nothing to create"),
    ],
)
def test_the_summary_of_a_load_is_one_line(created: tuple[int, int], found: tuple[int, int], words: str) -> None:
    """It counts created and existing objects."""

    def named(count: int) -> tuple[str, ...]:
        return tuple(str(number) for number in range(count))

    vms: tuple[VirtualMachine, ...] = ()
    outcome = Outcome(named(created[0]), named(created[1]), named(found[0]), named(found[1]), vms, {})
    assert summary("demo", "default", outcome) == f"demo runs in namespace default: {words}"


def test_vms_that_the_scheduler_put_elsewhere_are_named_in_one_line() -> None:
    """Ten of them, with the number."""
    assert list(begun_elsewhere({})) == []
    assert list(begun_elsewhere({"db-2": ("n-1", "n-2")})) == ["The scheduler put 1 VM elsewhere: db-2 on n-2, not n-1"]
    [line] = begun_elsewhere({f"v-{number}": ("n-1", "n-2") for number in range(30)})
    assert line.startswith("The scheduler put 30 VMs elsewhere: v-0 on n-2, not n-1, v-1 on n-2, not n-1, ")
    assert line.endswith("v-9 on n-2, not n-1, and 20 more")


def test_exact_placement_needs_a_node(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Without one the flag would do nothing."""
    code, _, err = run(capsys, "load", "quickstart", "--dry-run", "--exact-placement")
    assert (code, err) == (1, "error: --exact-placement: no group of VMs in quickstart has the field node\n")
    path = tmp_path / "s.yaml"
    path.write_text(
        HEAD + "nodes: [{name: n, count: 2}]\nvms: [{name: v, count: 2, cpu: 0.6, memory: 0.1, node: n-1}]\n"
    )
    assert "Every VM finds room." in run(capsys, "load", str(path), "--dry-run")[1]
    assert "No room for 1 of 2 VMs:" in run(capsys, "load", str(path), "--dry-run", "--exact-placement")[1]


def test_the_state_of_a_play_is_one_line() -> None:
    """With dropped VMs and the current error, if any."""
    assert state(Played(3725.9, 1, 6, {}, None)) == "1h2m5s, 1 write, 6 VMs playing"
    lost = {"a": "it was deleted", "b": "it was deleted"}
    assert state(Played(1.0, 20, 1, lost, "PATCH /x:\nrefused")) == (
        "1s, 20 writes, 1 VM playing, no longer a, b: it was deleted, trying again: PATCH /x: refused"
    )


def test_reasons_group_objects_by_reason() -> None:
    """Three names of a reason and ten reasons are listed; the rest are counted."""
    waiting = {f"VM {number}": "no node" for number in range(5)} | {"node n": "not ready"}
    assert reasons(waiting) == "VM 0, VM 1, VM 2, and 2 more: no node; node n: not ready"
    many = {f"VM {number}": f"reason {number}" for number in range(12)}
    assert reasons(many).endswith("VM 9: reason 9; and 2 more")


@pytest.mark.parametrize(
    ("given", "name"), [("diurnal", "diurnal"), ("something-else", "something-else"), ("FILE", "demo")]
)
def test_a_scenario_is_unloaded_by_file_or_name(tmp_path: Path, given: str, name: str) -> None:
    """A name needs no file."""
    path = tmp_path / "whatever.yaml"
    path.write_text(HEAD)
    assert name_of(str(path) if given == "FILE" else given) == name


def test_a_missing_file_is_an_error_of_unload(capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt path must not count as an unload of nothing."""
    code, _, err = run(capsys, "unload", "scenarios/demo.yaml", "--kubeconfig", "/nowhere/config")
    assert code == 1
    assert err.startswith("error: there is no file scenarios/demo.yaml")


@pytest.mark.parametrize(
    ("begun", "offered"),
    [
        ("qu", ["quickstart"]),
        ("", ["diurnal", "hot-node", "quickstart", "zones", "mine/", "other.yml"]),
        ("mi", ["mine/"]),
        ("mine/", ["mine/a.yaml", "mine/b.yaml"]),
        ("mine/a", ["mine/a.yaml"]),
        (".", [".hidden.yaml"]),
        ("nowhere/", []),
    ],
)
def test_completion_offers_shipped_scenarios_and_yaml_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: str, offered: list[str]
) -> None:
    """Directories, too."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    for name in ("other.yml", "notes.txt", ".hidden.yaml", "mine/a.yaml", "mine/b.yaml", "mine/b.csv"):
        (tmp_path / name).touch()
    assert complete(begun) == offered


@pytest.mark.parametrize(
    ("names", "text"), [(["web-1", "web-2", "web-3"], "web-1 to 3"), (["db"], "db"), (["db-1"], "db-1")]
)
def test_numbered_names_are_shown_as_a_range(names: list[str], text: str) -> None:
    """The first name and the last number."""
    assert span(names) == text


def test_a_quantity_of_any_size_is_previewed() -> None:
    """Rounding needs more digits than the usual context has."""
    assert _short(Decimal("1e27")) == f"1{'0' * 27}"
    assert _short(Decimal("0.06")) == "0.1"
