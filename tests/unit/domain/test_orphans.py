"""Claims whose migration is gone."""

from __future__ import annotations

import msgspec
import pytest

from controller.domain.migration.plan import Answers, AskOrphaned, ClaimVM, Plan
from controller.domain.objects import Claim, VirtualMachine
from controller.domain.vm import status
from controller.kube.kinds import Pod
from controller.kube.meta import Condition
from tests.unit.domain.builders import pod
from tests.unit.domain.moves import CLAIM, asked, claimed, on_node_1, told

ROLLED_BACK = msgspec.structs.replace(CLAIM, rollback=True)
SPOILED = Condition(type=status.INVALID_SPEC, status="True")
OWNER = on_node_1()
GONE = Answers(orphaned=True)


def test_whether_the_migration_is_gone_is_asked_first() -> None:
    """The cache may be late."""
    assert asked(None, claimed(), Answers()) == AskOrphaned(CLAIM)


def test_a_vm_without_a_claim_has_nothing_to_give_back() -> None:
    """Whoever asks."""
    assert asked(None, on_node_1(), Answers()) == Plan()


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
        (told(claimed(), SPOILED), (), (ClaimVM(None),)),
        (claimed(claim=ROLLED_BACK), (pod(OWNER, 1),), ()),
        (claimed(2, claim=ROLLED_BACK), (), (ClaimVM(None),)),
    ],
)
def test_a_vm_comes_back_bound_by_nothing(
    found: VirtualMachine, pods: tuple[Pod, ...], actions: tuple[ClaimVM, ...]
) -> None:
    """A target that has no node may wait for one that never comes, so it is rolled back first."""
    assert asked(None, found, GONE, pods=pods) == Plan(actions)


@pytest.mark.parametrize(
    ("claim", "pods", "left", "plan"),
    [
        (ROLLED_BACK, (), 7.0, Plan(requeue_after=7.0)),
        (ROLLED_BACK, (), 0.0, Plan((ClaimVM(None),))),
        (ROLLED_BACK, (pod(OWNER, 1),), 0.0, Plan()),
        (CLAIM, (), 0.0, Plan((ClaimVM(ROLLED_BACK),))),
    ],
)
def test_a_claim_that_can_bind_no_target_any_more_is_not_needed(
    claim: Claim, pods: tuple[Pod, ...], left: float, plan: Plan
) -> None:
    """It ends although no target can be made; one that was made before the rollback may be bound by it."""
    answers = Answers(orphaned=True, unsettled=left)
    assert asked(None, claimed(claim=claim), answers, pods=pods) == plan
