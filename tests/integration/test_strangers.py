"""Objects that are not ours: never touched, and no reason for other VMs to suffer."""

from __future__ import annotations

import json
import math
from typing import Any, Final

import pytest
from prometheus_client.parser import text_string_to_metric_families

from controller.domain import names
from tests.integration.tools import Controller, Kubectl, eventually, vm_manifest

pytestmark = pytest.mark.usefixtures("controller", "clean")


def test_a_strangers_pod_on_a_vms_name_is_told_and_left_alone(kubectl: Kubectl, controller: Controller) -> None:
    """The VM says who is in its way; another VM runs; when the stranger has gone, the VM gets its pod."""
    assert controller.process.poll() is None
    kubectl.apply_vm("wanted", running=False)
    uid = kubectl.wait_phase("wanted", "Stopped")["metadata"]["uid"]
    taken = names.pod_name("wanted", uid, 0)
    stranger = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": taken},
        "spec": {
            "nodeSelector": {"type": "none-such"},
            "containers": [{"name": "main", "image": "registry.k8s.io/pause:3.10.1"}],
        },
    }
    kubectl("create", "-f", "-", stdin=json.dumps(stranger))
    before = kubectl.json("get", "pod", taken)
    kubectl("patch", "vm", "wanted", "--type=merge", "-p", '{"spec":{"running":true}}')
    kubectl.apply_vm("other")
    vm = kubectl.wait_vm("wanted", lambda vm: vm["status"]["conditions"][0]["reason"] == "FailedCreate")
    assert f"pod {taken} exists and does not belong to this VM" in vm["status"]["conditions"][0]["message"]
    kubectl.wait_phase("other", "Running")
    assert kubectl.json("get", "pod", taken) == before
    kubectl("delete", "pod", taken, "--wait=true")
    assert kubectl.wait_phase("wanted", "Running", patience=40)["status"]["podName"] == taken


def test_a_refused_pod_is_an_event_that_describe_shows(kubectl: Kubectl) -> None:
    """A quota stands in the way: `kubectl describe` says so, and the VM runs when the quota is gone."""
    kubectl("create", "quota", "none", "--hard=pods=0")
    kubectl.eventually("get", "quota", "none", "-o", "jsonpath={.status.hard.pods}", until=lambda text: text == "0")
    kubectl.apply_vm("refused")
    try:
        kubectl.eventually(
            "describe", "vm", "refused", until=lambda text: "FailedCreate" in text.partition("Events:")[2]
        )
        vm = kubectl.json("get", "vm", "refused")
        assert "exceeded quota: none" in vm["status"]["conditions"][0]["message"]
    finally:
        kubectl("delete", "quota", "none")
    kubectl.wait_phase("refused", "Running", patience=40)


def test_a_webhook_that_is_down_is_told_on_the_vm(kubectl: Kubectl) -> None:
    """Nobody refuses the pod, and it cannot be made: the VM says why, and runs when the webhook is gone."""
    webhook = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "down"},
        "webhooks": [
            {
                "name": "down.example.com",
                "clientConfig": {"url": "https://127.0.0.1:1/x"},
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
                "objectSelector": {"matchLabels": {names.VM_LABEL: "hooked"}},
                "failurePolicy": "Fail",
                "timeoutSeconds": 1,
                "sideEffects": "None",
                "admissionReviewVersions": ["v1"],
            }
        ],
    }
    asked = ("run", "asked", "--image=none", f"--labels={names.VM_LABEL}=hooked", "--dry-run=server")
    try:
        kubectl("create", "-f", "-", stdin=json.dumps(webhook))
        # The API server learns of its webhooks by a watch of its own.
        eventually(lambda: "failed calling webhook" in kubectl.complaint(*asked))
        kubectl.apply_vm("hooked")
        kubectl.eventually(
            "describe", "vm", "hooked", until=lambda text: "FailedCreate" in text.partition("Events:")[2]
        )
        vm = kubectl.wait_vm("hooked", lambda vm: bool(vm["status"]["conditions"]))
        ready = vm["status"]["conditions"][0]
        assert (ready["type"], ready["status"], ready["reason"]) == ("Ready", "False", "FailedCreate")
        assert "failed calling webhook" in ready["message"]
    finally:
        kubectl("delete", "mutatingwebhookconfiguration", "down")
    assert kubectl.wait_phase("hooked", "Running", patience=40)["status"]["conditions"][0]["reason"] == "GuestRunning"


def test_a_vms_life_is_told_in_events(kubectl: Kubectl) -> None:
    """`kubectl describe` shows what was done and where it runs."""
    kubectl.apply_vm("told")
    kubectl.wait_phase("told", "Running")
    text = kubectl.eventually("describe", "vm", "told", until=lambda text: "Started" in text.partition("Events:")[2])
    events = text.partition("Events:")[2]
    assert "Created virtual machine pod virt-launcher-told-" in events
    assert "The virtual machine runs on kwok-node-" in events


