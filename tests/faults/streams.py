"""What can go wrong with a watch: each fault strikes at the n-th event of one resource after it was set.

An event is what tells of an object; bookmarks are not counted. What the real server would tell in the end, it is told:
a fault that keeps news back for good would be no fault of a watch but another cluster.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import ClassVar, Final, TypeAlias

from aiohttp import web

from tests.faults.proxy import Exchange, Fault, Stream, bookmark
from tests.faults.wire import Answer

_LAG: Final = 5.0
"""Seconds by which one kind's news are behind the others'."""
_EXPIRED: Final = (
    b'{"kind":"Status","apiVersion":"v1","status":"Failure","code":410,"reason":"Expired",'
    b'"message":"injected: too old resource version"}'
)
_EXPIRED_EVENT: Final = b'{"type":"ERROR","object":' + _EXPIRED + b"}\n"


class AtEvent(Fault):
    """Strikes at the n-th event (from 1) of one resource."""

    lasting: ClassVar[bool] = False
    """Whether it goes on after it struck, so that striking at the first event tries all of them."""

    def __init__(self, resource: str, nth: int) -> None:
        self.resource = resource
        self._nth = nth
        self._seen = 0

    async def on_line(self, stream: Stream, line: bytes) -> None:
        """Count events, and strike one."""
        if stream.call.resource == self.resource and not bookmark(line) and not self.struck:
            self._seen += 1
            if self._seen == self._nth:
                self.struck = True
                await self.strike(stream, line)
                return
        await self.pass_on(stream, line)

    async def strike(self, stream: Stream, line: bytes) -> None:
        """Do something in place of the event."""
        raise NotImplementedError

    async def pass_on(self, stream: Stream, line: bytes) -> None:
        """Pass on any other line."""
        await stream.send(line)


class Closed(AtEvent):
    """The server ends the watch in good order, before the event."""

    async def strike(self, stream: Stream, line: bytes) -> None:
        """End it."""
        del line
        stream.end()


class CutInLine(AtEvent):
    """The connection breaks in the middle of the event."""

    async def strike(self, stream: Stream, line: bytes) -> None:
        """Send half of it."""
        await stream.send(line[: len(line) // 2])
        await asyncio.sleep(0.05)  # so that the half arrives before the end does
        stream.cut()


class ExpiredEvent(AtEvent):
    """The version is too old, as an event of the watch says."""

    async def strike(self, stream: Stream, line: bytes) -> None:
        """Say so and end it."""
        del line
        await stream.send(_EXPIRED_EVENT)
        stream.end()


class ExpiredStatus(AtEvent):
    """The watch ends; the next one is refused with 410."""

    _due = False

    async def strike(self, stream: Stream, line: bytes) -> None:
        """End it."""
        del line
        self._due = True
        stream.end()

    async def on_request(self, exchange: Exchange) -> web.StreamResponse:
        """Refuse the next one."""
        if self._due and exchange.call.watch and exchange.call.resource == self.resource:
            self._due = False
            return exchange.reply(Answer(410, _EXPIRED))
        return await exchange.pass_on()


class Garbage(AtEvent):
    """Something that is no event stands in its place."""

    async def strike(self, stream: Stream, line: bytes) -> None:
        """Send nonsense, then the event."""
        await stream.send(b"<html>502 Bad Gateway</html>\n")
        await stream.send(line)


class Silence(AtEvent):
    """Nothing more arrives, but the connection stays open."""

    lasting = True

    async def strike(self, stream: Stream, line: bytes) -> None:
        """Wait until the client has had enough of it."""
        del stream, line
        await asyncio.get_running_loop().create_future()


class Lag(AtEvent):
    """One kind's news come five seconds late while the others' flow: a stale cache."""

    async def strike(self, stream: Stream, line: bytes) -> None:
        """Hold this event, and all behind it."""
        await asyncio.sleep(_LAG)
        await stream.send(line)


class Duplicates(AtEvent):
    """From this event on each is told twice."""

    lasting = True

    async def strike(self, stream: Stream, line: bytes) -> None:
        """Tell it twice."""
        await stream.send(line + line)

    async def pass_on(self, stream: Stream, line: bytes) -> None:
        """Tell what follows twice, too."""
        await stream.send(line + line if self.struck else line)


class NoBookmarks(AtEvent):
    """The watch ends, and no bookmark is ever told again."""

    lasting = True

    async def strike(self, stream: Stream, line: bytes) -> None:
        """End it."""
        del line
        stream.end()

    async def pass_on(self, stream: Stream, line: bytes) -> None:
        """Keep bookmarks back."""
        if not bookmark(line):
            await stream.send(line)


class ExpiredPage(ExpiredEvent):
    """410; and in the middle of the new list, told one object a page, the continue token is too old."""

    async def on_request(self, exchange: Exchange) -> web.StreamResponse:
        """Make pages small, and refuse the second."""
        call = exchange.call
        if not self.struck or not call.listing or call.resource != self.resource:
            return await exchange.pass_on()
        if call.continues:
            return exchange.reply(Answer(410, _EXPIRED))
        limit = exchange.url.query.get("limit", "")
        paged = limit not in ("", "0")
        return await exchange.pass_on(exchange.url.update_query(limit="1") if paged else exchange.url)


class TimeTravel(ExpiredEvent):
    """410; and the new list, and for five seconds its watch, come from a server that is behind.

    What it shows is how things stood when the fault was set, before anything was asked of the controller.
    """

    def __init__(self, resource: str, nth: int) -> None:
        super().__init__(resource, nth)
        self._old: Answer | None = None
        self._behind = False

    def remember(self, old: Answer) -> None:
        """Take the list that is to be told again."""
        self._old = old

    async def on_request(self, exchange: Exchange) -> web.StreamResponse:
        """Tell an old list, once, and hold back the watch that follows."""
        call = exchange.call
        if self.struck and call.resource == self.resource:
            if call.listing and self._old is not None and not self._behind:
                self._behind = True
                return exchange.reply(self._old)
            if call.watch and self._behind:
                self._behind = False
                self._old = None
                await asyncio.sleep(_LAG)
        return await exchange.pass_on()


Kind: TypeAlias = type[AtEvent]

WATCH_FAULTS: Final[Mapping[str, Kind]] = {
    "ended cleanly": Closed,
    "cut in mid-line": CutInLine,
    "410 as a status": ExpiredStatus,
    "410 as an event": ExpiredEvent,
    "garbage in a line": Garbage,
    "5 s behind the others": Lag,
    "events told twice": Duplicates,
    "no bookmarks": NoBookmarks,
    "continue token expires in a list": ExpiredPage,
    "old list after a reconnect": TimeTravel,
}

SILENCE: Final = "silent with the socket open"
"""Takes as long as the client's idle limit of 120 s: only the whole matrix tries it."""
