"""Chooses the source of each program of the control plane, and announces it before any is obtained.

The order: the directory that the user names, PATH, the cache, release downloads with verified checksums, and a build
from the pinned Go modules. Files in the cache are complete: see binaries.py.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from controller.controlplane import disk
from controller.controlplane.download import Bases, base_of, why_no_release
from controller.controlplane.host import Platform, cache_directory
from controller.controlplane.program_errors import AssetsDirectoryError, WrongBinaryVersionError
from controller.controlplane.report import Reporter
from controller.controlplane.versions import DISTRIBUTIONS, Binary, Distribution, Version

_VERSION_TIMEOUT = 10.0
_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Sources:
    """The allowed sources of programs. `beside` is the directory of this virtualenv's programs.

    `free_space` returns the free bytes on the disk of a path.
    """

    cache: Path
    platform: Platform
    search_path: str
    beside: Path
    assets: Path | None = None
    download: bool = True
    build: bool = True
    bases: Bases = field(default_factory=Bases)
    free_space: Callable[[Path], int] = disk.free_space

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], platform: Platform, beside: Path) -> Self:
        """Return the sources that environment variables name."""
        assets = environment.get("KUBEBUILDER_ASSETS")
        return cls(
            cache=cache_directory(environment, platform.system),
            platform=platform,
            search_path=environment.get("PATH", os.defpath),
            beside=beside,
            assets=Path(assets) if assets else None,
            bases=Bases.from_environment(environment),
        )

    def cache_of(self, distribution: Distribution) -> Path:
        """Return the cache directory of one version of a distribution on one platform."""
        return self.cache / "controlplane" / f"{distribution.name}-{distribution.version}-{self.platform}"

    def cached(self, distribution: Distribution, binary: Binary) -> Path | None:
        """Return the path of a program in the cache; None if it is not there."""
        path = self.cache_of(distribution) / binary.name
        return path if os.access(path, os.X_OK) else None


@dataclass(frozen=True, slots=True)
class Part:
    """One distribution: its programs on this machine, its missing programs, and how these can be obtained."""

    distribution: Distribution
    found: Mapping[str, Path]
    missing: tuple[Binary, ...]
    why_no_release: str | None
    """Why it cannot be downloaded even with a network; None if it can."""

    @property
    def must_be_built(self) -> bool:
        """Whether compiling is the only way to obtain the missing programs."""
        return bool(self.missing) and self.why_no_release is not None


def survey(sources: Sources, report: Reporter) -> tuple[Part, ...]:
    """Look for every program. Raises AssetsDirectoryError, WrongBinaryVersionError."""
    if sources.assets and not sources.assets.is_dir():
        raise AssetsDirectoryError(sources.assets)
    return tuple(_part(distribution, sources, report) for distribution in DISTRIBUTIONS)


def _part(distribution: Distribution, sources: Sources, report: Reporter) -> Part:
    found = {
        binary.name: path
        for binary in distribution.binaries
        if (
            path := _named(distribution, binary, sources.assets)
            or _on_search_path(distribution, binary, sources.search_path, report)
            or sources.cached(distribution, binary)
        )
    }
    missing = tuple(binary for binary in distribution.binaries if binary.name not in found)
    reason = (
        why_no_release(distribution, sources.platform, sources.bases)
        if sources.download
        else "downloads are switched off"
    )
    return Part(distribution, found, missing, reason)


def _named(distribution: Distribution, binary: Binary, assets: Path | None) -> Path | None:
    if assets is None or not (path := assets / binary.name).exists():
        return None
    version = version_of(path)
    if version is None or not version.same_minor(distribution.version):
        raise WrongBinaryVersionError(path, version, distribution.version)
    return path.absolute()


def _on_search_path(distribution: Distribution, binary: Binary, search_path: str, report: Reporter) -> Path | None:
    if (name := shutil.which(binary.name, path=search_path)) is None:
        return None
    version, wanted = version_of(Path(name)), distribution.version
    if version is None or not version.same_minor(wanted):
        report.say(f"not using {name}: its version is {version or 'unknown'}, the control plane needs {wanted}")
        return None
    return Path(name).absolute()


def version_of(path: Path, *arguments: str) -> Version | None:
    """Return the version that a program prints; None if it does not run, does not end in time, or prints none."""
    try:
        result = subprocess.run(
            [path, *(arguments or ("--version",))],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            timeout=_VERSION_TIMEOUT,
            check=True,
        )
    except (subprocess.SubprocessError, OSError):
        return None
    return Version.find(result.stdout)


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of obtaining programs: minutes on two cores, and bytes of disk meanwhile."""

    minutes: float = 0
    disk: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.minutes + other.minutes, self.disk + other.disk)

    def __str__(self) -> str:
        minutes = "a minute" if self.minutes <= 1 else f"{self.minutes:.0f} minutes"
        return f"about {minutes} and up to {max(self.disk / _GIB, 1):.0f} GB of disk"


# Measured on two cores from empty caches, with a margin: modules, compiled packages, and linking.
_BUILD = {"etcd": Cost(1, 1 * _GIB), "kwok": Cost(2, 3 * _GIB), "kubernetes": Cost(10, 8 * _GIB)}
_DOWNLOAD = {"etcd": Cost(0.2, _GIB // 10), "kwok": Cost(0.3, _GIB // 8), "kubernetes": Cost(0.5, _GIB // 3)}


def cost_of_building(distributions: Sequence[Distribution]) -> Cost:
    """Return the cost of compiling with empty Go caches."""
    return sum((_BUILD[distribution.name] for distribution in distributions), Cost())


def announcement(parts: Sequence[Part], sources: Sources) -> Iterator[str]:
    """Yield lines that name the source of each part and, if programs are missing, the time and disk space needed."""
    places: dict[Path, list[str]] = {}
    for part in parts:
        folders = {sources.cache if sources.cache in path.parents else path.parent for path in part.found.values()}
        for folder in sorted(folders):
            places.setdefault(folder, []).append(part.distribution.title)
    for folder, titles in places.items():
        yield f"using {', '.join(titles)} from {folder}"
    missing = [part for part in parts if part.missing]
    for part in missing:
        names = ", ".join(binary.name for binary in part.missing)
        if part.why_no_release is not None:
            yield f"building {names} ({part.distribution.title}) with Go, since {part.why_no_release}"
        else:
            base, otherwise = (
                base_of(part.distribution, sources.bases),
                ", or building with Go if that fails" if sources.build else "",
            )
            yield f"downloading {names} ({part.distribution.title}) from {base}{otherwise}"
    if missing:
        yield f"this is needed once and takes {_cost(missing, sources)}"


def _cost(missing: Sequence[Part], sources: Sources) -> str:
    built = cost_of_building([part.distribution for part in missing if part.must_be_built])
    released = [part for part in missing if not part.must_be_built]
    least = sum((_DOWNLOAD[part.distribution.name] for part in released), built)
    if not (released and sources.build):
        return str(least)
    most = cost_of_building([part.distribution for part in missing])
    return f"{least}; {most} if downloads fail"
