"""How scripts are ended: a polite kill is an interrupt, so that everything they started is stopped on the way out."""

from __future__ import annotations

import signal


def end_as_interrupted() -> None:
    """Have SIGINT and SIGTERM raise KeyboardInterrupt, also in a background job, which ignores SIGINT otherwise."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
