"""The HTTP sessions that requests and watches go over: kubernetes-asyncio's connections and TLS, our headers.

Guarantees: a watch, which keeps its connection, never takes one from requests: there is no bound on those of watches.
neither netrc nor the environment is looked at with every request, which would cost more CPU than the
request itself; which proxy is used is settled once (controller/kube/proxy.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import aiohttp

if TYPE_CHECKING:
    from kubernetes_asyncio.client import ApiClient

_READ_BUFFER: Final = 2 * 1024 * 1024
"""Bytes read ahead; the longest object that etcd takes by default fits in."""


@dataclass(frozen=True, slots=True)
class Sessions:
    """Those of requests and those of watches."""

    requests: aiohttp.ClientSession
    watches: aiohttp.ClientSession

    async def close(self) -> None:
        """Close every connection, open watches included."""
        await self.requests.close()
        await self.watches.close()


def take_over(api: ApiClient, headers: Iterable[tuple[str, str]]) -> Sessions:
    """Make sessions of our own, for requests and for watches; the session of `api` has nothing left to close.

    Requests go over its connections, of which there are so many at most; watches over others with the same TLS. Both
    send `headers`, of which one may be there several times.
    """
    theirs: aiohttp.ClientSession = api.rest_client.pool_manager
    connector = theirs.connector
    theirs.detach()
    tls = connector._ssl if isinstance(connector, aiohttp.TCPConnector) else True  # noqa: SLF001 - it tells nobody else
    unbounded = aiohttp.TCPConnector(limit=0, ssl=tls)
    own = [*headers]
    requests, watches = (
        aiohttp.ClientSession(connector=each, headers=own, read_bufsize=_READ_BUFFER) for each in (connector, unbounded)
    )
    return Sessions(requests, watches)
