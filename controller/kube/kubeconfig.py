"""Parsing and merging of kubeconfigs, as kubectl does it.

Guarantees: client-go's rules (tools/clientcmd), without I/O. Of several files the first one with an entry of a name, or
with a current context, takes precedence; two entries of one name are never merged. A relative path is resolved against
the folder of its own file.
"""

from __future__ import annotations

import base64
import binascii
import os.path
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, TypeVar

import msgspec
import yaml


class InvalidKubeconfigError(Exception):
    """A kubeconfig, or what it selects, is invalid. The message names the entry."""


class Named(msgspec.Struct, frozen=True):
    """A named entry of the list `clusters`, `users` or `contexts`, with the one field of that list."""

    name: str = ""
    cluster: Cluster | None = None
    user: User | None = None
    context: Context | None = None


class Extension(msgspec.Struct, frozen=True, omit_defaults=True):
    """Additional data in a kubeconfig, such as the configuration of an exec credential plugin."""

    name: str = ""
    extension: Any = None


class Cluster(msgspec.Struct, frozen=True, omit_defaults=True, rename="kebab"):
    """The address of a cluster's API server, and how to connect to it."""

    server: str = ""
    tls_server_name: str = ""
    insecure_skip_tls_verify: bool = False
    certificate_authority: str = ""
    certificate_authority_data: str = ""
    proxy_url: str = ""
    disable_compression: bool = False
    extensions: tuple[Extension, ...] = ()


class Exec(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """An exec credential plugin: a program that prints credentials."""

    command: str = ""
    args: tuple[str, ...] = ()
    env: tuple[Mapping[str, str], ...] = ()
    api_version: str = ""
    install_hint: str = ""
    provide_cluster_info: bool = False
    interactive_mode: str = ""


class AuthProvider(msgspec.Struct, frozen=True, omit_defaults=True):
    """An auth provider, the predecessor of exec credential plugins."""

    name: str = ""
    config: Mapping[str, str] = msgspec.field(default_factory=dict)


class User(msgspec.Struct, frozen=True, omit_defaults=True, rename="kebab"):
    """A user's credentials, and the user to impersonate."""

    client_certificate: str = ""
    client_certificate_data: str = ""
    client_key: str = ""
    client_key_data: str = ""
    token: str = ""
    token_file: str = msgspec.field(default="", name="tokenFile")
    impersonate: str = msgspec.field(default="", name="as")
    impersonate_uid: str = msgspec.field(default="", name="as-uid")
    impersonate_groups: tuple[str, ...] = msgspec.field(default=(), name="as-groups")
    impersonate_extra: Mapping[str, tuple[str, ...]] = msgspec.field(default_factory=dict, name="as-user-extra")
    username: str = ""
    password: str = ""
    auth_provider: AuthProvider | None = None
    exec: Exec | None = None


class Context(msgspec.Struct, frozen=True, omit_defaults=True):
    """A combination of a cluster, a user and a namespace."""

    cluster: str = ""
    user: str = ""
    namespace: str = ""


class _File(msgspec.Struct, frozen=True, rename="kebab"):
    kind: str = ""
    api_version: str = msgspec.field(default="", name="apiVersion")
    clusters: tuple[Named, ...] = ()
    users: tuple[Named, ...] = ()
    contexts: tuple[Named, ...] = ()
    current_context: str = ""


@dataclass(frozen=True, slots=True)
class Config:
    """The contents of one kubeconfig, or of several merged."""

    clusters: Mapping[str, Cluster] = field(default_factory=lambda: MappingProxyType({}))
    users: Mapping[str, User] = field(default_factory=lambda: MappingProxyType({}))
    contexts: Mapping[str, Context] = field(default_factory=lambda: MappingProxyType({}))
    current_context: str = ""


# --- one file --------------------------------------------------------------------------------------------------------


class _Loader(yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader):  # type: ignore[misc]
    """Resolves plain scalars as Go's YAML does: dates and 12:30 are strings, 1e3 is a number, `n` is a bool."""

    bool_values: ClassVar = {**yaml.SafeLoader.bool_values, "y": True, "n": False}


_TIMESTAMP, _INT, _FLOAT, _BOOL = (f"tag:yaml.org,2002:{name}" for name in ("timestamp", "int", "float", "bool"))
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in (_TIMESTAMP, _INT, _FLOAT)]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_BOOL, re.compile(r"^[yYnN]$"), list("yYnN"))
_Loader.add_implicit_resolver(
    _FLOAT,
    re.compile(
        r"^[-+]?(0[xX][0-9a-fA-F_]+|0[oO]?[0-7_]+|0[bB][01_]+|(\.[0-9]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?)$"
    ),
    list("-+.0123456789"),
)


