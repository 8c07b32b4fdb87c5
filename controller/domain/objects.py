"""The parts of Kubernetes objects that decisions read, as frozen values.

Guarantees: only the fields named here are decoded or kept (about 3 KiB a pod); an absent field has a default,
so no reader needs to test for None where the API server promises a value. Values from outside the schema
(a ratio that is a number) decode too and are judged later, so one odd object never fails a whole list: where a field
does not decode at all, its default stands for it, and the object names it in `unreadable`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from controller.domain import names


class Value(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, gc=False):
    """Base of every decoded value: immutable, camelCase on the wire, defaults not written."""


def _spec_problem(unreadable: tuple[str, ...]) -> str | None:
    return "; ".join(found for found in unreadable if found.startswith("spec")) or None


class OwnerReference(Value, frozen=True):
    """metav1.OwnerReference, without blockOwnerDeletion."""

    api_version: str = ""
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool = False


class ObjectMeta(Value, frozen=True):
    """metav1.ObjectMeta, as far as we read it."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    deletion_grace_period_seconds: int | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    finalizers: tuple[str, ...] = ()
    owner_references: tuple[OwnerReference, ...] = ()

    @property
    def key(self) -> str:
        """`namespace/name`, the workqueue's key."""
        return f"{self.namespace}/{self.name}"


class Condition(Value, frozen=True):
    """metav1.Condition, as pods and VMs carry it."""

    type: str
    status: str = "Unknown"
    last_transition_time: str | None = None
    reason: str = ""
    message: str = ""


class VMResources(Value, frozen=True):
    """Shares of the reference node. The schema says strings; anything decodes."""

    cpu: Any = None
    memory: Any = None


class VMSpec(Value, frozen=True):
    """What the user wants."""

    resources: VMResources = VMResources()
    running: bool = True


class StartFailure(Value, frozen=True):
    """KubeVirt's VM.status.startFailure: why and until when a failed start waits."""

    consecutive_fail_count: int = 0
    last_failed_pod_uid: str = msgspec.field(default="", name="lastFailedPodUID")
    retry_after_timestamp: str | None = None


class Claim(Value, frozen=True):
    """A migration's hold on its VM, in the VM's status: which life ends, and what the next one must heed.

    `rollback` frees the next life of every constraint: the target could not be placed. `reserved_node` is where room is
    held for it; the scheduler may choose another node.
    """

    name: str = ""
    uid: str = ""
    source_node: str = ""
    source_incarnation: int = 0
    target_node: str | None = None
    added_node_selector: dict[str, str] = {}
    reserved_node: str | None = None
    rollback: bool = False


class VMStatus(Value, frozen=True):
    """What we publish. `incarnation` counts the VM's lives: it names the pod that counts."""

    phase: str = "Pending"
    observed_generation: int | None = None
    node_name: str | None = None
    pod_name: str | None = None
    pod_uid: str | None = msgspec.field(default=None, name="podUID")
    incarnation: int | None = None
    cpu_consumption: str | None = None
    memory_consumption: str | None = None
    created_at: str | None = None
    start_failure: StartFailure | None = None
    migration: Claim | None = None
    conditions: tuple[Condition, ...] = ()


class VirtualMachine(Value, frozen=True):
    """A VirtualMachine of ours."""

    metadata: ObjectMeta
    spec: VMSpec = VMSpec()
    status: VMStatus = VMStatus()
    unreadable: tuple[str, ...] = ()
    """Fields that did not decode, each with the reason; never on the wire."""

    @property
    def spec_problem(self) -> str | None:
        """Why the spec cannot be taken at its word; None if every field of it was read."""
        return _spec_problem(self.unreadable)


class Requests(Value, frozen=True):
    """CPU and memory, as quantities. The schema says strings; anything decodes."""

    cpu: Any = None
    memory: Any = None


class ContainerResources(Value, frozen=True):
    """What a container, or a pod as a whole, asks the scheduler for, and the limits that a quota counts."""

    requests: Requests = Requests()
    limits: Requests = Requests()


class Container(Value, frozen=True):
    """A container, as far as the scheduler counts it. An init container that restarts `Always` is a sidecar."""

    name: str = ""
    restart_policy: str | None = None
    resources: ContainerResources = ContainerResources()


class PodSpec(Value, frozen=True):
    """Where the scheduler put the pod, and what it holds there."""

    node_name: str | None = None
    containers: tuple[Container, ...] = ()
    init_containers: tuple[Container, ...] = ()
    resources: ContainerResources = ContainerResources()
    overhead: Requests = Requests()


class ReportedResources(Value, frozen=True):
    """What a node says that it gave; None if it says nothing."""

    requests: Requests | None = None


class ContainerStatus(Value, frozen=True):
    """What a node admitted a container with, and what it gave it: they differ from the spec while a resize goes on."""

    name: str = ""
    allocated_resources: Requests | None = None
    resources: ReportedResources | None = None


class PodStatus(Value, frozen=True):
    """How far the pod has come. The scheduler has promised it the nominated node if it has none yet."""

    phase: str = "Pending"
    reason: str = ""
    message: str = ""
    start_time: str | None = None
    nominated_node_name: str | None = None
    conditions: tuple[Condition, ...] = ()
    container_statuses: tuple[ContainerStatus, ...] = ()
    init_container_statuses: tuple[ContainerStatus, ...] = ()
    allocated_resources: Requests | None = None
    resources: ReportedResources | None = None

    def condition(self, kind: str) -> Condition | None:
        """Return the first condition of a type."""
        return next((condition for condition in self.conditions if condition.type == kind), None)


