"""Leader election on a Lease: client-go's algorithm and defaults.

Guarantees:

- At most one candidate leads. A candidate takes over a lease only after it has seen it unchanged for the lease's whole
  duration, by its own monotonic clock. Clocks of two machines are never compared.
- Every attempt has a deadline, requests in flight included. A leader that cannot renew in time, or that finds another
  holder, has lost the lease: `lead` raises, and the process must end.
- `held` says, by this process's own clock, whether it may write. It is right even when the event loop did not run for
  long (a stopped process, a suspended machine), and turns False before another candidate may take the lease.
- `release` frees the lease at once. Call it last, when nothing writes any more.

The lease is no fence: a request in flight when it expires may still be carried out. So each write carries its own
guard too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from typing import Final, Protocol

import msgspec
import structlog

from controller.kube import errors
from controller.kube.kinds import Lease, LeaseSpec
from controller.kube.resources import LEASES
from controller.kube.times import micro_timestamp
from controller.kube.verbs import Creator, Getter, Patcher

_log = structlog.get_logger(__name__)

_JITTER: Final = 1.2
"""The pause between a candidate's attempts is lengthened by up to this many times itself, at random."""
_RELEASED: Final = 1
"""Duration in seconds of a released lease, so that the next candidate need not wait."""
_RELEASE_DEADLINE: Final = 2.0


class LeaseLostError(Exception):
    """This process no longer leads and must end. The message says why."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Durations in seconds: client-go's defaults, which tolerate a clock that runs 1.5 times as fast as another."""

    lease: float = 15.0
    renew: float = 10.0
    retry: float = 2.0

    def __post_init__(self) -> None:
        """Raise ValueError for durations that cannot work together."""
        if not self.lease > self.renew > self.retry * _JITTER > 0:
            raise ValueError(f"want lease > renew > {_JITTER} * retry > 0, not {self}")


class Leases(Getter, Creator, Patcher, Protocol):
    """The verbs of an election."""


