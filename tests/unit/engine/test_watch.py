"""The stream of a watch: lists, changes, and how each watch ended."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import msgspec
import pytest

from controller.engine import watch
from controller.engine.changes import Change
from controller.engine.watch import Batch, Current, Ended, Failed, Forbidden, Listed, Opened, Relist, Undecodable
from controller.kube import codec, errors
from controller.kube.kinds import Pod
from controller.kube.meta import ObjectMeta
from controller.kube.resources import PODS
from tests.model.script import HANG, ListStep, ScriptedApi, WatchStep, bookmark, error_event, event, page
from tests.unit.engine.builders import gaps, pod, seeded

pytestmark = pytest.mark.looptime

LOST = errors.TransportError("reset")
EXPIRED = errors.ExpiredError(410, "Expired", "too old resource version")
FORBIDDEN = errors.ForbiddenError(403, "Forbidden", "pods is forbidden")
BROKEN = errors.ServerError(500, "InternalError", "too large resource version")


@asynccontextmanager
async def followed(api: ScriptedApi, *, optional: bool = False) -> AsyncIterator[list[watch.Item[Pod]]]:
    """Follow the pods while the context lasts; yield the items of the stream."""
    items: list[watch.Item[Pod]] = []

    async def read() -> None:
        async with aclosing(watch.follow(api, PODS, rng=seeded(), optional=optional)) as stream:
            async for item in stream:
                items.append(item)  # noqa: PERF401 - the test reads them meanwhile
        raise AssertionError("the stream ended by itself")

    task = asyncio.create_task(read())
    try:
        yield items
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.wait([task])


async def items_of(*watches: list[WatchStep], lists: list[ListStep] | None = None, **wanted: Any) -> list[Any]:
    """Return the items of one hour."""
    async with followed(ScriptedApi(lists or [page(5)], list(watches)), **wanted) as items:
        await asyncio.sleep(3600)
    return items


# --- items -----------------------------------------------------------------------------------------------


async def test_a_list_comes_first_then_the_changes() -> None:
    """Changes of one chunk are yielded as one batch, in the server's order."""
    a, b = pod("a", 3), pod("b", 6)
    items = await items_of(
        [(event("ADDED", b), event("DELETED", pod("a", 7)), bookmark(9)), event("MODIFIED", pod("b", 10)), HANG],
        lists=[page(5, a)],
    )

    first: list[watch.Event[Pod]] = [Change.of(b), Change.of(pod("a", 7), deleted=True), Current("9")]
    assert items == [Listed([a], "5", 0), Opened(), Batch(first), Batch([Change.of(pod("b", 10))])]


async def test_the_end_of_a_watch_says_whether_the_next_one_backs_off() -> None:
    """It does after a short watch without events; not after one with an event, or a longer one."""
    items = await items_of([], [event("ADDED", pod("a", 6))], [100.0], [HANG])

    ends = [item for item in items if isinstance(item, Ended)]
    assert [(end.short, end.delay > 0) for end in ends] == [(True, True), (False, False), (False, False)]


@pytest.mark.parametrize(
    ("failures", "resumes", "relist"),
    [
        ([LOST], True, None),
        ([BROKEN], True, None),
        ([BROKEN, BROKEN, BROKEN], False, Relist.REFUSED),
        ([EXPIRED], False, Relist.EXPIRED),
        ([error_event(410)], False, Relist.EXPIRED),
    ],
    ids=["lost", "refused", "refused thrice", "410", "410 event"],
)
async def test_a_failure_names_the_next_step(
    failures: list[WatchStep],
    resumes: bool,  # noqa: FBT001 - a parameter of a test
    relist: Relist | None,
) -> None:
    """A watch, so that no change is missed, or a list with its cause."""
    items = await items_of(*[[failure] for failure in failures], lists=[page(5), page(50)])

    failed = [item for item in items if isinstance(item, Failed)]
    assert len(failed) == len(failures)
    assert (failed[-1].resumes, failed[-1].relist) == (resumes, relist)
    assert isinstance(items[items.index(failed[-1]) + 1], Opened if resumes else Listed)


