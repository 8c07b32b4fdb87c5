"""Every kubectl command of the description, run as it is written there, with the result of the description.

Only paths differ: the description's `k8s/virtualmachine-crd.yaml`, `k8s/example-vms.yaml` and `setup_vm_crd.sh` live in
manifests/crds, manifests/examples and hack.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from hack import placement_schema
from tests.integration.tools import Kubectl

pytestmark = pytest.mark.usefixtures("controller")

REPOSITORY = Path(__file__).resolve().parents[2]
CRD_FILE = REPOSITORY / "manifests" / "crds" / "virtualmachines.yaml"
EXAMPLES = REPOSITORY / "manifests" / "examples" / "example-vms.yaml"
KUBERNETES = tuple(f".spec.{name}" for name in placement_schema.FIELDS)
"""The fields that are defined in Kubernetes' words."""
CRD = "virtualmachines.simulation.node-classifier.io"

COLUMNS = ["NAME", "PHASE", "NODE", "POD", "CPU", "MEMORY", "AGE"]
WIDE_COLUMNS = ["NAME", "PHASE", "NODE", "POD", "CPU", "MEMORY", "READY", "REASON", "AGE"]

SMALL_VM = """
apiVersion: simulation.node-classifier.io/v1alpha1
kind: VirtualMachine
metadata:
  name: my-vm
  namespace: default
spec:
  resources:
    cpu: "0.10"
    memory: "0.15"
  running: true
"""


@pytest.fixture(scope="module")
def fleet(kubectl: Kubectl, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubectl]:
    """Run three VMs, vm-1 to vm-3, and create a stopped one, in a namespace that tests only read."""
    with kubectl.own_namespace(tmp_path_factory.mktemp("fleet")) as fleet:
        for number in (1, 2, 3):
            fleet.apply_vm(f"vm-{number}")
        fleet.apply_vm("vm-stopped", running=False)
        for number in (1, 2, 3):
            fleet.wait_phase(f"vm-{number}", "Running")
        fleet.wait_phase("vm-stopped", "Stopped")
        yield fleet


@pytest.fixture
def own(kubectl: Kubectl, tmp_path: Path) -> Iterator[Kubectl]:
    """Create a namespace for a test that changes objects; it is the default of its commands."""
    with kubectl.own_namespace(tmp_path) as own:
        yield own


def rows(table: str) -> list[list[str]]:
    """Split a table of kubectl's into its cells, heading first."""
    return [line.split() for line in table.splitlines()]


# --- Installation ----------------------------------------------------------------------------------------------


@pytest.mark.timeout(60)
def test_the_manual_installation_establishes_the_crd(kubectl: Kubectl) -> None:
    """The description's three commands, over an existing installation."""
    output = kubectl.shell(f"""
kubectl apply -f {CRD_FILE}

kubectl wait --for condition=established --timeout=60s \\
  crd/virtualmachines.simulation.node-classifier.io

kubectl get crd virtualmachines.simulation.node-classifier.io
""")
    assert f"{CRD} condition met" in output
    assert rows(output)[-1][0] == CRD


@pytest.mark.timeout(60)
def test_the_setup_script_can_run_again(kubectl: Kubectl) -> None:
    """It succeeds each time, and existing VMs stay."""
    kubectl.apply_vm("kept", running=False)
    try:
        uid = kubectl.json("get", "vm", "kept")["metadata"]["uid"]
        for _ in range(2):
            output = kubectl.shell(str(REPOSITORY / "hack" / "setup_vm_crd.sh"))
            assert f"{CRD} condition met" in output
        assert kubectl.json("get", "vm", "kept")["metadata"]["uid"] == uid
    finally:
        kubectl("delete", "vm", "kept", "--wait=false")


def test_the_setup_script_says_what_to_do_without_kubectl(kubectl: Kubectl) -> None:
    """The message names the variable to set."""
    script = REPOSITORY / "hack" / "setup_vm_crd.sh"
    output = kubectl.shell(f"KUBECTL=/nonexistent/kubectl {script} 2>&1 || echo exit code $?")
    assert output.startswith("error: kubectl not found")
    assert "KUBECTL=/path/to/kubectl" in output
    assert output.endswith("exit code 1\n")


