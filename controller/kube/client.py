"""The client of one API server: it implements all verbs of `controller.kube.verbs`, with typed values.

Guarantees: every request has a deadline, unless it is configured as infinite, and every watch has an idle limit. The
HTTP status is checked before the body is decoded. Every patch names its type. Writes carry the guards that the caller
gives (UID, resourceVersion). Failures are `KubeError`s. No request is retried here: that is the caller's decision.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Final, Self, TypeVar

from controller import __version__
from controller.kube import codec, credentials, errors, managers, proxy
from controller.kube.authentication import Authentication
from controller.kube.meta import ObjectOnly
from controller.kube.resources import Resource
from controller.kube.transport import CONNECT_DEADLINE, Answered, Request, Response, Transport
from controller.kube.verbs import Page

T = TypeVar("T")

REQUEST_DEADLINE: Final = 15.0
"""Seconds from sending a request to the last byte of its reply."""
WATCH_IDLE_LIMIT: Final = 120.0
"""Seconds without a byte after which a watch fails. The API server sends a bookmark about once a minute."""

_JSON: Final = "application/json"
_MERGE_PATCH: Final = "application/merge-patch+json"
_APPLY_PATCH: Final = "application/apply-patch+yaml"
_HEADERS: Final = (("Accept", _JSON), ("User-Agent", f"vmsim/{__version__}"))


class Client:
    """A connection to one API server. Use as an async context manager."""

    def __init__(
        self,
        transport: Transport,
        authentication: Authentication,
        *,
        deadline: float = REQUEST_DEADLINE,
        manager: str = managers.CONTROLLER,
    ) -> None:
        self._transport = transport
        self._authentication = authentication
        self._deadline = deadline
        self._manager = manager

    @classmethod
    async def connect(
        cls,
        source: credentials.Source,
        *,
        answered: Answered = lambda *_: None,
        deadline: float = REQUEST_DEADLINE,
        manager: str = managers.CONTROLLER,
    ) -> Self:
        """Load credentials and prepare connections; sends nothing yet. Raises CredentialsError.

        `deadline` limits a request, in seconds, and may be infinite; it does not limit a watch. `manager` is the field
        manager of writes, which the API server names in a conflict with another client's apply.
        """
        found = await credentials.load(source)
        configuration = found.configuration
        try:
            through = proxy.choose(str(configuration.host), configuration.proxy, proxy.Environment.of(os.environ))
            transport = Transport(configuration, headers=(*_HEADERS, *found.headers), proxy=through, answered=answered)
        except (OSError, ValueError, proxy.ProxyError) as error:  # raised for unusable certificates and keys, too
            raise errors.CredentialsError(f"cannot use {source}: {error}") from error
        return cls(transport, Authentication(found, transport), deadline=deadline, manager=manager)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection, open watches included."""
        await self._authentication.close()
        await self._transport.close()

    # --- reads -------------------------------------------------------------------------------------------

    async def get(self, resource: Resource[T], name: str, *, namespace: str | None = None) -> T:
        """Read the newest state of one object."""
        return codec.decode_object(await self._send(Request("GET", resource.path(namespace, name))), resource.type)

    async def list_page(
        self,
        resource: Resource[T],
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        limit: int,
        continue_token: str = "",
    ) -> Page[T]:
        """Read one page of the newest state."""
        query = (("limit", str(limit)), ("continue", continue_token), ("labelSelector", label_selector))
        reply = await self._send(Request("GET", resource.path(namespace), query))
        meta, items, left_out = codec.decode_list(reply, resource.type)
        return Page(items, meta.resource_version, meta.continue_, left_out)

    async def watch(
        self,
        resource: Resource[T],
        *,
        resource_version: str,
        life: float,
        namespace: str | None = None,
        label_selector: str | None = None,
        idle_limit: float = WATCH_IDLE_LIMIT,
    ) -> AsyncGenerator[list[codec.WatchEnvelope], None]:
        """Yield the events of every chunk that arrives, as `controller.kube.verbs.Watcher` says.

        A watch that is silent for `idle_limit` seconds has failed.
        """
        query = (
            ("watch", "true"),
            ("allowWatchBookmarks", "true"),
            ("resourceVersion", resource_version),
            ("timeoutSeconds", str(int(life))),
            ("labelSelector", label_selector),
        )
        request = Request("GET", resource.path(namespace), query, idle_limit=idle_limit)
        async with await self._begin(request) as response:
            if not _accepted(response):
                async with asyncio.timeout(self._within()):
                    raise await self._refusal(response)
            yield []
            async for lines in response.lines():
                yield [codec.decode(line, codec.WatchEnvelope) for line in lines]

    async def ready(self) -> None:
        """Return if the API server is ready (/readyz); raise a KubeError if not."""
        await self._send(Request("GET", "/readyz"), deadline=CONNECT_DEADLINE)

    # --- writes ------------------------------------------------------------------------------------------

    async def create(
        self,
        resource: Resource[T],
        body: Mapping[str, Any],
        *,
        namespace: str | None = None,
        server_deadline: float,
        dry_run: bool = False,
        strict: bool = False,
    ) -> T:
        """Create an object; the server gives up after `server_deadline` seconds."""
        query = (
            ("timeout", f"{server_deadline:g}s"),
            ("fieldManager", self._manager),
            ("dryRun", "All" if dry_run else None),
            ("fieldValidation", "Strict" if strict else None),
        )
        request = Request("POST", resource.path(namespace), query, codec.encode(body), _JSON)
        reply = await self._send(request)
        return codec.decode_object(reply, resource.type)

    async def merge_patch(
        self,
        resource: Resource[T],
        name: str,
        body: Mapping[str, Any],
        *,
        namespace: str | None = None,
        subresource: str | None = None,
    ) -> T:
        """Apply a JSON merge patch."""
        path, query = resource.path(namespace, name, subresource), (("fieldManager", self._manager),)
        reply = await self._send(Request("PATCH", path, query, codec.encode(body), _MERGE_PATCH))
        return codec.decode_object(reply, resource.type)

    async def apply(self, resource: Resource[T], name: str, body: Mapping[str, Any]) -> T:
        """Apply a cluster-scoped object (server-side apply, forced): take over fields that other managers own."""
        path, query = resource.path(name=name), (("fieldManager", self._manager), ("force", "true"))
        reply = await self._send(Request("PATCH", path, query, codec.encode(body), _APPLY_PATCH))
        return codec.decode_object(reply, resource.type)

    async def delete(
        self,
        resource: Resource[T],
        name: str,
        *,
        namespace: str | None = None,
        uid: str,
        resource_version: str | None = None,
        grace_seconds: int | None = None,
    ) -> str:
        """Delete exactly the object with this UID; return the resource version of the deletion, empty if unknown."""
        preconditions = {"uid": uid, "resourceVersion": resource_version}
        options: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {key: value for key, value in preconditions.items() if value is not None},
        }
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        path = resource.path(namespace, name)
        reply = await self._send(Request("DELETE", path, body=codec.encode(options), content_type=_JSON))
        return codec.decode(reply, ObjectOnly).metadata.resource_version

    # --- requests ----------------------------------------------------------------------------------------

    async def _send(self, request: Request, *, deadline: float = math.inf) -> bytes:
        try:
            async with (
                asyncio.timeout(self._within(deadline)),
                await self._transport.send(request, await self._authentication.headers()) as response,
            ):
                if _accepted(response):
                    return await response.read()
                raise await self._refusal(response)
        except TimeoutError as error:
            raise self._transport.failed(request, error) from error

    async def _begin(self, request: Request) -> Response:
        try:
            async with asyncio.timeout(self._within()):
                return await self._transport.send(request, await self._authentication.headers())
        except TimeoutError as error:
            raise self._transport.failed(request, error) from error

    def _within(self, seconds: float = math.inf) -> float | None:
        """Return the deadline of a request that may take at most `seconds`; None if it is unlimited."""
        limit = min(seconds, self._deadline)
        return limit if math.isfinite(limit) else None

    async def _refusal(self, response: Response) -> errors.StatusError:
        """Return the error of a response; on a 401 reload the credentials first."""
        status = codec.decode_status(await response.read())
        error = errors.from_status(
            response.status,
            status.reason,
            status.message if status.reason else f"{status.message}{self._transport.way}",
            retry_after=_seconds(response.retry_after),
        )
        if isinstance(error, errors.UnauthorizedError):
            await self._authentication.renew()
        return error


def _accepted(response: Response) -> bool:
    """Whether the status is a success."""
    return 200 <= response.status < 300  # noqa: PLR2004 - HTTP's own numbers are clearest as numbers


def _seconds(header: str | None) -> float | None:
    """Return a Retry-After header in seconds; None without a number. The API server sends whole seconds."""
    return float(header) if header is not None and header.isascii() and header.isdigit() else None