class Pod(Value, frozen=True):
    """A pod: a launcher of ours, one that looks like it, or any other that takes room on a node."""

    metadata: ObjectMeta
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()
    unreadable: tuple[str, ...] = ()
    """Fields that did not decode, each with the reason; never on the wire."""

    @property
    def owner(self) -> OwnerReference | None:
        """The VirtualMachine that controls this pod, if one does."""
        for reference in self.metadata.owner_references:
            if reference.controller and reference.kind == names.VM_KIND and reference.api_version == names.API_VERSION:
                return reference
        return None

    def belongs_to(self, vm: VirtualMachine) -> bool:
        """Whether exactly this VM controls it, not a namesake."""
        owner = self.owner
        return owner is not None and owner.uid == vm.metadata.uid

    @property
    def incarnation(self) -> int | None:
        """The VM's life this pod belongs to; None when the annotation is missing or no number."""
        text = self.metadata.annotations.get(names.INCARNATION, "")
        return int(text) if text.isascii() and text.isdigit() and len(text) < len("1000000000") else None

    @property
    def done(self) -> bool:
        """Whether the pod has ended for good: it holds nothing any more."""
        return self.status.phase in ("Succeeded", "Failed")

    @property
    def terminating(self) -> bool:
        """Whether its deletion has begun. A terminating pod still lives."""
        return self.metadata.deletion_timestamp is not None


class MigrationSpec(Value, frozen=True):
    """What should move, and where to. Times are in seconds."""

    vm_name: str = ""
    target_node: str | None = None
    added_node_selector: dict[str, str] = {}
    priority: str | None = None
    reason: str = ""
    unschedulable_timeout_seconds: int = 300
    completion_timeout_seconds: int = 900
    cancel: bool = False
    record_of: str | None = None


class PhaseTime(Value, frozen=True):
    """When a phase began (RFC 3339, microseconds)."""

    phase: str
    phase_transition_timestamp: str


class MigrationStatus(Value, frozen=True):
    """How a migration goes. `vm_uid`: the VM that it is about, which another of the same name is not."""

    phase: str = "Pending"
    observed_generation: int | None = None
    vm_uid: str | None = msgspec.field(default=None, name="vmUID")
    phase_transition_timestamps: tuple[PhaseTime, ...] = ()
    source_node: str | None = None
    source_pod: str | None = None
    target_node: str | None = None
    target_pod: str | None = None
    start_timestamp: str | None = None
    end_timestamp: str | None = None
    downtime_seconds: str | None = None
    failure_reason: str | None = None
    message: str | None = None
    conditions: tuple[Condition, ...] = ()


class VirtualMachineMigration(Value, frozen=True):
    """A VirtualMachineMigration of ours."""

    metadata: ObjectMeta
    spec: MigrationSpec = MigrationSpec()
    status: MigrationStatus = MigrationStatus()
    unreadable: tuple[str, ...] = ()
    """Fields that did not decode, each with the reason; never on the wire."""

    @property
    def spec_problem(self) -> str | None:
        """Why the spec cannot be taken at its word; None if every field of it was read."""
        return _spec_problem(self.unreadable)

    @property
    def vm_key(self) -> str:
        """`namespace/name` of the VM that moves."""
        return f"{self.metadata.namespace}/{self.spec.vm_name}"

    @property
    def vm_uid(self) -> str | None:
        """UID of the VM that it is about: another VM may have the name by now. None until that was written down."""
        recorded = self.metadata.annotations.get(names.SOURCE_VM) if self.spec.record_of is not None else None
        return self.status.vm_uid or recorded

    @property
    def finished(self) -> bool:
        """Whether it has succeeded or failed."""
        return self.status.phase in ("Succeeded", "Failed")


class LeaseSpec(Value, frozen=True):
    """coordinationv1.LeaseSpec: who holds it, and the word that they still do (RFC 3339, microseconds)."""

    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_transitions: int = 0


class Lease(Value, frozen=True):
    """coordinationv1.Lease."""

    metadata: ObjectMeta
    spec: LeaseSpec = LeaseSpec()


class UserInfo(Value, frozen=True):
    """authenticationv1.UserInfo: whom a token speaks for."""

    username: str = ""
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: dict[str, tuple[str, ...]] = {}


class TokenReviewStatus(Value, frozen=True):
    """What the API server makes of a token."""

    authenticated: bool = False
    user: UserInfo = UserInfo()


class TokenReview(Value, frozen=True):
    """authenticationv1.TokenReview, without the token."""

    status: TokenReviewStatus = TokenReviewStatus()


class SubjectAccessReviewStatus(Value, frozen=True):
    """Whether a user may do something; neither means no."""

    allowed: bool = False
    denied: bool = False


class SubjectAccessReview(Value, frozen=True):
    """authorizationv1.SubjectAccessReview, without the question."""

    status: SubjectAccessReviewStatus = SubjectAccessReviewStatus()


class Taint(Value, frozen=True):
    """corev1.Taint."""

    key: str = ""
    value: str = ""
    effect: str = ""


class NodeSpec(Value, frozen=True):
    """Whether the scheduler may use the node."""

    unschedulable: bool = False
    taints: tuple[Taint, ...] = ()


class NodeStatus(Value, frozen=True):
    """What pods may request of the node, as quantities, and how it is. The schema says strings; anything decodes."""

    allocatable: dict[str, Any] = {}
    conditions: tuple[Condition, ...] = ()


class Node(Value, frozen=True):
    """A node, real or fake."""

    metadata: ObjectMeta
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()
    unreadable: tuple[str, ...] = ()
    """Fields that did not decode, each with the reason; never on the wire."""
