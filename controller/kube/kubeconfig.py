"""Kubeconfigs as kubectl reads them: what a file may say, how several become one, and what a context chooses of it.

Guarantees: client-go's rules (tools/clientcmd), without I/O. Of several files the first that has an entry of a name, or
sets the current context, wins; entries are never mixed. A relative path belongs to the folder of its own file. What
proves who we are is for servers with TLS alone: it is not even looked at for others. Else nothing that says who we are
is passed over: what cannot be heeded is refused.
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
from typing import Any, ClassVar, Final, TypeVar

import msgspec
import yaml

DEFAULT_NAMESPACE: Final = "default"
_EXTERNAL_PROVIDERS: Final = ("gcp", "oidc")
_MODES: Final = ("Never", "IfAvailable", "Always")
_MODE_IS_REQUIRED: Final = "client.authentication.k8s.io/v1"
LINE_BREAK: Final = re.compile(r"[\r\n\0]")


class InvalidKubeconfigError(Exception):
    """What a kubeconfig says cannot be used."""


class Named(msgspec.Struct, frozen=True):
    """An entry of a list; which of the three it holds depends on the list."""

    name: str = ""
    cluster: Cluster | None = None
    user: User | None = None
    context: Context | None = None


class Extension(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a kubeconfig has for somebody else: for credential plugins, say."""

    name: str = ""
    extension: Any = None


class Cluster(msgspec.Struct, frozen=True, omit_defaults=True, rename="kebab"):
    """Where a cluster is."""

    server: str = ""
    tls_server_name: str = ""
    insecure_skip_tls_verify: bool = False
    certificate_authority: str = ""
    certificate_authority_data: str = ""
    proxy_url: str = ""
    disable_compression: bool = False
    extensions: tuple[Extension, ...] = ()


