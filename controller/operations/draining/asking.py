"""Creates the migrations of a node's VMs, until the API server has accepted or refused each.

Guarantees: a drain creates at most one migration for a VM, always under the same name; a create of unknown outcome is
retried, or the migration is read, with a backoff that respects Retry-After; a refusal is final, and does not stop the
migrations of the other VMs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
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
from controller.kube.verbs import CREATE_DEADLINE
from controller.operations import migrations as moves
from controller.operations.api import Api
from controller.operations.draining.order import Order
from controller.operations.draining.survey import Survey
from controller.operations.errors import translated
from controller.operations.parallel import passing, retry_after
from controller.operations.text import one_line

_NEVER: Final = float("-inf")
_LONGEST_PAUSE: Final = 30.0
"""The longest backoff between two rounds of requests, in seconds."""


def label(node: str) -> str:
    """Return the value of the label that marks the migrations of a drain: a node name may be too long for one."""
    return naming.label_value(node)


@dataclass(frozen=True, slots=True)
class _Question:
    """A create without a final answer: when it was sent (monotonic seconds), and the error that was returned."""

    at: float
    error: str


class Asking:
    """The migrations that one drain creates for the VMs of one node.

    `rng` makes the names of the migrations unique to this drain; `say` gets a line for each one created.
    """

    def __init__(self, client: Api, node: str, order: Order, rng: Random, say: Callable[[str], None]) -> None:
        self._client = client
        self._node = node
        self._order = order
        self._say = say
        self._id = f"{rng.getrandbits(64):x}"
        self._clock = asyncio.get_running_loop().time
        self._backoff = Backoff(self._clock, rng)
        self.created: dict[str, VirtualMachineMigration] = {}
        """Our migrations as they were created, by the key of the VM."""
        self._refused: dict[str, str] = {}
        self._requests: dict[str, moves.MigrationRequest] = {}
        # VMs whose create has no final answer, oldest first; the next round of requests is not before `_next_round`.
        self._unanswered: dict[str, _Question] = {}
        self._next_round = 0.0

    @property
    def began(self) -> bool:
        """Whether a migration of ours may exist."""
        return bool(self._requests)

    @property
    def refused(self) -> Mapping[str, str]:
        """The VMs whose migration the API server refused, with its message."""
        return self._refused

    @property
    def unanswered(self) -> dict[str, str]:
        """The VMs whose migration may exist although its create was not confirmed, with the error."""
        return {key: question.error for key, question in self._unanswered.items()}

    @property
    def asked(self) -> int:
        """How many VMs' migrations the API server has accepted or refused."""
        return len(self.created.keys() | self._refused.keys())

    def concerns(self, key: str) -> bool:
        """Whether a migration of this VM was requested."""
        return key in self._requests

    def newest(self, shown: Store[VirtualMachineMigration]) -> dict[str, VirtualMachineMigration | None]:
        """Return our migration of each VM as the cache shows it; None for one that was deleted."""
        self._recognize(shown)
        return {key: _newest(migration, shown) for key, migration in self.created.items()}

    def due(self, now: Survey) -> list[str]:
        """Return the VMs to send requests for: new ones at once, unanswered ones after the backoff."""
        fresh = [key for key in now.to_move if key not in self._unanswered]
        return fresh + (list(self._unanswered) if self._clock() >= self._next_round else [])

    async def ask(self, due: Sequence[str], needed: Mapping[str, VirtualMachine]) -> None:
        """Send one request for each VM that is due: create its migration, or read it if the VM need not move."""
        self._requests |= {key: self._request(needed[key]) for key in due if key in needed}
        pause = 0.0
        for place, key in enumerate(due):
            try:
                await (self._create(key) if key in needed else self._look_for(key))
            except KubeError as error:
                if not (passing(error) or isinstance(error, ConflictError)):  # a quota's count conflicts
                    self._refuse(key, error)
                    continue
                pause = max(pause, retry_after(error) or 0.0)
                # Throttling and a lost connection would hit the other requests, too: those are first in the next round.
                rest = due[place + 1 :] if isinstance(error, TooManyRequestsError | TransportError) else ()
                for other in rest:
                    self._leave_open(other, error)
                self._leave_open(key, error, at=self._clock() if key in needed else _NEVER)
                if rest:
                    break
        if not self._unanswered.keys().isdisjoint(due):
            self._next_round = self._clock() + min(self._backoff.delay(at_least=pause), _LONGEST_PAUSE)

    def _request(self, vm: VirtualMachine) -> moves.MigrationRequest:
        """Return the migration to create, always under the same name: a retry makes no second migration."""
        return moves.MigrationRequest(
            vm=vm.metadata.name,
            namespace=vm.metadata.namespace,
            reason=self._order.reason,
            priority=self._order.priority,
            strategy=self._order.strategy,
            labels={names.DRAIN_LABEL: label(self._node)},
            name=names.migration_name(vm.metadata.name, f"{self._id}/{vm.metadata.uid}"),
        )

    async def _create(self, key: str) -> None:
        request = self._requests[key]
        try:
            created = await moves.send(self._client, request)
        except AlreadyExistsError:
            created = await self._get(request)
            if not self._is_ours(created, key):
                raise
        self._take(key, created)

    async def _look_for(self, key: str) -> None:
        try:
            found = await self._get(self._requests[key])
        except NotFoundError:
            if self._clock() >= self._unanswered[key].at + CREATE_DEADLINE:  # it may yet be committed
                del self._unanswered[key]
            return
        self._take(key, found)

    async def _get(self, request: moves.MigrationRequest) -> VirtualMachineMigration:
        return await self._client.get(MIGRATIONS, str(request.name), namespace=request.namespace)

    def _recognize(self, shown: Store[VirtualMachineMigration]) -> None:
        """Record the migrations that were created although the response was lost."""
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
        """Record the error of a request; `at` is when the create was sent, if it was."""
        before = self._unanswered.pop(key, None)
        at = max(at, before.at if before is not None else _NEVER)
        self._unanswered[key] = _Question(at, str(translated(error)))

    def _is_ours(self, migration: VirtualMachineMigration, key: str) -> bool:
        """Whether a migration of our name is ours and not a foreign one of the same name."""
        return migration.vm_key == key and migration.metadata.labels.get(names.DRAIN_LABEL) == label(self._node)


def _newest(created: VirtualMachineMigration, store: Store[VirtualMachineMigration]) -> VirtualMachineMigration | None:
    """Return a migration as the cache has it; None once the cache shows that it was deleted."""
    shown = store.get(created.metadata.key)
    if shown is not None:
        return shown
    return None if store.has_reached(created.metadata.resource_version) else created
