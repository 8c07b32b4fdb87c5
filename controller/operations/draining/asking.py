"""Asking for the migrations of a node's VMs, until the API server has said yes or no to each.

Guarantees: a VM gets one migration of ours at most, always asked for under one name; what was not answered is asked
again or looked for, with a backoff, as often as the API server wants and no more; a refusal is final, and keeps no
other VM from moving.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from controller.domain import names
from controller.domain.objects import VirtualMachine, VirtualMachineMigration
from controller.domain.resources import MIGRATIONS
from controller.engine.backoff import Backoff
from controller.engine.store import Store
from controller.kube import naming
from controller.kube.errors import (
    AlreadyExistsError,
    ConflictError,
    KubeError,
    NotFoundError,
    StatusError,
    TooManyRequestsError,
    TransportError,
)
from controller.operations import migrations as moves
from controller.operations.api import SERVER_DEADLINE, Api
from controller.operations.draining.survey import Survey
from controller.operations.errors import translated
from controller.operations.parallel import passing, retry_after
from controller.operations.text import one_line

PRIORITY: Final = "system-critical"
_NEVER: Final = float("-inf")
_LONGEST_PAUSE: Final = 30.0
"""Seconds between two rounds of questions to an API server that does not answer them."""


def label(node: str) -> str:
    """Return the label's value by which the migrations of a drain are found: node names may be longer than labels."""
    return naming.label_value(node)


@dataclass(frozen=True, slots=True)
class _Question:
    """When a migration was asked for that may be there (monotonic, in seconds), and what was said instead of that."""

    at: float
    said: str


