"""The admission policies of `manifests/admission`, through the real API server, with the real controller."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from controller.controlplane.plane import ControlPlane
from controller.domain import names
from controller.sdk.errors import RefusedError
from controller.sdk.vm_manager import VMManager
from tests.integration import accounts
from tests.integration.tools import TIMEOUT, Controller, Kubectl, KubectlError, eventually, vm_manifest
from tests.plane import install as install_resources

POLICIES = Path(__file__).resolve().parents[2] / "manifests" / "admission"
BIN = Path(sys.executable).parent
pytestmark = pytest.mark.timeout(60)  # the first test starts a control plane

OVERCOMMIT = f"{names.GROUP}/allow-overcommit"
PROTECTED = f"{names.GROUP}/protected"
PROTECT_LABEL = f"{names.GROUP}/protect-running=true"
CPU, MEMORY = "spec.resources.cpu", "spec.resources.memory"
CPU_USED = f"metadata.annotations[{names.CPU_CONSUMPTION}]"
MEMORY_USED = f"metadata.annotations[{names.MEMORY_CONSUMPTION}]"

ANNOTATED, LABELLED, EVERYWHERE = "protect-annotated", "protect-running-in-labelled-namespaces", "protect-running"
INSTALLED = ("strict-ratios", "default-consumption", ANNOTATED, LABELLED)
"""All there is, for the whole module; of the two bindings of protect-running the one that leaves most tests alone."""

CLUSTER_PARTS = (
    "system:serviceaccount:kube-system:namespace-controller",
    "system:serviceaccount:kube-system:generic-garbage-collector",
    "system:kube-controller-manager",
)
"""Users who may delete a running, protected VM."""

STOP, START = '{"spec":{"running":false}}', '{"spec":{"running":true}}'
MERGE = ("--type=merge", "-p")


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """Run a control plane of this module's own: policies are cluster-wide. Its controllers have accounts."""
    arguments = {"kube-controller-manager": {"use-service-account-credentials": "true"}}
    directory = tmp_path_factory.mktemp("admission-plane")
    policy = accounts.audit_policy(directory)
    with ControlPlane(directory / "state", nodes=2, component_args=arguments, audit_policy=policy) as plane:
        install_resources(plane)
        yield plane


@pytest.fixture(scope="module")
def bare(plane: ControlPlane) -> Kubectl:
    """Return kubectl before any policy is installed."""
    return Kubectl(plane.kubectl, plane.kubeconfig)


@pytest.fixture(scope="module", autouse=True)
def controller(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controller]:
    """Run one controller for the module."""
    with Controller.start(plane.kubeconfig, tmp_path_factory.mktemp("controller") / "log") as process:
        yield process


@pytest.fixture(scope="module")
def violator(bare: Kubectl) -> str:
    """Create a VM before the policies that violates them in its spec and in an annotation."""
    bare.apply_vm("violator", cpu="5", annotations={names.CPU_CONSUMPTION: "7", "note": "old"})
    bare.wait_phase("violator", "Scheduling")
    return "violator"


@pytest.fixture(scope="module")
def kubectl(bare: Kubectl, violator: str) -> Kubectl:
    """kubectl, with every policy in force.

    There are VMs to try deletes on: `annotated` is protected, `labelled` is by its namespace `guarded`, `ordinary` is
    not.
    """
    assert violator
    bare("create", "namespace", "guarded")
    bare("label", "namespace", "guarded", PROTECT_LABEL)
    bare.apply_vm("annotated", annotations={PROTECTED: "true"})
    bare.apply_vm("labelled", namespace="guarded")
    bare.apply_vm("ordinary")
    install(bare, *INSTALLED)
    return bare


@pytest.fixture
def own(kubectl: Kubectl, tmp_path: Path) -> Iterator[Kubectl]:
    """Create a namespace of the test's own; its deletion ends protected VMs, too."""
    with kubectl.own_namespace(tmp_path) as own:
        yield own


def install(kubectl: Kubectl, *parts: str) -> None:
    """Apply policies and wait until they are in force."""
    for part in parts:
        kubectl("apply", "-k", str(POLICIES / part))
    for part in parts:
        eventually(partial(in_force, kubectl, part))


