"""Installing applies every definition, and returns once the API server serves it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import pytest

from controller.kube.errors import TooManyRequestsError
from controller.kube.resources import DEFINITIONS, Resource
from controller.kube.verbs import Page
from controller.operations.errors import TimedOutError
from controller.operations.installing import install
from tests.model.server import ApiServer

T = TypeVar("T")
VMS, MIGRATIONS = (
    f"{plural}.simulation.node-classifier.io" for plural in ("virtualmachines", "virtualmachinemigrations")
)
PATIENCE = 60


@dataclass(repr=False)
class Server(ApiServer):
    """An API server that serves a resource some seconds after its definition was applied."""

    after: float = 0.0
    storage: float = 0.0
    """Seconds after that until it answers for objects of the resource."""
    applied: dict[str, float] = field(default_factory=dict)
    bodies: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    async def apply(self, resource: Resource[T], name: str, body: Mapping[str, Any]) -> T:
        """Take a definition."""
        self.applied[name] = asyncio.get_running_loop().time()
        self.bodies[name] = body
        return await super().apply(resource, name, body)

    async def get(self, resource: Resource[T], name: str, *, namespace: str | None = None) -> T:
        """Show a definition as the API server does: without conditions at first, then with those that hold."""
        assert (cast(object, resource), namespace) == (DEFINITIONS, None)
        served = asyncio.get_running_loop().time() >= self.applied[name] + self.after
        refused = {"type": "NamesAccepted", "status": "False", "message": "the short name vm is another's"}
        status: dict[str, Any] = {"conditions": [{"type": "Established", "status": "False"}, refused]}
        if served:
            plural = self.bodies[name]["spec"]["names"]["plural"]
            status = {
                "acceptedNames": {"plural": plural},
                "conditions": [{"type": "Established", "status": "True"}],
            }
        self.set_status(DEFINITIONS, f"/{name}", status if self.after else {**status, "storedVersions": []})
        return await super().get(resource, name)

    async def list_page(
        self,
        resource: Resource[T],
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        limit: int,
        continue_token: str = "",
    ) -> Page[T]:
        """List nothing, once the storage is there."""
        assert (namespace, label_selector, limit, continue_token) == (None, None, 1, "")
        since = asyncio.get_running_loop().time() - self.applied[f"{resource.plural}.{resource.group}"] - self.after
        assert since >= 0, "it was asked for before it was established"
        if since < self.storage:
            raise TooManyRequestsError(429, "TooManyRequests", "storage is (re)initializing")
        return Page([], "1", "")


@pytest.mark.looptime
@pytest.mark.parametrize(("after", "storage"), [(0.0, 0.0), (3.0, 0.0), (3.0, 4.0)])
async def test_it_returns_once_both_resources_are_served(after: float, storage: float) -> None:
    """A create right after it fails neither for an unknown kind nor for missing storage."""
    server = Server(after=after, storage=storage)

    assert [name async for name in install(server)] == [VMS, MIGRATIONS]

    assert set(server.applied) == {VMS, MIGRATIONS}
    assert after + storage <= asyncio.get_running_loop().time() <= after + storage + 1


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("server", "reason"),
    [
        (Server(after=PATIENCE + 30), "the short name vm is another's"),
        (Server(after=1, storage=PATIENCE), "storage is .re.initializing"),
    ],
    ids=["another's name", "no storage"],
)
async def test_a_resource_that_is_not_served_is_an_error_with_the_reason(server: Server, reason: str) -> None:
    """Nothing waits for ever."""
    with pytest.raises(TimedOutError, match=rf"{VMS} is not served after 60 s: {reason}"):
        [name async for name in install(server)]

    assert asyncio.get_running_loop().time() == pytest.approx(PATIENCE, abs=1)


async def test_what_is_applied_is_what_is_shipped() -> None:
    """The whole definition, under its own name."""
    server = Server()
    [name async for name in install(server)]
    for name, body in server.bodies.items():
        assert body["kind"] == "CustomResourceDefinition"
        assert body["metadata"]["name"] == name
        assert body["spec"]["versions"]
