"""The HTTP session that requests go over: kubernetes-asyncio's connections and TLS, our headers.

Guarantees: neither netrc nor the environment is looked at with every request, which would cost more CPU than the
request itself; which proxy is used is settled once (controller/kube/proxy.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import aiohttp

if TYPE_CHECKING:
    from kubernetes_asyncio.client import ApiClient

_READ_BUFFER: Final = 2 * 1024 * 1024
"""Bytes read ahead; the longest object that etcd takes by default fits in."""


def take_over(api: ApiClient, headers: Iterable[tuple[str, str]]) -> aiohttp.ClientSession:
    """Make a session of our own over the connections of `api`, whose own session has nothing left to close.

    Every request sends `headers`, of which one may be there several times.
    """
    theirs: aiohttp.ClientSession = api.rest_client.pool_manager
    connector = theirs.connector
    theirs.detach()
    return aiohttp.ClientSession(connector=connector, headers=list(headers), read_bufsize=_READ_BUFFER)
