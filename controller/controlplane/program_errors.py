"""Every failure on the way of the programs to this machine, one type per failure site."""

from dataclasses import dataclass
from pathlib import Path

from controller.controlplane.errors import ControlPlaneError
from controller.controlplane.versions import Version

_LOCAL = "`pip install 'vmsim[local]'` brings one"


@dataclass(eq=False)
class WrongBinaryVersionError(ControlPlaneError):
    """A binary in the assets directory is of another minor release than the pinned one."""

    path: Path
    found: Version | None
    wanted: Version

    def _tell(self) -> tuple[str, str]:
        found = f"is {self.found}" if self.found else "does not tell its version"
        return (
            f"{self.path} {found}, but this control plane needs {self.wanted}",
            f"put {self.path.name} {self.wanted} there, or leave it out: it is then obtained elsewhere",
        )


@dataclass(eq=False)
class AssetsDirectoryError(ControlPlaneError):
    """The directory that --assets or KUBEBUILDER_ASSETS names does not exist."""

    path: Path

    def _tell(self) -> tuple[str, str]:
        return (
            f"the assets directory {self.path} does not exist",
            "correct --assets (or KUBEBUILDER_ASSETS), or leave it out",
        )


@dataclass(eq=False)
class DownloadError(ControlPlaneError):
    """A release file could not be had, or is not what its checksum promises."""

    url: str
    reason: str
    unreachable: bool = False

    def _tell(self) -> tuple[str, str]:
        return (
            f"cannot download {self.url}: {self.reason}",
            "check the network or the proxy, or leave out --no-build: the binaries are then built with Go",
        )


@dataclass(eq=False)
class BinariesMissingError(ControlPlaneError):
    """Binaries are missing, and every way to obtain them is switched off or has failed."""

    names: tuple[str, ...]
    reasons: tuple[str, ...]

    def _tell(self) -> tuple[str, str]:
        because = f" ({'; '.join(self.reasons)})" if self.reasons else ""
        return (
            f"missing {', '.join(self.names)}{because}",
            "allow building (leave out --no-build), or name a directory that holds them with --assets",
        )


@dataclass(eq=False)
class GoMissingError(ControlPlaneError):
    """No Go toolchain is new enough to build."""

    what: str
    minimum: tuple[int, int]
    seen: tuple[str, ...]

    def _tell(self) -> tuple[str, str]:
        seen = f" (found {', '.join(self.seen)})" if self.seen else ""
        return (
            f"Go {'.'.join(map(str, self.minimum))} or newer is missing: {self.what} has to be built with it{seen}",
            f"{_LOCAL}; or install Go from https://go.dev/dl/",
        )


@dataclass(eq=False)
class GoCommandError(ControlPlaneError):
    """`go list` or `go build` has failed."""

    command: str
    output: str

    def _tell(self) -> tuple[str, str]:
        return (
            f"`{self.command}` failed:\n{self.output}",
            "if modules could not be downloaded, check the network and GOPROXY; what is built already is kept",
        )


@dataclass(eq=False)
class UnusableBinaryError(ControlPlaneError):
    """A binary that was just downloaded or built does not run, or is of another version."""

    name: str
    reason: str

    def _tell(self) -> tuple[str, str]:
        return (
            f"the obtained {self.name} is unusable: {self.reason}",
            "check that controller/controlplane/versions.py agrees with the go.mod files",
        )


@dataclass(eq=False)
class KubectlMissingError(ControlPlaneError):
    """No kubectl is near enough to the server's version."""

    wanted: Version
    seen: tuple[str, ...]

    def _tell(self) -> tuple[str, str]:
        seen = f" (found {', '.join(self.seen)})" if self.seen else ""
        return (
            f"kubectl of about {self.wanted} is missing: kwokctl, which lays the control plane out, runs it{seen}",
            f"{_LOCAL}; or install kubectl from https://kubernetes.io/docs/tasks/tools/",
        )


@dataclass(eq=False)
class NoSpaceToBuildError(ControlPlaneError):
    """The disk has less space than compiling may take. Sizes are in bytes."""

    what: str
    directory: Path
    free: int
    needed: int

    def _tell(self) -> tuple[str, str]:
        sizes = f"{self.free / 2**30:.1f} GB are free, and {self.needed / 2**30:.0f} GB may be needed"
        return (
            f"too little space on the disk of {self.directory} to build {self.what}: {sizes}",
            "free space there, or name directories on another disk (GOCACHE and GOMODCACHE for Go, --cache-dir for us)",
        )
