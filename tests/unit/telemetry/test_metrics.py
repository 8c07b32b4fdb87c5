"""Metrics have client-go's and controller-runtime's names, and exist from the start."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from controller.engine.ratelimit import ItemExponential
from controller.engine.workers import Outcome
from controller.engine.workqueue import WorkQueue
from controller.telemetry import metrics
from tests.unit.engine.builders import seeded

NAME = {"name": "vm"}
CONTROLLER = {"controller": "vm"}


def series(registry: CollectorRegistry) -> dict[tuple[str, str], float]:
    """Return every sample but buckets and creation times, as (name, labels) and value."""
    return {
        (sample.name, ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))): sample.value
        for family in registry.collect()
        for sample in family.samples
        if not sample.name.endswith(("_bucket", "_created"))
    }


def buckets(registry: CollectorRegistry, name: str) -> list[float]:
    """Return the upper bounds of a histogram's buckets, without the last."""
    return [
        float(sample.labels["le"])
        for family in registry.collect()
        for sample in family.samples
        if sample.name == f"{name}_bucket" and sample.labels["le"] != "+Inf"
    ]


async def test_the_workqueue_s_metrics_are_client_go_s_and_start_at_0() -> None:
    """component-base's names and its label `name`."""
    registry = CollectorRegistry()
    queue: WorkQueue[str] = WorkQueue(ItemExponential(seeded()), metrics=metrics.QueueMetrics(registry, "vm"))
    registry.register(metrics.UnfinishedWork({"vm": queue}))

    assert series(registry) == {
        ("workqueue_depth", "name=vm"): 0,
        ("workqueue_adds_total", "name=vm"): 0,
        ("workqueue_retries_total", "name=vm"): 0,
        ("workqueue_queue_duration_seconds_count", "name=vm"): 0,
        ("workqueue_queue_duration_seconds_sum", "name=vm"): 0,
        ("workqueue_work_duration_seconds_count", "name=vm"): 0,
        ("workqueue_work_duration_seconds_sum", "name=vm"): 0,
        ("workqueue_unfinished_work_seconds", "name=vm"): 0,
        ("workqueue_longest_running_processor_seconds", "name=vm"): 0,
    }


def test_the_reconcile_s_metrics_are_controller_runtime_s_and_start_at_0() -> None:
    """All four results exist, and the number of workers is reported."""
    registry = CollectorRegistry()
    metrics.ReconcileMetrics(registry, "vm", 4)

    assert series(registry) == {
        **{
            ("controller_runtime_reconcile_total", f"controller=vm,result={result}"): 0
            for result in ("success", "error", "requeue", "requeue_after")
        },
        ("controller_runtime_reconcile_errors_total", "controller=vm"): 0,
        ("controller_runtime_reconcile_time_seconds_count", "controller=vm"): 0,
        ("controller_runtime_reconcile_time_seconds_sum", "controller=vm"): 0,
        ("controller_runtime_active_workers", "controller=vm"): 0,
        ("controller_runtime_max_concurrent_reconciles", "controller=vm"): 4,
    }


def test_buckets_are_component_base_s_and_controller_runtime_s() -> None:
    """So that quantiles can be compared with those of other controllers."""
    registry = CollectorRegistry()
    metrics.QueueMetrics(registry, "vm")
    metrics.ReconcileMetrics(registry, "vm", 1)

    powers = [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1, 10, 100, 1000]
    assert buckets(registry, "workqueue_queue_duration_seconds") == pytest.approx(powers)
    assert buckets(registry, "workqueue_work_duration_seconds") == pytest.approx(powers)
    assert buckets(registry, "controller_runtime_reconcile_time_seconds") == [
        *(0.005, 0.01, 0.025, 0.05),
        *(0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55),
        *(0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0),
        *(1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5),
        *(5, 6, 7, 8, 9, 10, 15, 20, 25, 30, 40, 50, 60),
    ]


@pytest.mark.looptime
async def test_each_step_of_a_key_is_counted() -> None:
    """Depth, adds, waits, keys in process, work done and retries."""
    registry = CollectorRegistry()
    queue: WorkQueue[str] = WorkQueue(ItemExponential(seeded()), metrics=metrics.QueueMetrics(registry, "vm"))
    registry.register(metrics.UnfinishedWork({"vm": queue}))

    def value(name: str) -> float | None:
        return registry.get_sample_value(f"workqueue_{name}", NAME)

    queue.add("a")
    queue.add("b")
    assert (value("depth"), value("adds_total")) == (2, 2)
    await asyncio.sleep(3)
    await queue.get()
    await asyncio.sleep(4)
    await queue.get()
    await asyncio.sleep(5)
    assert value("depth") == 0
    assert value("queue_duration_seconds_sum") == pytest.approx(3 + 7)
    assert value("unfinished_work_seconds") == pytest.approx(9 + 5)
    assert value("longest_running_processor_seconds") == pytest.approx(9)
    queue.done("a")
    queue.done("b")
    queue.add_rate_limited("a")
    assert value("work_duration_seconds_sum") == pytest.approx(9 + 5)
    assert value("work_duration_seconds_count") == 2
    assert value("unfinished_work_seconds") == 0
    assert value("retries_total") == 1


@pytest.mark.parametrize("outcome", list(Outcome))
def test_a_reconcile_counts_under_its_result(outcome: Outcome) -> None:
    """Only an error counts as an error; the worker is idle again."""
    registry = CollectorRegistry()
    subject = metrics.ReconcileMetrics(registry, "vm", 4)
    subject.started()
    assert registry.get_sample_value("controller_runtime_active_workers", CONTROLLER) == 1

    subject.finished(outcome, 0.5)

    found = series(registry)
    assert found["controller_runtime_active_workers", "controller=vm"] == 0
    assert found["controller_runtime_reconcile_time_seconds_sum", "controller=vm"] == 0.5
    for result in Outcome:
        counted = found["controller_runtime_reconcile_total", f"controller=vm,result={result}"]
        assert counted == (1 if result is outcome else 0)
    assert found["controller_runtime_reconcile_errors_total", "controller=vm"] == (outcome is Outcome.ERROR)


def test_a_new_registry_has_the_standard_process_metrics() -> None:
    """Memory, CPU time and start time, as in every Go controller."""
    names = {name for name, _ in series(metrics.new_registry())}

    assert {"process_resident_memory_bytes", "process_cpu_seconds_total", "process_start_time_seconds"} <= names


def test_no_series_has_a_created_sample() -> None:
    """Kubernetes' own metrics have none."""
    registry = metrics.new_registry()
    metrics.QueueMetrics(registry, "virtualmachine").added(1)
    assert b"_created" not in generate_latest(registry)
