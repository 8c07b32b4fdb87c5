"""An HTTP server with a handler that a test sets, and kubeconfigs that lead to it."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from aiohttp import web

from controller.serving.tls import Files

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as it arrived."""

    method: str
    path: str
    query: dict[str, str]
    headers: Mapping[str, str]
    body: Any


@dataclass
class ApiServer:
    """Answers every request with `handler`, and records the requests."""

    handler: Handler
    url: str = ""
    seen: list[Seen] = field(default_factory=list)
    in_flight: int = 0
    """The number of requests without an answer yet."""
    quiet: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when no request is in flight."""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Record a request, and answer it."""
        body = await request.read()
        self.seen.append(
            Seen(
                request.method,
                request.path,
                dict(request.query),
                dict(request.headers),
                json.loads(body) if body else None,
            )
        )
        self.in_flight += 1
        self.quiet.clear()
        try:
            return await self.handler(request)
        finally:
            self.in_flight -= 1
            if self.in_flight == 0:
                self.quiet.set()


@asynccontextmanager
async def listening(tls: ssl.SSLContext | None) -> AsyncIterator[ApiServer]:
    """Start a server on a free port of the loopback interface."""
    server = ApiServer(reply({}))
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    server.url = f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await runner.cleanup()


def server_tls(pair: Files) -> ssl.SSLContext:
    """Return the TLS context of a server with this certificate."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(pair.certificate, pair.key)
    return tls


def reply(body: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Handler:
    """Answer with JSON, or with bytes as they are."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def handler(_: web.Request) -> web.Response:
        return web.Response(body=data, status=status, headers=headers, content_type="application/json")

    return handler


def status_body(code: int, reason: str, message: str = "so it is") -> dict[str, object]:
    """Return metav1.Status."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "code": code,
        "reason": reason,
        "message": message,
    }


def stream(*chunks: bytes | float) -> Handler:
    """Answer with a stream of chunks; a number is a silence of so many seconds."""

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        for chunk in chunks:
            if isinstance(chunk, bytes):
                await response.write(chunk)
                await asyncio.sleep(0.005)  # or the kernel may hand two chunks over as one
            else:
                await asyncio.sleep(chunk)
        return response

    return handler


async def hang(_: web.Request) -> web.StreamResponse:
    """Never answer."""
    await asyncio.Event().wait()
    raise AssertionError


async def hang_up(request: web.Request) -> web.StreamResponse:
    """Close the connection without a reply."""
    assert request.transport is not None
    request.transport.abort()
    await asyncio.Event().wait()
    raise AssertionError


def pod_body(name: str, version: int | str = 1) -> dict[str, Any]:
    """Return a pod as the API server writes it, unknown fields included."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "default",
            "uid": f"uid-{name}",
            "resourceVersion": str(version),
            "managedFields": [{"manager": "test"}],
        },
        "spec": {"nodeName": "n1", "containers": []},
    }


def line(kind: str, name: str, version: int | str = 1) -> bytes:
    """Return one line of a watch."""
    return json.dumps({"type": kind, "object": pod_body(name, version)}).encode() + b"\n"


def kubeconfig(path: Path, url: str, user: Mapping[str, Any] | None = None) -> Path:
    """Write a kubeconfig for a server and a user; return its path. JSON is YAML. Certificates are not verified."""
    tls = {"insecure-skip-tls-verify": True} if url.startswith("https:") else {}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": url} | tls}],
        "users": [{"name": "test", "user": dict(user or {"token": "first"})}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    }
    path.write_text(json.dumps(config))
    return path
