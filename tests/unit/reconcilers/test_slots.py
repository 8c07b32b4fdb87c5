"""Migration slots: limits, ranks, demands that are passed over, and no state of deleted VMs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from decimal import Decimal
from types import MappingProxyType
from typing import Final

import pytest

from controller.domain.capacity import Amount
from controller.domain.migration.demand import Demand
from controller.domain.migration.limits import Limits
from controller.domain.migration.phases import Reason
from controller.domain.migration.plan import Refused
from controller.domain.objects import Claim, MigrationSpec, VirtualMachine, VirtualMachineMigration, VMStatus
from controller.domain.vm.placement import Placement
from controller.kube.meta import ObjectMeta
from controller.reconcilers.migration.slots import PROBE_PERIOD, MigrationSlots
from tests.unit.clock import Clock

NO_ROOM = Refused(Reason.NO_ROOM, "no node has room", for_good=False)
_PRIORITIES: Final = MappingProxyType({0: "system-critical", 1: "user-triggered", 3: None})


def vm(
    name: str, node: str = "node-1", *, uid: str | None = None, version: int = 1, moves: bool = False
) -> VirtualMachine:
    """A VM on a node; `moves`: it is claimed."""
    claim = Claim(name="m", uid="m", source_node=node) if moves else None
    metadata = ObjectMeta(name=name, namespace="default", uid=uid or name, resource_version=str(version))
    return VirtualMachine(metadata, status=VMStatus(node_name=node, migration=claim))


def move(of: str, *, age: int = 0, priority: int = 3, uid: str | None = None) -> VirtualMachineMigration:
    """A migration of a VM; a smaller `age` is older."""
    uid = uid or f"m-{of}"
    metadata = ObjectMeta(name=uid, namespace="default", uid=uid, creation_timestamp=f"2026-01-15T10:00:{age:02}Z")
    return VirtualMachineMigration(metadata, MigrationSpec(vm_name=of, priority=_PRIORITIES[priority]))


def demand(node: str = "node-1", cpu: int = 1) -> Demand:
    """A demand of so many cores, away from a node."""
    return Demand(Amount(Decimal(cpu), Decimal(0), 1), Placement(avoid=node))


class Stand:
    """Slots, and the keys that were queued."""

    def __init__(self, limits: Limits | None = None, released: Callable[[str], bool] = lambda _: False) -> None:
        self.clock = Clock()
        self.woken: list[str] = []
        self.slots = MigrationSlots(limits or Limits(), self.woken.append, self.clock, released)

    def ask(self, name: str, node: str = "node-1", *, age: int = 0, priority: int = 3, cpu: int = 1) -> str | None:
        """Ask in a VM's reconcile that does not end, so that a granted slot stays."""
        why = self.slots.ask(vm(name, node), move(name, age=age, priority=priority), demand(node, cpu))
        return why.message if why is not None else None

    def visit(self, name: str) -> AbstractContextManager[None]:
        """Begin a VM's reconcile, during which it is not deleted."""
        return self.slots.visit(vm(name), lambda: vm(name))

    def claim(self, name: str, node: str = "node-1") -> None:
        """Write a claim, and let the cache show it."""
        self.slots.claimed(vm(name, node), "2")
        self.slots.vm_changed(vm(name, node), vm(name, node, version=2, moves=True))

    def end(self, name: str, node: str = "node-1") -> None:
        """Let the cache show that a claim was removed."""
        self.slots.vm_changed(vm(name, node, version=2, moves=True), vm(name, node, version=3))


def test_a_free_slot_is_granted_at_once() -> None:
    """No other migration waits."""
    assert Stand().ask("a") is None


def test_a_slot_is_taken_when_it_is_granted() -> None:
    """Other migrations wait from then on, before the claim is written."""
    stand = Stand(Limits(cluster=1))
    assert stand.ask("a") is None
    assert stand.ask("b", "node-2") == "1 migrations are in progress; at most 1 may be at once"
    stand.claim("a")
    stand.end("a")
    assert stand.woken == ["default/b"]
    assert stand.ask("b", "node-2") is None


def test_existing_claims_use_slots() -> None:
    """Five at once."""
    stand = Stand()
    for number in range(5):
        stand.slots.vm_changed(None, vm(f"vm-{number}", f"node-{number}", moves=True))
    assert stand.ask("a", "node-9") == "5 migrations are in progress; at most 5 may be at once"


def test_the_limit_of_a_node_blocks_migrations_of_that_node_only() -> None:
    """Two may leave it at once."""
    stand = Stand()
    for name in ("vm-1", "vm-2"):
        stand.slots.vm_changed(None, vm(name, moves=True))
    assert stand.ask("a", priority=0) == "2 VMs are leaving node-1 already; at most 2 may at once"
    assert stand.ask("b", "node-2", age=9) is None