def _number(_: yaml.SafeLoader, node: yaml.ScalarNode) -> int | float:
    """Return a number. Only fields of an extension may be numbers."""
    text = node.value.replace("_", "")
    for read in (lambda word: int(word, 0), lambda word: int(word, 8), int, float):
        with suppress(ValueError):
            return read(text)
    return 0


_Loader.add_constructor(_FLOAT, _number)


def parse(data: bytes) -> Config:
    """Parse the first YAML document of a file; an empty file yields an empty Config. Raises InvalidKubeconfigError."""
    try:
        document = _without_null(_first_document(data))
    except RecursionError as error:  # an alias may contain itself
        raise InvalidKubeconfigError("it is nested too deeply") from error
    except Exception as error:  # PyYAML raises ValueError, LookupError and AttributeError for values of a wrong form
        raise InvalidKubeconfigError(f"it is no YAML: {' '.join(str(error).split())}") from error
    if document is None:
        return Config()
    try:
        file = msgspec.convert(document, _File)
    except msgspec.ValidationError as error:
        raise InvalidKubeconfigError(f"it is no valid kubeconfig: {error}") from error
    if file.kind not in ("", "Config") or file.api_version not in ("", "v1"):
        raise InvalidKubeconfigError(
            f"it is no kubeconfig but {file.kind or 'Config'} of {file.api_version or 'v1'}; want Config of v1"
        )
    config = Config(
        clusters=_by_name("clusters", ((named.name, named.cluster or Cluster()) for named in file.clusters)),
        users=_by_name("users", ((named.name, named.user or User()) for named in file.users)),
        contexts=_by_name("contexts", ((named.name, named.context or Context()) for named in file.contexts)),
        current_context=file.current_context,
    )
    for name, cluster in config.clusters.items():
        _check_base64(f"cluster {name}", certificate_authority_data=cluster.certificate_authority_data)
    for name, user in config.users.items():
        _check_base64(
            f"user {name}", client_certificate_data=user.client_certificate_data, client_key_data=user.client_key_data
        )
    return config


def _first_document(data: bytes) -> Any:
    loader = _Loader(data)
    try:
        return loader.get_data() if loader.check_data() else None
    finally:
        loader.dispose()


def _without_null(value: Any) -> Any:
    """Return a value without the null fields of its maps; a null element of a list becomes an empty map."""
    if isinstance(value, dict):
        return {key: _without_null(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [{} if item is None else _without_null(item) for item in value]
    return value


T = TypeVar("T")


def _by_name(what: str, entries: Iterable[tuple[str, T]]) -> Mapping[str, T]:
    found: dict[str, T] = {}
    for name, entry in entries:
        if name in found:
            raise InvalidKubeconfigError(f"it is no valid kubeconfig: {name!r} is twice among its {what}")
        found[name] = entry
    return MappingProxyType(found)


def _check_base64(where: str, **values: str) -> None:
    for name, text in values.items():
        try:
            base64.b64decode(text.replace("\r", "").replace("\n", ""), validate=True)
        except (binascii.Error, ValueError) as error:
            what = name.replace("_", "-")
            raise InvalidKubeconfigError(
                f"it is no valid kubeconfig: {what} of {where} is no base64: {error}"
            ) from error


# --- several files ---------------------------------------------------------------------------------------------------


def resolved(config: Config, folder: str) -> Config:
    """Return the configuration of a file in `folder`, with its relative paths made absolute."""

    def absolute(path: str) -> str:
        return os.path.normpath(os.path.join(folder, path)) if path else ""  # noqa: PTH118 - kubeconfigs hold strings

    def program(plugin: Exec | None) -> Exec | None:
        # A command without a slash is looked up on PATH.
        if plugin is None or os.path.sep not in plugin.command:
            return plugin
        return msgspec.structs.replace(plugin, command=absolute(plugin.command))

    return Config(
        clusters={
            name: msgspec.structs.replace(cluster, certificate_authority=absolute(cluster.certificate_authority))
            for name, cluster in config.clusters.items()
        },
        users={
            name: msgspec.structs.replace(
                user,
                client_certificate=absolute(user.client_certificate),
                client_key=absolute(user.client_key),
                token_file=absolute(user.token_file),
                exec=program(user.exec),
            )
            for name, user in config.users.items()
        },
        contexts=config.contexts,
        current_context=config.current_context,
    )


def merged(configs: Iterable[Config]) -> Config:
    """Merge configurations: the first entry of a name, and the first current context, takes precedence."""
    clusters: dict[str, Cluster] = {}
    users: dict[str, User] = {}
    contexts: dict[str, Context] = {}
    current = ""
    for config in configs:
        clusters = {**config.clusters, **clusters}
        users = {**config.users, **users}
        contexts = {**config.contexts, **contexts}
        current = current or config.current_context
    return Config(clusters, users, contexts, current)
