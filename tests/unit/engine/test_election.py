"""At most one of several candidates leads, whatever the API server, the clocks and the network do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, TypeVar

import msgspec
import pytest

from controller.engine.election import Elector, LeaseLostError, Timing
from controller.kube import errors
from controller.kube.kinds import Lease, LeaseSpec
from controller.kube.resources import LEASES, Resource
from tests.model.server import ApiServer
from tests.model.store import decode
from tests.unit.engine.builders import seeded

T = TypeVar("T")
pytestmark = pytest.mark.looptime

PAUSE = 2 * 2.2
"""The longest pause between two reads of a candidate, in seconds."""


@dataclass
class LeaseServer(ApiServer):
    """The API server with one lease, and faults by candidate."""

    down: set[str] = field(default_factory=set)
    """Identities whose requests are refused."""
    hangs: set[str] = field(default_factory=set)
    """Identities whose requests are never answered."""
    loses_replies: set[str] = field(default_factory=set)
    """Identities whose writes are carried out, but not answered."""

    def __post_init__(self) -> None:
        """Create the namespace."""
        self.put("namespaces", "/ns")

    def client(self, identity: str) -> LeaseClient:
        """Return the client of one candidate."""
        return LeaseClient(self, identity)

    @property
    def lease(self) -> Lease:
        """The lease."""
        return decode(self.objects[LEASES.plural, "ns/lease"], Lease)

    @property
    def spec(self) -> LeaseSpec:
        """The spec of the lease."""
        return self.lease.spec


class LeaseClient:
    """The client of one candidate."""

    def __init__(self, server: LeaseServer, identity: str) -> None:
        self._server = server
        self._identity = identity

    async def _pass(self) -> None:
        if self._identity in self._server.hangs:
            await asyncio.Event().wait()
        if self._identity in self._server.down:
            raise errors.TransportError("refused")

    async def _reply(self, answer: Awaitable[T]) -> T:
        item = await answer
        if self._identity in self._server.loses_replies:
            raise errors.TransportError("reset")
        return item

    async def get(self, resource: Resource[T], name: str, *, namespace: str | None = None) -> T:
        """Read."""
        assert (resource, name, namespace) == (LEASES, "lease", "ns")
        await self._pass()
        return await self._server.get(resource, name, namespace=namespace)

    async def create(self, resource: Resource[T], body: Mapping[str, Any], **options: Any) -> T:
        """Create."""
        await self._pass()
        return await self._reply(self._server.create(resource, body, **options))

    async def merge_patch(self, resource: Resource[T], name: str, body: Mapping[str, Any], **options: Any) -> T:
        """Patch."""
        await self._pass()
        return await self._reply(self._server.merge_patch(resource, name, body, **options))


def elector(server: LeaseServer, identity: str, *, now: datetime | None = None, seed: int = 1) -> Elector:
    """Return a candidate with client-go's timing, on the loop's clock."""
    clock = asyncio.get_running_loop().time
    began = clock()
    start = now or datetime(2026, 1, 15, 10, 30, tzinfo=UTC)
    return Elector(
        server.client(identity),
        namespace="ns",
        name="lease",
        identity=identity,
        clock=clock,
        rng=seeded(seed),
        now=lambda: start + timedelta(seconds=clock() - began),
    )


@asynccontextmanager
async def leading(subject: Elector) -> AsyncIterator[asyncio.Task[None]]:
    """Acquire, and lead while the context lasts."""
    assert not subject.leading.is_set()
    task = asyncio.create_task(subject.run())
    try:
        await subject.leading.wait()
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, LeaseLostError):
            await task


async def test_the_first_candidate_leads_at_once() -> None:
    """It creates the lease, with all fields that client-go sets."""
    server = LeaseServer()
    subject = elector(server, "a")
    before = subject.held
    await subject.acquire()

    assert (before, subject.held) == (False, True)
    assert server.spec == LeaseSpec(
        holder_identity="a",
        lease_duration_seconds=15,
        acquire_time="2026-01-15T10:30:00.000000Z",
        renew_time="2026-01-15T10:30:00.000000Z",
        lease_transitions=0,
    )


async def test_times_are_utc_wherever_the_process_runs() -> None:
    """And have microseconds."""
    server = LeaseServer()
    await elector(server, "a", now=datetime(2026, 1, 15, 10, 30, tzinfo=timezone(timedelta(hours=5)))).acquire()

    assert server.spec.renew_time == "2026-01-15T05:30:00.000000Z"


async def test_a_leader_renews_every_two_seconds_with_one_request() -> None:
    """The acquire time stays."""
    server = LeaseServer()
    subject = elector(server, "a")
    async with leading(subject):
        before = len(server.requests)
        await asyncio.sleep(20.5)

        assert len(server.requests) - before == 10
        assert subject.held
        assert server.spec.acquire_time == "2026-01-15T10:30:00.000000Z"
        assert server.spec.renew_time == "2026-01-15T10:30:20.000000Z"
        assert server.spec.lease_transitions == 0


async def test_a_candidate_waits_as_long_as_another_leads() -> None:
    """Without a limit."""
    server = LeaseServer()
    other = elector(server, "b")
    async with leading(elector(server, "a")):
        waiting = asyncio.create_task(other.acquire())
        await asyncio.sleep(1000)

        assert not waiting.done()
        assert not other.held
        waiting.cancel()


@pytest.mark.parametrize("seed", range(40))
async def test_a_dead_leaders_lease_is_taken_when_it_has_expired(seed: int) -> None:
    """After 15 s without a change, between two reads of the candidate; the transition is counted."""
    server = LeaseServer()
    clock = asyncio.get_running_loop().time
    other = elector(server, "b", seed=seed)
    async with leading(elector(server, "a")):
        waiting = asyncio.create_task(other.acquire())
        await asyncio.sleep(10)
    died = clock()
    await waiting

    assert 13 <= clock() - died <= 15 + 2 * PAUSE
    assert server.spec.holder_identity == "b"
    assert server.spec.lease_transitions == 1


async def test_a_candidate_ignores_the_times_in_the_lease() -> None:
    """A leader whose wall clock is an hour behind leads all the same: only changes of the lease count."""
    server = LeaseServer()
    other = elector(server, "b", now=datetime(2026, 1, 15, 11, 30, tzinfo=UTC))
    async with leading(elector(server, "a")):
        waiting = asyncio.create_task(other.acquire())
        await asyncio.sleep(100)

        assert not waiting.done()
        waiting.cancel()


async def test_a_released_lease_is_taken_at_once() -> None:
    """Within one pause between attempts; no candidate waits for its expiry."""
    server = LeaseServer()
    clock = asyncio.get_running_loop().time
    first, other = elector(server, "a"), elector(server, "b")
    async with leading(first):
        waiting = asyncio.create_task(other.acquire())
        await asyncio.sleep(10)
    await first.release()
    assert not first.held
    assert (server.spec.holder_identity, server.spec.lease_duration_seconds) == ("", 1)
    released = clock()
    await waiting

    assert clock() - released <= PAUSE
    assert server.spec.lease_transitions == 1


async def test_a_candidate_that_does_not_lead_releases_nothing() -> None:
    """The leader's lease stays as it is."""
    server = LeaseServer()
    other = elector(server, "b")
    async with leading(elector(server, "a")):
        waiting = asyncio.create_task(other.acquire())
        await asyncio.sleep(5)
        waiting.cancel()
        await other.release()

        assert server.spec.holder_identity == "a"


