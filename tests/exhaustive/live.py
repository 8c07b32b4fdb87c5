"""The exhaustive test of live moves: the steps at which a controller crashes, and the interventions.

Guarantees: data and pure functions of a cluster; nothing here starts a controller. VM `vm-1` runs on `node-1`, and
migration `m-1` moves it live; `node-2` is free. A step is reached when the API server has the state that
`Point.reached` names, judged after each request, so that no row depends on the order of the writes between two steps.
`tests.exhaustive.endings` says how each row has to end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final, NamedTuple, TypeAlias

from controller.domain import names
from controller.domain.resources import MIGRATIONS, VIRTUAL_MACHINES
from controller.kube import errors
from controller.kube.resources import PODS
from tests.exhaustive.test_interventions import INTERVENTIONS
from tests.model.cluster import Cluster
from tests.model.faults import Fault
from tests.model.rules import Document

Act: TypeAlias = Callable[[Cluster], None]
Holds: TypeAlias = Callable[[Cluster], bool]


# --- what the cluster shows of the move -----------------------------------------------------------------------------


class Ends(NamedTuple):
    """The claim of a live move, with its two pods; a pod is None if it does not exist."""

    claim: Document
    source: Document | None
    target: Document | None


def ends(cluster: Cluster) -> Ends | None:
    """Return the ends of the move that the VM's status claims; None if it claims none, or does not exist."""
    vm = cluster.objects.get((VIRTUAL_MACHINES.plural, "default/vm-1"))
    claim = vm["status"].get("migration") if vm is not None else None
    return _ends_of(cluster, claim) if claim is not None and claim.get("strategy") == "Live" else None


def _ends_of(cluster: Cluster, claim: Document) -> Ends:
    pods = {pod["metadata"]["annotations"].get(names.INCARNATION): pod for pod in cluster.pods()}
    numbers = claim.get("sourceIncarnation", 0), claim["targetIncarnation"]
    return Ends(claim, *(pods.get(str(number)) for number in numbers))


def claims(cluster: Cluster) -> list[Document]:
    """Return every state of a claim of a live move on the VM, the oldest first."""
    vms = (document for plural, document, _ in cluster.log if plural == VIRTUAL_MACHINES.plural)
    found = (vm["status"].get("migration") for vm in vms)
    return [claim for claim in found if claim is not None and claim.get("strategy") == "Live"]


def handed_over(cluster: Cluster) -> bool:
    """Whether the status names the target."""
    found = ends(cluster)
    return found is not None and cluster.status()["incarnation"] == found.claim["targetIncarnation"]


def _claimed(cluster: Cluster) -> bool:
    """Whether the move is claimed, on its way, and not handed over."""
    found = ends(cluster)
    return found is not None and "aborting" not in found.claim and not handed_over(cluster)


def aborting(cluster: Cluster) -> bool:
    """Whether the move is being aborted."""
    found = ends(cluster)
    return found is not None and "aborting" in found.claim


def _target(cluster: Cluster) -> Document | None:
    found = ends(cluster)
    return found.target if found is not None else None


def _source(cluster: Cluster) -> Document | None:
    found = ends(cluster)
    return found.source if found is not None else None


def _terminates(pod: Document | None) -> bool:
    return pod is not None and "deletionTimestamp" in pod["metadata"]


def _told(cluster: Cluster) -> Document:
    """Return the status of the migration; empty if it was deleted."""
    found = cluster.objects.get((MIGRATIONS.plural, "default/m-1"), {})
    status: Document = found.get("status", {})
    return status


def _has_claim(cluster: Cluster) -> bool:
    vm = cluster.objects.get((VIRTUAL_MACHINES.plural, "default/vm-1"))
    return vm is not None and "migration" in vm["status"]


# --- crash points ---------------------------------------------------------------------------------------------------


class Half(Enum):
    """The part of a move in which a step is: it decides how the move has to end."""

    BEFORE = auto()
    AFTER = auto()
    ABORT = auto()
    POST_COPY = auto()
    LOST = auto()
    """The source was evicted in post-copy."""


@dataclass(frozen=True, slots=True)
class Point:
    """A step at which the controller crashes, and the next one takes over with empty caches.

    `reached` holds for the first time just after the request that makes the step. Then the controller dies: with
    `reply_lost` before it reads the reply, else at its next request, which is not carried out. `begin` starts the abort
    of a step of the abort path, once `begins` holds. `told`: the migration's status names the target. `live`: settings
    of the migration's copying.
    """

    name: str
    half: Half
    reached: Holds
    reply_lost: bool = False
    begins: Holds | None = None
    begin: str = "nothing"
    told: bool = False
    live: Document = field(default_factory=dict)


