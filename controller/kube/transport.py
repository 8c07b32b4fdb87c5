"""The HTTP transport to one API server: requests with a reply, and streams (watches).

Guarantees:

- No other module of the Kubernetes client depends on the HTTP library.
- A request fails if no connection opens within `CONNECT_DEADLINE` seconds, a stream if it is silent for longer than its
  idle limit. The caller bounds the total time of a request, by cancellation.
- Streams have their own pool of connections, without a limit, so they never take a connection from requests.
- Every failure to get a reply is a `TransportError`. It names the proxy in use and shows no password of a URL.
- No redirect is followed. The proxy is fixed when the transport is made.
- `answered` is called for each request.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from functools import lru_cache
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias
from urllib.parse import urlencode, urlsplit

import aiohttp
import msgspec
from yarl import URL

from controller.kube import errors, library
from controller.kube.proxy import Proxy

if TYPE_CHECKING:
    from kubernetes_asyncio.client import ApiClient, Configuration

CONNECT_DEADLINE: Final = 5.0
"""Seconds within which a connection has to open."""
_NO_OTHER_LIMIT: Final = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_DEADLINE)
_MAX_LINE: Final = 8 * 1024 * 1024
"""Maximum bytes of a line of a stream; etcd refuses objects above 1.5 MiB."""
_READ_BUFFER: Final = 2 * 1024 * 1024
"""Bytes read ahead: enough for the largest object that etcd accepts by default."""
_FAILURES: Final = (aiohttp.ClientError, TimeoutError, OSError)

Query: TypeAlias = tuple[tuple[str, str | None], ...]
Answered: TypeAlias = Callable[[str, str, str], None]
"""Called for each request with its method, the server's host and the status code (`<error>` without a response)."""


class Request(msgspec.Struct, frozen=True):
    """A request to the server. Empty query arguments are left out."""

    method: str
    path: str
    query: Query = ()
    body: bytes | None = None
    content_type: str = ""
    idle_limit: float | None = None
    """Seconds of silence after which a stream fails; None for a request that is no stream."""

    def __str__(self) -> str:
        """Return the method and path, for messages."""
        return f"{self.method if self.idle_limit is None else 'watch'} {self.path}"


class Response:
    """The server's response: its status, and a body that is not read yet.

    Use it as an async context manager: it turns a failure of the connection into a TransportError.
    """

    __slots__ = ("_found", "_request", "_transport")

    def __init__(self, transport: Transport, request: Request, found: aiohttp.ClientResponse) -> None:
        self._transport = transport
        self._request = request
        self._found = found

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._found.__aexit__(kind, error, trace)
            if isinstance(error, _FAILURES):
                raise error
        except _FAILURES as failure:
            raise self._transport.failed(self._request, failure) from _cause(failure)

    @property
    def status(self) -> int:
        """The HTTP status code."""
        return self._found.status

    @property
    def retry_after(self) -> str | None:
        """The Retry-After header; None without one."""
        return self._found.headers.get("Retry-After")

    async def read(self) -> bytes:
        """Return the whole body."""
        return await _read(self._found.read())

    def lines(self) -> AsyncGenerator[list[bytes], None]:
        """Yield the complete lines of each chunk that arrives. Raises TransportError if the body ends within a line."""
        return _lines(self._found.content)