@pytest.mark.parametrize("fault", ["down", "hangs"])
async def test_a_leader_that_cannot_renew_gives_up_before_another_may_lead(fault: str) -> None:
    """After 12 s at most, whether requests fail or hang; the other candidate leads after 15 s."""
    server = LeaseServer()
    clock = asyncio.get_running_loop().time
    first, other = elector(server, "a"), elector(server, "b")
    async with leading(first) as task:
        waiting = asyncio.create_task(other.acquire())
        await asyncio.sleep(10.5)
        cut_off = clock()
        getattr(server, fault).add("a")
        with pytest.raises(LeaseLostError, match="could not be renewed for 10 s"):
            await task

        assert 10 <= clock() - cut_off <= 12
        assert not first.held
        assert not other.held
        await waiting
        assert other.held


async def test_held_turns_false_even_if_the_event_loop_did_not_run() -> None:
    """A process that was stopped for a while writes nothing when it resumes, before any task has run."""
    server = LeaseServer()
    now = 0.0
    subject = Elector(server.client("a"), namespace="ns", name="lease", identity="a", clock=lambda: now, rng=seeded())
    await subject.acquire()
    assert subject.held

    now = 11.9
    assert subject.held
    now = 12.0
    assert not subject.held


async def test_a_leader_that_finds_another_holder_has_lost() -> None:
    """It reads the other's identity in the lease, and ends."""
    server = LeaseServer()
    first, other = elector(server, "a"), elector(server, "b")
    await first.acquire()
    await other.acquire()  # the first one slept all the time
    task = asyncio.create_task(first.lead())
    with pytest.raises(LeaseLostError, match="was taken by b"):
        await task

    assert not first.held


