"""Loading of a cluster's address and credentials, from kubeconfigs and their plugins or from a service account.

Guarantees:

- An explicit file is used or refused, never silently replaced by another source.
- Several files are merged by kubectl's rules (`controller.kube.kubeconfig`). kubernetes-asyncio gets only the cluster
  and the user that a context selects (`controller.kube.contexts`).
- A reload reads the same context, cluster and user, by name, and refuses another server than at first.
- Every failure is a `CredentialsError` that names the source and what to do next.
"""

from __future__ import annotations

import base64
import hashlib
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

import msgspec
import yaml

from controller.kube import contexts, kubeconfig, library, plugin, proxy
from controller.kube.contexts import DEFAULT_NAMESPACE, Choice, Chosen
from controller.kube.errors import CredentialsError, OtherServerError, PluginError
from controller.kube.kubeconfig import Config, InvalidKubeconfigError, User

if TYPE_CHECKING:
    from kubernetes_asyncio.client import Configuration

_IN_CLUSTER = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
NOTHING_CHOSEN: Final = Choice()


@dataclass(frozen=True, slots=True)
class Source:
    """The source of credentials: a kubeconfig's path, or None for the pod's service account.

    `listed` says that the path is a list of paths, as in KUBECONFIG; `choice` holds the names selected in it.
    """

    kubeconfig: str | None
    listed: bool = False
    choice: Choice = NOTHING_CHOSEN

    def __str__(self) -> str:
        """Return the source's name for messages."""
        return self.kubeconfig or "the pod's service account"

    @property
    def paths(self) -> tuple[str, ...]:
        """The files, each once. A file of a list may be missing."""
        if self.kubeconfig is None:
            return ()
        if not self.listed:
            return (os.path.expanduser(self.kubeconfig),)  # noqa: PTH111 - a string, as in a list
        return tuple(dict.fromkeys(filter(None, self.kubeconfig.split(os.pathsep))))


@dataclass(frozen=True, slots=True)
class Credentials:
    """The library's configuration, the extra headers of every request, and the source for a reload."""

    configuration: Configuration
    source: Source
    headers: tuple[tuple[str, str], ...] = ()
    certificate: bytes = b""
    """A digest of the client certificate and its key; empty without a certificate."""


def find(explicit: str | None, choice: Choice = NOTHING_CHOSEN) -> Source:
    """Return the source that kubectl would use: the flag, KUBECONFIG, ~/.kube/config, then the service account.

    Raises CredentialsError if there is no source.
    """
    if explicit:
        return Source(explicit, choice=choice)
    if from_environment := os.environ.get("KUBECONFIG"):
        return Source(from_environment, listed=True, choice=choice)
    home = home_config()
    if home.is_file():
        return Source(str(home), choice=choice)
    if _IN_CLUSTER.is_file():
        return Source(None, choice=choice)
    raise CredentialsError(
        f"no cluster to talk to: neither --kubeconfig nor KUBECONFIG is set, {home} does not exist and this is no "
        "pod. Start a local one with `vmsim up` and use the export line it prints, or name a kubeconfig."
    )


def home_config() -> Path:
    """Return the path of kubectl's default kubeconfig."""
    return Path.home() / ".kube" / "config"


async def load(source: Source) -> Credentials:
    """Read the credentials; run exec plugins and token refreshes if the kubeconfig asks for them.

    Raises CredentialsError.
    """
    return await _loaded(source, _chosen(source))


async def load_anew(source: Source, server: str) -> Credentials:
    """Read the credentials again, for the server of this URL only; `source` is that of the first `Credentials`.

    Raises CredentialsError, and OtherServerError if the source names another server now.
    """
    chosen = _chosen(source)
    if chosen is not None and chosen.cluster.server.rstrip("/") != server:
        raise OtherServerError(
            f"cannot use {source}: its cluster {source.choice.cluster!r} was {proxy.shown(server)} at the start and is "
            f"{proxy.shown(chosen.cluster.server)} now; restart vmsim to use that one"
        )
    return await _loaded(source, chosen)


