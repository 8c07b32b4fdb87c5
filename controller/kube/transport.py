"""HTTP with one API server: requests with their replies, and streams.

Guarantees: nothing above this module knows which HTTP library sends a request. A request fails if no connection opens
within `CONNECT_DEADLINE` seconds, a stream if it is silent for longer than its idle limit; how long a request may take
altogether is for its caller to bound, by cancellation. A stream, which keeps its connection, never takes one from
requests: there is no bound on those of streams. Every failure to get a reply is a `TransportError` that names the proxy
which a request went through, settled once, and shows no password that a URL may hold. No redirect is followed.
`answered` hears of each request.
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
"""Seconds to open a connection."""
_NO_OTHER_LIMIT: Final = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_DEADLINE)
_MAX_LINE: Final = 8 * 1024 * 1024
"""Longest line of a stream in bytes; etcd refuses objects above 1.5 MiB."""
_READ_BUFFER: Final = 2 * 1024 * 1024
"""Bytes read ahead; the longest object that etcd takes by default fits in."""
_FAILURES: Final = (aiohttp.ClientError, TimeoutError, OSError)

Query: TypeAlias = tuple[tuple[str, str | None], ...]
Answered: TypeAlias = Callable[[str, str, str], None]
"""Told of each request: its method, the server's host, and the status code (`<error>` without an answer)."""


class Request(msgspec.Struct, frozen=True):
    """What is asked of the server: arguments of the query that are empty are left out."""

    method: str
    path: str
    query: Query = ()
    body: bytes | None = None
    content_type: str = ""
    idle_limit: float | None = None
    """Seconds of silence after which a stream has failed; None for a reply that has an end by itself."""

    def __str__(self) -> str:
        """Name the request for a person."""
        return f"{self.method if self.idle_limit is None else 'watch'} {self.path}"


class Response:
    """What the server answers: its status, and a body that is still to come.

    Use as an async context manager, within which the failure of the connection is a TransportError.
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
        """HTTP's status code."""
        return self._found.status

    @property
    def retry_after(self) -> str | None:
        """The header of this name."""
        return self._found.headers.get("Retry-After")

    async def read(self) -> bytes:
        """Return the whole body."""
        return await _read(self._found.read())

    def lines(self) -> AsyncGenerator[list[bytes], None]:
        """Yield the whole lines of each chunk that arrives. Raises TransportError if the body ends within one."""
        return _lines(self._found.content)


class Transport:
    """The connections to the server that a configuration names; `headers` go with every request.

    Raises OSError or ValueError for certificates and keys that cannot be used.
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
        """What to say of the way that a request went, which may be what failed."""
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
        """Show another client certificate: a connection shows the one it was opened with, so all are opened anew.

        Return the former ones, to be closed. Raises OSError or ValueError for a certificate that cannot be used; the
        connections stay as they are then.
        """
        former = self._sessions
        self._connect(configuration)
        return former

    async def close(self) -> None:
        """Close every connection, open streams included."""
        await self._sessions.close()

    async def send(self, request: Request, headers: dict[str, str]) -> Response:
        """Send a request, with `headers` of its own; return when the response has begun."""
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
        finally:  # a deadline ends the request by cancellation
            self._answered(request.method, self._host, code)
        return Response(self, request, found)

    def failed(self, request: Request, error: BaseException) -> errors.TransportError:
        """Return what tells of a request that failed on its way."""
        sent = not isinstance(error, aiohttp.ClientConnectorError)
        return errors.TransportError(f"{request}: {describe(error)}{self.way}", sent=sent)


@dataclass(frozen=True, slots=True)
class Sessions:
    """Those of requests and those of watches."""

    requests: aiohttp.ClientSession
    watches: aiohttp.ClientSession

    async def close(self) -> None:
        """Close every connection, open watches included."""
        await self.requests.close()
        await self.watches.close()


def _take_over(api: ApiClient, headers: tuple[tuple[str, str], ...]) -> Sessions:
    """Make sessions of our own; that of `api` has nothing left to close.

    They look at neither netrc nor the environment with every request, which would cost more CPU than the request. Those
    for requests go over the connections of `api`, of which there are so many at most, those for watches over others
    with the same TLS. Both send `headers`, of which one may be there several times.
    """
    theirs: aiohttp.ClientSession = api.rest_client.pool_manager
    connector = theirs.connector
    theirs.detach()
    tls = connector._ssl if isinstance(connector, aiohttp.TCPConnector) else True  # noqa: SLF001 - it tells nobody else
    unbounded = aiohttp.TCPConnector(limit=0, ssl=tls)
    requests, watches = (
        aiohttp.ClientSession(connector=each, headers=headers, read_bufsize=_READ_BUFFER)
        for each in (connector, unbounded)
    )
    return Sessions(requests, watches)


@lru_cache(maxsize=64)
def _arguments(query: Query) -> str:
    """Write a query down, without what is empty; the same few are sent again and again."""
    return urlencode({key: value for key, value in query if value})


async def _read(bytes_to_come: Awaitable[bytes]) -> bytes:
    """Return what arrives. Raises ClientConnectionError, too, for a connection that we closed ourselves just now."""
    try:
        return await bytes_to_come
    except RuntimeError as error:  # aiohttp's word for it, until the event loop has told of the end
        raise aiohttp.ClientConnectionError(str(error)) from error


async def _lines(stream: aiohttp.StreamReader) -> AsyncGenerator[list[bytes], None]:
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


def describe(error: BaseException) -> str:
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
