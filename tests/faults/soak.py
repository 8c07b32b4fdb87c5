"""A soak: a fleet in constant change, a fault every few seconds, the API server and etcd killed (`make soak`).

Guarantees: the judgement relies on a watch of its own, on the kernel's figures of the process (resident memory, file
descriptors), and on its event loop (tasks); the controller is never restarted, so that every leak stays visible; the
run ends at most five minutes after its time.

Exit codes: 0 if the soak was good, 1 if not, 2 for a wrong command line, 3 if it could not be carried out.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Final, Protocol

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from controller.controlplane.errors import ControlPlaneError
from controller.controlplane.plane import ControlPlane
from controller.kube.meta import ObjectOnly
from controller.kube.resources import Resource
from controller.telemetry import logs
from tests.faults.churn import Churn
from tests.faults.matrix import laboratory
from tests.faults.oracles import broken_histories, wrong_live_pods
from tests.faults.proxy import Proxy
from tests.faults.run import Lab
from tests.faults.soaked import Sample, Soaked, SoakPlan, unfinished
from tests.faults.stage import runs
from tests.faults.weather import Weather
from tests.faults.witness import Witness
from tests.faults.zygote import TASKS, Process
from tests.plane import install

NODES: Final = 10
_NAMESPACE: Final = "soak"
_NAMESPACES: Final = Resource("", "v1", "namespaces", ObjectOnly)
_DEADLINE: Final = 10.0
_READY: Final = 60.0
_POLL: Final = 0.1
_SETTLE: Final = 240.0
_QUIET: Final = 5.0
_TASKS: Final = 16
_COMPONENTS: Final = ("kube-apiserver", "etcd")
_OUTAGE: Final = 1.0
_FAILED, _NOT_CARRIED_OUT = 1, 3


class Outages(Protocol):
    """A control plane whose components can be killed; `controller.controlplane` has one."""

    def stop_component(self, name: str) -> None:
        """Kill it."""

    def start_component(self, name: str) -> None:
        """Start it, unless it runs, and wait until it is healthy."""


class NeverRanError(Exception):
    """The fleet did not run in time, so there is nothing to soak."""


async def carry_out(plane: ControlPlane, directory: Path, plan: SoakPlan) -> Soaked:
    """Soak on a control plane with our CRDs that no one else uses. Raises NeverRanError."""
    async with laboratory(plane.kubeconfig, directory) as lab:
        await lab.client.create(_NAMESPACES, {"metadata": {"name": _NAMESPACE}}, server_deadline=_DEADLINE)
        async with (
            _controller(lab) as (process, proxy, log),
            Witness(lab.client, _NAMESPACE, gaps=True) as witness,
        ):
            return await _Soak(lab, plane, plan, process, proxy, log, witness).run()


class _Soak:
    """One soak. Lives for one call."""

    def __init__(  # noqa: PLR0917 - made in one place
        self,
        lab: Lab,
        outages: Outages,
        plan: SoakPlan,
        process: Process,
        proxy: Proxy,
        log: Path,
        witness: Witness,
    ) -> None:
        rng = Random(1)  # noqa: S311 - no secret, and the same soak every time
        self._outages = outages
        self._plan = plan
        self._process = process
        self._proxy = proxy
        self._log = log
        self._witness = witness
        self._churn = Churn(lab.client, _NAMESPACE, plan.vms, rng)
        self._weather = Weather(rng)
        self._meter = Meter(process, log)
        self._killed: Counter[str] = Counter()
        self._samples: list[Sample] = []
        self._clock = asyncio.get_running_loop().time
        self._began = self._clock()

    async def run(self) -> Soaked:
        """Start the fleet, disturb it, and check that it recovers."""
        await self._churn.seed()
        fleet = tuple(self._churn.wanted)
        if not await self._witness.until(
            lambda seen: (
                all(runs(seen, name) for name in fleet)
                and all(migration.finished for migration in seen.migrations.values())
            ),
            seconds=_SETTLE,
        ):
            raise NeverRanError(f"not all of {len(fleet)} VMs ran within {_SETTLE:.0f} s")
        self._began = self._clock()
        self._proxy.fault = self._weather
        await self._disturb()
        self._weather.clear()
        for component in reversed(_COMPONENTS):
            await asyncio.to_thread(self._outages.start_component, component)
        await self._churn.repair()
        stopped = self._clock()
        at = await self._witness.settled(
            lambda seen: not any(unfinished(seen, self._churn.wanted)), quiet=_QUIET, seconds=_SETTLE
        )
        await self._sample()
        return Soaked(
            self._plan,
            tuple(self._samples),
            self._churn.done,
            self._weather.struck_by,
            self._killed,
            len(self._witness.history),
            at - stopped if at is not None else None,
            tuple(self._complaints()),
        )

    async def _disturb(self) -> None:
        """Run acts, faults, outages and samples concurrently for the planned time. Raises the error of any of them."""
        work = [
            asyncio.create_task(part)
            for part in (
                self._churn.run(per_second=self._plan.acts, tasks=_TASKS),
                self._measure(),
                self._change(),
                self._fail(),
            )
        ]
        ended, _ = await asyncio.wait(work, timeout=self._plan.seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        for task in ended:
            task.result()

    async def _measure(self) -> None:
        while True:
            await self._sample()
            await asyncio.sleep(self._plan.sample_every)

    async def _sample(self) -> None:
        self._samples.append(await self._meter.sample(self._clock() - self._began))

    async def _change(self) -> None:
        while True:
            self._weather.change()
            await asyncio.sleep(self._plan.fault_every)

    async def _fail(self) -> None:
        while True:
            for component in _COMPONENTS:
                await asyncio.sleep(self._plan.outage_every)
                await asyncio.to_thread(self._outages.stop_component, component)
                await asyncio.sleep(_OUTAGE)
                await asyncio.to_thread(self._outages.start_component, component)
                self._killed[component] += 1

    def _complaints(self) -> Iterator[str]:
        if not self._process.alive:
            yield f"the controller has ended by itself; its log: {self._log}"
        if b"failed on a defect" in self._log.read_bytes():
            yield f"a reconcile failed on a defect; its log: {self._log}"
        yield from unfinished(self._witness.cluster, self._churn.wanted)
        yield from wrong_live_pods(self._witness.history)
        yield from broken_histories(self._witness.history)


class Meter:
    """Reads the resources of the process; its log has the address of its metrics and the counts of its tasks."""

    def __init__(self, process: Process, log: Path) -> None:
        self._process = process
        self._log = log
        started = next(line for line in log.read_text().splitlines() if '"event": "starting"' in line)
        self._url = str(json.loads(started)["metrics"])

    async def sample(self, at: float) -> Sample:
        """Take one sample."""
        async with aiohttp.ClientSession() as session, session.get(self._url) as response:
            families = text_string_to_metric_families(await response.text())
        values = {sample.name: sample.value for family in families for sample in family.samples}
        memory, descriptors = values["process_resident_memory_bytes"], int(values["process_open_fds"])
        return Sample(at, memory, descriptors, await self._tasks())

    async def _tasks(self) -> int:
        known = self._log.stat().st_size
        self._process.count_tasks()
        async with asyncio.timeout(_READY):
            while True:
                fresh = self._log.read_bytes()[known:].splitlines(keepends=True)
                for line in fresh:
                    if TASKS.encode() in line and line.endswith(b"\n"):
                        return int(json.loads(line)[TASKS])
                await asyncio.sleep(_POLL)


@asynccontextmanager
async def _controller(lab: Lab) -> AsyncIterator[tuple[Process, Proxy, Path]]:
    """Run one controller behind a proxy while the context lasts."""
    lab.directory.mkdir(parents=True, exist_ok=True)
    log = lab.directory / "controller.log"
    log.write_bytes(b"")
    async with Proxy.serve(lab.upstream, lambda: None) as proxy:
        process = await lab.zygote.spawn(
            *("controller", "--kubeconfig", str(proxy.kubeconfig(lab.directory / "kubeconfig", _NAMESPACE))),
            *("--namespaces", _NAMESPACE, "--no-leader-elect", "--metrics-bind-address", "127.0.0.1:0"),
            *("--log-format", "json"),
            log=log,
        )
        try:
            async with asyncio.timeout(_READY):
                while b"caches filled" not in log.read_bytes():  # noqa: ASYNC110 - a file has no event
                    await asyncio.sleep(_POLL)
            yield process, proxy, log
        finally:
            await process.close()


def main() -> None:
    """Soak on a control plane of its own and exit."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.soak", description="Soak a controller in faults, on a control plane of its own."
    )
    parser.add_argument("--minutes", type=float, default=30.0, metavar="N", help="how long (default: 30)")
    parser.add_argument("--vms", type=int, default=300, metavar="N", help="how many VMs (default: 300)")
    wanted = parser.parse_args()
    logs.configure(logs.LogFormat.CONSOLE, logs.LogLevel.ERROR)
    plan = SoakPlan(seconds=wanted.minutes * 60, vms=wanted.vms)
    try:
        with (
            tempfile.TemporaryDirectory(prefix="vmsim-soak-") as directory,
            ControlPlane(Path(directory) / "plane", nodes=NODES) as plane,
        ):
            install(plane)
            soaked = asyncio.run(carry_out(plane, Path(directory) / "run", plan))
    except ControlPlaneError as error:
        sys.exit(_complain(f"{error}\nhint: {error.hint}"))
    except NeverRanError as error:
        sys.exit(_complain(str(error)))
    sys.stdout.write("".join(f"{line}\n" for line in soaked.lines()))
    sys.exit(_FAILED if soaked.complaints or soaked.settled is None else 0)


def _complain(message: str) -> int:
    sys.stderr.write(f"error: {message}\n")
    return _NOT_CARRIED_OUT


if __name__ == "__main__":
    main()