def test_the_examples_run(kubectl: Kubectl) -> None:
    """Three VMs, of the sizes that the description's table shows."""
    kubectl("apply", "-f", str(EXAMPLES))
    try:
        for name, cpu, memory in (
            ("vm-small-1", "0.05", "0.08"),
            ("vm-medium-1", "0.15", "0.20"),
            ("vm-large-1", "0.30", "0.40"),
        ):
            status = kubectl.wait_phase(name, "Running")["status"]
            assert (status["cpuConsumption"], status["memoryConsumption"]) == (cpu, memory)
            assert re.fullmatch(f"virt-launcher-{name}-[a-z0-9]{{5}}", status["podName"])
    finally:
        kubectl("delete", "-f", str(EXAMPLES), "--wait=false")


# --- Creating, listing, viewing, deleting ----------------------------------------------------------------------


def test_a_vm_applied_from_a_file_runs(kubectl: Kubectl, tmp_path: Path) -> None:
    """The description's small-vm.yaml, by its own command."""
    (tmp_path / "small-vm.yaml").write_text(SMALL_VM)
    output = kubectl.shell(f"cd {tmp_path}\nkubectl apply -f small-vm.yaml\n")
    try:
        assert output == "virtualmachine.simulation.node-classifier.io/my-vm created\n"
        kubectl.wait_phase("my-vm", "Running")
    finally:
        kubectl("delete", "vm", "my-vm", "--wait=false")


@pytest.mark.parametrize("resource", ["virtualmachines", "virtualmachine", "vm", "vms", "VirtualMachine"])
def test_vms_are_listed_under_every_name(fleet: Kubectl, resource: str) -> None:
    """The columns are exactly the description's, and a VM that runs fills them all."""
    heading, first, *_ = rows(fleet("get", resource))
    assert heading == COLUMNS
    name, phase, node, pod, cpu, memory, age = first
    assert (name, phase, cpu, memory) == ("vm-1", "Running", "0.10", "0.15")
    assert re.fullmatch(r"kwok-node-[123]", node)
    assert re.fullmatch(r"virt-launcher-vm-1-[a-z0-9]{5}", pod)
    assert re.fullmatch(r"[0-9]+[smh].*", age)


def test_a_vm_without_node_leaves_its_cells_empty(fleet: Kubectl) -> None:
    """No `<none>`, no `null`."""
    stopped = next(row for row in rows(fleet("get", "vm")) if row[0] == "vm-stopped")
    assert stopped[:2] == ["vm-stopped", "Stopped"]
    assert stopped[2:-1] == ["0.10", "0.15"]


def test_the_wide_list_adds_readiness_and_reason(fleet: Kubectl) -> None:
    """`-o wide` shows whether a VM is ready, and why it is not."""
    heading, first, *others = rows(fleet("get", "vm", "-o", "wide"))
    assert heading == WIDE_COLUMNS
    assert first[6:8] == ["True", "GuestRunning"]
    assert others[-1][-3:-1] == ["False", "Stopped"]


def test_the_watch_shows_a_vm_go_to_running(own: Kubectl) -> None:
    """`kubectl get vm -w` prints a line per change, until the VM runs."""
    own.apply_vm("first", running=False)
    with own.running("get", "vm", "-w") as watch:
        watch.wait_for(lambda lines: len(lines) >= 2)  # what was there is printed before what comes
        own.apply_vm("my-vm")
        lines = watch.wait_for(lambda lines: any(re.match(r"my-vm +Running ", line) for line in lines))
    heading, *changes = rows("\n".join(lines))
    assert heading == COLUMNS
    phases = [row[1] for row in changes if row[0] == "my-vm"]
    assert phases[0] == "Pending"
    assert phases[-1] == "Running"


def test_the_watch_can_show_event_types(own: Kubectl) -> None:
    """With `--output-watch-events`."""
    own.apply_vm("before")
    with own.running("get", "vm", "-w", "--output-watch-events") as watch:
        watch.wait_for(lambda lines: len(lines) > 1)  # from here on nothing is missed
        own.apply_vm("my-vm")
        watch.wait_for(lambda lines: any(line.startswith("MODIFIED   my-vm") and " Running " in line for line in lines))
        own("delete", "vm", "my-vm")
        lines = watch.wait_for(lambda lines: any(line.startswith("DELETED    my-vm") for line in lines))
    assert lines[0].split() == ["EVENT", *COLUMNS]
    assert any(line.startswith("ADDED      my-vm") for line in lines)


