"""One request as it passes the proxy, and the real API server behind it.

Guarantees: the server gets the request unchanged, but with the administrator's credentials; a request's place in the
API (resource, name, subresource) is read from its path alone.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import aiohttp
from multidict import CIMultiDictProxy
from yarl import URL

from controller.kube import credentials

STATE: Final = ("pods", "virtualmachines", "virtualmachinemigrations")
"""The resources of the controller's state. Events are written behind the work and do not belong to it."""

_DEADLINE: Final = aiohttp.ClientTimeout(total=60.0)
_ENDLESS: Final = aiohttp.ClientTimeout(total=None)
_PASSED: Final = ("Accept", "Content-Type", "User-Agent")


DRY_RUN: Final = " (dry run)"
"""The end of the name of a dry run."""


@dataclass(slots=True)
class Call:
    """One request; `status` is the code of the server's own reply, None if the request never reached it."""

    method: str
    resource: str
    name: str
    subresource: str
    watch: bool
    continues: bool
    dry_run: bool = False
    status: int | None = None

    @classmethod
    def of(cls, method: str, url: URL) -> Self:
        """Read a request's place in the API."""
        parts = url.path.strip("/").split("/")
        rest = parts[2:] if parts[0] == "api" else parts[3:]
        if rest[:1] == ["namespaces"] and len(rest) > len(("namespaces", "name")):
            rest = rest[2:]
        resource, name, subresource = (*rest, "", "", "")[:3]
        watch = url.query.get("watch") == "true"
        return cls(method, resource, name, subresource, watch, "continue" in url.query, "dryRun" in url.query)

    @property
    def write(self) -> bool:
        """Whether it would change the controller's state."""
        return self.method != "GET" and self.resource in STATE

    @property
    def listing(self) -> bool:
        """Whether it reads a collection once."""
        return self.method == "GET" and not self.name and not self.watch

    @property
    def committed(self) -> bool:
        """Whether the server carried it out."""
        return self.status is not None and self.status < 300

    def __str__(self) -> str:
        """Return its name for messages."""
        target = "/".join(part for part in (self.resource, self.name, self.subresource) if part)
        return f"{'WATCH' if self.watch else self.method} {target}{DRY_RUN if self.dry_run else ''}"


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole reply."""

    status: int
    body: bytes
    content_type: str = "application/json"
    retry_after: str | None = None


class Upstream:
    """The real API server, spoken to as the administrator."""

    def __init__(self, session: aiohttp.ClientSession, base: URL) -> None:
        self._session = session
        self._base = base

    @classmethod
    @asynccontextmanager
    async def connect(cls, kubeconfig: Path) -> AsyncIterator[Self]:
        """Prepare connections; closed when the context ends."""
        loaded = (await credentials.load(credentials.find(str(kubeconfig)))).configuration
        context = ssl.create_default_context(cafile=loaded.ssl_ca_cert)
        context.load_cert_chain(str(loaded.cert_file), loaded.key_file)
        connector = aiohttp.TCPConnector(ssl=context, limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            yield cls(session, URL(str(loaded.host)))

    async def ask(self, method: str, url: URL, headers: CIMultiDictProxy[str] | None, body: bytes) -> Answer:
        """Send a request; return the whole reply."""
        async with self._session.request(
            method, self._at(url), data=body or None, headers=_passed(headers), timeout=_DEADLINE
        ) as response:
            headers = response.headers
            return Answer(response.status, await response.read(), headers["Content-Type"], headers.get("Retry-After"))

    @asynccontextmanager
    async def open(self, url: URL, headers: CIMultiDictProxy[str]) -> AsyncIterator[aiohttp.ClientResponse]:
        """Open a watch."""
        async with self._session.get(self._at(url), headers=_passed(headers), timeout=_ENDLESS) as response:
            yield response

    def _at(self, url: URL) -> URL:
        return self._base.with_path(url.path).with_query(url.query)


def _passed(headers: CIMultiDictProxy[str] | None) -> dict[str, str]:
    return {name: headers[name] for name in _PASSED if name in headers} if headers is not None else {}
