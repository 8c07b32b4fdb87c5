"""Claims whose migration was deleted."""

from __future__ import annotations

import msgspec
import pytest

from controller.domain.migration.plan import Answers, AskOrphaned, ClaimVM, Plan
from controller.domain.objects import Claim, VirtualMachine
from controller.domain.vm import status
from controller.kube.kinds import Pod
from controller.kube.meta import Condition
from tests.unit.domain.builders import pod
from tests.unit.domain.moves import CLAIM, claimed, decided_with, having, on_node_1

ROLLED_BACK = msgspec.structs.replace(CLAIM, rollback=True)
SPOILED = Condition(type=status.INVALID_SPEC, status="True")
OWNER = on_node_1()
ORPHANED = Answers(orphaned=True)


def test_a_live_read_of_the_migration_comes_first() -> None:
    """The cache may lag."""
    assert decided_with(None, claimed(), Answers()) == AskOrphaned(CLAIM)


def test_nothing_is_done_for_a_vm_without_a_claim() -> None:
    """Nor is anything asked."""
    assert decided_with(None, on_node_1(), Answers()) == Plan()


@pytest.mark.parametrize(
    ("found", "pods", "actions"),
    [
        (claimed(0), (pod(OWNER, 0, node="kwok-node-1"),), (ClaimVM(None),)),
        (claimed(0), (), (ClaimVM(None),)),
        (claimed(), (), (ClaimVM(ROLLED_BACK),)),
        (claimed(), (pod(OWNER, 1),), (ClaimVM(ROLLED_BACK),)),
        (claimed(), (pod(OWNER, 1, node="kwok-node-2"),), (ClaimVM(None),)),
        (claimed(2), (), (ClaimVM(None),)),
        (claimed(running=False), (), (ClaimVM(None),)),
        (claimed(deleted=True), (), (ClaimVM(None),)),
        (having(claimed(), SPOILED), (), (ClaimVM(None),)),
        (claimed(claim=ROLLED_BACK), (pod(OWNER, 1),), ()),
        (claimed(2, claim=ROLLED_BACK), (), (ClaimVM(None),)),
    ],
)
def test_an_orphaned_claim_is_removed_once_the_vm_does_not_need_it(
    found: VirtualMachine, pods: tuple[Pod, ...], actions: tuple[ClaimVM, ...]
) -> None:
    """A target without a node may wait for ever, so it is rolled back first."""
    assert decided_with(None, found, ORPHANED, pods=pods) == Plan(actions)


@pytest.mark.parametrize(
    ("claim", "pods", "left", "plan"),
    [
        (ROLLED_BACK, (), 7.0, Plan(requeue_after=7.0)),
        (ROLLED_BACK, (), 0.0, Plan((ClaimVM(None),))),
        (ROLLED_BACK, (pod(OWNER, 1),), 0.0, Plan()),
        (CLAIM, (), 0.0, Plan((ClaimVM(ROLLED_BACK),))),
    ],
)
def test_a_rolled_back_claim_is_removed_once_no_earlier_create_can_commit(
    claim: Claim, pods: tuple[Pod, ...], left: float, plan: Plan
) -> None:
    """Even if no target can be created; an existing one may have been created before the rollback."""
    answers = Answers(orphaned=True, unsettled=left)
    assert decided_with(None, claimed(claim=claim), answers, pods=pods) == plan
