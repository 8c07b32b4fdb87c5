"""The labels and annotations that a launcher pod takes from its VM.

Guarantees: a pod gets all of the VM's when it is created, so that budgets, selectors and tools follow their own labels;
from then on only the hints follow (`HINTS`). No key that Kubernetes, KubeVirt, KWOK, the descheduler or this project
gives a meaning on a VM or on a pod is taken over. Annotations beyond `ANNOTATIONS_LIMIT` are left out, and named.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Final, NamedTuple

from controller.domain import names
from controller.domain.objects import VirtualMachine
from controller.kube.kinds import Pod

ANNOTATIONS_LIMIT: Final = 64 * 1024
"""Bytes of keys and values that a pod takes over; the API server refuses an object with more than 256 KiB of them."""
_WIDEST: Final = 4
"""Bytes of UTF-8 that a character takes at most."""

HINTS: Final = (
    "descheduler.alpha.kubernetes.io/evict",
    "descheduler.alpha.kubernetes.io/prefer-no-eviction",
    "cluster-autoscaler.kubernetes.io/safe-to-evict",
)
"""The annotations that tools read on a running pod; KubeVirt keeps the first two current."""

_RESERVED: Final = (f"{names.GROUP}/", "kubectl.kubernetes.io/", "kubevirt.io", "vm.kubevirt.io/", "kwok.x-k8s.io/")
"""Prefixes of keys that have a meaning on the VM, or on the pod, alone."""
_PROTOCOL: Final = (
    "descheduler.alpha.kubernetes.io/request-evict-only",
    "descheduler.alpha.kubernetes.io/eviction-in-progress",
)
"""The descheduler's protocol of evictions in the background, which is about one pod."""


class TakenAnnotations(NamedTuple):
    """The annotations that a pod takes over, and the keys of those that are left out for their size."""

    taken: dict[str, str]
    left_out: tuple[str, ...]


def labels(vm: VirtualMachine) -> dict[str, str]:
    """Return the labels that a pod of a VM takes over."""
    return _own(vm.metadata.labels)


def taken_annotations(vm: VirtualMachine) -> TakenAnnotations:
    """Return the annotations that a pod of a VM takes over: hints first, then by name, until the limit is reached."""
    if not vm.metadata.annotations:
        return TakenAnnotations({}, ())
    wanted = _own(vm.metadata.annotations)
    if _size(wanted) <= ANNOTATIONS_LIMIT:
        return TakenAnnotations(wanted, ())
    taken: dict[str, str] = {}
    left_out, size = [], 0
    for key, value in sorted(wanted.items(), key=lambda item: (item[0] not in HINTS, item[0])):
        size += _size({key: value})
        if size <= ANNOTATIONS_LIMIT:
            taken[key] = value
        else:
            size -= _size({key: value})
            left_out.append(key)
    return TakenAnnotations(taken, tuple(left_out))


def left_out(vm: VirtualMachine) -> tuple[str, ...]:
    """Return the keys of the annotations that a pod does not take over for their size.

    Every decision asks: nothing is copied or encoded unless the number of characters allows that it is too much.
    """
    characters = sum(map(len, chain.from_iterable(vm.metadata.annotations.items())))
    return () if characters * _WIDEST <= ANNOTATIONS_LIMIT else taken_annotations(vm).left_out


def hint_changes(vm: VirtualMachine, pod: Pod) -> dict[str, str | None]:
    """Return the hints to set on a pod; None for one to remove."""
    wanted, found = vm.metadata.annotations, pod.metadata.annotations
    if wanted.keys().isdisjoint(HINTS) and found.keys().isdisjoint(HINTS):
        return {}
    wanted = taken_annotations(vm).taken
    return {key: wanted.get(key) for key in HINTS if wanted.get(key) != found.get(key)}


def _own(found: Mapping[str, str]) -> dict[str, str]:
    if not found:
        return {}
    return {key: value for key, value in found.items() if not key.startswith(_RESERVED) and key not in _PROTOCOL}


def _size(found: Mapping[str, str]) -> int:
    return sum(len(text.encode()) for pair in found.items() for text in pair)
