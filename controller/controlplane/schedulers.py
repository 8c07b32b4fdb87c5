"""Additional schedulers: the user's configuration files, and the kube-scheduler processes that run them.

Guarantees: a user's file is read and never written; it is a regular one of up to 1 MiB, so that no read lasts. The
plane's kube-scheduler itself has accepted a configuration before anything of the plane is changed for it.
"""

import json
import re
import stat
import subprocess
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from controller import package_data
from controller.controlplane.errors import (
    CommandError,
    InvalidSettingError,
    SchedulerFileError,
    SchedulerRefusedError,
)
from controller.controlplane.kwokctl import Component
from controller.controlplane.layout import Layout
from controller.kube.naming import DNS_LABEL, LONGEST_LABEL

PROGRAM: Final = "kube-scheduler"

_DEFAULT: Final = "default-scheduler"
"""The scheduler of pods that name none: the plane's own."""
_API_VERSION: Final = "kubescheduler.config.k8s.io/v1"
_KIND: Final = "KubeSchedulerConfiguration"
_SHIPPED: Final = "manifests/schedulers"
_CHECK_TIMEOUT: Final = 30.0
_LARGEST: Final = 1024 * 1024
"""Bytes of a user's file."""
_DEEPEST: Final = 50
"""Levels of a configuration. One has about ten; an alias may contain itself."""
# The limits with which kwokctl lifts those of the plane's own scheduler.
_QPS, _BURST = 5000, 10000
# klog quotes the error as Go does: as JSON but for rare escapes.
_REASON: Final = re.compile(r'"command failed" err=(?P<quoted>"(?:[^"\\]|\\.)*")')


@dataclass(frozen=True, slots=True)
class Scheduler:
    """A scheduler to run beside the plane's own, and its file's content."""

    name: str
    file: Path
    configuration: Mapping[str, Any]

    @property
    def component(self) -> str:
        """The name of its process among the plane's components."""
        return f"{PROGRAM}-{self.name}"


def find(name: str) -> Path:
    """Return an existing file, or the shipped configuration of that name. Raises InvalidSettingError."""
    path = Path(name)
    try:
        if path.exists() and not path.is_dir():
            return path
    except OSError as error:  # the name is too long, or a folder of it may not be entered
        raise InvalidSettingError("--scheduler", f"{name} cannot be read: {error.strerror or error}") from error
    shipped = {path.stem: path for path in package_data.path(_SHIPPED).glob("*.yaml")}
    if name not in shipped:
        comes = ", ".join(sorted(shipped))
        raise InvalidSettingError(
            "--scheduler", f"there is no file {name}; configurations that come with vmsim: {comes}"
        )
    return shipped[name]


def read(files: Mapping[str, Path]) -> tuple[Scheduler, ...]:
    """Read the configurations of schedulers, by their names. Raises InvalidSettingError, SchedulerFileError."""
    found = tuple(_read(name, file) for name, file in files.items())
    check_distinct(found)
    return found


def _read(name: str, file: Path) -> Scheduler:
    _check_name(name)
    scheduler = Scheduler(name, file, _document(file, _user_file(file)))
    if (problem := _problem(name, file, _profile_names(scheduler.configuration))) is not None:
        raise SchedulerFileError(file, problem)
    return scheduler


def installed(component: str, path: Path) -> Scheduler:
    """Read a scheduler of a plane from the configuration that it runs. Raises SchedulerFileError."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SchedulerFileError(path, f"cannot be read: {error.strerror or error}") from error
    return Scheduler(component.removeprefix(f"{PROGRAM}-"), path, _document(path, data))


def check_distinct(found: Iterable[Scheduler]) -> None:
    """Raise SchedulerFileError if two schedulers would place the same pods: if they have profiles of one name."""
    owners: dict[str, str] = {}
    for scheduler in found:
        for profile in filter(None, _profile_names(scheduler.configuration)):
            owner = owners.setdefault(profile, scheduler.name)
            if owner != scheduler.name:
                reason = f"has a profile {profile}, which scheduler {owner} has, too; remove one of them"
                raise SchedulerFileError(scheduler.file, reason)


def _check_name(name: str) -> None:
    if name == _DEFAULT:
        raise InvalidSettingError("--scheduler", f"{name} is the plane's own scheduler; choose another name")
    if len(name) > LONGEST_LABEL or not DNS_LABEL.fullmatch(name):
        raise InvalidSettingError(
            "--scheduler",
            f"{name!r} is no scheduler's name: use up to {LONGEST_LABEL} lower-case letters, digits and inner hyphens",
        )


def _user_file(file: Path) -> bytes:
    """Read a user's file. Raises SchedulerFileError."""
    try:
        if not stat.S_ISREG(file.stat().st_mode):  # a pipe may never end, nor even open
            raise SchedulerFileError(file, "is no regular file")
        with file.open("rb") as stream:
            data = stream.read(_LARGEST + 1)
    except OSError as error:
        raise SchedulerFileError(file, f"cannot be read: {error.strerror or error}") from error
    if len(data) > _LARGEST:
        raise SchedulerFileError(file, f"is larger than {_LARGEST} bytes")
    return data


