"""The source of each program, the time and the disk space are announced before the work begins."""

from dataclasses import replace
from pathlib import Path

import pytest

from controller.controlplane.binaries import obtain
from controller.controlplane.download import Bases
from controller.controlplane.program_errors import GoMissingError, NoSpaceToBuildError
from controller.controlplane.sources import Cost, Sources, announcement, cost_of_building, survey
from controller.controlplane.versions import DISTRIBUTIONS, ETCD, KWOK
from tests.unit.controlplane.support import RecordingReporter, fill_cache, write_go, write_program

GIB = 1 << 30


def announced(sources: Sources) -> list[str]:
    """Return the lines that are reported before a program is obtained."""
    return list(announcement(survey(sources, RecordingReporter()), sources))


def test_existing_programs_are_announced_with_their_folder(sources: Sources) -> None:
    """One line per folder, without time and disk space, since neither is needed."""
    fill_cache(sources)

    assert announced(sources) == [f"using etcd v3.7.3, kwok v0.8.0, kubernetes v1.37.2 from {sources.cache}"]


def test_a_program_from_another_folder_has_a_line_of_its_own(sources: Sources, tmp_path: Path) -> None:
    """So the user sees that an etcd on PATH is used."""
    fill_cache(sources)
    write_program(tmp_path / "path" / "etcd", "etcd Version: 3.7.0")

    assert f"using etcd v3.7.3 from {tmp_path / 'path'}" in announced(sources)


def test_builds_are_announced_with_their_reason_and_cost(sources: Sources) -> None:
    """The cost of the missing programs only."""
    fill_cache(sources, without="kwokctl")

    assert announced(sources)[1:] == [
        "building kwokctl (kwok v0.8.0) with Go, since downloads are switched off",
        "this is needed once and takes about 2 minutes and up to 3 GB of disk",
    ]


def test_downloads_are_announced_with_the_cost_of_a_build_instead(sources: Sources) -> None:
    """So ten minutes of compiling are no surprise to a user without a network."""
    fill_cache(sources, without="kube-apiserver")

    mirror = replace(sources, download=True, build=True, bases=Bases(kubernetes="https://mirror"))
    otherwise = "; about 10 minutes and up to 8 GB of disk if downloads fail"
    assert announced(mirror)[1:] == [
        "downloading kube-apiserver (kubernetes v1.37.2) from https://mirror, or building with Go if that fails",
        f"this is needed once and takes about a minute and up to 1 GB of disk{otherwise}",
    ]
    assert announced(replace(mirror, build=False))[1:] == [
        "downloading kube-apiserver (kubernetes v1.37.2) from https://mirror",
        "this is needed once and takes about a minute and up to 1 GB of disk",
    ]


def test_building_everything_needs_twelve_gigabytes() -> None:
    """It takes about a quarter of an hour on two cores."""
    assert cost_of_building(DISTRIBUTIONS) == Cost(minutes=13, disk=12 * GIB)


@pytest.mark.parametrize(("free", "refused"), [(12 * GIB - 1, True), (12 * GIB, False)])
def test_a_disk_too_small_to_compile_is_refused_before_the_build(
    sources: Sources, report: RecordingReporter, tmp_path: Path, free: int, *, refused: bool
) -> None:
    """Not after ten minutes, with a full disk."""
    go = write_go(tmp_path / "path" / "go", caches="echo /caches/go-build; echo /caches/mod")
    asked: list[Path] = []

    def free_space(path: Path) -> int:
        asked.append(path)
        return free if path == Path("/caches/mod") else 100 * GIB

    small = replace(sources, build=True, free_space=free_space)
    if refused:
        with pytest.raises(NoSpaceToBuildError, match=r"/caches/mod to build etcd.*12\.0 GB are free, and 12 GB"):
            obtain(small, report)
        assert go.calls("build") == go.calls("list") == []
    else:
        obtain(small, report)
    assert asked[:3] == [sources.cache, Path("/caches/go-build"), Path("/caches/mod")]


def test_a_small_disk_is_no_error_if_nothing_is_compiled(sources: Sources, report: RecordingReporter) -> None:
    """All programs are in the cache."""
    fill_cache(sources)

    assert obtain(replace(sources, free_space=lambda _: 0), report)


def test_a_missing_go_is_an_error_before_the_build(sources: Sources, report: RecordingReporter) -> None:
    """The error names the programs to build."""
    fill_cache(sources, without="kwok")

    with pytest.raises(GoMissingError, match=r"building kwok v0\.8\.0 needs Go"):
        obtain(replace(sources, build=True), report)
    assert not list(sources.cache.glob("**/*.lock"))


def test_the_cost_of_a_build_does_not_depend_on_the_order() -> None:
    """It is a sum."""
    assert cost_of_building([ETCD, KWOK]) == cost_of_building([KWOK, ETCD])