def in_force(kubectl: Kubectl, part: str) -> bool:
    """Whether a policy answers: the API server enforces it a moment after its write."""
    probe = vm_manifest("probe", {"resources": {"cpu": "2", "memory": "0.1"}})
    match part:
        case "strict-ratios":
            return "vmsim-strict-ratios" in kubectl.complaint(*dry("create"), stdin=json.dumps(probe))
        case "default-consumption":
            probe["spec"]["resources"]["cpu"] = "0.1"
            # Refused for some seconds, whatever the policy's failurePolicy says: the API server knows no schema of the
            # CRD yet, for which it asks every 5 s.
            try:
                shown = kubectl(*dry("create"), "-o", "json", stdin=json.dumps(probe))
            except KubectlError as error:
                if "There can be a delay" not in str(error):
                    raise
                return False
            return "annotations" in json.loads(shown)["metadata"]
        case "protect-annotated":
            return "vmsim-protect-annotated" in kubectl.complaint(*dry("delete", "vm", "annotated"))
        case "protect-running":
            return "vmsim-protect-running" in kubectl.complaint(*dry("delete", "vm", "ordinary"))
        case _:
            labelled = kubectl.complaint(*dry("delete", "vm", "labelled", "-n", "guarded"))
            return "vmsim-protect-running" in labelled and not in_force(kubectl, EVERYWHERE)


def out_of_force(kubectl: Kubectl, part: str) -> bool:
    """Whether a policy answers no more."""
    return not in_force(kubectl, part)


def dry(verb: str, *arguments: str) -> tuple[str, ...]:
    """Return the command as a dry run on the server."""
    return (verb, *(arguments or ("-f", "-")), "--dry-run=server")


def create(kubectl: Kubectl, *, cpu: str = "0.10", memory: str = "0.15", **annotations: str) -> Any:
    """Create a VM by a dry run; return its metadata."""
    manifest = vm_manifest("door", {"resources": {"cpu": cpu, "memory": memory}}, annotations=annotations)
    return json.loads(kubectl(*dry("create"), "-o", "json", stdin=json.dumps(manifest)))["metadata"]


