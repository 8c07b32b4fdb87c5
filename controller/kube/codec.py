"""JSON to values and back.

Guarantees: a body that does not decode is a `MalformedReplyError`, never a crash or a None; decoders are built
once per type.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
import structlog

from controller.domain.objects import Value
from controller.kube import errors

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


def _decoder(kind: type[T]) -> msgspec.json.Decoder[T]:
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.json.Decoder(kind)
    return decoder


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
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        start = bytes(data)[:80].decode(errors="replace")
        raise errors.MalformedReplyError(f"expected {kind.__name__}, got {start!r}: {error}") from error


def decode_list(data: bytes, kind: type[T]) -> tuple[ListMeta, list[T]]:
    """Decode one page of a list; an item that does not decode is left out and logged.

    Raises MalformedReplyError for what is no list.
    """
    envelope = decode(data, _ListEnvelope)
    if not envelope.metadata.resource_version:
        raise errors.MalformedReplyError("a list without metadata.resourceVersion")
    items: list[T] = []
    for raw in envelope.items or ():
        try:
            items.append(decode(raw, kind))
        except errors.MalformedReplyError as error:
            _log.error("an object is left out", error=str(error))
    return envelope.metadata, items


def decode_status(data: bytes) -> Status:
    """Decode an error's body; one that is no Status (HTML, empty) yields its first words as the message."""
    try:
        return _decoder(Status).decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Status(message=data[:120].decode(errors="replace").strip() or "no message")
