"""Connections under any order of events, compared with a model that knows the state of every client.

Promises: neither kind of connection exceeds its limit; no client exceeds its timeout; no connection with a request in
flight is aborted; one is aborted before its timeout only above the maximum, and then it is the longest idle one.
"""

from __future__ import annotations

import asyncio
from itertools import count
from typing import Final, Literal, TypeAlias, cast

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from controller.serving.connections import Connections, TooManyStreamsError
from tests.unit.engine.clock import SteppedLoop

pytestmark = pytest.mark.timeout(120)  # it is seconds of work, and the machine may be busy

MOST, STREAMS = 3, 2
Doing: TypeAlias = Literal["opened", "idle", "answering", "receiving", "streaming", "writing", "lost"]
PATIENCE: Final[dict[Doing, float]] = {"opened": 10.0, "receiving": 10.0, "idle": 60.0, "writing": 5.0}
STREAM: Final[tuple[Doing, ...]] = ("streaming", "writing")
OWES: Final[tuple[Doing, ...]] = ("opened", "idle", "receiving")
NEXT: Final[dict[Doing, tuple[str, ...]]] = {
    "opened": ("answer", "hang up"),
    "idle": ("answer", "hang up"),
    "answering": ("receive", "stream", "end", "hang up"),
    "receiving": ("end", "hang up"),
    "streaming": ("write", "end", "hang up"),
    "writing": ("end", "hang up"),
    "lost": ("end",),  # its task may not have noticed yet
}
_turns = count()


class Client:
    """A connection and the task that answers it; an abort reports a lost connection, as the event loop does."""

    def __init__(self, connections: Connections, loop: SteppedLoop, clients: list[Client]) -> None:
        self.connections = connections
        self.loop = loop
        self.clients = clients
        self.streamed = False
        """Whether it streamed when it was lost, or when the server ended the streams."""
        self.commands: asyncio.Queue[str] = asyncio.Queue()
        self.task: asyncio.Task[None] | None = None
        self.doing: Doing = "opened"
        self.becomes("opened")
        clients.append(self)
        self.protocol = connections.guarded(asyncio.Protocol)()
        self.protocol.connection_made(self.transport)

    @property
    def transport(self) -> asyncio.Transport:
        """This object, typed as a transport."""
        return cast("asyncio.Transport", self)

    def becomes(self, doing: Doing) -> None:
        """Change the state; a lost client stays lost."""
        self.doing = "lost" if self.doing == "lost" else doing
        self.since = self.loop.now
        self.turn = next(_turns)

    def abort(self) -> None:
        """Be aborted, after its timeout or as the longest idle one."""
        if self.loop.now < self.since + PATIENCE[self.doing]:
            assert self.doing in OWES
            assert self.turn == min(client.turn for client in self.clients if client.doing in OWES)
            assert sum(client.doing not in (*STREAM, "lost") for client in self.clients) > MOST
        self.hang_up()

    def hang_up(self) -> None:
        """Lose the connection."""
        self.streamed = self.doing in STREAM
        self.becomes("lost")
        self.loop.call_soon(self.protocol.connection_lost, None)

    def command(self, command: str) -> None:
        """Make the client, or the task that answers it, do something."""
        if command == "answer":
            self.task = self.loop.create_task(self.answer())
        elif command == "hang up":
            self.hang_up()
        else:
            self.commands.put_nowait(command)

    async def answer(self) -> None:
        """Do as commanded, until the answer has ended."""
        with self.connections.answering(self.transport):
            self.becomes("answering")
            try:
                while (command := await self.commands.get()) != "end":
                    if command == "receive":
                        await self.receive()
                    elif await self.stream():
                        break
            finally:
                self.becomes("idle")

    async def receive(self) -> None:
        """Wait for the rest of the request."""
        with self.connections.receiving(self.transport):
            self.becomes("receiving")
            await self.commands.get()
        self.becomes("answering")

    async def stream(self) -> bool:
        """Stream; return whether that was possible."""
        try:
            with self.connections.streaming(self.transport):
                self.becomes("streaming")
                while await self.commands.get() == "write":
                    with self.connections.writing(self.transport):
                        self.becomes("writing")
                        await self.commands.get()
                    self.becomes("streaming")
        except TooManyStreamsError:
            assert sum(client.doing in STREAM for client in self.clients) == STREAMS
            return False
        return True


