"""Metrics of VMs under KubeVirt's names."""

from __future__ import annotations

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from controller.domain.objects import VirtualMachine, VMStatus
from controller.engine.changes import Change
from controller.engine.store import Store
from controller.kube.meta import Condition
from controller.telemetry.vms import VMMetrics, VMSeries
from tests.unit.domain.builders import vm

SECONDS = "kubevirt_vmi_phase_transition_time_from_creation_seconds"


def at(phase: str, *history: tuple[str, str], name: str = "vm-1", version: int = 1, **status: object) -> VirtualMachine:
    """Return a VM (created at 10:29:45) in a phase; the history is phases and seconds of that minute."""
    conditions = tuple(
        Condition(type=f"Phase{step}", status="True", last_transition_time=f"2026-01-15T10:29:{second}Z")
        for step, second in history
    )
    machine = vm(
        name=name,
        uid=f"uid-{name}",
        status=VMStatus(phase=phase, conditions=conditions, **{"incarnation": 0, **status}),  # type: ignore[arg-type]
    )
    return msgspec.structs.replace(
        machine, metadata=msgspec.structs.replace(machine.metadata, resource_version=str(version))
    )


PENDING = ("Pending", "45")
SCHEDULING = ("Scheduling", "46")
RUNNING = ("Running", "49")


class Scene:
    """A store of VMs with its metrics."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.vms: Store[VirtualMachine] = Store()
        VMMetrics(self.registry, [self.vms])

    def see(self, *states: VirtualMachine) -> None:
        """Apply states of a VM, one after another."""
        for state in states:
            self.vms.apply(Change.of(state))

    def value(self, name: str, **labels: str) -> float | None:
        """Return a sample."""
        return self.registry.get_sample_value(name, labels)

    def info(self) -> list[Sample]:
        """Return the series of single VMs."""
        [family] = text_string_to_metric_families("".join(VMSeries([self.vms]).pieces()))
        return list(family.samples)


def test_vms_are_counted_by_phase_and_every_phase_has_a_series() -> None:
    """Through transitions and deletions."""
    scene = Scene()
    assert scene.value("vmsim_vms", phase="Running") == 0
    scene.see(at("Pending"), at("Running", version=2), at("Running", name="vm-2"))
    assert scene.value("vmsim_vms", phase="Running") == 2
    assert scene.value("vmsim_vms", phase="Pending") == 0

    scene.vms.apply(Change.of(at("Running", version=3), deleted=True))
    assert scene.value("vmsim_vms", phase="Running") == 1


def test_transitions_are_timed_from_the_creation() -> None:
    """Transitions that arrive in one write are each counted."""
    scene = Scene()
    scene.see(at("Pending"), at("Running", PENDING, SCHEDULING, RUNNING, version=2))

    assert scene.value(f"{SECONDS}_sum", phase="Scheduling") == 1
    assert scene.value(f"{SECONDS}_sum", phase="Running") == 4
    assert scene.value(f"{SECONDS}_count", phase="Running") == 1
    assert scene.value(f"{SECONDS}_count", phase="Failed") == 0
    assert scene.value(f"{SECONDS}_bucket", phase="Running", le="2.0") == 0
    assert scene.value(f"{SECONDS}_bucket", phase="Running", le="5.0") == 1


def test_a_transition_is_counted_once() -> None:
    """Later changes of the VM do not count it again."""
    scene = Scene()
    done = at("Running", PENDING, SCHEDULING, RUNNING, version=2)
    scene.see(at("Pending"), done, at("Running", PENDING, SCHEDULING, RUNNING, version=3, cpu_consumption="0.9"))

    assert scene.value(f"{SECONDS}_count", phase="Running") == 1


def test_transitions_before_the_start_are_not_counted() -> None:
    """A restart does not count every VM again."""
    scene = Scene()
    scene.vms.replace([at("Running", PENDING, SCHEDULING, RUNNING)], "5")

    assert scene.value(f"{SECONDS}_count", phase="Running") == 0


def test_a_later_incarnation_is_not_timed() -> None:
    """A VM that is migrated after days did not take days to start."""
    scene = Scene()
    before = at("Running", PENDING, SCHEDULING, RUNNING, version=2)
    after = at("Scheduling", PENDING, SCHEDULING, RUNNING, ("Scheduling", "55"), version=3, incarnation=1)
    scene.see(before, after)

    assert scene.value(f"{SECONDS}_count", phase="Scheduling") == 0


def test_a_vm_that_was_created_stopped_is_not_timed() -> None:
    """It waited for the user to start it."""
    scene = Scene()
    stopped = ("Stopped", "46")
    scene.see(at("Stopped", PENDING, stopped), at("Running", PENDING, stopped, RUNNING, version=2))

    assert scene.value(f"{SECONDS}_count", phase="Running") == 0


def test_a_vm_has_one_series_as_in_kubevirt() -> None:
    """The phase is in lower case; guest labels have KubeVirt's values for unknown."""
    scene = Scene()
    scene.see(at("Running", node_name="kwok-node-2", pod_name="virt-launcher-vm-1-abcde"))

    [sample] = scene.info()
    assert (sample.name, sample.value) == ("kubevirt_vmi_info", 1)
    assert sample.labels == {
        "name": "vm-1",
        "namespace": "default",
        "node": "kwok-node-2",
        "phase": "running",
        "vmi_pod": "virt-launcher-vm-1-abcde",
        **dict.fromkeys(("os", "workload", "flavor", "instance_type", "preference"), "<none>"),
        **dict.fromkeys(("guest_os_kernel_release", "guest_os_machine", "guest_os_arch"), ""),
        **dict.fromkeys(("guest_os_name", "guest_os_version_id"), ""),
        "evictable": "true",
        "outdated": "false",
    }


