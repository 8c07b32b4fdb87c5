"""The speed at which a scenario is played, in simulated seconds in a real one.

It is that of the command, else of the file, else of the VMs' controllers. A controller at a speed other than 1 lets its
VMs boot and move at that speed, so that nothing else may be played at another.
"""

from __future__ import annotations

from collections.abc import Mapping

from controller.operations.settings import Reading
from controller.scenario.errors import SpeedError


def of_play(asked: float | None, file: float | None, readings: Mapping[str | None, Reading]) -> float:
    """Return the speed of a play; `readings` are the settings of each class of controllers. Raises SpeedError."""
    wanted = file if asked is None else asked
    who = "its file" if asked is None else "--speed"
    for reading in readings.values():
        runs, where = reading.settings.policy.speed, f"{reading.config_map}"
        if runs == 1:
            continue
        if wanted is None:
            wanted, who = runs, where
        if wanted != runs:
            raise SpeedError(wanted, who, runs, where)
    return 1.0 if wanted is None else wanted
