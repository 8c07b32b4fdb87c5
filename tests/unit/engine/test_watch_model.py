"""The stream against a model of the API server, with every fault of the server and of the connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final, TypeVar

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from controller.engine import watch
from controller.engine.changes import Change, revision
from controller.kube import codec, errors
from controller.kube.kinds import Pod
from controller.kube.resources import PODS, Resource
from tests.model.faults import Fault
from tests.model.server import ApiServer
from tests.model.watches import envelope
from tests.unit.engine.builders import seeded
from tests.unit.engine.clock import SteppedLoop

pytestmark = pytest.mark.timeout(60)  # it is seconds of work, and the machine may be busy

T = TypeVar("T")
ACTIONS = st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(["write", "spoil", "delete"])), max_size=3)
"""Writes of objects, by name: `spoil` writes an object that does not decode."""
LATENCY: Final = 0.1
"""Seconds until a page of a list is answered, or a watch is accepted: objects change meanwhile."""
MOST_STEPS: Final = 100
LATER: Final = 1000
"""The first revision: those of a backup, and of the writes after its restore, are far below."""
ENDS: dict[str, errors.KubeError | None] = {
    "ends in good order": None,
    "connection lost": errors.TransportError("reset"),
    "garbage line": errors.MalformedReplyError("expected WatchEnvelope"),
}
DISTURBANCES: dict[str, codec.WatchEnvelope] = {
    **{how: codec.WatchEnvelope(type=how, object=msgspec.Raw(b"{}")) for how in ENDS},
    "event of unknown type": codec.WatchEnvelope(type="PATCHED", object=msgspec.Raw(b"{}")),
    "bookmark that does not decode": codec.WatchEnvelope(type="BOOKMARK", object=msgspec.Raw(b'{"metadata": 7}')),
    "410 event": envelope("ERROR", {"code": 410, "reason": "Expired", "message": "too old"}),
    "500 event": envelope("ERROR", {"code": 500, "message": "etcd is away"}),
}
REFUSALS: list[errors.KubeError] = [
    errors.TransportError("refused"),
    errors.TooManyRequestsError(429, "TooManyRequests", "slow down", retry_after=5),
    errors.ServerError(500, "InternalError", "etcd is away"),
    errors.ForbiddenError(403, "Forbidden", "not you"),
    errors.ExpiredError(410, "Expired", "too old resource version"),
]


class Server(ApiServer):
    """Sends all changes between two steps in one chunk, is slow, and has pages of one object."""

    def __init__(self) -> None:
        super().__init__(revision=LATER, page_size=1, turn=lambda _: asyncio.sleep(LATENCY))
        self.watches.held = []

    def send(self, event: codec.WatchEnvelope) -> None:
        """Add an event to the open watch."""
        for watch_ in self.watches.open:
            self.watches._send(watch_, event)

    def flush(self) -> None:
        """Send the pending events."""
        pending, self.watches.held = self.watches.held or [], []
        for watch_ in self.watches.open:
            if events := [event for of, event in pending if of is watch_]:
                watch_.events.put_nowait(events)

    def restore(self) -> None:
        """Restore an old backup without objects; pending events are lost."""
        self.objects.clear()
        self.log.clear()
        self.watches.held = []
        self.revision, self._oldest = 1, 0
        self._pages.clear()
        self.send(DISTURBANCES["connection lost"])

    async def watch(
        self, resource: Resource[T], *, resource_version: str, **wanted: Any
    ) -> AsyncGenerator[list[codec.WatchEnvelope], None]:
        """Watch, unless the version is in the future; end as the disturbances say."""
        async with aclosing(super().watch(resource, resource_version=resource_version, **wanted)) as chunks:
            async for chunk in chunks:
                if int(resource_version) > self.revision:
                    raise errors.ServerError(500, "InternalError", "too large resource version")
                at = next((at for at, event in enumerate(chunk) if event.type in ENDS), None)
                if at != 0:
                    yield chunk[:at]
                if at is not None:
                    _end(chunk[at].type)
                    return


def _end(how: str) -> None:
    if (error := ENDS[how]) is not None:
        raise error


class Machine(RuleBasedStateMachine):
    """Changes the server, disturbs the watch, and folds the items of the stream."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = SteppedLoop()
        self.server = Server()
        self.change([(name, "write") for name in "abcd"])
        self.there: dict[str, int] = {}
        """The fold: each object's revision, by UID."""
        self.shown = 0
        """The revision up to which all changes arrived."""
        self.reader = self.loop.create_task(self._read())
        self.loop.settle()

    def teardown(self) -> None:
        """Check that the stream catches up; then end it."""
        try:
            self.comes_to_rest()
        finally:
            self.reader.cancel()
            self.loop.settle()
            self.loop.close()
        assert self.server.watches.open == []

    # --- the reader --------------------------------------------------------------------------------------

    async def _read(self) -> None:
        async with aclosing(watch.follow(self.server, PODS, rng=seeded())) as stream:
            async for item in stream:
                match item:
                    case watch.Listed():
                        self._replace(item)
                    case watch.Batch():
                        assert item.changes
                        for event in item.changes:
                            self._take(event)

    def _replace(self, listed: watch.Listed[Pod]) -> None:
        self.there = {item.metadata.uid: revision(item.metadata.resource_version) for item in listed.items}
        assert len(self.there) == len(listed.items), "an object is listed twice"
        self.shown = revision(listed.resource_version)
        assert all(version <= self.shown for version in self.there.values())

    def _take(self, event: watch.Event[Pod]) -> None:
        match event:
            case watch.Current():
                missing = [
                    document for _, document, _ in self.server.log if self.shown < at(document) and legible(document)
                ]
                assert not any(at(document) <= revision(event.resource_version) for document in missing)
            case watch.Undecodable():
                if event.deleted:
                    self.there.pop(event.identity.uid, None)
            case Change():
                assert event.revision > self.shown, "a change arrives again, or out of order"
                self.shown = event.revision
                [(document, deleted)] = [
                    (document, deleted) for _, document, deleted in self.server.log if at(document) == event.revision
                ]
                assert (deleted, document["metadata"]["name"]) == (event.deleted, event.item.metadata.name)
                if event.deleted:
                    self.there.pop(event.item.metadata.uid, None)
                else:
                    self.there[event.item.metadata.uid] = event.revision

    def _advance(self, seconds: float) -> None:
        """Advance the time in steps, so that the effects of one step are sent in the next."""
        steps = min(round(seconds / LATENCY), MOST_STEPS)
        for _ in range(steps):
            self.server.flush()
            self.loop.advance(seconds / steps)

    # --- events ------------------------------------------------------------------------------------------

    @rule(actions=ACTIONS)
    def change(self, actions: list[tuple[str, str]]) -> None:
        """Create, change and delete objects; an object that is created again has another UID."""
        for name, action in actions:
            key = f"x/{name}"
            if action != "delete":
                self.server.put(PODS.plural, key, metadata={"labels": {} if action == "write" else 7})
            elif (PODS.plural, key) in self.server.objects:
                self.server.remove(PODS, key)

    @rule()
    def bookmark(self) -> None:
        """Send a bookmark of the current version."""
        self.server.send(envelope("BOOKMARK", {"metadata": {"resourceVersion": str(self.server.revision)}}))

    @precondition(lambda self: self.server.watches.open)
    @rule(before=ACTIONS, how=st.sampled_from(sorted(DISTURBANCES)), after=ACTIONS)
    def disturb(self, before: list[tuple[str, str]], how: str, after: list[tuple[str, str]]) -> None:
        """End the open watch, or send an event that ends it, in one chunk with changes before and after it."""
        self.change(before)
        self.server.send(DISTURBANCES[how])
        self.change(after)

    @rule(actions=ACTIONS)
    def expire_versions(self, actions: list[tuple[str, str]]) -> None:
        """Compact: only the newest version remains; open watches continue, older versions and tokens expire."""
        self.change(actions)
        self.server.compact()

    @precondition(lambda self: self.server.revision >= LATER)
    @rule()
    def restore(self) -> None:
        """Restore a backup: the server has none of the versions that the stream has seen."""
        self.server.restore()

    @rule(refusals=st.lists(st.sampled_from(REFUSALS), min_size=1, max_size=4))
    def refuse(self, refusals: list[errors.KubeError]) -> None:
        """Refuse the next lists and watches."""
        self.server.faults = [
            Fault(method, PODS.plural, error, commit=False) for error in refusals for method in ("list", "watch")
        ]

    @rule(seconds=st.sampled_from([LATENCY, LATENCY, 3.0, 70.0]))
    def time_passes(self, seconds: float) -> None:
        """Let the stream run."""
        self._advance(seconds)

    @rule()
    def comes_to_rest(self) -> None:
        """Without disturbances the fold equals the objects of the server."""
        self.server.faults.clear()
        self._advance(400)
        self.the_stream_has_not_ended()
        has = {document["metadata"]["uid"]: document for document in self.server.of(PODS)}
        assert self.there.keys() <= has.keys()
        wanted = {uid: at(document) for uid, document in has.items() if legible(document)}
        assert {uid: version for uid, version in self.there.items() if uid in wanted} == wanted

    # --- guarantees --------------------------------------------------------------------------------------

    @invariant()
    def the_stream_has_not_ended(self) -> None:
        """No fault ends it; a mismatch found while reading fails here."""
        if self.reader.done():
            self.reader.result()
            raise AssertionError("the stream ended by itself")


def at(document: dict[str, Any]) -> int:
    """Return the revision of an object's state."""
    return int(document["metadata"]["resourceVersion"])


def legible(document: dict[str, Any]) -> bool:
    """Whether an object's metadata decodes."""
    return isinstance(document["metadata"]["labels"], dict)


TestModel = Machine.TestCase
TestModel.settings = settings(max_examples=40, stateful_step_count=30, deadline=None, derandomize=True, database=None)
