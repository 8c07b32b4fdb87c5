"""The typed errors of requests to the API server.

Guarantees: every error that this package raises on purpose is a `KubeError`. Each class says when it is raised, and
whether the request may have taken effect all the same (`outcome_unknown`).
"""

from __future__ import annotations

from typing import ClassVar


class KubeError(Exception):
    """Base of the errors of requests to the API server."""

    outcome_unknown: ClassVar[bool] = False
    """Whether the API server may have carried out a write, or may still do so."""


class CredentialsError(KubeError):
    """No usable kubeconfig or in-cluster credentials. Raised at start, or when a token cannot be refreshed."""


class PluginError(CredentialsError):
    """An exec credential plugin failed, timed out, or printed no valid credential."""


class OtherServerError(CredentialsError):
    """On a reload the selected cluster names another server. Its credentials are not sent to the server in use."""


class NotLeadingError(KubeError):
    """This process does not hold the lease, so it did not send the write."""


class InvalidNameError(KubeError):
    """A name that no object can have. It would address another URL, so nothing was sent."""


class TransportError(KubeError):
    """No reply: the connection was refused, reset or timed out, or ended before the reply was complete."""

    outcome_unknown = True

    def __init__(self, message: str, *, sent: bool = True) -> None:
        super().__init__(message)
        self.sent = sent
        """Whether a part of the request may have been sent; False if no connection opened."""


class MalformedReplyError(KubeError):
    """A success status with a body of another form than requested (a proxy's HTML page, say)."""

    outcome_unknown = True


class StatusError(KubeError):
    """The API server answered with an error status.

    `reason` is metav1.Status's machine-readable reason (empty if the body was no Status); `retry_after` is in
    seconds.
    """

    def __init__(self, code: int, reason: str, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(f"{message} ({code} {reason})" if reason else f"{message} ({code})")
        self.code = code
        self.reason = reason
        self.message = message
        self.retry_after = retry_after


class UnauthorizedError(StatusError):
    """401: the credentials are not, or no longer, accepted."""


class ForbiddenError(StatusError):
    """403: RBAC, a quota or an admission plugin refuses."""


class NotFoundError(StatusError):
    """404: the object or the resource does not exist."""


class AlreadyExistsError(StatusError):
    """409 on a create: the name is taken."""


class ConflictError(StatusError):
    """409 on a guarded write: the object's UID or resourceVersion differs from the guard's."""


class ExpiredError(StatusError):
    """410: the resource version or continue token is too old; list again."""


class InvalidError(StatusError):
    """400 or 422: the API server will never accept this object."""


class TooManyRequestsError(StatusError):
    """429: too many requests; wait `retry_after` seconds."""


class ServerError(StatusError):
    """5xx: the server failed; it may have carried out the write."""

    outcome_unknown = True


_BY_CODE: dict[int, type[StatusError]] = {
    400: InvalidError,
    401: UnauthorizedError,
    403: ForbiddenError,
    404: NotFoundError,
    410: ExpiredError,
    422: InvalidError,
    429: TooManyRequestsError,
}


def from_status(code: int, reason: str, message: str, *, retry_after: float | None = None) -> StatusError:
    """Return the error for an HTTP status outside 2xx."""
    if code == 409:  # noqa: PLR2004 - HTTP's own numbers are clearest as numbers
        kind: type[StatusError] = AlreadyExistsError if reason == "AlreadyExists" else ConflictError
    elif code >= 500:  # noqa: PLR2004
        kind = ServerError
    else:
        kind = _BY_CODE.get(code, StatusError)
    return kind(code, reason, message, retry_after=retry_after)