def _abort(name: str, reached: Holds, *, begins: Holds, begin: str = "cancel") -> Point:
    return Point(name, Half.ABORT, reached, begins=begins, begin=begin)


def copies(cluster: Cluster) -> bool:
    """Whether the target runs, and the memory is being copied."""
    return _claimed(cluster) and _told(cluster).get("phase") == "Running"


def claims_only(cluster: Cluster) -> bool:
    """Whether the move is claimed, and its target not created."""
    return _claimed(cluster) and _target(cluster) is None


def aborts_without_target(cluster: Cluster) -> bool:
    """Whether the move is being aborted, and its target does not exist any more."""
    return aborting(cluster) and _target(cluster) is None


def _gone_after_abort(cluster: Cluster) -> bool:
    return _told(cluster).get("phase") == "Failed" and not _has_claim(cluster)


def in_post_copy(cluster: Cluster) -> bool:
    """Whether the VM was handed over, and a part of its memory is on the source."""
    found = ends(cluster)
    return handed_over(cluster) and found is not None and found.claim.get("mode") == "PostCopy"


def _all_copied(cluster: Cluster) -> bool:
    """Whether post-copy is over, and the source not deleted."""
    found = ends(cluster)
    return found is not None and found.claim.get("mode") == "Copied" and found.source is not None


def _has_checkpoint(cluster: Cluster) -> bool:
    """Whether a checkpoint was written after the start of the copying."""
    return copies(cluster) and _told(cluster)["copying"]["checkpoint"].get("elapsed", 0) > 0


_POST_COPY: Final = {
    "allowPostCopy": True,
    "allowWorkloadDisruption": True,
    "completionTimeoutPerGiB": 1,
    "bandwidth": "700M",
}
"""With these, post-copy begins after 42 s, and lasts for some seconds."""
_SLOW: Final = {"bandwidth": "1G"}
"""With these, copying takes longer than the time between two checkpoints."""
POINTS: Final = (
    Point("claim made", Half.BEFORE, claims_only),
    Point("claim made, reply lost", Half.BEFORE, claims_only, reply_lost=True),
    Point("target created", Half.BEFORE, lambda cluster: _claimed(cluster) and _target(cluster) is not None),
    Point(
        "target created, reply lost",
        Half.BEFORE,
        lambda cluster: _claimed(cluster) and _target(cluster) is not None,
        reply_lost=True,
    ),
    Point("target seen", Half.BEFORE, lambda cluster: _claimed(cluster) and "targetPod" in _told(cluster), told=True),
    Point("copying", Half.BEFORE, copies, told=True),
    Point("hand-over sent, reply lost", Half.AFTER, handed_over, reply_lost=True),
    Point("handed over", Half.AFTER, handed_over),
    Point(
        "source's deletion begun",
        Half.AFTER,
        lambda cluster: handed_over(cluster) and _terminates(_source(cluster)),
    ),
    Point("source deleted", Half.AFTER, lambda cluster: handed_over(cluster) and _source(cluster) is None),
    Point(
        "claim gone, migration not yet told",
        Half.AFTER,
        lambda cluster: (
            _told(cluster).get("phase") not in (None, "Pending", "Succeeded", "Failed") and not _has_claim(cluster)
        ),
    ),
    _abort("abort marked before the target was created", aborting, begins=claims_only),
    _abort("abort marked", aborting, begins=copies),
    _abort("abort told", lambda cluster: aborting(cluster) and _told(cluster).get("phase") == "Failed", begins=copies),
    _abort(
        "target's deletion begun",
        lambda cluster: aborting(cluster) and _terminates(_target(cluster)),
        begins=copies,
    ),
    _abort("target deleted", aborts_without_target, begins=copies),
    _abort("claim gone after the abort", _gone_after_abort, begins=copies),
    _abort("source lost, abort marked", aborting, begins=copies, begin="evict source"),
    _abort("source lost, target deleted", aborts_without_target, begins=copies, begin="evict source"),
    _abort("source lost, claim gone", _gone_after_abort, begins=copies, begin="evict source"),
    Point("checkpoint written", Half.BEFORE, _has_checkpoint, told=True, live=_SLOW),
    Point("post-copy begun, reply lost", Half.POST_COPY, in_post_copy, reply_lost=True, live=_POST_COPY),
    Point("post-copy", Half.POST_COPY, in_post_copy, live=_POST_COPY),
    Point("post-copy over", Half.AFTER, _all_copied, live=_POST_COPY),
    Point("lost in post-copy", Half.LOST, aborting, begins=in_post_copy, begin="evict source", live=_POST_COPY),
)
"""Every step of a move, and of its abort, in their order."""


