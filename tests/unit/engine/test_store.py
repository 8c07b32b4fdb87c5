"""The store shows the newest known state, and reports every change to its listeners."""

from __future__ import annotations

import pytest

from controller.engine.changes import Change, revision
from controller.engine.store import Store
from controller.kube.kinds import Pod
from tests.unit.engine.builders import pod


def by_node() -> Store[Pod]:
    """Return a store with an index by node."""
    return Store(lambda item: item.spec.node_name)


def names(pods: tuple[Pod, ...]) -> list[str]:
    """Return their names in order."""
    return sorted(item.metadata.name for item in pods)


def log_of(store: Store[Pod]) -> list[tuple[Pod | None, Pod | None]]:
    """Return a list that takes every later change."""
    heard: list[tuple[Pod | None, Pod | None]] = []
    store.listen(lambda old, new: heard.append((old, new)), name="test")
    return heard


def test_reads_return_the_object_itself() -> None:
    """Nothing is copied: neither by key, nor by index, nor on iteration."""
    store = by_node()
    item = pod("a", 1, node="n1")
    store.apply(Change.of(item))

    assert store.get("default/a") is item
    assert store.by_index("n1")[0] is item
    assert next(iter(store)) is item
    assert len(store) == 1


def test_unknown_keys_and_index_values_are_empty() -> None:
    """A missing object raises no exception."""
    store = by_node()

    assert store.get("default/a") is None
    assert store.by_index("n1") == ()


def test_namespaces_do_not_mix() -> None:
    """The same name in two namespaces is two objects."""
    store: Store[Pod] = Store()
    store.apply(Change.of(pod("a", 1, namespace="x")))
    store.apply(Change.of(pod("a", 2, namespace="y")))
    store.apply(Change.of(pod("a", 3, namespace="x"), deleted=True))

    assert [item.metadata.key for item in store] == ["y/a"]


def test_the_index_follows_every_change() -> None:
    """Added, moved, cleared and deleted objects are where they belong, and no empty bucket stays."""
    store = by_node()
    store.apply(Change.of(pod("a", 1)))
    store.apply(Change.of(pod("b", 2, node="n1")))
    store.apply(Change.of(pod("a", 3, node="n1")))
    assert names(store.by_index("n1")) == ["a", "b"]

    store.apply(Change.of(pod("b", 4, node="n2")))
    assert (names(store.by_index("n1")), names(store.by_index("n2"))) == (["a"], ["b"])

    store.apply(Change.of(pod("b", 5)))
    store.apply(Change.of(pod("a", 6, node="n1"), deleted=True))
    assert store._index == {}


def test_the_index_shows_the_newest_value_in_the_same_bucket() -> None:
    """An update that leaves the index value alone is still seen through the index."""
    store = by_node()
    store.apply(Change.of(pod("a", 1, node="n1")))
    newer = pod("a", 2, node="n1")
    store.apply(Change.of(newer))

    assert store.by_index("n1") == (newer,)


def test_the_index_follows_a_deletion_whose_event_differs() -> None:
    """The bucket is that of the stored object, not of the state in the deletion's event."""
    store = by_node()
    store.apply(Change.of(pod("a", 1, node="n1")))
    store.apply(Change.of(pod("a", 2, node="n2"), deleted=True))

    assert store._index == {}


def test_listeners_get_additions_changes_and_deletions() -> None:
    """Each as (old, new), after the store has it."""
    store: Store[Pod] = Store()
    seen: list[tuple[Pod | None, Pod | None, Pod | None]] = []
    store.listen(lambda old, new: seen.append((old, new, store.get("default/a"))), name="test")
    first, second, last = pod("a", 1), pod("a", 2), pod("a", 3)

    store.apply(Change.of(first))
    store.apply(Change.of(second))
    store.apply(Change.of(last, deleted=True))

    assert seen == [(None, first, first), (first, second, second), (second, None, None)]


def test_every_listener_gets_each_change() -> None:
    """Two listeners get the same changes."""
    store: Store[Pod] = Store()
    one, two = log_of(store), log_of(store)

    store.apply(Change.of(pod("a", 1)))

    assert one == two
    assert len(one) == 1


def test_deleting_an_unknown_object_calls_no_listener() -> None:
    """The store's version advances all the same."""
    store: Store[Pod] = Store()
    heard = log_of(store)

    store.apply(Change.of(pod("a", 7), deleted=True))

    assert heard == []
    assert store.resource_version == "7"


