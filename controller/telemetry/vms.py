"""What the VMs do, under KubeVirt's names: their phases, and how long they took to get there.

Guarantees: a change of a VM costs O(1); a transition is counted once, although several may arrive in one write, and
only for the life that the VM's creation began; what happened before this process came is not counted; the series of a
VM go with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from controller.domain.objects import VirtualMachine
from controller.domain.vm.status import Phase, first_steps
from controller.engine.listeners import Subscription
from controller.engine.store import Store
from controller.kube.times import seconds_between
from controller.telemetry.exposition import header, label

TRANSITION_BUCKETS: Final = (0.5, 1, 2, 5, 10, 20, 30, 40, 50, 60, 90, 120, 180, 300, 600, 1200, 1800, 3600)
"""KubeVirt's, in seconds."""
_VMS_A_PIECE: Final = 250
_TIMED: Final = (Phase.SCHEDULING, Phase.SCHEDULED, Phase.RUNNING, Phase.FAILED)


class VMMetrics(Collector):
    """The VMs of some stores. As a collector it tells their number by phase."""

    def __init__(self, registry: CollectorRegistry, vms: Sequence[Store[VirtualMachine]]) -> None:
        self._vms = vms
        self._phases: Counter[str] = Counter()
        seconds = Histogram(
            "kubevirt_vmi_phase_transition_time_from_creation_seconds",
            "Histogram of VM phase transitions duration from creation time in seconds",
            ("phase",),
            buckets=TRANSITION_BUCKETS,
            registry=registry,
        )
        self._seconds = {phase: seconds.labels(phase.value) for phase in _TIMED}
        listener = Subscription[VirtualMachine](self._changed, name="VMMetrics", reset=self._phases.clear)
        for store in vms:
            store.subscribe(listener)
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Yield the number of VMs by phase."""
        family = GaugeMetricFamily("vmsim_vms", "VirtualMachines by phase", labels=("phase",))
        for phase in Phase:
            family.add_metric((phase.value,), self._phases[phase])
        yield family

    def _changed(self, old: VirtualMachine | None, new: VirtualMachine | None) -> None:
        arrivals = _arrivals(old, new)  # what may fail comes before the first change
        if old is not None:
            self._phases[old.status.phase] -= 1
        if new is not None:
            self._phases[new.status.phase] += 1
        for phase, seconds in arrivals:
            if phase in self._seconds:
                self._seconds[phase].observe(seconds)


def _arrivals(old: VirtualMachine | None, new: VirtualMachine | None) -> list[tuple[Phase, float]]:
    """Return the phases that a change shows for the first time, with the seconds from the VM's creation to each."""
    if old is None or new is None or old.status.conditions == new.status.conditions:
        return []
    created = new.metadata.creation_timestamp
    times = ((step.phase, seconds_between(created, step.at)) for step in first_steps(old, new))
    return [(phase, seconds) for phase, seconds in times if seconds is not None]


_INFO: Final = "kubevirt_vmi_info"
_UNKNOWN: Final = ",".join(
    f'{name}="{value}"'
    for name, value in {
        **dict.fromkeys(("os", "workload", "flavor", "instance_type", "preference"), "<none>"),
        **dict.fromkeys(("guest_os_kernel_release", "guest_os_machine", "guest_os_arch"), ""),
        **dict.fromkeys(("guest_os_name", "guest_os_version_id"), ""),
        "evictable": "true",
        "outdated": "false",
    }.items()
)
"""What KubeVirt tells of a guest and of its instance type: we have neither. Every VM may be evicted."""


class VMSeries:
    """One series for each VM that is not stopped: KubeVirt has a VMI for no other."""

    def __init__(self, vms: Sequence[Store[VirtualMachine]]) -> None:
        self._vms = vms

    def pieces(self) -> Iterator[str]:
        """Yield the family of an exposition."""
        yield header(_INFO, "Information about VirtualMachineInstances.")
        for store in self._vms:
            vms = iter(list(store))
            while batch := tuple(islice(vms, _VMS_A_PIECE)):
                yield "".join(_info(vm) for vm in batch if vm.status.phase != Phase.STOPPED)


def _info(vm: VirtualMachine) -> str:
    metadata, status = vm.metadata, vm.status
    return (
        f'{_INFO}{{name="{metadata.name}",namespace="{metadata.namespace}",node="{label(status.node_name or "")}",'
        f'phase="{label(status.phase.lower())}",vmi_pod="{label(status.pod_name or "")}",{_UNKNOWN}}} 1\n'
    )
