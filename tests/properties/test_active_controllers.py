"""Two and three controllers act on the same VMs at once, as they would with leader election off.

One live pod a VM is promised under one leader only. With more, the guarded status still names the current pod: a second
one is terminating once each controller has reconciled, and the end is the same as with one controller. `play` counts
how often there were two pods, and for how long; `HYPOTHESIS_PROFILE=long` plays more schedules.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from random import Random
from typing import Final

import pytest

from controller.domain.resources import MIGRATIONS, VIRTUAL_MACHINES
from controller.kube.resources import PODS
from tests.properties.world import World

SCHEDULES: Final = 1000 if os.environ.get("HYPOTHESIS_PROFILE") == "long" else 40
STEPS: Final = 200
CHANGE: Final = 0.06
"""Probability that the next step is another controller's; the others pause, even in a request, with stale caches."""
KINDS: Final = (VIRTUAL_MACHINES.plural, PODS.plural, MIGRATIONS.plural)
VMS: Final = ("vm-1",)


@dataclass(slots=True)
class Count:
    """Incarnations, second pods, and for how many steps those existed (a step is about one request)."""

    incarnations: int = 0
    doubles: int = 0
    steps: int = 0
    longest: int = 0


def play(seed: int, controllers: int) -> Count:
    """Play one random schedule to its end; raise AssertionError if a promise is broken."""
    rng = Random(seed)  # noqa: S311 - no secret
    world = World(*[None] * controllers)
    try:
        return _play(world, rng)
    finally:
        world.close()


def _play(world: World, rng: Random) -> Count:
    cluster, count, since = world.cluster, Count(), dict[str, int]()
    for node in ("node-1", "node-2", "node-3"):
        cluster.add_node(node)
    for name in VMS:
        cluster.apply_vm(name)
    for process in world.processes:
        process.deliver()
    number = 0
    for step in range(STEPS):
        if rng.random() < CHANGE:
            number = rng.randrange(len(world.processes))
        _step(world, rng, number)
        doubled = world.doubles()
        for uid in doubled - since.keys():
            since[uid] = step
            count.doubles += 1
        for uid in since.keys() - doubled:
            existed = step - since.pop(uid)
            count.steps += existed
            count.longest = max(count.longest, existed)
    world.finish()
    for number in range(len(world.processes)):
        world.round(number)
    terminating = [pod for pod in cluster.live() if "deletionTimestamp" in pod["metadata"]]
    assert not world.doubles() or terminating, "once each controller has reconciled, a second pod is terminating"
    world.settle()
    assert world.doubles() == set()
    world.judge()
    count.incarnations = sum(cluster.status(name)["incarnation"] + 1 for name in VMS)
    return count


def _step(world: World, rng: Random, number: int) -> None:
    """Do one step: mostly of a controller, sometimes of the cluster, rarely of a user."""
    cluster, process, name = world.cluster, world.processes[number], rng.choice(VMS)
    match rng.choices(("let in", "work", "show", "cluster", "time", "user"), (40, 20, 20, 10, 1, 10))[0]:
        case "let in" if waiting := world.requests_of(number):
            world.let_in(rng.choice(waiting))
        case "work" if queued := process.queued():
            world.work(number, *rng.choice(queued))
        case "show":
            process.deliver(withhold=rng.choice((None, None, *KINDS)))
        case "cluster":
            rng.choice((cluster.run_pods, cluster.finish_deletions))()
        case "time":
            cluster.pass_time(rng.choice((1, 5, 60)))
        case "user":
            _disturb(world, rng, name)


def _disturb(world: World, rng: Random, name: str) -> None:
    cluster = world.cluster
    match rng.choice(("stop", "start", "start", "delete pod", "delete pod", "migrate")):
        case "stop":
            cluster.apply_vm(name, running=False)
        case "start":
            cluster.apply_vm(name)
        case "delete pod" if pods := world.keys(PODS.plural):
            cluster.remove(PODS, f"default/{rng.choice(pods)}")
        case "migrate":
            cluster.migrate(f"m-{cluster.revision}", vm=name, unschedulableTimeoutSeconds=20)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("controllers", [2, 3])
def test_the_status_names_the_current_pod_under_several_active_controllers(controllers: int) -> None:
    """Second pods occur, and are deleted."""
    counts = [play(seed, controllers) for seed in range(SCHEDULES)]
    assert sum(count.doubles for count in counts) > 0, "the schedules are too tame to show anything"


def test_one_controller_never_creates_a_second_pod() -> None:
    """Under the same schedules."""
    counts = [play(seed, 1) for seed in range(SCHEDULES)]
    assert sum(count.doubles for count in counts) == 0
    assert sum(count.incarnations for count in counts) > 2 * len(VMS) * SCHEDULES
