"""Encoding of requests to JSON, and decoding of replies to typed values.

Guarantees: a body that does not decode raises `MalformedReplyError`, never another error; decoders are built once per
type. An object whose metadata decodes is always returned: a field of it that does not decode gets its default
(`controller.kube.salvage`).
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple, TypeVar

import msgspec
import structlog

from controller.kube import errors, salvage
from controller.kube.meta import Value

T = TypeVar("T")

_log = structlog.get_logger(__name__)
_encoder = msgspec.json.Encoder()


class ListMeta(Value, frozen=True):
    """metav1.ListMeta: the list's resource version, and the token of its next page."""

    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class _ListEnvelope(Value, frozen=True):
    metadata: ListMeta
    items: tuple[msgspec.Raw, ...] | None = None


class WatchEnvelope(Value, frozen=True):
    """One event of a watch. The object is still raw JSON, as its type depends on the event's type."""

    type: str
    object: msgspec.Raw


class Status(Value, frozen=True):
    """metav1.Status, the body of every error."""

    code: int = 0
    reason: str = ""
    message: str = ""


_decoders: dict[Any, msgspec.json.Decoder[Any]] = {}
_anything: Final = msgspec.json.Decoder()
_MALFORMED: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises; RecursionError for JSON that is nested too deeply."""


def _decoder(kind: type[T]) -> msgspec.json.Decoder[T]:
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.json.Decoder(kind)
    return decoder


def _malformed(data: bytes | memoryview | msgspec.Raw, kind: type[Any], error: Exception) -> errors.MalformedReplyError:
    start = bytes(data)[:80].decode(errors="replace")
    return errors.MalformedReplyError(f"expected {kind.__name__}, got {start!r}: {error}")


def encode(body: Any) -> bytes:
    """Encode a request's body."""
    return _encoder.encode(body)


def merge_patch_of(wanted: msgspec.Struct) -> dict[str, Any]:
    """Return the merge patch that sets an object to exactly `wanted`: each field that is None becomes null."""
    # Not msgspec.structs.fields, which evaluates every annotation again.
    names = zip(wanted.__struct_fields__, wanted.__struct_encode_fields__, strict=True)
    return {encoded: msgspec.to_builtins(getattr(wanted, name)) for name, encoded in names}


def decode(data: bytes | memoryview | msgspec.Raw, kind: type[T]) -> T:
    """Decode one value. Raises MalformedReplyError."""
    try:
        return _decoder(kind).decode(data)
    except _MALFORMED as error:
        raise _malformed(data, kind, error) from error


def decode_object(data: bytes | memoryview | msgspec.Raw, kind: type[T]) -> T:
    """Decode one API object. A field that does not decode gets its default.

    Raises MalformedReplyError if its metadata does not decode either.
    """
    try:
        return _decoder(kind).decode(data)
    except _MALFORMED as error:
        try:
            return salvage.salvaged(_anything.decode(data), kind)
        except _MALFORMED:
            raise _malformed(data, kind, error) from error


class Identity(NamedTuple):
    """The identity of an object that does not decode; a part that cannot be read is empty."""

    namespace: str
    name: str
    uid: str


def identity(data: bytes | memoryview | msgspec.Raw) -> Identity:
    """Return the identity of an object that does not decode, as far as it can be read."""
    try:
        body = _anything.decode(data)
    except _MALFORMED:
        body = None
    found = body.get("metadata") if isinstance(body, dict) else None
    texts = (found.get(name) if isinstance(found, dict) else None for name in Identity._fields)
    return Identity(*(text if isinstance(text, str) else "" for text in texts))


def decode_list(data: bytes, kind: type[T]) -> tuple[ListMeta, list[T], int]:
    """Decode one page of a list: its metadata, its items, and the number of items left out.

    An item whose metadata does not decode is left out and logged. Raises MalformedReplyError if the body is no list.
    """
    envelope = decode(data, _ListEnvelope)
    if not envelope.metadata.resource_version:
        raise errors.MalformedReplyError("a list without metadata.resourceVersion")
    items: list[T] = []
    raws = envelope.items or ()
    for raw in raws:
        try:
            items.append(decode_object(raw, kind))
        except errors.MalformedReplyError as error:
            _log.error("an object is left out", error=str(error))
    return envelope.metadata, items, len(raws) - len(items)


def decode_status(data: bytes) -> Status:
    """Decode the body of an error. A body that is no Status (HTML, empty) yields a Status with its start as message."""
    try:
        return _decoder(Status).decode(data)
    except _MALFORMED:
        return Status(message=data[:120].decode(errors="replace").strip() or "no message")