def test_replace_makes_the_store_equal_to_the_list_and_passes_the_differences_on() -> None:
    """Listeners get deletions, changes and additions; for an equal object they are not called."""
    store = by_node()
    store.replace([pod("deleted", 1, node="n1"), pod("same", 2, node="n1"), pod("changed", 3, node="n1")], "5")
    heard = log_of(store)

    store.replace([pod("same", 2, node="n1"), pod("changed", 8, node="n2"), pod("new", 9, node="n2")], "10")

    assert sorted(item.metadata.name for item in store) == ["changed", "new", "same"]
    assert (names(store.by_index("n1")), names(store.by_index("n2"))) == (["same"], ["changed", "new"])
    assert store.resource_version == "10"
    assert heard == [
        (pod("deleted", 1, node="n1"), None),
        (pod("changed", 3, node="n1"), pod("changed", 8, node="n2")),
        (None, pod("new", 9, node="n2")),
    ]


def test_replace_notices_an_object_that_was_recreated_under_its_name() -> None:
    """The new object's version differs, so listeners get the change."""
    store: Store[Pod] = Store()
    store.replace([pod("a", 1)], "1")
    heard = log_of(store)

    store.replace([pod("a", 5)], "6")

    assert heard == [(pod("a", 1), pod("a", 5))]


def test_replace_with_nothing_empties_the_store() -> None:
    """An empty list is a list."""
    store = by_node()
    store.replace([pod("a", 1, node="n1")], "1")

    store.replace([], "2")

    assert (len(store), store._index, store.resource_version) == (0, {}, "2")


@pytest.mark.parametrize("deleted", [False, True])
def test_an_older_state_never_replaces_a_newer_one(*, deleted: bool) -> None:
    """An event older than the stored state changes nothing, even as a deletion."""
    store: Store[Pod] = Store()
    store.apply(Change.of(pod("a", 10)))
    heard = log_of(store)

    store.apply(Change.of(pod("a", 9), deleted=deleted))

    assert store.get("default/a") == pod("a", 10)
    assert heard == []
    assert store.resource_version == "10"


def test_versions_compare_as_numbers() -> None:
    """100 is later than 99, and versions beyond 64 bits are fine."""
    store: Store[Pod] = Store()
    store.apply(Change.of(pod("a", 99)))
    store.apply(Change.of(pod("a", 100)))
    assert store.resource_version == "100"

    store.apply(Change.of(pod("a", 2**127)))
    assert store.resource_version == str(2**127)


def test_bookmarks_move_the_version_forward_only() -> None:
    """A bookmark changes no object, and an old one nothing at all."""
    store: Store[Pod] = Store()
    store.replace([pod("a", 5)], "5")
    heard = log_of(store)

    store.bookmark("9")
    assert store.resource_version == "9"
    store.bookmark("7")
    store.bookmark("")
    assert store.resource_version == "9"
    assert heard == []


def test_has_reached_compares_with_the_newest_of_list_event_and_bookmark() -> None:
    """True from the version itself on, false before it."""
    store: Store[Pod] = Store()
    assert not store.has_reached("1")

    store.replace([], "5")
    assert (store.has_reached("5"), store.has_reached("6")) == (True, False)
    store.apply(Change.of(pod("a", 6)))
    assert (store.has_reached("6"), store.has_reached("10")) == (True, False)
    store.bookmark("10")
    assert store.has_reached("10")


@pytest.mark.parametrize("version", ["", "abc", "-5", "1.5", "¹²", " 7"])
def test_a_version_that_is_no_number_is_reached(version: str) -> None:
    """A version that cannot be compared never blocks."""
    store: Store[Pod] = Store()
    store.replace([], "5")

    assert revision(version) == -1
    assert store.has_reached(version)


def test_a_store_whose_own_version_is_no_number_has_reached_every_version() -> None:
    """It cannot be compared either, so it never blocks."""
    store: Store[Pod] = Store()
    store.replace([], "opaque")

    assert store.has_reached("5")


@pytest.mark.parametrize(
    ("namespace", "name", "uid", "left"),
    [
        ("default", "a", "uid-a", ["b"]),
        ("default", "a", "", ["b"]),
        ("default", "a", "another's", ["a", "b"]),
        ("", "", "uid-a", ["b"]),
        ("", "", "another's", ["a", "b"]),
        ("", "", "", ["a", "b"]),
    ],
)
def test_a_deletion_needs_no_more_than_a_part_of_the_identity(
    namespace: str, name: str, uid: str, left: list[str]
) -> None:
    """By its name, unless the stored object of that name has another UID; else by its UID."""
    store = by_node()
    store.replace([pod("a", 1, node="n"), pod("b", 2, node="n")], "2")
    heard = log_of(store)
    store.remove(namespace, name, uid)

    assert names(tuple(store)) == names(store.by_index("n")) == left
    assert len(heard) == 2 - len(left)