def test_describe_shows_spec_status_and_history(fleet: Kubectl) -> None:
    """The fields of the description's example, with the phases in order."""
    text = fleet("describe", "vm", "vm-1")
    for field, value in (
        ("Name", "vm-1"),
        ("Namespace", fleet.namespace),
        ("API Version", "simulation.node-classifier.io/v1alpha1"),
        ("Kind", "VirtualMachine"),
        ("Cpu", "0.10"),
        ("Memory", "0.15"),
        ("Running", "true"),
        ("Cpu Consumption", "0.10"),
        ("Created At", r"\S+Z"),
        ("Memory Consumption", "0.15"),
        ("Node Name", r"kwok-node-\d"),
        ("Phase", "Running"),
        ("Pod Name", r"virt-launcher-vm-1-\w{5}"),
        ("Reason", "TransitionedToRunning"),
        ("Message", "VM transitioned to Running phase"),
    ):
        assert re.search(rf"^ *{field}: +{value}$", text, re.MULTILINE), field
    assert re.findall(r"^ *Type: +Phase(\w+)$", text, re.MULTILINE) == ["Pending", "Scheduling", "Scheduled", "Running"]


def test_describe_shows_the_consumption_annotations(kubectl: Kubectl) -> None:
    """As in the description's example, whose VM is vm-small-1."""
    kubectl("apply", "-f", str(EXAMPLES))
    try:
        text = kubectl.shell("kubectl describe vm vm-small-1")
        assert "simulation.node-classifier.io/cpu-consumption: 0.05" in text
        assert "simulation.node-classifier.io/memory-consumption: 0.08" in text
    finally:
        kubectl("delete", "-f", str(EXAMPLES), "--wait=false")


def test_deleting_a_vm_deletes_its_pod(own: Kubectl) -> None:
    """The note under `kubectl delete vm`."""
    own.apply_vm("vm-small-1")
    own.wait_phase("vm-small-1", "Running")
    output = own.shell("kubectl delete vm vm-small-1")
    assert 'virtualmachine.simulation.node-classifier.io "vm-small-1" deleted' in output
    own.eventually("get", "pods", "-o", "name", until=lambda text: not text)


def test_all_vms_are_deleted_at_once(own: Kubectl) -> None:
    """`kubectl delete vm --all` leaves neither VM nor pod."""
    for number in range(3):
        own.apply_vm(f"vm-{number}")
    own.eventually("get", "pods", "-o", "name", until=lambda text: len(text.split()) == 3)
    own.shell("kubectl delete vm --all")
    assert own("get", "vm", "-o", "name") == ""
    own.eventually("get", "pods", "-o", "name", until=lambda text: not text)


def test_get_all_contains_vms(fleet: Kubectl) -> None:
    """VMs have the category `all`."""
    names = fleet("get", "all", "-o", "name").split()
    assert "virtualmachine.simulation.node-classifier.io/vm-1" in names
    assert any(name.startswith("pod/virt-launcher-vm-1-") for name in names)


# --- Queries ---------------------------------------------------------------------------------------------------


def pods_on(fleet: Kubectl) -> dict[str, str]:
    """Return the node of each VM, from its pod."""
    return {
        pod["metadata"]["labels"]["vm.kubevirt.io/name"]: pod["spec"]["nodeName"]
        for pod in fleet.json("get", "pods")["items"]
    }


def test_jsonpath_lists_vms_and_their_nodes(fleet: Kubectl) -> None:
    """Get all VM names and their nodes."""
    output = fleet.shell(
        r"""kubectl get vm -o jsonpath='{range .items[*]}{.metadata.name}{"\t"}{.status.nodeName}{"\n"}{end}'"""
    )
    assert dict(line.split("\t") for line in output.splitlines()) == {**pods_on(fleet), "vm-stopped": ""}


def test_jq_lists_the_vms_on_a_node(fleet: Kubectl) -> None:
    """Get VMs on a specific node."""
    found: dict[str, str] = {}
    for node in ("kwok-node-1", "kwok-node-2", "kwok-node-3"):
        output = fleet.shell(
            f"""kubectl get vm -o json | jq '.items[] | select(.status.nodeName=="{node}") | .metadata.name'"""
        )
        found |= dict.fromkeys(map(json.loads, output.split()), node)
    assert found == pods_on(fleet)


