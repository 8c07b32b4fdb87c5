"""The input of a decision about a migration, and its output: a plan, or a question.

Guarantees: frozen values. The reconciler answers a question in the view's `answers`, and calls the decision again.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import TypeAlias

import msgspec

from controller.domain.copying.policy import DEFAULT_COPYING, CopyingPolicy
from controller.domain.migration.copying import Progress
from controller.domain.migration.demand import Demand
from controller.domain.migration.phases import Reason
from controller.domain.objects import Claim, MigrationStatus, Strategy, VirtualMachine, VirtualMachineMigration
from controller.kube.kinds import Node, Pod


class Refused(msgspec.Struct, frozen=True):
    """A refusal by preflight. With `for_good` the migration fails at once, else it waits until its timeout."""

    reason: Reason
    message: str
    for_good: bool


# --- questions ----------------------------------------------------------------------------------------------


class AskOrphaned(msgspec.Struct, frozen=True):
    """Whether the migration of this claim no longer exists; the cache, which may lag, does not have it."""

    claim: Claim


class AskSlot(msgspec.Struct, frozen=True):
    """Whether the VM gets a slot now, or waits for one."""

    demand: Demand


class AskNode(msgspec.Struct, frozen=True):
    """Which node has capacity for the target pod."""

    demand: Demand


class AskDryRun(msgspec.Struct, frozen=True):
    """Whether the API server would create the target pod of this claim, once `source` is deleted.

    `beside`: the source pod of a live move, which stays.
    """

    claim: Claim
    source: Pod | None
    beside: Pod | None = None


Ask: TypeAlias = AskOrphaned | AskSlot | AskNode | AskDryRun


class Answers(msgspec.Struct, frozen=True):
    """The answers so far.

    - `slot`: the VM has a slot. `node`: the node with capacity; "" if the controller may not list nodes.
      `by_preemption`: it has capacity once pods of lower priority are preempted. `accepted`: the API server would
      create the target pod.
    - `refused`: the last answer was a refusal. `later`: seconds until there can be an answer.
    - `orphaned`: the claim's migration no longer exists. `unsettled`: seconds for which a target that is bound by a
      claim from before its rollback may still be created.
    """

    slot: bool = False
    node: str | None = None
    by_preemption: bool = False
    accepted: bool = False
    refused: Refused | None = None
    later: float = 0.0
    orphaned: bool = False
    unsettled: float = 0.0


NO_ANSWERS = Answers()


class View(msgspec.Struct, frozen=True):
    """What the caches show of one VM and one of its migrations; `migration` is None if only a claim names it.

    - `history`: all migrations of the VM and of its namesakes. `answers`: the answers to the questions of `decide`.
    - `source_node`: the node that the VM leaves. `target_node`: the node that the migration names. Either is None if
      there is no such node, or, without `nodes_known`, if the controller may not list nodes.
    - `strategy`: the installation's, for a migration that names none; `live`: its settings of live ones.
    - `progress`: how far the copying of a live one is now; None before its status says that it copies.
    - `guessed`: the controller may not list all pods on the nodes.
    - `refused_since`: when each reason of a refusal was first seen.
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
    strategy: Strategy = Strategy.RECREATE
    live: CopyingPolicy = DEFAULT_COPYING
    progress: Progress | None = None
    refused_since: Mapping[str, datetime] = MappingProxyType({})


# --- actions ------------------------------------------------------------------------------------------------


class WriteMigration(msgspec.Struct, frozen=True):
    """Replace the migration's status if it is still as the cache shows it."""

    status: MigrationStatus


class ClaimVM(msgspec.Struct, frozen=True):
    """Put a claim on the VM, change it, or (None) remove it; guarded by the VM's version."""

    claim: Claim | None


class HandOver(msgspec.Struct, frozen=True):
    """Hand the VM over to the target pod of a live claim, after a live read of it; guarded by the VM's version.

    `claim`: as it is from then on. `downtime`: seconds for which the guest was stopped.
    """

    claim: Claim
    target: Pod
    downtime: float


class ConfirmWanted(msgspec.Struct, frozen=True):
    """Guard: the cache still shows the migration as it was decided on; it may have been cancelled meanwhile.

    The claim is guarded by the VM's version, which does not change with the migration.
    """


class ConfirmVMGone(msgspec.Struct, frozen=True):
    """Guard: a live read confirms that the VM with this UID no longer exists."""

    uid: str


class ConfirmClaimLost(msgspec.Struct, frozen=True):
    """Guard: a live read of the VM confirms that it has no claim of this migration, nor was handed over by it."""


class ConfirmPodGone(msgspec.Struct, frozen=True):
    """Guard: a live read confirms that the pod does not exist: the watch shows none without its label.

    An empty UID is that of any pod of this name.
    """

    name: str
    uid: str


Guard: TypeAlias = ConfirmPodGone | ConfirmWanted | ConfirmVMGone | ConfirmClaimLost
Action: TypeAlias = WriteMigration | ClaimVM | HandOver | Guard


class Plan(msgspec.Struct, frozen=True):
    """Actions in order, and the seconds after which to reconcile again without an event."""

    actions: tuple[Action, ...] = ()
    requeue_after: float | None = None

    @property
    def claims(self) -> bool:
        """Whether it changes the VM's claim, so that the VM's other migrations wait until the cache shows that."""
        return any(isinstance(action, ClaimVM | HandOver) for action in self.actions)
