"""The paths of one control plane's files. All of them are in its own directory, so planes do not share files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

# kwokctl prefixes it with "kwok-": the kubeconfig's context is called kwok-vmsim.
CLUSTER = "vmsim"
_CONTEXT = f"kwok-{CLUSTER}"
_FIRST_FILES = ("kwokctl.json", "kwokctl.log", ".kwok", "plane.json")
"""The files that distinguish a plane's home from any other folder of that name."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of one plane; `directory` is absolute and free of symbolic links."""

    directory: Path

    @classmethod
    def of(cls, directory: Path) -> Self:
        """Return the layout of a directory, resolved so that paths in command lines compare equal later."""
        return cls(directory.resolve())

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.directory / "kubeconfig"

    @property
    def lock(self) -> Path:
        """The lock file, held while the plane is started, stopped or changed."""
        return self.directory / "lock"

    @property
    def home(self) -> Path:
        """The folder that `down` removes; kwokctl's home directory."""
        return self.directory / "controlplane"

    @property
    def record(self) -> Path:
        """The record of the settings with which the plane was created; absent until it was healthy once."""
        return self.home / "plane.json"

    @property
    def kwokctl_config(self) -> Path:
        """The configuration that kwokctl reads."""
        return self.home / "kwokctl.json"

    @property
    def kwokctl_log(self) -> Path:
        """The output of kwokctl."""
        return self.home / "kwokctl.log"

    def foreign(self) -> Path | None:
        """Return a path that a plane needs and that is not a plane's; None if there is none."""
        if self.home.exists():
            return None if _is_home(self.home) else self.home
        known = not self.kubeconfig.exists() or _CONTEXT in self.kubeconfig.read_text(errors="replace")
        return None if known else self.kubeconfig

    @property
    def workdir(self) -> Path:
        """The directory that kwokctl creates for the cluster."""
        return self.home / ".kwok" / "clusters" / CLUSTER

    @property
    def kwok_config(self) -> Path:
        """The configuration: how the components are started, and the stages that KWOK plays."""
        return self.workdir / "kwok.yaml"

    @property
    def pki(self) -> Path:
        """The certificate authority and the administrator's certificate."""
        return self.workdir / "pki"

    @property
    def admin_kubeconfig(self) -> Path:
        """The kubeconfig that kwokctl uses itself."""
        return self.workdir / "kubeconfig.yaml"

    @property
    def logs(self) -> Path:
        """The directory of the components' logs, one each, and of the audit log."""
        return self.workdir / "logs"

    @property
    def audit_log(self) -> Path:
        """The audit log, if the plane was created with a policy."""
        return self.logs / "audit.log"

    def program(self, component: str) -> Path:
        """Return the link to the binary that a component runs."""
        return self.workdir / "bin" / component

    def scheduler_config(self, component: str) -> Path:
        """Return the configuration of an additional scheduler's component."""
        return self.home / "schedulers" / f"{component}.yaml"

    def log(self, component: str) -> Path:
        """Return the log of a component's current run."""
        return self.logs / f"{component}.log"

    def pid_file(self, component: str) -> Path:
        """Return the file of a component's process id."""
        return self.workdir / "pids" / f"{component}.pid"


def _is_home(path: Path) -> bool:
    """Return whether a plane was created here, or its creation was begun."""
    return path.is_dir() and (not any(path.iterdir()) or any((path / name).exists() for name in _FIRST_FILES))
