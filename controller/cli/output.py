"""Standard output and error as a command writes to them, whatever they are: full, closed, or unable to carry a letter.

Guarantees: what cannot be written never ends the work that wrote it, and is told once, in one line on standard error;
the exit code is not 0 then. A character that the stream has no code for is replaced. A reader that has gone (`| head`)
ends the command at once and without a word. Nothing of it is left for the interpreter to complain of at its end.
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
    """A stream that fails once, tells it, and takes everything from then on without writing it."""

    def __init__(self, stream: TextIO | None, told: Callable[[OSError], None]) -> None:
        self.failure: OSError | None = None
        self._stream = stream
        self._told = told
        self._used = False
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            with suppress(ValueError):  # it is closed
                stream.reconfigure(errors="replace")

    @property
    def encoding(self) -> str:  # type: ignore[override]  # an attribute that a stream of ours need not have
        """The stream's, by which others decide what to draw with."""
        return str(getattr(self._stream, "encoding", None) or "utf-8")

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        """How the stream treats what it cannot encode."""
        return getattr(self._stream, "errors", None)

    def writable(self) -> bool:
        """Everything can be written to it."""
        return True

    def isatty(self) -> bool:
        """Whether a person sees it."""
        with suppress(ValueError):
            return self._stream is not None and self._stream.isatty()
        return False

    def fileno(self) -> int:
        """Return the stream's file. Raises OSError if it has none."""
        if self._stream is None:
            raise io.UnsupportedOperation("there is no such stream")
        return self._stream.fileno()

    def write(self, text: str, /) -> int:
        """Write, if that is still possible. Raises BrokenPipeError, once."""
        self._used = True
        self._attempt(lambda stream: stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Flush, if that is still possible. Raises BrokenPipeError, once."""
        if self._used:  # of a stream that nobody wrote to, nothing is missed
            self._attempt(lambda stream: stream.flush())

    def _attempt(self, what: Callable[[TextIO], object]) -> None:
        if self.failure is not None:
            return
        try:
            what(self._open())
        except ValueError:  # somebody has closed it
            self._fail(OSError(errno.EBADF, os.strerror(errno.EBADF)))
        except OSError as error:
            self._fail(error)

    def _open(self) -> TextIO:
        if self._stream is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return self._stream

    def _fail(self, error: OSError) -> None:
        self.failure = error
        self._told(error)


def run(work: Callable[[], object]) -> NoReturn:
    """Do work that ends by SystemExit or returns; exit with its code, or with 1 if what it wrote did not arrive."""
    _occupy_standard_files()
    before = sys.stdout, sys.stderr
    err = Output(sys.stderr, lambda _: None)
    out = Output(sys.stdout, lambda error: _complain(err, error))
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
    """Whether anything did not arrive that somebody may miss; a standard error that was never there misses nothing."""
    return out.failure is not None or (err.failure is not None and err.failure.errno not in (errno.EPIPE, errno.EBADF))


def _complain(err: Output, error: OSError) -> None:
    if isinstance(error, BrokenPipeError):
        raise error
    err.write(f"error: cannot write standard output: {error.strerror or error}\n")
    err.flush()


def _occupy_standard_files() -> None:
    """Keep a connection from getting the number of a standard file that was closed: others write to it by number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it gets the lowest number that is free
