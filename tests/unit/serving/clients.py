"""HTTP clients for tests of the server, well-formed or not."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import aiohttp

from controller.serving.server import Server


async def ask(server: Server, path: str) -> tuple[int, str]:
    """Return status and text of a response."""
    async with aiohttp.ClientSession() as session, session.get(f"{server.url}{path}") as response:
        return response.status, await response.text()


@asynccontextmanager
async def connected(
    server: Server, trust: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Open a connection on which the test may write anything."""
    where = urlsplit(server.url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port, ssl=trust)
    try:
        yield reader, writer
    finally:
        writer.close()


async def status_of(server: Server, request: bytes) -> int | None:
    """Send bytes; return the status of the response, None if the connection was aborted."""
    async with connected(server) as (reader, writer):
        try:
            writer.write(request)
            line = await reader.readline()
        except ConnectionError:
            return None
        return int(line.split()[1]) if line else None


async def exchange(server: Server, request: bytes) -> tuple[bytes, bytes]:
    """Send a request; return the head of the response, and its body of the Content-Length."""
    async with connected(server) as (reader, writer):
        writer.write(request)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        length = re.search(rb"\r\nContent-Length: (\d+)\r\n", head)
        if length is None or request.startswith(b"HEAD "):
            return head, b""
        return head, await asyncio.wait_for(reader.readexactly(int(length[1])), 10)
