"""Routes, requests and answers: the interface between the HTTP server and its handlers.

Guarantees: a handler depends on no server: it receives a request's headers and body and returns an answer, so that a
test can call it. Nothing here does I/O.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

from controller.serving.auth import Refusal


@dataclass(frozen=True, slots=True)
class Request:
    """A request: its headers by their names in lower case, and its body.

    The values of a repeated header are joined with commas, as in RFC 9110.
    """

    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Answer:
    """A response: its body as bytes or, on a streaming route, as a generator of pieces.

    The generator is closed when its client disconnects or reads too slowly, and when the server shuts down.
    """

    body: bytes | AsyncGenerator[bytes, None]
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


Handler: TypeAlias = Callable[[Request], Awaitable[Answer]]


class Guard(Protocol):
    """Authorizes requests; `controller.serving.auth.ScrapeGuard` implements it."""

    async def refusal(self, authorization: str | None) -> Refusal | None:
        """Return the refusal of a request with this Authorization header; None if the request is allowed."""
        ...


@dataclass(frozen=True, slots=True)
class Route:
    """The handler of a method on a path. A GET route that does not stream also serves HEAD.

    A body of more than `body_limit` bytes is refused; with a limit of 0 the body is not read at all. With a `guard` the
    handler is called only for requests that the guard allows. A `streaming` route may answer with streams, whose number
    is limited.
    """

    method: Literal["GET", "POST"]
    path: str
    handler: Handler
    body_limit: int = 0
    guard: Guard | None = None
    streaming: bool = False


def text(lines: str, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """Return an answer of content type text/plain."""
    return Answer(lines.encode(), status, {**(headers or {}), "Content-Type": "text/plain; charset=utf-8"})
