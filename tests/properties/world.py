"""A cluster in memory, controllers whose requests are served one by one as a test decides, and a judge.

Guarantees: nothing happens but by a method of `World`. Each request of a controller waits until the test serves it, so
that reconciles interleave at every request; one that waited past its deadline is lost. `settle` runs all parties until
nothing changes any more, and `judge` checks the result against the specs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any, Final

import msgspec

from controller.domain import names, ownership
from controller.domain.objects import VirtualMachine
from controller.domain.ratio import RatioError
from controller.domain.resources import MIGRATIONS, VIRTUAL_MACHINES
from controller.domain.vm import launcher, status
from controller.domain.vm.state import HISTORY_LIMIT
from controller.kube import errors, times
from controller.kube.kinds import Pod
from controller.kube.resources import NODES, PODS
from controller.kube.verbs import CREATE_DEADLINE
from tests.model.cluster import Cluster
from tests.model.faults import LONGEST_REQUEST, Fault
from tests.model.rules import Document
from tests.unit.reconcilers.harness import Process

LONGEST_PATIENCE: Final = 256.0
"""Seconds that pass at most between two rounds without a change."""
IDLE: Final = 16
"""Rounds of that length, an hour in all, without a change although keys are retried."""
ROUNDS: Final = 400
FINALIZER: Final = "example.com/hold"
"""A foreign finalizer that is never removed."""


@dataclass(slots=True)
class Request:
    """A request that waits to be served, and the reconcile that sent it."""

    what: str
    task: asyncio.Task[None]
    door: asyncio.Future[None]
    since: datetime


class World:
    """The cluster and its controllers, one or more for each class of VMs."""

    def __init__(self, *classes: str | None) -> None:
        self.loop = asyncio.new_event_loop()
        self.cluster = Cluster()
        self.waiting: list[Request] = []
        self._tasks: dict[asyncio.Task[None], tuple[int, str, str]] = {}
        self.processes = [Process(self.cluster, of_class=of_class) for of_class in classes]
        self.cluster.turn = self._turn

    def add(self, of_class: str | None) -> None:
        """Start one more controller."""
        self.processes.append(Process(self.cluster, of_class=of_class))

    def close(self) -> None:
        """Cancel all reconciles, and close the loop."""
        for number in range(len(self.processes)):
            self._cancel(number)
        self.loop.close()

    # --- requests one by one ---------------------------------------------------------------------------------

    async def _turn(self, what: str) -> None:
        task = asyncio.current_task()
        assert task is not None
        request = Request(what, task, self.loop.create_future(), self.cluster.now)
        self.waiting.append(request)
        await request.door

    def work(self, number: int, queue: str, key: str) -> None:
        """Let a worker of a process take a key, up to its first request; two workers never have the same key."""
        if (number, queue, key) in self._tasks.values():
            return
        task = self.loop.create_task(self.processes[number].work(queue, key))
        self._tasks[task] = (number, queue, key)
        self._run()

    def let_in(self, index: int) -> None:
        """Serve one request, and run its reconcile up to the next one."""
        request = self.waiting.pop(index)
        if self._is_lost(request):
            request.door.set_exception(errors.TransportError("no reply in time"))
        else:
            request.door.set_result(None)
        self._run()

    def _is_lost(self, request: Request) -> bool:
        """Whether a request has waited past its deadline."""
        deadline = CREATE_DEADLINE if request.what.startswith("create") else LONGEST_REQUEST
        return (self.cluster.now - request.since).total_seconds() > deadline

    def requests_of(self, number: int) -> list[int]:
        """Return the indices of a process's waiting requests."""
        return [at for at, request in enumerate(self.waiting) if self._tasks[request.task][0] == number]

    def finish(self) -> None:
        """Serve all requests until none is left."""
        while self.waiting:
            self.let_in(0)

    def round(self, number: int) -> None:
        """Let a process see all changes and reconcile its queued keys, all concurrently."""
        process = self.processes[number]
        process.deliver()
        for queue, key in process.queued():
            self.work(number, queue, key)
        self.finish()

    def crash(self, number: int, fate: str) -> None:
        """Kill a process, whose waiting requests are `dropped`, `carried out` or `late`, and start another."""
        for request in [self.waiting[at] for at in self.requests_of(number)]:
            if fate == "carried out":
                self.let_in(self.waiting.index(request))
            elif fate == "late" and request.what == "create pods" and not self._is_lost(request):
                late = Fault("create", PODS.plural, asyncio.CancelledError(), late=CREATE_DEADLINE)
                self.cluster.faults.insert(0, late)
                self.let_in(self.waiting.index(request))
        self._cancel(number)
        self.processes[number] = Process(self.cluster, of_class=self.processes[number].of_class)

    def _cancel(self, number: int) -> None:
        mine = [task for task, (of, _, _) in self._tasks.items() if of == number]
        self.waiting = [request for request in self.waiting if request.task not in mine]
        for task in mine:
            task.cancel()
        self._run()

    def _run(self) -> None:
        """Run the loop until every reconcile waits for a request or has ended."""
        while self.loop._ready:  # type: ignore[attr-defined]
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()
        for task in [task for task in self._tasks if task.done()]:
            del self._tasks[task]
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error

    def await_(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine of a test's own to its end."""
        self.loop.run_until_complete(work)

    # --- the rest of the cluster -----------------------------------------------------------------------------

    def doubles(self) -> set[str]:
        """Return the UIDs of the VMs that have more than one live pod now."""
        owners = [uid for pod in self.cluster.live() for uid in _owners(pod)]
        return {uid for uid in owners if owners.count(uid) > 1}

    def keys(self, plural: str) -> list[str]:
        """Return the names of one resource's objects, in the order of their creation."""
        return [key.partition("/")[2] for kind, key in self.cluster.objects if kind == plural]

    def _vm_uids(self) -> set[str]:
        """Return the UIDs of the VMs that exist."""
        return {self.cluster.vm(name)["metadata"]["uid"] for name in self.keys(VIRTUAL_MACHINES.plural)}

    def collect_garbage(self) -> None:
        """Finish the deletion of VMs that have a finalizer, and of pods that no controller of ours can see."""
        self._collect_hidden_pods()
        for name in self.keys(VIRTUAL_MACHINES.plural):
            vm = self.cluster.vm(name)
            if "deletionTimestamp" not in vm["metadata"] or FINALIZER in vm["metadata"]["finalizers"]:
                continue
            owned = [pod for pod in self.cluster.pods() if vm["metadata"]["uid"] in _owners(pod)]
            if "orphan" in vm["metadata"]["finalizers"]:
                for pod in owned:
                    self.cluster.edit(PODS, f"default/{pod['metadata']['name']}", ownerReferences=[])
            elif owned:
                for pod in owned:
                    self._delete_pod(pod)
                continue
            self.cluster.remove(VIRTUAL_MACHINES, f"default/{name}")

    def _collect_hidden_pods(self) -> None:
        """Delete such pods without an owner, and remove those whose node no longer exists."""
        for pod in self.cluster.pods():
            if names.VM_LABEL in pod["metadata"].get("labels", {}):
                continue
            node = pod["spec"].get("nodeName")
            if node is not None and (NODES.plural, f"/{node}") not in self.cluster.objects:
                self.cluster.remove(PODS, f"default/{pod['metadata']['name']}")
            elif _owners(pod) - self._vm_uids():
                self._delete_pod(pod)

    def _delete_pod(self, pod: Document) -> None:
        if "deletionTimestamp" not in pod["metadata"]:
            now = times.timestamp(self.cluster.now)
            self.cluster.edit(PODS, f"default/{pod['metadata']['name']}", deletionTimestamp=now)

    def settle(self) -> None:
        """End all faults, and run all parties until nothing changes any more."""
        self.finish()
        self.cluster.faults.clear()
        patience, idle = 1.0, 0
        for _ in range(ROUNDS):
            before = (self.cluster.revision, len(self.cluster.late))
            for number in range(len(self.processes)):
                self.round(number)
            again = any(process.queued() for process in self.processes)
            self.cluster.run_pods()
            self.cluster.finish_deletions()
            self.collect_garbage()
            if (self.cluster.revision, len(self.cluster.late)) != before:
                patience, idle = 1.0, 0
                continue
            idle += patience == LONGEST_PATIENCE
            if not self.cluster.late and (not again or idle > IDLE):
                return
            self.cluster.pass_time(patience)
            patience = min(2 * patience, LONGEST_PATIENCE)
        raise AssertionError(f"not settled: {self.cluster.objects}")

    # --- the judge -------------------------------------------------------------------------------------------

    def judge(self) -> None:
        """Check that every object is as its spec asks, and that no write follows."""
        assert self.cluster.touched == []
        for name in self.keys(VIRTUAL_MACHINES.plural):
            self._judge_vm(name)
        alive = self._vm_uids()
        assert [pod for pod in self.cluster.live() if not _owners(pod) <= alive] == [], "a pod has outlived its VM"
        for name in self.keys(MIGRATIONS.plural):
            migration = self.cluster.objects[MIGRATIONS.plural, f"default/{name}"]
            phase = migration["status"]["phase"]
            vm = self.cluster.objects.get((VIRTUAL_MACHINES.plural, f"default/{migration['spec']['vmName']}"))
            # The record of an eviction waits with its VM; any other migration finishes.
            waits = vm is not None and vm["status"]["phase"] in ("Pending", "Scheduling", "Failed")
            is_record = "recordOf" in migration["spec"] and waits
            assert is_record or phase in ("Succeeded", "Failed"), f"migration {name} is {phase}"
        self._judge_rest()

    def _judge_vm(self, name: str) -> None:
        vm = msgspec.convert(self.cluster.vm(name), VirtualMachine)
        pods = [msgspec.convert(pod, Pod) for pod in self.cluster.live(vm.metadata.uid)]
        found = vm.status
        assert found.migration is None, f"{name} is claimed"
        judge_history(vm)
        if FINALIZER in vm.metadata.finalizers:
            assert (found.phase, found.node_name, found.pod_name, pods) == ("Stopped", None, None, []), name
            assert found.conditions[0].reason == "Terminating", name
            return
        if not vm.spec.running:
            assert (found.phase, found.node_name, found.pod_name, pods) == ("Stopped", None, None, []), name
            return
        try:
            spec = launcher.requested(vm)
        except RatioError:
            if not pods:
                assert found.phase == "Failed", name
                return
            spec = None
        if not pods and self._is_taken(vm):
            assert found.conditions[0].reason == "FailedCreate", name
            assert found.phase in ("Pending", "Scheduling"), name
            return
        assert len(pods) == 1, f"{name} has {len(pods)} pods"
        [pod] = pods
        assert found.phase == status.pod_phase(pod), name
        assert found.phase == "Running" or self._nowhere(), f"{name} is {found.phase}"
        shown = (found.pod_name, found.pod_uid, found.node_name, found.incarnation)
        assert shown == (pod.metadata.name, pod.metadata.uid, pod.spec.node_name, ownership.incarnation(pod)), name
        assert pod.metadata.labels.get(names.CONTROLLER_CLASS) == vm.metadata.labels.get(names.CONTROLLER_CLASS), name
        if spec is not None:
            used = launcher.consumption(vm, spec).shares
            assert (found.cpu_consumption, found.memory_consumption) == (used.cpu_text, used.memory_text), name
            assert pod.metadata.annotations[names.CPU_CONSUMPTION] == used.cpu_text, name

    def _is_taken(self, vm: VirtualMachine) -> bool:
        """Whether a foreign pod has the name of the VM's pod, which only a user can change."""
        name = launcher.name(vm, vm.status.incarnation or 0)
        return (PODS.plural, f"default/{name}") in self.cluster.objects

    def _nowhere(self) -> bool:
        """Whether no node accepts pods."""
        nodes = [node for (plural, _), node in self.cluster.objects.items() if plural == NODES.plural]
        return all(node["spec"].get("unschedulable") for node in nodes)

    def _judge_rest(self) -> None:
        """Check that no write follows: not later, not by another reconcile, not by the next processes."""
        before = list(self.cluster.writes)
        self.cluster.pass_time(3600)
        for number, process in enumerate(self.processes):
            for name in self.keys(VIRTUAL_MACHINES.plural):
                self.work(number, "vms", f"default/{name}")
                self.work(number, "migrations", f"default/{name}")
            self.finish()
            self.processes[number] = Process(self.cluster, of_class=process.of_class)
        self.settle()
        assert self.cluster.writes[len(before) :] == [], "a settled cluster costs no write"


def judge_history(vm: VirtualMachine) -> None:
    """Check that `Ready` is first, and the history last, bounded, ordered and without repetition."""
    conditions = vm.status.conditions
    assert conditions[0].type == "Ready", vm.metadata.name
    history = [condition for condition in conditions if condition.type.startswith("Phase")]
    assert conditions[-len(history) :] == tuple(history), vm.metadata.name
    assert 1 <= len(history) <= HISTORY_LIMIT, vm.metadata.name
    for one, next_one in pairwise(history):
        assert one.type != next_one.type, vm.metadata.name
        assert (one.last_transition_time or "") <= (next_one.last_transition_time or ""), vm.metadata.name
    assert history[-1].type == f"Phase{vm.status.phase}", vm.metadata.name


def _owners(pod: Document) -> set[str]:
    return {owner["uid"] for owner in pod["metadata"].get("ownerReferences", ())}
