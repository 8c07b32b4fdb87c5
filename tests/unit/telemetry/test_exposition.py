"""A scrape gets what it asked for, and does not hold up the event loop."""

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
    """A family in some pieces; counts how far it has come."""

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
    """Return one with a counter: the two formats write those differently."""
    found = CollectorRegistry()
    Counter("small", "Small family", registry=found).inc(3)
    return found


async def scrape(accept: str = "", accept_encoding: str = "") -> Body:
    """Scrape a small and a large family."""
    return await render(registry(), [Large(3)], accept=accept, accept_encoding=accept_encoding)


async def test_without_a_wish_it_is_prometheus_text() -> None:
    """Both families, in one exposition."""
    body = await scrape()

    assert body.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    families = {family.name: family for family in plain(body.content.decode())}
    assert families["small"].samples[0].value == 3
    assert [sample.value for sample in families["large"].samples] == [0, 1, 2]


async def test_openmetrics_ends_where_it_should() -> None:
    """A strict parser reads both families, and one end."""
    body = await scrape(OPENMETRICS)

    assert body.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert body.content.count(b"# EOF") == 1
    families = openmetrics(body.content.decode())  # type: ignore[no-untyped-call]
    assert {family.name for family in families} == {"small", "large"}


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
async def test_gzip_holds_the_same(accept: str) -> None:
    """For those who accept it."""
    small = registry()
    squeezed = await render(small, [Large(1000)], accept=accept, accept_encoding="deflate, gzip;q=0.8")
    plainly = await render(small, [Large(1000)], accept=accept, accept_encoding="")

    assert squeezed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(squeezed.content) == plainly.content
    assert len(squeezed.content) < len(plainly.content) / 2


async def test_who_accepts_no_gzip_gets_none() -> None:
    """Plain bytes, and no header that says otherwise."""
    assert "Content-Encoding" not in (await scrape("", "deflate")).headers


async def test_the_event_loop_gets_its_turn_between_pieces() -> None:
    """What else is to be done is done meanwhile: at no turn has more than a piece been written."""
    large = Large(100)
    scraping = asyncio.create_task(render(CollectorRegistry(), [large], accept="", accept_encoding="gzip"))
    seen = []
    while not scraping.done():
        seen.append(large.written)
        await asyncio.sleep(0)

    assert large.written == 100
    assert max(later - earlier for earlier, later in pairwise(seen)) <= 1


@pytest.mark.parametrize("value", ["", "plain", 'a"b', "a\\b", "a\nb", "ünïcödé"])
async def test_a_label_comes_back_as_it_was(value: str) -> None:
    """Whatever it holds."""
    [family] = plain(f'{header("g", "G.")}g{{l="{label(value)}"}} 1\n')
    assert family.samples[0].labels == {"l": value}
