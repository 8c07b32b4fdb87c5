"""The labels and annotations that a launcher pod takes from its VM."""

from __future__ import annotations

import pytest

from controller.domain.vm import inherited
from tests.unit.domain.builders import running, vm

EVICT = "descheduler.alpha.kubernetes.io/evict"


@pytest.mark.parametrize("key", ["app", "example.com/team", "kube-burner.io/runid", EVICT])
def test_a_users_key_reaches_the_pod(key: str) -> None:
    """Budgets, selectors and tools follow it."""
    machine = vm(annotations={key: "1"}, labels={key: "1"})
    assert inherited.labels(machine) == {key: "1"}
    assert inherited.taken_annotations(machine).taken == {key: "1"}


@pytest.mark.parametrize(
    "key",
    [
        "simulation.node-classifier.io/scenario",
        "kubectl.kubernetes.io/last-applied-configuration",
        "kubevirt.io",
        "kubevirt.io/created-by",
        "vm.kubevirt.io/name",
        "kwok.x-k8s.io/usage-cpu",
        "descheduler.alpha.kubernetes.io/request-evict-only",
        "descheduler.alpha.kubernetes.io/eviction-in-progress",
    ],
)
def test_a_key_with_a_meaning_of_its_own_stays_on_the_vm(key: str) -> None:
    """A copy on the pod would mean something else."""
    machine = vm(annotations={key: "1"}, labels={key: "1"})
    assert inherited.labels(machine) == {}
    assert inherited.taken_annotations(machine).taken == {}


def test_annotations_beyond_the_limit_are_left_out_and_named() -> None:
    """The others are taken over, by name."""
    machine = vm(annotations={"a": "x" * 1000, "b": "é" * inherited.ANNOTATIONS_LIMIT, "c": "x" * 1000})
    found = inherited.taken_annotations(machine)
    assert (sorted(found.taken), found.left_out) == (["a", "c"], ("b",))


def test_annotations_up_to_the_limit_are_taken_over() -> None:
    """Keys and values count, in bytes."""
    machine = vm(annotations={"a": "x" * (inherited.ANNOTATIONS_LIMIT - 1)})
    assert inherited.taken_annotations(machine).left_out == ()


@pytest.mark.parametrize("character", ["x", "é", "€", "😀"])
def test_the_annotations_left_out_are_those_that_the_pod_does_not_take_over(character: str) -> None:
    """From one byte above the limit on, however wide a character is."""
    most = (inherited.ANNOTATIONS_LIMIT - 1) // len(character.encode())
    fits, too_large = vm(annotations={"a": character * most}), vm(annotations={"a": character * (most + 1)})
    assert (inherited.left_out(fits), inherited.left_out(too_large)) == ((), ("a",))
    assert inherited.taken_annotations(too_large).left_out == ("a",)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({}, {EVICT: "true"}, {EVICT: "true"}),
        ({EVICT: "true"}, {}, {EVICT: None}),
        ({EVICT: "true"}, {EVICT: "true"}, {}),
        ({"app": "a"}, {"app": "b"}, {}),
    ],
)
def test_only_a_hint_follows_the_vm_while_its_pod_runs(
    before: dict[str, str], after: dict[str, str], expected: dict[str, str | None]
) -> None:
    """Added, changed or removed; any other annotation is the pod's from its creation on."""
    assert inherited.hint_changes(vm(annotations=after), running(vm(annotations=before))) == expected


def test_a_hint_goes_before_other_annotations_and_one_that_is_left_out_is_not_patched_either() -> None:
    """The pod would be refused, and with it every later status."""
    large = "x" * inherited.ANNOTATIONS_LIMIT
    machine = vm(annotations={"a": large[:-10], EVICT: "true"})
    assert inherited.taken_annotations(machine).left_out == ("a",)
    machine = vm(annotations={EVICT: large})
    assert inherited.taken_annotations(machine).left_out == (EVICT,)
    assert inherited.hint_changes(machine, running(vm())) == {}
