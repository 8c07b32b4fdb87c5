"""A non-blocking writer of log lines to a stream that may be slow, blocked, full or closed.

Guarantees: `write` returns at once and never raises, whatever the state of the stream; lines keep their order; the
buffer is bounded; a line that cannot be written or that does not fit into the buffer is dropped and counted;
`flush_within` waits for the buffered lines, up to a time limit.
"""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from typing import Final, TextIO

BUFFER_SIZE: Final = 4 * 1024 * 1024
"""Bytes that are buffered for a slow reader: some ten thousand lines."""
_POLL_TIMEOUT: Final = 1_000
"""Milliseconds after which a write to a full non-blocking descriptor is tried again at the latest."""


class Sink:
    """A text stream for whole lines. Without a stream every line is dropped.

    A thread of its own writes, so that no caller waits for a reader; a stream without a file descriptor is in memory
    and is written to directly.
    """

    def __init__(self, stream: TextIO | None, *, buffer_size: int = BUFFER_SIZE) -> None:
        self.dropped = 0
        """The number of lines that were not written, or only in part."""
        self._stream = stream
        self._descriptor = _descriptor(stream)
        self._buffer_size = buffer_size
        self._lines: deque[bytes] = deque()
        self._size = 0
        # Reentrant: a finalizer may log while the lock is held.
        self._changed = threading.Condition(threading.RLock())
        self._thread: threading.Thread | None = None
        self._writing = False
        # Whether the last line was written only in part.
        self._torn = False

    def write(self, line: str) -> int:
        """Queue a line, with its newline; return its length."""
        if self._descriptor is not None:
            self._queue(line.encode(errors="backslashreplace"))
        elif self._stream is None:
            self.lose()
        else:
            try:
                self._stream.write(line)
                self._stream.flush()
            except (OSError, ValueError):  # ValueError: the stream is closed
                self.lose()
        return len(line)

    def flush(self) -> None:
        """Do nothing: every line is written as soon as possible."""

    def lose(self) -> None:
        """Count a dropped line."""
        with self._changed:
            self.dropped += 1

    def flush_within(self, seconds: float) -> None:
        """Wait until every line is written, for at most so many seconds."""
        with self._changed:
            self._changed.wait_for(lambda: not self._lines and not self._writing, seconds)

    def _queue(self, line: bytes) -> None:
        with self._changed:
            if self._size + len(line) > self._buffer_size:
                self.dropped += 1
                return
            self._lines.append(line)
            self._size += len(line)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="log", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines)
                line = self._lines.popleft()
                self._writing = True
            written = self._put(line)
            with self._changed:
                self._size -= len(line)
                self._writing = False
                self.dropped += not written
                self._changed.notify_all()

    def _put(self, line: bytes) -> bool:
        """Write a line; return whether the whole line was written."""
        assert self._descriptor is not None  # noqa: S101 - lines are queued only with a descriptor
        rest = b"\n" + line if self._torn else line
        while rest:
            try:
                count = os.write(self._descriptor, rest)
            except BlockingIOError:  # another process that shares the stream made it non-blocking
                poll = select.poll()
                poll.register(self._descriptor, select.POLLOUT)
                poll.poll(_POLL_TIMEOUT)
                continue
            except OSError:
                return False
            self._torn = count < len(rest)
            rest = rest[count:]
        return True


def _descriptor(stream: TextIO | None) -> int | None:
    try:
        return stream.fileno() if stream is not None else None
    except (OSError, ValueError):
        return None
