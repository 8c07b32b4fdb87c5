"""The faults of a soak, drawn at random: each is set until it has struck and the next is due."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Final

from aiohttp import web

from tests.faults.proxy import Exchange, Fault, Stream
from tests.faults.requests import REQUEST_FAULTS, AtWrite
from tests.faults.streams import WATCH_FAULTS, TimeTravel
from tests.faults.wire import STATE

_REQUESTS: Final = tuple(REQUEST_FAULTS)
# TimeTravel needs an old list, which a soak does not have.
_WATCHES: Final = tuple(name for name, kind in WATCH_FAULTS.items() if kind is not TimeTravel)


class Weather(Fault):
    """Passes everything through the current fault; there is none until the first `change`."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._name = ""
        self._now = Fault()
        self.struck_by: Counter[str] = Counter()

    def change(self) -> None:
        """Set another fault, at the next write or the next event of one resource."""
        self.clear()
        name = self._rng.choice((*_REQUESTS, *_WATCHES))
        self._name = name
        self._now = (
            AtWrite(1, REQUEST_FAULTS[name])
            if name in REQUEST_FAULTS
            else WATCH_FAULTS[name](self._rng.choice(STATE), 1)
        )

    def clear(self) -> None:
        """Remove the fault."""
        self.struck_by[self._name] += self._now.struck
        self._now = Fault()

    async def on_request(self, exchange: Exchange) -> web.StreamResponse:
        """Pass it through."""
        return await self._now.on_request(exchange)

    async def on_line(self, stream: Stream, line: bytes) -> None:
        """Pass it through."""
        await self._now.on_line(stream, line)
