"""Problems of scenario files: each with file, line and field, all at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.scenario import files
from controller.scenario.document import LONGEST
from controller.scenario.errors import DocumentError, NoScenarioError
from controller.scenario.schema import parse

HEAD = """\
apiVersion: simulation.node-classifier.io/v1alpha1
kind: Scenario
name: demo
"""
VM = HEAD + "vms:\n  - name: web\n    cpu: 0.1\n    memory: 0.5\n    "
"""A scenario with one VM; what follows is line 8, and belongs to it."""
NODE = HEAD + "nodes:\n  - name: n\n    "
"""A scenario with one node; what follows is line 6, and belongs to it."""


def problems(text: str, directory: Path = Path("/nowhere")) -> list[str]:
    """Read a scenario that must be refused; return its problems."""
    with pytest.raises(DocumentError) as error:
        parse(text, "s.yaml", directory)
    return [str(problem) for problem in error.value.problems]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        # the document
        ("", "s.yaml:1: is empty"),
        ("- 1", "s.yaml:1: want a scenario, not a list"),
        (HEAD + "nodes: [", "s.yaml:4: not valid YAML: expected the node content, but found '<stream end>'"),
        (HEAD + "\t- x", "s.yaml:4: not valid YAML: found character '\\t' that cannot start any token"),
        (HEAD + "# \x00", "s.yaml:4: not valid YAML: special characters are not allowed"),
        (HEAD + "---\nname: demo", "s.yaml:4: not valid YAML: but found another document"),
        (HEAD + "nodes: *x", "s.yaml:4: not valid YAML: found undefined alias 'x'"),
        (HEAD + "nodes: " + "[" * 500, "s.yaml:1: is nested too deeply"),
        # its head
        (HEAD.replace("v1alpha1", "v2"), "s.yaml:1: apiVersion: want simulation.node-classifier.io/v1alpha1, not "),
        (HEAD.replace("Scenario", "Deployment"), "s.yaml:2: kind: want Scenario, not 'Deployment'"),
        (HEAD.replace("name: demo", "speed: 2"), "s.yaml:1: name: is required"),
        (HEAD.replace("demo", "~"), "s.yaml:3: name: is required"),
        (HEAD.replace("demo", "Demo"), "s.yaml:3: name: want a name of at most 63 lower-case letters, digits and '-'"),
        (HEAD.replace("demo", "d" * 64), "s.yaml:3: name: want a name of at most 63 "),
        (
            HEAD.replace("demo", "7"),
            "s.yaml:3: name: want a name of at most 63 lower-case letters, digits and '-': YAML",
        ),
        (HEAD + "name: again", "s.yaml:4: name: is a duplicate of line 3"),
        (HEAD + "speeed: 2", "s.yaml:4: speeed: unknown field: did you mean speed?"),
        (HEAD + "zzz: 2", "s.yaml:4: zzz: unknown field: known are apiVersion, kind, name, "),
        (HEAD + "<<: {speed: 2}", "s.yaml:4: <<: unknown field"),
        (HEAD + "? [a]\n: 1", "s.yaml:4: a field's name must be plain text"),
        (
            HEAD + "speed: 0",
            "s.yaml:4: speed: want a number from 0.01 to 100000 with at most 4 decimal places, not '0'",
        ),
        (HEAD + "speed: .inf", "s.yaml:4: speed: want a number from 0.01"),
        (HEAD + "speed: yes", "s.yaml:4: speed: want a number from 0.01"),
        (HEAD + "seed: 1.5", "s.yaml:4: seed: want a whole number from 0 to "),
        (HEAD + "namespace: a.b", "s.yaml:4: namespace: want a name of at most 63 "),
        (HEAD + "nodes: {}", "s.yaml:4: nodes: want a list of groups of nodes, not a mapping"),
        # nodes
        (NODE + "cpu: lots", "s.yaml:6: nodes[0].cpu: want a quantity above 0, such as 32 or 256Gi, not 'lots'"),
        (NODE + "memory: 0", "s.yaml:6: nodes[0].memory: want a quantity above 0"),
        (NODE + "memory: [1Gi]", "s.yaml:6: nodes[0].memory: want a quantity such as 32 or 256Gi, not a list"),
        (NODE + "pods: 0", "s.yaml:6: nodes[0].pods: want a whole number from 1 to 10000, not '0'"),
        (NODE + "count: 5001", "s.yaml:6: nodes[0].count: want a whole number from 0 to 5000"),
        (NODE + "count: -1", "s.yaml:6: nodes[0].count: want a whole number from 0 to 5000"),
        (NODE + "labels: {a b: c}", "s.yaml:6: nodes[0].labels.a b: is no label"),
        (NODE + "labels: {a: b c}", "s.yaml:6: nodes[0].labels.a: want a value of at most 63 letters"),
        (
            NODE + "labels: {a: on}",
            "s.yaml:6: nodes[0].labels.a: want a value of at most 63 letters, digits, '-', '_' and",
        ),
        (NODE + "labels: {type: x}", "s.yaml:6: nodes[0].labels.type: is a label that every node of a scenario has"),
        (NODE + "taints: [{key: a}]", "s.yaml:6: nodes[0].taints[0].effect: is required"),
        (NODE + "taints: [{key: a, effect: No}]", "s.yaml:6: nodes[0].taints[0].effect: want one of NoSchedule, "),
        (
            NODE + "taints:\n    - {key: a, value: x, effect: NoSchedule}\n    - {key: a, effect: NoSchedule}",
            "s.yaml:8: nodes[0].taints[1]: a:NoSchedule is in nodes[0].taints[0] already: each key and effect once",
        ),
        (
            NODE + "taints: [{key: kwok.x-k8s.io/node, value: real, effect: NoSchedule}]",
            "s.yaml:6: nodes[0].taints[0]: kwok.x-k8s.io/node:NoSchedule is in every node of a scenario already",
        ),
        (NODE + "\n  - {name: n}", "s.yaml:7: nodes[1]: n is in nodes[0] already: names must be unique"),
        (HEAD + f"nodes: [{{name: {'n' * 62}, count: 9}}]", "s.yaml:4: nodes[0].name: "),
        # VMs
        (VM + "count: 50001", "s.yaml:8: vms[0].count: want a whole number from 0 to 50000"),
        (VM + "\n  - {cpu: 1, memory: 1}", "s.yaml:9: vms[1].name: is required"),
        (VM + "\n  - {name: v, cpu: 1}", "s.yaml:9: vms[1].memory: is required"),
        (VM + f"\n  - {{name: {'v' * 44}, cpu: 1, memory: 1}}", "s.yaml:9: vms[1].name: want a name of at most 43 "),
        (
            VM + f"\n  - {{name: {'v' * 40}, count: 100, cpu: 1, memory: 1}}",
            f"s.yaml:9: vms[1].name: {'v' * 40}-100 has 44 characters: want at most 43",
        ),
        (
            VM + "\n  - {name: a, count: 2, cpu: 1, memory: 1}\n  - {name: a-2, cpu: 1, memory: 1}",
            "s.yaml:10: vms[2]: a-2 is in vms[1] already: names must be unique",
        ),
        (
            VM.replace("0.1", "1000.1"),
            "s.yaml:6: vms[0].cpu: want a number from 0 to 1000 with at most 4 decimal places",
        ),
        (VM.replace("0.1", "-0.1"), "s.yaml:6: vms[0].cpu: want a number from 0 to 1000"),
        (VM.replace("0.1", "0.12345"), "s.yaml:6: vms[0].cpu: want a number from 0 to 1000 with at most 4 decimal"),
        (
            VM.replace("0.1", "5e-05"),
            (
                "s.yaml:6: vms[0].cpu: want a number from 0 to 1000 with at most 4 decimal places, "
                "not '5e-05', which is 0.00005"
            ),
        ),
        (VM.replace("0.1", "1e-400"), "s.yaml:6: vms[0].cpu: want a number from 0 to 1000 with at most 4 decimal"),
        (VM.replace("0.1", "1e4"), "s.yaml:6: vms[0].cpu: want a number from 0 to 1000 with at most 4 decimal places"),
        (VM.replace("0.1", "1e99999"), "s.yaml:6: vms[0].cpu: want a number from 0 to 1000 with at most 4 decimal"),
        (VM.replace("0.1", "."), "s.yaml:6: vms[0].cpu: want a number from 0 to 1000"),
        (VM.replace("0.1", "1_0"), "s.yaml:6: vms[0].cpu: want a number from 0 to 1000"),
        (VM.replace("0.1", "-.1"), "s.yaml:6: vms[0].cpu: want a number from 0 to 1000"),
        (VM + "count: 1e-1", "s.yaml:8: vms[0].count: want a whole number from 0 to 50000, not '1e-1'"),
        (VM.replace("0.1", "0x1"), "s.yaml:6: vms[0].cpu: want a number from 0 to 1000"),
        (VM.replace("0.1", "1:30"), "s.yaml:6: vms[0].cpu: want a number from 0 to 1000"),
        (VM.replace("0.5", "1.01"), "s.yaml:7: vms[0].memory: want a number from 0 to 1 "),
        (
            VM.replace("0.1", "!!python/object/apply:os.getcwd []"),
            "s.yaml:6: vms[0].cpu: want a number, or one of uniform, normal, choice, not a list",
        ),
        (VM.replace("0.1", "!!python/name:os.x y"), "s.yaml:6: vms[0].cpu: want a number from 0 to 1000 with at most"),
        # placement
        (VM + "labels: {a b: c}", "s.yaml:8: vms[0].labels.a b: is no label: want name or example.com/name"),
        (
            VM + "labels: {simulation.node-classifier.io/scenario: x}",
            "s.yaml:8: vms[0].labels.simulation.node-classifier.io/scenario: is written by the simulator: leave it out",
        ),
        (
            VM + "annotations: {simulation.node-classifier.io/start-node: n}",
            "s.yaml:8: vms[0].annotations.simulation.node-classifier.io/start-node: is written by the simulator: write",
        ),
        (
            VM + "annotations: {simulation.node-classifier.io/cpu-consumption: '1'}",
            "s.yaml:8: vms[0].annotations.simulation.node-classifier.io/cpu-consumption: is written by the simulator",
        ),
        (VM + "annotations: {a: 1}", "s.yaml:8: vms[0].annotations.a: want a string: YAML reads 1 as a number"),
        (VM + "annotations: {a/b/c: x}", "s.yaml:8: vms[0].annotations.a/b/c: is no annotation: want name or "),
        (VM + "nodeSelector: {gpu: true}", "s.yaml:8: vms[0].nodeSelector.gpu: want a string: YAML reads true as"),
        (VM + "nodeSelector: {zone: }", "s.yaml:8: vms[0].nodeSelector.zone: want a string, not nothing"),
        (VM + "nodeSelektor: {}", "s.yaml:8: vms[0].nodeSelektor: unknown field: did you mean nodeSelector?"),
        (VM + "schedulerName: [a]", "s.yaml:8: vms[0].schedulerName: want a string, not a list"),
        (VM + "tolerations: {}", "s.yaml:8: vms[0].tolerations: want a list, not a mapping"),
        (VM + "tolerations: [~]", "s.yaml:8: vms[0].tolerations[0]: want a mapping, not nothing"),
        (
            VM + "tolerations: [{key: 1.5}]",
            's.yaml:8: vms[0].tolerations[0].key: want a string: YAML reads 1.5 as a number, write "1.5"',
        ),
        (
            VM + "tolerations: [{tolerationSeconds: 1.5}]",
            "s.yaml:8: vms[0].tolerations[0].tolerationSeconds: want a whole number, not 1.5",
        ),
        (
            VM + "annotations: {simulation.node-classifier.io/boot-time: banana}",
            "s.yaml:8: vms[0].annotations.simulation.node-classifier.io/boot-time: want a duration such as 90s or ",
        ),
        (VM + "tolerations: &t [*t]", "s.yaml:8: vms[0].tolerations[0][0][0]"),
        (
            VM + "tolerations:\n    - key: a\n      opertor: Exists",
            "s.yaml:10: vms[0].tolerations[0].opertor: unknown field: did you mean operator?",
        ),
        (
            VM + "tolerations: [{key: a, key: b}]",
            "s.yaml:8: vms[0].tolerations[0].key: is a duplicate of line 8",
        ),
        (
            VM
            + "topologySpreadConstraints:\n    - maxSkew: 0\n      topologyKey: zone\n      whenUnsatisfiable: Never",
            "s.yaml:9: vms[0].topologySpreadConstraints[0].maxSkew: want a whole number of at least 1, not 0",
        ),
        (
            VM + "topologySpreadConstraints:\n    - maxSkew: 1\n      topologyKey:",
            "s.yaml:9: vms[0].topologySpreadConstraints[0].whenUnsatisfiable: is required",
        ),
        (
            VM + "affinity: {podAntiAffinity: {requiredDuringScheduling: []}}",
            "s.yaml:8: vms[0].affinity.podAntiAffinity.requiredDuringScheduling: unknown field: did you mean required",
        ),
        (
            VM + "node: {}",
            "s.yaml:8: vms[0].node: want a name of at most 63 lower-case letters, digits, '-' and '.', not",
        ),
        (VM + "node: []", "s.yaml:8: vms[0].node: want at least one node"),
        (VM + "node: [n_1]", "s.yaml:8: vms[0].node[0]: want a name of at most 63 lower-case"),
        (VM + "node: n-3\nnodes: [{name: n, count: 2}]", "s.yaml:8: vms[0].node: n-3 is no node of this file"),
        # distributions
        (
            VM.replace("0.1", "{}"),
            "s.yaml:6: vms[0].cpu: want a number, or one of uniform, normal, choice, not an empty",
        ),
        (VM.replace("0.1", "{unifrom: 1}"), "s.yaml:6: vms[0].cpu.unifrom: unknown field: did you mean uniform?"),
        (VM.replace("0.1", "{uniform: {min: 1}}"), "s.yaml:6: vms[0].cpu.uniform.max: is required"),
        (
            VM.replace("0.1", "{uniform: {min: 0.3, max: 0.2}}"),
            "s.yaml:6: vms[0].cpu.uniform: want a min of at most max, not 0.3 and 0.2",
        ),
        (
            VM.replace("0.1", "{normal: {mean: 3, stddev: 1, min: 1, max: 2}}"),
            "s.yaml:6: vms[0].cpu.normal.mean: want a mean between min and max, 1 and 2, not 3",
        ),
        (VM.replace("0.1", "{choice: []}"), "s.yaml:6: vms[0].cpu.choice: want at least one value to choose"),
        (
            VM.replace("0.1", "{choice: [1, {value: 2, weight: 0}]}"),
            "s.yaml:6: vms[0].cpu.choice[1].weight: want a number from 0.0001 to 1000000",
        ),
        (
            VM.replace("0.1", "{uniform: {min: 1, max: 2}, choice: [1]}"),
            "s.yaml:6: vms[0].cpu: want a number, or one of uniform, normal, choice, not uniform and choice",
        ),
        # consumption
        (VM + "consumption: 0.5", "s.yaml:8: vms[0].consumption: want cpu and memory, not a number"),
        (VM + "consumption: {disk: 1}", "s.yaml:8: vms[0].consumption.disk: unknown field"),
        (VM + "consumption: {cpu: 1000.1}", "s.yaml:8: vms[0].consumption.cpu: want a number from 0 to 1000 "),
        (
            VM + "consumption: {memory: 2.5}",
            "s.yaml:8: vms[0].consumption.memory: reaches 2.5 of a request of 0.5, 1.25 of the reference",
        ),
        (
            VM + "consumption: {memory: {sine: {mean: 2, amplitude: 0.5, period: 1m}}}",
            "s.yaml:8: vms[0].consumption.memory: reaches 2.5 of a request of 0.5",
        ),
        (
            VM + "consumption: {cpu: {sine: {mean: 0.2, amplitude: 0.5, period: 1m}}}",
            "s.yaml:8: vms[0].consumption.cpu.sine.amplitude: want at most the mean, 0.2",
        ),
        (
            VM + "consumption: {cpu: {sine: {mean: 0.2, amplitude: 0.1, period: 60}}}",
            "s.yaml:8: vms[0].consumption.cpu.sine.period: want a time such as 30s, 5m, 1h30m or 24h, at most 366d",
        ),
        (
            VM + "consumption: {cpu: {sine: {mean: 0.2, amplitude: 0.1, period: 0s}}}",
            "s.yaml:8: vms[0].consumption.cpu.sine.period: want more than no time",
        ),
        (
            VM + "consumption: {cpu: {sine: {mean: 0.2, amplitude: 0.1, period: 367d}}}",
            "s.yaml:8: vms[0].consumption.cpu.sine.period: want a time",
        ),
        (
            VM + "consumption: {cpu: {sine: {mean: 0.2, amplitude: 0.1, period: 1m, phase: 1.5}}}",
            "s.yaml:8: vms[0].consumption.cpu.sine.phase: want a number from 0 to 1",
        ),
        (
            VM + "consumption: {cpu: {walk: {start: 3, step: 0.1, every: 1s, min: 0, max: 2}}}",
            "s.yaml:8: vms[0].consumption.cpu.walk.start: want a start between min and max, 0 and 2, not 3",
        ),
        (
            VM + "consumption: {cpu: {steps: [{at: 1s, value: 0.1}]}}",
            "s.yaml:8: vms[0].consumption.cpu.steps[0]: the first step must be at 0s",
        ),
        (
            VM + "consumption: {cpu: {steps: [{at: 0s, value: 0.1}, {at: 0s, value: 1}]}}",
            "s.yaml:8: vms[0].consumption.cpu.steps[1]: want a step later than the one before",
        ),
        (VM + "consumption: {cpu: {steps: []}}", "s.yaml:8: vms[0].consumption.cpu.steps: want at least one step"),
        (
            VM + "consumption: {cpu: {trace: {file: x.csv}}}",
            "s.yaml:8: vms[0].consumption.cpu.trace.file: cannot read x.csv: No such file or directory",
        ),
        (
            VM + "consumption: {cpu: {trace: {file: x.csv, end: stop}}}",
            "s.yaml:8: vms[0].consumption.cpu.trace.end: want hold or repeat, not 'stop'",
        ),
    ],
)
def test_a_problem_names_file_line_and_field(text: str, problem: str) -> None:
    """The message names the accepted values."""
    found = problems(text)
    assert any(one.startswith(problem) for one in found), found


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        (".5", "0.50"),
        ("+0.5", "0.50"),
        ("1e-1", "0.10"),
        ("1E-4", "0.0001"),
        ("5.e-1", "0.50"),
        ("1.", "1.00"),
        ("1e0", "1.00"),
        ("-0", "0.00"),
        ("0.10000000000000", "0.10"),
        ("'.5'", "0.50"),
    ],
)
def test_a_number_is_read_in_any_notation_that_programs_write(written: str, plain: str) -> None:
    """Whether YAML reads it as a number or as a string."""
    [vm] = parse(VM.replace("0.1", written) + f"consumption: {{cpu: {written}}}", "s.yaml", Path()).fleet.vms
    assert vm.cpu == plain
    text = HEAD + f"vms: [{{name: v, cpu: {{choice: [{{value: {written}, weight: 2e2}}]}}, memory: {written}}}]"
    [vm] = parse(text, "s.yaml", Path()).fleet.vms
    assert (vm.cpu, vm.memory) == (plain, plain)


@pytest.mark.parametrize("written", ["3", "+3", "3.0", "3e0", "0.3e1", "'3'"])
def test_a_whole_number_is_read_in_any_notation(written: str) -> None:
    """If its value is whole."""
    assert len(parse(VM + f"count: {written}", "s.yaml", Path()).fleet.vms) == 3


def test_all_problems_are_reported_at_once() -> None:
    """In the order of the file."""
    text = HEAD + (
        "speed: fast\n"
        "nodes:\n"
        "  - name: N\n"
        "    cpu: -1\n"
        "vms:\n"
        "  - name: web\n"
        "    cpu: {uniform: {min: a, max: b}}\n"
        "    color: red\n"
    )
    assert [problem.split(": want")[0].split(": unknown")[0] for problem in problems(text)] == [
        "s.yaml:4: speed",
        "s.yaml:6: nodes[0].name",
        "s.yaml:7: nodes[0].cpu",
        "s.yaml:9: vms[0].memory: is required",
        "s.yaml:10: vms[0].cpu.uniform.max",
        "s.yaml:10: vms[0].cpu.uniform.min",
        "s.yaml:11: vms[0].color",
    ]


def test_aliases_that_expand_beyond_the_limit_are_refused() -> None:
    """A thousand groups of a hundred choices are half a million values."""
    choices = ", ".join("{value: 0.1, weight: 1}" for _ in range(100))
    text = HEAD + f"vms:\n  - &g {{name: web, cpu: {{choice: [{choices}]}}, memory: 0.1}}\n" + "  - *g\n" * 900
    assert len(text) < LONGEST
    assert problems(text) == ["s.yaml:1: its aliases expand to more than 100000 values: use fewer aliases"]


def test_nodes_of_aliased_groups_count() -> None:
    """Also if their names are duplicates; the third group is not read."""
    found = problems(HEAD + "nodes:\n  - &g {name: n, count: 4000}\n" + "  - *g\n" * 900)
    assert found == [
        "s.yaml:5: nodes: want at most 5000 nodes in all",
        "s.yaml:5: nodes[1]: n-1 is in nodes[0] already: names must be unique",
    ]


def test_an_alias_that_contains_itself_is_refused() -> None:
    """It is read as deep as the schema goes."""
    assert problems(HEAD + "vms: &v [*v]") == ["s.yaml:4: vms[0]: want a group of VMs, not a list"]


def test_an_anchor_may_be_used_by_two_groups() -> None:
    """Both have its consumption."""
    text = HEAD + (
        "vms:\n"
        "  - {name: a, cpu: 0.1, memory: 0.1, consumption: &calm {cpu: 0.2}}\n"
        "  - {name: b, cpu: 0.1, memory: 0.1, consumption: *calm}\n"
    )
    assert [vm.cpu_consumption for vm in parse(text, "s.yaml", Path()).fleet.vms] == ["0.02", "0.02"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("time,cpu\n0,x\n5,-1\n", ["t.csv:2: cpu: want a share of ", "t.csv:3: cpu: want a share of "]),
        ("time,cpu\n5,1\n5,1\n", ["t.csv:3: time: want a time later than that of the row before; not '5'"]),
        ("time,cpu\nsoon,1\n", ["t.csv:2: time: want seconds, or a time such as 5m"]),
        ("time,cpu\n0,1,2\n", ["t.csv:2: has 3 columns, the first line 2"]),
        ("time,cpu\n0,100001\n", ["t.csv:2: cpu: want a share of the VM's request, a number from 0 to 1000; not"]),
        ("time,cpu\n", ["t.csv:1: has no rows below the first line"]),
        ("", ["t.csv:1: want a first line that names the columns time, and cpu or memory; not ''"]),
        ("cpu,memory\n0,1\n", ["t.csv:1: want a first line that names the columns time"]),
        ("time,cpu,cpu\n0,1,1\n", ["t.csv:1: a column is there twice"]),
        ('time,cpu\n0,"1\n', ["t.csv:2: not valid CSV: unexpected end of data"]),
        ("time,memory\n0,1\n", ["s.yaml:8: vms[0].consumption.cpu.trace.file: has no column cpu"]),
    ],
)
def test_a_problem_of_a_trace_names_its_file_line_and_column(tmp_path: Path, content: str, problem: list[str]) -> None:
    """Beside the problems of the scenario."""
    (tmp_path / "t.csv").write_text(content)
    found = problems(VM + "consumption: {cpu: {trace: {file: t.csv}}}", tmp_path)
    assert len(found) == len(problem), found
    assert all(one.startswith(start) for one, start in zip(found, problem, strict=True)), found


def test_a_trace_is_reported_once_however_many_profiles_play_it(tmp_path: Path) -> None:
    """It is read once."""
    (tmp_path / "t.csv").write_text("time,cpu,memory\n0,x,1\n")
    uses = "{cpu: {trace: {file: t.csv}}, memory: {trace: {file: t.csv}}}"
    assert len(problems(VM + f"consumption: {uses}", tmp_path)) == 1


def test_a_trace_is_read_up_to_20_problems(tmp_path: Path) -> None:
    """Of a thousand."""
    (tmp_path / "t.csv").write_text("time,cpu\n" + "".join(f"{row},x\n" for row in range(1000)))
    assert len(problems(VM + "consumption: {cpu: {trace: {file: t.csv}}}", tmp_path)) == 20


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    """The limit is far above a file written by hand."""
    path = tmp_path / "s.yaml"
    path.write_text("#" * (LONGEST + 1))
    with pytest.raises(DocumentError, match=rf"s\.yaml:1: is larger than {LONGEST} bytes"):
        files.read(str(path))


def test_a_byte_that_is_not_utf8_is_reported_with_its_line(tmp_path: Path) -> None:
    """Like any other problem."""
    path = tmp_path / "s.yaml"
    path.write_bytes(b"kind: x\nname: \xff\n")
    with pytest.raises(DocumentError, match=r"s\.yaml:2: is not UTF-8"):
        files.read(str(path))


@pytest.mark.parametrize("name", ["nowhere", "./quickstart", "quickstart.yaml"])
def test_an_unknown_scenario_is_reported_with_the_shipped_ones(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a bare name means a shipped one."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NoScenarioError, match="come with vmsim: diurnal, hot-node, quickstart, zones"):
        files.read(name)


def test_a_directory_does_not_shadow_a_shipped_scenario(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the same name."""
    (tmp_path / "quickstart").mkdir()
    monkeypatch.chdir(tmp_path)
    assert files.read("quickstart").name == "quickstart"


def test_a_file_shadows_a_shipped_scenario(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the same name."""
    (tmp_path / "quickstart").write_text(HEAD)
    monkeypatch.chdir(tmp_path)
    assert files.read("quickstart").name == "demo"