async def test_a_renewal_whose_reply_is_lost_keeps_the_lease() -> None:
    """The next attempt reads its own identity and renews again."""
    server = LeaseServer()
    subject = elector(server, "a")
    async with leading(subject) as task:
        server.loses_replies.add("a")
        await asyncio.sleep(5)
        server.loses_replies.clear()
        await asyncio.sleep(60)

        assert not task.done()
        assert subject.held
        assert server.spec.lease_transitions == 0


async def test_a_deleted_lease_is_created_again() -> None:
    """By its leader, which keeps leading."""
    server = LeaseServer()
    subject = elector(server, "a")
    async with leading(subject) as task:
        server.remove(LEASES, "ns/lease")
        await asyncio.sleep(5)

        assert not task.done()
        assert server.spec.holder_identity == "a"


async def test_a_candidate_survives_an_outage() -> None:
    """It leads when the server is back."""
    server = LeaseServer()
    server.down.add("a")
    subject = elector(server, "a")
    waiting = asyncio.create_task(subject.acquire())
    await asyncio.sleep(100)
    assert not waiting.done()
    server.down.clear()
    await asyncio.sleep(5)

    assert waiting.done()
    assert subject.held


@pytest.mark.timeout(90)
async def test_no_two_of_many_candidates_ever_hold_the_lease() -> None:
    """Though any of them dies, hangs or is cut off at any moment."""
    server = LeaseServer()
    rng = seeded(5)
    holders: list[int] = []

    async def candidate(number: int) -> None:
        life = 0
        while True:
            life += 1
            subject = elector(server, f"{number}-{life}")
            alive[number] = subject
            with suppress(LeaseLostError):
                async with asyncio.timeout(rng.uniform(5, 120)):
                    async with leading(subject) as task:
                        await task
            if rng.random() < 0.5:
                await subject.release()

    async def trouble() -> None:
        while True:
            await asyncio.sleep(rng.uniform(1, 30))
            victims = {subject._identity for subject in alive.values() if rng.random() < 0.4}
            server.down, server.hangs = (victims, set()) if rng.random() < 0.5 else (set(), victims)

    async def forgiving(number: int) -> None:
        while True:
            with suppress(TimeoutError):
                await candidate(number)

    alive: dict[int, Elector] = {}
    tasks = [asyncio.create_task(forgiving(number)) for number in range(4)] + [asyncio.create_task(trouble())]
    for _ in range(2000):
        await asyncio.sleep(1)
        holders.append(sum(subject.held for subject in alive.values()))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

    assert max(holders) == 1
    assert holders.count(1) > len(holders) / 4
    assert server.spec.lease_transitions > 15


@pytest.mark.parametrize(("lease", "renew", "retry"), [(10, 10, 2), (15, 2.4, 2), (15, 10, 0)])
def test_timing_that_cannot_work_is_refused(lease: float, renew: float, retry: float) -> None:
    """As client-go refuses it."""
    with pytest.raises(ValueError, match="lease > renew"):
        Timing(lease, renew, retry)


async def test_a_lease_is_released_although_a_renewal_was_in_flight() -> None:
    """The renewal was carried out without a reply, so the last version seen is old."""
    server = LeaseServer()
    first, other = elector(server, "a"), elector(server, "b")
    async with leading(first):
        await asyncio.sleep(5)
    await server.client("a").merge_patch(
        LEASES,
        "lease",
        {
            "metadata": {"resourceVersion": server.lease.metadata.resource_version},
            "spec": {**msgspec.to_builtins(server.spec), "renewTime": "2026-01-15T10:30:06.000000Z"},
        },
        namespace="ns",
    )
    await first.release()

    assert server.spec.holder_identity in ("", None)
    await asyncio.wait_for(other.acquire(), PAUSE)


async def test_release_leaves_a_lease_that_another_took_meanwhile() -> None:
    """After the conflict, a read shows the other's identity."""
    server = LeaseServer()
    first = elector(server, "a")
    async with leading(first):
        await asyncio.sleep(5)
    server.put(LEASES.plural, "ns/lease", spec={**msgspec.to_builtins(server.spec), "holderIdentity": "b"})
    await first.release()

    assert server.spec.holder_identity == "b"
