"""Starts additional schedulers on a running plane, or gives them other configurations.

Guarantees: nothing is changed unless every wanted scheduler's configuration is accepted; if a scheduler does not become
healthy all the same, the plane is left without it, or with its earlier configuration. A process that is killed
meanwhile leaves a record with the scheduler, which the next `up` starts.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from controller import signals
from controller.controlplane import kwokctl, ports, processes, record, schedulers
from controller.controlplane.layout import Layout
from controller.controlplane.record import Record
from controller.controlplane.report import Reporter
from controller.controlplane.schedulers import Scheduler
from controller.controlplane.startup import Startup

_KILL_TIMEOUT = 20.0


def kept(wanted: Collection[Scheduler], layout: Layout, known: Record) -> Record:
    """Return the record without the schedulers that get another configuration, which need not start with this one."""
    changed = {scheduler.component for scheduler in _changed(wanted, layout, known)}
    return replace(known, schedulers={name: port for name, port in known.schedulers.items() if name not in changed})


def _changed(wanted: Collection[Scheduler], layout: Layout, known: Record) -> list[Scheduler]:
    return [scheduler for scheduler in wanted if not _is_installed(scheduler, layout, known)]


def _is_installed(scheduler: Scheduler, layout: Layout, known: Record) -> bool:
    path = layout.scheduler_config(scheduler.component)
    content = schedulers.merged(scheduler, layout.admin_kubeconfig)
    return scheduler.component in known.schedulers and path.exists() and path.read_text() == content


@dataclass(frozen=True, slots=True)
class Schedulers:
    """The additional schedulers of a plane; `startup` begins a start of what a record contains."""

    layout: Layout
    report: Reporter
    startup: Callable[[Record], Startup]

    def converge(self, wanted: Collection[Scheduler], known: Record) -> None:
        """Run the wanted schedulers beside those that were added earlier, until they are healthy.

        Raises SchedulerFileError, SchedulerRefusedError, and what a start raises.
        """
        changed = _changed(wanted, self.layout, known)
        self._check_distinct(changed, known)
        for scheduler in changed:
            schedulers.check(self.layout.program(schedulers.PROGRAM), scheduler)
        for scheduler in changed:
            self.report.say(f"starting scheduler {scheduler.name}")
            for sentence in schedulers.overridden(scheduler):
                self.report.say(sentence)
            known = self.start(scheduler, known)

    def _check_distinct(self, changed: Collection[Scheduler], known: Record) -> None:
        replaced = {scheduler.component for scheduler in changed}
        paths = {name: self.layout.scheduler_config(name) for name in known.schedulers if name not in replaced}
        others = (schedulers.installed(name, path) for name, path in paths.items() if path.exists())
        schedulers.check_distinct((*others, *changed))

    def start(self, scheduler: Scheduler, known: Record) -> Record:
        """Run a scheduler until it is healthy; return the record with it. Raises what a start raises."""
        name = scheduler.component
        with self._undone_on_failure(name, known):
            processes.kill_component(self.layout.workdir, name, timeout=_KILL_TIMEOUT)
            configuration = self.layout.scheduler_config(name)
            configuration.parent.mkdir(exist_ok=True)
            configuration.write_text(schedulers.merged(scheduler, self.layout.admin_kubeconfig))
            program = self.layout.program(name)
            program.unlink(missing_ok=True)
            program.symlink_to(schedulers.PROGRAM)
            port = known.schedulers.get(name) or ports.choose_port()
            added = replace(known, schedulers={**known.schedulers, name: port})
            record.write(self.layout.record, added)
            self.startup(added).run_one(name)
        return added

    @contextmanager
    def _undone_on_failure(self, name: str, known: Record) -> Iterator[None]:
        path = self.layout.scheduler_config(name)
        earlier = path.read_text() if name in known.schedulers and path.exists() else None
        try:
            yield
        except BaseException:
            with signals.uninterrupted():
                processes.kill_component(self.layout.workdir, name, timeout=_KILL_TIMEOUT)
                record.write(self.layout.record, known)
                if earlier is None:
                    path.unlink(missing_ok=True)
                else:
                    path.write_text(earlier)
                    before = schedulers.component(name, self.layout, known.schedulers[name])
                    kwokctl.start_component(before, self.layout)
            raise
