"""A proxy between one controller and the real API server that passes everything on, except for one fault.

Guarantees: without a fault it changes only the credentials; every request is recorded (`calls`) with the server's own
reply, whatever the controller received; watches pass line by line, so that a fault can be set between any two events of
an open watch. It listens on loopback, and only the one controller knows its port.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, NoReturn, Self

import aiohttp
import yaml
from aiohttp import web
from yarl import URL

from tests.faults.wire import Answer, Call, Upstream

_LONGEST_LINE: Final = 4 * 1024 * 1024
_HOST: Final = "127.0.0.1"


class Fault:
    """Passes everything on; a fault overrides what it disturbs. One instance serves one run."""

    struck = False
    """Whether it has disturbed anything: otherwise the run shows nothing."""

    async def on_request(self, exchange: Exchange) -> web.StreamResponse:
        """Answer a request that is no watch, or a watch before it is opened."""
        return await exchange.pass_on()

    async def on_line(self, stream: Stream, line: bytes) -> None:
        """Pass on one line of an open watch."""
        await stream.send(line)


class Stream:
    """An open watch, on its way to the controller."""

    def __init__(self, call: Call, request: web.Request, response: web.StreamResponse) -> None:
        self.call = call
        self.open = True
        self._request = request
        self._response = response

    async def send(self, data: bytes) -> None:
        """Send some bytes, usually one whole line."""
        await self._response.write(data)

    def end(self) -> None:
        """End it normally."""
        self.open = False

    def cut(self) -> None:
        """Break the connection."""
        self.open = False
        _abort(self._request)


class Exchange:
    """One request, with the operations of a fault on it."""

    def __init__(self, proxy: Proxy, call: Call, request: web.Request, body: bytes) -> None:
        self.call = call
        self._proxy = proxy
        self._request = request
        self._body = body

    async def pass_on(self, url: URL | None = None) -> web.StreamResponse:
        """Pass it on, and its reply back."""
        if self.call.watch:
            return await self._proxy.relay(self.call, self._request)
        return self.reply(await self.forward(url))

    async def forward(self, url: URL | None = None) -> Answer:
        """Have the server carry it out; return the reply."""
        answer = await self._proxy.upstream.ask(
            self.call.method, url or self._request.rel_url, self._request.headers, self._body
        )
        self.call.status = answer.status
        return answer

    def forward_later(self, seconds: float) -> None:
        """Pass it on after some seconds, even if its sender has given up."""

        async def forward() -> None:
            await asyncio.sleep(seconds)
            await self.forward()

        self._proxy.start(forward())

    def reply(self, answer: Answer) -> web.Response:
        """Return this reply."""
        headers = {"Content-Type": answer.content_type}
        if answer.retry_after is not None:
            headers["Retry-After"] = answer.retry_after
        return web.Response(status=answer.status, body=answer.body, headers=headers)

    def abort(self) -> web.Response:
        """Break the connection with no reply."""
        _abort(self._request)
        return web.Response()

    def crash(self) -> web.Response:
        """Kill the controller now."""
        self._proxy.crash()
        return self.abort()

    async def hang(self) -> NoReturn:
        """Never answer; ends when the client gives up."""
        await asyncio.get_running_loop().create_future()
        raise AssertionError("this future never completes")

    @property
    def url(self) -> URL:
        """Its URL."""
        return self._request.rel_url


class Proxy:
    """Use `serve`. `crash` kills the controller; `fault` may be set at any time."""

    def __init__(self, upstream: Upstream, crash: Callable[[], None]) -> None:
        self.upstream = upstream
        self.crash = crash
        self.fault = Fault()
        self.calls: list[Call] = []
        self.listed: dict[str, URL] = {}
        """The URL of the controller's last list of each resource."""
        self.events: Counter[str] = Counter()
        """How many events of each resource the server has sent, without bookmarks."""
        self.url = ""
        self._watches: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    @asynccontextmanager
    async def serve(cls, upstream: Upstream, crash: Callable[[], None]) -> AsyncIterator[Self]:
        """Listen on a free port while the context lasts."""
        proxy = cls(upstream, crash)
        app = web.Application(client_max_size=_LONGEST_LINE)
        app.router.add_route("*", "/{path:.*}", proxy._handle)
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.0)
        await runner.setup()
        try:
            site = web.TCPSite(runner, _HOST, 0)
            await site.start()
            port = runner.addresses[0][1]
            proxy.url = f"http://{_HOST}:{port}"
            yield proxy
        finally:
            tasks = tuple(proxy._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await runner.cleanup()

    def kubeconfig(self, path: Path, namespace: str) -> Path:
        """Write a kubeconfig that leads here, with no credentials."""
        named = "faults"
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": named, "cluster": {"server": self.url}}],
            "users": [{"name": named, "user": {}}],
            "contexts": [{"name": named, "context": {"cluster": named, "user": named, "namespace": namespace}}],
            "current-context": named,
        }
        path.write_text(yaml.safe_dump(document))
        return path

    @property
    def writes(self) -> list[Call]:
        """Every write that was sent so far, in order."""
        return [call for call in self.calls if call.write]

    def watched(self, resource: str) -> bool:
        """Whether a watch of this resource is open."""
        return self._watches.get(resource, 0) > 0

    async def delivered(self) -> None:
        """Wait until the writes that outlast their requests have arrived."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Do some work that may outlast its request."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        call = Call.of(request.method, request.rel_url)
        self.calls.append(call)
        if call.listing:
            self.listed[call.resource] = request.rel_url
        body = await request.read()
        try:
            return await self.fault.on_request(Exchange(self, call, request, body))
        except (aiohttp.ClientError, OSError):
            # The server or the controller has closed its connection.
            _abort(request)
            return web.Response()

    async def relay(self, call: Call, request: web.Request) -> web.StreamResponse:
        """Pass a watch on until one side ends it."""
        async with self.upstream.open(request.rel_url, request.headers) as source:
            call.status = source.status
            response = web.StreamResponse(
                status=source.status, headers={"Content-Type": source.headers["Content-Type"]}
            )
            response.enable_chunked_encoding()
            await response.prepare(request)
            stream = Stream(call, request, response)
            self._watches[call.resource] = self._watches.get(call.resource, 0) + 1
            try:
                async for line in _lines(source.content):
                    self.events[call.resource] += not bookmark(line)
                    await self.fault.on_line(stream, line)
                    if not stream.open:
                        break
            finally:
                self._watches[call.resource] -= 1
            return response


def bookmark(line: bytes) -> bool:
    """Whether a line of a watch is a bookmark."""
    return line.startswith(b'{"type":"BOOKMARK"')


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Yield whole lines, however long, with their ends."""
    rest = b""
    async for chunk in content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line + b"\n"


def _abort(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()