def test_jq_lists_the_vms_of_a_phase(fleet: Kubectl) -> None:
    """Get VMs by phase."""
    output = fleet.shell(
        """kubectl get vm -o json | jq '.items[] | select(.status.phase=="Running") | .metadata.name'"""
    )
    assert output.split() == ['"vm-1"', '"vm-2"', '"vm-3"']


def test_jsonpath_lists_the_consumption_of_every_vm(fleet: Kubectl) -> None:
    """Get CPU/memory consumption for all VMs."""
    output = fleet.shell(
        r"""kubectl get vm -o jsonpath='{range .items[*]}{.metadata.name}{"\t"}{.status.cpuConsumption}"""
        r"""{"\t"}{.status.memoryConsumption}{"\n"}{end}'"""
    )
    assert output.splitlines()[:2] == ["vm-1\t0.10\t0.15", "vm-2\t0.10\t0.15"]


def test_the_history_pipes_into_jq(fleet: Kubectl) -> None:
    """View all condition transitions."""
    output = fleet.shell("kubectl get vm vm-1 -o jsonpath='{.status.conditions[*]}' | jq .")
    assert [line.split('"')[3] for line in output.splitlines() if '"type"' in line] == [
        *("Ready", "PhasePending", "PhaseScheduling", "PhaseScheduled", "PhaseRunning")
    ]


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("status.phase=Running", ["vm-1", "vm-2", "vm-3"]),
        ("status.phase!=Running", ["vm-stopped"]),
        ("status.phase=Failed", []),
        ("status.nodeName=", ["vm-stopped"]),
        ("metadata.name=vm-2", ["vm-2"]),
    ],
)
def test_the_server_selects_by_field(fleet: Kubectl, selector: str, expected: list[str]) -> None:
    """The API server answers a field selector with the matching VMs alone."""
    query = f"/apis/simulation.node-classifier.io/v1alpha1/namespaces/{fleet.namespace}/virtualmachines"
    raw = json.loads(fleet("get", "--raw", f"{query}?fieldSelector={selector.replace('=', '%3D')}"))
    assert [vm["metadata"]["name"] for vm in raw["items"]] == expected
    listed = fleet("get", "vm", "--field-selector", selector, "-o", "name")
    assert [name.rpartition("/")[2] for name in listed.split()] == expected


def test_the_server_selects_by_node(fleet: Kubectl) -> None:
    """The VMs of each node are those whose pods are on it."""
    node = pods_on(fleet)["vm-1"]
    listed = fleet("get", "vm", "--field-selector", f"status.nodeName={node}", "-o", "name").split()
    assert [name.rpartition("/")[2] for name in listed] == sorted(vm for vm, on in pods_on(fleet).items() if on == node)


@pytest.mark.parametrize("wanted", ["condition=Ready", "jsonpath={.status.phase}=Running"])
def test_kubectl_waits_for_a_vm(own: Kubectl, wanted: str) -> None:
    """A wait from the create on ends when the VM runs."""
    own.apply_vm("my-vm")
    own("wait", f"--for={wanted}", "vm/my-vm", "--timeout=15s")
    assert own.json("get", "vm", "my-vm")["status"]["phase"] == "Running"


# --- Explaining ------------------------------------------------------------------------------------------------


def test_explain_describes_the_resources(kubectl: Kubectl) -> None:
    """Field, type, whether it is required, and its meaning, in whole paragraphs."""
    text = kubectl("explain", "vm.spec.resources")
    for field, meaning in (
        ("cpu", "CPU as a share of the reference node, a plain decimal string from 0 to 1000."),
        ("memory", "Memory as a share of the reference node, a plain decimal string from 0 to 1."),
    ):
        assert re.search(rf"^  {field}\t<string> -required-\n    {meaning}", text, re.MULTILINE)
    assert "How much of one reference node the VM asks for." in text


def test_explain_knows_the_whole_tree(kubectl: Kubectl) -> None:
    """Every field of a VM is found."""
    text = kubectl("explain", "virtualmachine", "--recursive")
    for field in (
        "spec",
        "resources",
        "running",
        "status",
        "phase",
        "conditions",
        "lastTransitionTime",
        "startFailure",
    ):
        assert re.search(rf"^ +{field}\t<", text, re.MULTILINE), field


