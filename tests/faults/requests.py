"""Faults of writes: each strikes the k-th write after it was set, once.

Writes of pods, VMs and migrations are counted together, so "every k" is every place between two steps of the controller
at which it, the network or the server can fail.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeAlias

from aiohttp import web

from tests.faults.proxy import Exchange, Fault
from tests.faults.wire import Answer

Act: TypeAlias = Callable[[Exchange], Awaitable[web.StreamResponse]]

_DELAY: Final = 3.0
"""Seconds by which a request or reply is delayed: longer than any reconcile, shorter than the client's deadline."""
_LATE: Final = 8.0
"""Seconds after which a request arrives whose sender has given up: within a create's own deadline of 10 s."""
_RETRY_AFTER: Final = "2"


class AtWrite(Fault):
    """Acts in place of the n-th write (from 1); dry runs count if the fault may strike one."""

    def __init__(self, nth: int, act: Act, *, dry_runs: bool = True) -> None:
        self._nth = nth
        self._act = act
        self._dry_runs = dry_runs
        self._seen = 0

    async def on_request(self, exchange: Exchange) -> web.StreamResponse:
        """Count writes, and strike one."""
        if exchange.call.write and (self._dry_runs or not exchange.call.dry_run):
            self._seen += 1
            if self._seen == self._nth:
                self.struck = True
                return await self._act(exchange)
        return await exchange.pass_on()


async def drop(exchange: Exchange) -> web.StreamResponse:
    """The connection breaks before the server has seen the request."""
    return exchange.abort()


async def lose(exchange: Exchange) -> web.StreamResponse:
    """The server carries it out; the reply is lost."""
    await exchange.forward()
    return exchange.abort()


async def delay(exchange: Exchange) -> web.StreamResponse:
    """The request takes three seconds to arrive."""
    await asyncio.sleep(_DELAY)
    return await exchange.pass_on()


async def delay_reply(exchange: Exchange) -> web.StreamResponse:
    """The watch shows the write three seconds before its reply arrives."""
    answer = await exchange.forward()
    await asyncio.sleep(_DELAY)
    return exchange.reply(answer)


async def hang(exchange: Exchange) -> web.StreamResponse:
    """No reply ever comes."""
    await exchange.hang()


async def commit_late(exchange: Exchange) -> web.StreamResponse:
    """The connection breaks, but the request arrives eight seconds later."""
    exchange.forward_later(_LATE)
    return exchange.abort()


async def crash_before(exchange: Exchange) -> web.StreamResponse:
    """The process is killed as it sends the write, which never arrives."""
    return exchange.crash()


async def crash_after(exchange: Exchange) -> web.StreamResponse:
    """The process is killed after the server has carried the write out, before the reply arrives."""
    await exchange.forward()
    return exchange.crash()


async def crash_late(exchange: Exchange) -> web.StreamResponse:
    """The process is killed as it sends the write, which arrives eight seconds later, in its successor's time."""
    exchange.forward_later(_LATE)
    return exchange.crash()


def answer(code: int, reason: str, *, retry_after: str | None = None) -> Act:
    """Return a fault that refuses the write with a Status, as the server does."""
    body = (
        f'{{"kind":"Status","apiVersion":"v1","status":"Failure","code":{code},"reason":"{reason}",'
        f'"message":"injected: {reason}"}}'
    )

    async def act(exchange: Exchange) -> web.StreamResponse:
        return exchange.reply(Answer(code, body.encode(), retry_after=retry_after))

    return act


async def html(exchange: Exchange) -> web.StreamResponse:
    """A load balancer answers with its own page."""
    page = b"<html><body><h1>503 Service Unavailable</h1></body></html>"
    return exchange.reply(Answer(503, page, content_type="text/html"))


FORBIDDEN: Final = "403"
"""The fault that spares dry runs: a forbidden dry run of a migration's target rightly ends the migration."""

REQUEST_FAULTS: Final[Mapping[str, Act]] = {
    "dropped before the server": drop,
    "reply lost after commit": lose,
    "commits 8 s after its connection broke": commit_late,
    "arrives 3 s late": delay,
    "reply 3 s late": delay_reply,
    "hangs": hang,
    "401": answer(401, "Unauthorized"),
    FORBIDDEN: answer(403, "Forbidden"),
    "409": answer(409, "Conflict"),
    "429, Retry-After 2": answer(429, "TooManyRequests", retry_after=_RETRY_AFTER),
    "500": answer(500, "InternalError"),
    "503, an HTML page": html,
    "504": answer(504, "Timeout"),
}

CRASHES: Final[Mapping[str, Act]] = {
    "killed before commit": crash_before,
    "killed after commit": crash_after,
    "killed, commits 8 s later": crash_late,
}
