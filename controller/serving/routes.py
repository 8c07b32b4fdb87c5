"""What is served: a route names a method and a path, and who answers them, within which bounds.

A handler is told a request's headers and body, and returns an answer; it knows no server, and a test needs none to ask
it. Nothing here does I/O.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

from controller.serving.auth import Refusal


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asks with: its headers by their names in lower case, and the body.

    A header that came in several lines is one here, with commas between, as HTTP has it.
    """

    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client gets: a body, whole or, from a streaming route, piece by piece.

    The generator of a stream is closed when its client has gone, does not take what it is sent, or the server ends.
    """

    body: bytes | AsyncGenerator[bytes, None]
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


Handler: TypeAlias = Callable[[Request], Awaitable[Answer]]


class Guard(Protocol):
    """Decides who is answered; `controller.serving.auth.ScrapeGuard` is one."""

    async def refusal(self, authorization: str | None) -> Refusal | None:
        """Return why a request with this Authorization header is not answered; None if it is."""
        ...


@dataclass(frozen=True, slots=True)
class Route:
    """Who answers a method on a path; HEAD is answered where a GET is that does not stream.

    A body above `body_limit` bytes is refused; where the limit is 0 none is read, and one that is sent does not matter.
    With a `guard` the handler is asked only for those whom it lets in. The answers of a `streaming` route may be
    streams, and there is a bound on how many are open at a time.
    """

    method: Literal["GET", "POST"]
    path: str
    handler: Handler
    body_limit: int = 0
    guard: Guard | None = None
    streaming: bool = False


def text(lines: str, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """Return an answer in plain text."""
    return Answer(lines.encode(), status, {**(headers or {}), "Content-Type": "text/plain; charset=utf-8"})
