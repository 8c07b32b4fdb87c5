"""A scrape's answer: the registry's families, then the large ones, which are written piece by piece.

Guarantees: Prometheus' text format or OpenMetrics, gzip or not, as the client asks; the event loop gets its turn
between two pieces, so that tens of thousands of series stall nothing; label values are escaped.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import Final, NamedTuple, Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder, gzip_accepted

PATH: Final = "/metrics"
"""Where scrapers look for it."""
_END: Final = b"# EOF\n"
"""Ends an OpenMetrics exposition, and only that."""
_LEVEL: Final = 1
"""Of compression. Series resemble each other so much that more effort saves little."""
_GZIP: Final = 16 + zlib.MAX_WBITS
_ESCAPED: Final = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


class Source(Protocol):
    """Writes gauge families, which look the same in both formats."""

    def pieces(self) -> Iterator[str]:
        """Yield the text, each piece the work of at most a millisecond; an empty one is a mere pause."""
        ...


class Body(NamedTuple):
    """An answer, with its headers."""

    content: bytes
    headers: dict[str, str]


def header(name: str, text: str) -> str:
    """Return the lines that begin a gauge family."""
    return f"# HELP {name} {text}\n# TYPE {name} gauge\n"


def label(value: str) -> str:
    """Return a label's value as it stands between its quotes."""
    return value.translate(_ESCAPED)


async def render(registry: CollectorRegistry, sources: Sequence[Source], *, accept: str, accept_encoding: str) -> Body:
    """Write everything that there is to know now. The two `accept` are the request's headers; empty means plain."""
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
