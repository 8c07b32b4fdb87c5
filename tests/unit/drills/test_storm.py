"""The complaints of the migration storm."""

from __future__ import annotations

from dataclasses import replace

from controller.observe.history import NodeSeen, PodSeen
from hack.drills.scenarios.migration_storm import MigrationStorm

NODES = (NodeSeen(0, "n1"), NodeSeen(0, "n2"))


def test_more_vms_down_than_the_limits_allow_is_a_complaint() -> None:
    """Within the limits there is none, beyond them one for each limit."""
    vms = [str(number) for number in range(6)]
    up = [PodSeen(1, f"uid-of-{name}", name, name, "vm", "n1", "Running") for name in vms]
    down = [replace(event, at=2, terminating=True) for event in up]
    assert MigrationStorm.excesses((*NODES, *up, *down[:2]), since=0) == []
    assert MigrationStorm.excesses((*NODES, *up, *down), since=0) == [
        "6 VMs were down at once, with a limit of 5 migrations in the cluster",
        "6 VMs of one node were down at once, with a limit of 2 outbound migrations",
    ]
    assert MigrationStorm.excesses((*NODES, *up, *down), since=3) == []
