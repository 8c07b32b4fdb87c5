"""The Kubernetes kinds that the product reads, with the fields that it reads: pods, nodes, leases, reviews and others.

Guarantees: a pod takes about 3 KiB. Values outside the schema (a quantity that is a number) decode too, and are
validated where they are used, so one malformed object never fails a whole list. A field that does not decode has its
default, and the object names it in `unreadable`.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from controller.kube.meta import Condition, ObjectMeta, Value


class Requests(Value, frozen=True):
    """CPU and memory, as quantities. By the schema they are strings; any value decodes."""

    cpu: Any = None
    memory: Any = None


class ContainerResources(Value, frozen=True):
    """The requests and limits of a container, or of a pod as a whole."""

    requests: Requests = Requests()
    limits: Requests = Requests()


class Container(Value, frozen=True):
    """A container, with what the scheduler counts. An init container with restartPolicy `Always` is a sidecar."""

    name: str = ""
    restart_policy: str | None = None
    resources: ContainerResources = ContainerResources()


class PodSpec(Value, frozen=True):
    """The pod's node, its priority as resolved by the API server, and the resources that it takes on the node."""

    node_name: str | None = None
    priority: int = 0
    preemption_policy: Literal["PreemptLowerPriority", "Never"] = "PreemptLowerPriority"
    containers: tuple[Container, ...] = ()
    init_containers: tuple[Container, ...] = ()
    resources: ContainerResources = ContainerResources()
    overhead: Requests = Requests()


class ReportedResources(Value, frozen=True):
    """The resources that the kubelet has actuated; None if it reports none."""

    requests: Requests | None = None


class ContainerStatus(Value, frozen=True):
    """The allocated and the actuated resources of a container; they differ from the spec during an in-place resize."""

    name: str = ""
    allocated_resources: Requests | None = None
    resources: ReportedResources | None = None


class PodStatus(Value, frozen=True):
    """The pod's phase, conditions and resources. A pod without a node may have a nominated one."""

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
        for condition in self.conditions:  # no generator: several a reconcile
            if condition.type == kind:
                return condition
        return None


class Pod(Value, frozen=True):
    """A pod: a launcher pod, or any other pod that takes capacity of a node."""

    metadata: ObjectMeta
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()
    unreadable: tuple[str, ...] = ()
    """Fields that did not decode, each with the reason; never on the wire."""

    @property
    def done(self) -> bool:
        """Whether the pod is in a terminal phase, and takes no capacity any more."""
        return self.status.phase in ("Succeeded", "Failed")

    @property
    def terminating(self) -> bool:
        """Whether the pod has a deletion timestamp. Its containers may still run."""
        return self.metadata.deletion_timestamp is not None


class LeaseSpec(Value, frozen=True):
    """coordinationv1.LeaseSpec: the holder, and its last renewal (RFC 3339, microseconds)."""

    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_transitions: int = 0


class Lease(Value, frozen=True):
    """coordinationv1.Lease."""

    metadata: ObjectMeta
    spec: LeaseSpec = LeaseSpec()


class ConfigMap(Value, frozen=True):
    """corev1.ConfigMap, without binary data."""

    metadata: ObjectMeta
    data: dict[str, str] = msgspec.field(default_factory=dict)


class UserInfo(Value, frozen=True):
    """authenticationv1.UserInfo: the user of a token."""

    username: str = ""
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict)


class TokenReviewStatus(Value, frozen=True):
    """Whether the API server authenticated a token, and its user."""

    authenticated: bool = False
    user: UserInfo = UserInfo()


class TokenReview(Value, frozen=True):
    """authenticationv1.TokenReview, without the token."""

    status: TokenReviewStatus = TokenReviewStatus()


class SubjectAccessReviewStatus(Value, frozen=True):
    """Whether a request is authorized: neither `allowed` nor `denied` means no."""

    allowed: bool = False
    denied: bool = False


class SubjectAccessReview(Value, frozen=True):
    """authorizationv1.SubjectAccessReview, without its spec."""

    status: SubjectAccessReviewStatus = SubjectAccessReviewStatus()


class Taint(Value, frozen=True):
    """corev1.Taint."""

    key: str = ""
    value: str = ""
    effect: str = ""


class NodeSpec(Value, frozen=True):
    """Whether the node is cordoned, and its taints."""

    unschedulable: bool = False
    taints: tuple[Taint, ...] = ()


class NodeStatus(Value, frozen=True):
    """The node's allocatable resources, as quantities, and its conditions. Any value of a quantity decodes."""

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
    """apiextensionsv1.CustomResourceDefinition, without its spec."""

    metadata: ObjectMeta
    status: DefinitionStatus = DefinitionStatus()
