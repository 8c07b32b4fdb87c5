"""List and watch as one asynchronous stream of what the API server has, and of every change of it.

Guarantees:

- The stream never ends by itself, whatever the server answers: failures back off (0.8 s to 30 s, Retry-After
  honoured) and are told; closing the stream, or cancelling its reader, closes the watch.
- The first list is paged and a quorum read, and told whole; a watch resumes only from a version that a complete list,
  a later event or a bookmark gave, so that no change between two watches is missed and none is told again.
- 410, as an HTTP status or as an ERROR event, leads to a new list: an object that it lacks is deleted. Every other
  failure keeps the version and watches on, but the third refusal in a row leads to a new list too: the version may be
  one that this server never had (etcd restored from a backup).
- Neither a version that is old as soon as it was listed, nor watches that end at once, become a hot loop.
- A resource that is optional and forbidden is asked for again each minute.
- An object that does not decode never keeps the others from arriving: it is told as undecodable, deletions too.
- A connection that is silent beyond the client's idle limit counts as broken.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from enum import StrEnum
from random import Random
from typing import Final, Generic, Protocol, TypeAlias, TypeVar

import msgspec

from controller.engine.backoff import Backoff
from controller.engine.changes import Change, HasMetadata, revision
from controller.engine.listing import read_whole
from controller.kube import codec, errors
from controller.kube.meta import ObjectOnly
from controller.kube.resources import Resource
from controller.kube.verbs import Lister, Watcher

T = TypeVar("T", bound=HasMetadata)

WATCH_LIFE: Final = (300.0, 600.0)
"""Seconds a watch lives, drawn at random: bounded, so that tokens rotate and load balancers rebalance."""
MAX_REFUSALS: Final = 3
"""Watches refused in a row before a new list."""
FRESH_LIST: Final = 10.0
"""Seconds after a list during which a 410 backs off instead of listing at once."""
FORBIDDEN_PAUSE: Final = 60.0
"""Seconds until an optional resource that may not be read is asked for again: a server that has just started forbids
what it allows a moment later."""
SHORT_WATCH: Final = 1.0
"""A watch that ends sooner than this many seconds, with no event, backs off instead of spinning."""
_DELETED: Final = {"ADDED": False, "MODIFIED": False, "DELETED": True}
"""The types of events that tell of an object: whether it is deleted."""


class ListWatcher(Lister, Watcher, Protocol):
    """The two requests of the stream."""


# --- what the stream tells -------------------------------------------------------------------------------


class Relist(StrEnum):
    """Why a watch cannot go on from its version."""

    EXPIRED = "expired"
    """410: the server's memory does not reach back so far."""
    REFUSED = "refused"
    """The server would not have it, three times."""


class Listed(msgspec.Struct, Generic[T], frozen=True):
    """Everything that there is at this version; what was told before and is not in it is deleted."""

    items: Sequence[T]
    resource_version: str
    left_out: int
    """Objects whose metadata did not decode."""


class Opened(msgspec.Struct, frozen=True):
    """The server accepted a watch: changes arrive from now on."""


class Current(msgspec.Struct, frozen=True):
    """A bookmark: all changes up to this version were told."""

    resource_version: str


class Undecodable(msgspec.Struct, frozen=True):
    """A change of an object whose metadata does not decode; of which one is told as far as that can be read."""

    identity: codec.Identity
    deleted: bool
    error: errors.MalformedReplyError


Told: TypeAlias = Change[T] | Current | Undecodable
"""What one event of a watch tells."""


class Batch(msgspec.Struct, Generic[T], frozen=True):
    """What arrived at once, in the server's order; never empty."""

    changes: Sequence[Told[T]]


class Ended(msgspec.Struct, frozen=True):
    """The server ended the watch in good order, which is what it does every few minutes."""

    short: bool
    """Whether that was at once and with no event, so that the next one waits."""
    delay: float


class Failed(msgspec.Struct, frozen=True):
    """A list or a watch failed. The stream goes on after `delay` seconds."""

    error: errors.KubeError
    resumes: bool
    """Whether a watch comes next, from where it was, so that nothing is missed; a list if not."""
    relist: Relist | None
    """Why the watch cannot go on; None if it can, or if there was none yet."""
    delay: float


class Forbidden(msgspec.Struct, frozen=True):
    """The optional resource may not be read, so far. It is asked for again after `delay` seconds."""

    error: errors.ForbiddenError
    delay: float


News: TypeAlias = Listed[T] | Opened | Batch[T] | Ended | Failed | Forbidden


# --- where the stream is ---------------------------------------------------------------------------------


class Empty(msgspec.Struct, frozen=True):
    """A list comes next: there was none yet, or the watch cannot go on from where it was."""

    first: bool = True


class Resumable(msgspec.Struct, frozen=True):
    """A watch comes next, from this version."""

    resource_version: str
    revision: int
    listed_at: float
    refusals: int = 0
    """Watches refused since the last one that ended in good order."""

    @property
    def resume(self) -> Resumable:
        """What a watch goes on from."""
        return self


class Watching(msgspec.Struct, frozen=True):
    """A watch was asked for, and may have told something."""

    resume: Resumable
    """What another watch would go on from."""
    since: float
    events: int = 0


State: TypeAlias = Empty | Resumable | Watching


