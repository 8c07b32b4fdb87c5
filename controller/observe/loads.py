"""The load of each node: the sums over the pods in the caches, and over the holders of reservations.

Guarantees: a change costs O(1), whatever the number of pods; sums are exact, so that adding and removing an amount
leaves no remainder; a ledger's sum is unknown exactly while one of its amounts is. No load is reported before the
caches of pods are synced, since a loaded node would look idle. A pod whose change fails alters no sum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

import structlog

from controller.domain import capacity, ownership, usage
from controller.domain.capacity import Amount
from controller.domain.objects import VirtualMachine
from controller.domain.ratio import ReferenceNode
from controller.domain.usage import IDLE, Load, Usage
from controller.domain.vm import boot
from controller.engine.listeners import Subscription
from controller.engine.store import Store
from controller.kube.kinds import Node, Pod
from controller.kube.times import CLOCK_SKEW

_log = structlog.get_logger(__name__)


_LONGEST_BOOT: Final = timedelta(seconds=boot.LONGEST_OF_POD + CLOCK_SKEW)


class Sums:
    """The sum of loads on each node."""

    def __init__(self) -> None:
        self._loads: dict[str, Load] = {}

    def add(self, node: str, load: Load) -> None:
        """Add a load to a node."""
        self._loads[node] = self.on(node) + load

    def remove(self, node: str, load: Load) -> None:
        """Remove a load that was added to a node."""
        left = self._loads[node] - load
        if left == IDLE:
            del self._loads[node]
        else:
            self._loads[node] = left

    def on(self, node: str) -> Load:
        """Return the total load of a node."""
        return self._loads.get(node, IDLE)

    def clear(self) -> None:
        """Remove all loads."""
        self._loads.clear()


class Ledger:
    """Amounts by holder, and their sums on each node: of all holders, and of those of each priority.

    A holder is identified by a string, such as a pod's UID.
    """

    def __init__(self) -> None:
        self._held: dict[str, tuple[str, Load, int]] = {}
        self._sums = Sums()
        # The lowest priority first. There are few: a new one costs a sort, and `below` a step for each.
        self._of_priority: dict[int, Sums] = {}

    def __contains__(self, holder: str) -> bool:
        return holder in self._held

    def put(self, holder: str, node: str, amount: Amount, priority: int = 0) -> None:
        """Set the amount that a holder has on a node; it replaces the holder's former one."""
        self.drop(holder)
        load = Load.holding(amount)
        self._held[holder] = node, load, priority
        self._sums.add(node, load)
        if priority not in self._of_priority:
            self._of_priority = dict(sorted({**self._of_priority, priority: Sums()}.items()))
        self._of_priority[priority].add(node, load)

    def drop(self, holder: str) -> str | None:
        """Remove a holder's amount; return the node that it was on, None if there was none."""
        held = self._held.pop(holder, None)
        if held is None:
            return None
        node, load, priority = held
        self._sums.remove(node, load)
        self._of_priority[priority].remove(node, load)
        return node

    def on(self, node: str) -> Amount:
        """Return the sum of the amounts on a node."""
        return self._sums.on(node).held

    def below(self, node: str, priority: int) -> Iterator[tuple[int, Amount]]:
        """Yield the lower priorities, the lowest first, each with the sum of its amounts on a node, if it has any."""
        for lower, sums in self._of_priority.items():
            if lower >= priority:
                return
            if (load := sums.on(node)) is not IDLE:
                yield lower, load.held