def _document(file: Path, data: bytes) -> Mapping[str, Any]:
    """Parse a KubeSchedulerConfiguration, otherwise unchecked. Raises SchedulerFileError."""
    try:
        content = yaml.safe_load(data.decode())
    except UnicodeDecodeError as error:
        raise SchedulerFileError(file, f"is no text in UTF-8: {error}") from error
    except RecursionError as error:
        raise SchedulerFileError(file, "is nested too deeply") from error
    except Exception as error:  # PyYAML raises ValueError, LookupError and AttributeError for values of a wrong form
        raise SchedulerFileError(file, f"is no YAML: {' '.join(str(error).split())}") from error
    if _is_deep(content):
        raise SchedulerFileError(file, "is nested too deeply")
    if not isinstance(content, dict) or (content.get("apiVersion"), content.get("kind")) != (_API_VERSION, _KIND):
        raise SchedulerFileError(file, f"does not have `apiVersion: {_API_VERSION}` and `kind: {_KIND}`")
    if not isinstance(content.get("clientConnection") or {}, dict):
        raise SchedulerFileError(file, "has a clientConnection that is no mapping")
    return content


def _is_deep(content: object) -> bool:
    """Whether a value has more levels than a configuration; each object is looked at once a level."""
    level: Collection[object] = [content]
    for _ in range(_DEEPEST):
        inner: dict[int, object] = {}
        for value in level:
            children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
            inner.update((id(child), child) for child in children)
        level = inner.values()
    return bool(level)


def _profile_names(configuration: Mapping[str, Any]) -> list[str | None]:
    """Return the schedulerName of each profile of a configuration; None for a profile without one."""
    profiles = configuration.get("profiles") or []
    entries = profiles if isinstance(profiles, list) else []
    names = [entry.get("schedulerName") if isinstance(entry, dict) else None for entry in entries]
    return [name if isinstance(name, str) else None for name in names]


def _problem(name: str, file: Path, profiles: list[str | None]) -> str | None:
    """Return why profiles of these names cannot be those of a scheduler; None if they can."""
    if _DEFAULT in profiles:
        return f"has a profile {_DEFAULT}, which the plane's own scheduler has, too; remove it"
    if name in profiles:
        return None
    if not profiles:
        return f"has no profile; add `profiles: [{{schedulerName: {name}}}]` to it"
    if named := [profile for profile in profiles if profile]:
        return f"has no profile {name}, but {', '.join(named)}; `--scheduler {named[0]}={file}` would fit"
    return f"has a profile without a name, which {_DEFAULT} would be; add `schedulerName: {name}` to it"


def overridden(scheduler: Scheduler) -> list[str]:
    """Return what the plane decides although the file says otherwise, a sentence each."""
    client = scheduler.configuration.get("clientConnection") or {}
    election = scheduler.configuration.get("leaderElection")
    said = []
    if client.get("kubeconfig"):
        said.append(f"scheduler {scheduler.name} uses the plane's kubeconfig, not {client['kubeconfig']}")
    if isinstance(election, dict) and election.get("leaderElect"):
        said.append(f"scheduler {scheduler.name} runs without leader election, being the only one of its name")
    return said


def merged(scheduler: Scheduler, kubeconfig: Path | None) -> str:
    """Return the configuration to run: the file's, with the plane's kubeconfig, and its own limits of requests or none.

    A file, because kube-scheduler ignores `--kubeconfig`, `--kube-api-qps` and $KUBECONFIG beside `--config`.
    """
    own = scheduler.configuration.get("clientConnection") or {}
    client = {"qps": _QPS, "burst": _BURST, **own, "kubeconfig": str(kubeconfig or "")}
    return yaml.safe_dump({**scheduler.configuration, "clientConnection": client}, sort_keys=False)


def check(program: Path, scheduler: Scheduler) -> None:
    """Let a kube-scheduler read and complete a configuration, and end. Raises SchedulerRefusedError, CommandError."""
    command = [
        str(program),
        "--config=/dev/stdin",
        "--write-config-to=/dev/null",
        # With an address it needs no kubeconfig; it sends no request and does not listen.
        "--master=http://127.0.0.1:1",
        "--leader-elect=false",
        "--secure-port=0",
    ]
    try:
        done = subprocess.run(
            command,
            input=merged(scheduler, None),
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
            timeout=_CHECK_TIMEOUT,
        )
    except (subprocess.SubprocessError, OSError) as error:
        raise CommandError(str(program), str(error)) from error
    if done.returncode != 0:
        raise SchedulerRefusedError(scheduler.file, _reason(done.stderr))


def _reason(output: str) -> str:
    """Return the error that a kube-scheduler ended with, from its log."""
    if match := _REASON.search(output):
        try:
            return str(json.loads(match["quoted"]))
        except ValueError:
            return match["quoted"]
    return output.strip()


def component(name: str, layout: Layout, port: int) -> Component:
    """Return how to start the component of an additional scheduler: as kwokctl starts the plane's own."""
    return Component(
        name=name,
        binary=str(layout.program(name)),
        args=(
            f"--config={layout.scheduler_config(name)}",
            "--leader-elect=false",  # beside --config, this flag wins
            "--authorization-always-allow-paths=/healthz,/readyz,/livez,/metrics",
            "--bind-address=127.0.0.1",
            f"--secure-port={port}",
        ),
        environment={},
    )
