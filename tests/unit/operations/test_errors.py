"""What the API server does, as an error that says what to do."""

from __future__ import annotations

import pytest

from controller.kube import errors as kube
from controller.operations.errors import (
    CRDMissingError,
    InvalidValueError,
    NoClusterError,
    RefusedError,
    SimulatorError,
    TimedOutError,
    translated,
)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (kube.CredentialsError("no cluster to talk to"), NoClusterError),
        (kube.TransportError("GET /x: refused"), NoClusterError),
        (kube.MalformedReplyError("expected Pod, got '<html>'"), NoClusterError),
        (kube.NotFoundError(404, "", "404 page not found"), CRDMissingError),
        (kube.NotFoundError(404, "NotFound", 'namespaces "x" not found'), RefusedError),
        (kube.ForbiddenError(403, "Forbidden", "no"), RefusedError),
        (kube.ServerError(500, "InternalError", "oops"), RefusedError),
        (kube.InvalidNameError("'..' cannot be a name"), InvalidValueError),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_each_failure_has_its_kind(error: kube.KubeError, kind: type[SimulatorError]) -> None:
    """And no other."""
    assert type(translated(error)) is kind


def test_a_refusal_keeps_what_a_program_may_ask_for() -> None:
    """HTTP's number and Kubernetes' word."""
    error = translated(kube.InvalidError(422, "Invalid", "spec.resources.cpu:\n too big"))
    assert isinstance(error, RefusedError)
    assert (str(error), error.code, error.reason) == ("spec.resources.cpu: too big", 422, "Invalid")


def test_a_missing_resource_says_how_to_install_it() -> None:
    """In the repository one has."""
    assert "vmsim install" in str(translated(kube.NotFoundError(404, "", "404 page not found")))


def test_running_out_of_time_is_pythons_timeout_error_too() -> None:
    """With the message, which an OSError's constructor might have eaten."""
    error = TimedOutError("after 5 s VM vm-1 is Pending")
    assert isinstance(error, TimeoutError)
    assert str(error) == "after 5 s VM vm-1 is Pending"
