"""Field managers: the name under which each part of the product writes.

Guarantees: when another client applies the same field, the API server's conflict message names the part that wrote it.
"""

from __future__ import annotations

from typing import Final

CONTROLLER: Final = "vmsim-controller"
"""Also the reportingController of its Events."""
LOAD: Final = "vmsim-load"
"""Also that of the scenario player."""
UNLOAD: Final = "vmsim-unload"
MIGRATE: Final = "vmsim-migrate"
DRAIN: Final = "vmsim-drain"
SDK: Final = "vmsim-sdk"
"""That of the Python API."""
SETUP: Final = "vmsim-setup"
"""Also that of hack/setup_vm_crd.sh, so that the two never conflict."""