# --- interventions --------------------------------------------------------------------------------------------------


class ProcessChange(Enum):
    """What happens to the controller's process."""

    RESTART_AT_ANOTHER_SPEED = auto()
    OLD_LEADER = auto()
    """A leader of the release before, then a new one: the old decodes no strategy, target number, abort or memory."""


class Intervention(NamedTuple):
    """An act of a user, of the cluster, or on the controller. `other_class`: a controller of class `blue` runs, too."""

    act: Act = lambda _: None
    process: ProcessChange | None = None
    other_class: bool = False


def _end(which: str, cluster: Cluster) -> Document | None:
    """Return the pod `source` or `target` of the last move, which may have ended; None if it does not exist."""
    found = claims(cluster)
    pod: Document | None = getattr(_ends_of(cluster, found[-1]), which) if found else None
    return pod


def _evict(which: str, reason: str = "EvictionByEvictionAPI") -> Act:
    def evict(cluster: Cluster) -> None:
        pod = _end(which, cluster)
        if pod is not None and not _terminates(pod):
            cluster.evict(pod["metadata"]["name"], reason)

    return evict


def _fail(which: str) -> Act:
    def fail(cluster: Cluster) -> None:
        if (pod := _end(which, cluster)) is not None:
            cluster.set_status(PODS, f"default/{pod['metadata']['name']}", {**pod["status"], "phase": "Failed"})

    return fail


def _force_delete(which: str) -> Act:
    def delete(cluster: Cluster) -> None:
        if (pod := _end(which, cluster)) is not None:
            cluster.discard(PODS.plural, pod)

    return delete


def _lower_the_quota(cluster: Cluster) -> None:
    """Refuse a second pod beside a live one, as a quota does that holds one VM."""

    def refuse(method: str, plural: str) -> Fault | None:
        if method not in ("create", "dry-run") or plural != PODS.plural or not cluster.live():
            return None
        refused = errors.ForbiddenError(403, "Forbidden", 'pods "x" is forbidden: exceeded quota: one')
        return Fault(method, plural, refused, commit=False)

    cluster.intercept = refuse


def _forbid_the_target_node(cluster: Cluster) -> None:
    """Edit the VM's affinity so that it may not go to `node-2`."""
    if (key := (VIRTUAL_MACHINES.plural, "default/vm-1")) in cluster.objects:
        fields = [{"key": "metadata.name", "operator": "NotIn", "values": ["node-2"]}]
        required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchFields": fields}]}}
        vm = cluster.objects[key]
        cluster.store(key[0], {**vm, "spec": {**vm["spec"], "affinity": {"nodeAffinity": required}}})


def _change_class(cluster: Cluster) -> None:
    if (VIRTUAL_MACHINES.plural, "default/vm-1") in cluster.objects:
        cluster.edit(VIRTUAL_MACHINES, "default/vm-1", labels={names.CONTROLLER_CLASS: "blue"})


def _wipe(cluster: Cluster) -> None:
    if (VIRTUAL_MACHINES.plural, "default/vm-1") in cluster.objects:
        cluster.set_status(VIRTUAL_MACHINES, "default/vm-1", {"phase": "Pending"})


def _silence_the_target_node(cluster: Cluster) -> None:
    target = _end("target", cluster)
    node = target["spec"].get("nodeName") if target is not None else None
    if node is not None and ("nodes", f"/{node}") in cluster.objects:
        cluster.report(node, "Unknown")


_PREEMPTED: Final = "PreemptionByScheduler"
OF_LIVE: Final[dict[str, Intervention]] = {
    **{name: Intervention(act) for name, act in INTERVENTIONS.items()},
    "evict source": Intervention(_evict("source")),
    "evict target": Intervention(_evict("target")),
    "preempt source": Intervention(_evict("source", _PREEMPTED)),
    "preempt target": Intervention(_evict("target", _PREEMPTED)),
    "fail source": Intervention(_fail("source")),
    "fail target": Intervention(_fail("target")),
    "force-delete source": Intervention(_force_delete("source")),
    "force-delete target": Intervention(_force_delete("target")),
    "target node not ready": Intervention(_silence_the_target_node),
    "quota lowered": Intervention(_lower_the_quota),
    "edit of affinity": Intervention(_forbid_the_target_node),
    "class changed": Intervention(_change_class, other_class=True),
    "status wiped": Intervention(_wipe),
    "speed changed by a restart": Intervention(process=ProcessChange.RESTART_AT_ANOTHER_SPEED),
    "a leader of the release before": Intervention(process=ProcessChange.OLD_LEADER),
}
"""The twelve of Recreate (its `delete pod` and `fail pod` strike both ends), and those of Live."""
