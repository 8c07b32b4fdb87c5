"""Faults of watches: each strikes at the n-th event of one resource after it was set.

Bookmarks do not count as events. The controller receives in the end what the real server sends: a fault that withholds
changes for ever would be another cluster, not a fault of a watch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import ClassVar, Final, TypeAlias

from aiohttp import web

from tests.faults.proxy import Exchange, Fault, Stream, bookmark
from tests.faults.wire import Answer

_LAG: Final = 5.0
"""Seconds by which the events of one resource are late."""
_EXPIRED: Final = (
    b'{"kind":"Status","apiVersion":"v1","status":"Failure","code":410,"reason":"Expired",'
    b'"message":"injected: too old resource version"}'
)
_EXPIRED_EVENT: Final = b'{"type":"ERROR","object":' + _EXPIRED + b"}\n"


class AtEvent(Fault):
    """Strikes at the n-th event (from 1) of one resource."""

    lasting: ClassVar[bool] = False
    """Whether it continues after it struck, so that one run from the first event tries all of them."""

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
        """Act in place of the event."""
        raise NotImplementedError

    async def pass_on(self, stream: Stream, line: bytes) -> None:
        """Pass on any other line."""
        await stream.send(line)


class Closed(AtEvent):
    """The server ends the watch normally, before the event."""

    async def strike(self, stream: Stream, line: bytes) -> None:
        """End it."""
        del line
        stream.end()


class CutInLine(AtEvent):
    """The connection breaks in the middle of the event."""

    async def strike(self, stream: Stream, line: bytes) -> None:
        """Send half of it."""
        await stream.send(line[: len(line) // 2])
        await asyncio.sleep(0.05)  # the half arrives before the end does
        stream.cut()


class ExpiredEvent(AtEvent):
    """The watch sends an ERROR event: its version has expired."""

    async def strike(self, stream: Stream, line: bytes) -> None:
        """Send the event and end the watch."""
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
    """A line that is no event comes before it."""

    async def strike(self, stream: Stream, line: bytes) -> None:
        """Send the line, then the event."""
        await stream.send(b"<html>502 Bad Gateway</html>\n")
        await stream.send(line)


class Silence(AtEvent):
    """Nothing more arrives, but the connection stays open."""

    lasting = True

    async def strike(self, stream: Stream, line: bytes) -> None:
        """Wait until the client ends the watch."""
        del stream, line
        await asyncio.get_running_loop().create_future()


class Lag(AtEvent):
    """The events of one resource come five seconds late, those of the others in time: a stale cache."""

    async def strike(self, stream: Stream, line: bytes) -> None:
        """Delay this event, and all after it."""
        await asyncio.sleep(_LAG)
        await stream.send(line)


class Duplicates(AtEvent):
    """From this event on, each is sent twice."""

    lasting = True

    async def strike(self, stream: Stream, line: bytes) -> None:
        """Send it twice."""
        await stream.send(line + line)

    async def pass_on(self, stream: Stream, line: bytes) -> None:
        """Send the following lines twice, too."""
        await stream.send(line + line if self.struck else line)


class NoBookmarks(AtEvent):
    """The watch ends, and no bookmark is sent any more."""

    lasting = True

    async def strike(self, stream: Stream, line: bytes) -> None:
        """End it."""
        del line
        stream.end()

    async def pass_on(self, stream: Stream, line: bytes) -> None:
        """Drop bookmarks."""
        if not bookmark(line):
            await stream.send(line)


class ExpiredPage(ExpiredEvent):
    """410; then the new list has pages of one object, and its continue token expires."""

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
    """410; then the new list, and for five seconds its watch, come from a server that is behind.

    The list has the state from when the fault was set, before the user acted.
    """

    def __init__(self, resource: str, nth: int) -> None:
        super().__init__(resource, nth)
        self._old: Answer | None = None
        self._behind = False

    def remember(self, old: Answer) -> None:
        """Take the list to send again."""
        self._old = old

    async def on_request(self, exchange: Exchange) -> web.StreamResponse:
        """Send the old list, once, and delay the watch that follows."""
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
