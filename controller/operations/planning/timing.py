"""How long a move takes besides copying and booting: constants of the control plane, and what a VM copies.

Guarantees: pure. The constants are measured ones, so an estimate is as good as the machine is like that one; copying
and boot times, which make up most of a real drain, are simulated, and the same on any machine.
"""

from __future__ import annotations

import math
from typing import Final

from controller.domain import names
from controller.domain.copying.model import Job, Limits, Workload, completion_timeout
from controller.domain.objects import VirtualMachine
from controller.domain.settings import PublishedSettings
from controller.domain.vm import boot, launcher

RECREATE: Final = 0.18
"""Seconds of a Recreate move without boot: source deleted, target created, scheduled and started, claim removed.

Measured on the local control plane, as are the next three.
"""
LIVE_BEFORE: Final = 0.12
"""Seconds from a live move's slot to the beginning of copying: target created, scheduled and started."""
LIVE_AFTER: Final = 0.12
"""Seconds from the end of copying to the free slot: handed over, source deleted, claim removed."""
BETWEEN_NODES: Final = 0.05
"""Seconds from a node's last move to the first of the next node: the drain sees the one and asks for the other."""


def recreate(vm: VirtualMachine, rules: PublishedSettings) -> float:
    """Return the real seconds for which a Recreate move of a VM has its slot."""
    return RECREATE + boot.of_vm(vm, rules.policy.boot_time).seconds / rules.policy.speed


def copying(vm: VirtualMachine, rules: PublishedSettings) -> tuple[Job, float]:
    """Return what a live move of a VM copies, and its cap in bytes a second. Raises RatioError.

    The seed of the jitter is the VM's, since its migration does not exist yet.
    """
    policy, reference = rules.live, rules.policy.reference
    spec = launcher.requested(vm)
    in_use = float(reference.memory * launcher.consumption(vm, spec).shares.memory)
    workload = Workload(
        in_use, policy.dirty_rate, policy.writable_set.of(in_use), policy.dirty_rate_jitter, seed=vm.metadata.uid
    )
    limits = Limits(
        completion_timeout(float(reference.memory_of(spec.memory)), policy.completion_timeout_per_gib),
        policy.progress_timeout,
        policy.max_downtime,
        allow_auto_converge=policy.allow_auto_converge,
        allow_post_copy=policy.allow_post_copy,
        allow_workload_disruption=policy.allow_workload_disruption,
    )
    return Job(workload, limits), policy.bandwidth_per_migration or math.inf


def class_of(vm: VirtualMachine) -> str | None:
    """Return the class of the controller of a VM; None: the one without a class."""
    return vm.metadata.labels.get(names.CONTROLLER_CLASS)
