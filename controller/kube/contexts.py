"""Selection of a context in a kubeconfig: one cluster, one user and a namespace.

Guarantees: client-go's rules (tools/clientcmd), without I/O. Credentials are used only for servers with TLS, and are
left out for others. For a server with TLS an unusable credential raises an error; it is never skipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from controller.kube.kubeconfig import Cluster, Config, Context, InvalidKubeconfigError, User

DEFAULT_NAMESPACE: Final = "default"
_EXTERNAL_PROVIDERS: Final = ("gcp", "oidc")
_MODES: Final = ("Never", "IfAvailable", "Always")
_MODE_IS_REQUIRED: Final = "client.authentication.k8s.io/v1"
LINE_BREAK: Final = re.compile(r"[\r\n\0]")


@dataclass(frozen=True, slots=True)
class Choice:
    """The names given by kubectl's flags --context, --cluster, --user and --namespace; None: as the kubeconfig says."""

    context: str | None = None
    cluster: str | None = None
    user: str | None = None
    namespace: str | None = None
    retained: bool = False
    """Whether these are the names that an earlier load selected: then None selects nothing, and errors name no flag."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The selected cluster and user, and the default namespace of commands."""

    cluster: Cluster
    user: User
    namespace: str
    names: Choice
    """The names that select the same again, even if the current context has changed."""

    def document(self) -> dict[str, Any]:
        """Return a kubeconfig with only this cluster and user."""
        cluster, user = (msgspec.json.decode(msgspec.json.encode(entry)) for entry in (self.cluster, self.user))
        return {
            "current-context": "chosen",
            "contexts": [{"name": "chosen", "context": {"cluster": "chosen", "user": "chosen"}}],
            "clusters": [{"name": "chosen", "cluster": cluster}],
            "users": [{"name": "chosen", "user": user}],
        }


def choose(config: Config, choice: Choice) -> Chosen:
    """Return the cluster, user and namespace of a context, each replaced by the choice's if that names one.

    Raises InvalidKubeconfigError for an entry that is missing or cannot be used.
    """
    context_name, context = _context(config, choice)
    cluster_name = choice.cluster or context.cluster
    user_name = choice.user or ("" if choice.retained else context.user)
    named_by = f"context {context_name!r} names"
    if not cluster_name:
        raise InvalidKubeconfigError(_no_cluster(config, context_name))
    cluster = config.clusters.get(cluster_name)
    if cluster is None:
        source = _source("--cluster", choice) if choice.cluster else named_by
        raise InvalidKubeconfigError(_missing(f"{source} cluster {cluster_name!r}", config.clusters))
    user = config.users.get(user_name) if user_name else User()
    if user is None:
        source = _source("--user", choice) if choice.user else named_by
        raise InvalidKubeconfigError(_missing(f"{source} user {user_name!r}", config.users))
    problems = [*_cluster_problems(cluster_name, cluster), *_user_problems(user_name, user)]
    if problems:
        raise InvalidKubeconfigError("; ".join(problems))
    server = _server(cluster.server)
    return Chosen(
        cluster=msgspec.structs.replace(cluster, server=server),
        user=_effective(user) if server.startswith("https://") else _without_credentials(user),
        namespace=choice.namespace or context.namespace or DEFAULT_NAMESPACE,
        names=Choice(context_name or None, cluster_name, user_name or None, choice.namespace, retained=True),
    )


def _context(config: Config, choice: Choice) -> tuple[str, Context]:
    name = choice.context or ("" if choice.retained else config.current_context)
    context = config.contexts.get(name)
    if context is not None:
        return name, context
    if name:
        source = _source("--context", choice) if choice.context else "current-context names"
        raise InvalidKubeconfigError(_missing(f"{source} context {name!r}", config.contexts))
    return "", Context()


def _source(flag: str, choice: Choice) -> str:
    return "what was chosen at the start names" if choice.retained else f"{flag} names"


def _no_cluster(config: Config, context_name: str) -> str:
    if context_name:
        return f"context {context_name!r} names no cluster"
    there = f"; there are {', '.join(sorted(config.contexts))}" if config.contexts else ", and there is none in it"
    return f"it selects no context{there}: run kubectl config use-context, or pass --context"


def _missing(what: str, there: Iterable[str]) -> str:
    names = ", ".join(sorted(there))
    return f"{what}, which is not there; {f'there are {names}' if names else 'there is none'}"


def _cluster_problems(name: str, cluster: Cluster) -> Iterable[str]:
    """Yield the problems for which client-go, too, refuses a cluster."""
    if not cluster.server:
        yield f"cluster {name!r} has no server"
    if cluster.certificate_authority and cluster.certificate_authority_data:
        yield f"cluster {name!r} has both certificate-authority and certificate-authority-data"
    if cluster.insecure_skip_tls_verify and (cluster.certificate_authority or cluster.certificate_authority_data):
        yield f"cluster {name!r} has both a certificate-authority and insecure-skip-tls-verify"


def _user_problems(name: str, user: User) -> Iterable[str]:
    """Yield the problems for which client-go, too, refuses a user, and values that would forge a header."""
    if user.token and (user.username or user.password):
        yield f"user {name!r} has both a token and a password"
    if (user.impersonate_uid or user.impersonate_groups or user.impersonate_extra) and not user.impersonate:
        yield f"user {name!r} has as-uid, as-groups or as-user-extra without as"
    extra = (value for values in user.impersonate_extra.values() for value in values)
    in_headers = (user.token.strip(), user.impersonate, user.impersonate_uid, *user.impersonate_groups, *extra)
    if any(LINE_BREAK.search(text) for text in in_headers):
        yield f"user {name!r} has a token or an impersonated name with a line break in it"
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
            "generate the kubeconfig again, with an exec plugin"
        )


def _server(server: str) -> str:
    """Return a server's URL with its scheme in lower case; a URL without a scheme gets http."""
    scheme, slashes, rest = server.partition("://")
    return f"{scheme.lower()}{slashes}{rest}" if slashes else f"http://{server}"


def _effective(user: User) -> User:
    """Return the user without the plugin if there is a token, which takes precedence."""
    return msgspec.structs.replace(user, exec=None) if user.token or user.token_file else user


def _without_credentials(user: User) -> User:
    """Return the user without credentials, which a connection without TLS would expose: impersonation alone stays."""
    return User(
        impersonate=user.impersonate,
        impersonate_uid=user.impersonate_uid,
        impersonate_groups=user.impersonate_groups,
        impersonate_extra=user.impersonate_extra,
    )


# --- headers ---------------------------------------------------------------------------------------------------------

_KEY_CHARACTERS: Final = frozenset(b"!#$&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")


def headers(chosen: Chosen) -> tuple[tuple[str, str], ...]:
    """Return the headers of every request besides Authorization: impersonation, and Accept-Encoding if it is set."""
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
    """Return the key of an extra field, percent-encoded for a header's name as in client-go."""
    return "".join(chr(byte) if byte in _KEY_CHARACTERS else f"%{byte:02X}" for byte in name.encode())