def fields(schema: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Walk a schema: the path and the schema of every field."""
    for name, field in schema.get("properties", {}).items():
        yield f"{path}.{name}", field
        yield from fields(field, f"{path}.{name}")
    if "items" in schema:
        yield from fields(schema["items"], f"{path}[]")


def test_every_field_of_every_crd_has_a_description() -> None:
    """A description of ours is one paragraph, since kubectl explain wraps lines itself; Kubernetes' are as they are."""
    for file in sorted(CRD_FILE.parent.glob("*.yaml")):
        for document in yaml.safe_load_all(file.read_text()):
            for version in document["spec"]["versions"]:
                schema = version["schema"]["openAPIV3Schema"]
                assert schema["description"]
                for path, field in fields(schema):
                    if path != ".metadata":  # the API server allows none there, and has its own
                        assert field.get("description"), f"{file.name}{path} has no description"
                        ours = not path.startswith(KUBERNETES)
                        assert not (ours and "\n" in field["description"]), f"{file.name}{path} breaks its lines"


# --- Workflows and troubleshooting -----------------------------------------------------------------------------


@pytest.mark.timeout(60)
def test_the_create_and_monitor_workflow_runs_as_written(own: Kubectl) -> None:
    """The description's script, with a Ctrl-C once the VM runs."""
    output = own.shell(r"""
kubectl() {
  if [[ ${*: -1} != -w ]]; then command kubectl "$@"; return; fi
  command kubectl "$@" & local watch=$!
  command kubectl wait --for=condition=Ready vm/test-vm --timeout=15s >/dev/null
  kill "$watch"; wait "$watch" || true
}

# 1. Create a VM
cat <<EOF | kubectl apply -f -
apiVersion: simulation.node-classifier.io/v1alpha1
kind: VirtualMachine
metadata:
  name: test-vm
spec:
  resources:
    cpu: "0.10"
    memory: "0.15"
  running: true
EOF

# 2. Watch it get scheduled
kubectl get vm test-vm -w

# 3. Check which node it landed on
kubectl get vm test-vm -o jsonpath='{.status.nodeName}'

# 4. Check the pod
POD=$(kubectl get vm test-vm -o jsonpath='{.status.podName}')
kubectl get pod $POD -o wide

# 5. View full status
kubectl describe vm test-vm

# 6. Cleanup
kubectl delete vm test-vm
""")
    assert "test-vm created" in output
    assert re.search(r"^kwok-node-[123]NAME +READY +STATUS", output, re.MULTILINE)
    assert re.search(r"^virt-launcher-test-vm-\w{5} +1/1 +Running .* kwok-node-[123] ", output, re.MULTILINE)
    assert "VM transitioned to Running phase" in output
    assert '"test-vm" deleted' in output


def test_the_migration_watch_shows_the_move(own: Kubectl) -> None:
    """Running, then Scheduling without a node, then Running again in another pod."""
    own.apply_vm("my-vm")
    before = own.wait_phase("my-vm", "Running")["status"]["podName"]
    with own.running("get", "vm", "my-vm", "-w") as watch:
        watch.wait_for(lambda lines: len(lines) >= 2)
        own("delete", "pod", before)
        lines = watch.wait_for(lambda lines: " Running " in lines[-1] and before not in lines[-1])
    table = rows("\n".join(lines))[1:]
    phases = [row[1] for row in table]
    assert phases[0] == "Running"
    scheduling = next(row for row in table if row[1] == "Scheduling")
    assert re.fullmatch(r"virt-launcher-my-vm-\w{5}", scheduling[2])
    assert scheduling[2] != before
    assert table[-1][3] == scheduling[2]
    assert [phase for phase in phases if phase not in ("Running", "Scheduling", "Scheduled")] == []


def test_the_troubleshooting_commands_find_the_pod(fleet: Kubectl) -> None:
    """Of the CRD and of the pod of a pending VM."""
    output = fleet.shell("""
kubectl get crd virtualmachines.simulation.node-classifier.io
POD=$(kubectl get vm vm-1 -o jsonpath='{.status.podName}')
kubectl get pod $POD
""")
    table = rows(output)
    assert table[1][0] == CRD
    assert table[3][0].startswith("virt-launcher-vm-1-")
    assert table[3][1:3] == ["1/1", "Running"]
