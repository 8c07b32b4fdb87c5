"""An event loop whose clock only a test moves, for tests that step it from outside."""

from __future__ import annotations

import asyncio


class SteppedLoop(asyncio.SelectorEventLoop):
    """Stands still until `settle` or `advance` is called; never sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__()

    def time(self) -> float:
        """Return the test's time."""
        return self.now

    def settle(self) -> None:
        """Run what is due, for more rounds than any chain of our callbacks is long."""
        for _ in range(5):
            self.call_soon(self.stop)
            self.run_forever()

    def advance(self, seconds: float) -> None:
        """Advance the time, and run what is due then."""
        self.now += seconds
        self.settle()
