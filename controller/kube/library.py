"""kubernetes-asyncio's configuration, credentials and transport, without its models.

Guarantees: what `load` returns is the library's own code, unchanged. Its generated models and APIs, of which nothing is
used here and which take most of a second and about 48 MiB, stay unread. Whoever imports the library elsewhere in the
same process, before or after, gets all of it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from kubernetes_asyncio.client import ApiClient, Configuration

_ROOT: Final = "kubernetes_asyncio"
_UNREAD: Final = ("", ".client", ".client.models")
"""Packages whose own code does nothing but import the rest; their other modules are found in them as ever."""


@dataclass(frozen=True, slots=True)
class Library:
    """What is used of it."""

    api_client: type[ApiClient]
    configuration: type[Configuration]
    config: ModuleType


@cache
def load() -> Library:
    """Import what is used, the first time."""
    if _ROOT in sys.modules:
        return _import()
    with _unread_packages():
        return _import()


def _import() -> Library:
    client = import_module(f"{_ROOT}.client")
    for module, name in (("configuration", "Configuration"), ("api_client", "ApiClient")):
        # Where the package's own code was read this is so already.
        setattr(client, name, getattr(import_module(f"{_ROOT}.client.{module}"), name))
    return Library(client.ApiClient, client.Configuration, import_module(f"{_ROOT}.config"))


@contextmanager
def _unread_packages() -> Iterator[None]:
    """Have packages whose code was not read stand in for the library's, and then forget all that was imported."""
    spec = find_spec(_ROOT)
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    for name in _UNREAD:
        package = ModuleType(f"{_ROOT}{name}")
        package.__path__ = [str(Path(place, *name.split(".")[1:])) for place in places]
        sys.modules[package.__name__] = package
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name == _ROOT or name.startswith(f"{_ROOT}.")]:
            del sys.modules[name]
