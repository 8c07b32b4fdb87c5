"""The plan of a soak, its samples, and its result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Final

from controller.domain import ownership
from controller.domain.migration.phases import Reason
from controller.domain.objects import VirtualMachineMigration
from tests.faults.stage import runs
from tests.faults.witness import ClusterState

_WARM: Final = 0.25
"""Share of the run that memory takes to reach its level; the slope leaves it out."""
_MIB: Final = 2.0**20
_HOUR: Final = 3600.0


@dataclass(frozen=True, slots=True)
class SoakPlan:
    """The parameters of a soak. Times are in seconds; `acts` are the acts of users a second."""

    seconds: float
    vms: int
    acts: float = 5.0
    fault_every: float = 3.0
    outage_every: float = 60.0
    sample_every: float = 5.0


@dataclass(frozen=True, slots=True)
class Sample:
    """The resources of the controller's process (bytes, file descriptors, asyncio tasks) at a time in seconds."""

    at: float
    memory: float
    descriptors: int
    tasks: int


@dataclass(frozen=True, slots=True)
class Soaked:
    """The result; `settled` is the seconds from the last act until every VM was as wanted, or None."""

    plan: SoakPlan
    samples: tuple[Sample, ...]
    acts: Counter[str]
    faults: Counter[str]
    outages: Counter[str]
    events: int
    settled: float | None
    complaints: tuple[str, ...]

    @property
    def slope(self) -> float:
        """Growth of resident memory in MiB an hour, by least squares, after the warm-up."""
        late = [sample for sample in self.samples if sample.at > self.plan.seconds * _WARM]
        middle = fmean(sample.at for sample in late) if late else 0.0
        spread = sum((sample.at - middle) ** 2 for sample in late)
        if not spread:
            return 0.0
        level = fmean(sample.memory for sample in late)
        return sum((sample.at - middle) * (sample.memory - level) for sample in late) / spread / _MIB * _HOUR

    def growth(self, value: Callable[[Sample], float]) -> float:
        """Return the median of the last quarter minus that of the second."""
        quarter = max(1, len(self.samples) // 4)
        early, last = self.samples[quarter : 2 * quarter], self.samples[-quarter:]
        return median(map(value, last)) - median(map(value, early)) if early else 0.0

    def lines(self) -> Iterator[str]:
        """Yield the report, a fact a line."""
        first, last = self.samples[0], self.samples[-1]
        yield f"{self.plan.seconds / 60:.0f} minutes, {self.plan.vms} VMs, {self.events} events seen"
        yield f"acts: {_counts(self.acts)}"
        yield f"faults that struck: {_counts(self.faults)}"
        yield f"killed and started again: {_counts(self.outages)}"
        yield (
            f"resident memory {first.memory / _MIB:.1f} → {last.memory / _MIB:.1f} MiB, "
            f"slope {self.slope:+.1f} MiB/h after the first quarter"
        )
        yield f"file descriptors {self._range(lambda sample: sample.descriptors)}"
        yield f"asyncio tasks {self._range(lambda sample: sample.tasks)}"
        yield f"settled {self.settled:.0f} s after the last act" if self.settled is not None else "never settled"
        yield from (f"complaint: {complaint}" for complaint in self.complaints)

    def _range(self, value: Callable[[Sample], int]) -> str:
        values: Sequence[int] = [value(sample) for sample in self.samples]
        return f"{values[0]} → {values[-1]} (between {min(values)} and {max(values)})"


def unfinished(seen: ClusterState, wanted: Mapping[str, bool]) -> Iterator[str]:
    """Complain of every VM that is not as wanted, of pods without a VM, and of unfinished migrations."""
    pods = Counter(uid for pod in seen.pods.values() if (uid := ownership.vm_uid(pod)) is not None)
    for name, running in wanted.items():
        vm = seen.vm(name)
        if vm is None:
            yield f"VM {name} is lost"
        elif running and not runs(seen, name):
            yield f"VM {name} is {vm.status.phase} with {pods[vm.metadata.uid]} pods where it should run"
        elif not running and (vm.status.phase != "Stopped" or pods[vm.metadata.uid]):
            yield f"VM {name} is {vm.status.phase} with {pods[vm.metadata.uid]} pods where it should be stopped"
    for pod in seen.pods.values():
        if ownership.vm_uid(pod) not in seen.vms:
            yield f"pod {pod.metadata.name} has no VM"
    for migration in seen.migrations.values():
        if not migration.finished and not _backs_off(migration):
            yield f"migration {migration.metadata.name} is {migration.status.phase}: {migration.status.message}"


def _backs_off(migration: VirtualMachineMigration) -> bool:
    """Whether it backs off, for up to an hour, after failed ones: it has not begun."""
    return any(condition.reason == Reason.BACKOFF for condition in migration.status.conditions)


def _counts(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()) if count) or "none"
