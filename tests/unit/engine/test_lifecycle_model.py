"""Model of the lifecycle: parts and gates end, fail or hang in any stage at any time."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from structlog.testing import capture_logs

from controller.engine.lifecycle import CANCEL_TIMEOUT, ControllerDiedError, Lifecycle, Part, When
from tests.unit.engine.clock import SteppedLoop

pytestmark = pytest.mark.timeout(120)  # it is seconds of work, and the machine may be busy

GRACE: Final = 10.0
BOUND: Final = CANCEL_TIMEOUT + len(When) * (GRACE + CANCEL_TIMEOUT) + 1
"""Seconds within which every lifecycle ends, also with a gate that hangs."""
SLOW: Final = 3.0

WAYS_TO_END = ("returns", "fails", "is cancelled")
AT_STOP = ("ends", "is slow", "fails", "hangs")
AT_DRAIN = (None, "ends", "is slow", "fails", "hangs", "ends the part")


@dataclass(eq=False)
class Subject:
    """One part or gate: how it behaves, and the events of its run."""

    name: str
    when: When
    at_stop: str
    at_drain: str | None
    diary: list[tuple[str, Subject]]
    command: asyncio.Future[None]
    release: asyncio.Event
    own_end: str = ""
    """How the test ended it before it was stopped."""
    seen: list[str] = field(default_factory=list)

    def note(self, event: str) -> None:
        """Record an event."""
        self.seen.append(event)
        self.diary.append((event, self))

    async def run(self) -> None:
        """Run until the test ends it, or it is stopped."""
        self.note("start")
        try:
            await self.command
        except asyncio.CancelledError:
            if self.own_end:
                raise
            self.note("stop")
            await self._stop()
            raise
        finally:
            self.note("end")

    async def _stop(self) -> None:
        match self.at_stop:
            case "is slow":
                await asyncio.sleep(SLOW)
            case "fails":
                raise ZeroDivisionError
            case "hangs":
                while not self.release.is_set():
                    with suppress(asyncio.CancelledError):
                        await self.release.wait()

    async def drain(self) -> None:
        """Finish the work in progress, or not."""
        self.note("drain")
        match self.at_drain:
            case "is slow":
                await asyncio.sleep(SLOW)
            case "fails":
                raise ZeroDivisionError
            case "hangs":
                await asyncio.Event().wait()
            case "ends the part":
                self.own_end = "returns"
                self.command.set_result(None)

    def end(self, how: str) -> None:
        """End before it is stopped."""
        self.own_end = how
        match how:
            case "returns":
                self.command.set_result(None)
            case "fails":
                self.command.set_exception(ZeroDivisionError(self.name))
            case _:
                self.command.cancel()

    def why(self, how: str) -> str:
        """Return the message for such an end."""
        cause = {"returns": "it returned", "fails": f"ZeroDivisionError: {self.name}"}.get(how, "it was cancelled")
        return f"task {self.name} has ended: {cause}"


class Machine(RuleBasedStateMachine):
    """Starts a lifecycle, plays the events of a process on it, and checks its guarantees."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = SteppedLoop()
        self.diary: list[tuple[str, Subject]] = []
        self.logs: list[Any] = []
        self.parts: list[Subject] = []
        self.gates: dict[When, Subject] = {}
        self.runway = 0
        self.stage: When | None = None
        """The last stage that has to be open."""
        self.ended_by: str | None = None
        """`stop`, `cancel`, or the failure that has to be raised."""

    @initialize(
        parts=st.lists(
            st.tuples(st.sampled_from(When), st.sampled_from(AT_STOP), st.sampled_from(AT_DRAIN)),
            min_size=1,
            max_size=4,
        ),
        gates=st.dictionaries(st.sampled_from(When), st.sampled_from(AT_STOP)),
        runway=st.integers(0, 5),
    )
    def begin(self, parts: list[tuple[When, str, str | None]], gates: dict[When, str], runway: int) -> None:
        """Run a lifecycle that is undisturbed for `runway` steps."""
        self.runway = runway
        self.stop = self.loop.run_until_complete(self._event())
        self.release = self.loop.run_until_complete(self._event())
        self.parts = [self._subject(f"part-{number}", *part) for number, part in enumerate(parts)]
        self.gates = {
            when: self._subject(f"{when.name.lower()} gate", when, at_stop, None) for when, at_stop in gates.items()
        }
        self.lifecycle = Lifecycle(
            [
                Part(part.name, part.run, part.when, part.drain if part.at_drain is not None else None)
                for part in self.parts
            ],
            {when: gate.run for when, gate in self.gates.items()},
        )
        self.task = self.loop.create_task(self.lifecycle.run(self.stop, grace=GRACE))
        self._open_up_to_the_next_gate()
        self._settle()

    def _subject(self, name: str, when: When, at_stop: str, at_drain: str | None) -> Subject:
        return Subject(name, when, at_stop, at_drain, self.diary, self.loop.create_future(), self.release)

    @staticmethod
    async def _event() -> asyncio.Event:
        return asyncio.Event()

    def _settle(self, seconds: float = 0.0) -> None:
        """Advance the time, and run all that is due."""
        self.runway -= 1
        with capture_logs() as logs:
            self.loop.advance(seconds)
            for _ in range(5):
                self.loop.settle()
        self.logs += logs

    def _open_up_to_the_next_gate(self) -> None:
        for when in When:
            gate = self.gates.get(when)
            if gate is not None and not gate.own_end:
                return
            self.stage = when

    def _next_gate(self) -> Subject | None:
        return next((gate for _, gate in sorted(self.gates.items()) if not gate.own_end), None)

    def _may_end(self) -> bool:
        return self.ended_by is None and self.runway <= 0

    def _living(self) -> list[Subject]:
        return [part for part in self.parts if part.seen[-1:] == ["start"] and not part.own_end]

    # --- events ------------------------------------------------------------------------------------------

    @precondition(lambda self: self.ended_by is None and self._next_gate() is not None)
    @rule(data=st.data())
    def a_gate_opens(self, data: st.DataObject) -> None:
        """The stages up to the next gate open; a part may fail at the same time."""
        gate = self._next_gate()
        assert gate is not None
        gate.end("returns")
        living = self._living() if self.runway <= 0 else []
        dying = data.draw(st.lists(st.sampled_from(living), max_size=1)) if living else []
        for part in dying:
            self._fail(part, "fails")
        if not dying:
            self._open_up_to_the_next_gate()
        self._settle()

    @precondition(lambda self: self._may_end() and self._next_gate() is not None)
    @rule(how=st.sampled_from(WAYS_TO_END[1:]))
    def a_gate_fails(self, how: str) -> None:
        """It does not open."""
        gate = self._next_gate()
        assert gate is not None
        self._fail(gate, how)
        self._settle()

    @precondition(lambda self: self._may_end() and self._living())
    @rule(data=st.data(), how=st.sampled_from(WAYS_TO_END), stopped=st.booleans())
    def parts_end(self, data: st.DataObject, how: str, stopped: bool) -> None:  # noqa: FBT001 - drawn
        """One or more at the same time, perhaps together with the stop."""
        dying = data.draw(st.lists(st.sampled_from(self._living()), min_size=1, max_size=3, unique=True))
        for part in dying:
            self._fail(part, how)
        if stopped:
            self.stop.set()
        self._settle()

    def _fail(self, subject: Subject, how: str) -> None:
        subject.end(how)
        self.ended_by = self.ended_by or subject.why(how)

    @precondition(lambda self: self._may_end())
    @rule()
    def the_process_is_asked_to_stop(self) -> None:
        """As by SIGTERM."""
        self.ended_by = "stop"
        self.stop.set()
        self._settle()

    @precondition(lambda self: self._may_end())
    @rule()
    def the_lifecycle_is_cancelled(self) -> None:
        """By its caller."""
        self.ended_by = "cancel"
        self.task.cancel()
        self._settle()

    @precondition(lambda self: self.ended_by is not None and self._living())
    @rule(data=st.data(), how=st.sampled_from(WAYS_TO_END))
    def a_part_ends_meanwhile(self, data: st.DataObject, how: str) -> None:
        """Before its stage is stopped."""
        data.draw(st.sampled_from(self._living())).end(how)
        self._settle()

    @rule(seconds=st.sampled_from([0.5, SLOW, CANCEL_TIMEOUT, GRACE]))
    def time_passes(self, seconds: float) -> None:
        """From half a second to the grace."""
        self._settle(seconds)

    # --- guarantees --------------------------------------------------------------------------------------

    @invariant()
    def exactly_the_parts_of_open_stages_were_started(self) -> None:
        """Each once, stage by stage, in the order of the list."""
        wanted = [part for part in sorted(self.parts, key=lambda part: part.when) if self._is_open(part.when)]
        assert [part for event, part in self.diary if event == "start" and part in self.parts] == wanted

    def _is_open(self, when: When) -> bool:
        is_open = self.stage is not None and when <= self.stage
        if self.parts:
            assert self.lifecycle.has_reached(when) == is_open
        return is_open

    @invariant()
    def nothing_ends_without_cause(self) -> None:
        """Without a failure or a stop every part keeps running."""
        if self.ended_by is None and self.parts:
            assert not self.task.done()
            assert self.lifecycle.ended() == ()

    @invariant()
    def stages_stop_in_reverse_order(self) -> None:
        """A part is not stopped while one of a later stage runs, unless that one ignores its stop."""
        left = {part for part in self.parts if "start" in part.seen}
        for event, part in self.diary:
            if part not in left or event not in ("drain", "stop", "end"):
                continue
            if event == "end":
                left.discard(part)
            elif event == "stop" or part.at_drain is not None:
                later = {other for other in left if other.when > part.when}
                assert all(other.at_stop == "hangs" and "stop" in other.seen for other in later)

    def teardown(self) -> None:
        """Check that the lifecycle ends, with which error, and that no task is left."""
        try:
            if hasattr(self, "task"):
                self._come_to_an_end()
        finally:
            self.loop.close()

    def _come_to_an_end(self) -> None:
        if self.ended_by is None:
            self.the_process_is_asked_to_stop()
        latest = self.loop.now + BOUND
        while not self.task.done() and self.loop.now < latest:
            self._settle(CANCEL_TIMEOUT)
        self._judge()
        self.release.set()
        self._settle(BOUND)
        assert not asyncio.all_tasks(self.loop)

    def _judge(self) -> None:
        assert self.task.done()
        if self.ended_by == "cancel":
            assert self.task.cancelled()
        elif self.ended_by == "stop":
            assert self.task.exception() is None
        else:
            died = self.task.exception()
            assert isinstance(died, ControllerDiedError)
            assert str(died) == self.ended_by
        started = [part for part in (*self.parts, *self.gates.values()) if "start" in part.seen]
        for subject in started:
            assert subject.seen.count("start") == 1
            assert subject.seen.count("stop") == (not subject.own_end)
            assert subject.seen.count("drain") <= (self.ended_by == "stop" and subject.at_drain is not None)
            if not subject.own_end and subject.at_drain is not None and self.ended_by == "stop":
                assert subject.seen.index("drain") < subject.seen.index("stop")
            if "drain" in subject.seen and "end" in subject.seen:
                assert subject.seen.index("drain") < subject.seen.index("end")
        stopped = [subject for subject in started if not subject.own_end]
        left_behind = [line["task"] for line in self.logs if line["event"] == "a task does not end; it is left behind"]
        assert sorted(left_behind) == sorted(subject.name for subject in stopped if subject.at_stop == "hangs")
        self._judge_logs(started)

    def _judge_logs(self, started: list[Subject]) -> None:
        """Every failure is logged; one during the stop of its own stage may be logged as such."""
        logged = {line["task"] for line in self.logs if line["event"] == "a task that must live has ended"}
        failed = {line["task"] for line in self.logs if line["event"] == "a task failed when it was stopped"}
        by_itself = {subject.name for subject in started if subject.own_end == "fails"}
        when_stopped = {subject.name for subject in started if not subject.own_end and subject.at_stop == "fails"}
        drains = {f"drain of {part.name}" for part in started if "drain" in part.seen and part.at_drain == "fails"}
        assert by_itself <= logged | failed
        assert when_stopped | drains <= failed <= when_stopped | drains | by_itself


TestModel = Machine.TestCase
TestModel.settings = settings(max_examples=80, stateful_step_count=10, deadline=None, derandomize=True, database=None)
