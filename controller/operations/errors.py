"""The errors of operations, one type for each way to fail.

Guarantees: a message is one line with the failure and, if known, the next step; every error that this
package defines is a `SimulatorError`. Failures of the API server and of the connection to it are `KubeError`s, which
`translated` turns into these types.
"""

from __future__ import annotations

from collections.abc import Mapping

from controller.kube import errors
from controller.operations.text import one_line


class SimulatorError(Exception):
    """The base of these errors. The message is one line for the user."""


class NoClusterError(SimulatorError):
    """There are no usable credentials, or no API server answers at their address."""


class CRDMissingError(SimulatorError):
    """The cluster does not know VirtualMachine or VirtualMachineMigration."""


class CRDOutdatedError(SimulatorError):
    """A resource in the cluster is of an older release, which has no such field; nothing was created."""


class RefusedError(SimulatorError):
    """The API server refused a request: its message, the HTTP status `code` and the `reason` of the Status."""

    def __init__(self, message: str, *, code: int = 0, reason: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason


class NotListedError(SimulatorError):
    """The API server did not list a resource in time; the log says why for each attempt."""


class InvalidValueError(SimulatorError, ValueError):
    """A value that cannot be used. The message names the field and the values it accepts."""


class NoSuchVMError(SimulatorError):
    """The VM does not exist, or no longer."""


class NoSuchNodeError(SimulatorError):
    """The node does not exist."""


class VMExistsError(SimulatorError):
    """A VM of this name exists already."""


class NoControllerError(SimulatorError):
    """No controller acts on the request: probably none runs."""


class TimedOutError(SimulatorError, TimeoutError):
    """The awaited state was not reached in time. The request is not undone."""


class UnschedulableError(TimedOutError):
    """The scheduler found no node in time; the message quotes the scheduler."""


class MigrationFailedError(SimulatorError):
    """The VM did not move; `reason` is one word, as in `status.failureReason`."""

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class NotMigratingError(SimulatorError):
    """The VM has no migration in progress that could be cancelled."""


class HandedOverError(SimulatorError):
    """The VM runs on the target of its migration already: cancelling it changes nothing."""


class DrainFailedError(SimulatorError):
    """VMs are left on nodes that were drained; `failed` maps each VM, as `namespace/name`, to the reason."""

    def __init__(self, message: str, *, failed: Mapping[str, str]) -> None:
        super().__init__(message)
        self.failed = failed


def no_such_vm(name: str, namespace: str) -> NoSuchVMError:
    """Return the error for a VM that does not exist."""
    return NoSuchVMError(f"there is no VM {name} in namespace {namespace}: see kubectl get vm -A")


def may_be_done(error: errors.KubeError) -> bool:
    """Whether a write that failed with this error may have been committed, or may yet be."""
    return error.outcome_unknown and not (isinstance(error, errors.TransportError) and not error.sent)


def translated(error: errors.KubeError, *, doubt: str = "") -> SimulatorError:
    """Return the error for the user: one line, with the next step if known, and with `doubt` appended if given."""
    after = f"; {doubt}" if doubt else ""
    match error:
        case errors.TransportError():
            return NoClusterError(one_line(f"the API server does not answer: {error}{after}"))
        case errors.NotFoundError(reason=""):  # for a missing object the reason is NotFound
            return CRDMissingError("the cluster does not know our resources: install them with vmsim install")
        case errors.StatusError():
            return RefusedError(one_line(f"{error.message}{after}"), code=error.code, reason=error.reason)
        case errors.InvalidNameError():
            return InvalidValueError(str(error))
        case _:  # no credentials, or the reply of something else than an API server
            return NoClusterError(one_line(f"{error}{after}"))
