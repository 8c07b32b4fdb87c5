"""The admission webhooks and admission policies that may see an object when it is created.

Guarantees: no configuration that may match is missed: selectors, match conditions and versions are ignored, so the
answer errs to yes; a configuration that may not be read counts as a match, and is named.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from controller.engine.listing import everything
from controller.kube.errors import ForbiddenError, NotFoundError
from controller.kube.resources import Resource
from controller.operations.api import Api

Document: TypeAlias = dict[str, Any]

_GROUP: Final = "admissionregistration.k8s.io"
_VERSIONS: Final = ("v1", "v1beta1", "v1alpha1")
"""Newest first; MutatingAdmissionPolicy came to v1 late."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules for CREATE: group and resource, each `*` for any, and scope: `Cluster`, `Namespaced` or `*`.

    `unread` names the resources that may not be read.
    """

    rules: frozenset[tuple[str, str, str]]
    unread: tuple[str, ...] = ()

    def watch(self, group: str, plural: str, *, namespaced: bool) -> bool:
        """Whether a webhook or policy may match the creation of such an object."""
        scope = "Namespaced" if namespaced else "Cluster"
        return bool(self.unread) or any(
            group_of in ("*", group) and resource in ("*", "*/*", plural) and scope_of in ("*", scope)
            for group_of, resource, scope_of in self.rules
        )


async def read(client: Api) -> Rules:
    """Read every webhook, and every policy that has a binding."""
    unread: list[str] = []
    found: set[tuple[str, str, str]] = set()
    for kind in ("validatingwebhookconfigurations", "mutatingwebhookconfigurations"):
        for configuration in await _listed(client, kind, unread):
            for webhook in _items(configuration, "webhooks"):
                found.update(_creations(webhook, "rules"))
    for kind in ("validatingadmissionpolic", "mutatingadmissionpolic"):
        bindings = await _listed(client, f"{kind}ybindings", unread)
        bound = {_part(binding, "spec").get("policyName") for binding in bindings}
        for policy in await _listed(client, f"{kind}ies", unread):
            if policy["metadata"].get("name") in bound:
                found.update(_creations(_part(_part(policy, "spec"), "matchConstraints"), "resourceRules"))
    return Rules(frozenset(found), tuple(unread))


async def _listed(client: Api, plural: str, unread: list[str]) -> list[Document]:
    """List a resource in the newest version that is served; add it to `unread` if it may not be read."""
    for version in _VERSIONS:
        resource: Resource[Document] = Resource(_GROUP, version, plural, dict)
        try:
            return await everything(client, resource)
        except NotFoundError:
            continue
        except ForbiddenError:
            unread.append(plural)
            break
    return []


def _creations(document: Mapping[str, Any], name: str) -> Iterator[tuple[str, str, str]]:
    for rule in _items(document, name):
        if {"*", "CREATE"}.isdisjoint(rule.get("operations") or ()):
            continue
        for group in rule.get("apiGroups") or ():
            for resource in rule.get("resources") or ():
                yield group, resource, rule.get("scope") or "*"


def _part(document: Mapping[str, Any], name: str) -> Document:
    return document.get(name) or {}


def _items(document: Mapping[str, Any], name: str) -> list[Document]:
    return document.get(name) or []
