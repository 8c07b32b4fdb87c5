"""The rules of an API server as pure functions: merges, generations, selectors, deletions.

Guarantees: each equals the real server's as far as the product depends on it (`tests.model.cases`); a document that is
passed in does not change.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, TypeAlias

from controller.domain.resources import MIGRATIONS, VIRTUAL_MACHINES
from controller.kube import errors
from controller.kube.resources import NODES, PODS

Document: TypeAlias = dict[str, Any]

OURS: Final = frozenset((VIRTUAL_MACHINES.plural, MIGRATIONS.plural))
BORN_PENDING: Final = OURS | {PODS.plural}
"""Resources whose status starts as Pending, whatever the body of the create; others keep the body's."""
WITH_STATUS: Final = BORN_PENDING | {NODES.plural}
"""Resources whose status only a write of the subresource changes."""
ANSWERED_WITH_THE_OBJECT: Final = frozenset((PODS.plural,))
"""Resources whose immediate deletion returns the object, and so its version; that of others returns only Success."""
_SERVER_OWNED: Final = ("uid", "resourceVersion", "creationTimestamp", "generation", "deletionTimestamp")
_NEW_NODE: Final = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}
_FINISHED: Final = ("Succeeded", "Failed")
_GRACE: Final = 30
"""The default grace period of a pod, in seconds."""


def key_of(document: Document) -> str:
    """Return `namespace/name`; the namespace of a node is empty."""
    metadata = document["metadata"]
    return f"{metadata.get('namespace') or ''}/{metadata['name']}"


def created(plural: str, body: Mapping[str, Any], namespace: str | None, name: str) -> Document:
    """Return the object that a create makes of a body; UID and times are still missing. Raises InvalidError."""
    if body["metadata"].get("namespace") not in (None, "", namespace):
        raise errors.InvalidError(400, "BadRequest", "the namespace of the object is not that of the request")
    given = {field: value for field, value in body["metadata"].items() if field not in ("uid", "generateName")}
    document = {**body, "metadata": {**given, "name": name, "namespace": namespace or ""}}
    if plural in BORN_PENDING:
        document["status"] = {"phase": "Pending"}
    elif plural == NODES.plural:
        spec = body.get("spec", {})
        document["spec"] = {**spec, "taints": [*spec.get("taints", ()), _NEW_NODE]}
    return document


def known(body: Mapping[str, Any], unknown: Collection[str], *, strict: bool) -> Mapping[str, Any]:
    """Return a body without the fields of its spec that its CRD does not have. Raises InvalidError if `strict`."""
    spec = body.get("spec", {})
    found = [field for field in spec if field in unknown]
    if found and strict:
        words = ", ".join(f'unknown field "spec.{field}"' for field in found)
        raise errors.InvalidError(400, "BadRequest", f"{body.get('kind')} cannot be handled: strict decoding: {words}")
    return {**body, "spec": {field: value for field, value in spec.items() if field not in found}} if found else body


def check_guards(document: Document, uid: str | None, version: str | None, *, changing: bool = False) -> None:
    """Raise ConflictError if an object has not this UID and version.

    A patch with another UID would change it: with `changing` it raises InvalidError.
    """
    metadata = document["metadata"]
    if version not in (None, metadata["resourceVersion"]):
        raise errors.ConflictError(409, "Conflict", f"{metadata['name']}: the object has been modified")
    if uid not in (None, metadata["uid"]):
        if changing:
            raise errors.InvalidError(422, "Invalid", f"{metadata['name']}: metadata.uid: field is immutable")
        raise errors.ConflictError(409, "Conflict", f"{metadata['name']}: the UID is {metadata['uid']}, not {uid}")


def patched(plural: str, document: Document, body: Mapping[str, Any], subresource: str | None) -> Document:
    """Return the object after a merge patch; equal to the object if the patch changes nothing."""
    if subresource is not None:
        return merged(document, {part: value for part, value in body.items() if part == subresource})
    parts = {part: value for part, value in body.items() if part != "status" or plural not in WITH_STATUS}
    if "metadata" in parts:
        parts["metadata"] = {field: value for field, value in body["metadata"].items() if field not in _SERVER_OWNED}
    return merged(document, parts)


def merged(document: Document, patch: Mapping[str, Any]) -> Document:
    """Apply a merge patch (RFC 7386)."""
    result = dict(document)
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        elif isinstance(value, Mapping) and isinstance(result.get(name), dict):
            result[name] = merged(result[name], value)
        elif isinstance(value, Mapping):
            result[name] = merged({}, value)
        else:
            result[name] = value
    return result


