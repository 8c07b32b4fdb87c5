"""The HTTP server: serves routes on one address.

Guarantees: it listens on the given address only; port 0 takes a free port, which `url` then names; with TLS it accepts
no plain HTTP. An unknown path is answered with 404, an unknown method with 405. A handler runs after its route's guard
has allowed the request and the body has been read within the route's limit (413); an exception of a handler fails its
own request only. The size of requests is limited, as are the number of connections and the time each may take. Streams
have a limit of their own (503), so that they take no connection from other requests.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Awaitable, Iterable
from contextlib import aclosing
from http import HTTPStatus
from typing import Final, Self

import aiohttp
from aiohttp import web
from aiohttp.typedefs import Handler

from controller.serving.address import BindError, parse_address
from controller.serving.connections import Connections, TooManyStreamsError
from controller.serving.routes import Answer, Request, Route, text

_LONGEST_LINE: Final = 4 * 1024
_LONGEST_HEADER: Final = 16 * 1024
"""In bytes. The tokens of some identity providers list many groups and take about half of it."""
_MOST_HEADERS: Final = 64
_LINGER: Final = 1.0
"""Seconds in which the client has to finish a body that no handler reads; then its connection is closed."""
_HANDSHAKE: Final = 10.0
_GOODBYE: Final = 5.0
"""Seconds for the TLS handshake and for the TLS shutdown."""
_LAST_ANSWERS: Final = 1.0
"""Seconds for requests in flight to finish when the server shuts down; they are cancelled after twice as long."""
_RETRY_AFTER: Final = 5
"""Seconds in the Retry-After header of a refused stream."""


class Server:
    """Serves routes on one address. Use as an async context manager."""

    def __init__(
        self,
        address: str,
        routes: Iterable[Route],
        *,
        flag: str,
        tls: ssl.SSLContext | None = None,
        connections: Connections | None = None,
    ) -> None:
        """`flag` is the command-line option that chooses the address; BindError's message names it."""
        self._host, self._port = parse_address(address)
        self._flag = flag
        self._tls = tls
        self._connections = connections or Connections()
        app = web.Application(middlewares=[self._answering])
        for route in routes:
            if route.method == "GET":
                app.router.add_get(route.path, self._handler(route), allow_head=not route.streaming)
            else:
                app.router.add_route(route.method, route.path, self._handler(route))
        self._runner = web.AppRunner(
            app,
            access_log=None,
            shutdown_timeout=_LAST_ANSWERS,
            max_line_size=_LONGEST_LINE,
            max_field_size=_LONGEST_HEADER,
            max_headers=_MOST_HEADERS,
            lingering_time=_LINGER,
        )
        self._listening: asyncio.Server | None = None
        self.url = ""

    async def __aenter__(self) -> Self:
        """Listen. Raises BindError."""
        await self._runner.setup()
        assert self._runner.server is not None  # noqa: S101 - set by setup()
        try:
            self._listening = await asyncio.get_running_loop().create_server(
                self._connections.guarded(self._runner.server),
                self._host or None,
                self._port,
                ssl=self._tls,
                ssl_handshake_timeout=_HANDSHAKE if self._tls else None,
                ssl_shutdown_timeout=_GOODBYE if self._tls else None,
            )
        except (OSError, UnicodeError) as error:  # the idna codec fails on a host that is not a domain name
            await self._runner.cleanup()
            why = error.strerror if isinstance(error, OSError) else error
            raise BindError(
                f"cannot listen on {self._host}:{self._port}: {why}; choose another address with "
                f"{self._flag} (port 0 takes a free one)"
            ) from error
        host, port = self._listening.sockets[0].getsockname()[:2]
        scheme = "https" if self._tls else "http"
        self.url = f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._listening is not None:
            self._listening.close()
        self._connections.end_streams()
        await self._runner.cleanup()

    @web.middleware
    async def _answering(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        with self._connections.answering(request.transport):
            return await handler(request)

    def _handler(self, route: Route) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            refusal = await route.guard.refusal(request.headers.get("Authorization")) if route.guard else None
            if refusal is not None:
                challenge = {"WWW-Authenticate": "Bearer"} if refusal.status == HTTPStatus.UNAUTHORIZED else {}
                return _whole(text(refusal.text, refusal.status, challenge))
            headers = {name.lower(): ",".join(request.headers.getall(name)) for name in request.headers}
            asked = Request(headers, await self._body(request, route.body_limit) if route.body_limit else b"")
            return await self._stream(request, route, asked) if route.streaming else _whole(await route.handler(asked))

        return handle

    async def _body(self, request: web.Request, limit: int) -> bytes:
        """Return a request's body. Raises the HTTP error for a body that is too large or cannot be read."""
        body = bytearray()
        too_large = web.HTTPRequestEntityTooLarge(limit, text=f"the body has more than {limit} bytes")
        if (request.content_length or 0) > limit:
            raise too_large
        with self._connections.receiving(request.transport):
            try:
                while piece := await request.content.readany():
                    body += piece
                    if len(body) > limit:
                        raise too_large
            except (OSError, web.RequestPayloadError) as error:  # the connection was lost, or the body is malformed
                raise web.HTTPBadRequest(text="the body cannot be read") from error
        return bytes(body)

    async def _stream(self, request: web.Request, route: Route, asked: Request) -> web.StreamResponse:
        try:
            with self._connections.streaming(request.transport):
                answer = await route.handler(asked)
                return (
                    _whole(answer)
                    if isinstance(answer.body, bytes)
                    else await self._write(request, answer, answer.body)
                )
        except TooManyStreamsError as error:
            raise web.HTTPServiceUnavailable(text=str(error), headers={"Retry-After": f"{_RETRY_AFTER}"}) from error

    async def _write(
        self, request: web.Request, answer: Answer, body: AsyncGenerator[bytes, None]
    ) -> web.StreamResponse:
        response = web.StreamResponse(status=answer.status, headers=answer.headers)
        async with aclosing(body) as pieces:
            if await self._written(request, response.prepare(request)):
                async for piece in pieces:
                    if not await self._written(request, response.write(piece)):
                        break
        return response

    async def _written(self, request: web.Request, writing: Awaitable[object]) -> bool:
        """Wait for a write until the client's buffer has space; return whether the client is still connected."""
        try:
            with self._connections.writing(request.transport):
                await writing
        except aiohttp.ClientConnectionError:
            return False
        return True


def _whole(answer: Answer) -> web.Response:
    if not isinstance(answer.body, bytes):
        raise TypeError("a route that is not streaming answered with a stream")
    return web.Response(body=answer.body, status=answer.status, headers=answer.headers)
