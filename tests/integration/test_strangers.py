"""Foreign and malformed objects: never touched, and without effect on other VMs."""

from __future__ import annotations

import json
import math
from typing import Any, Final

import pytest
from prometheus_client.parser import text_string_to_metric_families

from controller.domain import names
from tests.integration.tools import Controller, Kubectl, eventually, vm_manifest

pytestmark = pytest.mark.usefixtures("controller", "clean")


def test_a_foreign_pod_with_the_pods_name_is_reported_and_not_touched(kubectl: Kubectl, controller: Controller) -> None:
    """The VM names it; another VM runs; once the foreign pod is deleted, the VM gets its pod."""
    assert controller.process.poll() is None
    kubectl.apply_vm("wanted", running=False)
    uid = kubectl.wait_phase("wanted", "Stopped")["metadata"]["uid"]
    taken = names.pod_name("wanted", uid, 0)
    foreign = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": taken},
        "spec": {
            "nodeSelector": {"type": "none-such"},
            "containers": [{"name": "main", "image": "registry.k8s.io/pause:3.10.1"}],
        },
    }
    kubectl("create", "-f", "-", stdin=json.dumps(foreign))
    before = kubectl.json("get", "pod", taken)
    kubectl("patch", "vm", "wanted", "--type=merge", "-p", '{"spec":{"running":true}}')
    kubectl.apply_vm("other")
    vm = kubectl.wait_vm("wanted", lambda vm: vm["status"]["conditions"][0]["reason"] == "FailedCreate")
    assert f"pod {taken} exists and does not belong to this VM" in vm["status"]["conditions"][0]["message"]
    kubectl.wait_phase("other", "Running")
    assert kubectl.json("get", "pod", taken) == before
    kubectl("delete", "pod", taken, "--wait=true")
    assert kubectl.wait_phase("wanted", "Running", timeout=40)["status"]["podName"] == taken


def test_a_refused_pod_is_an_event(kubectl: Kubectl) -> None:
    """`kubectl describe` shows the quota, and the VM runs once the quota is deleted."""
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
    kubectl.wait_phase("refused", "Running", timeout=40)


def test_a_failing_webhook_is_reported_on_the_vm(kubectl: Kubectl) -> None:
    """The pod cannot be created; the VM runs once the webhook is deleted."""
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
    assert kubectl.wait_phase("hooked", "Running", timeout=40)["status"]["conditions"][0]["reason"] == "GuestRunning"


def test_the_events_of_a_vm_show_its_pod_and_node(kubectl: Kubectl) -> None:
    """In `kubectl describe`."""
    kubectl.apply_vm("evented")
    kubectl.wait_phase("evented", "Running")
    text = kubectl.eventually("describe", "vm", "evented", until=lambda text: "Started" in text.partition("Events:")[2])
    events = text.partition("Events:")[2]
    assert "Created virtual machine pod virt-launcher-evented-" in events
    assert "The virtual machine runs on kwok-node-" in events


_TIMES: Final = ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "2026-01-15T10:00:00+23:59", "2026-01-15T10:00:00.1Z")
_HISTORY: Final = [{"type": f"Phase{phase}", "status": "True"} for phase in ("Pending", "Scheduling", "Running")]
MALFORMED_VMS: Final[tuple[dict[str, Any], ...]] = (
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
    *({"incarnation": incarnation} for incarnation in (7, 2**31 - 2)),
    {"cpuConsumption": "NaN", "memoryConsumption": "Infinity", "podName": "a/b", "nodeName": "..", "podUID": ""},
    {"phase": "Failed", "createdAt": _TIMES[0], "observedGeneration": 2**63 - 1},
    {"phase": "Stopped", "conditions": [{"type": "Ready", "status": "True", "reason": "Odd" * 500}] * 64},
)
"""Parts of statuses that the schema allows, and that no release of ours writes."""
MALFORMED_MIGRATIONS: Final[tuple[dict[str, Any], ...]] = (
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
def test_malformed_statuses_and_annotations_do_not_affect_other_vms(kubectl: Kubectl, controller: Controller) -> None:
    """The controller stays healthy, and another VM runs and moves."""
    spec = {"resources": {"cpu": "0.01", "memory": "0.01"}}
    vms = [vm_manifest(f"malformed-{at}", spec, namespace="default") for at in range(len(MALFORMED_VMS))]
    kubectl("create", "-f", "-", stdin=_of(vms))
    kubectl("wait", "vm", "--all", "--for=condition=Ready", "--timeout=30s")
    malformed = [(f"m-{at}", f"malformed-{at % len(vms)}", status) for at, status in enumerate(MALFORMED_MIGRATIONS)]
    malformed += [(f"n-{at}", "never-was", status) for at, status in enumerate(MALFORMED_MIGRATIONS)]
    migrations = [_migration(name, vm) for name, vm, _ in malformed]
    words = {names.INCARNATION: "first", names.REQUESTED_CPU: "NaN", names.CPU_CONSUMPTION: "NaN"}
    texts = [f"{key}={text}" for key, text in words.items()]
    try:
        # First, while no pod terminates: kubectl lists the pods, and fails if one is deleted meanwhile.
        kubectl("annotate", "pods", "--overwrite", "-l", names.VM_LABEL, *texts)
        kubectl("create", "-f", "-", stdin=_of(migrations))
        spoiled = [vm | {"status": status} for vm, status in zip(vms, MALFORMED_VMS, strict=True)]
        spoiled += [made | {"status": status} for made, (_, _, status) in zip(migrations, malformed, strict=True)]
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
        eventually(lambda: controller.get("/healthz") == (200, "ok"), timeout=60)
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
