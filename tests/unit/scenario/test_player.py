"""The player: the rate of its patches, their values, and its behaviour on errors."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from decimal import Decimal
from itertools import pairwise
from random import Random

import pytest

from controller.domain import names
from controller.domain.objects import VirtualMachine
from controller.domain.resources import VIRTUAL_MACHINES
from controller.kube import errors
from controller.scenario.player import Played, play
from controller.scenario.profiles import Constant, Curve, Part, Profile, Samples, Sine
from tests.unit.scenario.builders import Api

pytestmark = pytest.mark.looptime

RNG = Random(1)  # noqa: S311 - spreads retries
REQUEST = Decimal("0.5")
WAVE = Sine(Decimal("0.5"), Decimal("0.4"), 60.0)


def part(name: str, profile: Profile) -> Part:
    """Return a VM that plays a profile as its CPU."""
    return Part(name, Curve(profile, REQUEST, seed=1), None)


async def vms(api: Api, count: int) -> dict[str, VirtualMachine]:
    """Create VMs vm-1, vm-2 …; return them."""
    for number in range(1, count + 1):
        api.put(VIRTUAL_MACHINES.plural, f"default/vm-{number}")
    page = await api.list_page(VIRTUAL_MACHINES, limit=0)
    return {vm.metadata.name: vm for vm in page.items}


async def played(
    api: Api,
    parts: Iterable[Part],
    *,
    within: float = 1000.0,
    speed: float = 1.0,
    rate: float = 20.0,
    report: Callable[[Played], None] = lambda _: None,
) -> Played | None:
    """Play to the end; return None if that takes longer than `within` seconds."""
    page = await api.list_page(VIRTUAL_MACHINES, limit=0)
    found = {vm.metadata.name: vm for vm in page.items}
    try:
        async with asyncio.timeout(within):
            return await play(api, parts, found, namespace="default", speed=speed, report=report, rng=RNG, rate=rate)
    except TimeoutError:
        return None


def cpu(api: Api, name: str) -> str | None:
    """Return a VM's CPU annotation."""
    annotations = api.objects[VIRTUAL_MACHINES.plural, f"default/{name}"]["metadata"].get("annotations", {})
    found: str | None = annotations.get(names.CPU_CONSUMPTION)
    return found


def clocked(api: Api) -> list[float]:
    """Return a list that fills with the times of all patches."""
    times: list[float] = []
    clock = asyncio.get_running_loop().time
    api.before = lambda request: times.append(clock()) if request.startswith("PATCH") else None
    return times


async def test_a_play_that_ends_leaves_every_vm_at_its_last_value() -> None:
    """Though the rate allows far fewer patches than the profile has steps."""
    api = Api()
    found = await vms(api, 50)
    steps = Samples(tuple(float(at) for at in range(10)), tuple(Decimal(at) / 10 for at in range(10)))
    last = await played(api, [part(name, steps) for name in found], rate=5)
    assert {cpu(api, name) for name in found} == {"0.45"}
    assert last is not None
    assert last.seconds == 9.0


@pytest.mark.parametrize("rate", [1.0, 20.0, 100.0])
async def test_a_play_sends_patches_at_the_rate(rate: float) -> None:
    """Never closer than the interval, and no fewer if enough values change."""
    api = Api()
    await vms(api, 300)
    times = clocked(api)
    await played(api, [part(f"vm-{number}", WAVE) for number in range(1, 301)], within=20, rate=rate)
    assert min(later - sooner for sooner, later in pairwise(times)) >= 1 / rate - 1e-4
    assert len(times) == pytest.approx(20 * rate, rel=0.05)


async def test_a_pause_in_the_profile_causes_no_burst() -> None:
    """All values change at once after two minutes without a patch."""
    api = Api()
    found = await vms(api, 60)
    times = clocked(api)
    steps = Samples((0.0, 120.0), (Decimal("0.1"), Decimal("0.2")))
    await played(api, [part(name, steps) for name in found])
    assert len(times) == 120
    assert min(later - sooner for sooner, later in pairwise(times)) >= 0.05 - 1e-4


async def test_slow_replies_do_not_slow_the_rate() -> None:
    """Several patches are in flight."""
    api = Api()
    api.latency = 0.3
    await vms(api, 100)
    times = clocked(api)
    await played(api, [part(f"vm-{number}", WAVE) for number in range(1, 101)], within=20, rate=20)
    assert len(times) == pytest.approx(400, rel=0.05)


