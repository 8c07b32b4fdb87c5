"""Metrics of VMs: their phases and their phase transition times, under KubeVirt's names.

Guarantees: every phase has its series from the start, with 0; the series of a VM are removed when it is deleted; a
scrape is rendered in pieces.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from controller.domain.objects import VirtualMachine
from controller.domain.vm.status import Phase
from controller.engine.store import Store
from controller.observe.phases import VMPhases
from controller.telemetry import transitions
from controller.telemetry.exposition import header, label

_VMS_A_PIECE: Final = 250
_TIMED: Final = (Phase.SCHEDULING, Phase.SCHEDULED, Phase.RUNNING, Phase.FAILED)


class VMMetrics(Collector):
    """Collects the number of VMs by phase, over some stores."""

    def __init__(self, registry: CollectorRegistry, vms: Sequence[Store[VirtualMachine]]) -> None:
        arrived = transitions.histograms(
            registry,
            "kubevirt_vmi_phase_transition_time_from_creation_seconds",
            "Histogram of VM phase transitions duration from creation time in seconds",
            _TIMED,
        )
        self._phases = VMPhases(vms, arrived)
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Yield the number of VMs by phase."""
        family = GaugeMetricFamily("vmsim_vms", "VirtualMachines by phase", labels=("phase",))
        for phase in Phase:
            family.add_metric((phase.value,), self._phases.counts[phase])
        yield family


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
"""KubeVirt's labels for the guest and the instance type, which a simulated VM does not have. Every VM is evictable."""


class VMSeries:
    """One series for each VM that is not stopped, as KubeVirt has a VMI only for these."""

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
