"""The requests that operations make; `controller.kube.client.Client` has them all."""

from __future__ import annotations

from typing import Final, Protocol

from controller.kube.verbs import Creator, Deleter, Getter, Lister, Patcher, Watcher

SERVER_DEADLINE: Final = 10.0
"""Seconds that the API server may take for a create."""


class Api(Getter, Lister, Watcher, Creator, Patcher, Deleter, Protocol):
    """The API server, as far as an operation needs it."""
