"""The properties of this machine: the names of its system and architecture, and the directory for caches."""

import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from controller.controlplane.errors import InvalidSettingError

_ARCHITECTURES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


@dataclass(frozen=True, slots=True)
class Platform:
    """A system and an architecture, named as Go and the upstream releases name them."""

    system: str
    architecture: str

    def __str__(self) -> str:
        return f"{self.system}-{self.architecture}"


def this_platform() -> Platform:
    """Return the platform of this program."""
    machine = platform.machine().lower()
    return Platform(system=sys.platform, architecture=_ARCHITECTURES.get(machine, machine))


def cache_directory(environment: Mapping[str, str], system: str) -> Path:
    """Return the cache directory by the conventions of the system. Raises InvalidSettingError."""
    if named := environment.get("VMSIM_CACHE_DIR"):
        return Path(named).expanduser().absolute()
    if system == "darwin":
        return _home(environment) / "Library" / "Caches" / "vmsim"
    if xdg := environment.get("XDG_CACHE_HOME"):
        return Path(xdg).absolute() / "vmsim"
    return _home(environment) / ".cache" / "vmsim"


def _home(environment: Mapping[str, str]) -> Path:
    if home := environment.get("HOME"):
        return Path(home)
    raise InvalidSettingError("VMSIM_CACHE_DIR", "must be set where HOME is not")
