"""The publisher of the settings: one ConfigMap, written once, and only if it differs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import pytest
from structlog.testing import capture_logs

from controller.domain.migration.limits import Limits
from controller.domain.settings import DEFAULTS, PublishedSettings, encode
from controller.kube import errors
from controller.kube.resources import CONFIG_MAPS
from controller.reconcilers.settings import SettingsPublisher
from tests.model.faults import Fault
from tests.model.rules import Document
from tests.model.server import ApiServer

pytestmark = pytest.mark.looptime

KEY = (CONFIG_MAPS.plural, "default/vmsim-controller")
OURS = {"app.kubernetes.io/managed-by": "vmsim-controller"}
OTHERS = PublishedSettings(limits=Limits(1, 1))
CREATE, PATCH = "create configmaps", "patch configmaps"
HOUR = 3600.0
FORBIDDEN = errors.ForbiddenError(403, "Forbidden", "configmaps is forbidden")


@asynccontextmanager
async def published(
    api: ApiServer, settings: PublishedSettings = DEFAULTS, *, after: float = HOUR
) -> AsyncIterator[None]:
    """Run a publisher; enter after some seconds."""
    publisher = SettingsPublisher(
        api,
        settings,
        namespace="default",
        name="vmsim-controller",
        clock=asyncio.get_running_loop().time,
        rng=Random(1),  # noqa: S311 - jitter, no secret
    )
    task = asyncio.create_task(publisher.run())
    try:
        await asyncio.sleep(after)
        assert not task.done()
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


def existing(data: Document | None = None, labels: Document = OURS) -> ApiServer:
    """Return a server with the ConfigMap of an earlier process."""
    api = ApiServer()
    api.put(*KEY, metadata={"labels": labels}, data=encode(OTHERS) if data is None else data)
    return api


async def test_the_first_process_creates_it() -> None:
    """In the lease's namespace."""
    api = ApiServer()
    with capture_logs() as logs:
        async with published(api):
            assert api.objects[KEY]["data"] == encode(DEFAULTS)
            assert api.objects[KEY]["metadata"]["labels"] == OURS
            assert api.writes == [CREATE]
    assert [(line["event"], line["config_map"]) for line in logs] == [
        ("published the settings", "default/vmsim-controller")
    ]


async def test_equal_settings_are_not_written_again() -> None:
    """One read, and nothing after it."""
    api = existing(encode(DEFAULTS))
    async with published(api):
        assert api.requests == ["get configmaps"]


async def test_settings_that_differ_are_replaced_whole() -> None:
    """A key that no longer exists is removed; another client's label stays."""
    api = existing({**encode(OTHERS), "of-an-older-release": "1"}, {**OURS, "team": "a"})
    async with published(api):
        assert api.objects[KEY]["data"] == encode(DEFAULTS)
        assert api.objects[KEY]["metadata"]["labels"] == {**OURS, "team": "a"}
        assert api.requests == ["get configmaps", PATCH]


async def test_an_edit_is_left_alone_until_the_next_process() -> None:
    """So a user who tries something is not fought."""
    api = ApiServer()
    async with published(api):
        api.put(*KEY, data={"reference-cpu": "1"})
        await asyncio.sleep(HOUR)
        assert api.objects[KEY]["data"] == {"reference-cpu": "1"}
    async with published(api):
        assert api.objects[KEY]["data"] == encode(DEFAULTS)


async def test_a_config_map_of_another_client_is_not_touched() -> None:
    """The log names it, once, with the next step; once it is deleted, the settings are published."""
    api = existing(labels={})
    with capture_logs() as logs:
        async with published(api):
            assert api.objects[KEY]["data"] == encode(OTHERS)
            assert api.writes == []
            del api.objects[KEY]
            await asyncio.sleep(60)
            assert api.objects[KEY]["data"] == encode(DEFAULTS)
    [line] = [line for line in logs if line["log_level"] == "warning"]
    assert "ConfigMap default/vmsim-controller lacks the label" in line["error"]
    assert line["error"].endswith("delete it, or label it")


@pytest.mark.parametrize("request_", ["get configmaps", CREATE])
async def test_a_missing_right_is_logged_once_with_what_to_grant(request_: str) -> None:
    """It asks at most about once in half a minute, and publishes once it may."""
    api = ApiServer()
    api.failures[request_] = FORBIDDEN
    with capture_logs() as logs:
        async with published(api):
            assert api.writes == []
            assert api.requests.count(request_) < HOUR / 30
            api.failures.clear()
            await asyncio.sleep(60)
            assert api.writes == [CREATE]
    [line] = [line for line in logs if line["log_level"] == "warning"]
    assert line["event"] == "cannot publish the settings; tools use older ones or the defaults"
    assert line["error"].endswith("; grant the controller get, create and patch on ConfigMap default/vmsim-controller")


async def test_a_config_map_that_cannot_be_changed_is_logged_with_what_to_do() -> None:
    """Once it is deleted, the settings are published."""
    api = existing()
    api.failures[PATCH] = errors.InvalidError(422, "Invalid", "field is immutable when `immutable` is set")
    with capture_logs() as logs:
        async with published(api):
            del api.objects[KEY]
            await asyncio.sleep(60)
            assert api.objects[KEY]["data"] == encode(DEFAULTS)
    [line] = [line for line in logs if line["log_level"] == "warning"]
    assert line["error"].endswith("; delete ConfigMap default/vmsim-controller, and it is created anew")


@pytest.mark.parametrize(("method", "commit"), [("create", True), ("create", False), ("patch", True), ("patch", False)])
async def test_a_lost_reply_is_judged_by_the_next_read(method: str, *, commit: bool) -> None:
    """The settings are written exactly once, whether or not the write took effect."""
    api = ApiServer() if method == "create" else existing()
    api.faults.append(Fault(method, CONFIG_MAPS.plural, errors.TransportError("reset"), commit=commit))
    async with published(api):
        assert api.objects[KEY]["data"] == encode(DEFAULTS)
        assert api.writes == [f"{method} configmaps"]


@pytest.mark.parametrize("method", ["create", "patch"])
async def test_another_writer_is_overwritten_only_after_another_look(method: str) -> None:
    """The name is taken, or the version differs."""
    api = ApiServer() if method == "create" else existing()
    raced = False

    async def race(request: str) -> None:
        nonlocal raced
        if request == f"{method} configmaps" and not raced:
            raced = True
            api.put(*KEY, metadata={"labels": OURS}, data={"reference-cpu": "1"})

    api.turn = race
    async with published(api):
        assert api.objects[KEY]["data"] == encode(DEFAULTS)
        assert api.writes == [PATCH]


async def test_a_request_that_is_never_answered_is_given_up() -> None:
    """Whatever deadline the client has."""
    api = ApiServer()
    hangs = True

    async def turn(_: str) -> None:
        if hangs:
            await asyncio.Event().wait()

    api.turn = turn
    with capture_logs() as logs:
        async with published(api):
            hangs = False
            await asyncio.sleep(120)
            assert api.writes == [CREATE]
    assert [line["error"] for line in logs if line["log_level"] == "warning"] == ["no answer in time"]
