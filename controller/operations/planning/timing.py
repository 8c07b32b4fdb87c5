"""How long a move takes besides copying and booting: constants of the control plane, and what a VM copies.

Guarantees: pure. The constants are measured ones, so an estimate is as good as the machine is like that one; copying
and boot times, which make up most of a real drain, are simulated, and the same on any machine.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from controller.domain.copying.record import Copying
from controller.domain.migration.copying import begin
from controller.domain.objects import VirtualMachine, VirtualMachineMigration
from controller.domain.settings import PublishedSettings
from controller.domain.vm import boot
from controller.kube.kinds import Pod
from controller.kube.meta import ObjectMeta

RECREATE: Final = 0.1
"""Seconds of a Recreate move without boot: source deleted, target created, scheduled and started, claim removed.

Measured on the local control plane with two cores, as are the next ones. It does one after the other: ten a second.
"""
LIVE_BEFORE: Final = 0.05
"""Seconds from a live move's slot to the beginning of copying: target created, scheduled and started."""
LIVE_AFTER: Final = 0.05
"""Seconds from the end of copying to the free slot: handed over, source deleted, claim removed."""
BETWEEN_NODES: Final = 0.1
"""Seconds from a node's last move to the first of the next node: the drain sees the one and asks for the other."""
_UNASKED: Final = VirtualMachineMigration(ObjectMeta(name=""))
"""The migration of a drain: it has no settings of its own."""
_NO_TIME: Final = datetime.fromtimestamp(0, UTC)


def booting(vm: VirtualMachine, rules: PublishedSettings) -> float:
    """Return the real seconds that a VM boots before its Recreate move ends."""
    return boot.of_vm(vm, rules.policy.boot_time).seconds / rules.policy.speed


def copying(vm: VirtualMachine, pod: Pod | None, rules: PublishedSettings) -> Copying:
    """Return the record of a live move of a VM that begins to copy. Raises RatioError."""
    return begin(_UNASKED, vm, pod, reference=rules.policy.reference, policy=rules.live, now=_NO_TIME)