def test_the_next_slot_is_granted_to_the_best_rank() -> None:
    """Priority first, then age."""
    stand = Stand(Limits(cluster=1))
    stand.ask("first")
    stand.claim("first")
    for name, age, priority in (("old", 1, 3), ("young", 2, 3), ("urgent", 3, 0)):
        stand.ask(name, f"node-of-{name}", age=age, priority=priority)
    stand.end("first")
    assert stand.woken == ["default/urgent"]
    assert stand.ask("old", "node-of-old", age=1) is not None
    assert stand.ask("urgent", "node-of-urgent", age=3, priority=0) is None


def test_the_best_rank_of_a_vms_migrations_counts() -> None:
    """A second one of a lower priority does not lower it."""
    stand = Stand(Limits(cluster=1))
    stand.ask("first")
    a = vm("a", "node-2")
    stand.slots.ask(a, move("a", age=1, priority=0, uid="m1"), demand("node-2"))
    stand.slots.ask(a, move("a", age=2, priority=3, uid="m2"), demand("node-2"))
    stand.ask("b", "node-3", age=0, priority=1)
    stand.slots.give_back(vm("first"))
    assert stand.woken == ["default/a"]


def test_zero_means_no_limit() -> None:
    """In the cluster, and away from a node."""
    stand = Stand(Limits(cluster=0, outbound=0))
    assert [stand.ask(f"vm-{number}") for number in range(100)] == [None] * 100


def test_a_migration_that_did_not_ask_does_not_wait_for_a_slot() -> None:
    """It was cancelled, failed, or is in its backoff."""
    stand = Stand(Limits(cluster=1))
    stand.ask("first")
    stand.ask("silent", age=0, priority=0)
    with stand.visit("silent"):
        pass
    stand.slots.give_back(vm("first"))
    assert stand.woken == []
    assert stand.ask("b", age=9) is None


def test_an_unused_slot_is_given_back_at_the_end_of_the_reconcile() -> None:
    """Also after an error."""
    stand = Stand(Limits(cluster=1))

    def reconcile() -> None:
        with stand.visit("a"):
            assert stand.ask("a") is None
            stand.ask("b")
            raise ConnectionError

    with pytest.raises(ConnectionError):
        reconcile()
    assert stand.woken == ["default/b"]


def test_a_slot_granted_at_the_end_of_a_reconcile_is_for_the_next_one() -> None:
    """The key is queued again."""
    stand = Stand(Limits(cluster=1))
    stand.ask("first")
    with stand.visit("a"):
        assert stand.ask("a") is not None
        stand.slots.give_back(vm("first"))
    assert stand.ask("b", priority=0) is not None
    with stand.visit("a"):
        assert stand.ask("a") is None


def test_a_migration_without_capacity_is_passed_over_and_keeps_its_rank() -> None:
    """A younger one gets the slot; the next slot, when something has changed, is for the older one."""
    stand = Stand(Limits(cluster=1))
    big, big_move = vm("big"), move("big", age=0)
    assert stand.ask("big", age=0, cpu=9) is None
    stand.slots.pass_over(big, big_move, demand(cpu=9), NO_ROOM)
    assert stand.ask("big", age=0, cpu=9) == "no node has room"
    assert stand.ask("small", age=5) is None
    assert stand.ask("other", age=6) is not None
    stand.claim("small")
    stand.end("small")
    assert stand.woken == ["default/big"]


def test_migrations_with_an_equal_demand_are_passed_over_too() -> None:
    """The answer would be the same."""
    stand = Stand()
    stand.ask("a")
    stand.slots.pass_over(vm("a"), move("a"), demand(), NO_ROOM)
    assert [stand.ask("b"), stand.ask("c", "node-2")] == ["no node has room", None]


def test_a_released_reservation_reconsiders_only_demands_passed_over_since_its_grant() -> None:
    """Earlier ones were passed over without it."""
    stand = Stand(Limits(cluster=2), released=lambda _: True)
    for cpu, name in enumerate(("before", "while"), 1):
        if name == "while":
            assert stand.ask("refused", "node-2", cpu=7) is None
        assert stand.ask(name, cpu=cpu) is None
        stand.slots.pass_over(vm(name), move(name), demand(cpu=cpu), NO_ROOM)
    stand.slots.give_back(vm("refused"))
    assert stand.woken == ["default/while"]
    stand.slots.reconsider()
    assert stand.woken == ["default/while", "default/before"]


