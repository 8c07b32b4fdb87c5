"""Field managers: under which name each part of the product writes.

Guarantees: where somebody else applies the same field, the API server's message about the conflict names the part that
wrote it.
"""

from __future__ import annotations

from typing import Final

CONTROLLER: Final = "vmsim-controller"
"""The reporter of its events, too."""
LOAD: Final = "vmsim-load"
"""The player's, too."""
UNLOAD: Final = "vmsim-unload"
MIGRATE: Final = "vmsim-migrate"
DRAIN: Final = "vmsim-drain"
SDK: Final = "vmsim-sdk"
"""The Python API's."""
SETUP: Final = "vmsim-setup"
"""That of hack/setup_vm_crd.sh, too, so that neither is in the other's way."""
