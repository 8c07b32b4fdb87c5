"""Complete lists, read page by page.

Guarantees: the pages of one list show one state of the cluster. If the continue token expires, the list is read again
in one piece, as in client-go.
"""

from __future__ import annotations

from typing import Final, TypeVar

from controller.kube.errors import ExpiredError
from controller.kube.resources import Resource
from controller.kube.verbs import Lister, Page

T = TypeVar("T")

PAGE_SIZE: Final = 500


async def read_whole(
    client: Lister, resource: Resource[T], *, namespace: str | None = None, label_selector: str | None = None
) -> Page[T]:
    """Return every object of a resource in a namespace, or in all of them, as one page."""
    items: list[T] = []
    left_out = 0
    token, limit = "", PAGE_SIZE
    while True:
        try:
            page = await client.list_page(
                resource, namespace=namespace, label_selector=label_selector, limit=limit, continue_token=token
            )
        except ExpiredError:
            if not token:
                raise
            items, left_out, token, limit = [], 0, "", 0
            continue
        items += page.items
        left_out += page.left_out
        token = page.continue_token
        if not token:
            return Page(items, page.resource_version, "", left_out)


async def everything(
    client: Lister, resource: Resource[T], *, namespace: str | None = None, label_selector: str | None = None
) -> list[T]:
    """Return every object of a resource in a namespace, or in all of them."""
    return (await read_whole(client, resource, namespace=namespace, label_selector=label_selector)).items
