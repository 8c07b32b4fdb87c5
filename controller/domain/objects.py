"""The parts of Kubernetes objects that decisions read, as frozen values.

Guarantees: only the fields named here are decoded or kept (about 3 KiB a pod); an absent field has a default,
so no reader needs to test for None where the API server promises a value. Values from outside the schema
(a ratio that is a number) decode too and are judged later, so one odd object never fails a whole list.
"""

from __future__ import annotations

from typing import Any

import msgspec

from controller.domain import names


class Value(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, gc=False):
    """Base of every decoded value: immutable, camelCase on the wire, defaults not written."""


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


class VMStatus(Value, frozen=True):
    """What we publish. `incarnation` counts the VM's lives: it names the pod that counts."""

    phase: str = "Pending"
    node_name: str | None = None
    pod_name: str | None = None
    pod_uid: str | None = msgspec.field(default=None, name="podUID")
    incarnation: int | None = None
    cpu_consumption: str | None = None
    memory_consumption: str | None = None
    created_at: str | None = None
    start_failure: StartFailure | None = None
    conditions: tuple[Condition, ...] = ()


class VirtualMachine(Value, frozen=True):
    """A VirtualMachine of ours."""

    metadata: ObjectMeta
    spec: VMSpec = VMSpec()
    status: VMStatus = VMStatus()


class PodSpec(Value, frozen=True):
    """Where the scheduler put the pod."""

    node_name: str | None = None


class PodStatus(Value, frozen=True):
    """How far the pod has come."""

    phase: str = "Pending"
    reason: str = ""
    message: str = ""
    start_time: str | None = None
    conditions: tuple[Condition, ...] = ()

    def condition(self, kind: str) -> Condition | None:
        """Return the first condition of a type."""
        return next((condition for condition in self.conditions if condition.type == kind), None)


class Pod(Value, frozen=True):
    """A launcher pod, ours or one that looks like it."""

    metadata: ObjectMeta
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    @property
    def owner(self) -> OwnerReference | None:
        """The VirtualMachine that controls this pod, if one does."""
        for reference in self.metadata.owner_references:
            if reference.controller and reference.kind == names.VM_KIND and reference.api_version == names.API_VERSION:
                return reference
        return None

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
