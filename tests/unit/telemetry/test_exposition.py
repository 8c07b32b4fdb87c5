"""A scrape gets the requested format and does not block the event loop."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Iterator
from itertools import pairwise

import pytest
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain

from controller.telemetry.exposition import Body, header, label, render

OPENMETRICS = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2"


class Large:
    """A family in some pieces, which counts the pieces it has yielded."""

    def __init__(self, pieces: int) -> None:
        self.written = 0
        self._pieces = pieces

    def pieces(self) -> Iterator[str]:
        """Yield the header, then a series a piece, with a pause after each."""
        yield header("large", "Large family.")
        for n in range(self._pieces):
            self.written += 1
            yield f'large{{n="{n}"}} {n}\n'
            yield ""


def registry() -> CollectorRegistry:
    """Return a registry with a counter, whose text differs between the two formats."""
    found = CollectorRegistry()
    Counter("small", "Small family", registry=found).inc(3)
    return found


async def scrape(accept: str = "", accept_encoding: str = "") -> Body:
    """Scrape a small and a large family."""
    return await render(registry(), [Large(3)], accept=accept, accept_encoding=accept_encoding)


async def test_without_an_accept_header_it_is_prometheus_text() -> None:
    """Both families, in one exposition."""
    body = await scrape()

    assert body.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    families = {family.name: family for family in plain(body.content.decode())}
    assert families["small"].samples[0].value == 3
    assert [sample.value for sample in families["large"].samples] == [0, 1, 2]


async def test_openmetrics_has_one_eof_at_its_end() -> None:
    """A strict parser reads both families."""
    body = await scrape(OPENMETRICS)

    assert body.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert body.content.count(b"# EOF") == 1
    families = openmetrics(body.content.decode())  # type: ignore[no-untyped-call]
    assert {family.name for family in families} == {"small", "large"}


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
async def test_the_content_with_gzip_is_the_same(accept: str) -> None:
    """In both formats."""
    small = registry()
    squeezed = await render(small, [Large(1000)], accept=accept, accept_encoding="deflate, gzip;q=0.8")
    plainly = await render(small, [Large(1000)], accept=accept, accept_encoding="")

    assert squeezed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(squeezed.content) == plainly.content
    assert len(squeezed.content) < len(plainly.content) / 2


async def test_without_accept_encoding_it_is_not_compressed() -> None:
    """And has no Content-Encoding header."""
    assert "Content-Encoding" not in (await scrape("", "deflate")).headers


async def test_the_event_loop_runs_between_two_pieces() -> None:
    """At most one piece is written in each iteration."""
    large = Large(100)
    scraping = asyncio.create_task(render(CollectorRegistry(), [large], accept="", accept_encoding="gzip"))
    seen = []
    while not scraping.done():
        seen.append(large.written)
        await asyncio.sleep(0)

    assert large.written == 100
    assert max(later - earlier for earlier, later in pairwise(seen)) <= 1


@pytest.mark.parametrize("value", ["", "plain", 'a"b', "a\\b", "a\nb", "ünïcödé"])
async def test_a_label_value_survives_a_round_trip(value: str) -> None:
    """Whatever its characters."""
    [family] = plain(f'{header("g", "G.")}g{{l="{label(value)}"}} 1\n')
    assert family.samples[0].labels == {"l": value}
