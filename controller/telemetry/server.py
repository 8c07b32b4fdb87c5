"""The HTTP server: /metrics, /healthz, /readyz.

Guarantees: listens only where told; port 0 takes a free one, which `url` then names; probes answer in text, one
problem a line, 200 or 503.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from aiohttp import web
from prometheus_client import CollectorRegistry

from controller.telemetry import exposition
from controller.telemetry.address import BindError, parse_address
from controller.telemetry.health import Health


class Server:
    """Serves one registry, the large families besides it, and one health. Use as an async context manager."""

    def __init__(
        self, address: str, registry: CollectorRegistry, health: Health, sources: Sequence[exposition.Source] = ()
    ) -> None:
        self._host, self._port = parse_address(address)
        self._registry = registry
        self._sources = sources
        self._health = health
        app = web.Application(client_max_size=1024)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        self.url = ""

    async def __aenter__(self) -> Self:
        """Listen. Raises BindError."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host or None, self._port)
        try:
            await site.start()
        except (OSError, UnicodeError) as error:  # a host that is no domain name fails in the idna codec
            await self._runner.cleanup()
            why = error.strerror if isinstance(error, OSError) else error
            raise BindError(
                f"cannot listen on {self._host}:{self._port}: {why}; choose another address with "
                "--metrics-bind-address (port 0 takes a free one)"
            ) from error
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _metrics(self, request: web.Request) -> web.Response:
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
