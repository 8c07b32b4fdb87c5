"""The protocol of the requests that operations send; `controller.kube.client.Client` implements it."""

from __future__ import annotations

from typing import Protocol

from controller.kube.verbs import Creator, Deleter, Getter, Lister, Patcher, Watcher


class Api(Getter, Lister, Watcher, Creator, Patcher, Deleter, Protocol):
    """The verbs of the API server that operations use."""
