"""What a decision about a migration is made from, and what comes of it: a plan, or a question.

Guarantees: frozen values. Whoever is asked puts what became known into the view's `answers`, and has it decided again.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import TypeAlias

import msgspec

from controller.domain.migration.demand import Demand
from controller.domain.migration.phases import Reason
from controller.domain.objects import Claim, MigrationStatus, VirtualMachine, VirtualMachineMigration
from controller.kube.kinds import Node, Pod


class Refused(msgspec.Struct, frozen=True):
    """Preflight says no. `for_good` ones fail at once, the others wait until the timeout."""

    reason: Reason
    message: str
    for_good: bool


# --- what has to be known -----------------------------------------------------------------------------------


class AskOrphaned(msgspec.Struct, frozen=True):
    """Whether the migration of this claim is gone: the cache does not have it, which may be late."""

    claim: Claim


class AskSlot(msgspec.Struct, frozen=True):
    """Whether the VM may move now, or has to wait for others."""

    demand: Demand


class AskNode(msgspec.Struct, frozen=True):
    """Which node has room for the target pod."""

    demand: Demand


class AskDryRun(msgspec.Struct, frozen=True):
    """Whether the API server would make the target pod of this claim, once `source` is gone."""

    claim: Claim
    source: Pod | None


Ask: TypeAlias = AskOrphaned | AskSlot | AskNode | AskDryRun


class Answers(msgspec.Struct, frozen=True):
    """What was asked so far: is there a slot, and which node has room; would the API server make the target pod.

    A `node` of "" means that nobody may know the nodes. `refused`: the last answer was no. `later`: there is none yet;
    so many seconds until there may be one. `orphaned`: the claim's migration is gone; `unsettled`: so many seconds
    until no target can come about any more that a claim binds which was rolled back.
    """

    slot: bool = False
    node: str | None = None
    accepted: bool = False
    refused: Refused | None = None
    later: float = 0.0
    orphaned: bool = False
    unsettled: float = 0.0


NO_ANSWERS = Answers()


class View(msgspec.Struct, frozen=True):
    """What the caches show of one VM and one of its migrations; None stands for one that they lack, but a claim names.

    `history` are all migrations of the VM, and of those that had its name before. `answers` are those to what `decide`
    asked. `source_node` is the node that the VM leaves, `target_node` the one that the migration names; None if there
    is no such node, or nobody may know, which `nodes_known` tells apart. `guessed`: nobody may know all pods on the
    nodes. `refused_since`: when each reason for which it was refused was first seen.
    """

    migration: VirtualMachineMigration | None
    vm: VirtualMachine | None
    pods: tuple[Pod, ...]
    now: datetime
    history: tuple[VirtualMachineMigration, ...] = ()
    answers: Answers = NO_ANSWERS
    source_node: Node | None = None
    target_node: Node | None = None
    nodes_known: bool = False
    guessed: bool = False
    refused_since: Mapping[str, datetime] = MappingProxyType({})


# --- what is to be done -------------------------------------------------------------------------------------


class WriteMigration(msgspec.Struct, frozen=True):
    """Replace the migration's status if it is still as the cache shows it."""

    status: MigrationStatus


class ClaimVM(msgspec.Struct, frozen=True):
    """Put a claim on the VM, change it, or (None) take it away; guarded by the VM's version."""

    claim: Claim | None


class ConfirmWanted(msgspec.Struct, frozen=True):
    """Go on only if the cache still shows the migration as it was decided on: it may be cancelled meanwhile.

    The claim is guarded by the VM's version, which says nothing of that.
    """


class ConfirmVMGone(msgspec.Struct, frozen=True):
    """Go on only if a live read, too, shows no VM of this UID."""

    uid: str


class ConfirmClaimLost(msgspec.Struct, frozen=True):
    """Go on only if a live read of the VM, too, shows no claim of this migration."""


Guard: TypeAlias = ConfirmWanted | ConfirmVMGone | ConfirmClaimLost
Action: TypeAlias = WriteMigration | ClaimVM | Guard


class Plan(msgspec.Struct, frozen=True):
    """Actions in order, and when to look again although nothing happened (seconds)."""

    actions: tuple[Action, ...] = ()
    requeue_after: float | None = None

    @property
    def claims(self) -> bool:
        """Whether it changes what binds the VM, so that the VM's other migrations wait until the cache shows that."""
        return any(isinstance(action, ClaimVM) for action in self.actions)