def test_every_five_seconds_one_demand_is_probed() -> None:
    """The one that was passed over longest ago."""
    stand = Stand()
    for cpu, name in enumerate(("a", "b", "c"), 1):
        stand.ask(name, cpu=cpu)
        stand.slots.pass_over(vm(name), move(name), demand(cpu=cpu), NO_ROOM)
    probed = []
    for second in range(1, 17):
        stand.clock.now = float(second)
        for cpu, name in enumerate(("a", "b", "c"), 1):
            if stand.ask(name, cpu=cpu) is None:
                probed.append((second, name))
                stand.slots.pass_over(vm(name), move(name), demand(cpu=cpu), NO_ROOM)
    period = int(PROBE_PERIOD)
    assert [second for second, _ in probed] == [period, 2 * period, 3 * period]
    assert [name for _, name in probed] == ["a", "b", "c"]


def test_a_deleted_vm_gives_its_slot_back() -> None:
    """It was deleted, or has another class."""
    stand = Stand(Limits(cluster=1))
    stand.ask("a")
    stand.claim("a")
    stand.ask("b")
    stand.slots.vm_changed(vm("a", version=2, moves=True), None)
    assert stand.woken == ["default/b"]
    stand.slots.vm_changed(vm("b"), None)
    assert stand.ask("c") is None


@pytest.mark.parametrize("newest", [None, vm("a", uid="another")])
def test_a_vm_deleted_during_its_reconcile_gives_its_slot_back_at_the_end(newest: VirtualMachine | None) -> None:
    """It asked again after the cache had shown its deletion."""
    stand = Stand(Limits(cluster=1))
    with stand.slots.visit(vm("a"), lambda: newest):
        stand.ask("a")
        stand.slots.vm_changed(vm("a"), newest)
        stand.slots.pass_over(vm("a"), move("a"), demand(), NO_ROOM)
        stand.slots.reconsider()
    assert stand.ask("b") is None


def test_a_vm_without_a_slot_has_no_reservation_after_its_reconcile() -> None:
    """Its slot was freed while a node was looked for."""
    reserved = {"a": True}
    stand = Stand(released=lambda uid: reserved.pop(uid, False))
    with stand.visit("a"):
        pass
    assert reserved == {}


def test_a_namesake_inherits_no_slot() -> None:
    """One change replaces the VM."""
    stand = Stand(Limits(cluster=1))
    stand.ask("a")
    stand.claim("a")
    stand.ask("b")
    stand.slots.vm_changed(vm("a", version=2, moves=True), vm("a", uid="another", version=9))
    assert stand.woken == ["default/b"]


def test_a_claim_of_a_deleted_vm_uses_no_slot() -> None:
    """The reply to the claim came after the deletion."""
    stand = Stand(Limits(cluster=1))
    stand.ask("a")
    stand.slots.vm_changed(vm("a"), None)
    stand.slots.claimed(vm("a"), "2")
    assert stand.ask("b") is None


def test_a_cached_version_from_before_the_claim_does_not_free_its_slot() -> None:
    """The cache lags."""
    stand = Stand(Limits(cluster=1))
    stand.ask("a")
    stand.slots.claimed(vm("a"), "5")
    stand.slots.vm_changed(vm("a", version=3), vm("a", version=4))
    assert stand.ask("b") is not None
    stand.slots.vm_changed(vm("a", version=4), vm("a", version=6))  # claimed at 5, and released at 6
    assert stand.woken == ["default/b"]


def test_no_state_remains_after_all_vms_are_deleted() -> None:
    """Neither slots nor demands nor waiting migrations."""
    stand = Stand()
    for number in range(20):
        name, node = f"vm-{number}", f"node-{number % 3}"
        if stand.ask(name, node, cpu=number % 4) is None:
            stand.slots.pass_over(vm(name, node), move(name), demand(node, number % 4), NO_ROOM)
    for number in range(20):
        stand.slots.vm_changed(vm(f"vm-{number}", f"node-{number % 3}"), None)
    left = {name: value for name, value in vars(stand.slots).items() if isinstance(value, dict | list) and value}
    assert left == {}


def test_a_probe_for_a_deleted_migration_costs_no_slot() -> None:
    """Another migration of the same VM asks, and still has no capacity."""
    stand = Stand(Limits(cluster=1))
    with stand.visit("a"):
        for uid, cpu in (("m-1", 1), ("m-2", 9)):
            item = move("a", uid=uid)
            assert stand.slots.ask(vm("a"), item, demand(cpu=cpu)) is None
            stand.slots.pass_over(vm("a"), item, demand(cpu=cpu), NO_ROOM)
    stand.clock.now += PROBE_PERIOD

    with stand.visit("a"):
        assert stand.slots.ask(vm("a"), move("a", uid="m-2"), demand(cpu=9)) is NO_ROOM

    assert stand.ask("b", "node-2") is None
