"""The protocol of the requests that operations send; `controller.kube.client.Client` implements it."""

from __future__ import annotations

from typing import Final, Protocol

from controller.kube.verbs import Creator, Deleter, Getter, Lister, Patcher, Watcher

SERVER_DEADLINE: Final = 10.0
"""The deadline of a create on the API server, in seconds."""


class Api(Getter, Lister, Watcher, Creator, Patcher, Deleter, Protocol):
    """The verbs of the API server that operations use."""
