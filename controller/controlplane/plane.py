"""One control plane: create, repair, stop and remove it.

Guarantees: every operation can be repeated, and starts from any state that an earlier one left: no plane, half
started, some components dead, all of them dead after a reboot. A plane that was healthy once is created again, which
costs its objects, only if its own files are damaged (errors.DamagedError); every other failure keeps them. Operations
on one directory exclude each other; those on different directories are independent.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self

from controller import signals
from controller.controlplane import kwok, kwokctl, leftovers, processes, record, scheduler_start, schedulers
from controller.controlplane.api import ApiServer
from controller.controlplane.binaries import find_kubectl, obtain
from controller.controlplane.errors import (
    DamagedError,
    FolderTakenError,
    InvalidSettingError,
    NotRunningError,
    PortCollisionError,
    SettingsChangedError,
)
from controller.controlplane.fleet import Fleet
from controller.controlplane.host import this_platform
from controller.controlplane.layout import Layout
from controller.controlplane.lock import Lock, locked
from controller.controlplane.nodes import NodeCapacity, check_capacity
from controller.controlplane.ports import choose_ports
from controller.controlplane.report import Reporter, default_reporter
from controller.controlplane.scheduler_start import Schedulers
from controller.controlplane.sources import Sources
from controller.controlplane.startup import Startup, stopped_on_failure

_PORT_ATTEMPTS = 5
_KILL_TIMEOUT = 20.0
_LOCK_TIMEOUT = 600.0
_STOP_GRACE = 10.0


@dataclass(frozen=True, slots=True)
class ComponentStatus:
    """The state of one component; `pid` is None if it does not run."""

    name: str
    pid: int | None
    port: int


class Found(Enum):
    """The state of a plane before it is used."""

    NOTHING = "nothing"
    STOPPED = "stopped"
    RUNNING = "running"


def default_sources(environment: Mapping[str, str] = os.environ) -> Sources:
    """Return the sources of programs for this machine and an environment."""
    return Sources.from_environment(environment, this_platform(), Path(sys.executable).parent)


class ControlPlane:
    """A control plane whose files are in `directory`; as a context manager, it is up inside and down after."""

    def __init__(
        self,
        directory: Path,
        *,
        nodes: int = 3,
        capacity: NodeCapacity | None = None,
        audit_policy: Path | None = None,
        component_args: Mapping[str, Mapping[str, str]] | None = None,
        scheduler_files: Mapping[str, Path] | None = None,
        wait: float = 120.0,
        sources: Sources | None = None,
        report: Reporter | None = None,
    ) -> None:
        if nodes < 0:
            raise InvalidSettingError("nodes", "must be 0 or more")
        self._layout = Layout.of(directory)
        self._nodes = nodes
        self._capacity = capacity or NodeCapacity()
        check_capacity(self._capacity)
        self._settings = record.Settings.of(component_args or {}, audit_policy)
        self._schedulers = schedulers.read(scheduler_files or {})
        self._wait = wait
        self._given_sources = sources
        self._report = report or default_reporter()

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig; it exists as long as the plane."""
        return self._layout.kubeconfig

    @property
    def audit_log(self) -> Path:
        """The API server's audit log; it exists if the plane was created with an audit policy."""
        return self._layout.audit_log

    @property
    def logs(self) -> Path:
        """The directory of the components' logs."""
        return self._layout.logs

    @cached_property
    def kubectl(self) -> Path:
        """A kubectl whose version fits the server. Raises KubectlMissingError."""
        return find_kubectl(self._sources.search_path, self._sources.beside)

    def up(self) -> None:
        """Create or repair the plane, until it is healthy and has the wanted schedulers and exactly the wanted nodes.

        All nodes are Ready then. A scheduler that an earlier `up` added stays.
        """
        with self._locked():
            if (known := record.read(self._layout.record)) is None:
                if self._layout.home.exists():
                    self._report.say("an earlier start did not finish: creating the control plane again")
                self._create()
            elif changes := record.differences(known, self._settings):
                raise SettingsChangedError(self._layout.directory, changes)
            else:
                self._repair(known)
            Schedulers(self._layout, self._report, self._startup).converge(self._schedulers, self._known())
            self._converge_nodes()

    def down(self) -> bool:
        """End all processes and remove all data of the plane; end controllers that killed runs had started on it.

        Returns whether there was a plane, or a part of one.
        """
        if not self._layout.directory.exists():
            return False
        with self._locked():
            self.end_leftovers()
            existed = self._layout.home.exists()
            self._remove()
            return existed

    def found(self) -> Found:
        """Return the state of the plane."""
        components = self.status()
        if any(component.pid is not None for component in components):
            return Found.RUNNING
        return Found.STOPPED if components else Found.NOTHING

    @contextmanager
    def borrowed(self, restored: Callable[[Found], object] = lambda _: None) -> Iterator[Self]:
        """Keep the plane up while the context lasts, then restore the state in which it was found.

        `restored` is called with that state at the end. Of a plane that existed, the objects stay, but nodes that `up`
        changed or deleted are not restored.
        """
        with self._locked():  # another process may be creating the plane
            found = self.found()
        try:
            self.up()
            yield self
        finally:
            # A second request to stop must not leave processes behind.
            with signals.uninterrupted():
                if found is Found.STOPPED:
                    self.halt()
                elif found is Found.NOTHING:
                    self.down()
            restored(found)

    def halt(self) -> None:
        """End the processes of the plane; its objects stay for the next `up`."""
        with self._locked():
            processes.kill_all(self._layout, timeout=_KILL_TIMEOUT)

    def end_leftovers(self) -> None:
        """End the controllers of killed runs; those of live runs stay."""
        for pid in leftovers.end(self._layout.directory, grace=_STOP_GRACE):
            self._report.say(f"ended process {pid}, the controller of a `vmsim run` that was killed")

    def stop_component(self, name: str) -> None:
        """Kill one component, as a crash would; the others keep running."""
        self._check_component(name)
        with self._locked():
            self._known()
            processes.kill_component(self._layout.workdir, name, timeout=_KILL_TIMEOUT)
            self._layout.pid_file(name).unlink(missing_ok=True)

    def start_component(self, name: str) -> None:
        """Start one component unless it runs, and wait until it is healthy."""
        self._check_component(name)
        with self._locked():
            self._startup(self._known()).run_one(name)

    def status(self) -> list[ComponentStatus]:
        """Return the state of each component; empty if no plane was created."""
        if (known := record.read(self._layout.record)) is None:
            return []
        pids = processes.components(processes.running(), self._layout.workdir)
        ports = {
            "etcd": known.ports.etcd,
            "kube-apiserver": known.ports.kube_apiserver,
            "kube-controller-manager": known.ports.kube_controller_manager,
            "kube-scheduler": known.ports.kube_scheduler,
            kwok.NAME: known.ports.kwok_controller,
            **known.schedulers,
        }
        return [ComponentStatus(name, pids.get(name), port) for name, port in ports.items()]

    def pids(self) -> list[int]:
        """Return the processes that belong to the plane, in any state of it."""
        return [process.pid for process in processes.running() if processes.belongs_to(process, self._layout)]

    @cached_property
    def _sources(self) -> Sources:
        return self._given_sources or default_sources()

    def _create(self) -> None:
        kubectl = self.kubectl
        obtained = obtain(self._sources, self._report)
        kwokctl.check_paths(self._layout.directory, obtained.values())
        for scheduler in self._schedulers:
            schedulers.check(obtained[schedulers.PROGRAM], scheduler)
        for attempts_left in reversed(range(_PORT_ATTEMPTS)):
            try:
                self._create_once(obtained, kubectl)
            except PortCollisionError as error:
                if not attempts_left:
                    raise
                self._report.warn(f"{error}; trying other ports")
            else:
                return

    def _create_once(self, obtained: Mapping[str, Path], kubectl: Path) -> None:
        self._remove()
        known = record.Record.of(self._settings, choose_ports())
        self._layout.home.mkdir(parents=True, mode=0o700)
        self._layout.kwokctl_config.write_text(
            json.dumps(
                kwokctl.configuration(obtained, known.ports, self._settings.component_args, self._settings.audit_policy)
            )
        )
        self._report.say("starting the control plane")
        with (
            stopped_on_failure(self._layout, _KILL_TIMEOUT),
            kwokctl.creating(obtained["kwokctl"], self._layout, kubectl) as creating,
        ):
            self._startup(known).finish_creation(creating)
            self._play_our_stage()
            self._startup(known).run()
        record.write(self._layout.record, known)

    def _play_our_stage(self) -> None:
        """Complete KWOK's configuration, and end a KWOK that has read the earlier one, so that it is started again."""
        if kwok.append_stage(self._layout.kwok_config):
            processes.kill_component(self._layout.workdir, kwok.NAME, timeout=_KILL_TIMEOUT)

    def _repair(self, known: record.Record) -> None:
        self._play_our_stage()
        alive = processes.components(processes.running(), self._layout.workdir)
        kept = scheduler_start.kept(self._schedulers, self._layout, known)
        if dead := [name for name in (*kwokctl.COMPONENTS, *kept.schedulers) if name not in alive]:
            self._report.say(f"starting the components that do not run: {', '.join(dead)}")
        if not all(self._layout.program(name).exists() for name in dead):
            obtain(self._sources, self._report)  # they are in the cache, which may have been emptied
        try:
            self._startup(kept).run()
        except DamagedError as error:
            self._report.warn(f"{error}")
            self._report.warn("the control plane cannot be repaired: creating it again, its objects are lost")
            self._create()
        if not self.kubeconfig.exists():
            shutil.copyfile(self._layout.admin_kubeconfig, self.kubeconfig)

    def _converge_nodes(self) -> None:
        with ApiServer.connect(self._layout.pki, self._known().ports.kube_apiserver) as server:
            fleet = Fleet(server, self._report, self._layout.logs)
            fleet.converge(self._nodes, self._capacity, seconds=self._wait)

    def _remove(self) -> None:
        processes.kill_all(self._layout, timeout=_KILL_TIMEOUT)
        if self._layout.home.exists():
            shutil.rmtree(self._layout.home)
        self.kubeconfig.unlink(missing_ok=True)

    def _locked(self) -> AbstractContextManager[Lock]:
        if (foreign := self._layout.foreign()) is not None:
            raise FolderTakenError(self._layout.directory, foreign)
        return locked(
            self._layout.lock,
            waiting_for="changing this control plane",
            timeout=_LOCK_TIMEOUT,
            report=self._report,
        )

    def _check_component(self, name: str) -> None:
        if name not in kwokctl.COMPONENTS:
            raise InvalidSettingError("component", f"no component {name}, only {', '.join(kwokctl.COMPONENTS)}")

    def _known(self) -> record.Record:
        if (known := record.read(self._layout.record)) is None:
            raise NotRunningError(self._layout.directory)
        return known

    def _startup(self, known: record.Record) -> Startup:
        deadline = time.monotonic() + self._wait
        return Startup(self._layout, known.ports, self._report, self._wait, deadline, known.schedulers)