def vmsim(kubectl: Kubectl, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the program to its end."""
    return subprocess.run(
        [BIN / "vmsim", *arguments],
        env=kubectl.environment,
        capture_output=True,
        text=True,
        timeout=2 * TIMEOUT,
        check=False,
    )


def protected_text(policy: str, namespace: str, name: str) -> str:
    """Return the whole refusal of a delete."""
    vm = f"vm {name} -n {namespace}"
    return (
        f'Error from server (Forbidden): virtualmachines.{names.GROUP} "{name}" is forbidden: '
        f"ValidatingAdmissionPolicy '{policy}' with binding '{policy}' denied request: "
        f"VM {namespace}/{name} is running and protected: "
        f"""stop it first (kubectl patch {vm} --type=merge -p '{{"spec":{{"running":false}}}}') """
        f"or give up its protection (kubectl annotate {vm} {PROTECTED}=false --overwrite)"
    )


# --- strict ratios ---------------------------------------------------------------------------------------------

OUTSIDE = ["1.1", "2", "1.0000000000001", "01.01", "10", "1000"]
INSIDE = ["0", "0.0", "00.5", "0.99999999999999", "1", "1.00", "01"]


@pytest.mark.parametrize("value", OUTSIDE)
def test_cpu_beyond_the_reference_node_is_refused(kubectl: Kubectl, value: str) -> None:
    """Nothing is rounded, however small the excess."""
    with pytest.raises(KubectlError, match=f'{CPU} is "{value}"'):
        create(kubectl, cpu=value)


@pytest.mark.parametrize("value", INSIDE)
def test_ratios_up_to_the_reference_node_are_accepted(kubectl: Kubectl, value: str) -> None:
    """Both ends of the range are in it, in the spec and in the annotations."""
    used = {names.CPU_CONSUMPTION: value, names.MEMORY_CONSUMPTION: value}
    assert create(kubectl, cpu=value, memory=value, **used)["annotations"] == used


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *((names.CPU_CONSUMPTION, value) for value in ("1.1", "-0.1", "NaN", "", "1e-1", "0.12345678901234567")),
        *((names.MEMORY_CONSUMPTION, value) for value in ("1.0000000000001", "abc")),
    ],
)
def test_consumption_beyond_the_reference_node_is_refused(kubectl: Kubectl, key: str, value: str) -> None:
    """The CRD accepts any annotation; 17 digits after the point are too many for the controller."""
    with pytest.raises(KubectlError) as refusal:
        create(kubectl, **{key: value})
    assert f'metadata.annotations[{key}] is "{value}": want a plain decimal' in str(refusal.value)


def test_a_refusal_names_every_field_its_value_and_the_bound(kubectl: Kubectl) -> None:
    """All at once, with the annotation that exempts the VM."""
    with pytest.raises(KubectlError) as refusal:
        create(kubectl, cpu="1.5", **{names.CPU_CONSUMPTION: "0.5", names.MEMORY_CONSUMPTION: "2\n3"})
    assert str(refusal.value).endswith(
        "The virtualmachines \"door\" is invalid: : ValidatingAdmissionPolicy 'vmsim-strict-ratios' with binding "
        f'\'vmsim-strict-ratios\' denied request: {CPU} is "1.5", {MEMORY_USED} is "2\\n3": want a plain decimal of at '
        f'most 16 characters from 0.0 to 1.0 (the annotation {OVERCOMMIT}: "true" exempts a VM)'
    )


def test_the_refusal_of_a_very_long_value_names_only_the_field(kubectl: Kubectl) -> None:
    """The value would not fit into the message."""
    with pytest.raises(KubectlError) as refusal:
        create(kubectl, **{names.CPU_CONSUMPTION: "9" * 6000})
    assert str(refusal.value).endswith(
        f"{CPU}, {MEMORY} and the annotations {names.CPU_CONSUMPTION} and {names.MEMORY_CONSUMPTION} "
        "want a plain decimal of at most 16 characters from 0.0 to 1.0"
    )


def test_an_exempt_vm_may_overcommit(kubectl: Kubectl) -> None:
    """In its spec and in both annotations."""
    used = {names.CPU_CONSUMPTION: "1000", names.MEMORY_CONSUMPTION: "1.5"}
    assert create(kubectl, cpu="1000", **used, **{OVERCOMMIT: "true"})["annotations"] == {**used, OVERCOMMIT: "true"}


@pytest.mark.parametrize("value", ["false", "True", "yes", ""])
def test_only_true_exempts(kubectl: Kubectl, value: str) -> None:
    """A misspelt value exempts nothing."""
    with pytest.raises(KubectlError, match="vmsim-strict-ratios"):
        create(kubectl, cpu="2", **{OVERCOMMIT: value})


@pytest.mark.parametrize(
    "change",
    [
        {"metadata": {"labels": {"team": "a"}}},
        {"metadata": {"annotations": {"note": "new"}}},
        {"metadata": {"finalizers": ["example.com/hold"]}},
        {"metadata": {"annotations": {names.CPU_CONSUMPTION: "0.5"}}},
        {"metadata": {"annotations": None}},
        {"metadata": {"annotations": {OVERCOMMIT: "true"}}, "spec": {"resources": {"cpu": "6"}}},
        {"spec": {"resources": {"memory": "0.3"}}},
        {"spec": {"resources": {"cpu": "1"}}},
        {"spec": {"running": False}},
    ],
    ids=json.dumps,
)
def test_an_older_violator_can_be_edited_in_other_fields(
    kubectl: Kubectl, violator: str, change: dict[str, Any]
) -> None:
    """Installing a policy blocks no unrelated edit."""
    assert kubectl(*dry("patch", "vm", violator), *MERGE, json.dumps(change))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"spec": {"resources": {"cpu": "4"}}}, f'{CPU} is "4"'),
        ({"spec": {"resources": {"cpu": "5.0"}}}, f'{CPU} is "5.0"'),
        ({"metadata": {"annotations": {names.CPU_CONSUMPTION: "8"}}}, f'{CPU_USED} is "8"'),
        ({"metadata": {"annotations": {names.MEMORY_CONSUMPTION: "2"}}}, f'{MEMORY_USED} is "2"'),
    ],
    ids=json.dumps,
)
def test_an_edit_is_judged_by_the_fields_that_it_changes(
    kubectl: Kubectl, violator: str, change: dict[str, Any], field: str
) -> None:
    """The message does not name older violations."""
    refusal = kubectl.refused(*dry("patch", "vm", violator), *MERGE, json.dumps(change))
    assert f"denied request: {field}: want" in refusal


def test_the_controller_stops_and_starts_an_older_violator(kubectl: Kubectl, violator: str) -> None:
    """Its status is still written."""
    kubectl("patch", "vm", violator, *MERGE, STOP)
    kubectl.wait_phase(violator, "Stopped")
    kubectl("patch", "vm", violator, *MERGE, START)
    assert kubectl.wait_phase(violator, "Scheduling")["status"]["cpuConsumption"] == "7"


def test_removing_an_exemption_requires_removing_the_excess(own: Kubectl) -> None:
    """Otherwise the excess would outlast the exemption."""
    own.apply_vm("exempt", cpu="2", running=False, annotations={OVERCOMMIT: "true"})
    withdrawal = ("annotate", "vm", "exempt", f"{OVERCOMMIT}-")
    assert f'{CPU} is "2"' in own.refused(*withdrawal)
    own("patch", "vm", "exempt", *MERGE, '{"spec":{"resources":{"cpu":"1"}}}')
    own("annotate", "vm", "exempt", f"{names.CPU_CONSUMPTION}-")
    own(*withdrawal)
    assert own.json("get", "vm", "exempt")["spec"]["resources"]["cpu"] == "1"


# --- default annotations ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ("0.10", "0.15")),
        ({names.CPU_CONSUMPTION: "0.05"}, ("0.05", "0.15")),
        ({names.MEMORY_CONSUMPTION: "0.05"}, ("0.10", "0.05")),
        ({names.CPU_CONSUMPTION: "0.01", names.MEMORY_CONSUMPTION: "0.02"}, ("0.01", "0.02")),
    ],
)
def test_missing_annotations_default_to_the_spec(
    kubectl: Kubectl, given: dict[str, str], expected: tuple[str, str]
) -> None:
    """Existing annotations stay."""
    annotations = create(kubectl, note="kept", **given)["annotations"]
    assert annotations == dict(zip((names.CPU_CONSUMPTION, names.MEMORY_CONSUMPTION), expected, strict=True)) | {
        "note": "kept"
    }


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({}, "spec.resources: Required value"),
        ({"resources": "much"}, "spec.resources in body must be of type object"),
        ({"resources": {"cpu": 0.5, "memory": "0.1"}}, "spec.resources.cpu in body must be of type string"),
        ({"resources": {"cpu": "abc", "memory": "0.1"}}, "spec.resources.cpu must be a plain decimal string"),
    ],
    ids=str,
)
def test_a_spec_that_cannot_be_copied_is_refused_by_the_crd(
    kubectl: Kubectl, spec: dict[str, Any], message: str
) -> None:
    """With the same message as without a policy."""
    refusal = kubectl.refused(*dry("create"), "--validate=false", stdin=json.dumps(vm_manifest("door", spec)))
    assert message in refusal
    assert "AdmissionPolicy" not in refusal


def test_defaulted_annotations_stay_when_the_spec_is_edited(own: Kubectl) -> None:
    """Without annotations the consumption follows the spec; removing the annotations restores that."""
    own.apply_vm("still", running=False)
    own("patch", "vm", "still", *MERGE, '{"spec":{"resources":{"cpu":"0.20"}}}')
    vm = own.wait_vm("still", lambda vm: vm["status"].get("cpuConsumption") is not None)
    assert vm["metadata"]["annotations"][names.CPU_CONSUMPTION] == vm["status"]["cpuConsumption"] == "0.10"
    own("annotate", "vm", "still", f"{names.CPU_CONSUMPTION}-")
    own.wait_vm("still", lambda vm: vm["status"]["cpuConsumption"] == "0.20")


@pytest.mark.parametrize("how", [(), ("--server-side",)], ids=["client-side", "server-side"])
def test_applying_a_manifest_again_changes_nothing(own: Kubectl, how: tuple[str, ...]) -> None:
    """An apply neither removes the defaults nor conflicts with them."""
    manifest = vm_manifest("again", {"resources": {"cpu": "0.10", "memory": "0.15"}, "running": False})
    manifest["metadata"].pop("namespace")
    own("apply", *how, "-f", "-", stdin=json.dumps(manifest))
    before = own.json("get", "vm", "again")["metadata"]
    own("apply", *how, "-f", "-", stdin=json.dumps(manifest))
    after = own.json("get", "vm", "again")["metadata"]
    assert before["annotations"][names.CPU_CONSUMPTION] == "0.10"
    assert (after["generation"], after["annotations"]) == (before["generation"], before["annotations"])


# --- the controller under every policy -------------------------------------------------------------------------


def test_a_protected_vm_can_be_edited_migrated_stopped_and_started(own: Kubectl) -> None:
    """It is deleted once the protection is removed."""
    own("label", "namespace", own.namespace, PROTECT_LABEL)
    own.apply_vm("protected", annotations={PROTECTED: "true"})
    before = own.wait_phase("protected", "Running")["status"]
    assert (before["cpuConsumption"], before["memoryConsumption"]) == ("0.10", "0.15")

    own("annotate", "vm", "protected", f"{names.CPU_CONSUMPTION}=0.42", "--overwrite")
    own.wait_vm("protected", lambda vm: vm["status"]["cpuConsumption"] == "0.42")

    moved = vmsim(own, "migrate", "protected", "--wait")
    assert moved.returncode == 0, moved.stderr
    after = own.wait_phase("protected", "Running")["status"]
    assert after["nodeName"] != before["nodeName"]

    own("patch", "vm", "protected", *MERGE, STOP)
    own.wait_phase("protected", "Stopped")
    own("patch", "vm", "protected", *MERGE, START)
    own.wait_phase("protected", "Running")
    assert "is running and protected" in own.refused("delete", "vm", "protected")

    own("patch", "vm", "protected", *MERGE, STOP)
    own("delete", "vm", "protected", "--timeout=15s")
    own.eventually("get", "pods", "-o", "name", until=lambda text: not text)


def test_a_drain_moves_a_protected_vm(own: Kubectl) -> None:
    """Only the VM is protected, not its pod."""
    own.apply_vm("drained", annotations={PROTECTED: "true"})
    node = own.wait_phase("drained", "Running")["status"]["nodeName"]
    drained = vmsim(own, "drain", node)
    own("uncordon", node)
    assert drained.returncode == 0, drained.stderr
    assert own.wait_phase("drained", "Running")["status"]["nodeName"] != node


# --- protection ------------------------------------------------------------------------------------------------


def test_an_annotated_vm_that_runs_cannot_be_deleted(kubectl: Kubectl) -> None:
    """The refusal has a command to copy for each way out."""
    refusal = kubectl.refused("delete", "vm", "annotated")
    assert refusal.endswith(protected_text("vmsim-protect-annotated", "default", "annotated"))


def test_a_vm_that_runs_in_a_labelled_namespace_cannot_be_deleted(kubectl: Kubectl) -> None:
    """Unless its annotation opts out."""
    refusal = kubectl.refused("delete", "vm", "labelled", "-n", "guarded")
    assert refusal.endswith(protected_text("vmsim-protect-running", "guarded", "labelled"))


@pytest.mark.parametrize(
    ("namespace", "value", "refused"),
    [
        ("default", "true", True),
        ("default", "True", True),
        ("default", "", True),
        ("default", "false", False),
        ("default", None, False),
        ("guarded", "true", True),
        ("guarded", "False", True),
        ("guarded", "false", False),
        ("guarded", None, True),
    ],
)
def test_only_false_opts_out_of_protection(kubectl: Kubectl, namespace: str, value: str | None, refused: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """A misspelt value protects; without the annotation the namespace decides."""
    kubectl.apply_vm("choice", namespace=namespace, annotations={} if value is None else {PROTECTED: value})
    try:
        assert bool(kubectl.complaint(*dry("delete", "vm", "choice", "-n", namespace))) == refused
    finally:
        kubectl("annotate", "vm", "choice", "-n", namespace, f"{PROTECTED}=false", "--overwrite")
        kubectl("delete", "vm", "choice", "-n", namespace)


def test_each_way_out_that_the_message_offers_works(own: Kubectl) -> None:
    """After a stop or the annotation the VM is deleted at once, still in phase Running."""
    for name in ("stopped", "released"):
        own.apply_vm(name, annotations={PROTECTED: "true"})
        own.wait_phase(name, "Running")
        message = own.refused("delete", "vm", name)
        stop, release = (part.partition(")")[0] for part in message.split("(kubectl ")[1:])
        own.shell(f"kubectl {stop if name == 'stopped' else release} && kubectl delete vm {name} --timeout=15s")
    assert own("get", "vm", "-o", "name") == ""


def test_delete_all_deletes_the_unprotected_vms(own: Kubectl) -> None:
    """It names the remaining ones."""
    own.apply_vm("kept", annotations={PROTECTED: "true"})
    own.apply_vm("kept-too", annotations={PROTECTED: "true"})
    own.apply_vm("stopped", annotations={PROTECTED: "true"}, running=False)
    own.apply_vm("unprotected")
    refusal = own.refused("delete", "vm", "--all", "--timeout=15s")
    assert [f"{own.namespace}/{name} is running" in refusal for name in ("kept", "kept-too")] == [True, True]
    assert refusal.count("is running and protected") == 2
    assert own("get", "vm", "-o", "jsonpath={.items[*].metadata.name}").split() == ["kept", "kept-too"]


def test_deletecollection_spares_a_protected_vm(own: Kubectl) -> None:
    """One request for all VMs is judged VM by VM."""
    own.apply_vm("kept", annotations={PROTECTED: "true"})
    collection = f"/apis/{names.API_VERSION}/namespaces/{own.namespace}/{names.VM_PLURAL}"
    assert f"VM {own.namespace}/kept is running and protected" in own.refused("delete", "--raw", collection)
    assert own("get", "vm", "-o", "name").split() == [f"virtualmachine.{names.GROUP}/kept"]


def test_the_python_api_reports_a_protected_vm_and_deletes_the_others(own: Kubectl) -> None:
    """As the description empties a namespace."""
    own.apply_vm("kept", annotations={PROTECTED: "true"})
    own.apply_vm("unprotected")
    manager = VMManager(namespace=own.namespace, kubeconfig=str(own.kubeconfig))
    with pytest.raises(RefusedError, match=f"VM {own.namespace}/kept is running and protected: stop it first"):
        manager.cleanup_all_vms()
    own.eventually("get", "vm", "-o", "jsonpath={.items[*].metadata.name}", until=lambda text: text == "kept")


def test_a_forced_replace_of_a_protected_vm_is_refused(own: Kubectl) -> None:
    """The VM has the same UID afterwards."""
    own.apply_vm("kept", annotations={PROTECTED: "true"})
    before = own.json("get", "vm", "kept")["metadata"]["uid"]
    manifest = json.dumps(vm_manifest("kept", {"resources": {"cpu": "0.1", "memory": "0.1"}}, namespace=own.namespace))
    assert "is running and protected" in own.refused("replace", "--force", "-f", "-", stdin=manifest)
    assert own.json("get", "vm", "kept")["metadata"]["uid"] == before


def test_unload_names_a_protected_vm(own: Kubectl) -> None:
    """In the API server's words, with exit code 1; once released, the VM is unloaded."""
    fleet = own.namespace
    own.apply_vm("loaded", labels={names.SCENARIO_LABEL: fleet}, annotations={PROTECTED: "true"})
    refused = vmsim(own, "unload", fleet)
    assert refused.returncode == 1
    assert f"VM {own.namespace}/loaded is running and protected: stop it first" in refused.stderr
    own("annotate", "vm", "loaded", f"{PROTECTED}=false", "--overwrite")
    assert vmsim(own, "unload", fleet).returncode == 0
    assert own("get", "vm", "-o", "name") == ""


def test_a_terminating_vm_can_be_deleted_again(own: Kubectl) -> None:
    """Its deletion has started already."""
    own.apply_vm("terminating", running=False, annotations={PROTECTED: "true"}, finalizers=["example.com/hold"])
    own("delete", "vm", "terminating", "--wait=false")
    own("patch", "vm", "terminating", *MERGE, START)
    own("delete", "vm", "terminating", "--wait=false")
    own("patch", "vm", "terminating", *MERGE, '{"metadata":{"finalizers":null}}')
    assert own("get", "vm", "-o", "name") == ""


@pytest.mark.parametrize("user", CLUSTER_PARTS)
def test_the_clusters_own_controllers_may_delete_protected_vms(kubectl: Kubectl, user: str) -> None:
    """Under the names that they have on a cluster."""
    kubectl(*dry("delete", "vm", "annotated"), "--as", user, "--as-group", "system:masters")


@pytest.mark.parametrize("user", ["somebody", "system:serviceaccount:default:generic-garbage-collector"])
def test_no_other_user_may_delete_protected_vms(kubectl: Kubectl, user: str) -> None:
    """Not even with all rights."""
    delete = (*dry("delete", "vm", "annotated"), "--as", user, "--as-group", "system:masters")
    assert "is running and protected" in kubectl.refused(*delete)


def test_deleting_a_namespace_deletes_its_protected_vm(own: Kubectl) -> None:
    """Running, with its pod."""
    own("label", "namespace", own.namespace, PROTECT_LABEL)
    own.apply_vm("inside", annotations={PROTECTED: "true"})
    own.wait_phase("inside", "Running")
    assert "is running and protected" in own.refused("delete", "vm", "inside")
    own("delete", "namespace", own.namespace, "--timeout=40s")
    assert own("get", "namespace", own.namespace, "--ignore-not-found") == ""


def test_in_a_terminating_namespace_every_user_may_delete(plane: ControlPlane, own: Kubectl) -> None:
    """A local cluster's namespace controller acts as administrator, not under an account of its own."""
    own.apply_vm("inside", annotations={PROTECTED: "true"})
    plane.stop_component("kube-controller-manager")  # which would delete the VM itself
    try:
        delete = dry("delete", "vm", "inside")
        assert own.complaint(*delete)
        own("delete", "namespace", own.namespace, "--wait=false")
        eventually(lambda: not own.complaint(*delete))
        assert own("get", "vm", "-o", "name") != ""
    finally:
        plane.start_component("kube-controller-manager")


def test_a_protected_vm_is_deleted_with_its_owner(own: Kubectl) -> None:
    """The user who deleted the owner has decided; the garbage collector carries it out."""
    own("create", "configmap", "owner")
    uid = own("get", "configmap", "owner", "-o", "jsonpath={.metadata.uid}")
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid}
    own.apply_vm("owned", annotations={PROTECTED: "true"}, ownerReferences=[owner])
    assert own.complaint(*dry("delete", "vm", "owned"))
    own("delete", "configmap", "owner")
    own.eventually("get", "vm", "-o", "name", until=lambda text: not text)


