"""Every object of a kind, page by page.

Guarantees: the list shows one state of the cluster; pages that grew too old on the way are read again as one.
"""

from __future__ import annotations

from typing import Final, TypeVar

from controller.kube.client import Client
from controller.kube.errors import ExpiredError
from controller.kube.resources import Resource

T = TypeVar("T")
_PAGE: Final = 500


async def every(
    client: Client, resource: Resource[T], *, namespace: str | None = None, label_selector: str | None = None
) -> list[T]:
    """List everything. Raises the KubeErrors of the requests."""
    found: list[T] = []
    token, limit = "", _PAGE
    while True:
        try:
            page = await client.list_page(
                resource, namespace=namespace, label_selector=label_selector, limit=limit, continue_token=token
            )
        except ExpiredError:
            if not token:
                raise
            found, token, limit = [], "", 0
            continue
        found += page.items
        token = page.continue_token
        if not token:
            return found
