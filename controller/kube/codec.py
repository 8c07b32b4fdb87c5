"""JSON to values and back.

Guarantees: a body that does not decode is a `MalformedReplyError`, never a crash or a None; decoders are built
once per type. An object whose metadata decodes is served whatever stands in its other fields: what does not decode is
replaced by its default, field by field (`controller.kube.salvage`).
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
    """metav1.ListMeta: the state the list shows, and where its next page is."""

    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class _ListEnvelope(Value, frozen=True):
    metadata: ListMeta
    items: tuple[msgspec.Raw, ...] | None = None


class WatchEnvelope(Value, frozen=True):
    """One line of a watch, its object still raw: what it is depends on the type."""

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
"""What decoding raises; the last for what is nested too deeply."""


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
    """Return the merge patch that makes an object exactly `wanted`: what it lacks is null."""
    # The class's own attributes: msgspec.structs.fields evaluates every annotation anew.
    names = zip(wanted.__struct_fields__, wanted.__struct_encode_fields__, strict=True)
    return {encoded: msgspec.to_builtins(getattr(wanted, name)) for name, encoded in names}


def decode(data: bytes | memoryview | msgspec.Raw, kind: type[T]) -> T:
    """Decode one object. Raises MalformedReplyError."""
    try:
        return _decoder(kind).decode(data)
    except _MALFORMED as error:
        raise _malformed(data, kind, error) from error


def decode_object(data: bytes | memoryview | msgspec.Raw, kind: type[T]) -> T:
    """Decode one object of the API, with the defaults of the fields that do not decode.

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
    """What could be read of an object that does not decode; empty where even that could not."""

    namespace: str
    name: str
    uid: str


def identity(data: bytes | memoryview | msgspec.Raw) -> Identity:
    """Say which object it is that does not decode, as far as that can be read."""
    try:
        body = _anything.decode(data)
    except _MALFORMED:
        body = None
    found = body.get("metadata") if isinstance(body, dict) else None
    texts = (found.get(name) if isinstance(found, dict) else None for name in Identity._fields)
    return Identity(*(text if isinstance(text, str) else "" for text in texts))


def decode_list(data: bytes, kind: type[T]) -> tuple[ListMeta, list[T], int]:
    """Decode one page of a list: its metadata, its items, and how many of these were left out.

    Those are items whose metadata does not decode; they are logged. Raises MalformedReplyError for what is no list.
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
    """Decode an error's body; one that is no Status (HTML, empty) yields its first words as the message."""
    try:
        return _decoder(Status).decode(data)
    except _MALFORMED:
        return Status(message=data[:120].decode(errors="replace").strip() or "no message")
