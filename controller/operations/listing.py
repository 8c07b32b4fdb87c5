"""Whole lists, read page by page."""

from __future__ import annotations

from typing import Final, TypeVar

from controller.kube.errors import ExpiredError
from controller.kube.resources import Resource
from controller.operations.api import Api

T = TypeVar("T")

_PAGE: Final = 500


async def everything(
    client: Api, resource: Resource[T], *, namespace: str | None = None, label_selector: str | None = None
) -> list[T]:
    """Return every object of a resource in a namespace, or in all of them."""
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
            # More pages than the server's memory of the past: read it in one piece, as client-go does.
            found, token, limit = [], "", 0
            continue
        found += page.items
        token = page.continue_token
        if not token:
            return found
