"""The publisher of the settings that tools must know: the ConfigMap beside the lease, with the lease's name.

Guarantees: written once this process leads, and only if it differs; then nothing is read or written any more. A failure
never ends the process: it is logged once for each cause, with what to grant if a right is missing, and tried again with
a backoff of up to a minute. A ConfigMap of another client is never touched. A patch is guarded by the version that it
was decided on, and a request whose outcome is unknown is judged by the next read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from random import Random
from typing import Final, Protocol

import structlog

from controller.domain import names
from controller.domain.settings import PublishedSettings, encode
from controller.engine.backoff import Backoff
from controller.kube import managers
from controller.kube.errors import (
    AlreadyExistsError,
    ConflictError,
    ForbiddenError,
    InvalidError,
    KubeError,
    NotFoundError,
    StatusError,
)
from controller.kube.kinds import ConfigMap
from controller.kube.resources import CONFIG_MAPS
from controller.kube.verbs import CREATE_DEADLINE, Creator, Getter, Patcher

_log = structlog.get_logger(__name__)

_DEADLINE: Final = 30.0
"""Seconds for one attempt, whatever deadline requests have."""


class ConfigMaps(Getter, Creator, Patcher, Protocol):
    """The verbs of the publisher."""


class _ForeignConfigMapError(Exception):
    """The ConfigMap of this name is another client's."""


class SettingsPublisher:
    """Publishes one process's settings in `namespace`, under `name`. `clock` is monotonic, in seconds."""

    def __init__(
        self,
        api: ConfigMaps,
        settings: PublishedSettings,
        *,
        namespace: str,
        name: str,
        clock: Callable[[], float],
        rng: Random,
    ) -> None:
        self._api = api
        self._data = encode(settings)
        self._namespace = namespace
        self._name = name
        self._backoff = Backoff(clock, rng)

    async def run(self) -> None:
        """Publish, then wait until cancelled."""
        logged = ""
        while True:
            try:
                async with asyncio.timeout(_DEADLINE):
                    await self._publish()
            except (KubeError, TimeoutError, _ForeignConfigMapError) as error:
                problem = self._explained(error)
                if problem != logged:
                    _log.warning("cannot publish the settings; tools use older ones or the defaults", error=problem)
                logged = problem
                wait = error.retry_after if isinstance(error, StatusError) else None
                await asyncio.sleep(self._backoff.delay(at_least=wait))
            else:
                break
        await asyncio.get_running_loop().create_future()

    async def _publish(self) -> None:
        """Create or patch the ConfigMap, unless it has the settings."""
        try:
            found = await self._api.get(CONFIG_MAPS, self._name, namespace=self._namespace)
        except NotFoundError:
            await self._create()
        else:
            if found.metadata.labels.get(names.MANAGED_BY) != managers.CONTROLLER:
                raise _ForeignConfigMapError
            if found.data == self._data:
                return
            await self._patch(found)
        _log.info("published the settings", config_map=f"{self._namespace}/{self._name}")

    async def _create(self) -> None:
        body = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": self._name,
                "namespace": self._namespace,
                "labels": {names.MANAGED_BY: managers.CONTROLLER},
            },
            "data": self._data,
        }
        await self._api.create(CONFIG_MAPS, body, namespace=self._namespace, server_deadline=CREATE_DEADLINE)

    async def _patch(self, found: ConfigMap) -> None:
        guard = {"uid": found.metadata.uid, "resourceVersion": found.metadata.resource_version}
        data: Mapping[str, str | None] = {**dict.fromkeys(found.data), **self._data}
        body = {"metadata": guard, "data": data}
        await self._api.merge_patch(CONFIG_MAPS, self._name, body, namespace=self._namespace)

    def _explained(self, error: Exception) -> str:
        """Return an error in one line, with the next step."""
        where = f"{self._namespace}/{self._name}"
        match error:
            case _ForeignConfigMapError():
                label = f"{names.MANAGED_BY}={managers.CONTROLLER}"
                return f"ConfigMap {where} lacks the label {label}, so it is another client's: delete it, or label it"
            case ForbiddenError():
                return f"{error}; grant the controller get, create and patch on ConfigMap {where}"
            case AlreadyExistsError() | ConflictError():
                return f"another client wrote ConfigMap {where} meanwhile"
            case InvalidError():  # such as `immutable: true`
                return f"{error}; delete ConfigMap {where}, and it is created anew"
            case _:
                return str(error) or "no answer in time"
