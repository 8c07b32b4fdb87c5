"""Typed requests to the API server over kubernetes-asyncio's transport.

Guarantees: every request has a deadline, unless none is wanted, and every watch an idle limit; every HTTP status is
checked before its body is believed; every patch names its type; writes carry their guards (UID, resourceVersion) where
given. Failures are `KubeError`s, and name the proxy that a request went through. Nothing is retried here: whether to
try again is the caller's knowledge.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias, TypeVar
from urllib.parse import urlencode, urlsplit

import aiohttp
import structlog
from yarl import URL

from controller import __version__
from controller.kube import codec, credentials, errors, library, managers, proxy, session
from controller.kube.meta import ObjectOnly
from controller.kube.resources import Resource
from controller.kube.verbs import Page

if TYPE_CHECKING:
    from kubernetes_asyncio.client import ApiClient, Configuration

T = TypeVar("T")
_log = structlog.get_logger(__name__)

REQUEST_DEADLINE: Final = 15.0
"""Seconds from sending a request to the last byte of its reply."""
CONNECT_DEADLINE: Final = 5.0
"""Seconds to open a connection."""
WATCH_IDLE_LIMIT: Final = 120.0
"""Seconds without a byte after which a watch counts as dead. The API server sends bookmarks about each minute."""
_NO_OTHER_LIMIT: Final = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_DEADLINE)
_MAX_LINE: Final = 8 * 1024 * 1024
"""Longest watch line in bytes; etcd refuses objects above 1.5 MiB."""
_REAUTHENTICATE_EVERY: Final = 10.0
"""Seconds between two reloads of refused credentials."""

_JSON: Final = "application/json"
_MERGE_PATCH: Final = "application/merge-patch+json"
_APPLY_PATCH: Final = "application/apply-patch+yaml"


Answered: TypeAlias = Callable[[str, str, str], None]
"""Told of each request: its method, the server's host, and the status code (`<error>` without an answer)."""


def _no_one(method: str, host: str, code: str) -> None:
    del method, host, code