class Elector:
    """One candidate for one lease.

    `clock` is monotonic, in seconds, and counts suspended time; `now` gives the wall-clock times written to the lease.
    """

    def __init__(
        self,
        client: Leases,
        *,
        namespace: str,
        name: str,
        identity: str,
        clock: Callable[[], float],
        rng: Random,
        timing: Timing = Timing(),
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._clock = clock
        self._rng = rng
        self._timing = timing
        self._now = now
        self._sleep = sleep
        self._seen: Lease | None = None
        self._seen_at = float("-inf")
        self._renewed = float("-inf")
        self.leading = asyncio.Event()
        """Set when this process starts leading."""

    @property
    def held(self) -> bool:
        """Whether this process leads: its last renewal is younger than the time after which `lead` gives up."""
        return self._clock() < self._renewed + self._timing.renew + self._timing.retry

    async def run(self) -> None:
        """Wait until this process leads, then renew until cancelled. Raises LeaseLostError when it no longer leads."""
        await self.acquire()
        self.leading.set()
        await self.lead()

    async def acquire(self) -> None:
        """Wait until this process leads."""
        logged = ""
        while True:
            try:
                async with asyncio.timeout(self._timing.renew):
                    holder = await self._attempt()
            except (errors.KubeError, TimeoutError) as error:
                problem = str(error) or "no answer in time"
                if problem != logged:
                    _log.warning("cannot acquire the lease", lease=self._name, error=problem)
                logged = problem
            else:
                if holder == self._identity:
                    _log.info("leading", lease=self._name, identity=self._identity)
                    return
                if holder != logged:
                    _log.info("standing by", lease=self._name, leader=holder)
                logged = holder
            await self._sleep(self._timing.retry * (1 + _JITTER * self._rng.random()))

    async def lead(self) -> None:
        """Renew until cancelled. Raises LeaseLostError when this process no longer leads."""
        while True:
            await self._sleep(self._timing.retry)
            why = "no answer in time"
            try:
                async with asyncio.timeout(self._timing.renew):
                    while True:
                        try:
                            holder = await self._attempt()
                        except errors.KubeError as error:
                            why = str(error)
                            await self._sleep(self._timing.retry)
                            continue
                        break
            except TimeoutError:
                self._renewed = float("-inf")
                raise LeaseLostError(
                    f"lease {self._name} could not be renewed for {self._timing.renew:g} s: {why}"
                ) from None
            if holder != self._identity:
                self._renewed = float("-inf")
                raise LeaseLostError(f"lease {self._name} was taken by {holder or 'another client'}")

    async def release(self) -> None:
        """Release the lease if this process holds it. A failure is only logged: the lease expires by itself.

        A renewal in flight may have been carried out though its reply never arrived. So after a conflict the lease is
        read again.
        """
        if not self.held:
            return
        self._renewed = float("-inf")
        try:
            async with asyncio.timeout(_RELEASE_DEADLINE):
                while (seen := self._seen) is not None and seen.spec.holder_identity == self._identity:
                    spec = msgspec.structs.replace(
                        seen.spec, holder_identity="", lease_duration_seconds=_RELEASED, renew_time=self._time()
                    )
                    try:
                        await self._write(seen, spec)
                    except errors.ConflictError:
                        await self._read()
                        continue
                    return
        except (errors.KubeError, TimeoutError) as error:
            _log.warning("cannot release the lease", lease=self._name, error=str(error) or "no answer in time")

    async def _attempt(self) -> str:
        """Take or renew the lease unless another candidate holds it; return the holder's identity, empty if unknown."""
        began = self._clock()
        if not self.held or self._seen is None:
            await self._read()
        for _ in range(2):
            seen = self._seen
            if seen is not None and self._is_others(seen):
                return seen.spec.holder_identity or ""
            try:
                written = await (self._create() if seen is None else self._write(seen, self._mine(seen.spec)))
            except (errors.ConflictError, errors.AlreadyExistsError, errors.NotFoundError):
                await self._read()  # another candidate wrote first: read its identity
                continue
            self._observe(written)
            self._renewed = began
            return self._identity
        return ""

    async def _read(self) -> None:
        try:
            self._observe(await self._client.get(LEASES, self._name, namespace=self._namespace))
        except errors.NotFoundError:
            self._seen = None

    def _observe(self, lease: Lease) -> None:
        if self._seen is None or self._seen.spec != lease.spec:
            self._seen_at = self._clock()
        self._seen = lease

    def _is_others(self, seen: Lease) -> bool:
        """Whether another candidate holds the lease and it has not expired."""
        holder, lasts = seen.spec.holder_identity, seen.spec.lease_duration_seconds
        if not holder or holder == self._identity:
            return False
        return self._clock() < self._seen_at + (self._timing.lease if lasts is None else lasts)

    def _mine(self, before: LeaseSpec) -> LeaseSpec:
        now = self._time()
        ours = before.holder_identity == self._identity
        return LeaseSpec(
            holder_identity=self._identity,
            lease_duration_seconds=int(self._timing.lease),
            acquire_time=before.acquire_time if ours else now,
            renew_time=now,
            lease_transitions=before.lease_transitions + (not ours),
        )

    def _time(self) -> str:
        return micro_timestamp(self._now())

    async def _create(self) -> Lease:
        spec = msgspec.structs.replace(self._mine(LeaseSpec()), lease_transitions=0)
        body = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._name, "namespace": self._namespace},
            "spec": msgspec.to_builtins(spec),
        }
        return await self._client.create(LEASES, body, namespace=self._namespace, server_deadline=self._timing.renew)

    async def _write(self, seen: Lease, spec: LeaseSpec) -> Lease:
        guard = {"uid": seen.metadata.uid, "resourceVersion": seen.metadata.resource_version}
        body = {"metadata": guard, "spec": {**msgspec.to_builtins(spec), "leaseTransitions": spec.lease_transitions}}
        return await self._client.merge_patch(LEASES, self._name, body, namespace=self._namespace)
