"""Obtains the programs of the control plane, each from the first source that has it (sources.py).

Guarantees: every file in the cache is complete: a program gets its name there only after it was verified and written
to disk, and one process at a time adds to the cache.
"""

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from controller.controlplane.download import Downloader, release_of
from controller.controlplane.gobuild import GoBuild, caches_of, find_go
from controller.controlplane.lock import Lock, locked
from controller.controlplane.program_errors import (
    BinariesMissingError,
    DownloadError,
    KubectlMissingError,
    NoSpaceToBuildError,
    UnusableBinaryError,
)
from controller.controlplane.report import Reporter
from controller.controlplane.sources import Part, Sources, announcement, cost_of_building, survey, version_of
from controller.controlplane.versions import KUBERNETES, Binary, Distribution

_WAIT_FOR_OTHER_BUILD = 3600.0
_WORKSPACE_PREFIX = ".work-"
_SPACE_FOR_PROGRAMS = 1 << 30
"""Bytes for the finished programs, and for linking one of them."""


def obtain(sources: Sources, report: Reporter) -> dict[str, Path]:
    """Return the path of every program; download or build the missing ones.

    The sources, the time and the disk space are reported first. Work that cannot succeed is not begun: raises
    BinariesMissingError, GoMissingError, NoSpaceToBuildError.
    """
    parts = survey(sources, report)
    built = [part for part in parts if part.must_be_built]
    if built and not sources.build:
        reasons = dict.fromkeys(part.why_no_release or "" for part in built)
        raise BinariesMissingError(tuple(binary.name for part in built for binary in part.missing), tuple(reasons))
    for line in announcement(parts, sources):
        report.say(line)
    if built:
        ready_to_build([part.distribution for part in built], sources)
    downloader = Downloader(report)
    found: dict[str, Path] = {}
    for part in parts:
        found |= part.found
        if part.missing:
            found |= _Obtaining(part, sources, downloader, report).run()
    return found


def ready_to_build(distributions: Sequence[Distribution], sources: Sources) -> Path:
    """Return the Go toolchain that will build them. Raises GoMissingError, NoSpaceToBuildError."""
    titles = ", ".join(distribution.title for distribution in distributions)
    go = find_go(sources.search_path, sources.beside, titles)
    needed = cost_of_building(distributions).disk
    for directory, least in ((sources.cache, _SPACE_FOR_PROGRAMS), *((cache, needed) for cache in caches_of(go))):
        if (free := sources.free_space(directory)) < least:
            raise NoSpaceToBuildError(titles, directory, free, least)
    return go


@dataclass(frozen=True, slots=True)
class _Obtaining:
    """Obtains one distribution's missing programs."""

    part: Part
    sources: Sources
    downloader: Downloader
    report: Reporter

    @property
    def distribution(self) -> Distribution:
        return self.part.distribution

    @property
    def cache(self) -> Path:
        return self.sources.cache_of(self.distribution)

    def run(self) -> dict[str, Path]:
        with locked(
            self.cache.with_name(f"{self.cache.name}.lock"),
            waiting_for=f"obtaining {self.distribution.title}",
            timeout=_WAIT_FOR_OTHER_BUILD,
            report=self.report,
        ) as lock:
            # Looked up again: the previous holder of the lock may have obtained them.
            if missing := [one for one in self.part.missing if self.sources.cached(self.distribution, one) is None]:
                self.cache.mkdir(parents=True, exist_ok=True)
                for leftover in self.cache.glob(f"{_WORKSPACE_PREFIX}*"):  # its owner was killed: we hold the lock
                    shutil.rmtree(leftover, ignore_errors=True)
                with tempfile.TemporaryDirectory(prefix=_WORKSPACE_PREFIX, dir=self.cache) as workspace:
                    self._add(missing, Path(workspace), lock)
        return {binary.name: self.cache / binary.name for binary in self.part.missing}

    def _add(self, missing: list[Binary], workspace: Path, lock: Lock) -> None:
        missing, reasons = self._download(missing, workspace)
        if missing and not self.sources.build:
            raise BinariesMissingError(tuple(binary.name for binary in missing), tuple(reasons))
        if missing:
            go = ready_to_build([self.distribution], self.sources)
            build = GoBuild(self.distribution, go, workspace, self.report, lock.note)
            for binary in build.run(missing):
                self._install(workspace / binary.name)

    def _download(self, missing: list[Binary], workspace: Path) -> tuple[list[Binary], list[str]]:
        """Download the missing programs; return those whose download failed, and the reasons."""
        if self.part.why_no_release is not None:
            return missing, [self.part.why_no_release]
        still_missing, reasons = [], []
        for binary in missing:
            release = release_of(self.distribution, binary, self.sources.platform, self.sources.bases)
            try:
                self.downloader.fetch(release, workspace / binary.name)
                self._install(workspace / binary.name)
            except (DownloadError, UnusableBinaryError) as error:
                still_missing.append(binary)
                if str(error) not in reasons:
                    reasons.append(str(error))
                    self.report.warn(str(error))
        return still_missing, reasons

    def _install(self, obtained: Path) -> None:
        """Verify a program and rename it into the cache, so that the cache holds it completely or not at all."""
        obtained.chmod(0o755)
        version = version_of(obtained)
        if version != self.distribution.version:
            found = f"its version is {version}" if version else "it does not run"
            raise UnusableBinaryError(obtained.name, f"{found}, expected {self.distribution.version}")
        with obtained.open("rb") as file:
            os.fsync(file.fileno())
        obtained.replace(self.cache / obtained.name)


def find_kubectl(search_path: str, beside: Path) -> Path:
    """Return a kubectl within one minor release of the server: the one on PATH, or the one of this virtualenv.

    Raises KubectlMissingError.
    """
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