# --- installing and removing -----------------------------------------------------------------------------------


def test_removed_policies_refuse_nothing(kubectl: Kubectl) -> None:
    """One command installs a part, and one removes it."""
    for part in INSTALLED:
        kubectl("delete", "-k", str(POLICIES / part))
    try:
        for part in INSTALLED:
            eventually(partial(out_of_force, kubectl, part))
    finally:
        install(kubectl, *INSTALLED)


def test_protection_of_all_and_of_labelled_namespaces_replace_each_other(kubectl: Kubectl) -> None:
    """The same policy, bound to more or to less."""
    try:
        install(kubectl, EVERYWHERE)
    finally:
        install(kubectl, LABELLED)


def test_each_part_is_also_a_single_file(kubectl: Kubectl) -> None:
    """It has the same objects, for use without kustomize."""
    files = [argument for part in INSTALLED[:3] for argument in ("-f", str(POLICIES / part / f"{part}.yaml"))]
    answers = kubectl("apply", *files, "--dry-run=server").splitlines()
    assert [answer.split(maxsplit=1)[1] for answer in answers] == ["unchanged (server dry run)"] * 6


def test_the_api_server_reports_no_type_error_in_any_expression(kubectl: Kubectl) -> None:
    """It checks each against the CRD's schema."""
    policies = kubectl.json("get", "validatingadmissionpolicies", "-l", "app.kubernetes.io/part-of=vmsim")["items"]
    assert [policy["metadata"]["name"] for policy in policies] == [
        "vmsim-protect-annotated",
        "vmsim-protect-running",
        "vmsim-strict-ratios",
    ]
    assert [policy["status"]["typeChecking"] for policy in policies] == [{}, {}, {}]
