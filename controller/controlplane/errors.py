"""Every failure a caller can expect, one type per failure site; each says what to do next.

`str(error)` is the one line that names what happened, `error.hint` the one that says how to go on. The types
are dataclasses that nobody changes after construction; they are not `frozen`, because the interpreter and
contextlib assign `__traceback__` to exceptions on their way up.
"""

from dataclasses import dataclass
from pathlib import Path

FREE_SPACE = "free space on that disk, or name directories on another one (--state, --cache-dir), then run this again"

_FULL = ("no space left on", "disk quota exceeded")


def says_full(text: str) -> bool:
    """Tell whether a program's words say that a disk is full."""
    return any(words in text.lower() for words in _FULL)


class ControlPlaneError(Exception):
    """The root: catch it to handle every expected failure."""

    @property
    def hint(self) -> str:
        """What a person does next."""
        message, hint = self._tell()
        return FREE_SPACE if says_full(message) else hint

    def __str__(self) -> str:
        return self._tell()[0]

    def _tell(self) -> tuple[str, str]:
        """Return what happened, in one line, and what a person does next."""
        raise NotImplementedError


class DamagedError(ControlPlaneError):
    """The root of what says that files of a plane are gone or damaged: nothing but making it anew helps.

    No other failure is one: whatever may pass, or be mended by a person, leaves a plane its objects.
    """


@dataclass(eq=False)
class LockTimeoutError(ControlPlaneError):
    """Another process holds a lock for longer than the deadline."""

    path: Path
    holder: str
    seconds: float

    def _tell(self) -> tuple[str, str]:
        return (
            f"waited {self.seconds:.0f} s for {self.path}, held by {self.holder or 'another process'}",
            "let the other process end, or end it, then run this again",
        )


@dataclass(eq=False)
class CommandError(ControlPlaneError):
    """kwokctl, or another helper, has failed or exceeded its deadline."""

    command: str
    reason: str

    def _tell(self) -> tuple[str, str]:
        return (
            f"`{self.command}` failed: {self.reason}",
            "run `vmsim down`, then `vmsim up` again",
        )


@dataclass(eq=False)
class ComponentFailedError(ControlPlaneError):
    """A component ends again and again right after its start."""

    component: str
    log: Path
    tail: str

    def _tell(self) -> tuple[str, str]:
        return (
            f"{self.component} does not stay up; the end of {self.log}:\n{self.tail}",
            (
                "correct what the log names (a component argument, perhaps), then run `vmsim up` again; "
                "if its data is damaged, run `vmsim down` first (the objects are lost)"
            ),
        )


@dataclass(eq=False)
class LayoutError(DamagedError):
    """What kwokctl wrote down does not tell how a component is started."""

    component: str
    configuration: Path

    def _tell(self) -> tuple[str, str]:
        return (
            f"{self.configuration} does not tell how {self.component} is started",
            "start afresh with `vmsim down` and `vmsim up`",
        )


@dataclass(eq=False)
class FullDiskError(ControlPlaneError):
    """A component cannot write. Sizes are in bytes."""

    component: str
    directory: Path
    free: int
    size: int

    def _tell(self) -> tuple[str, str]:
        sizes = f"{self.free / 2**20:.0f} of {self.size / 2**20:.0f} MiB are free, a control plane takes 200 and more"
        return (
            f"no space left on the disk of {self.directory} for {self.component} ({sizes})",
            FREE_SPACE,
        )


@dataclass(eq=False)
class PortCollisionError(ControlPlaneError):
    """A component found its port taken by somebody else."""

    component: str

    def _tell(self) -> tuple[str, str]:
        return (
            f"{self.component} found its port taken",
            (
                "run `vmsim up` again; where a control plane exists, end what listens on its port before that, "
                "or run `vmsim down` (its objects are lost): the next `vmsim up` chooses other ports"
            ),
        )


@dataclass(eq=False)
class ControllerEndedError(ControlPlaneError):
    """A controller that was started has ended by itself."""

    code: int
    log: Path

    def _tell(self) -> tuple[str, str]:
        return f"the controller ended with exit code {self.code}", f"its log says why: {self.log}"


@dataclass(eq=False)
class NotReadyError(ControlPlaneError):
    """Something was not ready by the deadline."""

    what: str
    seconds: float
    logs: Path

    def _tell(self) -> tuple[str, str]:
        return (
            f"not ready after {self.seconds:.0f} s: {self.what}",
            f"read the logs in {self.logs}; allow more time (--wait), or start afresh with `vmsim down` and `vmsim up`",
        )


@dataclass(eq=False)
class SettingsChangedError(ControlPlaneError):
    """The plane that exists was made with other settings than those asked for."""

    directory: Path
    changes: tuple[str, ...]

    def _tell(self) -> tuple[str, str]:
        return (
            f"the control plane in {self.directory} was made with other settings: {'; '.join(self.changes)}",
            "run `vmsim down` first (its objects are lost), then `vmsim up` again",
        )


@dataclass(eq=False)
class FolderTakenError(ControlPlaneError):
    """Files that are not a plane's stand where a plane's would."""

    directory: Path
    stranger: Path

    def _tell(self) -> tuple[str, str]:
        return (
            f"{self.stranger} is in the way: no control plane's, so it is left alone",
            f"name another folder than {self.directory} with --state",
        )


@dataclass(eq=False)
class FileTakenError(ControlPlaneError):
    """A file that is to be made exists."""

    path: Path

    def _tell(self) -> tuple[str, str]:
        return f"{self.path} exists, and is not overwritten", "remove it, or name a file that does not exist"


@dataclass(eq=False)
class NotRunningError(ControlPlaneError):
    """An operation needs a plane, and there is none in this directory."""

    directory: Path

    def _tell(self) -> tuple[str, str]:
        return (
            f"there is no control plane in {self.directory}",
            "start one with `vmsim up`",
        )


@dataclass(eq=False)
class StopError(ControlPlaneError):
    """Processes survived SIGKILL."""

    pids: tuple[int, ...]

    def _tell(self) -> tuple[str, str]:
        return (
            f"processes {', '.join(map(str, self.pids))} do not end",
            "look at them with `ps`, end them, then run `vmsim down` again",
        )


@dataclass(eq=False)
class InvalidSettingError(ControlPlaneError):
    """A setting cannot be meant as it is written."""

    setting: str
    reason: str

    def _tell(self) -> tuple[str, str]:
        return (
            f"{self.setting}: {self.reason}",
            "correct it; --help explains every setting",
        )


@dataclass(eq=False)
class ApiError(ControlPlaneError):
    """The API server refused a request that this program makes."""

    request: str
    status: int
    reason: str

    def _tell(self) -> tuple[str, str]:
        return (
            f"{self.request} was answered with {self.status}: {self.reason}",
            "read the log of kube-apiserver, or start afresh with `vmsim down` and `vmsim up`",
        )


@dataclass(eq=False)
class CertificateError(DamagedError):
    """The plane's certificates are gone or damaged."""

    directory: Path
    reason: str

    def _tell(self) -> tuple[str, str]:
        return (
            f"cannot read the certificates in {self.directory}: {self.reason}",
            "start afresh with `vmsim down` and `vmsim up`",
        )
