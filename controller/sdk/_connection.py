"""The namespace and the cluster of a manager's calls.

Guarantees: the cluster is chosen when the manager is created; every failure of a request is a SimulatorError, with its
cause chained.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from controller.domain.settings import PublishedSettings
from controller.kube import credentials
from controller.kube.client import Client
from controller.kube.contexts import Choice
from controller.kube.errors import KubeError
from controller.kube.verbs import Getter
from controller.operations.errors import translated
from controller.operations.settings import places, read
from controller.sdk import _values
from controller.sdk._background import background

T = TypeVar("T")

_log = structlog.get_logger(__name__)


class Connection:
    """One namespace of one cluster; nothing is sent before the first call."""

    def __init__(self, namespace: str, kubeconfig: str | None, context: str | None) -> None:
        self.namespace = _values.namespace(namespace)
        try:
            self._source = credentials.find(kubeconfig, Choice(context=context))
        except KubeError as error:
            raise translated(error) from error

    def run(self, work: Callable[[Client], Awaitable[T]]) -> T:
        """Call `work` with a client in the background, and wait for its result. Raises SimulatorError."""
        home = background()

        async def connected() -> T:
            async with home.client(self._source) as client:
                return await work(client)

        try:
            return home.run(connected)
        except KubeError as error:
            raise translated(error) from error

    async def settings(self, client: Getter) -> PublishedSettings:
        """Read the controller's settings; log a warning for each that cannot be read, whose default is used."""
        where = places(self.namespace, credentials.namespace(self._source))
        reading = await read(client, where)
        for note in reading.notes:
            _log.warning("the defaults of the controller's settings are used", reason=note)
        return reading.settings

    def __repr__(self) -> str:
        """Name the namespace and the credentials."""
        return f"{self.namespace!r} of {str(self._source)!r}"
