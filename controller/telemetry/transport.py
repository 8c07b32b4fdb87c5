"""Metrics of the requests to the API server, of the reflectors, and of the listeners of stores.

Guarantees: names and labels are client-go's where it has the metric; every series of a reflector exists from the start
with 0; an observation costs no lookup of labels.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from controller.engine.reflector import Metrics
from controller.engine.store import Store
from controller.engine.watch import Relist


class RequestMetrics:
    """client-go's counter of requests by status code, method and host."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._family = Counter(
            "rest_client_requests",
            "Number of HTTP requests, partitioned by status code, method, and host.",
            ("code", "method", "host"),
            registry=registry,
        )
        self._children: dict[tuple[str, str, str], Counter] = {}

    def answered(self, method: str, host: str, code: str) -> None:
        """Report a finished request; the code is `<error>` if there was no response."""
        key = (code, method, host)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = self._family.labels(*key)
        child.inc()


class StoreMetrics(Collector):
    """Collects the failures of the stores' listeners, summed over the stores of each resource."""

    def __init__(self, registry: CollectorRegistry, stores: Mapping[str, Sequence[Store[Any]]]) -> None:
        self._stores = stores
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Yield the failures of every listener; a listener that several stores share counts once."""
        family = CounterMetricFamily(
            "vmsim_store_listener_failures",
            "Changes of an object that something derived from the cache of a resource failed on",
            labels=("store", "listener"),
        )
        for resource, stores in self._stores.items():
            listeners = {id(found): found for store in stores for found in store.subscriptions}
            failures: Tally[str] = Tally()
            for found in listeners.values():
                failures[found.name] += found.failures
            for listener, count in failures.items():
                family.add_metric((resource, listener), count)
        yield family


class ReflectorMetrics(Collector):
    """Collects the lists, watches and staleness of all reflectors."""

    def __init__(self, registry: CollectorRegistry, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._heard: dict[str, float] = {}
        self._lists, self._watches, self._short = (
            Counter(f"reflector_{verb}", f"Total number of {text} done by the reflectors", ("name",), registry=registry)
            for verb, text in (
                ("lists", "API lists"),
                ("watches", "API watches"),
                ("short_watches", "short API watches"),
            )
        )
        self._relists = Counter(
            "vmsim_reflector_relists",
            "Lists that were needed because a watch could not go on: its version had expired, or was refused",
            ("name", "cause"),
            registry=registry,
        )
        self._left_out = Counter(
            "vmsim_reflector_objects_left_out",
            "Objects in lists and watches whose metadata did not decode",
            ("name",),
            registry=registry,
        )
        registry.register(self)

    def reflector(self, name: str) -> CacheMetrics:
        """Return the metrics of one reflector; its staleness counts from now on."""
        self.heard(name)
        return CacheMetrics(
            self,
            name,
            self._lists.labels(name),
            self._watches.labels(name),
            self._short.labels(name),
            {cause: self._relists.labels(name, cause.value) for cause in Relist},
            self._left_out.labels(name),
        )

    def heard(self, name: str) -> None:
        """Note that a cache is known to be current now."""
        self._heard[name] = self._clock()

    def collect(self) -> Iterator[Metric]:
        """Yield the seconds for which each cache has had no sign from the API server."""
        staleness = GaugeMetricFamily(
            "vmsim_reflector_staleness_seconds",
            "Seconds since the API server last gave a sign that the cache is current: a list, an event or a bookmark",
            labels=("name",),
        )
        for name, heard in self._heard.items():
            staleness.add_metric((name,), self._clock() - heard)
        yield staleness


@dataclass(frozen=True, slots=True)
class CacheMetrics(Metrics):
    """The metrics of one reflector."""

    _all: ReflectorMetrics
    _name: str
    _lists: Counter
    _watches: Counter
    _short: Counter
    _relists: Mapping[Relist, Counter]
    _left_out: Counter

    def heard(self) -> None:
        """Report a sign that the cache is current."""
        self._all.heard(self._name)

    def listed(self) -> None:
        """Report a complete list."""
        self._lists.inc()
        self.heard()

    def watching(self) -> None:
        """Report a watch that the API server accepted."""
        self._watches.inc()
        self.heard()

    def watched_shortly(self) -> None:
        """Report a watch that ended at once and without an event."""
        self._short.inc()

    def must_list_again(self, cause: Relist) -> None:
        """Report that the watch cannot be resumed and a list is needed."""
        self._relists[cause].inc()

    def left_out(self, objects: int) -> None:
        """Report objects whose metadata did not decode."""
        self._left_out.inc(objects)
