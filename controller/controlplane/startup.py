"""Starts the components of a laid-out plane and waits until they are healthy, or reports why they are not.

A component that ends early is restarted up to three times: on a slow machine kube-controller-manager gives up on
an API server that is still starting. A component whose port is in use or whose disk is full is reported at once,
since a restart would not help.
"""

import subprocess
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from controller.controlplane import api, disk, kwok, kwokctl, processes, schedulers
from controller.controlplane.errors import (
    ApiError,
    CommandError,
    ComponentFailedError,
    LayoutError,
    NotReadyError,
    PortCollisionError,
)
from controller.controlplane.layout import Layout
from controller.controlplane.ports import Ports
from controller.controlplane.report import Reporter

_POLL = 0.1
_RESTARTS = 3
_TAIL_LINES = 12

# kube-controller-manager creates it; until then the API server refuses every pod in the namespace.
_DEFAULT_SERVICE_ACCOUNT = "/api/v1/namespaces/default/serviceaccounts/default"


@dataclass(slots=True)
class Startup:
    """One attempt to make a plane healthy by a deadline; `schedulers` are the ports of additional ones."""

    layout: Layout
    ports: Ports
    report: Reporter
    seconds: float
    deadline: float
    schedulers: Mapping[str, int] = field(default_factory=dict)
    _starts: Counter[str] = field(default_factory=Counter)
    _started: dict[str, int] = field(default_factory=dict)

    def finish_creation(self, creating: subprocess.Popen[bytes]) -> None:
        """Wait until the kwokctl that lays the plane out has ended and every component is healthy."""
        self._starts.update(kwokctl.COMPONENTS)
        while (code := creating.poll()) is None:
            # Those that kwokctl has started, read before the process list, since it may start more in between.
            started = [name for name in kwokctl.COMPONENTS if self.layout.pid_file(name).exists()]
            self._start_missing(started)
            self._sleep("kwokctl, which sets up the control plane")
        if code != 0:
            raise CommandError("kwokctl create cluster", tail(self.layout.kwokctl_log))
        self.run()

    def run(self) -> None:
        """Start the components that do not run, and wait until every component is healthy."""
        names = (*kwokctl.COMPONENTS, *self.schedulers)
        starts = -1
        # Once more if a component was started meanwhile: its health may have been checked before that.
        while starts != self._starts.total():
            self._start_missing(names)
            starts = self._starts.total()
            for name in names:
                self._wait_for(name, self._is_healthy, names)
            self._wait_for("the default service account", self._is_admitting, names)
            self._start_missing(names)

    def run_one(self, name: str) -> None:
        """Start one component unless it runs, and wait until it is healthy."""
        self._start_missing([name])
        self._wait_for(name, self._is_healthy, [name])

    def _wait_for(self, name: str, is_ready: Callable[[str], bool], kept_running: Collection[str]) -> None:
        while not is_ready(name):
            self._sleep(name)
            self._start_missing(kept_running)

    def _sleep(self, waiting_for: str) -> None:
        if time.monotonic() > self.deadline:
            self._check_disk(waiting_for)
            raise NotReadyError(waiting_for, self.seconds, self.layout.logs)
        time.sleep(_POLL)

    def _start_missing(self, names: Collection[str]) -> None:
        alive = processes.components(processes.running(), self.layout.workdir)
        for name in names:
            if name not in alive and not self._is_starting(name):
                if name == kwok.NAME:
                    self._release_leases([other for other in names if other != name])
                self._start(name)

    def _is_starting(self, name: str) -> bool:
        # On a busy machine, a process that was just started may not show the component's command line yet.
        pid = self._started.get(name)
        return pid is not None and not processes.has_ended(pid)

    def _start(self, name: str) -> None:
        if self._starts[name]:
            log = self.layout.log(name)
            end = tail(log)
            if "address already in use" in end:
                raise PortCollisionError(name)
            self._check_disk(name)
            if self._starts[name] > _RESTARTS:
                raise ComponentFailedError(name, log, end)
            self.report.warn(f"{name} ended, starting it again")
        component = self._component(name)
        self._starts[name] += 1
        self._started[name] = kwokctl.start_component(component, self.layout)

    def _component(self, name: str) -> kwokctl.Component:
        if (port := self.schedulers.get(name)) is not None:
            return schedulers.component(name, self.layout, port)
        if (component := kwokctl.read_components(self.layout.workdir).get(name)) is None:
            raise LayoutError(name, self.layout.kwok_config)
        return component

    def _release_leases(self, kept_running: Collection[str]) -> None:
        """Delete the node Leases of the ended KWOK, so that the new one serves their nodes at once."""
        holder = kwok.identity(self.layout.log(kwok.NAME))
        if holder is None:
            return
        self._wait_for("kube-apiserver", self._is_healthy, kept_running)
        try:
            with api.ApiServer.connect(self.layout.pki, self.ports.kube_apiserver) as server:
                kwok.release_leases(server, holder)
        except ApiError as error:
            self.report.warn(f"{error}; the nodes become Ready when their Leases expire, in a few minutes")

    def _check_disk(self, name: str) -> None:
        if (full := disk.full_disk(name, self.layout.log(name), self.layout.workdir)) is not None:
            raise full

    def _is_admitting(self, _: str) -> bool:
        with api.ApiServer.connect(self.layout.pki, self.ports.kube_apiserver) as server:
            return server.exists(_DEFAULT_SERVICE_ACCOUNT)

    def _is_healthy(self, name: str) -> bool:
        if (port := self.schedulers.get(name)) is not None:
            return api.is_healthy(port, "/readyz", tls=True)
        match name:
            case "etcd":
                return api.is_healthy(self.ports.etcd, "/readyz", tls=False)
            case "kube-apiserver":
                with api.ApiServer.connect(self.layout.pki, self.ports.kube_apiserver) as server:
                    return server.is_ready()
            case "kube-controller-manager":
                return api.is_healthy(self.ports.kube_controller_manager, "/healthz", tls=True)
            case "kube-scheduler":
                return api.is_healthy(self.ports.kube_scheduler, "/healthz", tls=True)
            case _:
                return api.is_healthy(self.ports.kwok_controller, "/healthz", tls=False)


@contextmanager
def stopped_on_failure(layout: Layout, timeout: float) -> Iterator[None]:
    """End all processes of a plane if its start fails or is interrupted; its logs stay."""
    try:
        yield
    except BaseException:
        processes.kill_all(layout, timeout=timeout)
        raise


def tail(log: Path) -> str:
    """Return the end of a log, for an error message."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError as error:
        return f"({error})"
    return "\n".join(lines[-_TAIL_LINES:])
