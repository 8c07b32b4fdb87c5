"""The metrics of queues, reconciles, the event loop and leadership, under client-go's and controller-runtime's names.

Guarantees: names, labels and buckets are component-base's for the workqueue and controller-runtime's for reconciles;
every series exists from the start with 0; an observation costs neither a lookup nor a lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final
from weakref import WeakKeyDictionary

from prometheus_client import CollectorRegistry, Gauge, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from controller.engine import workqueue
from controller.engine.workers import Outcome
from controller.engine.workqueue import WorkQueue
from controller.telemetry.tally import Tally

_QUEUE_BUCKETS: Final = tuple(10.0**power for power in range(-6, 4))
_RECONCILE_BUCKETS: Final = (
    *(0.005, 0.01, 0.025, 0.05),
    *(round(0.1 + 0.05 * step, 2) for step in range(19)),
    *(1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5),
    *(5, 6, 7, 8, 9, 10, 15, 20, 25, 30, 40, 50, 60),
)


def new_registry() -> CollectorRegistry:
    """Return a registry with the standard process metrics."""
    # Kubernetes' own metrics have no `_created` twins.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return registry


class QueueMetrics(workqueue.QueueMetrics):
    """client-go's workqueue metrics for one queue."""

    def __init__(self, registry: CollectorRegistry, name: str) -> None:
        self.depth = 0
        self.adds = 0
        self.retries = 0
        self.queued = Tally(_QUEUE_BUCKETS)
        self.worked = Tally(_QUEUE_BUCKETS)
        _families_of(registry).queues[name] = self

    def added(self, depth: int) -> None:
        """Report a key that was queued."""
        self.adds += 1
        self.depth = depth

    def taken(self, depth: int, waited: float) -> None:
        """Report a key handed to a worker, and the seconds that it waited."""
        self.depth = depth
        self.queued.observe(waited)

    def finished(self, worked: float) -> None:
        """Report a key that a worker has finished, and the seconds that it took."""
        self.worked.observe(worked)

    def retried(self) -> None:
        """Report a delayed add."""
        self.retries += 1


class ReconcileMetrics:
    """controller-runtime's reconcile metrics for one controller."""

    def __init__(self, registry: CollectorRegistry, controller: str, workers: int) -> None:
        self.workers = workers
        self.active = 0
        self.total = dict.fromkeys(Outcome, 0)
        self.seconds = Tally(_RECONCILE_BUCKETS)
        _families_of(registry).controllers[controller] = self

    def started(self) -> None:
        """Report the start of a reconcile."""
        self.active += 1

    def finished(self, outcome: Outcome, seconds: float) -> None:
        """Report the outcome of a reconcile and its duration in seconds."""
        self.active -= 1
        self.total[outcome] += 1
        self.seconds.observe(seconds)


class _Families(Collector):
    """The metric families that all queues and controllers of a process share."""

    def __init__(self) -> None:
        self.queues: dict[str, QueueMetrics] = {}
        self.controllers: dict[str, ReconcileMetrics] = {}

    def collect(self) -> Iterator[Metric]:
        """Yield all families."""
        yield from self._of_queues()
        yield from self._of_controllers()

    def _of_queues(self) -> Iterator[Metric]:
        label = ("name",)
        depth = GaugeMetricFamily("workqueue_depth", "Current depth of workqueue", labels=label)
        adds = CounterMetricFamily("workqueue_adds", "Total number of adds handled by workqueue", labels=label)
        retries = CounterMetricFamily("workqueue_retries", "Total number of retries handled by workqueue", labels=label)
        queued = HistogramMetricFamily(
            "workqueue_queue_duration_seconds",
            "How long in seconds an item stays in workqueue before being requested.",
            labels=label,
        )
        worked = HistogramMetricFamily(
            "workqueue_work_duration_seconds",
            "How long in seconds processing an item from workqueue takes.",
            labels=label,
        )
        for name, queue in self.queues.items():
            depth.add_metric((name,), queue.depth)
            adds.add_metric((name,), queue.adds)
            retries.add_metric((name,), queue.retries)
            queued.add_metric((name,), queue.queued.buckets(), queue.queued.total)
            worked.add_metric((name,), queue.worked.buckets(), queue.worked.total)
        yield from (depth, adds, retries, queued, worked)

    def _of_controllers(self) -> Iterator[Metric]:
        label = ("controller",)
        total = CounterMetricFamily(
            "controller_runtime_reconcile",
            "Total number of reconciliations per controller",
            labels=("controller", "result"),
        )
        failures = CounterMetricFamily(
            "controller_runtime_reconcile_errors",
            "Total number of reconciliation errors per controller",
            labels=label,
        )
        seconds = HistogramMetricFamily(
            "controller_runtime_reconcile_time_seconds",
            "Length of time per reconciliation per controller",
            labels=label,
        )
        active = GaugeMetricFamily(
            "controller_runtime_active_workers",
            "Number of currently used workers per controller",
            labels=label,
        )
        maximum = GaugeMetricFamily(
            "controller_runtime_max_concurrent_reconciles",
            "Maximum number of concurrent reconciles per controller",
            labels=label,
        )
        for name, reported in self.controllers.items():
            for outcome, count in reported.total.items():
                total.add_metric((name, outcome.value), count)
            failures.add_metric((name,), reported.total[Outcome.ERROR])
            seconds.add_metric((name,), reported.seconds.buckets(), reported.seconds.total)
            active.add_metric((name,), reported.active)
            maximum.add_metric((name,), reported.workers)
        yield from (total, failures, seconds, active, maximum)


_families: WeakKeyDictionary[CollectorRegistry, _Families] = WeakKeyDictionary()


def _families_of(registry: CollectorRegistry) -> _Families:
    known = _families.get(registry)
    if known is None:
        known = _families[registry] = _Families()
        registry.register(known)
    return known


class UnfinishedWork(Collector):
    """The workqueue gauges of running work, computed at each scrape."""

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
    """Register the gauge of the event loop's worst lag in the last 30 s."""
    gauge = Gauge(
        "vmsim_event_loop_lag_seconds", "How late the event loop ran, at worst in the last 30 s", registry=registry
    )
    gauge.set_function(lag)


def leadership(registry: CollectorRegistry, name: str, leads: Callable[[], bool]) -> None:
    """Register client-go's gauge of whether this process is the leader."""
    gauge = Gauge(
        "leader_election_master_status",
        "Gauge of if the reporting system is master of the relevant lease, 0 indicates backup, 1 indicates master.",
        ("name",),
        registry=registry,
    )
    gauge.labels(name).set_function(leads)


def dropped_events(registry: CollectorRegistry, dropped: Callable[[], int]) -> None:
    """Register the counter of Kubernetes Events that were not written, summed over all recorders."""

    class Dropped(Collector):
        def collect(self) -> Iterator[Metric]:
            yield CounterMetricFamily("vmsim_events_dropped", "Kubernetes Events not written", value=dropped())

    registry.register(Dropped())
