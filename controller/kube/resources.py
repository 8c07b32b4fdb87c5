"""The API resources as typed constants: group, version, plural, and the type that an object decodes to.

Guarantees: a name is exactly one segment of a URL's path; a name that cannot be one raises InvalidNameError.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Generic, TypeVar
from urllib.parse import quote

from controller.kube.errors import InvalidNameError
from controller.kube.kinds import (
    ConfigMap,
    CustomResourceDefinition,
    Lease,
    Node,
    Pod,
    SubjectAccessReview,
    TokenReview,
)
from controller.kube.meta import ObjectOnly

T = TypeVar("T")

_NO_NAMES: Final = frozenset(("", ".", ".."))
_PLAIN: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")
"""Names that need no quoting in a URL: nearly all."""


@dataclass(frozen=True, slots=True)
class Resource(Generic[T]):
    """One resource of the API: group (empty for core), version, plural, and its decoded type."""

    group: str
    version: str
    plural: str
    type: type[T]

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """Return the URL path of a collection, an object or a subresource. Raises InvalidNameError."""
        parts = ["/apis", self.group, self.version] if self.group else ["/api", self.version]
        if namespace is not None:
            parts += ["namespaces", _segment(namespace)]
        parts.append(self.plural)
        parts += [_segment(part) for part in (name, subresource) if part is not None]
        return "/".join(parts)


def _segment(name: str) -> str:
    """Return a name as a path segment. The names refused here are invalid for every kind."""
    if _PLAIN.fullmatch(name):
        return name
    if name in _NO_NAMES or "/" in name or "%" in name:
        raise InvalidNameError(f"{name!r} cannot be a name: it must not be empty, . or .., nor contain / or %")
    return quote(name, safe="")


PODS = Resource("", "v1", "pods", Pod)
NODES = Resource("", "v1", "nodes", Node)
CONFIG_MAPS = Resource("", "v1", "configmaps", ConfigMap)
LEASES = Resource("coordination.k8s.io", "v1", "leases", Lease)
TOKEN_REVIEWS = Resource("authentication.k8s.io", "v1", "tokenreviews", TokenReview)
SUBJECT_ACCESS_REVIEWS = Resource("authorization.k8s.io", "v1", "subjectaccessreviews", SubjectAccessReview)
EVENTS = Resource("events.k8s.io", "v1", "events", ObjectOnly)
DEFINITIONS = Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions", CustomResourceDefinition)
