"""The table of VMs of `vmsim run`: kubectl's columns, with colours."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

from rich.table import Table
from rich.text import Text

from controller.cli.text import age, cell
from controller.domain.objects import VirtualMachine
from controller.domain.vm.status import READY

_COLOURS: Final = {
    "Running": "green",
    "Scheduling": "yellow",
    "Scheduled": "cyan",
    "Failed": "bold red",
    "Stopped": "dim",
}


def table(vms: Iterable[VirtualMachine], *, caption: str, now: datetime | None = None) -> Table:
    """Return a table of VMs, sorted by namespace and name; nothing in them or in the caption is markup."""
    now = now or datetime.now(UTC)
    drawn = Table(box=None, pad_edge=False, header_style="bold", caption=Text(caption), caption_justify="left")
    for column in ("NAME", "PHASE", "NODE", "POD", "CPU", "MEMORY", "AGE"):
        # On a narrow terminal rich truncates first the columns that may wrap; a pod's name has no place to wrap at.
        drawn.add_column(column, no_wrap=column != "POD", overflow="ellipsis")
    for vm in sorted(vms, key=lambda vm: vm.metadata.key):
        status = vm.status
        drawn.add_row(
            vm.metadata.name,
            cell(status.phase, _COLOURS.get(status.phase, "")),
            cell(status.node_name),
            cell(status.pod_name),
            cell(status.cpu_consumption),
            cell(status.memory_consumption),
            age(vm.metadata.creation_timestamp, now),
        )
    return drawn


def not_running(vms: Iterable[VirtualMachine]) -> list[str]:
    """Return a line for each VM that does not run, with the reason."""
    found = []
    for vm in sorted(vms, key=lambda vm: vm.metadata.key):
        if vm.status.phase == "Running":
            continue
        ready = next((condition for condition in vm.status.conditions if condition.type == READY), None)
        why = f": {ready.reason}: {ready.message}" if ready is not None else ": no controller has written its status"
        found.append(f"{vm.metadata.key} is {vm.status.phase}{why}")
    return found
