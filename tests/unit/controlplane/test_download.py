"""Downloads are accepted only complete and verified, and a failed one leaves no file."""

import hashlib
import io
import socket
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.controlplane.download import (
    Bases,
    Downloader,
    Release,
    Timeouts,
    digest_for,
    release_of,
    why_no_release,
)
from controller.controlplane.host import Platform
from controller.controlplane.program_errors import DownloadError
from controller.controlplane.versions import ETCD, KUBERNETES, KWOK, Distribution
from tests.unit.controlplane.support import RecordingReporter, ReleaseServer

LINUX = Platform("linux", "amd64")
CONTENT = b"a program" * 100


def sha256(content: bytes) -> str:
    """Return a digest in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def archive_of(name: str, content: bytes) -> bytes:
    """Return a compressed archive of one file."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def kubernetes_release(server: ReleaseServer) -> Release:
    """Return the release of kube-apiserver on a server."""
    return release_of(KUBERNETES, KUBERNETES.binaries[0], LINUX, Bases(kubernetes=server.address))


def etcd_release(server: ReleaseServer) -> Release:
    """Return the release of etcd on a server."""
    return release_of(ETCD, ETCD.binaries[0], LINUX, Bases(etcd=server.address))


@pytest.fixture
def downloader(report: RecordingReporter) -> Downloader:
    """Return a downloader with short timeouts."""
    return Downloader(report, Timeouts(connect=1.0, read=0.2, total=5.0))


@pytest.fixture
def destination(tmp_path: Path) -> Path:
    """Return a path in an empty directory."""
    (tmp_path / "workspace").mkdir()
    return tmp_path / "workspace" / "program"


def serve_kubernetes(server: ReleaseServer, content: bytes, digest: str) -> Release:
    """Serve kube-apiserver with a digest."""
    server.put("release/v1.37.2/bin/linux/amd64/kube-apiserver", content)
    server.put("release/v1.37.2/bin/linux/amd64/kube-apiserver.sha256", digest.encode())
    return kubernetes_release(server)


def serve_etcd(server: ReleaseServer, content: bytes) -> Release:
    """Serve an archive as etcd's, with its digest."""
    directory = "etcd-io/etcd/releases/download/v3.7.3"
    name = "etcd-v3.7.3-linux-amd64.tar.gz"
    server.put(f"{directory}/{name}", content)
    server.put(f"{directory}/SHA256SUMS", f"{sha256(b'')}  other.zip\n{sha256(content)}  {name}\n".encode())
    return etcd_release(server)


def test_a_kubernetes_binary_is_fetched(downloader: Downloader, server: ReleaseServer, destination: Path) -> None:
    """The layout is that of dl.k8s.io."""
    release = serve_kubernetes(server, CONTENT, sha256(CONTENT))

    downloader.fetch(release, destination)

    assert destination.read_bytes() == CONTENT


def test_etcd_is_extracted_from_its_archive(downloader: Downloader, server: ReleaseServer, destination: Path) -> None:
    """The layout is that of etcd's GitHub releases."""
    release = serve_etcd(server, archive_of("etcd-v3.7.3-linux-amd64/etcd", CONTENT))

    downloader.fetch(release, destination)

    assert destination.read_bytes() == CONTENT


def test_kwok_is_verified_against_the_users_digests(
    downloader: Downloader, server: ReleaseServer, destination: Path, tmp_path: Path
) -> None:
    """The layout is that of KWOK's GitHub releases; the digests come from a file."""
    server.put("kubernetes-sigs/kwok/releases/download/v0.8.0/kwok-linux-amd64", CONTENT)
    sums = tmp_path / "sums"
    sums.write_text(f"{sha256(CONTENT)} *kwok-linux-amd64\n")
    release = release_of(KWOK, KWOK.binaries[0], LINUX, Bases(kwok=server.address, kwok_sums=sums))

    downloader.fetch(release, destination)

    assert destination.read_bytes() == CONTENT


def test_progress_counts_mebibytes(
    downloader: Downloader, server: ReleaseServer, destination: Path, report: RecordingReporter
) -> None:
    """Of those that the server announces."""
    content = bytes(3 << 20)
    release = serve_kubernetes(server, content, sha256(content))

    downloader.fetch(release, destination)

    assert [(done, total) for _, done, total, _ in report.progress] == [(1, 3), (2, 3), (3, 3)]


def test_the_error_of_a_bad_checksum_names_both_digests(
    downloader: Downloader, server: ReleaseServer, destination: Path
) -> None:
    """So the user can compare them."""
    release = serve_kubernetes(server, CONTENT, sha256(b"something else"))

    with pytest.raises(DownloadError, match=f"{sha256(CONTENT)}, expected {sha256(b'something else')}"):
        downloader.fetch(release, destination)


def test_bad_checksum_leaves_no_file(downloader: Downloader, server: ReleaseServer, destination: Path) -> None:
    """A file that fails the verification is removed."""
    release = serve_kubernetes(server, CONTENT, sha256(b"something else"))

    with pytest.raises(DownloadError):
        downloader.fetch(release, destination)

    assert list(destination.parent.iterdir()) == []


def test_missing_checksum_file_is_not_accepted(
    downloader: Downloader, server: ReleaseServer, destination: Path
) -> None:
    """A file without a digest cannot be verified."""
    server.put("release/v1.37.2/bin/linux/amd64/kube-apiserver", CONTENT)

    with pytest.raises(DownloadError, match=r"kube-apiserver\.sha256: 404 Not Found"):
        downloader.fetch(kubernetes_release(server), destination)


