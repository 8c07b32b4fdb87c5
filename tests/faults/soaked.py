"""What a soak was to be, what it measured, and what it came to."""

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
"""Share of the run that memory takes to come to its level, and that its slope leaves out."""
_MIB: Final = 2.0**20
_HOUR: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Wish:
    """What a soak is to be. Times in seconds; `acts` are those of users, a second."""

    seconds: float
    vms: int
    acts: float = 5.0
    fault_every: float = 3.0
    outage_every: float = 60.0
    sample_every: float = 5.0


@dataclass(frozen=True, slots=True)
class Sample:
    """What the controller's process took (bytes, file descriptors, asyncio tasks) at a time of the soak (seconds)."""

    at: float
    memory: float
    descriptors: int
    tasks: int


@dataclass(frozen=True, slots=True)
class Soaked:
    """What came of it; `settled` is how many seconds after the last act everything was as wished, if ever."""

    wish: Wish
    samples: tuple[Sample, ...]
    acts: Counter[str]
    faults: Counter[str]
    outages: Counter[str]
    events: int
    settled: float | None
    complaints: tuple[str, ...]

    @property
    def slope(self) -> float:
        """Growth of resident memory in MiB an hour, by least squares, once it has come to its level."""
        late = [sample for sample in self.samples if sample.at > self.wish.seconds * _WARM]
        middle = fmean(sample.at for sample in late) if late else 0.0
        spread = sum((sample.at - middle) ** 2 for sample in late)
        if not spread:
            return 0.0
        level = fmean(sample.memory for sample in late)
        return sum((sample.at - middle) * (sample.memory - level) for sample in late) / spread / _MIB * _HOUR

    def growth(self, what: Callable[[Sample], float]) -> float:
        """Return by how much the median of the last quarter is above that of the second."""
        quarter = max(1, len(self.samples) // 4)
        early, last = self.samples[quarter : 2 * quarter], self.samples[-quarter:]
        return median(map(what, last)) - median(map(what, early)) if early else 0.0

    def lines(self) -> Iterator[str]:
        """Tell it, a fact a line."""
        first, last = self.samples[0], self.samples[-1]
        yield f"{self.wish.seconds / 60:.0f} minutes, {self.wish.vms} VMs, {self.events} events seen"
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

    def _range(self, what: Callable[[Sample], int]) -> str:
        values: Sequence[int] = [what(sample) for sample in self.samples]
        return f"{values[0]} → {values[-1]} (between {min(values)} and {max(values)})"


def unfinished(seen: ClusterState, wanted: Mapping[str, bool]) -> Iterator[str]:
    """Complain of everything that is not as its user wants it, or that nobody wants."""
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
    """Whether it waits, for up to an hour, because those before it failed: it has not begun."""
    return any(condition.reason == Reason.BACKOFF for condition in migration.status.conditions)


def _counts(counts: Counter[str]) -> str:
    return ", ".join(f"{what} {count}" for what, count in sorted(counts.items()) if count) or "none"
