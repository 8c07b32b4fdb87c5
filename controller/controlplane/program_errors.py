"""The expected failures of obtaining the programs, one type per failure site."""

from dataclasses import dataclass
from pathlib import Path

from controller.controlplane.errors import ControlPlaneError
from controller.controlplane.versions import Version

_LOCAL = "run `pip install 'vmsim[local]'`, which installs one"


@dataclass(eq=False)
class WrongBinaryVersionError(ControlPlaneError):
    """A binary in the assets directory has another minor release than the pinned one."""

    path: Path
    found: Version | None
    wanted: Version

    def _describe(self) -> tuple[str, str]:
        found = f"is {self.found}" if self.found else "does not print its version"
        return (
            f"{self.path} {found}, but this control plane needs {self.wanted}",
            f"put {self.path.name} {self.wanted} there, or remove it, so that it is obtained from another source",
        )


@dataclass(eq=False)
class AssetsDirectoryError(ControlPlaneError):
    """The directory that --assets or KUBEBUILDER_ASSETS names does not exist."""

    path: Path

    def _describe(self) -> tuple[str, str]:
        return (
            f"the assets directory {self.path} does not exist",
            "correct --assets (or KUBEBUILDER_ASSETS), or leave it out",
        )


@dataclass(eq=False)
class DownloadError(ControlPlaneError):
    """A release file could not be downloaded, or does not match its checksum."""

    url: str
    reason: str
    unreachable: bool = False

    def _describe(self) -> tuple[str, str]:
        return (
            f"cannot download {self.url}: {self.reason}",
            "check the network and the proxy, or leave out --no-build, so that the programs are built with Go",
        )


@dataclass(eq=False)
class BinariesMissingError(ControlPlaneError):
    """Programs are missing, and every way to obtain them is switched off or has failed."""

    names: tuple[str, ...]
    reasons: tuple[str, ...]

    def _describe(self) -> tuple[str, str]:
        because = f" ({'; '.join(self.reasons)})" if self.reasons else ""
        return (
            f"missing {', '.join(self.names)}{because}",
            "allow building (leave out --no-build), or name a folder that contains them with --assets",
        )


@dataclass(eq=False)
class GoMissingError(ControlPlaneError):
    """No Go toolchain is new enough to build."""

    what: str
    minimum: tuple[int, int]
    seen: tuple[str, ...]

    def _describe(self) -> tuple[str, str]:
        seen = f" (found {', '.join(self.seen)})" if self.seen else ""
        return (
            f"building {self.what} needs Go {'.'.join(map(str, self.minimum))} or newer, which is missing{seen}",
            f"{_LOCAL}, or install Go from https://go.dev/dl/",
        )


@dataclass(eq=False)
class GoCommandError(ControlPlaneError):
    """`go list` or `go build` failed."""

    command: str
    output: str

    def _describe(self) -> tuple[str, str]:
        return (
            f"`{self.command}` failed:\n{self.output}",
            "if modules could not be downloaded, check the network and GOPROXY; the programs already built are kept",
        )


@dataclass(eq=False)
class UnusableBinaryError(ControlPlaneError):
    """A program that was just downloaded or built does not run, or has another version."""

    name: str
    reason: str

    def _describe(self) -> tuple[str, str]:
        return (
            f"the obtained {self.name} is unusable: {self.reason}",
            "check that controller/controlplane/versions.py agrees with the go.mod files",
        )


@dataclass(eq=False)
class KubectlMissingError(ControlPlaneError):
    """No kubectl is near enough to the server's version."""

    wanted: Version
    seen: tuple[str, ...]

    def _describe(self) -> tuple[str, str]:
        seen = f" (found {', '.join(self.seen)})" if self.seen else ""
        return (
            (
                "kwokctl, which sets up the control plane, needs kubectl, which is missing: "
                f"{self.wanted}, or one minor release older or newer{seen}"
            ),
            f"{_LOCAL}, or install kubectl from https://kubernetes.io/docs/tasks/tools/",
        )


@dataclass(eq=False)
class NoSpaceToBuildError(ControlPlaneError):
    """The disk has less space than compiling may need. Sizes are in bytes."""

    what: str
    directory: Path
    free: int
    needed: int

    def _describe(self) -> tuple[str, str]:
        sizes = f"{self.free / 2**30:.1f} GB are free, and {self.needed / 2**30:.0f} GB may be needed"
        return (
            f"too little space on the disk of {self.directory} to build {self.what}: {sizes}",
            (
                "free space there, or name directories on another disk "
                "(GOCACHE and GOMODCACHE for Go, --cache-dir for the finished programs)"
            ),
        )