class Client:
    """A connection to one API server. Use as an async context manager."""

    def __init__(
        self,
        api: ApiClient,
        source: credentials.Source,
        answered: Answered = _no_one,
        *,
        headers: tuple[tuple[str, str], ...] = (),
        certificate: bytes = b"",
        through: proxy.Proxy | None = None,
        deadline: float = REQUEST_DEADLINE,
        manager: str = managers.CONTROLLER,
    ) -> None:
        self._api = api
        self._headers = (("Accept", _JSON), ("User-Agent", f"vmsim/{__version__}"), *headers)
        self._session, self._watches = session.take_over(api, self._headers)
        self._certificate = certificate
        self._answered = answered
        self._deadline = deadline
        self._configuration: Configuration = api.configuration
        self._proxy = through
        self._host = str(urlsplit(self._configuration.host).netloc).rpartition("@")[2]
        self._source = source
        self._manager = manager
        self._reauthenticated_at = float("-inf")
        self._reauthenticating: asyncio.Task[None] | None = None

    @classmethod
    async def connect(
        cls,
        source: credentials.Source,
        *,
        answered: Answered = _no_one,
        deadline: float = REQUEST_DEADLINE,
        manager: str = managers.CONTROLLER,
    ) -> Self:
        """Load credentials and prepare connections; sends nothing yet. Raises CredentialsError.

        A request may take `deadline` seconds, infinitely many included; watches last as long as they are fed. `manager`
        is the field manager of what is written: who is named where somebody else applies the same field.
        """
        found = await credentials.load(source)
        configuration = found.configuration
        try:
            through = proxy.choose(str(configuration.host), configuration.proxy, proxy.Environment.of(os.environ))
            api = library.load().api_client(configuration)
            return cls(
                api,
                found.source,
                answered,
                headers=found.headers,
                certificate=found.certificate,
                through=through,
                deadline=deadline,
                manager=manager,
            )
        except (OSError, ValueError, proxy.ProxyError) as error:  # certificates and keys are read here
            raise errors.CredentialsError(f"cannot use {source}: {error}") from error

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection, open watches included."""
        if self._reauthenticating is not None:
            self._reauthenticating.cancel()
            await asyncio.wait({self._reauthenticating})
        await self._session.close()
        await self._watches.close()

    # --- reads -------------------------------------------------------------------------------------------

    async def get(self, resource: Resource[T], name: str, *, namespace: str | None = None) -> T:
        """Read the newest state of one object (a quorum read)."""
        return codec.decode_object(await self._send("GET", resource.path(namespace, name)), resource.type)

    async def list_page(
        self,
        resource: Resource[T],
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        limit: int,
        continue_token: str = "",
    ) -> Page[T]:
        """Read one page of the newest state (a quorum read). Raises ExpiredError for an old token."""
        query = {"limit": str(limit), "continue": continue_token, "labelSelector": label_selector}
        reply = await self._send("GET", resource.path(namespace), query=query)
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
        """Yield an empty list when the watch is accepted, then the events of every chunk that arrives.

        The server ends the watch after `life` seconds.

        Raises TransportError when the connection breaks, is silent for `idle_limit` seconds or ends in the middle
        of an event; MalformedReplyError for what is no event; StatusError when the watch is refused.
        """
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(int(life)),
            "labelSelector": label_selector,
        }
        timeout = aiohttp.ClientTimeout(sock_connect=CONNECT_DEADLINE, sock_read=idle_limit)
        path = resource.path(namespace)
        try:
            async with asyncio.timeout(self._within()):
                response = await self._open("GET", path, query=query, timeout=timeout, watch=True)
            async with response:
                async with asyncio.timeout(self._within()):
                    await self._check(response)
                yield []
                async for lines in _lines(response.content):
                    yield [codec.decode(line, codec.WatchEnvelope) for line in lines]
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise errors.TransportError(f"watch {path}: {self._explain(error)}") from _cause(error)

    async def ready(self) -> None:
        """Return if the API server says that it is ready."""
        await self._send("GET", "/readyz", deadline=CONNECT_DEADLINE)

    # --- writes ------------------------------------------------------------------------------------------

    async def create(
        self,
        resource: Resource[T],
        body: Mapping[str, Any],
        *,
        namespace: str | None = None,
        server_deadline: float,
        dry_run: bool = False,
    ) -> T:
        """Create an object. The server gives up after `server_deadline` seconds, whether or not we still listen.

        A `dry_run` goes all the way through admission and validation, and leaves nothing behind.

        Raises AlreadyExistsError if the name is taken.
        """
        query = {
            "timeout": f"{server_deadline:g}s",
            "fieldManager": self._manager,
            "dryRun": "All" if dry_run else None,
        }
        reply = await self._send("POST", resource.path(namespace), query=query, body=body, content_type=_JSON)
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
        """Apply a JSON merge patch. Put `uid` and `resourceVersion` under its metadata to guard it."""
        reply = await self._send(
            "PATCH",
            resource.path(namespace, name, subresource),
            query={"fieldManager": self._manager},
            body=body,
            content_type=_MERGE_PATCH,
        )
        return codec.decode_object(reply, resource.type)

    async def apply(self, resource: Resource[T], name: str, body: Mapping[str, Any]) -> T:
        """Apply a cluster-wide object on the server's side; fields that others have applied become ours, too."""
        reply = await self._send(
            "PATCH",
            resource.path(name=name),
            query={"fieldManager": self._manager, "force": "true"},
            body=body,
            content_type=_APPLY_PATCH,
        )
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
        """Delete exactly the object with this UID; return the resource version of the deletion, if told.

        Raises NotFoundError if it is gone, ConflictError if the name is another object's now.
        """
        preconditions = {"uid": uid, "resourceVersion": resource_version}
        options: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {key: value for key, value in preconditions.items() if value is not None},
        }
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        reply = await self._send("DELETE", resource.path(namespace, name), body=options, content_type=_JSON)
        return codec.decode(reply, ObjectOnly).metadata.resource_version

    # --- transport ---------------------------------------------------------------------------------------

    async def _send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | None] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str | None = None,
        deadline: float = math.inf,
    ) -> bytes:
        data = codec.encode(body) if body is not None else None
        try:
            # aiohttp's own limit would not count what comes before the request: credential plugins, say.
            async with (
                asyncio.timeout(self._within(deadline)),
                await self._open(
                    method, path, query=query, data=data, content_type=content_type, timeout=_NO_OTHER_LIMIT
                ) as response,
            ):
                await self._check(response)
                return await _read(response.read())
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            sent = not isinstance(error, aiohttp.ClientConnectorError)
            raise errors.TransportError(f"{method} {path}: {self._explain(error)}", sent=sent) from _cause(error)

    async def _open(
        self,
        method: str,
        path: str,
        *,
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's own limits, per phase of the request
        query: Mapping[str, str | None] | None = None,
        data: bytes | None = None,
        content_type: str | None = None,
        watch: bool = False,
    ) -> aiohttp.ClientResponse:
        headers = await self._authorization()
        if content_type is not None:
            headers["Content-Type"] = content_type
        url = f"{self._configuration.host}{path}"
        if query:
            url = f"{url}?{_arguments(tuple(query.items()))}"
        rest = self._api.rest_client
        extra: dict[str, Any] = {}
        if rest.server_hostname:
            extra["server_hostname"] = rest.server_hostname
        code = "<error>"
        try:
            response = await (self._watches if watch else self._session).request(
                method,
                URL(url, encoded=True),
                data=data,
                headers=headers,
                timeout=timeout,
                proxy=self._proxy.url if self._proxy is not None else None,
                proxy_headers=rest.proxy_headers,
                allow_redirects=False,
                **extra,
            )
            code = str(response.status)
        finally:  # a deadline ends the request by cancellation
            self._answered(method, self._host, code)
        return response

    def _within(self, seconds: float = math.inf) -> float | None:
        """Return how many seconds a request may take that shall take no more than these; None for any number."""
        limit = min(seconds, self._deadline)
        return limit if math.isfinite(limit) else None

    def _explain(self, error: BaseException) -> str:
        return f"{_describe(error)}{self._way()}"

    def _way(self) -> str:
        """Name the proxy that a request went through, which may be what failed."""
        return f", through {self._proxy}" if self._proxy is not None else ""

    async def _authorization(self) -> dict[str, str]:
        """Return the headers that say who we are; a token file's last newline is not part of the token.

        Raises CredentialsError when a token has to be read anew and cannot be: nothing was sent then.
        """
        headers: dict[str, str] = {}
        try:
            await self._api.update_params_for_auth(headers, [], ["BearerToken"])
        except Exception as error:
            raise errors.CredentialsError(f"cannot refresh the token: {_describe(error)}") from error
        return {name: value.strip() for name, value in headers.items()}

    async def _check(self, response: aiohttp.ClientResponse) -> None:
        """Raise the StatusError of any status outside 2xx."""
        if 200 <= response.status < 300:  # noqa: PLR2004 - HTTP's own numbers are clearest as numbers
            return
        status = codec.decode_status(await _read(response.read()))
        error = errors.from_status(
            response.status,
            status.reason,
            status.message if status.reason else f"{status.message}{self._way()}",
            retry_after=_seconds(response.headers.get("Retry-After")),
        )
        if isinstance(error, errors.UnauthorizedError):
            await self._reauthenticate()
        raise error

    async def _reauthenticate(self) -> None:
        """Read the credentials again: they may have been renewed. The caller's next try uses them.

        It goes on where the caller's time is up: a plugin may take longer than a request.
        """
        if self._reauthenticating is None or self._reauthenticating.done():
            now = asyncio.get_running_loop().time()
            if now - self._reauthenticated_at < _REAUTHENTICATE_EVERY:
                return
            self._reauthenticated_at = now
            self._reauthenticating = asyncio.create_task(self._renew(), name="credentials")
        await asyncio.shield(self._reauthenticating)

    async def _renew(self) -> None:
        try:
            fresh = await credentials.load_anew(self._source, str(self._configuration.host))
            if fresh.certificate != self._certificate:
                await self._reconnect(fresh)
        except errors.CredentialsError as error:
            _log.warning("credentials were refused and cannot be read again", error=str(error))
            return
        except (OSError, ValueError) as error:
            _log.warning("the renewed client certificate cannot be used", error=str(error))
            return
        self._configuration.api_key = fresh.configuration.api_key
        self._configuration.refresh_api_key_hook = fresh.configuration.refresh_api_key_hook

    async def _reconnect(self, fresh: credentials.Credentials) -> None:
        """Show a renewed certificate: a connection shows the one that it was opened with, so all are opened anew."""
        self._api = library.load().api_client(fresh.configuration)
        self._configuration, self._certificate = fresh.configuration, fresh.certificate
        former = self._session, self._watches
        self._session, self._watches = session.take_over(self._api, self._headers)
        for each in former:
            await each.close()


