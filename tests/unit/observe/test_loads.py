"""Loads of nodes: exact sums, also after removals."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import msgspec
import pytest
from structlog.testing import capture_logs

from controller.domain import names, ownership
from controller.domain.capacity import NOTHING, Amount
from controller.domain.objects import Claim, VirtualMachine, VMStatus
from controller.domain.ratio import ReferenceNode
from controller.engine.changes import Change
from controller.engine.store import Store
from controller.kube.kinds import Node, NodeStatus, Pod
from controller.kube.meta import ObjectMeta
from controller.kube.times import timestamp
from controller.observe.loads import Ledger, NodeLoads
from tests.unit.domain.builders import NOW, pod, running, vm

SOME = Amount(Decimal("0.1"), Decimal(3), 1)
ODD = Amount(pods=1, unknown=True)
REFERENCE = ReferenceNode.of(cpu="32", memory="256Gi")


def test_amounts_are_summed_by_node() -> None:
    """Over all holders."""
    ledger = Ledger()
    for who, node in (("a", "n1"), ("b", "n1"), ("c", "n2")):
        ledger.put(who, node, SOME)
    assert [ledger.on("n1"), ledger.on("n2"), ledger.on("n3")] == [SOME + SOME, SOME, NOTHING]


def test_put_replaces_the_amount_of_a_holder() -> None:
    """A pod has one node."""
    ledger = Ledger()
    ledger.put("a", "n1", SOME)
    ledger.put("a", "n2", SOME)
    assert [ledger.on("n1"), ledger.on("n2")] == [NOTHING, SOME]


def test_adding_and_removing_an_amount_leaves_no_remainder() -> None:
    """Sums are exact."""
    ledger = Ledger()
    for who in "abc":
        ledger.put(who, "n", SOME)
    assert [ledger.drop(who) for who in "abca"] == ["n", "n", "n", None]
    assert ledger.on("n") == NOTHING


def test_a_sum_is_unknown_only_while_a_part_of_it_is() -> None:
    """A malformed pod does not affect its node after its deletion."""
    ledger = Ledger()
    ledger.put("a", "n", SOME)
    ledger.put("odd", "n", ODD)
    assert ledger.on("n").unknown
    ledger.drop("odd")
    assert ledger.on("n") == SOME


def test_amounts_of_lower_priorities_are_summed_by_priority() -> None:
    """The lowest first; priorities without an amount on the node are left out."""
    ledger = Ledger()
    for who, node, priority in (("a", "n1", 7), ("b", "n1", -5), ("c", "n1", 7), ("d", "n1", 9), ("e", "n2", 0)):
        ledger.put(who, node, SOME, priority)
    assert list(ledger.below("n1", 9)) == [(-5, SOME), (7, SOME + SOME)]
    assert list(ledger.below("n1", -5)) == []
    ledger.drop("b")
    assert list(ledger.below("n1", 8)) == [(7, SOME + SOME)]


# --- the loads of nodes, by the caches ----------------------------------------------------------------------


def node(name: str, version: int = 1, cpu: str = "32") -> Node:
    """Return a node."""
    return Node(
        metadata=ObjectMeta(name=name, resource_version=str(version)),
        status=NodeStatus(allocatable={"cpu": cpu, "memory": "256Gi"}),
    )


def test_no_usage_is_reported_before_all_pod_caches_are_synced() -> None:
    """A loaded node would look idle to a load balancer."""
    nodes: Store[Node] = Store()
    nodes.replace([node("kwok-node-1")], "10")
    full: Store[Pod] = Store()
    empty: Store[Pod] = Store()
    loads = NodeLoads(nodes, [full, empty], REFERENCE)
    full.replace([running(vm())], "10")
    assert list(loads.usage()) == []

    empty.replace([], "10")
    assert [(name, usage.vms) for name, usage in loads.usage()] == [("kwok-node-1", 1)]


@pytest.mark.parametrize("half_way", [False, True])
def test_after_a_failure_the_loads_are_those_of_a_fresh_process(*, half_way: bool) -> None:
    """An event that was applied in part, or twice, leaves no error in the sums."""

    class Faulty(NodeLoads):
        """Fails on one change, once, before or after what it does."""

        def _changed(self, old: Pod | None, new: Pod | None) -> None:
            faulty = old is not None and new is not None and new.metadata.name == odd.metadata.name
            if faulty and not half_way:
                raise ZeroDivisionError
            super()._changed(old, new)
            if faulty:
                raise ZeroDivisionError

    odd = running(vm(name="odd", uid="odd"))
    other = running(vm(name="b", uid="b"))
    nodes: Store[Node] = Store()
    pods: Store[Pod] = Store()
    subject = Faulty(nodes, [pods], REFERENCE)
    nodes.replace([node("kwok-node-1"), node("kwok-node-2")], "10")
    pods.replace([odd, other], "200")
    moved = msgspec.structs.replace(odd, spec=msgspec.structs.replace(odd.spec, node_name="kwok-node-2"))
    pods.apply(Change.of(moved))

    fresh_pods: Store[Pod] = Store()
    fresh = NodeLoads(nodes, [fresh_pods], REFERENCE)
    fresh_pods.replace(list(pods), "300")
    assert pods.subscriptions[0].failures == 1
    assert list(subject.usage()) == list(fresh.usage())
    assert dict(subject.usage())["kwok-node-2"].vms == 1


def test_a_malformed_capacity_is_logged_once_for_each_value() -> None:
    """Not at every heartbeat or scrape."""
    with capture_logs() as logs:
        nodes: Store[Node] = Store()
        loads = NodeLoads(nodes, [pods := Store[Pod]()], REFERENCE)
        nodes.replace([node("kwok-node-1"), node("kwok-node-2")], "10")
        pods.replace([], "10")
        for version, text in enumerate(["many", "many", "few", "32"], 20):
            nodes.apply(Change.of(node("kwok-node-1", version, cpu=text)))
            assert len(list(loads.usage())) == 2
    assert [(line["node"], line["error"].partition(" is no")[0]) for line in logs] == [
        ("kwok-node-1", "cpu: 'many'"),
        ("kwok-node-1", "cpu: 'few'"),
    ]


# --- VMs that boot ------------------------------------------------------------------------------------------------


def _booting(uid: str, seconds: int) -> Pod:
    machine = vm(name=uid, uid=uid, annotations={names.BOOT_TIME: f"{seconds}s"})
    pod = running(machine)
    return msgspec.structs.replace(pod, status=msgspec.structs.replace(pod.status, start_time=timestamp(NOW)))


def test_a_vm_that_boots_uses_nothing_and_counts_when_it_has_booted() -> None:
    """What it requests counts from the beginning."""
    nodes, pods, now = Store[Node](), Store[Pod](), NOW
    loads = NodeLoads(nodes, [pods], REFERENCE, now=lambda: now)
    nodes.replace([node("kwok-node-1")], "10")
    pods.replace([_booting("a", 60), _booting("b", 120)], "10")

    [(_, found)] = loads.usage()
    assert (found.vms, found.cpu, found.cpu_requested) == (0, 0, 0.3)
    now = NOW + timedelta(seconds=60)
    [(_, found)] = loads.usage()
    assert (found.vms, found.cpu, found.cpu_requested) == (1, 0.15, 0.3)
    now = NOW + timedelta(seconds=120)
    [(_, found)] = loads.usage()
    assert (found.vms, found.cpu, found.cpu_requested) == (2, 0.3, 0.3)


@pytest.mark.parametrize("elapsed", [30, 90])
def test_a_vm_that_is_deleted_leaves_no_remainder_whether_it_had_booted_or_not(elapsed: int) -> None:
    """Nor does one whose pod changes while it boots."""
    nodes, pods, now = Store[Node](), Store[Pod](), NOW
    loads = NodeLoads(nodes, [pods], REFERENCE, now=lambda: now)
    nodes.replace([node("kwok-node-1")], "10")
    pod = _booting("a", 60)
    pods.replace([pod], "200")
    list(loads.usage())
    edited = {**pod.metadata.annotations, names.CPU_CONSUMPTION: "0.5"}
    changed = msgspec.structs.replace(
        pod, metadata=msgspec.structs.replace(pod.metadata, annotations=edited, resource_version="201")
    )
    pods.apply(Change.of(changed))
    now = NOW + timedelta(seconds=elapsed)
    [(_, found)] = loads.usage()
    assert found.cpu == (0.5 if elapsed > 60 else 0)
    pods.replace([], "300")
    [(_, found)] = loads.usage()
    assert (found.vms, found.cpu, found.cpu_requested) == (0, 0, 0)


# --- VMs that move live -------------------------------------------------------------------------------------------


def test_a_vm_that_moves_live_is_counted_once_on_the_node_of_the_pod_that_its_status_names() -> None:
    """What the other pod requests counts on its node, too."""
    nodes, pods, vms = Store[Node](), Store[Pod](index=ownership.vm_key), Store[VirtualMachine]()
    loads = NodeLoads(nodes, [pods], REFERENCE, [vms])
    nodes.replace([node("kwok-node-1"), node("kwok-node-2")], "10")
    claim = Claim(name="m", uid="m", source_incarnation=0, strategy="Live", target_incarnation=1)
    source, target = running(vm()), pod(vm(), 1, phase="Running", node="kwok-node-2")
    pods.replace([source, target], "10")
    found = []
    for version, (number, moving) in enumerate([(0, claim), (1, claim), (1, None)], 20):
        status = VMStatus(phase="Running", incarnation=number, migration=moving)
        machine = vm(status=status)
        vms.apply(
            Change.of(
                msgspec.structs.replace(
                    machine, metadata=msgspec.structs.replace(machine.metadata, resource_version=str(version))
                )
            )
        )
        if moving is None:
            pods.replace([target], "30")
        found.append([(used.vms, used.cpu, used.cpu_requested) for _, used in loads.usage()])
    assert found == [[(1, 0.15, 0.15), (0, 0, 0.15)], [(0, 0, 0.15), (1, 0.15, 0.15)], [(0, 0, 0), (1, 0.15, 0.15)]]
