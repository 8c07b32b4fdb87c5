"""The requests that operations make; `controller.kube.client.Client` has them all."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Final, Protocol, TypeVar

from controller.kube import codec
from controller.kube.resources import Resource
from controller.reconcilers import api

T = TypeVar("T")

SERVER_DEADLINE: Final = 10.0
"""Seconds that the API server may take for a create."""


class Api(api.Api, Protocol):
    """The API server, as far as an operation needs it."""

    def watch(
        self,
        resource: Resource[T],
        *,
        resource_version: str,
        life: float,
        namespace: str | None,
        label_selector: str | None,
    ) -> AsyncGenerator[list[codec.WatchEnvelope], None]:
        """Stream events."""
        ...
