"""What can be read of an object that does not decode as a whole.

Guarantees: every field that decodes is as it would be in an object without the odd ones; what does not decode has its
default, an element of a list or a map is left out; the object's `unreadable`, if its type has one, names each with the
reason. Metadata is all or nothing: by halves it would be another object's.
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
    """Return what can be read of an object's JSON value.

    Raises msgspec.ValidationError if its metadata cannot be, or is without a name.
    """
    if not isinstance(body, dict) or _METADATA not in _fields(kind):
        return msgspec.convert(body, kind)
    odd: list[str] = []
    found = _struct(body, kind, "", odd)
    if not found.metadata.name:
        raise msgspec.ValidationError("an object without a name")
    named = {_UNREADABLE: tuple(odd)} if _UNREADABLE in _fields(kind) else {}
    whole: T = msgspec.structs.replace(found, **named)
    return whole


def _fields(kind: Any) -> dict[str, msgspec.structs.FieldInfo]:
    """Return a struct's fields by their names on the wire."""
    return {field.encode_name: field for field in msgspec.structs.fields(kind)}


def _struct(body: dict[str, Any], kind: type[Any], path: str, odd: list[str]) -> Any:
    kept: dict[str, Any] = {}
    for name, field in _fields(kind).items():
        at = f"{path}.{name}" if path else name
        if at == _METADATA:
            kept[field.name] = msgspec.convert(body.get(name), field.type)
            continue
        value = _tried(body[name], field.type, at, odd) if name in body else _NOTHING
        if value is not _NOTHING:
            kept[field.name] = value
        elif field.required:
            raise msgspec.ValidationError(f"`{name}` is missing or cannot be read")
    return kind(**kept)


def _read(value: Any, kind: Any, path: str, odd: list[str]) -> Any:
    """Return a value as a type wants it, or what is left of it. Raises ValidationError if that is nothing."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError:
        wanted = _without_none(kind)
        if isinstance(value, dict) and isinstance(wanted, type) and issubclass(wanted, msgspec.Struct):
            return _struct(value, wanted, path, odd)
        if isinstance(value, list) and get_origin(wanted) is tuple:
            of = get_args(wanted)[0]
            items = [_tried(item, of, f"{path}[{at}]", odd) for at, item in enumerate(value)]
            return tuple(item for item in items if item is not _NOTHING)
        if isinstance(value, dict) and get_origin(wanted) is dict:
            of = get_args(wanted)[1]
            pairs = {key: _tried(item, of, f"{path}.{key}", odd) for key, item in value.items()}
            return {key: item for key, item in pairs.items() if item is not _NOTHING}
        raise


def _tried(value: Any, kind: Any, path: str, odd: list[str]) -> Any:
    """Return what can be read of a value; `_NOTHING`, noted as odd, if nothing can."""
    try:
        return _read(value, kind, path, odd)
    except msgspec.ValidationError as error:
        odd.append(f"{path}: {error}")
        return _NOTHING


def _without_none(kind: Any) -> Any:
    """Return the type of which `X | None` is the optional one."""
    if get_origin(kind) not in (Union, UnionType):
        return kind
    arms = [arm for arm in get_args(kind) if arm is not NoneType]
    return arms[0] if len(arms) == 1 else kind
