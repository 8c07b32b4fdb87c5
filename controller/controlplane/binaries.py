"""Obtains the programs of the control plane, each from the first source that has it.

The order: the directory the user names, PATH, the cache, release downloads with verified checksums, and a
build from the pinned Go modules. What is in the cache is complete: files get their names there only after
they were verified and written to disk, and one process at a time adds to it.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from controller.controlplane.download import Bases, Downloader, release_of, why_no_release
from controller.controlplane.errors import (
    AssetsDirectoryError,
    BinariesMissingError,
    DownloadError,
    KubectlMissingError,
    UnusableBinaryError,
    WrongBinaryVersionError,
)
from controller.controlplane.gobuild import GoBuild, find_go
from controller.controlplane.host import Platform, cache_directory
from controller.controlplane.lock import Lock, locked
from controller.controlplane.report import Reporter
from controller.controlplane.versions import DISTRIBUTIONS, KUBERNETES, Binary, Distribution, Version

_VERSION_TIMEOUT = 10.0
_WAIT_FOR_OTHER_BUILD = 3600.0
_WORKSPACE_PREFIX = ".work-"


@dataclass(frozen=True, slots=True)
class Sources:
    """Where binaries may come from. `beside` is the directory of this virtualenv's programs."""

    cache: Path
    platform: Platform
    search_path: str
    beside: Path
    assets: Path | None = None
    download: bool = True
    build: bool = True
    bases: Bases = field(default_factory=Bases)

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


def obtain(sources: Sources, report: Reporter) -> dict[str, Path]:
    """Return the path of every binary, obtaining those that are missing."""
    if sources.assets and not sources.assets.is_dir():
        raise AssetsDirectoryError(sources.assets)
    downloader = Downloader(report)
    found: dict[str, Path] = {}
    for distribution in DISTRIBUTIONS:
        found |= _Obtaining(distribution, sources, downloader, report).run()
    return found


@dataclass(frozen=True, slots=True)
class _Obtaining:
    """The way of one distribution's binaries to this machine."""

    distribution: Distribution
    sources: Sources
    downloader: Downloader
    report: Reporter

    @property
    def cache(self) -> Path:
        return self.sources.cache_of(self.distribution)

    def run(self) -> dict[str, Path]:
        found = {
            binary.name: path
            for binary in self.distribution.binaries
            if (path := self._named(binary) or self._on_search_path(binary) or self._cached(binary))
        }
        missing = [binary for binary in self.distribution.binaries if binary.name not in found]
        if missing:
            self._fill_cache(missing)
        return found | {binary.name: self.cache / binary.name for binary in missing}

    def _named(self, binary: Binary) -> Path | None:
        if self.sources.assets is None or not (path := self.sources.assets / binary.name).exists():
            return None
        version = version_of(path)
        if version is None or not version.same_minor(self.distribution.version):
            raise WrongBinaryVersionError(path, version, self.distribution.version)
        return path.absolute()

    def _on_search_path(self, binary: Binary) -> Path | None:
        if (name := shutil.which(binary.name, path=self.sources.search_path)) is None:
            return None
        version, wanted = version_of(Path(name)), self.distribution.version
        if version is None or not version.same_minor(wanted):
            self.report.say(f"leaving {name} aside: it is {version or 'of unknown version'}, not {wanted}")
            return None
        return Path(name).absolute()

    def _cached(self, binary: Binary) -> Path | None:
        path = self.cache / binary.name
        return path if os.access(path, os.X_OK) else None

    def _fill_cache(self, wanted: list[Binary]) -> None:
        with locked(
            self.cache.with_name(f"{self.cache.name}.lock"),
            waiting_for=f"obtaining {self.distribution.name} {self.distribution.version}",
            timeout=_WAIT_FOR_OTHER_BUILD,
            report=self.report,
        ) as lock:
            # Looked up again: whoever held the lock before has perhaps obtained them.
            if missing := [binary for binary in wanted if self._cached(binary) is None]:
                self.cache.mkdir(parents=True, exist_ok=True)
                for leftover in self.cache.glob(f"{_WORKSPACE_PREFIX}*"):  # its owner was killed: we hold the lock
                    shutil.rmtree(leftover, ignore_errors=True)
                with tempfile.TemporaryDirectory(prefix=_WORKSPACE_PREFIX, dir=self.cache) as workspace:
                    self._add(missing, Path(workspace), lock)

    def _add(self, missing: list[Binary], workspace: Path, lock: Lock) -> None:
        missing, reasons = self._download(missing, workspace)
        if missing and not self.sources.build:
            raise BinariesMissingError(tuple(binary.name for binary in missing), tuple(reasons))
        if missing:
            go = find_go(self.sources.search_path, self.sources.beside)
            build = GoBuild(self.distribution, go, workspace, self.report, lock.note)
            for binary in build.run(missing):
                self._install(workspace / binary.name)

    def _download(self, missing: list[Binary], workspace: Path) -> tuple[list[Binary], list[str]]:
        """Download what can be had; return what is still missing, and why."""
        if not self.sources.download:
            return missing, ["downloads are switched off"]
        if reason := why_no_release(self.distribution, self.sources.platform, self.sources.bases):
            return missing, [reason]
        left, reasons = [], []
        for binary in missing:
            release = release_of(self.distribution, binary, self.sources.platform, self.sources.bases)
            try:
                self.downloader.fetch(release, workspace / binary.name)
                self._install(workspace / binary.name)
            except (DownloadError, UnusableBinaryError) as error:
                left.append(binary)
                if str(error) not in reasons:
                    reasons.append(str(error))
                    self.report.warn(str(error))
        return left, reasons

    def _install(self, obtained: Path) -> None:
        """Verify a file and give it its name in the cache, so that it is there completely or not at all."""
        obtained.chmod(0o755)
        version = version_of(obtained)
        if version != self.distribution.version:
            found = f"is {version}" if version else "does not run"
            raise UnusableBinaryError(obtained.name, f"it {found}, expected {self.distribution.version}")
        with obtained.open("rb") as file:
            os.fsync(file.fileno())
        obtained.replace(self.cache / obtained.name)


def version_of(path: Path, *arguments: str) -> Version | None:
    """Ask a program for its version; None if it does not run, does not end in time, or names none."""
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


def find_kubectl(search_path: str, beside: Path) -> Path:
    """Return a kubectl within one minor of the server: the one on PATH, or the one of this virtualenv."""
    seen = []
    for candidate in (shutil.which("kubectl", path=search_path), shutil.which("kubectl", path=str(beside))):
        if candidate is None:
            continue
        version = version_of(Path(candidate), "version", "--client")
        distance = version.minor_distance(KUBERNETES.version) if version else None
        if distance is not None and distance <= 1:
            return Path(candidate).absolute()
        seen.append(f"{candidate} {version or 'of unknown version'}")
    raise KubectlMissingError(KUBERNETES.version, tuple(seen))
