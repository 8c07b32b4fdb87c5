"""The drills: one module each, and the list of all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from hack.drills.drill import Drill
from hack.drills.scenarios.controller_restart import ControllerRestart
from hack.drills.scenarios.full_cluster import FullCluster
from hack.drills.scenarios.migration_storm import MigrationStorm
from hack.drills.scenarios.node_loss import NodeLoss
from hack.drills.scenarios.rolling_drain import RollingDrain

_ALL: Final[tuple[Drill, ...]] = (RollingDrain(), NodeLoss(), MigrationStorm(), ControllerRestart(), FullCluster())

DRILLS: Final[Mapping[str, Drill]] = {drill.name: drill for drill in _ALL}
