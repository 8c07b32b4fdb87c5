"""The boot of a VM: how long a started pod does not yet run its guest. It is simulated: the pod is Ready meanwhile.

Guarantees: pure. The boot time is fixed when the pod is created (its annotation), so that neither an edit of the VM nor
a restart of the controller with another `--boot-time` changes the phase of a VM that has booted. A VM's boot time is in
simulated seconds; a pod's is in real ones, so that whoever reads a pod needs no speed.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final, NamedTuple

import msgspec

from controller.domain import names
from controller.domain.objects import VirtualMachine
from controller.domain.vm.policy import SLOWEST
from controller.kube.kinds import Pod
from controller.kube.times import CLOCK_SKEW, duration_text, parse_duration, parse_timestamp

LONGEST: Final = 3600.0
"""Simulated seconds that a boot takes at most."""
LONGEST_OF_POD: Final = LONGEST / SLOWEST
"""Real seconds."""
WANTED: Final = "want a duration such as 90s or 1m30s, of at most 1h"


class BootTime(NamedTuple):
    """A boot time in simulated seconds; `problem`: why the VM's annotation is not used."""

    seconds: float
    problem: str | None = None


def parse(text: str) -> float | None:
    """Return the seconds of a boot time; None if it is none, or too long."""
    seconds = parse_duration(text)
    return seconds if seconds is not None and seconds <= LONGEST else None


def of_vm(vm: VirtualMachine, default: float) -> BootTime:
    """Return the boot time of a VM's next pod: its annotation's, or else the installation's."""
    text = vm.metadata.annotations.get(names.BOOT_TIME)
    if text is None:
        return BootTime(default)
    seconds = parse(text)
    if seconds is None:
        problem = f"annotation {names.BOOT_TIME} is {text[:32]!r}: {WANTED}; using {duration_text(default)}"
        return BootTime(default, problem)
    return BootTime(seconds)


def annotation(boot: BootTime, speed: float) -> dict[str, str]:
    """Return the annotation that fixes the boot time of a pod; none for a pod that runs its guest at once.

    `speed`: simulated seconds in a real one.
    """
    return {names.BOOT_TIME: duration_text(boot.seconds / speed)} if boot.seconds > 0 else {}


def of_pod(pod: Pod) -> float:
    """Return the real seconds between the start of a pod and that of its guest."""
    text = pod.metadata.annotations.get(names.BOOT_TIME)
    seconds = parse_duration(text) if text is not None else None
    return min(seconds, LONGEST_OF_POD) if seconds is not None else 0.0


def ends(pod: Pod) -> datetime | None:
    """Return when the guest of a pod runs; None if the pod has not started, or does not boot."""
    started = parse_timestamp(pod.status.start_time)
    if started is None or names.BOOT_TIME not in pod.metadata.annotations:
        return None
    try:
        return started + timedelta(seconds=of_pod(pod))
    except OverflowError:  # a malformed time, beyond the calendar
        return None


def left(pod: Pod, now: datetime) -> float:
    """Return the seconds until the guest of a started pod runs; 0 if it does, or if the pod has not started.

    A start that lies further in the future than clocks may differ is malformed, and no start.
    """
    until = ends(pod)
    seconds = (until - now).total_seconds() if until is not None else 0.0
    return seconds if 0 < seconds <= of_pod(pod) + CLOCK_SKEW else 0.0


def as_seen(pods: Iterable[Pod], now: datetime, booted: str | None) -> tuple[Pod, ...]:
    """Return pods as a VM's phase follows from them: one whose guest boots does not run yet.

    `booted`: the UID of the pod with which the VM is published as Running. It stays so, whatever the clocks say.
    """
    seen = []
    for pod in pods:
        boots = names.BOOT_TIME in pod.metadata.annotations and pod.status.phase == "Running"
        boots = boots and pod.metadata.uid != booted and left(pod, now) > 0
        waits = msgspec.structs.replace(pod.status, phase="Pending") if boots else None
        seen.append(pod if waits is None else msgspec.structs.replace(pod, status=waits))
    return tuple(seen)