class Asking:
    """What one drain has asked for the VMs of one node.

    `rng` makes the names of its migrations its own; `say` is told of each that was created.
    """

    def __init__(self, client: Api, node: str, reason: str, rng: Random, say: Callable[[str], None]) -> None:
        self._client = client
        self._node = node
        self._reason = reason
        self._say = say
        self._id = f"{rng.getrandbits(64):x}"
        self._clock = asyncio.get_running_loop().time
        self._backoff = Backoff(self._clock, rng)
        self.created: dict[str, VirtualMachineMigration] = {}
        """Our migrations, as they were made, by VM; as all that follows."""
        self._refused: dict[str, str] = {}
        self._requests: dict[str, moves.MigrationRequest] = {}
        # Those without an answer, the longest ago first; none is asked for again before this time.
        self._unanswered: dict[str, _Question] = {}
        self._next_round = 0.0

    @property
    def began(self) -> bool:
        """Whether a migration of ours may be there."""
        return bool(self._requests)

    @property
    def refused(self) -> Mapping[str, str]:
        """The VMs whose migration the API server would not take, and its words."""
        return self._refused

    @property
    def unanswered(self) -> dict[str, str]:
        """The VMs whose migration may be there although nobody has said so, and what was said instead."""
        return {key: question.said for key, question in self._unanswered.items()}

    @property
    def asked(self) -> int:
        """How many VMs' migrations the API server has taken or refused."""
        return len(self.created.keys() | self._refused.keys())

    def concerns(self, key: str) -> bool:
        """Whether a migration was asked for that moves this VM."""
        return key in self._requests

    def newest(self, shown: Store[VirtualMachineMigration]) -> dict[str, VirtualMachineMigration | None]:
        """Return our migration of each VM as the cache shows it; None for one that was deleted."""
        self._recognize(shown)
        return {key: _newest(migration, shown) for key, migration in self.created.items()}

    def due(self, now: Survey) -> list[str]:
        """Return the VMs to ask about now: at once those that nobody asked about yet, the others after a pause."""
        fresh = [vm.metadata.key for vm in now.to_move if vm.metadata.key not in self._unanswered]
        return fresh + (list(self._unanswered) if self._clock() >= self._next_round else [])

    async def ask(self, due: Sequence[str], to_move: Iterable[VirtualMachine]) -> None:
        """Ask once for each VM's migration, or whether it is there if the VM needs none any more."""
        needed = {vm.metadata.key: vm for vm in to_move}
        self._requests |= {key: self._request(needed[key]) for key in due if key in needed}
        pause = 0.0
        for place, key in enumerate(due):
            try:
                await (self._create(key) if key in needed else self._look_for(key))
            except KubeError as error:
                if not (passing(error) or isinstance(error, ConflictError)):  # a quota's count moves under many creates
                    self._refuse(key, error)
                    continue
                pause = max(pause, retry_after(error) or 0.0)
                # Load, and a server out of reach, would keep the others from an answer, too. They are first next time.
                rest = due[place + 1 :] if isinstance(error, TooManyRequestsError | TransportError) else ()
                for other in rest:
                    self._leave_open(other, error)
                self._leave_open(key, error, at=self._clock() if key in needed else _NEVER)
                if rest:
                    break
        if not self._unanswered.keys().isdisjoint(due):
            self._next_round = self._clock() + min(self._backoff.delay(at_least=pause), _LONGEST_PAUSE)

    def _request(self, vm: VirtualMachine) -> moves.MigrationRequest:
        """Return what is asked for, always under the same name: asking again makes no second migration."""
        return moves.MigrationRequest(
            vm=vm.metadata.name,
            namespace=vm.metadata.namespace,
            reason=self._reason,
            priority=PRIORITY,
            labels={names.DRAIN_LABEL: label(self._node)},
            name=names.migration_name(vm.metadata.name, f"{self._id}/{vm.metadata.uid}"),
        )

    async def _create(self, key: str) -> None:
        request = self._requests[key]
        try:
            created = await self._client.create(
                MIGRATIONS, moves.manifest(request), namespace=request.namespace, server_deadline=SERVER_DEADLINE
            )
        except AlreadyExistsError:
            created = await self._get(request)
            if not self._is_ours(created, key):
                raise
        self._take(key, created)

    async def _look_for(self, key: str) -> None:
        try:
            found = await self._get(self._requests[key])
        except NotFoundError:
            if self._clock() >= self._unanswered[key].at + SERVER_DEADLINE:  # before that it may yet come
                del self._unanswered[key]
            return
        self._take(key, found)

    async def _get(self, request: moves.MigrationRequest) -> VirtualMachineMigration:
        return await self._client.get(MIGRATIONS, str(request.name), namespace=request.namespace)

    def _recognize(self, shown: Store[VirtualMachineMigration]) -> None:
        """Take what was carried out although its answer was lost."""
        for key in list(self._unanswered):
            request = self._requests[key]
            found = shown.get(f"{request.namespace}/{request.name}")
            if found is not None and self._is_ours(found, key):
                self._take(key, found)

    def _take(self, key: str, migration: VirtualMachineMigration) -> None:
        self._unanswered.pop(key, None)
        self.created[key] = migration
        self._say(f"{key}: migration {migration.metadata.name} created")

    def _refuse(self, key: str, error: KubeError) -> None:
        if not isinstance(error, StatusError):
            raise error
        self._unanswered.pop(key, None)
        self._refused[key] = one_line(error.message)

    def _leave_open(self, key: str, error: KubeError, *, at: float = _NEVER) -> None:
        """Note what was said instead of an answer; `at` is when the migration was asked for, if it was."""
        before = self._unanswered.pop(key, None)
        at = max(at, before.at if before is not None else _NEVER)
        self._unanswered[key] = _Question(at, str(translated(error)))

    def _is_ours(self, migration: VirtualMachineMigration, key: str) -> bool:
        """Whether a migration of our name is not by chance somebody else's."""
        return migration.vm_key == key and migration.metadata.labels.get(names.DRAIN_LABEL) == label(self._node)


def _newest(created: VirtualMachineMigration, store: Store[VirtualMachineMigration]) -> VirtualMachineMigration | None:
    """Return what became of a migration; None once the cache shows that it was deleted."""
    shown = store.get(created.metadata.key)
    if shown is not None:
        return shown
    return None if store.has_reached(created.metadata.resource_version) else created
