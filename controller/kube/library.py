"""kubernetes-asyncio's configuration, credentials and transport, without its models.

Guarantees: `load` returns the library's own code, unchanged. It does not import the generated models and APIs, which
are not used here and cost most of a second and about 48 MiB. Any other import of the library in the same process,
before or after, gets the whole library.
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
"""Packages whose __init__ only imports the rest, and is skipped; their other modules are imported as usual."""


@dataclass(frozen=True, slots=True)
class Library:
    """The parts of the library that are used."""

    api_client: type[ApiClient]
    configuration: type[Configuration]
    config: ModuleType


@cache
def load() -> Library:
    """Import the used parts, once."""
    if _ROOT in sys.modules:
        return _import()
    with _unread_packages():
        return _import()


def _import() -> Library:
    client = import_module(f"{_ROOT}.client")
    for module, name in (("configuration", "Configuration"), ("api_client", "ApiClient")):
        # Only needed if the package's own __init__ was skipped.
        setattr(client, name, getattr(import_module(f"{_ROOT}.client.{module}"), name))
    return Library(client.ApiClient, client.Configuration, import_module(f"{_ROOT}.config"))


@contextmanager
def _unread_packages() -> Iterator[None]:
    """Put packages without their __init__ in place of the library's; at the end remove all its modules again."""
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
