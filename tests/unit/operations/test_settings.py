"""Reading of the settings that a controller has published."""

from __future__ import annotations

import asyncio

import pytest

from controller.domain.migration.limits import Limits
from controller.domain.settings import DEFAULTS, PublishedSettings, encode
from controller.kube import errors
from controller.kube.resources import CONFIG_MAPS
from controller.operations.settings import Reading, places, read, read_classes
from tests.model.rules import Document
from tests.model.server import ApiServer

pytestmark = pytest.mark.looptime

HERE, THERE, INSTALLED = "team-a", "default", "vmsim-system"
WHERE = places(HERE, THERE)
OURS = {"app.kubernetes.io/managed-by": "vmsim-controller"}
SETTINGS = PublishedSettings(limits=Limits(1, 1), version="1.2.3")
FORBIDDEN = errors.ForbiddenError(403, "Forbidden", "configmaps is forbidden")


def publish(
    api: ApiServer,
    namespace: str,
    settings: PublishedSettings = SETTINGS,
    *,
    labels: Document = OURS,
    data: Document | None = None,
    name: str = "vmsim-controller",
) -> None:
    """Let a controller publish its settings."""
    key = f"{namespace}/{name}"
    api.put(CONFIG_MAPS.plural, key, metadata={"labels": labels}, data={**encode(settings), **(data or {})})


def defaults(why: str, remedy: str = "") -> Reading:
    """Return the defaults, with the line that says why."""
    return Reading(notes=(f"{why}; the controller's defaults are assumed{remedy}",))


@pytest.mark.parametrize("namespace", [HERE, THERE, INSTALLED])
async def test_settings_are_found_wherever_a_controller_publishes_them(namespace: str) -> None:
    """The command's namespace, that of the credentials, that of the manifests."""
    api = ApiServer()
    publish(api, namespace)
    assert await read(api, WHERE) == Reading(SETTINGS, f"ConfigMap {namespace}/vmsim-controller")


async def test_the_first_namespace_with_settings_decides() -> None:
    """Only there the rest is not read."""
    api = ApiServer()
    publish(api, THERE)
    publish(api, INSTALLED, DEFAULTS)
    assert (await read(api, WHERE)).settings == SETTINGS
    assert api.requests == ["get configmaps"] * 2


async def test_each_class_has_the_settings_of_its_own_controller() -> None:
    """Another class's are never used, nor those of the controller without a class."""
    api = ApiServer()
    publish(api, THERE)
    publish(api, INSTALLED, DEFAULTS, name="vmsim-controller-blue")
    found = await read_classes(api, WHERE, (None, "blue", "red"))
    assert found == {
        None: Reading(SETTINGS, "ConfigMap default/vmsim-controller"),
        "blue": Reading(DEFAULTS, "ConfigMap vmsim-system/vmsim-controller-blue"),
        "red": defaults(
            "no controller has published ConfigMap vmsim-controller-red in namespace team-a or default or vmsim-system"
        ),
    }


async def test_without_settings_the_defaults_hold() -> None:
    """A ConfigMap of another client has none."""
    api = ApiServer()
    publish(api, THERE, labels={})
    assert await read(api, WHERE) == defaults(
        "no controller has published ConfigMap vmsim-controller in namespace team-a or default or vmsim-system"
    )


async def test_a_missing_right_is_named() -> None:
    """Unless another namespace has the settings."""
    api = ApiServer()
    api.failures["get configmaps"] = FORBIDDEN
    assert await read(api, (THERE, INSTALLED)) == defaults(
        "ConfigMap vmsim-controller may not be read in namespace default, vmsim-system",
        "; ask an administrator for the right to get it",
    )


@pytest.mark.parametrize(
    "error", [errors.ServerError(500, "InternalError", "out of\norder"), errors.MalformedReplyError("a page of HTML")]
)
async def test_an_answer_that_is_no_config_map_means_the_defaults(error: errors.KubeError) -> None:
    """In one line."""
    api = ApiServer()
    api.failures["get configmaps"] = error
    words = " ".join(str(error).split())
    assert await read(api, WHERE) == defaults(f"ConfigMap vmsim-controller cannot be read: {words}")


async def test_a_read_that_is_not_answered_ends() -> None:
    """After five seconds, for all classes."""
    api = ApiServer()

    async def never(_: str) -> None:
        await asyncio.Event().wait()

    api.turn = never
    began = asyncio.get_running_loop().time()
    found = await read_classes(api, WHERE, (None, "blue"))
    assert found[None] == defaults("ConfigMap vmsim-controller was not read within 5 s")
    assert found["blue"] == defaults("ConfigMap vmsim-controller-blue was not read within 5 s")
    assert asyncio.get_running_loop().time() - began == 5


async def test_a_value_that_cannot_be_read_is_named_with_its_config_map() -> None:
    """The others hold."""
    api = ApiServer()
    publish(api, THERE, data={"reference-cpu": "many"})
    found = await read(api, WHERE)
    assert found.settings == SETTINGS
    [note] = found.notes
    assert note.startswith("ConfigMap default/vmsim-controller: reference-cpu: 'many' is no quantity")


async def test_a_cluster_that_does_not_answer_is_an_error() -> None:
    """As for every request."""
    api = ApiServer()
    api.failures["get configmaps"] = errors.TransportError("refused")
    with pytest.raises(errors.TransportError):
        await read(api, WHERE)
