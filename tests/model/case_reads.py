"""The behaviour of reads, lists and watches, the same for the model and for a real API server."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Final

import pytest

from controller.domain.objects import VirtualMachine
from controller.domain.resources import VIRTUAL_MACHINES
from controller.kube import codec, errors
from controller.kube.meta import ObjectMeta
from controller.kube.resources import PODS
from tests.model.place import DEADLINE, Case, Place, change_of, version
from tests.model.server import ApiServer


async def every_verb_raises_not_found_for_a_missing_object(at: Place) -> None:
    """Whatever the guards of a write are."""
    await at.vm("other")
    with pytest.raises(errors.NotFoundError):
        await at.get(VIRTUAL_MACHINES)
    with pytest.raises(errors.NotFoundError):
        await at.patch(VIRTUAL_MACHINES, {"spec": {"running": True}})
    with pytest.raises(errors.NotFoundError):
        await at.patch(VIRTUAL_MACHINES, {"metadata": {"uid": "none"}, "spec": {"running": True}})
    with pytest.raises(errors.NotFoundError):
        await at.delete(VIRTUAL_MACHINES, ObjectMeta(name="a", uid="none"))


async def an_invalid_name_is_refused_by_the_client(at: Place) -> None:
    """It would address another object, or a list."""
    for name in ("", ".", "..", "a/b", "a%2Fb"):
        with pytest.raises(errors.InvalidNameError):
            await at.get(PODS, name)
        with pytest.raises(errors.InvalidNameError):
            await at.patch(PODS, {}, name)
        with pytest.raises(errors.InvalidNameError):
            await at.delete(PODS, ObjectMeta(name=name, uid="none"))
        with pytest.raises(errors.InvalidNameError):
            await at.api.list_page(PODS, namespace=name, limit=0)


async def a_list_has_one_namespaces_objects_in_the_order_of_names(at: Place) -> None:
    """Its version is at least that of each object, and lower than that of every later change."""
    made = [await at.vm(name) for name in ("b", "c", "a")]
    page = await at.page(VIRTUAL_MACHINES)
    assert [item.metadata.name for item in page.items] == ["a", "b", "c"]
    assert sorted(page.items, key=version) == made
    assert version(page) >= version(made[-1])
    assert version(await at.vm("d")) > version(page)
    everywhere = await at.api.list_page(VIRTUAL_MACHINES, limit=0)
    assert {(at.namespace, name) for name in "abcd"} <= {
        (item.metadata.namespace, item.metadata.name) for item in everywhere.items
    }


async def selectors_match_labels(at: Place) -> None:
    """With every operator that the product uses or accepts."""
    await at.vm("a", labels={"tier": "web", "zone": "1"})
    await at.vm("b", labels={"tier": "db"})
    await at.vm("c", labels={"tier": ""})
    await at.vm("d")
    for selector, wanted in {
        "tier=web": "a",
        "tier==db": "b",
        "tier=": "c",
        "tier": "abc",
        "!tier": "d",
        "tier!=web": "bcd",
        "tier in (web, db)": "ab",
        "tier notin (web,db)": "cd",
        "tier,!zone": "bc",
        "tier in (web,db),zone=1": "a",
        "zone=2": "",
    }.items():
        assert "".join(await at.selected(selector)) == wanted, selector


async def an_invalid_selector_is_refused(at: Place) -> None:
    """By a list and by a watch."""
    for selector in ("a b", "=web", "tier,,zone"):
        with pytest.raises(errors.InvalidError):
            await at.selected(selector)
        with pytest.raises(errors.InvalidError):
            await at.changes(VIRTUAL_MACHINES, "1", ("ADDED",), selector)


async def all_pages_of_a_list_show_the_state_of_the_first(at: Place) -> None:
    """Though objects change meanwhile; each page may be read again."""
    made = {name: await at.vm(name) for name in "abcde"}
    first = await at.page(VIRTUAL_MACHINES, limit=2)
    await at.vm("aa")
    await at.vm("cc")
    await at.delete(VIRTUAL_MACHINES, made["d"].metadata)
    await at.patch(VIRTUAL_MACHINES, {"metadata": {"labels": {"new": ""}}}, "e")
    second = await at.page(VIRTUAL_MACHINES, limit=2, token=first.continue_token)
    third = await at.page(VIRTUAL_MACHINES, limit=2, token=second.continue_token)
    assert first.items + second.items + third.items == list(made.values())
    assert third.continue_token == ""
    assert first.resource_version == second.resource_version == third.resource_version
    again = await at.page(VIRTUAL_MACHINES, limit=2, token=first.continue_token)
    assert again.items == second.items


async def a_page_without_a_rest_has_no_token(at: Place) -> None:
    """Even if it is full."""
    await at.vm("a")
    await at.vm("b")
    page = await at.page(VIRTUAL_MACHINES, limit=2)
    assert (len(page.items), page.continue_token) == (2, "")


async def a_watch_yields_every_change_since_its_version(at: Place) -> None:
    """In order, each with its version; a watch from a later version yields the rest."""
    begun = await at.page(VIRTUAL_MACHINES)
    made = await at.vm()
    await at.vm("other")
    spec = await at.patch(VIRTUAL_MACHINES, {"spec": {"running": True}})
    status = await at.patch(VIRTUAL_MACHINES, {"status": {"phase": "Stopped"}}, subresource="status")
    await at.delete(VIRTUAL_MACHINES, made.metadata)
    types = ("ADDED", "ADDED", "MODIFIED", "MODIFIED", "DELETED")
    changes = await at.changes(VIRTUAL_MACHINES, begun.resource_version, types)
    assert [change[:2] for change in changes] == list(zip(types, ("a", "other", "a", "a", "a"), strict=True))
    versions = [change[2] for change in changes]
    assert [versions[0], *versions[2:4]] == [version(item) for item in (made, spec, status)]
    assert versions == sorted(set(versions))
    assert await at.changes(VIRTUAL_MACHINES, str(versions[2]), types[3:]) == changes[3:]


async def a_watch_yields_an_empty_chunk_and_then_later_changes(at: Place) -> None:
    """The empty chunk says that it is open."""
    page = await at.page(VIRTUAL_MACHINES)
    async with asyncio.timeout(DEADLINE), aclosing(at.watch(VIRTUAL_MACHINES, page.resource_version)) as events:
        assert await anext(events) == []
        made = await at.vm()
        (added,) = await anext(events)
        assert codec.decode(added.object, VirtualMachine) == made
        await at.vm("b")
        (more,) = await anext(events)
        assert change_of(more)[:2] == ("ADDED", "b")


async def a_watch_yields_only_changes_of_its_selection(at: Place) -> None:
    """An object that leaves the selection is deleted, one that enters it is added; others cause no event."""
    begun = await at.page(VIRTUAL_MACHINES)
    outside = await at.vm("outside")
    await at.vm(labels={"in": ""})
    await at.patch(VIRTUAL_MACHINES, {"metadata": {"labels": {"more": ""}}})
    left = await at.patch(VIRTUAL_MACHINES, {"metadata": {"labels": {"in": None}}})
    await at.delete(VIRTUAL_MACHINES, outside.metadata)
    await at.patch(VIRTUAL_MACHINES, {"metadata": {"labels": {"in": ""}}})
    last = await at.vm("last", labels={"in": ""})
    types = ("ADDED", "MODIFIED", "DELETED", "ADDED", "ADDED")
    changes = await at.changes(VIRTUAL_MACHINES, begun.resource_version, types, "in")
    assert [change[:2] for change in changes] == list(zip(types, ("a", "a", "a", "a", "last"), strict=True))
    assert (changes[2][2], changes[4][2]) == (version(left), version(last))


async def a_watch_ends_normally_after_its_timeout(at: Place) -> None:
    """Changes of objects outside its selection cause no event."""
    page = await at.page(VIRTUAL_MACHINES)
    await at.vm()
    clock = asyncio.get_running_loop().time
    began = clock()
    async with asyncio.timeout(DEADLINE):
        watch = at.watch(VIRTUAL_MACHINES, page.resource_version, "none=such", life=2.0)
        assert [batch async for batch in watch] == [[]]
    assert 1.5 < clock() - began < DEADLINE


async def a_watch_from_an_expired_version_gets_410(at: Place) -> None:
    """The watch opens, and its first event is an ERROR with that code."""
    await at.vm()
    if isinstance(at.api, ApiServer):
        at.api.compact()
    async with asyncio.timeout(DEADLINE), aclosing(at.watch(VIRTUAL_MACHINES, "1")) as events:
        batches = [batch async for batch in events]
    ((error,),) = [batch for batch in batches if batch]
    assert error.type == "ERROR"
    status = codec.decode_status(bytes(error.object))
    assert (status.code, status.reason) == (410, "Expired")


CASES: Final[tuple[Case, ...]] = (
    every_verb_raises_not_found_for_a_missing_object,
    an_invalid_name_is_refused_by_the_client,
    a_list_has_one_namespaces_objects_in_the_order_of_names,
    selectors_match_labels,
    an_invalid_selector_is_refused,
    all_pages_of_a_list_show_the_state_of_the_first,
    a_page_without_a_rest_has_no_token,
    a_watch_yields_every_change_since_its_version,
    a_watch_yields_an_empty_chunk_and_then_later_changes,
    a_watch_yields_only_changes_of_its_selection,
    a_watch_ends_normally_after_its_timeout,
    a_watch_from_an_expired_version_gets_410,
)