def _ended(state: Watching, now: float) -> tuple[Resumable, bool]:
    """Return what follows a watch that ended in good order, and whether it was a short one."""
    resume = state.resume
    short = state.events == 0 and now - state.since < SHORT_WATCH
    return Resumable(resume.resource_version, resume.revision, resume.listed_at), short


def _failed(state: State, error: errors.KubeError, now: float) -> tuple[Empty | Resumable, Relist | None, bool]:
    """Return what follows a failure, why the watch cannot go on if it cannot, and whether to try again at once."""
    if isinstance(state, Empty):
        return state, None, False
    resume = state.resume
    if isinstance(error, errors.ExpiredError):
        # A version grows old while the server is away: that costs one list, now. One that is old as soon as it was
        # listed must not become a hot loop.
        return Empty(first=False), Relist.EXPIRED, now - resume.listed_at >= FRESH_LIST
    refusals = resume.refusals + _refuses(error)
    if refusals >= MAX_REFUSALS:
        return Empty(first=False), Relist.REFUSED, False
    return Resumable(resume.resource_version, resume.revision, resume.listed_at, refusals), None, False


def _refuses(error: errors.KubeError) -> bool:
    """Whether the server answered and will not have this watch; a lost connection or 429 says nothing about it."""
    return not isinstance(error, errors.TransportError | errors.TooManyRequestsError)


def _read(
    chunk: Sequence[codec.WatchEnvelope], kind: type[T], state: Watching
) -> tuple[list[Told[T]], Watching, errors.KubeError | None]:
    """Return what a chunk tells, where the stream is then, and the failure that ends the watch, if there is one.

    A version that is no number moves nothing on: the next watch tells all since the list again.
    """
    told: list[Told[T]] = []
    resume, failure = state.resume, None
    version, newest = resume.resource_version, resume.revision
    for event in chunk:
        deleted = _DELETED.get(event.type)
        if deleted is None:
            try:
                bookmark = _bookmark(event)
            except errors.KubeError as error:
                failure = error
                break
            told.append(bookmark)
            at, at_version = revision(bookmark.resource_version), bookmark.resource_version
        else:
            try:
                item = codec.decode_object(event.object, kind)
            except errors.MalformedReplyError as error:
                told.append(Undecodable(codec.identity(event.object), deleted, error))
                continue
            change = Change.of(item, deleted=deleted)
            told.append(change)
            at, at_version = change.revision, item.metadata.resource_version
        if at > newest:
            version, newest = at_version, at
    resume = Resumable(version, newest, resume.listed_at, resume.refusals)
    return told, Watching(resume, state.since, state.events + len(told)), failure


def _bookmark(event: codec.WatchEnvelope) -> Current:
    """Read an event that tells of no object. Raises the KubeError of what is no bookmark."""
    match event.type:
        case "BOOKMARK":
            return Current(codec.decode(event.object, ObjectOnly).metadata.resource_version)
        case "ERROR":
            status = codec.decode_status(bytes(event.object))
            raise errors.from_status(status.code, status.reason, status.message)
        case _:
            raise errors.MalformedReplyError(f"a watch event of unknown type {event.type!r}")


# --- the stream ------------------------------------------------------------------------------------------


async def follow(
    client: ListWatcher,
    resource: Resource[T],
    *,
    rng: Random,
    namespace: str | None = None,
    label_selector: str | None = None,
    optional: bool = False,
) -> AsyncGenerator[News[T], None]:
    """List a resource, in one namespace or in all, and watch it from then on; close the stream to end that.

    `rng` spreads retries and the lives of watches.
    """
    clock = asyncio.get_running_loop().time
    backoff = Backoff(clock, rng)
    state: State = Empty()
    pause: Ended | Failed | Forbidden
    while True:
        try:
            if isinstance(state, Empty):
                page = await read_whole(client, resource, namespace=namespace, label_selector=label_selector)
                state = Resumable(page.resource_version, revision(page.resource_version), clock())
                yield Listed(page.items, page.resource_version, page.left_out)
            state = Watching(state.resume, clock())
            chunks = client.watch(
                resource,
                resource_version=state.resume.resource_version,
                life=rng.uniform(*WATCH_LIFE),
                namespace=namespace,
                label_selector=label_selector,
            )
            async with aclosing(chunks):
                async for chunk in chunks:
                    if not chunk:
                        yield Opened()
                        continue
                    told, state, failure = _read(chunk, resource.type, state)
                    if told:
                        yield Batch(told)
                    if failure is not None:
                        raise failure
        except errors.KubeError as error:
            state, pause = _paused(state, error, clock(), backoff, optional=optional)
        else:
            state, short = _ended(state, clock())
            pause = Ended(short, backoff.delay() if short else 0.0)
        yield pause
        if pause.delay:
            await asyncio.sleep(pause.delay)


def _paused(
    state: State, error: errors.KubeError, now: float, backoff: Backoff, *, optional: bool
) -> tuple[Empty | Resumable, Failed | Forbidden]:
    """Return what follows a failure, and what is told of it."""
    if optional and isinstance(error, errors.ForbiddenError) and isinstance(state, Empty) and state.first:
        return state, Forbidden(error, FORBIDDEN_PAUSE)
    after, relist, at_once = _failed(state, error, now)
    retry_after = error.retry_after if isinstance(error, errors.StatusError) else None
    delay = 0.0 if at_once else backoff.delay(at_least=retry_after)
    return after, Failed(error, isinstance(after, Resumable), relist, delay)
