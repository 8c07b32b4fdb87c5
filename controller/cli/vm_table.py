"""The table of VMs that `vmsim run` draws: kubectl's columns, with colours."""

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
    """Draw VMs, sorted by namespace and name; nothing in them or in the caption is markup."""
    now = now or datetime.now(UTC)
    drawn = Table(box=None, pad_edge=False, header_style="bold", caption=Text(caption), caption_justify="left")
    for column in ("NAME", "PHASE", "NODE", "POD", "CPU", "MEMORY", "AGE"):
        # What may wrap is cut first where the terminal is narrow; the name of a pod has nowhere to wrap.
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


def laggards(vms: Iterable[VirtualMachine]) -> list[str]:
    """Say of each VM that does not run why it does not."""
    found = []
    for vm in sorted(vms, key=lambda vm: vm.metadata.key):
        if vm.status.phase == "Running":
            continue
        ready = next((condition for condition in vm.status.conditions if condition.type == READY), None)
        why = f": {ready.reason}: {ready.message}" if ready is not None else ": the controller has not taken it up"
        found.append(f"{vm.metadata.key} is {vm.status.phase}{why}")
    return found