class NodeLoads:
    """The usage of all nodes, by the pods of some stores. A VM that boots uses nothing, and does not run yet.

    Of the two pods of a VM that moves live, the one that is not the VM adds its requests alone. A capacity that cannot
    be parsed is logged once per value.
    """

    def __init__(
        self,
        nodes: Store[Node],
        pods: Iterable[Store[Pod]],
        reference: ReferenceNode,
        vms: Iterable[Store[VirtualMachine]] = (),
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._nodes = nodes
        self._now = now
        # The VMs that move live, by UID.
        self._moving: dict[str, VirtualMachine] = {}
        # Of the pods whose guest was booting at the last reading: what they add to their node once it runs, by UID.
        self._booting: dict[str, _Boot] = {}
        self._pods = tuple(pods)
        self._reference = reference
        self._sums = Sums()
        nodes.listen(_node_changed, name="NodeCapacities")
        listener = Subscription[Pod](self._changed, name="NodeMetrics", reset=self._clear)
        for store in self._pods:
            store.subscribe(listener)
        for vm_store in vms:
            vm_store.listen(self._vm_changed, name="NodeMetricsOfMoves")

    def usage(self) -> Iterator[tuple[str, Usage]]:
        """Yield the current usage of each node; nothing before all pod caches are synced."""
        if not all(store.filled for store in self._pods):
            return
        self._finish_boots()
        twice = self._counted_twice()
        for node in list(self._nodes):
            name = node.metadata.name
            yield name, usage.usage(node, self._sums.on(name) - twice.on(name), self._reference)

    def _counted_twice(self) -> Sums:
        """Return what the second pods of the VMs that move live use; few VMs move at a time."""
        found = Sums()
        for vm in self._moving.values():
            claim = vm.status.migration
            if claim is None:
                continue
            second = claim.source_incarnation if vm.status.incarnation == claim.target else claim.target
            for pod in (pod for store in self._pods for pod in store.by_index(vm.metadata.key)):
                added = (
                    usage.of(pod) if ownership.incarnation(pod) == second and ownership.belongs_to(pod, vm) else None
                )
                if added is not None and pod.metadata.uid not in self._booting:
                    node, load = added
                    found.add(node, Load(load.running, load.cpu, load.memory))
        return found

    def _vm_changed(self, old: VirtualMachine | None, new: VirtualMachine | None) -> None:
        if old is not None:
            self._moving.pop(old.metadata.uid, None)
        if new is not None and new.status.migration is not None and new.status.migration.is_live:
            self._moving[new.metadata.uid] = new

    def _changed(self, old: Pod | None, new: Pod | None) -> None:
        if old is not None and new is not None and usage.same(old, new):
            return
        before, after = usage.of(old), usage.of(new)  # may raise, so it precedes the first change of a sum
        boots = _boot(new, after)
        if before is not None:
            booting = self._booting.pop(old.metadata.uid, None) if old is not None else None
            self._sums.remove(*(before if booting is None else booting.until))
        if boots is not None and new is not None:
            self._booting[new.metadata.uid] = boots
            after = boots.until
        if after is not None:
            self._sums.add(*after)

    def _finish_boots(self) -> None:
        """Count what the guests use that have booted since the last reading."""
        now = self._now()
        for uid in [uid for uid, boots in self._booting.items() if not now < boots.ends <= now + _LONGEST_BOOT]:
            boots = self._booting.pop(uid)
            self._sums.remove(*boots.until)
            self._sums.add(*boots.after)

    def _clear(self) -> None:
        self._booting.clear()
        self._sums.clear()


class _Boot(NamedTuple):
    """The load of a pod on its node until its guest has booted, and after that."""

    ends: datetime
    until: tuple[str, Load]
    after: tuple[str, Load]


def _boot(pod: Pod | None, load: tuple[str, Load] | None) -> _Boot | None:
    """Return what a pod adds while its guest boots and after that; None if it does not boot, or does not run."""
    ends = boot.ends(pod) if pod is not None and load is not None else None
    if ends is None or load is None or not load[1].running:
        return None
    node, after = load
    idle = Load(requested=after.requested, unreadable=after.unreadable)
    return _Boot(ends, (node, idle), (node, after))


def _node_changed(old: Node | None, new: Node | None) -> None:
    if new is None or (old is not None and old.status == new.status):
        return
    known = frozenset(capacity.unreadable(old)) if old is not None else frozenset()
    for why in capacity.unreadable(new):
        if why not in known:
            _log.warning("a node's allocatable cannot be read: its ratio is 1", node=new.metadata.name, error=why)