async def test_the_changes_of_a_chunk_before_a_failure_are_yielded_first() -> None:
    """And not repeated afterwards."""
    api = ScriptedApi([page(5)], [[(event("ADDED", pod("a", 6)), error_event(500), event("ADDED", pod("b", 7)))]])
    async with followed(api) as items:
        await asyncio.sleep(10)

    assert [type(item) for item in items] == [Listed, Opened, Batch, Failed, Opened]
    assert [request.resource_version for request in api.watch_requests] == ["5", "6"]


async def test_a_version_that_is_no_number_is_not_resumed_from() -> None:
    """It cannot be compared with the list's, so all events since the list are yielded again."""
    api = ScriptedApi([page("5a")], [[event("ADDED", pod("a", "6a")), bookmark("7a")], [HANG]])
    async with followed(api):
        await asyncio.sleep(10)

    assert [request.resource_version for request in api.watch_requests] == ["5a", "5a"]


@pytest.mark.parametrize("kind", ["ADDED", "MODIFIED", "DELETED"])
async def test_an_object_that_does_not_decode_is_yielded_with_its_readable_identity(kind: str) -> None:
    """In its place among the others. The watch does not resume from its version, which is unknown."""
    raw = msgspec.Raw(codec.encode({"metadata": {"name": "malformed", "namespace": "x", "uid": "u", "labels": 7}}))
    malformed = codec.WatchEnvelope(type=kind, object=raw)
    items = await items_of([(event("ADDED", pod("a", 6)), malformed, event("ADDED", pod("b", 7))), HANG])

    [batch] = [item for item in items if isinstance(item, Batch)]
    first, undecodable, last = batch.changes
    assert (first, last) == (Change.of(pod("a", 6)), Change.of(pod("b", 7)))
    assert isinstance(undecodable, Undecodable)
    assert (undecodable.identity, undecodable.deleted) == (("x", "malformed", "u"), kind == "DELETED")


# --- what may not be read --------------------------------------------------------------------------------


async def test_an_optional_resource_may_be_forbidden_after_an_outage() -> None:
    """The failure before says nothing about permissions."""
    api = ScriptedApi([LOST, FORBIDDEN, FORBIDDEN, page(5)])
    async with followed(api, optional=True) as items:
        await asyncio.sleep(300)

    assert [type(item) for item in items] == [Failed, Forbidden, Forbidden, Listed, Opened]
    assert gaps([request.at for request in api.list_requests])[1:] == pytest.approx([60, 60])


async def test_an_optional_resource_that_was_listed_is_required_from_then_on() -> None:
    """A list that is forbidden later is an ordinary failure: it backs off, and is retried."""
    items = await items_of([EXPIRED], [HANG], lists=[page(5), FORBIDDEN, page(50)], optional=True)

    assert [type(item) for item in items] == [Listed, Failed, Failed, Listed, Opened]
    assert 0 < items[2].delay < watch.FORBIDDEN_PAUSE


# --- the way out -----------------------------------------------------------------------------------------


async def test_closing_the_stream_closes_its_watch() -> None:
    """No connection stays open."""
    api = ScriptedApi([page(5)])
    async with aclosing(watch.follow(api, PODS, rng=seeded())) as stream:
        assert isinstance(await anext(stream), Listed)
        assert isinstance(await anext(stream), Opened)
        assert api.open_watches == 1

    assert api.open_watches == 0


class Name(str):
    """A name of an object, which can show whether the object is still in memory."""

    __slots__ = ("__weakref__",)


@pytest.mark.parametrize("complete", [True, False], ids=["a complete list", "a list whose second page failed"])
async def test_an_open_watch_retains_no_object_of_a_list(*, complete: bool) -> None:
    """Only the reader decides for how long an object stays in memory."""
    name = Name("a")
    in_memory = weakref.ref(name)
    first = page(5, Pod(ObjectMeta(name=name)), more="" if complete else "next")
    api = ScriptedApi([first] if complete else [first, errors.TransportError("reset"), page(6)])
    del name, first
    async with aclosing(watch.follow(api, PODS, rng=seeded())) as stream:
        async for item in stream:
            if isinstance(item, Opened):
                break
        gc.collect()
        assert in_memory() is None


# --- a change --------------------------------------------------------------------------------------------


def test_a_change_carries_its_objects_key_and_revision() -> None:
    """As the store and the queue call it, and as a number."""
    change = Change.of(Pod(ObjectMeta(name="a", namespace="x", resource_version="7")))

    assert (change.key, change.revision, change.deleted) == ("x/a", 7, False)
