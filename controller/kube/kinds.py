"""The kinds of Kubernetes that are read here, as far as they are read: pods, nodes, leases, reviews, definitions.

Guarantees: about 3 KiB a pod. Values from outside the schema (a quantity that is a number) decode too and are judged
where they are used, so one odd object never fails a whole list: where a field does not decode at all, its default
stands for it, and the object names it in `unreadable`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from controller.kube.meta import Condition, ObjectMeta, Value


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
    def done(self) -> bool:
        """Whether the pod has ended for good: it holds nothing any more."""
        return self.status.phase in ("Succeeded", "Failed")

    @property
    def terminating(self) -> bool:
        """Whether its deletion has begun. A terminating pod still lives."""
        return self.metadata.deletion_timestamp is not None


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
    extra: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict)


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

    allocatable: dict[str, Any] = msgspec.field(default_factory=dict)
    conditions: tuple[Condition, ...] = ()


class Node(Value, frozen=True):
    """A node, real or fake."""

    metadata: ObjectMeta
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()
    unreadable: tuple[str, ...] = ()
    """Fields that did not decode, each with the reason; never on the wire."""


class DefinitionNames(Value, frozen=True):
    """The names under which a custom resource is served."""

    plural: str = ""


class DefinitionStatus(Value, frozen=True):
    """Whether a custom resource is served."""

    accepted_names: DefinitionNames = DefinitionNames()
    conditions: tuple[Condition, ...] = ()


class CustomResourceDefinition(Value, frozen=True):
    """apiextensionsv1.CustomResourceDefinition, without what it defines."""

    metadata: ObjectMeta
    status: DefinitionStatus = DefinitionStatus()