class Transport:
    """The connections to the server of a configuration; `headers` are sent with every request.

    Raises OSError or ValueError for unusable certificates and keys.
    """

    def __init__(
        self,
        configuration: Configuration,
        *,
        headers: tuple[tuple[str, str], ...] = (),
        proxy: Proxy | None = None,
        answered: Answered = lambda *_: None,
    ) -> None:
        self._url = str(configuration.host)
        self._host = str(urlsplit(self._url).netloc).rpartition("@")[2]
        self._headers = headers
        self._answered = answered
        self.way = f", through {proxy}" if proxy is not None else ""
        """Text for error messages that names the proxy, which may be the cause; empty without a proxy."""
        self._proxy = proxy.url if proxy is not None else None
        self._connect(configuration)

    def _connect(self, configuration: Configuration) -> None:
        api = library.load().api_client(configuration)
        rest = api.rest_client
        self._options: dict[str, Any] = {
            "proxy": self._proxy,
            "proxy_headers": rest.proxy_headers,
            "allow_redirects": False,
            **({"server_hostname": rest.server_hostname} if rest.server_hostname else {}),
        }
        self._sessions = _take_over(api, self._headers)

    def reconnect(self, configuration: Configuration) -> Sessions:
        """Switch to another client certificate. A connection keeps the one it was opened with, so all are opened again.

        Return the former sessions, which the caller closes. Raises OSError or ValueError for an unusable certificate;
        the present connections stay in use then.
        """
        former = self._sessions
        self._connect(configuration)
        return former

    async def close(self) -> None:
        """Close every connection, open streams included."""
        await self._sessions.close()

    async def send(self, request: Request, headers: dict[str, str]) -> Response:
        """Send a request with additional `headers`; return once the response's headers have arrived."""
        if request.content_type:
            headers["Content-Type"] = request.content_type
        url = f"{self._url}{request.path}"
        if request.query:
            url = f"{url}?{_arguments(request.query)}"
        session, limits = self._sessions.requests, _NO_OTHER_LIMIT
        if request.idle_limit is not None:
            session = self._sessions.watches
            limits = aiohttp.ClientTimeout(sock_connect=CONNECT_DEADLINE, sock_read=request.idle_limit)
        code = "<error>"
        try:
            found = await session.request(
                request.method,
                URL(url, encoded=True),
                data=request.body,
                headers=headers,
                timeout=limits,
                **self._options,
            )
            code = str(found.status)
        except _FAILURES as error:
            raise self.failed(request, error) from _cause(error)
        finally:  # also when the caller's deadline cancels the request
            self._answered(request.method, self._host, code)
        return Response(self, request, found)

    def failed(self, request: Request, error: BaseException) -> errors.TransportError:
        """Return the TransportError for a request that got no reply."""
        sent = not isinstance(error, aiohttp.ClientConnectorError)
        return errors.TransportError(f"{request}: {describe(error)}{self.way}", sent=sent)


@dataclass(frozen=True, slots=True)
class Sessions:
    """The HTTP sessions of a transport: one for requests, one for watches."""

    requests: aiohttp.ClientSession
    watches: aiohttp.ClientSession

    async def close(self) -> None:
        """Close every connection, open watches included."""
        await self.requests.close()
        await self.watches.close()


def _take_over(api: ApiClient, headers: tuple[tuple[str, str], ...]) -> Sessions:
    """Return sessions of our own in place of the session of `api`, which is detached and needs no closing.

    Unlike that session they do not read netrc and the environment at every request, which costs more CPU than the
    request. The session for requests takes over the connector of `api`, which limits the number of connections; that
    for watches has a connector without a limit and with the same TLS. Both send `headers`, in which a name may repeat.
    """
    theirs: aiohttp.ClientSession = api.rest_client.pool_manager
    connector = theirs.connector
    theirs.detach()
    tls = connector._ssl if isinstance(connector, aiohttp.TCPConnector) else True  # noqa: SLF001 - no public accessor
    unbounded = aiohttp.TCPConnector(limit=0, ssl=tls)
    requests, watches = (
        aiohttp.ClientSession(connector=each, headers=headers, read_bufsize=_READ_BUFFER)
        for each in (connector, unbounded)
    )
    return Sessions(requests, watches)


@lru_cache(maxsize=64)
def _arguments(query: Query) -> str:
    """Return an encoded query string without the empty arguments; cached, as few different queries are sent."""
    return urlencode({key: value for key, value in query if value})


async def _read(bytes_to_come: Awaitable[bytes]) -> bytes:
    """Return the bytes that arrive. A connection that this process closed raises ClientConnectionError, too."""
    try:
        return await bytes_to_come
    except RuntimeError as error:  # aiohttp raises this until the event loop has processed the closing
        raise aiohttp.ClientConnectionError(str(error)) from error


async def _lines(stream: aiohttp.StreamReader) -> AsyncGenerator[list[bytes], None]:
    rest: list[bytes] = []
    size = 0
    # An empty read does not mean the end of the stream; only at_eof() does.
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


def describe(error: BaseException) -> str:
    """Return an error's text without the URL that aiohttp would quote: a URL may contain a password."""
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
    """Return the cause for a traceback; None for an error that quotes a URL."""
    return None if isinstance(error, aiohttp.ClientResponseError | aiohttp.InvalidURL) else error
