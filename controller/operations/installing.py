"""Installs our CustomResourceDefinitions; `hack/setup_vm_crd.sh` does the same with kubectl.

Guarantees: idempotent, and interchangeable with the script; applies the definitions of this release; returns once both
resources are served.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final, Protocol

from controller.kube import credentials, managers
from controller.kube.client import Client
from controller.kube.errors import NotFoundError, TooManyRequestsError
from controller.kube.meta import ObjectOnly
from controller.kube.resources import DEFINITIONS, Resource
from controller.kube.verbs import Applier, Getter, Lister
from controller.operations import definitions
from controller.operations.errors import TimedOutError

_DEADLINE: Final = 60.0
_POLL: Final = 0.1


class Api(Getter, Lister, Applier, Protocol):
    """The requests that installing makes."""


async def install(client: Api) -> AsyncIterator[str]:
    """Apply our definitions, and yield the name of each once its resource is served. Raises KubeError, TimedOutError.

    The client's field manager has to be managers.SETUP.
    """
    bodies = definitions.shipped()
    for body in bodies:
        await client.apply(DEFINITIONS, body["metadata"]["name"], body)
    for body in bodies:
        await _served(client, body["metadata"]["name"], body["spec"])
        yield body["metadata"]["name"]


async def install_on(source: credentials.Source) -> None:
    """Install on the cluster of these credentials. Raises KubeError, TimedOutError."""
    async with await Client.connect(source, manager=managers.SETUP) as client:
        async for _ in install(client):
            pass


async def _served(client: Api, name: str, spec: Mapping[str, Any]) -> None:
    deadline = asyncio.get_running_loop().time() + _DEADLINE
    while (wrong := await _obstacle(client, name, spec)) is not None:
        if asyncio.get_running_loop().time() > deadline:
            raise TimedOutError(
                f"{name} is not served after {_DEADLINE:.0f} s: {wrong or 'the API server gives no reason'}"
            )
        await asyncio.sleep(_POLL)


async def _obstacle(client: Api, name: str, spec: Mapping[str, Any]) -> str | None:
    """Return why requests for a resource still fail, in the API server's words; None if they succeed."""
    plural = spec["names"]["plural"]
    status = (await client.get(DEFINITIONS, name)).status
    established = any(each.type == "Established" and each.status == "True" for each in status.conditions)
    if not established or status.accepted_names.plural != plural:
        return "; ".join(each.message for each in status.conditions if each.status != "True" and each.message)
    try:
        # Established precedes serving: until the storage is ready, every request is refused.
        for version in spec["versions"]:
            await client.list_page(Resource(spec["group"], version["name"], plural, ObjectOnly), limit=1)
    except (NotFoundError, TooManyRequestsError) as error:
        return str(error)
    return None
