"""Playing: patches the consumption annotations of VMs so that they follow their profiles.

Guarantees: at most `rate` patches a second, at most one a second for a VM, and no burst after an outage; a patch has
the value of the moment at which it is sent, so no stale value queues; a value that is already set is not written; VMs
are served round-robin; a play that ends leaves every VM at its last value. A VM that is deleted, or replaced by another
of its name, is dropped and never touched. The play waits for an API server that is unreachable or overloaded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Final

from controller.domain import names
from controller.domain.objects import VirtualMachine
from controller.domain.resources import VIRTUAL_MACHINES
from controller.engine.backoff import Backoff
from controller.kube.errors import ConflictError, InvalidError, KubeError, NotFoundError, TransportError
from controller.operations.api import Api
from controller.operations.parallel import each, passing, retry_after
from controller.scenario.profiles import Part

RATE: Final = 20.0
"""Patches a second, by default."""
_AT_A_TIME: Final = 8
"""Patches in flight: enough for the default rate when each takes a third of a second."""
_SOON: Final = 1e-5
"""Seconds below which the player does not sleep: clocks are no finer."""
_LOOK: Final = 0.25
"""Seconds between two scans when there is nothing to write."""
_BREATH: Final = 100
"""VMs that are scanned before other tasks may run."""
_EACH: Final = 1.0
"""Seconds between two patches of one VM: no metric is read more often, and each costs the controller two writes."""


@dataclass(frozen=True, slots=True)
class Played:
    """The progress of a play. `seconds` are simulated; `lost` maps VMs that were dropped to the reason.

    `trouble` is the error while nothing can be written; None otherwise.
    """

    seconds: float
    writes: int
    playing: int
    lost: Mapping[str, str]
    trouble: str | None


@dataclass(slots=True)
class _Track:
    """One VM that is played: its UID, and its annotations by our own writes."""

    part: Part
    uid: str
    shown: dict[str, str | None]
    busy: bool = False
    rest_until: float = float("-inf")

    def wanted(self, seconds: float) -> dict[str, str]:
        """Return the annotations that differ from the profile at this time."""
        cpu, memory = self.part.at(seconds)
        now = {names.CPU_CONSUMPTION: cpu, names.MEMORY_CONSUMPTION: memory}
        return {key: value for key, value in now.items() if value is not None and value != self.shown[key]}


async def play(
    client: Api,
    parts: Iterable[Part],
    vms: Mapping[str, VirtualMachine],
    *,
    namespace: str,
    speed: float,
    report: Callable[[Played], None],
    rng: Random,
    rate: float = RATE,
) -> Played:
    """Play from the beginning until no profile changes any more, or for ever; return the final state.

    `vms` are the current VMs by name: annotations that have their value already are not written. `speed` is simulated
    seconds in a real one, `rate` the patches a second. `report` is called with the progress.

    Raises the KubeErrors that a retry does not fix, such as ForbiddenError.
    """
    return await _Player(client, parts, vms, namespace=namespace, speed=speed, report=report, rng=rng, rate=rate).run()


class _Player:
    """One play."""

    def __init__(
        self,
        client: Api,
        parts: Iterable[Part],
        vms: Mapping[str, VirtualMachine],
        *,
        namespace: str,
        speed: float,
        report: Callable[[Played], None],
        rng: Random,
        rate: float,
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._speed = speed
        self._report = report
        self._rng = rng
        self._interval = 1 / rate
        self._tracks = [_track(part, vms[part.vm]) for part in parts if part.vm in vms]
        ends = [track.part.end for track in self._tracks]
        finite = [end for end in ends if end is not None]
        self._end = max(finite, default=0.0) if len(finite) == len(ends) else float("inf")
        self._clock = asyncio.get_running_loop().time
        self._began = self._clock()
        self._slot = self._began
        """When the next patch may be sent."""
        self._backoff = Backoff(self._clock, rng)
        self._choosing = asyncio.Lock()
        self._at = 0
        """Index of the track to serve next."""
        self._writes = 0
        self._lost: dict[str, str] = {}
        self._trouble: str | None = None
        self._troubled_at = float("-inf")

    async def run(self) -> Played:
        """Play to the end."""
        await each(range(_AT_A_TIME), lambda _: self._work(), at_a_time=_AT_A_TIME)
        return self._played()

    async def _work(self) -> None:
        """Send one patch after the other; several workers share the rate."""
        while (chosen := await self._next()) is not None:
            await self._write(*chosen)

    async def _next(self) -> tuple[_Track, dict[str, str]] | None:
        """Wait for the next slot and return a patch to send; None when the play is over."""
        async with self._choosing:
            while True:
                self._report(self._played())
                wait = self._slot - self._clock()
                if wait > _SOON:
                    await asyncio.sleep(wait)
                    continue  # an error may have moved the slot meanwhile
                found = await self._look()
                if found is not None:
                    self._slot = max(self._clock(), self._slot) + self._interval
                    found[0].busy = True
                    return found
                if self._over():
                    return None
                await asyncio.sleep(_LOOK)

    async def _look(self) -> tuple[_Track, dict[str, str]] | None:
        """Return the next VM, round-robin, whose annotations differ from its profile now."""
        for count in range(len(self._tracks)):
            if count % _BREATH == _BREATH - 1:
                await asyncio.sleep(0)
            index = (self._at + count) % len(self._tracks)
            track = self._tracks[index]
            if track.busy or track.rest_until > self._clock() or track.part.vm in self._lost:
                continue
            wanted = track.wanted(self._seconds())
            if wanted:
                self._at = index + 1
                return track, wanted
        return None

    async def _write(self, track: _Track, wanted: dict[str, str]) -> None:
        body = {"metadata": {"uid": track.uid, "annotations": wanted}}
        sent = self._clock()
        try:
            await self._client.merge_patch(VIRTUAL_MACHINES, track.part.vm, body, namespace=self._namespace)
        except NotFoundError:
            self._lost[track.part.vm] = "it was deleted"
        except ConflictError:
            await self._ask(track)
        except InvalidError as error:
            await self._ask(track)  # the UID of another VM by that name cannot be changed
            self._lost.setdefault(track.part.vm, f"it was refused: {error.message}")
        except KubeError as error:
            if not passing(error):
                raise
            self._back_off(error, sent)
        else:
            track.shown |= wanted
            self._writes += 1
            self._recover()
        finally:
            track.rest_until = sent + _EACH
            track.busy = False

    async def _ask(self, track: _Track) -> None:
        """Read the VM after a refused patch: it may be deleted, replaced by a namesake, or only in conflict."""
        try:
            vm = await self._client.get(VIRTUAL_MACHINES, track.part.vm, namespace=self._namespace)
        except NotFoundError:
            self._lost[track.part.vm] = "it was deleted"
        except KubeError as error:
            if not passing(error):
                raise
        else:
            if vm.metadata.uid != track.uid:
                self._lost[track.part.vm] = "it was deleted and recreated"

    def _back_off(self, error: KubeError, sent: float) -> None:
        """Back off, once for an outage: patches that were in flight when it began extend it no further."""
        self._trouble = "the API server does not answer" if isinstance(error, TransportError) else str(error)
        if sent > self._troubled_at:
            self._troubled_at = self._clock()
            self._slot = max(self._slot, self._troubled_at + self._backoff.delay(at_least=retry_after(error)))
        self._report(self._played())

    def _recover(self) -> None:
        if self._trouble is not None:
            self._trouble = None
            self._backoff = Backoff(self._clock, self._rng)

    def _seconds(self) -> float:
        return (self._clock() - self._began) * self._speed

    def _over(self) -> bool:
        """Whether nothing is left to write later, if nothing is to be written now."""
        now = self._clock()
        left = [track for track in self._tracks if track.part.vm not in self._lost]
        if any(track.busy or track.rest_until > now for track in left):
            return False
        return not left or self._seconds() >= self._end

    def _played(self) -> Played:
        return Played(
            seconds=min(self._seconds(), self._end),
            writes=self._writes,
            playing=len(self._tracks) - len(self._lost),
            lost=dict(self._lost),
            trouble=self._trouble,
        )


def _track(part: Part, vm: VirtualMachine) -> _Track:
    annotations = vm.metadata.annotations
    return _Track(
        part, vm.metadata.uid, {key: annotations.get(key) for key in (names.CPU_CONSUMPTION, names.MEMORY_CONSUMPTION)}
    )
