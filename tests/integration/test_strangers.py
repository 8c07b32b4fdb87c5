"""Objects that are not ours: never touched, and no reason for other VMs to suffer."""

from __future__ import annotations

import json

import pytest

from controller.domain import names
from tests.integration.tools import Controller, Kubectl

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
    kubectl("create", "-f", "-", stdin=json.dumps(webhook))
    try:
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