async def test_at_most_8_patches_are_in_flight() -> None:
    """The server does not answer."""
    api = Api()
    api.latency = 100.0
    await vms(api, 100)
    await played(api, [part(f"vm-{number}", WAVE) for number in range(1, 101)], within=50, rate=100)
    assert api.most_in_flight == 8


async def test_vms_are_served_round_robin() -> None:
    """At a tenth of the needed rate, their numbers of patches differ by at most one."""
    api = Api()
    await vms(api, 40)
    await played(api, [part(f"vm-{number}", WAVE) for number in range(1, 41)], within=50, rate=4)
    counts = Counter(api.tried)
    assert len(counts) == 40
    assert max(counts.values()) - min(counts.values()) <= 1


async def test_a_vm_is_patched_at_most_once_a_second() -> None:
    """Its value changes continuously, and the rate allows twenty."""
    api = Api()
    await vms(api, 1)
    times = clocked(api)
    await played(api, [part("vm-1", WAVE)], within=10)
    assert len(times) == pytest.approx(10, abs=1)


async def test_a_patch_has_the_value_of_the_moment_it_is_sent() -> None:
    """Values missed while a VM waits are not sent later."""
    api = Api()
    await vms(api, 10)
    clock = asyncio.get_running_loop().time
    began = clock()
    seen: list[tuple[float, str]] = []
    api.after = lambda request: seen.append((clock() - began, cpu(api, request.split()[1]) or ""))
    await played(api, [part(f"vm-{number}", WAVE) for number in range(1, 11)], within=30, rate=1, speed=3)
    assert len(seen) > 20
    assert all(value == Curve(WAVE, REQUEST, seed=1).at(3 * at) for at, value in seen)


async def test_a_value_that_is_already_set_is_not_written() -> None:
    """A constant that is set ends the play at once."""
    api = Api()
    await vms(api, 2)
    api.put(VIRTUAL_MACHINES.plural, "default/vm-1", metadata={"annotations": {names.CPU_CONSUMPTION: "0.30"}})
    last = await played(api, [part(f"vm-{number}", Constant(Decimal("0.6"))) for number in (1, 2)])
    assert api.tried == ["PATCH vm-2"]
    assert last is not None
    assert last.writes == 1


async def test_speed_scales_the_simulated_time() -> None:
    """An hour takes a minute."""
    api = Api()
    await vms(api, 1)
    began = asyncio.get_running_loop().time()
    last = await played(api, [part("vm-1", Samples((0.0, 3600.0), (Decimal("0.1"), Decimal("0.2"))))], speed=60.0)
    assert asyncio.get_running_loop().time() - began == pytest.approx(60, abs=1.5)
    assert cpu(api, "vm-1") == "0.10"
    assert last is not None
    assert last.seconds == 3600


async def test_a_deleted_vm_is_dropped() -> None:
    """The others continue."""
    api = Api()
    await vms(api, 2)
    asyncio.get_running_loop().call_later(10, api.remove, VIRTUAL_MACHINES, "default/vm-1")
    seen: list[Played] = []
    await played(api, [part("vm-1", WAVE), part("vm-2", WAVE)], within=30, report=seen.append)
    assert seen[-1].lost == {"vm-1": "it was deleted"}
    assert seen[-1].playing == 1
    counts = Counter(api.tried)
    assert counts["PATCH vm-1"] <= 11
    assert counts["PATCH vm-2"] >= 29


async def test_a_play_ends_when_its_last_vm_is_deleted() -> None:
    """Its profile never ends."""
    api = Api()
    await vms(api, 1)
    asyncio.get_running_loop().call_later(10, api.remove, VIRTUAL_MACHINES, "default/vm-1")
    last = await played(api, [part("vm-1", WAVE)])
    assert last is not None
    assert last.playing == 0


async def test_a_recreated_vm_of_the_same_name_is_not_patched() -> None:
    """Its UID differs."""
    api = Api()
    await vms(api, 1)

    def recreate() -> None:
        api.remove(VIRTUAL_MACHINES, "default/vm-1")
        api.put(VIRTUAL_MACHINES.plural, "default/vm-1")

    asyncio.get_running_loop().call_later(10, recreate)
    last = await played(api, [part("vm-1", WAVE)])
    assert cpu(api, "vm-1") is None
    assert last is not None
    assert last.lost == {"vm-1": "it was deleted and recreated"}