class Machine(RuleBasedStateMachine):
    """Applies the actions of clients, of the tasks that answer them, and of time."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = SteppedLoop()
        self.errors: list[object] = []
        self.loop.set_exception_handler(lambda _, context: self.errors.append(context))
        self.clients: list[Client] = []
        self.connections = Connections(
            first=PATIENCE["opened"], following=PATIENCE["idle"], piece=PATIENCE["writing"], most=MOST, streams=STREAMS
        )

    @property
    def active(self) -> list[Client]:
        """The clients that are connected, or whose task runs."""
        return [
            client
            for client in self.clients
            if client.doing != "lost" or (client.task is not None and not client.task.done())
        ]

    @rule()
    @precondition(lambda self: len(self.active) < MOST + STREAMS + 2)
    def connect(self) -> None:
        """A client connects."""
        self.loop.call_soon(Client, self.connections, self.loop, self.clients)
        self.loop.settle()

    @rule(data=st.data())
    @precondition(lambda self: self.active)
    def act(self, data: st.DataObject) -> None:
        """A client, or the task that answers it, does something that its state allows."""
        client = data.draw(st.sampled_from(self.active))
        client.command(data.draw(st.sampled_from(NEXT[client.doing])))
        self.loop.settle()

    @rule(writes=st.booleans())
    @precondition(lambda self: any(client.doing in ("opened", "idle") for client in self.clients))
    def begin_a_stream(self, writes: bool) -> None:  # noqa: FBT001 - drawn by hypothesis
        """A client requests a stream, and perhaps gets a piece at once."""
        client = next(client for client in self.clients if client.doing in ("opened", "idle"))
        for command in ("answer", "stream", *(["write"] if writes else [])):
            client.command(command)
            self.loop.settle()
        if client.doing == "answering":  # the limit of streams is reached
            client.command("end")
            self.loop.settle()

    @rule(seconds=st.sampled_from((1, 4, 9, 30)))
    def wait(self, seconds: int) -> None:
        """Time passes."""
        for _ in range(seconds):
            self.loop.advance(1)

    @rule()
    @precondition(lambda self: any(client.doing in STREAM for client in self.clients))
    def end_streams(self) -> None:
        """The server shuts down; every stream is cancelled, and its connection closed."""
        ended = [client for client in self.clients if client.doing in STREAM]
        self.loop.call_soon(self.connections.end_streams)
        self.loop.settle()
        for client in ended:
            assert client.task is not None
            assert client.task.cancelled()
            client.hang_up()
            client.streamed = True
        self.loop.settle()

    @invariant()
    def nothing_went_wrong(self) -> None:
        """No assertion failed in the loop, and a task succeeds or is cancelled with its stream."""
        assert self.errors == []
        for client in self.clients:
            if client.streamed:
                assert client.task is not None
                assert client.task.cancelled()
            elif client.task is not None and client.task.done():
                client.task.result()

    @invariant()
    def the_limits_are_enforced(self) -> None:
        """For both kinds of connections; and `count` is their number."""
        streams = sum(client.doing in STREAM for client in self.clients)
        others = sum(client.doing not in (*STREAM, "lost") for client in self.clients)
        assert streams <= STREAMS
        assert others <= MOST
        assert self.connections.count == streams + others

    @invariant()
    def no_client_exceeds_its_timeout(self) -> None:
        """In any state."""
        for client in self.clients:
            assert self.loop.now < client.since + PATIENCE.get(client.doing, float("inf"))

    def teardown(self) -> None:
        """Leave no task."""
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.settle()
        self.loop.close()


TestConnections = Machine.TestCase
TestConnections.settings = settings(
    max_examples=40, stateful_step_count=50, deadline=None, derandomize=True, database=None
)
