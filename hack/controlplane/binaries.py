"""Obtains the programs of the control plane, each from the first source that has it.

The order: the directory the user names, PATH, the cache, release downloads with verified checksums, and a
build from the pinned Go modules. What is in the cache is complete: files get their names there only after
they were verified and written to disk, and one process at a time adds to it.
"""

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from hack.controlplane import gobuild
from hack.controlplane.download import Bases, Downloader, release_of
from hack.controlplane.errors import (
    AssetsDirectoryError,
    BinariesMissingError,
    BuiltBinaryError,
    DownloadError,
    KubectlMissingError,
    WrongBinaryVersionError,
)
from hack.controlplane.host import Platform
from hack.controlplane.lock import Lock, locked
from hack.controlplane.report import Reporter
from hack.controlplane.versions import DISTRIBUTIONS, KUBERNETES, Binary, Distribution, Version

_VERSION_TIMEOUT = 10.0
_WAIT_FOR_OTHER_BUILD = 3600.0
_WORKSPACE_PREFIX = ".work-"


@dataclass(frozen=True, slots=True)
class Sources:
    """Where binaries may come from."""

    cache: Path
    platform: Platform
    search_path: str
    beside: Path
    assets: Path | None = None
    download: bool = True
    build: bool = True
    bases: Bases = field(default_factory=Bases)

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
        found |= _obtain_distribution(distribution, sources, downloader, report)
    return found


def _obtain_distribution(
    distribution: Distribution, sources: Sources, downloader: Downloader, report: Reporter
) -> dict[str, Path]:
    cache = sources.cache_of(distribution)
    found = {
        binary.name: path
        for binary in distribution.binaries
        if (path := _existing(binary, distribution, sources, report))
    }
    missing = [binary for binary in distribution.binaries if binary.name not in found]
    if missing:
        obtaining = f"obtaining {distribution.name} {distribution.version}"
        lock_path = cache.with_name(f"{cache.name}.lock")
        with locked(lock_path, waiting_for=obtaining, timeout=_WAIT_FOR_OTHER_BUILD, report=report) as lock:
            _fill_cache(distribution, sources, downloader, report, lock)
        found |= {binary.name: cache / binary.name for binary in missing}
    return found


def _existing(binary: Binary, distribution: Distribution, sources: Sources, report: Reporter) -> Path | None:
    return (
        _from_assets(binary, distribution, sources)
        or _from_search_path(binary, distribution, sources, report)
        or _from_cache(binary, distribution, sources)
    )


def _from_assets(binary: Binary, distribution: Distribution, sources: Sources) -> Path | None:
    if sources.assets is None or not (path := sources.assets / binary.name).exists():
        return None
    version = version_of(path)
    if version is None or not version.same_minor(distribution.version):
        raise WrongBinaryVersionError(path, version, distribution.version)
    return path.absolute()


def _from_search_path(binary: Binary, distribution: Distribution, sources: Sources, report: Reporter) -> Path | None:
    if (name := shutil.which(binary.name, path=sources.search_path)) is None:
        return None
    version = version_of(Path(name))
    if version is None or not version.same_minor(distribution.version):
        report.say(f"{name} is {version or 'of unknown version'}, not {distribution.version}: leaving it aside")
        return None
    return Path(name).absolute()


def _from_cache(binary: Binary, distribution: Distribution, sources: Sources) -> Path | None:
    path = sources.cache_of(distribution) / binary.name
    return path if os.access(path, os.X_OK) else None


def _fill_cache(
    distribution: Distribution, sources: Sources, downloader: Downloader, report: Reporter, lock: Lock
) -> None:
    """Add what is missing to the cache; the caller holds the lock."""
    cache = sources.cache_of(distribution)
    cache.mkdir(parents=True, exist_ok=True)
    for leftover in cache.glob(f"{_WORKSPACE_PREFIX}*"):  # of a process that was killed: we hold the lock
        shutil.rmtree(leftover, ignore_errors=True)
    # Looked up again: whoever held the lock before has perhaps obtained it all.
    missing = [b for b in distribution.binaries if _existing(b, distribution, sources, report) is None]
    reasons: list[str] = []
    with tempfile.TemporaryDirectory(prefix=_WORKSPACE_PREFIX, dir=cache) as name:
        workspace = Path(name)
        if sources.download:
            missing = _download(distribution, missing, sources, downloader, workspace, report, reasons)
        else:
            reasons.append("downloads are switched off")
        if missing and not sources.build:
            raise BinariesMissingError(tuple(binary.name for binary in missing), tuple(reasons))
        if missing:
            go = gobuild.find_go(sources.search_path, sources.beside)
            for binary in gobuild.build(distribution, missing, workspace, go, report, lock.note):
                _install(workspace / binary.name, cache / binary.name, distribution)


def _download(
    distribution: Distribution,
    missing: list[Binary],
    sources: Sources,
    downloader: Downloader,
    workspace: Path,
    report: Reporter,
    reasons: list[str],
) -> list[Binary]:
    left = []
    for binary in missing:
        try:
            release = release_of(distribution, binary, sources.platform, sources.bases)
            downloader.fetch(release, workspace / binary.name)
            _install(workspace / binary.name, sources.cache_of(distribution) / binary.name, distribution)
        except (DownloadError, BuiltBinaryError) as error:
            if str(error) not in reasons:
                report.warn(str(error))
                reasons.append(str(error))
            left.append(binary)
    return left


def _install(obtained: Path, destination: Path, distribution: Distribution) -> None:
    """Verify a file and give it its name in the cache, so that it is there completely or not at all."""
    obtained.chmod(0o755)
    version = version_of(obtained)
    if version != distribution.version:
        raise BuiltBinaryError(obtained.name, f"it says {version or 'nothing'}, not {distribution.version}")
    with obtained.open("rb") as file:
        os.fsync(file.fileno())
    obtained.replace(destination)


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