def applying(before: Mapping[str, Any], body: Mapping[str, Any]) -> Document:
    """Return the merge patch that applies a body: fields that were applied before and are missing now are null."""
    patch: Document = dict.fromkeys(before.keys() - body.keys())
    for name, value in body.items():
        was = before.get(name)
        patch[name] = applying(was, value) if isinstance(value, Mapping) and isinstance(was, Mapping) else value
    return patch


def generation(before: Document | None, after: Document) -> int:
    """Return the generation, which counts new specs and the start of a deletion."""
    if before is None:
        return 1
    metadata = before["metadata"]
    deleted = "deletionTimestamp" in after["metadata"] and "deletionTimestamp" not in metadata
    return int(metadata["generation"]) + bool(before.get("spec") != after.get("spec")) + deleted


def grace_of(plural: str, document: Document, wanted: int | None) -> int:
    """Return the grace period of an object in seconds: 0, unless it is a pod that a kubelet has to end."""
    spec = document.get("spec")
    if plural != PODS.plural or not spec or not spec.get("nodeName"):
        return 0
    if document.get("status", {}).get("phase") in _FINISHED:
        return 0
    return int(spec.get("terminationGracePeriodSeconds", _GRACE)) if wanted is None else wanted


def deletion(plural: str, document: Document, wanted: int | None) -> int | None:
    """Return the grace period that a deletion gives an object from now on; None if it is deleted at once.

    If a terminating object keeps its grace period, nothing changes.
    """
    metadata = document["metadata"]
    blocked = bool(metadata.get("finalizers"))
    if "deletionTimestamp" in metadata:
        before = int(metadata.get("deletionGracePeriodSeconds") or 0)
        grace = min(before, before if wanted is None else wanted)
    else:
        grace = grace_of(plural, document, wanted)
    return grace if blocked or grace else None


def is_released(document: Document) -> bool:
    """Whether an object whose deletion has started has no finalizers and no grace period left."""
    metadata = document["metadata"]
    return (
        "deletionTimestamp" in metadata
        and not metadata.get("finalizers")
        and not metadata.get("deletionGracePeriodSeconds")
    )


# --- reviews -----------------------------------------------------------------------------------------------------


def token_status(_: Document) -> Document:
    """Return the status of a TokenReview: the token is invalid."""
    return {"user": {}, "error": "[invalid bearer token]"}


def access_status(_: Document) -> Document:
    """Return the status of a SubjectAccessReview: not allowed."""
    return {"allowed": False}


# --- selectors ---------------------------------------------------------------------------------------------------

Matches: TypeAlias = Callable[[Document], bool]


def selects(namespace: str | None, label_selector: str | None) -> Matches:
    """Return whether a list or a watch shows an object. Raises InvalidError for an invalid selector."""
    terms = [_term(text) for text in _split(label_selector or "")]
    if namespace is None and not terms:
        return lambda _: True

    def shown(document: Document) -> bool:
        metadata = document["metadata"]
        if namespace is not None and metadata["namespace"] != namespace:
            return False
        labels = metadata.get("labels") or {}
        return all(term(labels) for term in terms)

    return shown


def _split(selector: str) -> list[str]:
    """Split at the commas outside of parentheses."""
    parts, depth = [""], 0
    for character in selector:
        depth += (character == "(") - (character == ")")
        if character == "," and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts] if selector else []


def _term(text: str) -> Callable[[Mapping[str, str]], bool]:
    for operator, negative in ((" notin ", True), (" in ", False)):
        key, found, values = text.partition(operator)
        if found:
            among = {value.strip() for value in values.strip().removeprefix("(").removesuffix(")").split(",")}
            return lambda labels: (labels.get(key.strip()) in among) != negative
    for operator, negative in (("!=", True), ("==", False), ("=", False)):
        key, found, value = text.partition(operator)
        if found:
            _check_key(key)
            return lambda labels: (labels.get(key.strip()) == value.strip()) != negative
    key = text.removeprefix("!")
    _check_key(key)
    return lambda labels: (key in labels) != text.startswith("!")


def _check_key(key: str) -> None:
    if not key.strip() or any(character in " ()!=," for character in key.strip()):
        raise errors.InvalidError(400, "BadRequest", f"unable to parse requirement: {key!r}")
