"""The expected failures of a control plane, one type per failure site.

Guarantees: `str(error)` says what happened, and `error.hint` what to do next. The types are dataclasses and not
changed after construction; they are not `frozen`, because the interpreter and contextlib assign `__traceback__` to
exceptions that propagate.
"""

from dataclasses import dataclass
from pathlib import Path

FREE_SPACE = "free space on that disk, or name directories on another one (--state, --cache-dir), then run this again"

_FULL = ("no space left on", "disk quota exceeded")


def says_full(text: str) -> bool:
    """Return whether a program's output says that a disk is full."""
    return any(words in text.lower() for words in _FULL)


class ControlPlaneError(Exception):
    """The base class: catch it to handle every expected failure."""

    @property
    def hint(self) -> str:
        """What the user can do next."""
        message, hint = self._describe()
        return FREE_SPACE if says_full(message) else hint

    def __str__(self) -> str:
        return self._describe()[0]

    def _describe(self) -> tuple[str, str]:
        """Return what happened, and what the user can do next, one line each."""
        raise NotImplementedError


class DamagedError(ControlPlaneError):
    """The base class of failures in which a plane's own files are missing or damaged, so it must be created again.

    A failure that may pass, or that the user can fix, is none of these: the plane keeps its objects.
    """


@dataclass(eq=False)
class LockTimeoutError(ControlPlaneError):
    """Another process held a lock for longer than the deadline."""

    path: Path
    holder: str
    seconds: float

    def _describe(self) -> tuple[str, str]:
        return (
            f"waited {self.seconds:.0f} s for {self.path}, held by {self.holder or 'another process'}",
            "wait until the other process ends, or end it, then run this again",
        )


@dataclass(eq=False)
class CommandError(ControlPlaneError):
    """kwokctl or another helper failed, or exceeded its deadline."""

    command: str
    reason: str

    def _describe(self) -> tuple[str, str]:
        return (
            f"`{self.command}` failed: {self.reason}",
            "run `vmsim down`, then `vmsim up` again",
        )


@dataclass(eq=False)
class ComponentFailedError(ControlPlaneError):
    """A component ended repeatedly right after its start."""

    component: str
    log: Path
    tail: str

    def _describe(self) -> tuple[str, str]:
        return (
            f"{self.component} ends right after each start; the end of its log {self.log}:\n{self.tail}",
            (
                "fix the cause that the log names (for example a component argument), then run `vmsim up` again; "
                "if its data is damaged, run `vmsim down` first (the objects are lost)"
            ),
        )


@dataclass(eq=False)
class LayoutError(DamagedError):
    """The configuration that kwokctl wrote does not say how to start a component."""

    component: str
    configuration: Path

    def _describe(self) -> tuple[str, str]:
        return (
            f"{self.configuration} does not say how to start {self.component}",
            "run `vmsim down` (the objects are lost), then `vmsim up`",
        )


@dataclass(eq=False)
class FullDiskError(ControlPlaneError):
    """A component cannot write to its disk. Sizes are in bytes."""

    component: str
    directory: Path
    free: int
    size: int

    def _describe(self) -> tuple[str, str]:
        sizes = f"{self.free / 2**20:.0f} of {self.size / 2**20:.0f} MiB are free, a control plane needs 200 or more"
        return (
            f"no space left on the disk of {self.directory} for {self.component} ({sizes})",
            FREE_SPACE,
        )


@dataclass(eq=False)
class PortCollisionError(ControlPlaneError):
    """A component's port is in use by another process."""

    component: str

    def _describe(self) -> tuple[str, str]:
        return (
            f"the port of {self.component} is already in use",
            (
                "run `vmsim up` again: a new control plane gets other ports; an existing one keeps its ports, so first "
                "end the process that listens there, or run `vmsim down` (the objects are lost)"
            ),
        )


@dataclass(eq=False)
class ControllerEndedError(ControlPlaneError):
    """A controller that was started ended by itself."""

    code: int
    log: Path

    def _describe(self) -> tuple[str, str]:
        return f"the controller ended with exit code {self.code}", f"read its log for the reason: {self.log}"


