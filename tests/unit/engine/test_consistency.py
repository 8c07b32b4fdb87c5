"""No decision is based on a cache that does not show the decider's own last write."""

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


def test_only_the_owner_of_a_write_waits() -> None:
    """Other owners are ready."""
    written, pods = ConsistencyStore(), store_at("5")
    written.wrote("default/a", pods, "7")

    assert not written.ready("default/a")
    assert written.ready("default/b")


def test_the_event_of_the_write_frees_its_owner() -> None:
    """An earlier event does not."""
    written, pods = ConsistencyStore(), store_at("5")
    written.wrote("default/a", pods, "7")

    pods.apply(Change.of(pod("other", 6)))
    assert not written.ready("default/a")
    pods.apply(Change.of(pod("mine", 7)))
    assert written.ready("default/a")


def test_a_bookmark_frees_the_owner() -> None:
    """A write whose event the selector filters out blocks only until the next bookmark."""
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


def test_the_owner_waits_for_the_cache_of_each_write() -> None:
    """For those of a pod and of a VM, say."""
    written, pods, vms = ConsistencyStore(), store_at("5"), store_at("5")
    written.wrote("default/a", pods, "7")
    written.wrote("default/a", vms, "8")

    pods.bookmark("9")
    assert not written.ready("default/a")
    vms.bookmark("9")
    assert written.ready("default/a")


def test_the_last_write_counts() -> None:
    """A second write of the same kind is waited for, too."""
    written, pods = ConsistencyStore(), store_at("5")
    written.wrote("default/a", pods, "7")
    written.wrote("default/a", pods, "9")

    pods.bookmark("8")
    assert not written.ready("default/a")
    pods.bookmark("9")
    assert written.ready("default/a")


def test_a_version_that_is_no_number_never_blocks() -> None:
    """An empty or opaque version cannot be compared."""
    written, pods = ConsistencyStore(), store_at("5")
    written.wrote("default/a", pods, "")
    written.wrote("default/b", pods, "opaque")

    assert written.ready("default/a")
    assert written.ready("default/b")


def test_memory_is_bounded_by_the_writes_not_yet_seen() -> None:
    """A thousand writes of one owner are one entry; an owner whose writes have been seen has none."""
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
