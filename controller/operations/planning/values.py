"""What a plan is made from, and the plan: frozen values.

Units: times are real seconds from the beginning of the drain. VMs and pods are named `namespace/name`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from controller.domain.capacity import Amount
from controller.domain.copying.record import Copying
from controller.domain.objects import Strategy, VirtualMachine
from controller.domain.settings import PublishedSettings
from controller.kube.kinds import Node, Pod

# --- what is known --------------------------------------------------------------------------------------------


class Held(msgspec.Struct, frozen=True):
    """What a pod of any owner requests on its node, and its priority."""

    pod: str
    node: str
    amount: Amount
    priority: int = 0


class Leaver(msgspec.Struct, frozen=True):
    """A VM that has to leave a node, with its pod. It may move `ready_in` seconds from now: it boots, or backs off.

    `held`: the name under which its room is held, if not its pod's.
    """

    vm: VirtualMachine
    pod: Pod | None
    ready_in: float = 0.0
    held: str | None = None


class Stayer(msgspec.Struct, frozen=True):
    """A VM on a node that the drain would wait for without end, and why."""

    vm: str
    why: str


class Leaving(msgspec.Struct, frozen=True):
    """A node that is drained. `silence`: why its kubelet finishes no deletion, so that no VM may be taken down."""

    name: str
    leavers: tuple[Leaver, ...] = ()
    stayers: tuple[Stayer, ...] = ()
    silence: str | None = None


class UnderWay(msgspec.Struct, frozen=True):
    """A move that has claimed its VM already, so that it has a slot.

    `copying`: what a live one copies since `age` seconds ago; without it the move ends `seconds` from now.
    `arrives`: the VM on its target, from which it has to leave if that is drained.
    """

    vm: str
    uid: str
    of_class: str | None
    source: str
    target: str
    pod: str | None
    strategy: Strategy
    seconds: float
    copying: Copying | None = None
    age: float = 0.0
    arrives: Leaver | None = None


class Situation(msgspec.Struct, frozen=True):
    """A cluster before a drain: its nodes, of which the drained ones are cordoned, in the order of the drain.

    `settings`: those of the controllers, by the VMs' class; with the strategy of the drain.
    """

    nodes: tuple[Node, ...]
    drained: tuple[Leaving, ...]
    held: tuple[Held, ...]
    settings: Mapping[str | None, PublishedSettings]
    under_way: tuple[UnderWay, ...] = ()
    parallel_nodes: int = 1


# --- the plan -------------------------------------------------------------------------------------------------


class Step(msgspec.Struct, frozen=True):
    """A VM that leaves: its migration has a slot from `begins` on, and the VM has left at `ends`.

    `target`: the node that the plan assumes, the first of `candidates`, on which it had room at that moment.
    `displaces`: the pods that the scheduler would preempt for it.
    """

    vm: str
    node: str
    target: str
    candidates: tuple[str, ...]
    strategy: Strategy
    begins: float
    ends: float
    displaces: tuple[str, ...] = ()


class Cause(StrEnum):
    """Why a VM stays."""

    NO_ROOM = "NoRoom"
    NO_SUITABLE_NODE = "NoSuitableNode"
    INVALID_SPEC = "InvalidSpec"
    SOURCE_NOT_READY = "SourceNodeNotReady"
    NOT_MOVABLE = "NotMovable"
    NEVER_CONVERGES = "NeverConverges"
    NO_TURN = "NoTurn"


class Blocker(msgspec.Struct, frozen=True):
    """A VM that does not leave, and why. Its migration fails at `fails`; None: it never ends, or never begins.

    `displaces`: the pods that the scheduler would preempt for it all the same.
    """

    vm: str
    node: str
    cause: Cause
    why: str
    fails: float | None = None
    displaces: tuple[str, ...] = ()


class NodePlan(msgspec.Struct, frozen=True):
    """The drain of one node: how many VMs are on it, when it begins, and when it is empty; None: never."""

    name: str
    vms: int
    begins: float | None
    empty: float | None


class NotJudged(msgspec.Struct, frozen=True):
    """Something that the plan cannot know, and the VMs that it concerns; none: possibly all."""

    what: str
    vms: tuple[str, ...] = ()


class Plan(msgspec.Struct, frozen=True):
    """What a drain would do. `at_once`: how many VMs move at the same time, at most."""

    steps: tuple[Step, ...]
    nodes: tuple[NodePlan, ...]
    blockers: tuple[Blocker, ...] = ()
    not_judged: tuple[NotJudged, ...] = ()
    at_once: int = 0

    @property
    def possible(self) -> bool:
        """Whether all nodes become empty."""
        return not self.blockers and all(node.empty is not None for node in self.nodes)

    @property
    def displaced(self) -> dict[str, tuple[str, ...]]:
        """The pods that the scheduler would preempt, by the VM for which it would."""
        moved = {step.vm: step.displaces for step in self.steps if step.displaces}
        return moved | {blocker.vm: blocker.displaces for blocker in self.blockers if blocker.displaces}

    @property
    def left(self) -> float:
        """The seconds until the last VM that leaves has left."""
        return max((step.ends for step in self.steps), default=0.0)

    @property
    def seconds(self) -> float:
        """The seconds until the last migration has ended, with success or not."""
        return max([self.left, *(blocker.fails for blocker in self.blockers if blocker.fails is not None)])