async def _loaded(source: Source, chosen: Chosen | None) -> Credentials:
    if chosen is not None and chosen.user.exec is not None:
        try:
            found = await plugin.run(chosen.user.exec, chosen.cluster, terminal=_at_a_terminal())
        except PluginError as error:
            raise PluginError(f"cannot use {source}: {error}") from error
        chosen = replace(chosen, user=_with_printed(chosen.user, found))
    kubernetes = library.load()
    config, configuration = kubernetes.config, kubernetes.configuration()
    try:
        if chosen is None:
            config.load_incluster_config(client_configuration=configuration)
        else:
            await config.load_kube_config_from_dict(_document(chosen), client_configuration=configuration)
        certificate = _digest(configuration)
    except Exception as error:  # kubernetes-asyncio validates little: a malformed file raises AttributeError and worse
        raise CredentialsError(f"cannot use {source}: {_reason(config, error)}") from error
    if chosen is None:
        return Credentials(configuration, source)
    again = replace(source, choice=chosen.names)
    return Credentials(configuration, again, contexts.headers(chosen), certificate)


def namespace(source: Source) -> str:
    """Return the default namespace of commands: the selected one, the context's, or the pod's own.

    Raises CredentialsError.
    """
    chosen = _chosen(source)
    if chosen is not None:
        return chosen.namespace
    if source.choice.namespace:
        return source.choice.namespace
    try:
        return _IN_CLUSTER.with_name("namespace").read_text().strip() or DEFAULT_NAMESPACE
    except OSError as error:
        raise CredentialsError(f"cannot use {source}: {error}") from error


def read(source: Source) -> Config:
    """Read and merge a source's files. Raises CredentialsError with the problem of each unusable file."""
    found: list[Config] = []
    wrong: list[str] = []
    for path in source.paths:
        try:
            config = kubeconfig.parse(Path(path).read_bytes())
        except FileNotFoundError:
            if not source.listed:
                raise CredentialsError(f"cannot use {path}: it does not exist") from None
        except OSError as error:
            wrong.append(f"cannot use {path}: {error.strerror or error}")
        except InvalidKubeconfigError as error:
            wrong.append(f"cannot use {path}: {error}")
        else:
            found.append(kubeconfig.resolved(config, str(Path(path).absolute().parent)))
    if wrong:
        raise CredentialsError("; ".join(wrong))
    if not found:
        raise CredentialsError(f"cannot use {source}: no file that KUBECONFIG names exists")
    return kubeconfig.merged(found)


def _chosen(source: Source) -> Chosen | None:
    """Return the cluster and user that the choice selects in a kubeconfig; None for the service account.

    Raises CredentialsError, also for a name selected in the service account, which has none.
    """
    choice = source.choice
    if source.kubeconfig is None:
        for flag, name in (("context", choice.context), ("cluster", choice.cluster), ("user", choice.user)):
            if name:
                raise CredentialsError(
                    f"there is no {flag} {name!r}: without --kubeconfig, KUBECONFIG and ~/.kube/config only the pod's "
                    "service account is available; name a kubeconfig"
                )
        return None
    try:
        return contexts.choose(read(source), choice)
    except InvalidKubeconfigError as error:
        raise CredentialsError(f"cannot use {source}: {error}") from error


def _document(chosen: Chosen) -> dict[str, Any]:
    """Return the kubeconfig for the library. A token file that is readable takes precedence over a token."""
    user = chosen.user
    if user.token and user.token_file and os.access(user.token_file, os.R_OK):
        chosen = replace(chosen, user=msgspec.structs.replace(user, token=""))
    return chosen.document()


def _with_printed(user: User, found: plugin.Printed) -> User:
    """Return the user with a plugin's credentials; as in client-go, the kubeconfig's certificate takes precedence."""
    user = msgspec.structs.replace(user, exec=None, token=found.token)
    if not found.certificate or user.client_certificate or user.client_certificate_data:
        return user
    certificate, key = (base64.b64encode(pem.encode()).decode() for pem in (found.certificate, found.key))
    return msgspec.structs.replace(user, client_certificate_data=certificate, client_key_data=key)


def _at_a_terminal() -> bool:
    try:
        return sys.stdin.isatty()
    except (AttributeError, ValueError):  # there is no standard input, or it was closed
        return False


def _digest(configuration: Configuration) -> bytes:
    """Return a digest of the client certificate and its key; empty if there is no certificate."""
    if not configuration.cert_file:
        return b""
    files = (configuration.cert_file, configuration.key_file or configuration.cert_file)
    return hashlib.sha256(b"".join(Path(file).read_bytes() for file in files)).digest()


def _reason(config: ModuleType, error: Exception) -> str:
    """Return the problem in one line, without Python's message for a malformed file, which would not explain it."""
    words = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, config.ConfigException | OSError | ValueError):
        return words
    return f"it is no valid kubeconfig: {words}" if isinstance(error, yaml.YAMLError) else "it is no valid kubeconfig"
