"""Renders the response to a scrape: first the registry's families, then the large families piece by piece.

Guarantees: Prometheus text format or OpenMetrics, with or without gzip, by content negotiation; the task yields to the
event loop between two pieces, so that tens of thousands of series do not block it; label values are escaped.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import Final, NamedTuple, Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder, gzip_accepted

PATH: Final = "/metrics"
"""The path that scrapers use by default."""
_END: Final = b"# EOF\n"
"""The last line of an OpenMetrics exposition; the text format has none."""
_LEVEL: Final = 1
"""The level of compression. Series are so similar that a higher level saves little."""
_GZIP: Final = 16 + zlib.MAX_WBITS
_ESCAPED: Final = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


class Source(Protocol):
    """Renders gauge families, whose text is the same in both formats."""

    def pieces(self) -> Iterator[str]:
        """Yield the text in pieces of at most a millisecond's work; an empty piece only yields to the event loop."""
        ...


class Body(NamedTuple):
    """The body of a response, with its headers."""

    content: bytes
    headers: dict[str, str]


def header(name: str, text: str) -> str:
    """Return the HELP and TYPE lines of a gauge family."""
    return f"# HELP {name} {text}\n# TYPE {name} gauge\n"


def label(value: str) -> str:
    """Return a label value, escaped for double quotes."""
    return value.translate(_ESCAPED)


async def render(registry: CollectorRegistry, sources: Sequence[Source], *, accept: str, accept_encoding: str) -> Body:
    """Render all current metrics. `accept` and `accept_encoding` are the request's headers; empty means plain text."""
    encoder, content_type = choose_encoder(accept)
    headers = {"Content-Type": content_type, "Vary": "Accept, Accept-Encoding"}
    first = encoder(registry)
    ending = _END if first.endswith(_END) else b""
    pieces = _paced(first, ending, sources)
    if gzip_accepted(accept_encoding):
        headers["Content-Encoding"] = "gzip"
        compressor = zlib.compressobj(_LEVEL, wbits=_GZIP)
        parts = [compressor.compress(piece) async for piece in pieces]
        parts.append(compressor.flush())
    else:
        parts = [piece async for piece in pieces]
    return Body(b"".join(parts), headers)


async def _paced(first: bytes, ending: bytes, sources: Iterable[Source]) -> AsyncIterator[bytes]:
    yield first.removesuffix(ending)
    for source in sources:
        for piece in source.pieces():
            await asyncio.sleep(0)
            if piece:
                yield piece.encode()
    if ending:
        yield ending
