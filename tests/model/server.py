"""An API server in memory: what `controller.kube.client.Client` asks of a real one, answered by the same rules.

Guarantees: the cases of `tests.model.cases` hold here and at a real API server alike. A test may put any object there
by hand, in any state (`add`, `put`, `store`, `edit`, `remove`); requests obey the rules.

What a test needs besides: `log`, every change, for caches that it feeds by hand; `watches`, for what is told late or
when the test says so; `compact`, after which old versions are too old; and what can go wrong (`tests.model.faults`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache, partial
from typing import Any, Final, TypeVar

import msgspec

from controller.kube import codec, errors
from controller.kube.resources import SUBJECT_ACCESS_REVIEWS, TOKEN_REVIEWS, Resource
from controller.kube.times import timestamp
from controller.kube.verbs import Page
from tests.model import rules
from tests.model.faults import Faulty
from tests.model.rules import Document
from tests.model.watches import Events, Log, Watch, Watches, expired, missed

T = TypeVar("T")
_TRIES: Final = 8
"""How often the server thinks of another name for a `generateName`."""
_NAMESPACE: Final = {"metadata": {"name": "default", "namespace": "", "uid": "uid-0", "resourceVersion": "1"}}


@dataclass(repr=False)
class ApiServer(Faulty):
    """Objects by the plural of their resource and `namespace/name`, and a revision that counts the writes."""

    objects: dict[tuple[str, str], Document] = field(
        default_factory=lambda: {("namespaces", "/default"): dict(_NAMESPACE)}
    )
    revision: int = 100
    writes: list[str] = field(default_factory=list)
    """Each request that changed something, as its method and resource."""
    dry_runs: list[Document] = field(default_factory=list)
    """What would have been created."""
    log: Log = field(default_factory=list)
    watches: Watches = field(default_factory=Watches)
    page_size: int = 1000
    """Objects on a page at most, whatever the client wants."""
    expire: bool = False
    """Whether the next page of a list is too old to be read."""
    reviews: dict[str, Callable[[Document], Document]] = field(
        default_factory=lambda: {
            TOKEN_REVIEWS.plural: rules.token_status,
            SUBJECT_ACCESS_REVIEWS.plural: rules.access_status,
        }
    )
    """What is answered to a review's spec as its status; nothing of it is kept."""
    uids: int = 0
    _oldest: int = 0
    """The version from which on changes are remembered."""
    _pages: dict[str, tuple[str, list[Document]]] = field(default_factory=dict)
    """By continue token: the version of the list, and what is left of it."""
    _suffixes: Iterator[str] = field(default_factory=lambda: map("".join, itertools.permutations("abcdefghij", 5)))

    # --- what a test does by hand ----------------------------------------------------------------------------

    def add(self, plural: str, document: Document) -> Document:
        """Create an object, whatever it is."""
        self.uids += 1
        metadata = {**document["metadata"], "uid": f"uid-{self.uids}", "creationTimestamp": timestamp(self.now)}
        return self.store(plural, {**document, "metadata": metadata})

    def store(self, plural: str, document: Document) -> Document:
        """Make an object what it shall be, at the next version."""
        self.revision += 1
        key = rules.key_of(document)
        before = self.objects.get((plural, key))
        metadata = {**document["metadata"], "resourceVersion": str(self.revision)}
        if plural in rules.OURS:
            metadata["generation"] = rules.generation(before, document)
        document = {**document, "metadata": metadata}
        self.objects[plural, key] = document
        self._changed(plural, before, document, deleted=False)
        return document

    def discard(self, plural: str, document: Document) -> Document:
        """Take an object away; return it as its watches see it last."""
        self.revision += 1
        before = self.objects.pop((plural, rules.key_of(document)))
        document = {**document, "metadata": {**document["metadata"], "resourceVersion": str(self.revision)}}
        self._changed(plural, before, document, deleted=True)
        return document

    def terminate(self, plural: str, document: Document, grace: int) -> Document:
        """Begin an object's deletion, or shorten its grace period."""
        going = {
            "deletionTimestamp": timestamp(self.now + timedelta(seconds=grace)),
            "deletionGracePeriodSeconds": grace,
        }
        return self.store(plural, {**document, "metadata": {**document["metadata"], **going}})

    def put(self, plural: str, key: str, *, metadata: Mapping[str, Any] | None = None, **parts: Any) -> Document:
        """Create an object, or change parts of it."""
        known = self.objects.get((plural, key))
        if known is None:
            namespace, _, name = key.partition("/")
            return self.add(plural, {**parts, "metadata": {**(metadata or {}), "name": name, "namespace": namespace}})
        return self.store(plural, {**known, **parts, "metadata": {**known["metadata"], **(metadata or {})}})

    def edit(self, resource: Resource[Any], key: str, **metadata: Any) -> None:
        """Change an object's metadata."""
        document = self.objects[resource.plural, key]
        self.store(resource.plural, {**document, "metadata": {**document["metadata"], **metadata}})

    def set_status(self, resource: Resource[Any], key: str, status: Document) -> None:
        """Replace an object's status."""
        self.store(resource.plural, {**self.objects[resource.plural, key], "status": status})

    def remove(self, resource: Resource[Any], key: str) -> None:
        """Delete an object at once, as a user with force or a garbage collector can."""
        self.discard(resource.plural, self.objects[resource.plural, key])

    def compact(self) -> None:
        """Forget what was: older versions are too old to be watched from, and begun lists to be read on."""
        self._oldest = self.revision
        self._pages.clear()

    # --- what a test looks at --------------------------------------------------------------------------------

    def of(self, resource: Resource[Any]) -> list[Document]:
        """Return every object of a resource, the oldest first."""
        return [document for (plural, _), document in self.objects.items() if plural == resource.plural]

    def names(self, resource: Resource[Any]) -> list[str]:
        """Return the names of all objects of a resource, the oldest first."""
        return [document["metadata"]["name"] for document in self.of(resource)]

    # --- the client's methods --------------------------------------------------------------------------------

    async def get(self, resource: Resource[T], name: str, *, namespace: str | None = None) -> T:
        """Read the newest state of one object."""
        resource.path(namespace, name)  # refuses what is no name
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
        """Read one page; a limit of 0 is all. All pages of a list show the state of the first."""
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
        """Tell of every change since a version, for `life` seconds."""
        _collection(resource, namespace)
        await self._arrive("watch", resource.plural, "")
        watch = Watch(resource.plural, rules.selects(namespace, label_selector))
        begin = partial(self._follow, watch, int(resource_version), life)
        async for events in self._carry_out("watch", resource.plural, "", begin):
            yield events

    async def create(
        self,
        resource: Resource[T],
        body: Mapping[str, Any],
        *,
        namespace: str | None = None,
        server_deadline: float,
        dry_run: bool = False,
    ) -> T:
        """Create, unless the name is taken; a dry run, which faults name by its own, leaves nothing behind."""
        _collection(resource, namespace)
        assert server_deadline > 0
        plural, method = resource.plural, "dry-run" if dry_run else "create"
        if plural in self.reviews:
            return await self._review(resource, body)
        name = body["metadata"].get("name") or self._name(plural, namespace, body["metadata"]["generateName"])
        await self._arrive(method, plural, name)
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
        resource.path(namespace, name, subresource)  # refuses what is no name
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
        """Delete, if the guards hold; return the version of the deletion, if the answer names one."""
        resource.path(namespace, name)  # refuses what is no name
        await self._arrive("delete", resource.plural, name)
        key = f"{namespace or ''}/{name}"
        write = partial(self._delete, resource.plural, key, uid, resource_version, grace_seconds)
        return self._carry_out("delete", resource.plural, name, write)

    # --- inside ----------------------------------------------------------------------------------------------

    def _read(
        self, plural: str, namespace: str | None, label_selector: str | None, token: str
    ) -> tuple[str, list[Document]]:
        """Return the version that a list shows, and what is still to be read of it."""
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
        tries = [f"{prefix}{suffix}" for suffix in itertools.islice(self._suffixes, _TRIES)]
        return next((name for name in tries if (plural, f"{namespace or ''}/{name}") not in self.objects), tries[-1])

    async def _review(self, resource: Resource[T], body: Mapping[str, Any]) -> T:
        await self._arrive("create", resource.plural, "")
        asked: Document = msgspec.json.decode(codec.encode(body))
        answer = partial(self.reviews[resource.plural], asked["spec"])
        status = self._carry_out("create", resource.plural, "", answer)
        return codec.decode(codec.encode({"metadata": {}, **asked, "status": status}), resource.type)

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

    def _delete(self, plural: str, key: str, uid: str, resource_version: str | None, grace_seconds: int | None) -> str:
        document = self._find(plural, key)
        rules.check_guards(document, uid, resource_version)
        grace = rules.deletion(plural, document, grace_seconds)
        if grace is None:
            self._written("delete", plural, document)
            gone = self.discard(plural, document)
            return str(gone["metadata"]["resourceVersion"]) if plural in rules.ANSWERED_WITH_THE_OBJECT else ""
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

    def _changed(self, plural: str, before: Document | None, document: Document, *, deleted: bool) -> None:
        self.log.append((plural, document, deleted))
        if self.watches.open:
            self.watches.tell(plural, before, document, deleted=deleted)

    def _written(self, method: str, plural: str, document: Document) -> None:
        """Note that a request changes an object."""
        del document
        self.writes.append(f"{method} {plural}")


@lru_cache(maxsize=256)
def _collection(resource: Resource[Any], namespace: str | None) -> None:
    """Refuse what is no namespace."""
    resource.path(namespace)


def decode(document: Document, kind: type[T]) -> T:
    """Return an object as the client reads it."""
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError:
        return codec.decode_object(codec.encode(document), kind)  # an odd one
