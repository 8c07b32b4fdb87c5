"""The API server of these tests: each request is named by its verb and the object's name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import msgspec

from controller.domain.objects import VirtualMachine
from controller.domain.resources import VIRTUAL_MACHINES
from controller.kube import errors
from controller.kube.resources import NODES, PODS, Resource
from tests.model.faults import READS
from tests.model.rules import Document
from tests.model.server import ApiServer

T = TypeVar("T")
RUNNING = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True", "reason": "GuestRunning"}]}
_VERBS: Final = {"get": "GET", "create": "POST", "dry-run": "ASK", "patch": "PATCH", "delete": "DELETE"}


def _waiting(why: str) -> Document:
    ready = {"type": "Ready", "status": "False", "reason": "Unschedulable", "message": why}
    return {"phase": "Scheduling", "conditions": [ready]}


@dataclass
class Api(ApiServer):
    """One API server, whose requests are called `POST web-1` or `LIST nodes` here."""

    tried: list[str] = field(default_factory=list)
    """The writes that were sent."""
    asked: list[str] = field(default_factory=list)
    """The names of the objects that were dry-run."""
    errors: dict[str, list[Exception]] = field(default_factory=dict)
    """The errors of the next requests; a write takes effect if its error has an unknown outcome."""
    before: Callable[[str], object] = field(default=lambda _: None)
    """Called with every request before it takes effect."""
    after: Callable[[str], object] = field(default=lambda _: None)
    """Called with every write that took effect."""
    unfit: dict[str, str] = field(default_factory=dict)
    """VMs that fit no node, with the scheduler's message."""
    latency: float = 0.0
    in_flight: int = 0
    most_in_flight: int = 0

    def run_all(self, _: str = "") -> None:
        """Do the work of the controller and KWOK."""
        for plural, key in list(self.objects):
            document, name = self.objects[plural, key], key.partition("/")[2]
            if plural == VIRTUAL_MACHINES.plural and document.get("status", {}).get("phase") != "Running":
                self.put(plural, key, status=_waiting(self.unfit[name]) if name in self.unfit else RUNNING)
            taints = document.get("spec", {}).get("taints", [])
            if plural == NODES.plural and any(taint["key"].endswith("/not-ready") for taint in taints):
                ready = [taint for taint in taints if not taint["key"].endswith("/not-ready")]
                self.put(plural, key, spec={"taints": ready})

    async def create(self, resource: Resource[T], body: Mapping[str, Any], **options: Any) -> T:
        """Create; a dry run does not count as in flight."""
        if options.get("dry_run"):
            return await super().create(resource, body, **options)
        async with self._working():
            return await super().create(resource, body, **options)

    async def merge_patch(self, resource: Resource[T], name: str, body: Mapping[str, Any], **options: Any) -> T:
        """Patch."""
        async with self._working():
            return await super().merge_patch(resource, name, body, **options)

    async def delete(self, resource: Resource[T], name: str, **options: Any) -> str:
        """Delete."""
        async with self._working():
            return await super().delete(resource, name, **options)

    @asynccontextmanager
    async def _working(self) -> AsyncIterator[None]:
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            yield
        finally:
            self.in_flight -= 1

    async def _arrive(self, method: str, plural: str, name: str) -> None:
        if method == "watch":
            return
        request = _called(method, plural, name)
        if method == "dry-run":
            self.asked.append(name)
        elif method not in READS:
            self.tried.append(request)
        self.before(request)
        await asyncio.sleep(self.latency)
        waiting = self.errors.get(request)
        if waiting and not (isinstance(waiting[0], errors.KubeError) and waiting[0].outcome_unknown):
            raise waiting.pop(0)

    def _leave(self, method: str, plural: str, name: str) -> None:
        request = _called(method, plural, name)
        if method in ("create", "patch", "delete"):
            self.after(request)
        if waiting := self.errors.get(request):
            raise waiting.pop(0)


def _called(method: str, plural: str, name: str) -> str:
    return f"LIST {plural}" if method == "list" else f"{_VERBS.get(method)} {name}"


def pod_of(api: Api, vm: VirtualMachine | Document) -> Document:
    """Create the pod of a VM."""
    metadata = msgspec.to_builtins(vm)["metadata"]
    owner = {
        "apiVersion": "simulation.node-classifier.io/v1alpha1",
        "kind": "VirtualMachine",
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
    }
    labels = {"simulation.node-classifier.io/vm": metadata["name"]}
    return api.put(
        PODS.plural,
        f"{metadata['namespace']}/virt-launcher-{metadata['name']}",
        metadata={"labels": labels, "ownerReferences": [owner]},
    )
