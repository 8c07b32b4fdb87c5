"""Scripted lists and watches: replies that the rules of a server do not produce, or not at the time that a test needs.

Errors in the middle of a stream, objects that do not decode, silence. The replies by the rules are in
`tests.model.server`; both use the same envelopes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import msgspec

from controller.kube import codec
from controller.kube.errors import KubeError
from controller.kube.kinds import Pod
from controller.kube.resources import PODS, Resource
from controller.kube.verbs import Page
from tests.model.watches import envelope


def event(kind: str, item: Pod) -> codec.WatchEnvelope:
    """Return a watch event of a pod."""
    return envelope(kind, msgspec.to_builtins(item))


def bookmark(version: int | str) -> codec.WatchEnvelope:
    """Return a bookmark."""
    return envelope("BOOKMARK", {"kind": "Pod", "metadata": {"resourceVersion": str(version)}})


def error_event(code: int, reason: str = "") -> codec.WatchEnvelope:
    """Return an ERROR event of a watch."""
    return envelope("ERROR", {"kind": "Status", "code": code, "reason": reason, "message": "as the script says"})


def page(version: int | str, *items: Pod, more: str = "") -> Page[Pod]:
    """Return one page of a list; `more` is the token of the next."""
    return Page(list(items), str(version), more)


HANG: Final = float("inf")
"""A pause without an end."""

ListStep: TypeAlias = Page[Pod] | KubeError | float
"""A reply to one list request, an error, or seconds before the next step."""
WatchStep: TypeAlias = codec.WatchEnvelope | tuple[codec.WatchEnvelope, ...] | KubeError | float
"""An event, several in one chunk, an error, or seconds of silence. A watch without more steps ends normally."""


@dataclass(frozen=True, slots=True)
class ListRequest:
    """One list request as it arrived."""

    at: float
    limit: int
    continue_token: str
    namespace: str | None
    label_selector: str | None


@dataclass(frozen=True, slots=True)
class WatchRequest:
    """One watch request as it arrived."""

    at: float
    resource_version: str
    life: float
    namespace: str | None
    label_selector: str | None


@dataclass
class ScriptedApi:
    """A list-watcher that plays a script; a watch beyond the script's end is silent for ever."""

    lists: list[ListStep] = field(default_factory=list)
    watches: list[Sequence[WatchStep]] = field(default_factory=list)
    rest: Sequence[WatchStep] = (HANG,)
    """The script of every watch beyond `watches`."""
    list_requests: list[ListRequest] = field(default_factory=list)
    watch_requests: list[WatchRequest] = field(default_factory=list)
    open_watches: int = 0

    async def list_page(
        self,
        resource: Resource[Any],
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        limit: int,
        continue_token: str = "",
    ) -> Page[Any]:
        """Play the next step of `lists`."""
        assert resource is PODS
        now = asyncio.get_running_loop().time()
        self.list_requests.append(ListRequest(now, limit, continue_token, namespace, label_selector))
        while True:
            step = self.lists.pop(0)
            if isinstance(step, KubeError):
                raise step
            if isinstance(step, Page):
                return step
            await _pause(step)

    async def watch(
        self,
        resource: Resource[Any],
        *,
        resource_version: str,
        life: float,
        namespace: str | None = None,
        label_selector: str | None = None,
    ) -> AsyncGenerator[list[codec.WatchEnvelope], None]:
        """Play the next script of `watches`."""
        assert resource is PODS
        now = asyncio.get_running_loop().time()
        self.watch_requests.append(WatchRequest(now, resource_version, life, namespace, label_selector))
        steps = self.watches.pop(0) if self.watches else self.rest
        self.open_watches += 1
        try:
            if not steps or not isinstance(steps[0], KubeError):
                yield []
            for step in steps:
                if isinstance(step, KubeError):
                    raise step
                if isinstance(step, codec.WatchEnvelope):
                    yield [step]
                elif isinstance(step, tuple):
                    yield list(step)
                else:
                    await _pause(step)
        finally:
            self.open_watches -= 1


async def _pause(seconds: float) -> None:
    if seconds == HANG:
        await asyncio.Event().wait()
    await asyncio.sleep(seconds)
