"""A listener that fails affects no other listener, and its state is repaired."""

from __future__ import annotations

from collections import Counter

import pytest
from structlog.testing import capture_logs

from controller.engine.changes import Change
from controller.engine.listeners import REBUILD_EVERY, Subscription
from controller.engine.store import Store
from controller.kube.kinds import Pod
from tests.unit.engine.builders import pod


class DefectError(Exception):
    """The error that a listener raises."""


class PerNode:
    """A listener that keeps a sum: pods by node. It raises on the pods in `fails`, before or after its first change."""

    def __init__(self, *stores: Store[Pod], fails: str, spoils: bool = False) -> None:
        self.now = 0.0
        self.fails = fails
        self.spoils = spoils
        self.rebuilt = 0
        self.sums: Counter[str] = Counter()
        self.subscription = Subscription[Pod](self.changed, name="PerNode", reset=self.reset, clock=lambda: self.now)
        for store in stores:
            store.subscribe(self.subscription)

    def changed(self, old: Pod | None, new: Pod | None) -> None:
        """Update the sum."""
        kind = "change" if old and new else "addition" if new else "deletion"
        item = new or old
        assert item is not None
        failing = item.metadata.name == "failing" and kind in self.fails
        if failing and not self.spoils:
            raise DefectError
        if old is not None:
            self.sums[old.spec.node_name or ""] -= 1
        if failing:
            raise DefectError
        if new is not None:
            self.sums[new.spec.node_name or ""] += 1

    def reset(self) -> None:
        """Clear the sum."""
        self.rebuilt += 1
        self.sums.clear()

    @property
    def known(self) -> dict[str, int]:
        """The sums that are not 0."""
        return {node: count for node, count in self.sums.items() if count}


def fresh(store: Store[Pod], fails: str) -> dict[str, int]:
    """Return the state of a listener in a process that starts now."""
    empty: Store[Pod] = Store()
    listener = PerNode(empty, fails=fails)
    empty.replace(list(store), store.resource_version)
    return listener.known


@pytest.mark.parametrize("spoils", [False, True], ids=["before its first change", "half way"])
@pytest.mark.parametrize(
    "fails", ["change", "addition", "change addition", "change deletion", "change addition deletion"]
)
def test_a_repaired_listener_has_the_state_of_a_fresh_one(fails: str, *, spoils: bool) -> None:
    """Whichever event it raised on, and however far it had processed it."""
    store: Store[Pod] = Store()
    listener = PerNode(store, fails=fails, spoils=spoils)
    store.replace([pod("a", 1, node="n1"), pod("failing", 2, node="n1")], "2")
    store.apply(Change.of(pod("failing", 3, node="n2")))
    listener.now += REBUILD_EVERY
    store.bookmark("4")

    assert listener.subscription.failures > 0
    assert listener.known == fresh(store, fails)

    store.apply(Change.of(pod("failing", 5, node="n3"), deleted=True))
    listener.now += REBUILD_EVERY
    store.bookmark("6")
    assert listener.known == {"n1": 1}


def test_the_other_listeners_get_a_change_on_which_one_raises() -> None:
    """Those after it, too; the caller of the store gets no exception."""
    store: Store[Pod] = Store()
    PerNode(store, fails="addition")
    heard: list[str] = []
    store.listen(lambda _, new: heard.append(new.metadata.name if new else ""), name="other")
    store.replace([pod("failing", 1), pod("b", 2)], "2")

    assert heard == ["failing", "b"]


def test_a_listener_without_sums_gets_a_deletion_and_an_addition_after_a_failure() -> None:
    """It accepts both, since its state is by object."""
    store: Store[Pod] = Store()
    heard: list[tuple[str, str]] = []

    def listener(old: Pod | None, new: Pod | None) -> None:
        if old is not None and new is not None:
            raise DefectError
        heard.append(tuple(item.metadata.resource_version if item else "" for item in (old, new)))  # type: ignore[arg-type]

    store.listen(listener, name="by object")
    store.apply(Change.of(pod("a", 1)))
    store.apply(Change.of(pod("a", 2)))

    assert heard == [("", "1"), ("1", ""), ("", "2")]


def test_an_object_that_a_listener_failed_to_add_is_an_addition_at_its_next_change() -> None:
    """The listener has no such object, so it gets no deletion of it either."""
    store: Store[Pod] = Store()
    listener = PerNode(store, fails="addition")
    store.apply(Change.of(pod("failing", 1, node="n1")))
    listener.fails = ""
    store.apply(Change.of(pod("failing", 2, node="n1")))
    assert listener.known == {"n1": 1}

    listener.fails = "addition change"
    store.apply(Change.of(pod("failing", 3, node="n2")))
    store.apply(Change.of(pod("failing", 4, node="n2"), deleted=True))
    assert listener.known == {}


def test_sums_are_rebuilt_at_most_once_a_minute() -> None:
    """A rebuild visits every object, and a malformed one may change all the time."""
    store: Store[Pod] = Store()
    listener = PerNode(store, fails="change addition")
    store.apply(Change.of(pod("a", 1, node="n1")))
    for version in range(2, 10):
        store.apply(Change.of(pod("failing", version, node="n1")))
    assert listener.rebuilt == 1

    listener.now += REBUILD_EVERY
    store.apply(Change.of(pod("a", 10, node="n1")))
    store.apply(Change.of(pod("a", 11, node="n1")))
    assert (listener.rebuilt, listener.known) == (2, {"n1": 1})


def test_a_rebuild_covers_every_store_of_the_listener() -> None:
    """One listener may sum up several namespaces."""
    first: Store[Pod] = Store()
    second: Store[Pod] = Store()
    listener = PerNode(first, second, fails="change", spoils=True)
    first.apply(Change.of(pod("a", 1, node="n1")))
    second.apply(Change.of(pod("failing", 2, node="n1", namespace="other")))
    second.apply(Change.of(pod("failing", 3, node="n2", namespace="other")))

    assert listener.known == {"n1": 1, "n2": 1}


def test_a_failure_is_logged_with_its_traceback_once_and_counted_each_time() -> None:
    """With the listener's name and the object's."""
    store: Store[Pod] = Store()
    listener = PerNode(store, fails="change addition")
    with capture_logs() as logs:
        store.apply(Change.of(pod("failing", 1)))
        store.apply(Change.of(pod("failing", 2)))

    [line] = [line for line in logs if line.get("exc_info")]
    assert (line["listener"], line["object"]) == ("PerNode", "default/failing")
    assert listener.subscription.failures == 2


def test_an_object_on_which_the_index_function_raises_is_stored() -> None:
    """It is missing from the index alone."""

    def index(item: Pod) -> str:
        if item.metadata.name == "failing":
            raise DefectError
        return "all"

    store: Store[Pod] = Store(index)
    store.replace([pod("failing", 1), pod("b", 2)], "2")

    assert [item.metadata.name for item in store] == ["failing", "b"]
    assert [item.metadata.name for item in store.by_index("all")] == ["b"]
    store.apply(Change.of(pod("failing", 3), deleted=True))
    assert len(store) == 1
