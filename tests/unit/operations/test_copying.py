"""How far live migrations are, for commands: over time, beside others, and for those who may not see all."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest

from controller.domain import names
from controller.domain.copying.policy import CopyingPolicy
from controller.domain.resources import MIGRATIONS
from controller.domain.settings import PublishedSettings, encode
from controller.domain.vm.policy import LauncherPolicy
from controller.kube import managers
from controller.kube.errors import ForbiddenError
from controller.kube.resources import CONFIG_MAPS
from controller.kube.verbs import Page
from controller.operations.copying import beside, estimates, following
from tests.model.staged import Staged
from tests.unit.observe.builders import BEGAN, LIVE, move

pytestmark = pytest.mark.looptime
SETTINGS = PublishedSettings(policy=LauncherPolicy(speed=2.0), live=LIVE)


class Fenced(Staged):
    """A cluster whose user may list a namespace, but not all of them."""

    async def list_page(self, *arguments: Any, limit: int, **keywords: Any) -> Page[Any]:
        """Refuse what is not of a namespace."""
        if keywords.get("namespace") is None:
            raise ForbiddenError(403, "Forbidden", "cannot list at the cluster scope")
        return await super().list_page(*arguments, limit=limit, **keywords)


def stage(cluster: Staged, *moves: tuple[str, str, str]) -> None:
    """Publish settings, and let moves copy: namespace/name, source and target."""
    cluster.put(
        CONFIG_MAPS.plural,
        f"default/{names.installation(None)}",
        metadata={"labels": {names.MANAGED_BY: managers.CONTROLLER}},
        data=encode(PublishedSettings(live=CopyingPolicy(bandwidth_per_node=1000.0))),
    )
    for key, source, target in moves:
        status = msgspec.to_builtins(move(nodes=(source, target), began=datetime.now(BEGAN.tzinfo)).status)
        cluster.put(MIGRATIONS.plural, key, spec={"vmName": "vm-1"}, status=status)


@pytest.mark.parametrize(("make", "pace"), [(Staged, 465), (Fenced, 930)])
async def test_moves_of_other_namespaces_count_if_they_may_be_seen(make: type[Staged], pace: float) -> None:
    """They share the 930 bytes a second that a link of 1,000 carries. Who may not see them is told of the own ones."""
    cluster = make()
    stage(cluster, ("default/a", "n1", "n2"), ("elsewhere/b", "n1", "n3"))
    found = await cluster.get(MIGRATIONS, "a", namespace="default")
    async with following(cluster, "default", ("default",)) as copies:
        seen = copies.estimate(found)
    assert copies.notes == ()
    assert seen is not None
    assert seen.progress.pace == pytest.approx(pace)


async def test_those_that_leave_a_node_are_told_together(cluster: Staged) -> None:
    """Not those that come to it."""
    stage(cluster, ("default/a", "n1", "n2"), ("default/b", "n1", "n3"), ("default/c", "n2", "n1"))
    async with following(cluster, "default", ("default",)) as copies:
        assert [len(copies.leaving(node)) for node in ("n1", "n2", "n3")] == [2, 1, 0]


async def test_without_published_settings_the_defaults_are_assumed_and_it_is_said(cluster: Staged) -> None:
    """As for every command that needs them."""
    async with following(cluster, "default", ("default",)) as copies:
        [note] = copies.notes
    assert "the controller's defaults are assumed" in note


async def test_a_migration_that_does_not_copy_has_no_estimate(cluster: Staged) -> None:
    """Before it copies, and after."""
    stage(cluster, ("default/a", "n1", "n2"))
    cluster.migration("a", phase="Succeeded")
    found = await cluster.get(MIGRATIONS, "a", namespace="default")
    async with following(cluster, "default", ("default",)) as copies:
        assert copies.estimate(found) is None


async def test_several_estimates_at_once_share_the_links() -> None:
    """In simulated seconds, two in a real one: half of 1,000 bytes, at 50 a second, are sent after five."""
    found = estimates((move("a"), move("b")), SETTINGS, BEGAN + timedelta(seconds=5.125))
    assert {uid: round(one.progress.share, 3) for uid, one in found.items()} == {"a": 0.5, "b": 0.5}
    assert {one.end and (one.end.at - BEGAN).total_seconds() for one in found.values()} == {(20 + 0.25 + 0.12) / 2}


async def test_who_may_not_see_all_namespaces_estimates_with_what_was_found() -> None:
    """One namespace's moves are better than none."""
    found = (move("a"),)
    assert await beside(Fenced(), found) is found
