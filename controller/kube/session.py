"""The HTTP session that requests go over: kubernetes-asyncio's connections and TLS, and a proxy looked up once.

Guarantees: the environment's proxy is heeded as `trust_env` would (`HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`), without
its look at netrc and the environment at every request, which costs more CPU than the request itself; a kubeconfig's
`proxy-url` comes before the environment's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp

if TYPE_CHECKING:
    from kubernetes_asyncio.client import ApiClient

_READ_BUFFER: Final = 2 * 1024 * 1024
"""Bytes read ahead; the longest object that etcd takes by default fits in."""


def take_over(api: ApiClient, headers: Mapping[str, str]) -> aiohttp.ClientSession:
    """Make a session of our own over the connections of `api`, whose own session has nothing left to close.

    Every request sends `headers`.
    """
    theirs: aiohttp.ClientSession = api.rest_client.pool_manager
    connector = theirs.connector
    theirs.detach()
    return aiohttp.ClientSession(connector=connector, headers=headers, read_bufsize=_READ_BUFFER)


def environment_proxy(server: str | None) -> str | None:
    """Return the URL of the proxy that the environment names for a server's URL, if any."""
    parts = urlsplit(server or "")
    if parts.hostname is None or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    return getproxies().get(parts.scheme)
