"""Nobody decides on a cache that does not show their own last write."""

from __future__ import annotations

from controller.engine.changes import Change
from controller.engine.consistency import ConsistencyStore
from controller.engine.store import Store
from controller.kube.kinds import Pod
from tests.unit.engine.builders import pod


def store_at(version: str) -> Store[Pod]:
    """Return an empty store that shows this version."""
    store: Store[Pod] = Store()
    store.replace([], version)
    return store


def test_only_the_owner_who_wrote_waits() -> None:
    """Others go on."""
    written, pods = ConsistencyStore(), store_at("5")
    written.wrote("default/a", pods, "7")

    assert not written.ready("default/a")
    assert written.ready("default/b")


def test_the_event_of_the_write_frees_its_owner() -> None:
    """Not an earlier one."""
    written, pods = ConsistencyStore(), store_at("5")
    written.wrote("default/a", pods, "7")

    pods.apply(Change.of(pod("other", 6)))
    assert not written.ready("default/a")
    pods.apply(Change.of(pod("mine", 7)))
    assert written.ready("default/a")


def test_a_bookmark_frees_the_owner() -> None:
    """A write whose event the selector hides is waited for no longer than until the next bookmark."""
    written, pods = ConsistencyStore(), store_at("5")
    written.wrote("default/a", pods, "7")

    pods.bookmark("8")

    assert written.ready("default/a")


def test_a_new_list_frees_the_owner() -> None:
    """It shows everything up to its version."""
    written, pods = ConsistencyStore(), store_at("5")
    written.wrote("default/a", pods, "7")

    pods.replace([], "9")

    assert written.ready("default/a")


def test_all_caches_written_through_have_to_catch_up() -> None:
    """A write to a pod and one to a VM are both waited for."""
    written, pods, vms = ConsistencyStore(), store_at("5"), store_at("5")
    written.wrote("default/a", pods, "7")
    written.wrote("default/a", vms, "8")

    pods.bookmark("9")
    assert not written.ready("default/a")
    vms.bookmark("9")
    assert written.ready("default/a")


def test_the_last_write_counts() -> None:
    """A second write through the same cache is waited for too."""
    written, pods = ConsistencyStore(), store_at("5")
    written.wrote("default/a", pods, "7")
    written.wrote("default/a", pods, "9")

    pods.bookmark("8")
    assert not written.ready("default/a")
    pods.bookmark("9")
    assert written.ready("default/a")


def test_a_version_that_is_no_number_never_blocks() -> None:
    """An empty or opaque version is no reason to stand still."""
    written, pods = ConsistencyStore(), store_at("5")
    written.wrote("default/a", pods, "")
    written.wrote("default/b", pods, "opaque")

    assert written.ready("default/a")
    assert written.ready("default/b")


def test_memory_is_bounded_by_the_writes_on_their_way() -> None:
    """A thousand writes of one owner are one entry; owners whose writes came back are none."""
    written, pods = ConsistencyStore(), store_at("0")
    for version in range(1, 1001):
        written.wrote("default/a", pods, str(version))
    for number in range(100):
        written.wrote(f"default/vm-{number}", pods, "500")
    assert len(written) == 101
    assert len(written._written["default/a"]) == 1

    pods.bookmark("1000")
    assert all(written.ready(owner) for owner in ["default/a", *(f"default/vm-{n}" for n in range(100))])

    assert len(written) == 0
