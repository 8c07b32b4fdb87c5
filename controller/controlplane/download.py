"""Downloads release files. Guarantees: only a file with a published or configured SHA-256 digest is accepted.

Kubernetes publishes `<file>.sha256` beside each file, and etcd a `SHA256SUMS` with each release. KWOK publishes
none, so its downloads are accepted only against a file of digests that the user names; without one, KWOK is
built from its pinned modules, which takes two minutes. Upstream releases the control plane for Linux only.
"""

import hashlib
import http.client
import shutil
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self

from controller.controlplane.host import Platform
from controller.controlplane.program_errors import DownloadError
from controller.controlplane.report import Advance, Reporter
from controller.controlplane.versions import ETCD, KUBERNETES, KWOK, Binary, Distribution

_MEBIBYTE = 1 << 20
_DIGEST_LENGTH = 64
_SUMS_LIMIT = _MEBIBYTE

KUBERNETES_BASE = "https://dl.k8s.io"
GITHUB_BASE = "https://github.com"


@dataclass(frozen=True, slots=True)
class Bases:
    """The base addresses of the release files, and a file of digests for KWOK, which publishes none."""

    kubernetes: str = KUBERNETES_BASE
    etcd: str = GITHUB_BASE
    kwok: str = GITHUB_BASE
    kwok_sums: Path | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Return the addresses that environment variables name."""
        sums = environment.get("VMSIM_KWOK_SHA256SUMS")
        return cls(
            kubernetes=environment.get("VMSIM_DOWNLOAD_BASE_KUBERNETES") or KUBERNETES_BASE,
            etcd=environment.get("VMSIM_DOWNLOAD_BASE_ETCD") or GITHUB_BASE,
            kwok=environment.get("VMSIM_DOWNLOAD_BASE_KWOK") or GITHUB_BASE,
            kwok_sums=Path(sums) if sums else None,
        )


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Timeouts in seconds: for a connection, for the next bytes, and for a whole file."""

    connect: float = 5.0
    read: float = 30.0
    total: float = 900.0


@dataclass(frozen=True, slots=True)
class Release:
    """One released file, the address or file of its digest, and the member to extract if it is an archive."""

    base: str
    url: str
    sums: str | Path
    member: str | None = None

    @property
    def filename(self) -> str:
        """The name under which a file of digests lists it."""
        return self.url.rsplit("/", 1)[1]


def why_no_release(distribution: Distribution, platform: Platform, bases: Bases) -> str | None:
    """Return why a distribution cannot be downloaded even with a network; None if it can."""
    if platform.system != "linux":
        return f"{distribution.name} has releases for Linux only"
    if distribution == KWOK and bases.kwok_sums is None:
        return "KWOK publishes no checksums, and --kwok-sums (VMSIM_KWOK_SHA256SUMS) names none"
    return None


def base_of(distribution: Distribution, bases: Bases) -> str:
    """Return the base address of a distribution's releases."""
    return {KUBERNETES.name: bases.kubernetes, ETCD.name: bases.etcd, KWOK.name: bases.kwok}[distribution.name]


def release_of(distribution: Distribution, binary: Binary, platform: Platform, bases: Bases) -> Release:
    """Return a binary's release; only for a distribution that can be downloaded."""
    version = distribution.version
    if distribution == KUBERNETES:
        folder = f"release/{version}/bin/{platform.system}/{platform.architecture}"
        url = f"{bases.kubernetes}/{folder}/{binary.name}"
        return Release(bases.kubernetes, url, sums=f"{url}.sha256")
    if distribution == ETCD:
        directory = f"{bases.etcd}/etcd-io/etcd/releases/download/{version}"
        archive = f"etcd-{version}-{platform}.tar.gz"
        return Release(bases.etcd, f"{directory}/{archive}", sums=f"{directory}/SHA256SUMS", member=binary.name)
    if bases.kwok_sums is None:
        raise ValueError("without digests there is no release to accept")
    directory = f"{bases.kwok}/kubernetes-sigs/kwok/releases/download/{version}"
    return Release(bases.kwok, f"{directory}/{binary.name}-{platform}", sums=bases.kwok_sums)


def digest_for(filename: str, sums: str) -> str | None:
    """Return a file's SHA-256 digest from the output of `sha256sum`, or from a text that is only the digest."""
    rows = [line.split() for line in sums.splitlines() if line.strip()]
    if len(rows) == 1 and len(rows[0]) == 1:
        rows = [[rows[0][0], filename]]
    for row in rows:
        # sha256sum marks a binary file by an asterisk.
        if len(row) == 2 and row[1].lstrip("*").removeprefix("./") == filename:  # noqa: PLR2004 - digest and name
            digest = row[0].lower()
            return digest if len(digest) == _DIGEST_LENGTH and set(digest) <= set("0123456789abcdef") else None
    return None


