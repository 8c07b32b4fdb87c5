"""Writing a log line never blocks and never fails, whatever the state of the stream."""

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
    """Return the reading end of a pipe, and a sink on the other end with a buffer of so many bytes."""
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


def test_lines_are_written_in_order(file: TextIO) -> None:
    """All of them by the end of a flush."""
    sink = Sink(file)
    for number in range(1000):
        sink.write(f"{number}\n")
    sink.flush_within(5)

    assert written(Path(file.name)) == [str(number) for number in range(1000)]
    assert sink.dropped == 0


def test_a_blocked_reader_does_not_block_the_caller() -> None:
    """Lines beyond the buffer are dropped and counted; writing continues with the reader."""
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


def test_a_non_blocking_descriptor_loses_no_line() -> None:
    """The thread waits until it is writable."""
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


def test_lines_to_a_closed_pipe_are_dropped_and_counted() -> None:
    """Each of them."""
    reading, sink = reader_of(1 << 20)
    os.close(reading)
    for _ in range(10):
        sink.write(LINE)
    sink.flush_within(5)

    assert sink.dropped == 10


def test_lines_to_a_full_disk_are_dropped_and_counted() -> None:
    """Lines after space is free again are written."""
    with Path("/dev/full").open("w") as stream:
        sink = Sink(stream)
        for _ in range(10):
            sink.write(LINE)
        sink.flush_within(5)

    assert sink.dropped == 10


@pytest.mark.parametrize("stream", [None, "closed", "closed memory"])
def test_without_a_stream_every_line_is_dropped(stream: str | None, file: TextIO) -> None:
    """Closed before the process started, or since."""
    streams = {"closed": file, "closed memory": io.StringIO()}
    chosen = streams[stream] if stream is not None else None
    sink = Sink(chosen)
    if chosen is not None:
        chosen.close()
    sink.write(LINE)
    sink.flush_within(5)

    assert sink.dropped == 1


def test_a_character_without_an_encoding_is_written_escaped(file: TextIO) -> None:
    """Such as half a surrogate pair in an annotation."""
    sink = Sink(file)
    sink.write("a\ud800b\n")
    sink.flush_within(5)

    assert written(Path(file.name)) == ["a\\ud800b"]
