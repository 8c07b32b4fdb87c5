"""The HTTP server: /metrics, /healthz, /readyz.

Guarantees: listens only where told; port 0 takes a free one, which `url` then names; with TLS there is nothing without
it. Probes answer anybody, in text, one problem a line, 200 or 503; a scrape is answered once the guard, if there is
one, has nothing against it. No request changes anything: only GET and HEAD are answered. What a client may send is
bounded in size, and the connections it may hold in time and number.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from http import HTTPStatus
from typing import Final, Protocol, Self

from aiohttp import web
from aiohttp.typedefs import Handler
from prometheus_client import CollectorRegistry

from controller.serving.address import BindError, parse_address
from controller.serving.auth import Refusal
from controller.serving.connections import Connections
from controller.serving.health import Health
from controller.telemetry import exposition

_LONGEST_LINE: Final = 4 * 1024
_LONGEST_HEADER: Final = 16 * 1024
"""In bytes. Tokens of some identity providers, with many groups in them, have about half of that."""
_MOST_HEADERS: Final = 64
_LARGEST_BODY: Final = 1024
"""In bytes; nobody has reason to send any."""
_LINGER: Final = 1.0
"""Seconds in which a body that nobody reads must be over, or its connection is closed."""
_HANDSHAKE: Final = 10.0
_GOODBYE: Final = 5.0
"""Seconds for TLS to begin and to end."""


class Guard(Protocol):
    """Decides who may scrape; `controller.serving.auth.ScrapeGuard` is one."""

    async def refusal(self, authorization: str | None) -> Refusal | None:
        """Return why a request with this Authorization header is not answered; None if it is."""
        ...


class Server:
    """Serves one registry, the large families besides it, and one health. Use as an async context manager."""

    def __init__(
        self,
        address: str,
        registry: CollectorRegistry,
        health: Health,
        sources: Sequence[exposition.Source] = (),
        *,
        tls: ssl.SSLContext | None = None,
        guard: Guard | None = None,
        connections: Connections | None = None,
    ) -> None:
        self._host, self._port = parse_address(address)
        self._registry = registry
        self._sources = sources
        self._health = health
        self._tls = tls
        self._guard = guard
        self._connections = connections or Connections()
        app = web.Application(client_max_size=_LARGEST_BODY, middlewares=[self._answering])
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            shutdown_timeout=1.0,
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
        assert self._runner.server is not None  # noqa: S101 - by its setup
        try:
            self._listening = await asyncio.get_running_loop().create_server(
                self._connections.guarded(self._runner.server),
                self._host or None,
                self._port,
                ssl=self._tls,
                ssl_handshake_timeout=_HANDSHAKE if self._tls else None,
                ssl_shutdown_timeout=_GOODBYE if self._tls else None,
            )
        except (OSError, UnicodeError) as error:  # a host that is no domain name fails in the idna codec
            await self._runner.cleanup()
            why = error.strerror if isinstance(error, OSError) else error
            raise BindError(
                f"cannot listen on {self._host}:{self._port}: {why}; choose another address with "
                "--metrics-bind-address (port 0 takes a free one)"
            ) from error
        host, port = self._listening.sockets[0].getsockname()[:2]
        scheme = "https" if self._tls else "http"
        self.url = f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._listening is not None:
            self._listening.close()
        await self._runner.cleanup()

    @web.middleware
    async def _answering(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        with self._connections.answering(request.transport):
            return await handler(request)

    async def _metrics(self, request: web.Request) -> web.Response:
        refusal = await self._guard.refusal(request.headers.get("Authorization")) if self._guard else None
        if refusal is not None:
            headers = {"WWW-Authenticate": "Bearer"} if refusal.status == HTTPStatus.UNAUTHORIZED else {}
            return web.Response(text=refusal.text, status=refusal.status, headers=headers)
        content, headers = await exposition.render(
            self._registry,
            self._sources,
            accept=",".join(request.headers.getall("Accept", ())),
            accept_encoding=",".join(request.headers.getall("Accept-Encoding", ())),
        )
        return web.Response(body=content, headers=headers)

    async def _healthz(self, _: web.Request) -> web.Response:
        return _answer(self._health.health())

    async def _readyz(self, _: web.Request) -> web.Response:
        return _answer(await self._health.readiness())


def _answer(problems: list[str]) -> web.Response:
    return web.Response(text="\n".join(problems) or "ok", status=503 if problems else 200)