@dataclass(slots=True)
class Downloader:
    """Fetches releases; a base address that was unreachable once is not contacted again."""

    report: Reporter
    timeouts: Timeouts = field(default_factory=Timeouts)
    _unreachable: dict[str, DownloadError] = field(default_factory=dict)

    def fetch(self, release: Release, destination: Path) -> None:
        """Download and verify a release to a path; on failure, no file is left there. Raises DownloadError."""
        if known := self._unreachable.get(release.base):
            raise known
        try:
            self._fetch(release, destination)
        except DownloadError as error:
            destination.unlink(missing_ok=True)
            if error.unreachable:
                self._unreachable[release.base] = error
            raise

    def _fetch(self, release: Release, destination: Path) -> None:
        expected = self._expected_digest(release)
        archive = destination.with_name(f"{destination.name}.download")
        try:
            actual = self._save(release.url, archive)
            if actual != expected:
                raise DownloadError(release.url, f"its SHA-256 is {actual}, expected {expected}")
            if release.member:
                _extract(release, archive, destination)
            else:
                archive.replace(destination)
        finally:
            archive.unlink(missing_ok=True)

    def _expected_digest(self, release: Release) -> str:
        match release.sums:
            case Path() as path:
                try:
                    sums = path.read_text(errors="replace")
                except OSError as error:
                    raise DownloadError(release.url, f"cannot read its checksums: {error}") from error
            case url:
                with _opened(url, self.timeouts) as response:
                    sums = _read(response, _SUMS_LIMIT, url).decode(errors="replace")
        if digest := digest_for(release.filename, sums):
            return digest
        raise DownloadError(release.url, f"{release.sums} contains no SHA-256 digest of {release.filename}")

    def _save(self, url: str, destination: Path) -> str:
        """Download a URL to a file and return the file's digest."""
        with (
            _opened(url, self.timeouts) as response,
            destination.open("wb") as file,
            self.report.task(f"downloading {url}") as advance,
        ):
            digest = hashlib.sha256()
            size = int(response.headers.get("Content-Length", 0))
            deadline = time.monotonic() + self.timeouts.total
            done = 0
            while chunk := _read(response, _MEBIBYTE, url):
                file.write(chunk)
                digest.update(chunk)
                done += len(chunk)
                _advance_bytes(advance, done, size)
                if time.monotonic() > deadline:
                    raise DownloadError(url, f"not complete after {self.timeouts.total:.0f} s")
            if done < size:
                raise DownloadError(url, f"it ended after {done} of {size} bytes")
        return digest.hexdigest()


def _advance_bytes(advance: Advance, done: int, size: int) -> None:
    advance(done // _MEBIBYTE, size // _MEBIBYTE, "MiB")


def _extract(release: Release, archive: Path, destination: Path) -> None:
    try:
        with tarfile.open(archive) as tar:
            member = next(m for m in tar if m.isfile() and Path(m.name).name == release.member)
            source = tar.extractfile(member)
            if source is None:
                raise DownloadError(release.url, f"its member {release.member} is not a file")
            with source, destination.open("wb") as file:
                shutil.copyfileobj(source, file)
    except StopIteration:
        raise DownloadError(release.url, f"it does not contain {release.member}") from None
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DownloadError(release.url, f"cannot unpack it: {error}") from error


def _opened(url: str, timeouts: Timeouts) -> http.client.HTTPResponse:
    if not url.startswith(("https://", "http://")):
        raise DownloadError(url, "only http and https addresses are supported")
    opener = urllib.request.build_opener(_HttpHandler(timeouts), _HttpsHandler(timeouts))
    try:
        response: http.client.HTTPResponse = opener.open(url, timeout=timeouts.connect)
    except urllib.error.HTTPError as error:
        with error:
            raise DownloadError(url, f"{error.code} {HTTPStatus(error.code).phrase}") from error
    except urllib.error.URLError as error:
        raise DownloadError(url, str(error.reason), unreachable=True) from error
    except (OSError, http.client.HTTPException) as error:
        raise DownloadError(url, _text(error), unreachable=True) from error
    return response


def _read(response: http.client.HTTPResponse, size: int, url: str) -> bytes:
    try:
        return response.read(size)
    except (OSError, http.client.HTTPException) as error:
        raise DownloadError(url, f"the transfer was interrupted: {_text(error)}") from error


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__


class _HttpConnection(http.client.HTTPConnection):
    """A connection whose read timeout is longer than its connect timeout: an absent server is detected soon."""

    read_timeout: float

    def connect(self) -> None:
        super().connect()
        self.sock.settimeout(self.read_timeout)


class _HttpsConnection(http.client.HTTPSConnection):
    """The same over TLS."""

    read_timeout: float

    def connect(self) -> None:
        super().connect()
        self.sock.settimeout(self.read_timeout)


class _HttpHandler(urllib.request.HTTPHandler):
    """Opens connections with the read timeout."""

    def __init__(self, timeouts: Timeouts) -> None:
        super().__init__()
        self._timeouts = timeouts

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        def connect(host: str, **options: Any) -> _HttpConnection:
            connection = _HttpConnection(host, **options)
            connection.read_timeout = self._timeouts.read
            return connection

        return self.do_open(connect, req)


class _HttpsHandler(urllib.request.HTTPSHandler):
    """Opens connections with the read timeout."""

    def __init__(self, timeouts: Timeouts) -> None:
        super().__init__()
        self._timeouts = timeouts

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        def connect(host: str, **options: Any) -> _HttpsConnection:
            connection = _HttpsConnection(host, **options)
            connection.read_timeout = self._timeouts.read
            return connection

        return self.do_open(connect, req)
