"""List and watch of one resource as an asynchronous stream: the objects of the API server, and every change of them.

Guarantees:

- The stream never ends by itself. Every failure is yielded, and the next request backs off (0.8 s to 30 s, and at
  least Retry-After). Closing the stream, or cancelling its reader, closes the watch.
- The list is a quorum read, in pages, and is yielded whole. A watch resumes only from the resource version of a
  complete list, a later event or a bookmark, so that no change is missed and none is yielded twice.
- 410, as an HTTP status or as an ERROR event, leads to a new list: an object that it lacks is deleted. After any other
  failure the watch resumes from the same version; but the third refusal in a row leads to a new list too, as this
  server may never have had that version (etcd restored from a backup).
- Neither a version that has expired as soon as it was listed, nor watches that end at once, cause a hot loop.
- An optional resource that is forbidden is requested again each minute.
- An object that does not decode is yielded as `Undecodable`, its deletion too, and never delays the other objects.
- A connection that is silent for longer than the client's idle limit counts as broken.
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
"""Range of the random timeout of a watch in seconds: bounded, so that tokens rotate and load balancers rebalance."""
MAX_REFUSALS: Final = 3
"""Watches refused in a row before a new list."""
FRESH_LIST: Final = 10.0
"""Seconds after a list during which a 410 leads to a backoff, not to a list at once."""
FORBIDDEN_PAUSE: Final = 60.0
"""Seconds until a forbidden optional resource is requested again: an API server that has just started forbids requests
that it allows a moment later."""
SHORT_WATCH: Final = 1.0
"""A watch that ends within so many seconds and without an event leads to a backoff."""
_DELETED: Final = {"ADDED": False, "MODIFIED": False, "DELETED": True}
"""The types of events that carry an object, and whether it is deleted."""


class ListWatcher(Lister, Watcher, Protocol):
    """The two verbs of the stream."""


# --- the items of the stream ------------------------------------------------------------------------------


class Relist(StrEnum):
    """Why a watch cannot go on from its version."""

    EXPIRED = "expired"
    """410: the server no longer has the changes since this version."""
    REFUSED = "refused"
    """The server refused it three times in a row."""


class Listed(msgspec.Struct, Generic[T], frozen=True):
    """All objects as of this resource version. An object yielded before that it lacks is deleted."""

    items: Sequence[T]
    resource_version: str
    left_out: int
    """Objects whose metadata did not decode."""


class Opened(msgspec.Struct, frozen=True):
    """The server accepted a watch: its changes follow."""


class Current(msgspec.Struct, frozen=True):
    """A bookmark: all changes up to this resource version have been yielded."""

    resource_version: str


class Undecodable(msgspec.Struct, frozen=True):
    """A change of an object whose metadata does not decode, with its identity as far as that can be read."""

    identity: codec.Identity
    deleted: bool
    error: errors.MalformedReplyError


Event: TypeAlias = Change[T] | Current | Undecodable
"""One decoded event of a watch."""


class Batch(msgspec.Struct, Generic[T], frozen=True):
    """The changes that arrived in one chunk, in the server's order; never empty."""

    changes: Sequence[Event[T]]


class Ended(msgspec.Struct, frozen=True):
    """The server ended the watch normally, as it does every few minutes. The next one follows after `delay` seconds."""

    short: bool
    """Whether it ended at once and without an event, so that the next watch backs off."""
    delay: float


class Failed(msgspec.Struct, frozen=True):
    """A list or a watch failed. The stream goes on after `delay` seconds."""

    error: errors.KubeError
    resumes: bool
    """Whether a watch from the same version follows, so that no change is missed; else a list follows."""
    relist: Relist | None
    """Why the watch cannot resume; None if it can, or if there was no watch yet."""
    delay: float


class Forbidden(msgspec.Struct, frozen=True):
    """The optional resource is forbidden so far. It is requested again after `delay` seconds."""

    error: errors.ForbiddenError
    delay: float


Item: TypeAlias = Listed[T] | Opened | Batch[T] | Ended | Failed | Forbidden


# --- the state of the stream -----------------------------------------------------------------------------


class Empty(msgspec.Struct, frozen=True):
    """A list comes next: there was none yet, or the watch cannot resume."""

    first: bool = True


class Resumable(msgspec.Struct, frozen=True):
    """A watch from this resource version comes next."""

    resource_version: str
    revision: int
    listed_at: float
    refusals: int = 0
    """Watches refused since the last one that ended normally."""

    @property
    def resume(self) -> Resumable:
        """The state itself, so that every state but `Empty` has a `resume`."""
        return self


