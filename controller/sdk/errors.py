"""Every error of the Python API. `SimulatorError` is the base class of all of them.

Guarantees: a message is one line that says what failed and, where that is known, what to do next; the cause is chained.
Ctrl-C raises KeyboardInterrupt, as usual.
"""

from __future__ import annotations

from controller.operations.errors import (
    CRDMissingError,
    CRDOutdatedError,
    DrainFailedError,
    InvalidValueError,
    MigrationFailedError,
    NoClusterError,
    NoControllerError,
    NoSuchNodeError,
    NoSuchVMError,
    NotListedError,
    RefusedError,
    SimulatorError,
    TimedOutError,
    UnschedulableError,
    VMExistsError,
)
from controller.scenario.errors import NoNamespaceError, NotRunningError, OccupiedError

__all__ = [
    "CRDMissingError",
    "CRDOutdatedError",
    "DrainFailedError",
    "InvalidValueError",
    "LocalPlaneError",
    "MigrationFailedError",
    "NoClusterError",
    "NoControllerError",
    "NoNamespaceError",
    "NoSuchNodeError",
    "NoSuchVMError",
    "NotListedError",
    "NotRunningError",
    "OccupiedError",
    "RefusedError",
    "SimulatorError",
    "TimedOutError",
    "UnschedulableError",
    "VMExistsError",
]


class LocalPlaneError(SimulatorError):
    """A local control plane, or its controller, did not start."""
