"""Scripted faults of an API server, or of the connection to it.

Guarantees: a write whose reply is lost takes effect, does not, or does so later, as its `Fault` says. A late write
takes effect when the test advances the clock (`pass_time`), judged by the state at that time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, TypeVar

from controller.kube import errors
from tests.model.store import Objects

R = TypeVar("R")
LONGEST_REQUEST: Final = 60.0
"""Seconds after which the API server gives up any request (`--request-timeout`)."""
READS: Final = ("get", "list", "watch")


@dataclass(slots=True)
class Fault:
    """The fault of the next matching request: whether it takes effect (`commit`), and how many seconds later (`late`).

    Without a name it matches any object.
    """

    method: str
    plural: str
    error: BaseException
    commit: bool = True
    late: float = 0.0
    name: str | None = None


@dataclass(repr=False)
class Faulty(Objects):
    """The objects of an API server, and the faults pending for its requests."""

    requests: list[str] = field(default_factory=list)
    """Each request that arrived, as its method and resource; the method of a dry run is `dry-run`."""
    faults: list[Fault] = field(default_factory=list)
    """The pending faults, each for one request."""
    failures: dict[str, BaseException] = field(default_factory=dict)
    """By `method plural` or `method plural/name`: raised in place of a reply, until a test removes it."""
    intercept: Callable[[str, str], Fault | None] | None = None
    """Called at every write with its method and resource; may return a fault."""
    turn: Callable[[str], Awaitable[None]] = field(default=lambda _: asyncio.sleep(0))
    """Awaited by every request, with its method and resource, before the server handles it."""
    late: list[tuple[datetime, Callable[[], object]]] = field(default_factory=list)
    """The writes without a reply, and when they take effect."""

    def pass_time(self, seconds: float) -> None:
        """Advance the clock; late writes take effect when they are due."""
        self.now += timedelta(seconds=seconds)
        due = [write for at, write in self.late if at <= self.now]
        self.late = [(at, write) for at, write in self.late if at > self.now]
        for write in due:
            # A refusal has no client any more that would get it.
            with suppress(errors.StatusError):
                write()

    async def _arrive(self, method: str, plural: str, name: str) -> None:
        """Wait until the request may be carried out. An error raised here is its reply."""
        del name
        await self.turn(f"{method} {plural}")

    def _leave(self, method: str, plural: str, name: str) -> None:
        """Reply to a request that took effect. An error raised here is the reply instead."""

    def _carry_out(
        self, method: str, plural: str, name: str, act: Callable[[], R], *, deadline: float = LONGEST_REQUEST
    ) -> R:
        """Carry out a request, unless a fault changes that."""
        fault = self._fault(method, plural, name)
        if fault is None:
            result = act()
            self._leave(method, plural, name)
            return result
        if fault.late:
            assert fault.late <= deadline, "the server gives up at its deadline"
            self.late.append((self.now + timedelta(seconds=fault.late), act))
        elif fault.commit:
            act()
        raise fault.error

    def _fault(self, method: str, plural: str, name: str) -> Fault | None:
        request = f"{method} {plural}"
        self.requests.append(request)
        if self.failures:
            for place in (request, f"{request}/{name}"):
                if place in self.failures:
                    raise self.failures[place]
        if self.intercept is not None and method not in READS and (fault := self.intercept(method, plural)) is not None:
            return fault
        for fault in self.faults:
            if (fault.method, fault.plural) == (method, plural) and fault.name in (None, name):
                self.faults.remove(fault)
                return fault
        return None
