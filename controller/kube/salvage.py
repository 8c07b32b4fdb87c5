"""Field-by-field decoding of an object that does not decode as a whole.

Guarantees: every field that decodes has its value. A malformed field has its default; a malformed element of a list or
a map is left out. The object's field `unreadable`, if its type has one, names each of them with the reason. Metadata
must decode whole: with a part of it missing the object could be taken for another one.
"""

from __future__ import annotations

from types import NoneType, UnionType
from typing import Any, Final, TypeVar, Union, get_args, get_origin

import msgspec

T = TypeVar("T")

_METADATA: Final = "metadata"
_UNREADABLE: Final = "unreadable"
_NOTHING: Final = object()


def salvaged(body: Any, kind: type[T]) -> T:
    """Return an object, decoded from its JSON value with defaults for the malformed fields.

    Raises msgspec.ValidationError if its metadata does not decode, or has no name.
    """
    if not isinstance(body, dict) or _METADATA not in _fields(kind):
        return msgspec.convert(body, kind)
    malformed: list[str] = []
    found = _struct(body, kind, "", malformed)
    if not found.metadata.name:
        raise msgspec.ValidationError("an object without a name")
    named = {_UNREADABLE: tuple(malformed)} if _UNREADABLE in _fields(kind) else {}
    whole: T = msgspec.structs.replace(found, **named)
    return whole


def _fields(kind: Any) -> dict[str, msgspec.structs.FieldInfo]:
    """Return a struct's fields by their JSON names."""
    return {field.encode_name: field for field in msgspec.structs.fields(kind)}


def _struct(body: dict[str, Any], kind: type[Any], path: str, malformed: list[str]) -> Any:
    kept: dict[str, Any] = {}
    for name, field in _fields(kind).items():
        at = f"{path}.{name}" if path else name
        if at == _METADATA:
            kept[field.name] = msgspec.convert(body.get(name), field.type)
            continue
        value = _tried(body[name], field.type, at, malformed) if name in body else _NOTHING
        if value is not _NOTHING:
            kept[field.name] = value
        elif field.required:
            raise msgspec.ValidationError(f"`{name}` is missing or cannot be read")
    return kind(**kept)


def _read(value: Any, kind: Any, path: str, malformed: list[str]) -> Any:
    """Return a value decoded as a type, without its malformed parts. Raises ValidationError if no part decodes."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError:
        wanted = _without_none(kind)
        if isinstance(value, dict) and isinstance(wanted, type) and issubclass(wanted, msgspec.Struct):
            return _struct(value, wanted, path, malformed)
        if isinstance(value, list) and get_origin(wanted) is tuple:
            of = get_args(wanted)[0]
            items = [_tried(item, of, f"{path}[{at}]", malformed) for at, item in enumerate(value)]
            return tuple(item for item in items if item is not _NOTHING)
        if isinstance(value, dict) and get_origin(wanted) is dict:
            of = get_args(wanted)[1]
            pairs = {key: _tried(item, of, f"{path}.{key}", malformed) for key, item in value.items()}
            return {key: item for key, item in pairs.items() if item is not _NOTHING}
        raise


def _tried(value: Any, kind: Any, path: str, malformed: list[str]) -> Any:
    """Return a value decoded as by `_read`. If nothing decodes, note why in `malformed` and return `_NOTHING`."""
    try:
        return _read(value, kind, path, malformed)
    except msgspec.ValidationError as error:
        malformed.append(f"{path}: {error}")
        return _NOTHING


def _without_none(kind: Any) -> Any:
    """Return X for the type `X | None`, and any other type unchanged."""
    if get_origin(kind) not in (Union, UnionType):
        return kind
    arms = [arm for arm in get_args(kind) if arm is not NoneType]
    return arms[0] if len(arms) == 1 else kind