@dataclass(eq=False)
class NotReadyError(ControlPlaneError):
    """Something was not ready by the deadline."""

    what: str
    seconds: float
    logs: Path

    def _describe(self) -> tuple[str, str]:
        return (
            f"not ready after {self.seconds:.0f} s: {self.what}",
            (
                f"read the logs in {self.logs}; then allow more time (`vmsim up --wait`), "
                "or run `vmsim down` (the objects are lost) and `vmsim up`"
            ),
        )


@dataclass(eq=False)
class SettingsChangedError(ControlPlaneError):
    """The existing plane was created with other settings than the requested ones."""

    directory: Path
    changes: tuple[str, ...]

    def _describe(self) -> tuple[str, str]:
        return (
            f"the control plane in {self.directory} was created with other settings: {'; '.join(self.changes)}",
            "run `vmsim down` first (the objects are lost), then `vmsim up` again",
        )


@dataclass(eq=False)
class FolderTakenError(ControlPlaneError):
    """A path that a plane needs is taken by a file or folder that is not a plane's."""

    directory: Path
    foreign: Path

    def _describe(self) -> tuple[str, str]:
        return (
            f"{self.foreign} exists and does not belong to a control plane, so it is left unchanged",
            f"choose another folder than {self.directory} with --state",
        )


@dataclass(eq=False)
class FileTakenError(ControlPlaneError):
    """A file that is to be created exists."""

    path: Path

    def _describe(self) -> tuple[str, str]:
        return f"{self.path} exists, and is not overwritten", "remove it, or name a file that does not exist"


@dataclass(eq=False)
class NotRunningError(ControlPlaneError):
    """An operation needs a plane, and this directory has none."""

    directory: Path

    def _describe(self) -> tuple[str, str]:
        return (
            f"there is no control plane in {self.directory}",
            "start one with `vmsim up`",
        )


@dataclass(eq=False)
class StopError(ControlPlaneError):
    """Processes survived SIGKILL."""

    pids: tuple[int, ...]

    def _describe(self) -> tuple[str, str]:
        return (
            f"processes {', '.join(map(str, self.pids))} did not end after SIGKILL",
            "inspect them with `ps`, end them, then run `vmsim down` again",
        )


@dataclass(eq=False)
class InvalidSettingError(ControlPlaneError):
    """A setting has an invalid value."""

    setting: str
    reason: str

    def _describe(self) -> tuple[str, str]:
        return (
            f"{self.setting}: {self.reason}",
            "correct it; `--help` explains every setting",
        )


@dataclass(eq=False)
class SchedulerFileError(ControlPlaneError):
    """A file is not the configuration of the scheduler that is to be started with it."""

    file: Path
    reason: str

    def _describe(self) -> tuple[str, str]:
        return (
            f"{self.file} {self.reason}",
            "correct the file, then run this again; no scheduler was started or changed",
        )


@dataclass(eq=False)
class SchedulerRefusedError(ControlPlaneError):
    """kube-scheduler does not start with a configuration."""

    file: Path
    reason: str

    def _describe(self) -> tuple[str, str]:
        return (
            f"kube-scheduler refuses {self.file}: {self.reason}",
            (
                "correct the file (https://kubernetes.io/docs/reference/scheduling/config/), then run this again; "
                "no scheduler was started or changed"
            ),
        )


@dataclass(eq=False)
class ApiError(ControlPlaneError):
    """A request to the API server failed; `status` is 0 if there was no reply."""

    request: str
    status: int
    reason: str

    def _describe(self) -> tuple[str, str]:
        return (
            f"{self.request} failed with status {self.status}: {self.reason}",
            "read the log of kube-apiserver, or run `vmsim down` (the objects are lost) and `vmsim up`",
        )


@dataclass(eq=False)
class CertificateError(DamagedError):
    """The plane's certificates are missing or damaged."""

    directory: Path
    reason: str

    def _describe(self) -> tuple[str, str]:
        return (
            f"cannot read the certificates in {self.directory}: {self.reason}",
            "run `vmsim down` (the objects are lost), then `vmsim up`",
        )
