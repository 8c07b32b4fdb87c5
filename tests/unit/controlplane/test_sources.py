"""A person hears from where each program comes, how long that takes and how much disk, before anything begins."""

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
    """Return the lines that are said before anything is obtained."""
    return list(announcement(survey(sources, RecordingReporter()), sources))


def test_what_is_there_is_named_with_its_place(sources: Sources) -> None:
    """One line a place, and no word of time or disk: neither is needed."""
    fill_cache(sources)

    assert announced(sources) == [f"etcd v3.7.3, kwok v0.8.0, kubernetes v1.37.2: taken from {sources.cache}"]


def test_a_program_from_another_place_has_a_line_of_its_own(sources: Sources, tmp_path: Path) -> None:
    """Whoever has an etcd on PATH sees that it is used."""
    fill_cache(sources)
    write_program(tmp_path / "path" / "etcd", "etcd Version: 3.7.0")

    assert f"etcd v3.7.3: taken from {tmp_path / 'path'}" in announced(sources)


def test_what_has_to_be_built_is_said_with_the_reason_and_the_cost(sources: Sources) -> None:
    """Time and disk are those of what is missing alone."""
    fill_cache(sources, without="kwokctl")

    assert announced(sources)[1:] == [
        "kwokctl (kwok v0.8.0): to be built with Go, since downloads are switched off",
        "this takes about 2 minutes and up to 3 GB of disk, once",
    ]


def test_what_can_be_downloaded_is_said_with_what_happens_if_it_cannot(sources: Sources) -> None:
    """Nobody without a network is surprised by ten minutes of compiling."""
    fill_cache(sources, without="kube-apiserver")

    mirror = replace(sources, download=True, build=True, bases=Bases(kubernetes="https://mirror"))
    otherwise = "; about 10 minutes and up to 8 GB of disk where nothing can be downloaded"
    assert announced(mirror)[1:] == [
        "kube-apiserver (kubernetes v1.37.2): to be downloaded from https://mirror, or else built with Go",
        f"this takes about a minute and up to 1 GB of disk{otherwise}, once",
    ]
    assert announced(replace(mirror, build=False))[1:] == [
        "kube-apiserver (kubernetes v1.37.2): to be downloaded from https://mirror",
        "this takes about a minute and up to 1 GB of disk, once",
    ]


def test_building_everything_wants_twelve_gigabytes() -> None:
    """And about a quarter of an hour on two cores."""
    assert cost_of_building(DISTRIBUTIONS) == Cost(minutes=13, disk=12 * GIB)


@pytest.mark.parametrize(("free", "refused"), [(12 * GIB - 1, True), (12 * GIB, False)])
def test_a_disk_too_small_to_compile_is_refused_before_anything_begins(
    sources: Sources, report: RecordingReporter, tmp_path: Path, free: int, *, refused: bool
) -> None:
    """Not after ten minutes, with a disk that is full."""
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


def test_a_small_disk_is_no_matter_where_nothing_is_compiled(sources: Sources, report: RecordingReporter) -> None:
    """What is in the cache is taken from there."""
    fill_cache(sources)

    assert obtain(replace(sources, free_space=lambda _: 0), report)


def test_go_that_is_missing_is_told_before_anything_begins(sources: Sources, report: RecordingReporter) -> None:
    """With what it is for."""
    fill_cache(sources, without="kwok")

    with pytest.raises(GoMissingError, match=r"kwok v0\.8\.0 has to be built with it"):
        obtain(replace(sources, build=True), report)
    assert not list(sources.cache.glob("**/*.lock"))


def test_the_same_programs_have_the_same_cost_whatever_the_order() -> None:
    """It is a sum."""
    assert cost_of_building([ETCD, KWOK]) == cost_of_building([KWOK, ETCD])