class Exec(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """A program that prints credentials."""

    command: str = ""
    args: tuple[str, ...] = ()
    env: tuple[Mapping[str, str], ...] = ()
    api_version: str = ""
    install_hint: str = ""
    provide_cluster_info: bool = False
    interactive_mode: str = ""


class AuthProvider(msgspec.Struct, frozen=True, omit_defaults=True):
    """What credentials were obtained with before there were plugins."""

    name: str = ""
    config: Mapping[str, str] = msgspec.field(default_factory=dict)


class User(msgspec.Struct, frozen=True, omit_defaults=True, rename="kebab"):
    """Who we are."""

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
    """A cluster, a user and a namespace under one name."""

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
    """What a file says, or several say together."""

    clusters: Mapping[str, Cluster] = field(default_factory=lambda: MappingProxyType({}))
    users: Mapping[str, User] = field(default_factory=lambda: MappingProxyType({}))
    contexts: Mapping[str, Context] = field(default_factory=lambda: MappingProxyType({}))
    current_context: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """What a person chose besides a kubeconfig, by name: kubectl's flags. None leaves it to the kubeconfig."""

    context: str | None = None
    cluster: str | None = None
    user: str | None = None
    namespace: str | None = None
    kept: bool = False
    """Whether it was all settled by an earlier reading: then None is nothing, and no flag is to blame."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """One cluster, as whom, and the namespace that commands without one mean."""

    cluster: Cluster
    user: User
    namespace: str
    names: Choice
    """What chooses the same again, whatever the current context is then."""

    def document(self) -> dict[str, Any]:
        """Return a kubeconfig that says this and nothing more."""
        cluster, user = (msgspec.json.decode(msgspec.json.encode(entry)) for entry in (self.cluster, self.user))
        return {
            "current-context": "chosen",
            "contexts": [{"name": "chosen", "context": {"cluster": "chosen", "user": "chosen"}}],
            "clusters": [{"name": "chosen", "cluster": cluster}],
            "users": [{"name": "chosen", "user": user}],
        }


# --- one file --------------------------------------------------------------------------------------------------------


class _Loader(yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader):  # type: ignore[misc]
    """Tells strings from other things as Go's YAML does: dates and 12:30 are strings, 1e3 is none, nor is `n`."""

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
    """Return a number; no field but those of an extension may be one."""
    text = node.value.replace("_", "")
    for read in (lambda word: int(word, 0), lambda word: int(word, 8), int, float):
        with suppress(ValueError):
            return read(text)
    return 0


_Loader.add_constructor(_FLOAT, _number)


def parse(data: bytes) -> Config:
    """Read a file: its first YAML document. One that is empty says nothing. Raises InvalidKubeconfigError."""
    try:
        document = _first_document(data)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: an impossible number
        raise InvalidKubeconfigError(f"it is no YAML: {' '.join(str(error).split())}") from error
    if document is None:
        return Config()
    try:
        file = msgspec.convert(_without_null(document), _File)
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
    """Take away what is null, which says nothing; an entry that is null is an empty one."""
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
    """Return what a file in this folder says, with the paths in it made absolute."""

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
    """Make one of several: the first to have an entry of a name, or to set the current context, wins."""
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


# --- one context -----------------------------------------------------------------------------------------------------


def choose(config: Config, choice: Choice) -> Chosen:
    """Return what a context stands for, as far as the choice does not say otherwise.

    Raises InvalidKubeconfigError for an entry that is not there, and one that cannot be used.
    """
    context_name, context = _context(config, choice)
    cluster_name = choice.cluster or context.cluster
    user_name = choice.user or ("" if choice.kept else context.user)
    named_by = f"context {context_name!r} names"
    if not cluster_name:
        raise InvalidKubeconfigError(_no_cluster(config, context_name))
    cluster = config.clusters.get(cluster_name)
    if cluster is None:
        who = _who("--cluster", choice) if choice.cluster else named_by
        raise InvalidKubeconfigError(_missing(f"{who} cluster {cluster_name!r}", config.clusters))
    user = config.users.get(user_name) if user_name else User()
    if user is None:
        who = _who("--user", choice) if choice.user else named_by
        raise InvalidKubeconfigError(_missing(f"{who} user {user_name!r}", config.users))
    problems = [*_cluster_problems(cluster_name, cluster), *_user_problems(user_name, user)]
    if problems:
        raise InvalidKubeconfigError("; ".join(problems))
    server = _server(cluster.server)
    return Chosen(
        cluster=msgspec.structs.replace(cluster, server=server),
        user=_as_heeded(user) if server.startswith("https://") else _unproven(user),
        namespace=choice.namespace or context.namespace or DEFAULT_NAMESPACE,
        names=Choice(context_name or None, cluster_name, user_name or None, choice.namespace, kept=True),
    )


def _context(config: Config, choice: Choice) -> tuple[str, Context]:
    name = choice.context or ("" if choice.kept else config.current_context)
    context = config.contexts.get(name)
    if context is not None:
        return name, context
    if name:
        who = _who("--context", choice) if choice.context else "current-context names"
        raise InvalidKubeconfigError(_missing(f"{who} context {name!r}", config.contexts))
    return "", Context()


def _who(flag: str, choice: Choice) -> str:
    return "what was chosen at the start names" if choice.kept else f"{flag} names"


def _no_cluster(config: Config, context_name: str) -> str:
    if context_name:
        return f"context {context_name!r} names no cluster"
    there = f"; there are {', '.join(sorted(config.contexts))}" if config.contexts else ", and there is none in it"
    return f"it chooses no context{there}: run kubectl config use-context, or name one by --context"


def _missing(what: str, there: Iterable[str]) -> str:
    names = ", ".join(sorted(there))
    return f"{what}, which is not there; {f'there are {names}' if names else 'there is none'}"


def _cluster_problems(name: str, cluster: Cluster) -> Iterable[str]:
    """Say what client-go refuses, too."""
    if not cluster.server:
        yield f"cluster {name!r} has no server"
    if cluster.certificate_authority and cluster.certificate_authority_data:
        yield f"cluster {name!r} has both certificate-authority and certificate-authority-data"
    if cluster.insecure_skip_tls_verify and (cluster.certificate_authority or cluster.certificate_authority_data):
        yield f"cluster {name!r} has both a certificate-authority and insecure-skip-tls-verify"


def _user_problems(name: str, user: User) -> Iterable[str]:
    """Say what client-go refuses, too, and what would make somebody else of us."""
    if user.token and (user.username or user.password):
        yield f"user {name!r} has both a token and a password"
    if (user.impersonate_uid or user.impersonate_groups or user.impersonate_extra) and not user.impersonate:
        yield f"user {name!r} has as-uid, as-groups or as-user-extra without as"
    extra = (value for values in user.impersonate_extra.values() for value in values)
    spoken = (user.token.strip(), user.impersonate, user.impersonate_uid, *user.impersonate_groups, *extra)
    if any(LINE_BREAK.search(text) for text in spoken):
        yield f"user {name!r} has a token, or a name to act as, with a line break in it"
    yield from _certificate_problems(name, user)
    yield from _plugin_problems(name, user)


def _certificate_problems(name: str, user: User) -> Iterable[str]:
    if not (user.client_certificate or user.client_certificate_data):
        return
    if user.client_certificate and user.client_certificate_data:
        yield f"user {name!r} has both client-certificate and client-certificate-data"
    if user.client_key and user.client_key_data:
        yield f"user {name!r} has both client-key and client-key-data"
    if not (user.client_key or user.client_key_data):
        yield f"user {name!r} has a client certificate without a client key"


def _plugin_problems(name: str, user: User) -> Iterable[str]:
    if user.exec is not None:
        if user.auth_provider is not None:
            yield f"user {name!r} has both auth-provider and exec"
        if not user.exec.command:
            yield f"user {name!r} has an exec without a command"
        if not user.exec.api_version:
            yield f"user {name!r} has an exec without an apiVersion"
        if not all(variable.get("name") for variable in user.exec.env):
            yield f"user {name!r} has an exec with a variable without a name in its env"
        wanted = _MODES if user.exec.api_version == _MODE_IS_REQUIRED else ("", *_MODES)
        if user.exec.interactive_mode not in wanted:
            mode = user.exec.interactive_mode or "none"
            yield f"user {name!r} has an exec of interactiveMode {mode}; want {', '.join(_MODES)}"
    if user.auth_provider is not None and user.auth_provider.name not in _EXTERNAL_PROVIDERS:
        yield (
            f"user {name!r} has the auth-provider {user.auth_provider.name!r}, which Kubernetes has removed: "
            "have the kubeconfig written anew, with an exec plugin"
        )


def _server(server: str) -> str:
    """Return a server's URL, its scheme in lower case; one without a scheme is meant as HTTP."""
    scheme, slashes, rest = server.partition("://")
    return f"{scheme.lower()}{slashes}{rest}" if slashes else f"http://{server}"


def _as_heeded(user: User) -> User:
    """Leave the plugin out where there is a token, which comes first."""
    return msgspec.structs.replace(user, exec=None) if user.token or user.token_file else user


def _unproven(user: User) -> User:
    """Leave out whatever others on the way to a server without TLS could take: all but whom we want to act as."""
    return User(
        impersonate=user.impersonate,
        impersonate_uid=user.impersonate_uid,
        impersonate_groups=user.impersonate_groups,
        impersonate_extra=user.impersonate_extra,
    )


# --- headers ---------------------------------------------------------------------------------------------------------

_KEY_CHARACTERS: Final = frozenset(b"!#$&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")


def headers(chosen: Chosen) -> tuple[tuple[str, str], ...]:
    """Return what every request says besides who we are: as whom we want to act, and that nothing be compressed."""
    user = chosen.user
    found: list[tuple[str, str]] = []
    if user.impersonate:
        found.append(("Impersonate-User", user.impersonate))
        if user.impersonate_uid:
            found.append(("Impersonate-Uid", user.impersonate_uid))
        found += (("Impersonate-Group", group) for group in user.impersonate_groups)
        found += (
            (f"Impersonate-Extra-{_key(name)}", value)
            for name, values in user.impersonate_extra.items()
            for value in values
        )
    if chosen.cluster.disable_compression:
        found.append(("Accept-Encoding", "identity"))
    return tuple(found)


def _key(name: str) -> str:
    """Write a name as part of a header's."""
    return "".join(chr(byte) if byte in _KEY_CHARACTERS else f"%{byte:02X}" for byte in name.encode())
