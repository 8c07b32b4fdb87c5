"""Metrics under the names that dashboards for Kubernetes controllers already use.

Guarantees: names, labels and buckets are component-base's for the workqueue and controller-runtime's for the
reconciles; every series exists from the start with 0; children are bound once, so an observation costs no lookup.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final
from weakref import WeakKeyDictionary

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from controller.engine.workers import Outcome
from controller.engine.workqueue import WorkQueue

_QUEUE_BUCKETS: Final = tuple(10.0**power for power in range(-6, 4))
_RECONCILE_BUCKETS: Final = (
    *(0.005, 0.01, 0.025, 0.05),
    *(round(0.1 + 0.05 * step, 2) for step in range(19)),
    *(1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5),
    *(5, 6, 7, 8, 9, 10, 15, 20, 25, 30, 40, 50, 60),
)


def new_registry() -> CollectorRegistry:
    """Return a registry with the process's own metrics in it."""
    # Kubernetes' own metrics have no `_created` twins.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return registry


class _Families:
    """The metric families that all queues and controllers of a process share."""

    def __init__(self, registry: CollectorRegistry) -> None:
        name, controller = ("name",), ("controller",)
        self.depth = Gauge("workqueue_depth", "Current depth of workqueue", name, registry=registry)
        self.adds = Counter("workqueue_adds", "Total number of adds handled by workqueue", name, registry=registry)
        self.retries = Counter(
            "workqueue_retries", "Total number of retries handled by workqueue", name, registry=registry
        )
        self.queued = Histogram(
            "workqueue_queue_duration_seconds",
            "How long in seconds an item stays in workqueue before being requested.",
            name,
            buckets=_QUEUE_BUCKETS,
            registry=registry,
        )
        self.worked = Histogram(
            "workqueue_work_duration_seconds",
            "How long in seconds processing an item from workqueue takes.",
            name,
            buckets=_QUEUE_BUCKETS,
            registry=registry,
        )
        self.total = Counter(
            "controller_runtime_reconcile",
            "Total number of reconciliations per controller",
            ("controller", "result"),
            registry=registry,
        )
        self.errors = Counter(
            "controller_runtime_reconcile_errors",
            "Total number of reconciliation errors per controller",
            controller,
            registry=registry,
        )
        self.seconds = Histogram(
            "controller_runtime_reconcile_time_seconds",
            "Length of time per reconciliation per controller",
            controller,
            buckets=_RECONCILE_BUCKETS,
            registry=registry,
        )
        self.active = Gauge(
            "controller_runtime_active_workers",
            "Number of currently used workers per controller",
            controller,
            registry=registry,
        )
        self.maximum = Gauge(
            "controller_runtime_max_concurrent_reconciles",
            "Maximum number of concurrent reconciles per controller",
            controller,
            registry=registry,
        )


_families: WeakKeyDictionary[CollectorRegistry, _Families] = WeakKeyDictionary()


def _families_of(registry: CollectorRegistry) -> _Families:
    known = _families.get(registry)
    if known is None:
        known = _families[registry] = _Families(registry)
    return known


class QueueMetrics:
    """client-go's workqueue metrics for one queue."""

    def __init__(self, registry: CollectorRegistry, name: str) -> None:
        families = _families_of(registry)
        self._depth = families.depth.labels(name)
        self._adds = families.adds.labels(name)
        self._retries = families.retries.labels(name)
        self._queued = families.queued.labels(name)
        self._worked = families.worked.labels(name)

    def added(self, depth: int) -> None:
        """Report a key that was queued."""
        self._adds.inc()
        self._depth.set(depth)

    def taken(self, depth: int, waited: float) -> None:
        """Report a key handed to a worker."""
        self._depth.set(depth)
        self._queued.observe(waited)

    def finished(self, worked: float) -> None:
        """Report a key that a worker is done with."""
        self._worked.observe(worked)

    def retried(self) -> None:
        """Report a delayed add."""
        self._retries.inc()


class UnfinishedWork(Collector):
    """The two workqueue gauges that grow by themselves: computed when somebody asks."""

    def __init__(self, queues: Mapping[str, WorkQueue[str]]) -> None:
        self._queues = queues

    def collect(self) -> Iterator[Metric]:
        """Yield both gauges."""
        unfinished = GaugeMetricFamily(
            "workqueue_unfinished_work_seconds",
            "How many seconds of work has been done that is in progress and hasn't been observed by work_duration.",
            labels=("name",),
        )
        longest = GaugeMetricFamily(
            "workqueue_longest_running_processor_seconds",
            "How many seconds has the longest running processor for workqueue been running.",
            labels=("name",),
        )
        for name, queue in self._queues.items():
            ages = list(queue.processing())
            unfinished.add_metric((name,), sum(ages))
            longest.add_metric((name,), max(ages, default=0.0))
        yield unfinished
        yield longest


def event_loop_lag(registry: CollectorRegistry, lag: Callable[[], float]) -> None:
    """Tell the worst lag of the event loop in the last 30 s."""
    gauge = Gauge(
        "vmsim_event_loop_lag_seconds", "How late the event loop ran, at worst in the last 30 s", registry=registry
    )
    gauge.set_function(lag)


class Leadership:
    """client-go's gauge: whether this process acts. 0 until it is told."""

    def __init__(self, registry: CollectorRegistry, name: str) -> None:
        family = Gauge(
            "leader_election_master_status",
            "Gauge of if the reporting system is master of the relevant lease, 0 indicates backup, 1 indicates master.",
            ("name",),
            registry=registry,
        )
        self._gauge = family.labels(name)

    def acts(self, value: bool) -> None:  # noqa: FBT001 - a gauge's value
        """Report that the process acts from now on, or no more."""
        self._gauge.set(int(value))


def dropped_events(registry: CollectorRegistry, dropped: Callable[[], int]) -> None:
    """Count the Kubernetes Events that were not written, of all recorders together."""

    class Dropped(Collector):
        def collect(self) -> Iterator[Metric]:
            yield CounterMetricFamily("vmsim_events_dropped", "Kubernetes Events not written", value=dropped())

    registry.register(Dropped())


class ReconcileMetrics:
    """controller-runtime's reconcile metrics for one controller."""

    def __init__(self, registry: CollectorRegistry, controller: str, workers: int) -> None:
        families = _families_of(registry)
        self._total = {outcome: families.total.labels(controller, str(outcome)) for outcome in Outcome}
        self._errors = families.errors.labels(controller)
        self._seconds = families.seconds.labels(controller)
        self._active = families.active.labels(controller)
        families.maximum.labels(controller).set(workers)

    def started(self) -> None:
        """Report a reconcile that begins."""
        self._active.inc()

    def finished(self, outcome: Outcome, seconds: float) -> None:
        """Report how it ended."""
        self._active.dec()
        self._seconds.observe(seconds)
        self._total[outcome].inc()
        if outcome is Outcome.ERROR:
            self._errors.inc()