@lru_cache(maxsize=64)
def _arguments(query: tuple[tuple[str, str | None], ...]) -> str:
    """Write a query down, without what is empty; the same few are sent again and again."""
    return urlencode({key: value for key, value in query if value})


async def _read(bytes_to_come: Awaitable[bytes]) -> bytes:
    """Return what arrives. Raises ClientConnectionError, too, for a connection that we closed ourselves just now."""
    try:
        return await bytes_to_come
    except RuntimeError as error:  # aiohttp's word for it, until the event loop has told of the end
        raise aiohttp.ClientConnectionError(str(error)) from error


async def _lines(stream: aiohttp.StreamReader) -> AsyncGenerator[list[bytes], None]:
    """Yield the whole lines of each chunk. Raises TransportError if the stream ends within one."""
    rest: list[bytes] = []
    size = 0
    # An empty read is no end of stream: only at_eof() is.
    while not stream.at_eof():
        chunk = await _read(stream.readany())
        head, *tail = chunk.split(b"\n")
        rest.append(head)
        size += len(head)
        if size > _MAX_LINE:
            raise errors.MalformedReplyError(f"a watch line is longer than {_MAX_LINE} bytes")
        if not tail:
            continue
        lines = [b"".join(rest), *tail[:-1]]
        rest, size = [tail[-1]], len(tail[-1])
        if lines := [line for line in lines if line]:
            yield lines
    if size:
        raise errors.TransportError("the watch ended in the middle of an event")


def _seconds(header: str | None) -> float | None:
    """Read Retry-After; the API server sends whole seconds."""
    return float(header) if header is not None and header.isascii() and header.isdigit() else None


def _describe(error: BaseException) -> str:
    """Say what failed, without the URL that aiohttp would quote: a proxy's, or a server's, may hold a password."""
    match error:
        case aiohttp.ClientHttpProxyError():
            return f"the proxy answered {error.status} {error.message}".rstrip()
        case aiohttp.ClientResponseError():
            return f"{error.status} {error.message}".strip()
        case aiohttp.InvalidURL():
            return f"no request can be sent to the URL: {error.description or type(error).__name__}"
        case _:
            return str(error) or type(error).__name__


def _cause(error: BaseException) -> BaseException | None:
    """Return what a traceback may show as the cause: nothing that quotes a URL."""
    return None if isinstance(error, aiohttp.ClientResponseError | aiohttp.InvalidURL) else error
