"""Where log lines go: a stream that may be slow, stuck, full, closed or gone.

Guarantees: `write` returns at once and never raises, whatever becomes of the stream; lines keep their order; one that
cannot be written is dropped and counted, and so is one for which there is no room because nobody reads; what waits is
bounded; `flush_within` gives the last lines their time and no more.
"""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from typing import Final, TextIO

MOST_WAITING: Final = 4 * 1024 * 1024
"""Bytes that wait for a slow reader, at most: some ten thousand lines."""
_LOOK: Final = 1_000
"""Milliseconds between two looks whether a descriptor that must not block takes more."""


class Sink:
    """A text stream for whole lines. Without a stream every line is dropped.

    A thread of its own writes, so that nobody else waits for a reader; a stream without a file descriptor, which is
    memory, is written to at once.
    """

    def __init__(self, stream: TextIO | None, *, most_waiting: int = MOST_WAITING) -> None:
        self.dropped = 0
        """Lines that were not, or not wholly, written."""
        self._stream = stream
        self._descriptor = _descriptor(stream)
        self._most = most_waiting
        self._lines: deque[bytes] = deque()
        self._size = 0
        # Reentrant: a collection of garbage may log from within.
        self._changed = threading.Condition(threading.RLock())
        self._thread: threading.Thread | None = None
        self._writing = False
        # Whether the last line stands there without its end.
        self._torn = False

    def write(self, line: str) -> int:
        """Take a line, its end included; return its length."""
        if self._descriptor is not None:
            self._queue(line.encode(errors="backslashreplace"))
        elif self._stream is None:
            self.lose()
        else:
            try:
                self._stream.write(line)
                self._stream.flush()
            except (OSError, ValueError):  # the latter once it is closed
                self.lose()
        return len(line)

    def flush(self) -> None:
        """Do nothing: lines are on their way as soon as they are there."""

    def lose(self) -> None:
        """Count a line that will not be written."""
        with self._changed:
            self.dropped += 1

    def flush_within(self, seconds: float) -> None:
        """Wait until everything is written, but no longer than this."""
        with self._changed:
            self._changed.wait_for(lambda: not self._lines and not self._writing, seconds)

    def _queue(self, line: bytes) -> None:
        with self._changed:
            if self._size + len(line) > self._most:
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
        """Write a line; return whether all of it was."""
        assert self._descriptor is not None  # noqa: S101 - or nobody would have queued it
        rest = b"\n" + line if self._torn else line
        while rest:
            try:
                count = os.write(self._descriptor, rest)
            except BlockingIOError:  # somebody who has the same stream made it so
                poll = select.poll()
                poll.register(self._descriptor, select.POLLOUT)
                poll.poll(_LOOK)
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