def test_a_stopped_or_deleted_vm_has_no_series() -> None:
    """KubeVirt has no VMI for it."""
    scene = Scene()
    scene.see(at("Stopped"), at("Pending", name="vm-2"))
    assert [sample.labels["name"] for sample in scene.info()] == ["vm-2"]

    scene.vms.apply(Change.of(at("Pending", name="vm-2", version=3), deleted=True))
    assert scene.info() == []


def test_special_characters_in_a_status_are_escaped() -> None:
    """Quotes, backslashes and newlines."""
    scene = Scene()
    scene.see(at("Running", node_name='a"b\\c\nd'))

    assert scene.info()[0].labels["node"] == 'a"b\\c\nd'


def test_many_vms_are_written_in_many_pieces() -> None:
    """So that the event loop runs between them; no VM is missing."""
    scene = Scene()
    scene.vms.replace([at("Running", name=f"vm-{n}") for n in range(1001)], "5")

    pieces = list(VMSeries([scene.vms]).pieces())
    assert max(piece.count("\n") for piece in pieces) <= 250
    assert len(scene.info()) == 1001


def test_an_unknown_phase_in_the_history_is_ignored() -> None:
    """The phases around it are timed."""
    scene = Scene()
    paused = ("Paused", "47")
    scene.see(
        at("Pending"),
        at("Scheduling", PENDING, SCHEDULING, paused, version=2),
        at("Running", PENDING, SCHEDULING, paused, RUNNING, version=3),
    )

    assert scene.vms.subscriptions[0].failures == 0
    assert scene.value(f"{SECONDS}_sum", phase="Scheduling") == 1
    assert scene.value(f"{SECONDS}_sum", phase="Running") == 4
    assert scene.value("vmsim_vms", phase="Running") == 1


def test_an_unknown_phase_is_escaped() -> None:
    """The schema of another release may allow any."""
    scene = Scene()
    scene.see(at('Pau"sed\n'))

    [sample] = scene.info()
    assert sample.labels["phase"] == 'pau"sed\n'


def test_a_malformed_time_is_not_counted() -> None:
    """Nor is one beyond the calendar."""
    scene = Scene()
    odd = at("Running", PENDING, ("Scheduling", "99"), version=2)
    beyond = Condition(type="PhaseRunning", status="True", last_transition_time="0001-01-01T00:00:00+14:00")
    conditions = (*odd.status.conditions, beyond)
    scene.see(
        at("Pending"), msgspec.structs.replace(odd, status=msgspec.structs.replace(odd.status, conditions=conditions))
    )

    assert scene.vms.subscriptions[0].failures == 0
    assert scene.value(f"{SECONDS}_count", phase="Scheduling") == 0
    assert scene.value(f"{SECONDS}_count", phase="Running") == 0
