"""An API server in memory: it answers the requests of `controller.kube.client.Client` by the rules of a real one.

Guarantees: the cases of `tests.model.cases` hold here and for a real API server. A test may store any object in any
state (`tests.model.store`); requests obey the rules.

Tests also use `log`, every change, for caches that they fill themselves; `watches`, to delay events; `compact`, to
expire old versions; and scripted faults (`tests.model.faults`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import lru_cache, partial
from string import ascii_lowercase
from typing import Any, Final, TypeVar

import msgspec

from controller.domain.resources import MIGRATIONS, VIRTUAL_MACHINES
from controller.kube import codec, errors
from controller.kube.resources import SUBJECT_ACCESS_REVIEWS, TOKEN_REVIEWS, Resource
from controller.kube.verbs import Page
from tests.model import rules
from tests.model.faults import Faulty
from tests.model.rules import Document
from tests.model.store import decode
from tests.model.watches import Events, Watch, expired, missed

T = TypeVar("T")
_TRIES: Final = 8
"""Attempts of the server to find a free name for a `generateName`."""


@dataclass(repr=False)
class ApiServer(Faulty):
    """The requests of a client, answered from memory."""

    writes: list[str] = field(default_factory=list)
    """Each request that changed something, as its method and resource."""
    dry_runs: list[Document] = field(default_factory=list)
    """The objects of dry runs."""
    unknown: frozenset[str] = frozenset({"noSuchField"})
    """Fields of specs that our CRDs do not have; those of an older release are more."""
    page_size: int = 1000
    """The maximum number of objects on a page, whatever the client's limit."""
    expire: bool = False
    """Whether the token of the next page has expired."""
    reviews: dict[str, Callable[[Document], Document]] = field(
        default_factory=lambda: {
            TOKEN_REVIEWS.plural: rules.token_status,
            SUBJECT_ACCESS_REVIEWS.plural: rules.access_status,
        }
    )
    """The status of a review by its spec; reviews are not stored."""
    _applied: dict[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)
    """The last applied body of each object."""
    _oldest: int = 0
    """The oldest version that has not expired."""
    _pages: dict[str, tuple[str, list[Document]]] = field(default_factory=dict)
    """By continue token: the version of the list, and its remaining items."""
    _suffixes: Iterator[str] = field(default_factory=lambda: map("".join, itertools.permutations(ascii_lowercase, 5)))

    def compact(self) -> None:
        """Drop the history: older versions and continue tokens expire."""
        self._oldest = self.revision
        self._pages.clear()

    # --- the client's methods --------------------------------------------------------------------------------

    async def get(self, resource: Resource[T], name: str, *, namespace: str | None = None) -> T:
        """Read the newest state of one object."""
        resource.path(namespace, name)  # refuses an invalid name
        await self._arrive("get", resource.plural, name)
        find = partial(self._find, resource.plural, f"{namespace or ''}/{name}")
        return decode(self._carry_out("get", resource.plural, name, find), resource.type)

    async def list_page(
        self,
        resource: Resource[T],
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        limit: int,
        continue_token: str = "",
    ) -> Page[T]:
        """Read one page; a limit of 0 reads all. All pages of a list show the state of its first page."""
        _collection(resource, namespace)
        await self._arrive("list", resource.plural, "")
        read = partial(self._read, resource.plural, namespace, label_selector, continue_token)
        version, found = self._carry_out("list", resource.plural, "", read)
        size = min(limit or len(found), self.page_size)
        page, rest = found[:size], found[size:]
        token = f"page-{len(self._pages) + 1}-of-{version}" if rest else ""
        if rest:
            self._pages[token] = (version, rest)
        reply = codec.encode({"metadata": {"resourceVersion": version}, "items": page})
        meta, items, left_out = codec.decode_list(reply, resource.type)
        return Page(items, meta.resource_version, token, left_out)

    async def watch(
        self,
        resource: Resource[T],
        *,
        resource_version: str,
        life: float,
        namespace: str | None = None,
        label_selector: str | None = None,
    ) -> Events:
        """Yield every change since a version, for `life` seconds."""
        _collection(resource, namespace)
        await self._arrive("watch", resource.plural, "")
        watch = Watch(resource.plural, rules.selects(namespace, label_selector))
        begin = partial(self._follow, watch, int(resource_version), life)
        async with aclosing(self._carry_out("watch", resource.plural, "", begin)) as stream:
            async for events in stream:
                yield events

    async def create(
        self,
        resource: Resource[T],
        body: Mapping[str, Any],
        *,
        namespace: str | None = None,
        server_deadline: float,
        dry_run: bool = False,
        strict: bool = False,
    ) -> T:
        """Create, unless the name is taken. A dry run persists nothing; faults name it separately."""
        _collection(resource, namespace)
        assert server_deadline > 0
        plural, method = resource.plural, "dry-run" if dry_run else "create"
        if plural in self.reviews:
            return await self._review(resource, body)
        name = body["metadata"].get("name") or self._name(plural, namespace, body["metadata"]["generateName"])
        await self._arrive(method, plural, name)
        if plural in (VIRTUAL_MACHINES.plural, MIGRATIONS.plural):
            body = rules.known(body, self.unknown, strict=strict)
        write = partial(self._create, plural, body, namespace, name, dry_run=dry_run)
        return decode(self._carry_out(method, plural, name, write, deadline=server_deadline), resource.type)

    async def merge_patch(
        self,
        resource: Resource[T],
        name: str,
        body: Mapping[str, Any],
        *,
        namespace: str | None = None,
        subresource: str | None = None,
    ) -> T:
        """Patch, if the guards hold; a patch that changes nothing writes nothing."""
        resource.path(namespace, name, subresource)  # refuses an invalid name
        await self._arrive("patch", resource.plural, name)
        write = partial(self._patch, resource.plural, f"{namespace or ''}/{name}", body, subresource)
        return decode(self._carry_out("patch", resource.plural, name, write), resource.type)

    async def delete(
        self,
        resource: Resource[T],
        name: str,
        *,
        namespace: str | None = None,
        uid: str,
        resource_version: str | None = None,
        grace_seconds: int | None = None,
    ) -> str:
        """Delete, if the guards hold; return the version of the deletion, if the reply names one."""
        resource.path(namespace, name)  # refuses an invalid name
        await self._arrive("delete", resource.plural, name)
        key = f"{namespace or ''}/{name}"
        write = partial(self._delete, resource.plural, key, uid, resource_version, grace_seconds)
        return self._carry_out("delete", resource.plural, name, write)

    async def apply(self, resource: Resource[T], name: str, body: Mapping[str, Any]) -> T:
        """Apply a cluster-scoped object (server-side): fields applied before and missing now are removed."""
        resource.path(name=name)  # refuses an invalid name
        await self._arrive("apply", resource.plural, name)
        write = partial(self._apply, resource.plural, name, body)
        return decode(self._carry_out("apply", resource.plural, name, write), resource.type)

    # --- implementation --------------------------------------------------------------------------------------

    def _read(
        self, plural: str, namespace: str | None, label_selector: str | None, token: str
    ) -> tuple[str, list[Document]]:
        """Return the version of a list, and the rest of its items."""
        if not token:
            shown = rules.selects(namespace, label_selector)
            keys = sorted(key for of, key in self.objects if of == plural)
            found = [self.objects[plural, key] for key in keys]
            return str(self.revision), [document for document in found if shown(document)]
        if self.expire or token not in self._pages:
            self.expire = False
            raise errors.ExpiredError(410, "Expired", "The provided continue parameter is too old")
        return self._pages[token]

    def _follow(self, watch: Watch, since: int, life: float) -> Events:
        assert life > 0
        if since < self._oldest:
            return expired()
        past = missed(watch, self.log, since) if since < self.revision else ()
        return self.watches.follow(watch, past, life=life, version=lambda: str(self.revision))

    def _name(self, plural: str, namespace: str | None, prefix: str) -> str:
        name = ""
        for suffix in itertools.islice(self._suffixes, _TRIES):
            name = f"{prefix}{suffix}"
            if (plural, f"{namespace or ''}/{name}") not in self.objects:
                break
        return name

    async def _review(self, resource: Resource[T], body: Mapping[str, Any]) -> T:
        await self._arrive("create", resource.plural, "")
        review: Document = msgspec.json.decode(codec.encode(body))
        answer = partial(self.reviews[resource.plural], review["spec"])
        status = self._carry_out("create", resource.plural, "", answer)
        return codec.decode(codec.encode({"metadata": {}, **review, "status": status}), resource.type)

    def _create(
        self, plural: str, body: Mapping[str, Any], namespace: str | None, name: str, *, dry_run: bool
    ) -> Document:
        if namespace is not None and ("namespaces", f"/{namespace}") not in self.objects:
            raise errors.NotFoundError(404, "NotFound", f'namespaces "{namespace}" not found')
        key = f"{namespace or ''}/{name}"
        if (plural, key) in self.objects:
            raise errors.AlreadyExistsError(409, "AlreadyExists", f'{plural} "{name}" already exists')
        document = rules.created(plural, body, namespace, name)
        if dry_run:
            self.dry_runs.append(document)
            return document
        self._written("create", plural, document)
        return self.add(plural, document)

    def _patch(self, plural: str, key: str, body: Mapping[str, Any], subresource: str | None) -> Document:
        document = self._find(plural, key)
        guard = body.get("metadata", {})
        rules.check_guards(document, guard.get("uid"), guard.get("resourceVersion"), changing=True)
        after = rules.patched(plural, document, body, subresource)
        if after == document:
            return document
        self._written("patch", plural, document)
        if rules.is_released(after):
            return self.discard(plural, document)
        return self.store(plural, after)

    def _apply(self, plural: str, name: str, body: Mapping[str, Any]) -> Document:
        key = f"/{name}"
        before, self._applied[plural, key] = self._applied.get((plural, key), {}), body
        if (plural, key) not in self.objects:
            return self._create(plural, body, None, name, dry_run=False)
        return self._patch(plural, key, rules.applying(before, body), None)

    def _delete(self, plural: str, key: str, uid: str, resource_version: str | None, grace_seconds: int | None) -> str:
        document = self._find(plural, key)
        rules.check_guards(document, uid, resource_version)
        grace = rules.deletion(plural, document, grace_seconds)
        if grace is None:
            self._written("delete", plural, document)
            deleted = self.discard(plural, document)
            return str(deleted["metadata"]["resourceVersion"]) if plural in rules.ANSWERED_WITH_THE_OBJECT else ""
        metadata = document["metadata"]
        if grace != metadata.get("deletionGracePeriodSeconds"):
            self._written("delete", plural, document)
            metadata = self.terminate(plural, document, grace)["metadata"]
        return str(metadata["resourceVersion"])

    def _find(self, plural: str, key: str) -> Document:
        try:
            return self.objects[plural, key]
        except KeyError:
            raise errors.NotFoundError(404, "NotFound", f'{plural} "{key}" not found') from None

    def _written(self, method: str, plural: str, document: Document) -> None:
        """Record that a request changes an object."""
        del document
        self.writes.append(f"{method} {plural}")


@lru_cache(maxsize=256)
def _collection(resource: Resource[Any], namespace: str | None) -> None:
    """Refuse an invalid namespace."""
    resource.path(namespace)