_TIMES: Final = ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "2026-01-15T10:00:00+23:59", "2026-01-15T10:00:00.1Z")
_HISTORY: Final = [{"type": f"Phase{phase}", "status": "True"} for phase in ("Pending", "Scheduling", "Running")]
ODD_VMS: Final[tuple[dict[str, Any], ...]] = (
    *({"conditions": [*_HISTORY, {"type": kind, "status": "True"}]} for kind in ("PhasePaused", "Phase", "", 'a\nb"c')),
    *(
        {"conditions": [*_HISTORY, {"type": "PhaseFailed", "status": "Unknown", "lastTransitionTime": at}]}
        for at in _TIMES
    ),
    *({"startFailure": {"consecutiveFailCount": count}} for count in (-1, 2**31 - 1)),
    *({"startFailure": {"consecutiveFailCount": 1, "retryAfterTimestamp": at}} for at in _TIMES),
    *(
        {"migration": claim}
        for claim in ({}, {"name": "../x", "uid": "?"}, {"sourceIncarnation": -5, "rollback": True})
    ),
    *({"incarnation": life} for life in (7, 2**31 - 2)),
    {"cpuConsumption": "NaN", "memoryConsumption": "Infinity", "podName": "a/b", "nodeName": "..", "podUID": ""},
    {"phase": "Failed", "createdAt": _TIMES[0], "observedGeneration": 2**63 - 1},
    {"phase": "Stopped", "conditions": [{"type": "Ready", "status": "True", "reason": "Odd" * 500}] * 64},
)
"""Parts of statuses that the schema allows, and that no release of ours writes."""
ODD_MIGRATIONS: Final[tuple[dict[str, Any], ...]] = (
    *({"phase": "Succeeded", "downtimeSeconds": text} for text in ("NaN", "inf", "-1", "soon")),
    *({"phase": "Failed", "endTimestamp": text, "failureReason": "Nobody"} for text in ("later", _TIMES[1])),
    {"phase": "Pending", "phaseTransitionTimestamps": [{"phase": "Flying", "phaseTransitionTimestamp": "later"}] * 16},
    {"phase": "Starting", "conditions": [{"type": "PhasePaused", "status": "Unknown"}], "vmUID": "another"},
    {"phase": "Terminating", "sourceNode": "..", "targetPod": "a/b", "startTimestamp": "NaN"},
)


def _migration(name: str, vm: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "default"}
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.MIGRATION_KIND,
        "metadata": metadata,
        "spec": {"vmName": vm},
    }


def _of(objects: list[dict[str, Any]]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})


@pytest.mark.timeout(240)
def test_odd_statuses_and_annotations_cost_other_vms_nothing(kubectl: Kubectl, controller: Controller) -> None:
    """Whatever the API server accepts: the controller lives and answers, and another VM runs and moves."""
    spec = {"resources": {"cpu": "0.01", "memory": "0.01"}}
    vms = [vm_manifest(f"odd-{at}", spec, namespace="default") for at in range(len(ODD_VMS))]
    kubectl("create", "-f", "-", stdin=_of(vms))
    kubectl("wait", "vm", "--all", "--for=condition=Ready", "--timeout=30s")
    odd = [(f"m-{at}", f"odd-{at % len(vms)}", status) for at, status in enumerate(ODD_MIGRATIONS)]
    odd += [(f"n-{at}", "never-was", status) for at, status in enumerate(ODD_MIGRATIONS)]
    migrations = [_migration(name, vm) for name, vm, _ in odd]
    words = {names.INCARNATION: "first", names.REQUESTED_CPU: "NaN", names.CPU_CONSUMPTION: "NaN"}
    texts = [f"{key}={text}" for key, text in words.items()]
    try:
        # First of all, while no pod is on its way out: kubectl lists them, and fails where one has gone since.
        kubectl("annotate", "pods", "--overwrite", "-l", names.VM_LABEL, *texts)
        kubectl("create", "-f", "-", stdin=_of(migrations))
        spoiled = [vm | {"status": status} for vm, status in zip(vms, ODD_VMS, strict=True)]
        spoiled += [made | {"status": status} for made, (_, _, status) in zip(migrations, odd, strict=True)]
        # Server-side, since the controller is at work on the same statuses.
        kubectl("apply", "--server-side", "--force-conflicts", "--subresource=status", "-f", "-", stdin=_of(spoiled))
        kubectl("annotate", "vm", "--overwrite", "--all", *texts)
        kubectl("annotate", "nodes", "--overwrite", "-l", "type=kwok", *texts)
        kubectl.apply_vm("sound")
        node = kubectl.wait_phase("sound", "Running")["status"]["nodeName"]
        moves = _migration("sound", "sound")
        moves["spec"]["priority"] = "system-critical"
        kubectl("create", "-f", "-", stdin=json.dumps(moves))
        succeeded = ("wait", "vmm/sound", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s")
        kubectl(*succeeded, timeout=70)
        assert kubectl.wait_phase("sound", "Running")["status"]["nodeName"] != node
        assert controller.process.poll() is None
        # A machine that stands still for seconds shows in it, for some time.
        eventually(lambda: controller.get("/healthz") == (200, "ok"), patience=60)
        samples = [
            sample
            for family in text_string_to_metric_families(controller.get("/metrics")[1])
            for sample in family.samples
        ]
        assert [sample for sample in samples if math.isnan(sample.value)] == []
        failures = [sample for sample in samples if sample.name == "vmsim_store_listener_failures_total"]
        assert failures
        assert [sample for sample in failures if sample.value] == []
    finally:
        kubectl("annotate", "nodes", "--all", *(f"{key}-" for key in words))
        kubectl("delete", "vmm", "--all")
