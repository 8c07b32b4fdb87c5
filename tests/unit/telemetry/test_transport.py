"""Metrics of requests, reflectors and listeners."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from controller.engine.changes import Change
from controller.engine.listeners import Subscription
from controller.engine.store import Store
from controller.engine.watch import Relist
from controller.kube.kinds import Pod
from controller.telemetry.transport import ReflectorMetrics, RequestMetrics, StoreMetrics
from tests.unit.clock import Clock
from tests.unit.engine.builders import pod


def test_requests_are_counted_by_code_method_and_host() -> None:
    """As in client-go."""
    registry = CollectorRegistry()
    requests = RequestMetrics(registry)
    for code in ("200", "200", "<error>"):
        requests.answered("GET", "10.0.0.1:6443", code)

    def value(code: str) -> float | None:
        labels = {"code": code, "method": "GET", "host": "10.0.0.1:6443"}
        return registry.get_sample_value("rest_client_requests_total", labels)

    assert (value("200"), value("<error>"), value("500")) == (2, 1, None)


def test_lists_and_watches_of_a_reflector_are_counted_from_0() -> None:
    """Every series exists from the start."""
    registry = CollectorRegistry()
    pods = ReflectorMetrics(registry, Clock()).reflector("pods")

    def values() -> list[float | None]:
        counters = ("reflector_lists", "reflector_watches", "reflector_short_watches")
        return [registry.get_sample_value(f"{name}_total", {"name": "pods"}) for name in counters] + [
            registry.get_sample_value("vmsim_reflector_relists_total", {"name": "pods", "cause": cause})
            for cause in ("expired", "refused")
        ]

    assert values() == [0, 0, 0, 0, 0]
    pods.listed()
    pods.watching()
    pods.watching()
    pods.watched_shortly()
    pods.must_list_again(Relist.REFUSED)
    assert values() == [1, 2, 1, 0, 1]


def test_staleness_is_the_time_since_the_last_sign_that_a_cache_is_current() -> None:
    """A list, an accepted watch or an event; of each cache by itself."""
    registry, clock = CollectorRegistry(), Clock()
    metrics = ReflectorMetrics(registry, clock)
    pods, nodes = metrics.reflector("pods"), metrics.reflector("nodes")

    def stale(name: str) -> float | None:
        return registry.get_sample_value("vmsim_reflector_staleness_seconds", {"name": name})

    clock.now = 5.0
    assert (stale("pods"), stale("nodes")) == (5, 5)
    for sign in (pods.listed, pods.watching, pods.heard):
        sign()
        assert stale("pods") == 0
        clock.now += 2
    nodes.heard()
    assert (stale("pods"), stale("nodes")) == (2, 0)


def test_failures_of_listeners_are_counted_by_resource_and_listener() -> None:
    """From 0, and summed over the stores of a resource; a listener of two stores counts once."""
    registry = CollectorRegistry()
    stores: list[Store[Pod]] = [Store(), Store()]
    StoreMetrics(registry, {"pods": stores})

    def fails(_old: Pod | None, _new: Pod | None) -> None:
        raise ZeroDivisionError

    shared = Subscription[Pod](fails, name="shared")
    for store in stores:
        store.subscribe(shared)
        store.listen(fails, name="own")
        store.listen(lambda _old, _new: None, name="sound")

    def value(listener: str) -> float | None:
        labels = {"store": "pods", "listener": listener}
        return registry.get_sample_value("vmsim_store_listener_failures_total", labels)

    assert (value("shared"), value("own"), value("sound")) == (0, 0, 0)
    for store in stores:
        store.apply(Change.of(pod("a", 1)))
    assert (value("shared"), value("own"), value("sound")) == (2, 2, 0)
