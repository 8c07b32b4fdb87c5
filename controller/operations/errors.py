"""Every way an operation can fail, as a type.

Guarantees: a message is one line that says what went wrong and, where that is known, what to do next; whoever catches
`SimulatorError` has caught everything this room raises on purpose. What the API server or the way to it does is a
`KubeError`, until `translated` makes one of these of it.
"""

from __future__ import annotations

from collections.abc import Mapping

from controller.kube import errors
from controller.operations.text import one_line


class SimulatorError(Exception):
    """Anything that can go wrong. The message is one line for a person."""


class NoClusterError(SimulatorError):
    """There are no usable credentials, or nobody who understands us answers at their address."""


class CRDMissingError(SimulatorError):
    """The cluster does not know VirtualMachine or VirtualMachineMigration."""


class RefusedError(SimulatorError):
    """The API server refused, in its own words; `code` is HTTP's, `reason` Kubernetes' word for it."""

    def __init__(self, message: str, *, code: int = 0, reason: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason


class NotListedError(SimulatorError):
    """The API server did not list a resource in time; the log says why, try by try."""


class InvalidValueError(SimulatorError, ValueError):
    """A value that cannot be used. The message names the field and says what is wanted."""


class NoSuchVMError(SimulatorError):
    """There is no such VM, or no longer."""


class NoSuchNodeError(SimulatorError):
    """There is no such node."""


class VMExistsError(SimulatorError):
    """There is such a VM already."""


class NoControllerError(SimulatorError):
    """Nobody carries out what was asked for: most likely no controller runs."""


class TimedOutError(SimulatorError, TimeoutError):
    """What was waited for did not happen in time. What was asked for stays asked for."""


class UnschedulableError(TimedOutError):
    """The scheduler found no node in time; the message quotes it."""


class MigrationFailedError(SimulatorError):
    """The VM did not move; `reason` says why in one word, as `status.failureReason` does."""

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class DrainFailedError(SimulatorError):
    """VMs stayed on nodes that were to be empty; `failed` says why, by `namespace/name`."""

    def __init__(self, message: str, *, failed: Mapping[str, str]) -> None:
        super().__init__(message)
        self.failed = failed


def no_such_vm(name: str, namespace: str) -> NoSuchVMError:
    """Say that a VM is not there."""
    return NoSuchVMError(f"there is no VM {name} in namespace {namespace}: see kubectl get vm -A")


def may_be_done(error: errors.KubeError) -> bool:
    """Whether a write that failed so may have been carried out, or may yet be."""
    return error.outcome_unknown and not (isinstance(error, errors.TransportError) and not error.sent)


def translated(error: errors.KubeError, *, doubt: str = "") -> SimulatorError:
    """Say in one line what went wrong, and what to do about it where that is known; at its end what is in doubt."""
    after = f"; {doubt}" if doubt else ""
    match error:
        case errors.TransportError():
            return NoClusterError(one_line(f"the API server does not answer: {error}{after}"))
        case errors.NotFoundError(reason=""):  # of an object that is not there it would say NotFound
            return CRDMissingError("the cluster does not know our resources: install them with vmsim install")
        case errors.StatusError():
            return RefusedError(one_line(f"{error.message}{after}"), code=error.code, reason=error.reason)
        case errors.InvalidNameError():
            return InvalidValueError(str(error))
        case _:  # no credentials, or a reply that is none of an API server's
            return NoClusterError(one_line(f"{error}{after}"))
