"""The detector of two live pods of one VM, which other tests rely on."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.integration.live_pods import LivePods
from tests.integration.tools import Kubectl, eventually


def test_two_live_pods_of_one_vm_are_reported() -> None:
    """A terminating pod is live."""
    owner = {"kind": "VirtualMachine", "name": "x", "controller": True}
    meta = {"namespace": "default", "ownerReferences": [owner]}
    watch = LivePods()
    watch.take("ADDED", {"metadata": {**meta, "uid": "1", "name": "a", "deletionTimestamp": "now"}})
    watch.take("ADDED", {"metadata": {**meta, "uid": "2", "name": "b"}, "status": {"phase": "Failed"}})
    assert watch.violations == []
    watch.take("ADDED", {"metadata": {**meta, "uid": "3", "name": "c"}})
    assert watch.violations == ["VM default/x has 2 live pods at once: a, c"]


@pytest.mark.usefixtures("clean")
def test_pods_are_seen_across_several_watches(kubectl: Kubectl) -> None:
    """One existed before; one is created while the third or a later watch is open."""
    blocked = ("a", "b")

    def create(name: str) -> None:
        owner = {"apiVersion": "v1", "kind": "VirtualMachine", "name": "x", "uid": "u", "controller": True}
        metadata = {"name": name, "ownerReferences": [owner], "finalizers": ["example.com/hold"]}
        spec = {"nodeSelector": {"type": "none-such"}, "containers": [{"name": "main", "image": "none"}]}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
        kubectl("create", "-f", "-", stdin=json.dumps(pod))

    try:
        create("a")
        with LivePods(life=1).following(kubectl) as watch:
            eventually(lambda: watch.watches > 2)
            create("b")
            eventually(lambda: bool(watch.violations))
    finally:
        kubectl("delete", "pods", *blocked, "--ignore-not-found", "--wait=false")
        # Their owner was never there, so the garbage collector deletes them, too.
        for pod in kubectl("get", "pods", *blocked, "--ignore-not-found", "-o", "name").split():
            kubectl("patch", pod, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    assert watch.violations[0] == "VM default/x has 2 live pods at once: a, b"


@pytest.mark.usefixtures("clean")
def test_an_error_of_the_reader_fails_the_test(kubectl: Kubectl) -> None:
    """It is not lost on the reading thread."""

    class Broken(LivePods):
        def take(self, kind: str, pod: Any) -> None:
            LivePods.take(self, kind, pod)
            raise ZeroDivisionError

    watch = Broken()

    def follow() -> None:
        with watch.following(kubectl):
            kubectl("run", "seen", "--image=none")
            eventually(lambda: watch.events > 0)

    try:
        with pytest.raises(ZeroDivisionError):
            follow()
    finally:
        kubectl("delete", "pod", "seen", "--ignore-not-found", "--wait=false")
