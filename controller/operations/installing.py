"""Has an API server serve our resources: what `hack/setup_vm_crd.sh` does with kubectl, and with the same outcome.

Guarantees: it may be done again, by either, and takes the definitions of this release; it returns once both resources
are served.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final, Protocol

import yaml

from controller import package_data
from controller.kube import credentials, managers
from controller.kube.client import Client
from controller.kube.resources import DEFINITIONS
from controller.kube.verbs import Applier, Getter
from controller.operations.errors import TimedOutError

_DEADLINE: Final = 60.0
_POLL: Final = 0.1


class Api(Getter, Applier, Protocol):
    """The requests that installing makes."""


async def install(client: Api) -> AsyncIterator[str]:
    """Apply our definitions, and yield the name of each once its resource is served. Raises KubeError, TimedOutError.

    The client's field manager has to be managers.SETUP.
    """
    bodies = [
        yaml.safe_load(path.read_text(encoding="utf-8"))
        for path in sorted(package_data.path("manifests/crds").glob("*.yaml"), reverse=True)
    ]
    for body in bodies:
        await client.apply(DEFINITIONS, body["metadata"]["name"], body)
    for body in bodies:
        name = body["metadata"]["name"]
        await _served(client, name, body["spec"]["names"]["plural"])
        yield name


async def install_on(source: credentials.Source) -> None:
    """Install on a cluster, as whoever its credentials name. Raises KubeError, TimedOutError."""
    async with await Client.connect(source, manager=managers.SETUP) as client:
        async for _ in install(client):
            pass


async def _served(client: Api, name: str, plural: str) -> None:
    deadline = asyncio.get_running_loop().time() + _DEADLINE
    while True:
        status = (await client.get(DEFINITIONS, name)).status
        established = any(each.type == "Established" and each.status == "True" for each in status.conditions)
        if established and status.accepted_names.plural == plural:
            return
        if asyncio.get_running_loop().time() > deadline:
            wrong = "; ".join(each.message for each in status.conditions if each.status != "True" and each.message)
            raise TimedOutError(f"{name} is not served after {_DEADLINE:.0f} s: {wrong or 'the server says nothing'}")
        await asyncio.sleep(_POLL)
