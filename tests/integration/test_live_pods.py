"""What other tests rely on to notice two live pods of one VM."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.integration.live_pods import LivePods
from tests.integration.tools import Kubectl, eventually


def test_two_live_pods_of_one_vm_would_be_seen() -> None:
    """What must never happen is noticed, a terminating pod included."""
    owner = {"kind": "VirtualMachine", "name": "x", "controller": True}
    meta = {"namespace": "default", "ownerReferences": [owner]}
    watch = LivePods()
    watch.take("ADDED", {"metadata": {**meta, "uid": "1", "name": "a", "deletionTimestamp": "now"}})
    watch.take("ADDED", {"metadata": {**meta, "uid": "2", "name": "b"}, "status": {"phase": "Failed"}})
    assert watch.violations == []
    watch.take("ADDED", {"metadata": {**meta, "uid": "3", "name": "c"}})
    assert watch.violations == ["VM default/x has 2 live pods at once: a, c"]


@pytest.mark.usefixtures("clean")
def test_pods_are_seen_however_many_watches_that_takes(kubectl: Kubectl) -> None:
    """One that was there before, and one that comes while the third watch, or a later one, is open."""
    held = ("a", "b")

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
        kubectl("delete", "pods", *held, "--ignore-not-found", "--wait=false")
        # Their owner was never there, so the garbage collector deletes them, too.
        for pod in kubectl("get", "pods", *held, "--ignore-not-found", "-o", "name").split():
            kubectl("patch", pod, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    assert watch.violations[0] == "VM default/x has 2 live pods at once: a, b"


@pytest.mark.usefixtures("clean")
def test_a_defect_in_what_is_told_of_pods_fails_the_test(kubectl: Kubectl) -> None:
    """It is not lost on the thread that reads."""

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