class Watching(msgspec.Struct, frozen=True):
    """A watch is open, or has been requested."""

    resume: Resumable
    """The state that a later watch resumes from."""
    since: float
    events: int = 0


State: TypeAlias = Empty | Resumable | Watching


def _ended(state: Watching, now: float) -> tuple[Resumable, bool]:
    """Return the state after a watch that ended normally, and whether that was a short watch."""
    resume = state.resume
    short = state.events == 0 and now - state.since < SHORT_WATCH
    return Resumable(resume.resource_version, resume.revision, resume.listed_at), short


def _failed(state: State, error: errors.KubeError, now: float) -> tuple[Empty | Resumable, Relist | None, bool]:
    """Return the state after a failure, why the watch cannot resume (None if it can), and whether to retry at once."""
    if isinstance(state, Empty):
        return state, None, False
    resume = state.resume
    if isinstance(error, errors.ExpiredError):
        # A version that expired during an outage costs one list, at once. One that has expired as soon as it was
        # listed backs off, to avoid a hot loop.
        return Empty(first=False), Relist.EXPIRED, now - resume.listed_at >= FRESH_LIST
    refusals = resume.refusals + _refuses(error)
    if refusals >= MAX_REFUSALS:
        return Empty(first=False), Relist.REFUSED, False
    return Resumable(resume.resource_version, resume.revision, resume.listed_at, refusals), None, False


def _refuses(error: errors.KubeError) -> bool:
    """Whether the server refused this watch itself; a lost connection or a 429 does not mean that."""
    return not isinstance(error, errors.TransportError | errors.TooManyRequestsError)


def _read(
    chunk: Sequence[codec.WatchEnvelope], kind: type[T], state: Watching
) -> tuple[list[Event[T]], Watching, errors.KubeError | None]:
    """Return the decoded events of a chunk, the state after it, and the failure that ends the watch, if there is one.

    A resource version that is no number does not advance the state: the next watch repeats the events after it.
    """
    changes: list[Event[T]] = []
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
            changes.append(bookmark)
            at, at_version = revision(bookmark.resource_version), bookmark.resource_version
        else:
            try:
                item = codec.decode_object(event.object, kind)
            except errors.MalformedReplyError as error:
                changes.append(Undecodable(codec.identity(event.object), deleted, error))
                continue
            change = Change.of(item, deleted=deleted)
            changes.append(change)
            at, at_version = change.revision, item.metadata.resource_version
        if at > newest:
            version, newest = at_version, at
    resume = Resumable(version, newest, resume.listed_at, resume.refusals)
    return changes, Watching(resume, state.since, state.events + len(changes)), failure


def _bookmark(event: codec.WatchEnvelope) -> Current:
    """Decode an event that carries no object. Raises a KubeError for an event other than a bookmark."""
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
) -> AsyncGenerator[Item[T], None]:
    """List a resource, in one namespace or in all, and watch it until the stream is closed.

    `rng` gives the jitter of retries and the timeouts of watches.
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
                del page  # a watch may last as long as the process, and must not retain the objects of its list
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
                    changes, state, failure = _read(chunk, resource.type, state)
                    if changes:
                        yield Batch(changes)
                    if failure is not None:
                        raise failure
        except errors.KubeError as error:
            state, pause = _paused(state, error, clock(), backoff, optional=optional)
        else:
            state, short = _ended(state, clock())
            pause = Ended(short, backoff.delay() if short else 0.0)
        yield pause
        delay = pause.delay
        del pause  # the traceback of its error refers to the pages of a list that failed
        if delay:
            await asyncio.sleep(delay)


def _paused(
    state: State, error: errors.KubeError, now: float, backoff: Backoff, *, optional: bool
) -> tuple[Empty | Resumable, Failed | Forbidden]:
    """Return the state after a failure, and the item that reports it."""
    if optional and isinstance(error, errors.ForbiddenError) and isinstance(state, Empty) and state.first:
        return state, Forbidden(error, FORBIDDEN_PAUSE)
    after, relist, at_once = _failed(state, error, now)
    retry_after = error.retry_after if isinstance(error, errors.StatusError) else None
    delay = 0.0 if at_once else backoff.delay(at_least=retry_after)
    return after, Failed(error, isinstance(after, Resumable), relist, delay)
