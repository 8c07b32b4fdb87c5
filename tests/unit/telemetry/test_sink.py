"""A log line never costs more than the line, whatever the stream is."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from controller.telemetry.sink import Sink

LINE = "x" * 99 + "\n"


def reader_of(sink_of: int) -> tuple[int, Sink]:
    """Return the reading end of a pipe, and a sink at the other with room for so many bytes."""
    reading, writing = os.pipe()
    return reading, Sink(os.fdopen(writing, "w"), buffer_size=sink_of)


def written(path: Path) -> list[str]:
    """Return a file's lines."""
    return path.read_text().splitlines()


@pytest.fixture
def file(tmp_path: Path) -> Iterator[TextIO]:
    """Return a file to write to."""
    with (tmp_path / "log").open("w") as stream:
        yield stream


def test_lines_are_written_in_their_order(file: TextIO) -> None:
    """And are there once they are flushed."""
    sink = Sink(file)
    for number in range(1000):
        sink.write(f"{number}\n")
    sink.flush_within(5)

    assert written(Path(file.name)) == [str(number) for number in range(1000)]
    assert sink.dropped == 0


def test_a_reader_that_stopped_holds_nobody_up() -> None:
    """What finds no room is dropped and counted; when the reader goes on, so do the lines."""
    reading, sink = reader_of(1000 * len(LINE))
    began = time.monotonic()
    for _ in range(5000):
        sink.write(LINE)
    sink.flush_within(0.05)

    assert time.monotonic() - began < 2
    assert 0 < sink.dropped < 5000
    left = 5000 - sink.dropped
    found = b""
    while len(found) < left * len(LINE):
        found += os.read(reading, 65536)
    assert found == LINE.encode() * left
    sink.write("again\n")
    assert os.read(reading, 65536) == b"again\n"
    os.close(reading)


def test_a_descriptor_that_must_not_block_loses_no_line() -> None:
    """Somebody who shares the stream made it so; the thread waits in everybody's place."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    sink = Sink(os.fdopen(writing, "w"))
    for _ in range(2000):
        sink.write(LINE)
    found = b""
    while len(found) < 2000 * len(LINE):
        found += os.read(reading, 65536)

    assert found == LINE.encode() * 2000
    assert sink.dropped == 0
    os.close(reading)


def test_a_reader_that_is_gone_costs_the_lines() -> None:
    """Each of them is counted."""
    reading, sink = reader_of(1 << 20)
    os.close(reading)
    for _ in range(10):
        sink.write(LINE)
    sink.flush_within(5)

    assert sink.dropped == 10


def test_a_full_disk_costs_the_lines() -> None:
    """Those that find room again are written."""
    with Path("/dev/full").open("w") as stream:
        sink = Sink(stream)
        for _ in range(10):
            sink.write(LINE)
        sink.flush_within(5)

    assert sink.dropped == 10


@pytest.mark.parametrize("stream", [None, "closed", "closed memory"])
def test_without_a_stream_every_line_is_dropped(stream: str | None, file: TextIO) -> None:
    """Closed before the process began, or by somebody since."""
    streams = {"closed": file, "closed memory": io.StringIO()}
    chosen = streams[stream] if stream is not None else None
    sink = Sink(chosen)
    if chosen is not None:
        chosen.close()
    sink.write(LINE)
    sink.flush_within(5)

    assert sink.dropped == 1


def test_what_no_encoding_has_is_written_escaped(file: TextIO) -> None:
    """Half a surrogate pair, from somebody's annotation."""
    sink = Sink(file)
    sink.write("a\ud800b\n")
    sink.flush_within(5)

    assert written(Path(file.name)) == ["a\\ud800b"]