async def test_a_patch_is_retried_after_a_conflict() -> None:
    """The VM has the same UID."""
    api = Api()
    await vms(api, 1)
    api.errors["PATCH vm-1"] = [errors.ConflictError(409, "Conflict", "changed meanwhile")]
    last = await played(api, [part("vm-1", Constant(Decimal("0.6")))])
    assert cpu(api, "vm-1") == "0.30"
    assert last is not None
    assert not last.lost


async def test_a_vm_whose_patch_is_invalid_is_dropped() -> None:
    """The server's message is the reason."""
    api = Api()
    await vms(api, 2)
    api.errors["PATCH vm-1"] = [errors.InvalidError(422, "Invalid", "not this one")]
    last = await played(api, [part(f"vm-{number}", Constant(Decimal("0.6"))) for number in (1, 2)])
    assert cpu(api, "vm-2") == "0.30"
    assert last is not None
    assert last.lost == {"vm-1": "it was refused: not this one"}


@pytest.mark.parametrize(
    "error",
    [errors.TransportError("refused"), errors.ServerError(503, "ServiceUnavailable", "starting")],
    ids=["refused", "503"],
)
async def test_a_play_backs_off_in_an_outage_and_resumes_at_the_rate(error: errors.KubeError) -> None:
    """Few requests are sent during the outage, and all values after it."""
    api = Api()
    found = await vms(api, 60)
    times = clocked(api)
    clock = asyncio.get_running_loop().time
    back = clock() + 120
    record = api.before

    def away(request: str) -> None:
        record(request)
        if clock() < back and request.startswith("PATCH"):
            raise error

    api.before = away
    seen: list[Played] = []
    last = await played(api, [part(name, Constant(Decimal("0.6"))) for name in found], report=seen.append)
    assert {cpu(api, name) for name in found} == {"0.30"}
    assert len([at for at in times if at < back]) < 20
    after = [at for at in times if at >= back]
    assert min(later - sooner for sooner, later in pairwise(after)) >= 0.05 - 1e-4
    assert any(step.trouble is not None for step in seen)
    assert last is not None
    assert last.trouble is None


async def test_patches_that_fail_together_back_off_once() -> None:
    """Eight were in flight."""
    api = Api()
    api.latency = 0.5
    found = await vms(api, 8)
    for name in found:
        api.errors[f"PATCH {name}"] = [errors.TransportError("reset")]
    began = asyncio.get_running_loop().time()
    await played(api, [part(name, Constant(Decimal("0.6"))) for name in found])
    assert {cpu(api, name) for name in found} == {"0.30"}
    assert asyncio.get_running_loop().time() - began < 5


async def test_a_play_respects_retry_after() -> None:
    """For all VMs."""
    api = Api()
    await vms(api, 5)
    times = clocked(api)
    api.errors["PATCH vm-1"] = [errors.TooManyRequestsError(429, "TooManyRequests", "slow down", retry_after=40)]
    await played(api, [part(f"vm-{number}", Constant(Decimal("0.6"))) for number in range(1, 6)])
    assert times[1] - times[0] >= 40
    assert {cpu(api, f"vm-{number}") for number in range(1, 6)} == {"0.30"}


async def test_a_forbidden_patch_ends_the_play() -> None:
    """A retry does not fix it."""
    api = Api()
    await vms(api, 1)
    api.errors["PATCH vm-1"] = [errors.ForbiddenError(403, "Forbidden", "may not patch")]
    with pytest.raises(errors.ForbiddenError, match="may not patch"):
        await played(api, [part("vm-1", WAVE)])


async def test_a_play_changes_only_annotations_that_have_a_profile() -> None:
    """Another annotation, and the memory consumption without a profile, stay."""
    api = Api()
    await vms(api, 1)
    others = {"mine": "1", names.MEMORY_CONSUMPTION: "0.2"}
    api.put(VIRTUAL_MACHINES.plural, "default/vm-1", metadata={"annotations": others})
    await played(api, [part("vm-1", Constant(Decimal("0.6")))])
    annotations = api.objects[VIRTUAL_MACHINES.plural, "default/vm-1"]["metadata"]["annotations"]
    assert annotations == {**others, names.CPU_CONSUMPTION: "0.30"}