def test_checksum_file_without_the_name_is_not_accepted(
    downloader: Downloader, server: ReleaseServer, destination: Path
) -> None:
    """The digest of another file proves nothing."""
    serve_etcd(server, CONTENT)
    server.put("etcd-io/etcd/releases/download/v3.7.3/SHA256SUMS", f"{sha256(CONTENT)}  other\n".encode())

    with pytest.raises(DownloadError, match="contains no SHA-256 digest of etcd-v3"):
        downloader.fetch(etcd_release(server), destination)


def test_a_missing_file_is_reported_with_its_404(
    downloader: Downloader, server: ReleaseServer, destination: Path
) -> None:
    """Such as one of a wrong version or platform."""
    server.put("release/v1.37.2/bin/linux/amd64/kube-apiserver.sha256", sha256(CONTENT).encode())

    with pytest.raises(DownloadError, match="kube-apiserver: 404 Not Found"):
        downloader.fetch(kubernetes_release(server), destination)


def test_other_files_are_still_fetched_after_a_missing_one(
    downloader: Downloader, server: ReleaseServer, destination: Path
) -> None:
    """Only an unreachable server is not contacted again."""
    with pytest.raises(DownloadError):
        downloader.fetch(kubernetes_release(server), destination)

    release = serve_kubernetes(server, CONTENT, sha256(CONTENT))
    downloader.fetch(release, destination)

    assert destination.exists()


def test_archive_without_the_program_is_refused(
    downloader: Downloader, server: ReleaseServer, destination: Path
) -> None:
    """The layout of the release may have changed."""
    release = serve_etcd(server, archive_of("etcd-v3.7.3-linux-amd64/README", CONTENT))

    with pytest.raises(DownloadError, match="it does not contain etcd"):
        downloader.fetch(release, destination)


def test_truncated_archive_is_refused_even_if_its_checksum_fits(
    downloader: Downloader, server: ReleaseServer, destination: Path
) -> None:
    """A mirror may have published the digest of half a file."""
    packed = archive_of("etcd-v3.7.3-linux-amd64/etcd", hashlib.sha512(CONTENT).digest() * 100)
    release = serve_etcd(server, packed[: len(packed) // 2])

    with pytest.raises(DownloadError, match="cannot unpack it"):
        downloader.fetch(release, destination)

    assert list(destination.parent.iterdir()) == []


def test_transfer_that_ends_early_is_refused(
    downloader: Downloader, truncating_server: ReleaseServer, destination: Path
) -> None:
    """An interrupted connection leaves no incomplete file."""
    release = serve_etcd(truncating_server, archive_of("etcd/etcd", CONTENT))
    # The digests come from a complete local file: only the archive is truncated.
    whole = truncating_server.root / "etcd-io/etcd/releases/download/v3.7.3/SHA256SUMS"
    release = Release(release.base, release.url, sums=whole, member=release.member)

    with pytest.raises(DownloadError, match=r"ended after|was interrupted"):
        downloader.fetch(release, destination)

    assert list(destination.parent.iterdir()) == []


@pytest.fixture
def closed_port() -> int:
    """Return a port without a listener."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def unreachable_release(port: int, number: int) -> Release:
    """Return a file at a port of this machine."""
    base = f"http://127.0.0.1:{port}"
    return Release(base, f"{base}/file-{number}", sums=f"{base}/file-{number}.sha256")


def test_refused_connection_is_reported(downloader: Downloader, closed_port: int, destination: Path) -> None:
    """The error contains the operating system's message."""
    with pytest.raises(DownloadError, match="refused") as failure:
        downloader.fetch(unreachable_release(closed_port, 1), destination)

    assert failure.value.unreachable


def test_an_unreachable_server_is_contacted_only_once(
    downloader: Downloader, closed_port: int, destination: Path
) -> None:
    """Six binaries do not cause six timeouts."""
    with pytest.raises(DownloadError):
        downloader.fetch(unreachable_release(closed_port, 1), destination)

    with pytest.raises(DownloadError, match="file-1"):
        downloader.fetch(unreachable_release(closed_port, 2), destination)


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Return the port of a server that accepts connections and sends nothing."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_silent_server_is_an_error_after_the_read_timeout(
    downloader: Downloader, silent_port: int, destination: Path
) -> None:
    """So it does not block `up`."""
    with pytest.raises(DownloadError, match="timed out"):
        downloader.fetch(unreachable_release(silent_port, 1), destination)


def test_other_schemes_are_refused(downloader: Downloader, destination: Path) -> None:
    """A base address cannot make urllib read local files."""
    release = Release("file:///", "file:///etc/passwd", sums="file:///etc/passwd")

    with pytest.raises(DownloadError, match="only http and https"):
        downloader.fetch(release, destination)


def test_kwok_without_digests_has_no_release() -> None:
    """The reason names the setting that would allow a download."""
    reason = why_no_release(KWOK, LINUX, Bases())

    assert reason is not None
    assert "publishes no checksums" in reason


@pytest.mark.parametrize("distribution", [KUBERNETES, ETCD], ids=lambda d: d.name)
def test_other_systems_have_no_release(distribution: Distribution) -> None:
    """Upstream releases these for Linux only."""
    assert why_no_release(distribution, Platform("darwin", "arm64"), Bases()) is not None


def test_a_text_that_is_only_a_digest_is_the_files_digest() -> None:
    """Kubernetes publishes only the digest."""
    assert digest_for("kube-apiserver", f"{'A' * 64}\n") == "a" * 64


@pytest.mark.parametrize("sums", ["", "<html>not found</html>", f"{'a' * 63}\n", f"{'g' * 64}  kwok\n"])
def test_a_text_without_a_digest_has_none(sums: str) -> None:
    """Such as an error page."""
    assert digest_for("kwok", sums) is None
