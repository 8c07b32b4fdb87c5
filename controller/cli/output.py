"""Standard output and error that tolerate a full disk, a closed stream and characters without an encoding.

Guarantees: a failed write never ends the work, and is reported once, in one line on standard error; the exit code is
then not 0. A character that the stream cannot encode is replaced. A pipe that its reader has closed (`| head`) ends the
command at once, without a message. The interpreter has nothing left to report when it exits.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn, TextIO

from controller.cli.exits import FAILED


class Output(io.TextIOBase):
    """A stream that passes its first failure to `on_failure`, and discards all later output."""

    def __init__(self, stream: TextIO | None, on_failure: Callable[[OSError], None]) -> None:
        self.failure: OSError | None = None
        self._stream = stream
        self._on_failure = on_failure
        self._used = False
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            with suppress(ValueError):  # it is closed
                stream.reconfigure(errors="replace")

    @property
    def encoding(self) -> str:  # type: ignore[override]  # an attribute that a stream of ours need not have
        """The stream's encoding, by which libraries choose the characters they draw with."""
        return str(getattr(self._stream, "encoding", None) or "utf-8")

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        """The stream's error handler for characters that it cannot encode."""
        return getattr(self._stream, "errors", None)

    def writable(self) -> bool:
        """Return True: a stream that has failed accepts writes, too."""
        return True

    def isatty(self) -> bool:
        """Whether the stream is a terminal."""
        with suppress(ValueError):
            return self._stream is not None and self._stream.isatty()
        return False

    def fileno(self) -> int:
        """Return the stream's file descriptor. Raises OSError if it has none."""
        if self._stream is None:
            raise io.UnsupportedOperation("there is no such stream")
        return self._stream.fileno()

    def write(self, text: str, /) -> int:
        """Write, unless the stream has failed. Raises BrokenPipeError, once."""
        self._used = True
        self._attempt(lambda stream: stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Flush, unless the stream has failed. Raises BrokenPipeError, once."""
        if self._used:  # without a write nothing can be lost
            self._attempt(lambda stream: stream.flush())

    def _attempt(self, action: Callable[[TextIO], object]) -> None:
        if self.failure is not None:
            return
        try:
            action(self._open())
        except ValueError:  # the stream is closed
            self._fail(OSError(errno.EBADF, os.strerror(errno.EBADF)))
        except OSError as error:
            self._fail(error)

    def _open(self) -> TextIO:
        if self._stream is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return self._stream

    def _fail(self, error: OSError) -> None:
        self.failure = error
        self._on_failure(error)


def run(work: Callable[[], object]) -> NoReturn:
    """Call `work`, which returns or raises SystemExit; exit with its code, or with 1 if output was lost."""
    _occupy_standard_files()
    before = sys.stdout, sys.stderr
    err = Output(sys.stderr, lambda _: None)
    out = Output(sys.stdout, lambda error: _report(err, error))
    sys.stdout, sys.stderr = out, err
    code: str | int | None = None
    try:
        work()
    except SystemExit as exit_:
        code = exit_.code
    finally:
        for stream in (out, err):
            with suppress(BrokenPipeError):
                stream.flush()
        if out.failure is None and err.failure is None:
            sys.stdout, sys.stderr = before
    sys.exit(code or (FAILED if _is_lost(out, err) else 0))


def _is_lost(out: Output, err: Output) -> bool:
    """Whether output was lost; on standard error, a closed pipe (EPIPE) and a closed stream (EBADF) do not count."""
    return out.failure is not None or (err.failure is not None and err.failure.errno not in (errno.EPIPE, errno.EBADF))


def _report(err: Output, error: OSError) -> None:
    if isinstance(error, BrokenPipeError):
        raise error
    err.write(f"error: cannot write standard output: {error.strerror or error}\n")
    err.flush()


def _occupy_standard_files() -> None:
    """Open the null device on closed standard descriptors: a connection could get the number, and writes to it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number
