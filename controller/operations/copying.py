"""How far the live migrations of a cluster are, and when each ends: for commands that show it.

Guarantees: between two changes of the migrations everything follows from the clock; nothing is polled. What a caller
may not read is left out: the moves of other namespaces then count as if there were none.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from controller.domain.objects import VirtualMachineMigration
from controller.domain.resources import MIGRATIONS
from controller.domain.settings import PublishedSettings
from controller.engine.listing import everything
from controller.engine.store import Store
from controller.kube.errors import ForbiddenError
from controller.observe import copying
from controller.observe.copying import End, Progress
from controller.operations import settings
from controller.operations.api import Api
from controller.operations.watching import watching

_COPIES: Final = "copies"


@dataclass(frozen=True, slots=True)
class Estimate:
    """How far a migration is, and when it ends at its present pace; None: not within 200 rounds."""

    progress: Progress
    end: End | None


def copies(migration: VirtualMachineMigration) -> bool:
    """Whether a migration copies its VM's memory."""
    return migration.status.copying is not None and not migration.finished


def estimates(
    migrations: Iterable[VirtualMachineMigration], published: PublishedSettings, now: datetime
) -> dict[str, Estimate]:
    """Return how far each of these migrations that copies is, by its UID."""
    speed = published.policy.speed
    found = copying.progress(migrations, capacity=published.live.capacity, speed=speed, now=now)
    return {uid: Estimate(one, copying.end(one, speed=speed)) for uid, one in found.items()}


class Copies:
    """The migrations that copy, as they go on."""

    def __init__(
        self,
        store: Store[VirtualMachineMigration],
        reading: settings.Reading,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._live = reading.settings.live
        self._speed = reading.settings.policy.speed
        self._clock = clock
        self._last = copying.NONE
        self.notes = reading.notes
        """Lines for the user: what is assumed of the controller's settings."""

    def estimate(self, migration: VirtualMachineMigration) -> Estimate | None:
        """Return how far a migration is now; None if it does not copy."""
        found = self._now().get(migration.metadata.uid)
        return Estimate(found, copying.end(found, speed=self._speed)) if found is not None else None

    def leaving(self, node: str) -> tuple[Estimate, ...]:
        """Return how far the migrations are that copy away from a node."""
        now = self._now()
        return tuple(
            Estimate(found, copying.end(found, speed=self._speed))
            for migration in self._store.by_index(_COPIES)
            if migration.status.source_node == node and (found := now.get(migration.metadata.uid)) is not None
        )

    def _now(self) -> Mapping[str, Progress]:
        self._last = copying.progress(
            self._store.by_index(_COPIES),
            capacity=self._live.capacity,
            speed=self._speed,
            now=self._clock(),
            before=self._last,
        )
        return self._last


@asynccontextmanager
async def following(
    client: Api, namespace: str, places: Sequence[str], of_class: str | None = None
) -> AsyncIterator[Copies]:
    """Follow the migrations that copy, those of `namespace` if the caller may not read all.

    `places` are the namespaces in which the settings of the controllers of a class are looked for. Raises KubeError,
    and NotListedError as `watching` does.
    """
    reading = (await settings.read_classes(client, places, (of_class,)))[of_class]
    async with AsyncExitStack() as stack:
        try:
            store = await stack.enter_async_context(watching(client, MIGRATIONS, _unheard, index=_copies))
        except ForbiddenError:
            store = await stack.enter_async_context(
                watching(client, MIGRATIONS, _unheard, namespace=namespace, index=_copies)
            )
        yield Copies(store, reading)


async def beside(client: Api, found: Sequence[VirtualMachineMigration]) -> Sequence[VirtualMachineMigration]:
    """Return the migrations of all namespaces, with which those found share links; if they may be read."""
    try:
        return await everything(client, MIGRATIONS)
    except ForbiddenError:
        return found


def _copies(migration: VirtualMachineMigration) -> str | None:
    return _COPIES if copies(migration) else None


def _unheard(_old: VirtualMachineMigration | None, _new: VirtualMachineMigration | None) -> None:
    """Ignore a change: it counts with the next estimate."""
