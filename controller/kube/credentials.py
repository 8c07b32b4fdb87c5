"""Where the cluster is and who we are there: kubeconfig or in-cluster, through kubernetes-asyncio.

Guarantees: an explicit file is used or refused, never silently replaced by another source; every failure is a
`CredentialsError` that names the source tried and what to do next.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import yaml

from controller.kube import library
from controller.kube.errors import CredentialsError

if TYPE_CHECKING:
    from kubernetes_asyncio.client import Configuration

_IN_CLUSTER = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
_DEFAULT_NAMESPACE = "default"


@dataclass(frozen=True, slots=True)
class Source:
    """Where credentials come from: a kubeconfig's path, or None for the pod's service account."""

    kubeconfig: str | None

    def __str__(self) -> str:
        """Name the source for a person."""
        return self.kubeconfig or "the pod's service account"


def find(explicit: str | None) -> Source:
    """Choose the source as kubectl does: flag, KUBECONFIG, ~/.kube/config, then the service account.

    Raises CredentialsError if there is none.
    """
    if explicit:
        return Source(explicit)
    if from_environment := os.environ.get("KUBECONFIG"):
        return Source(from_environment)
    home = Path.home() / ".kube" / "config"
    if home.is_file():
        return Source(str(home))
    if _IN_CLUSTER.is_file():
        return Source(None)
    raise CredentialsError(
        f"no cluster to talk to: neither --kubeconfig nor KUBECONFIG is set, {home} does not exist and this is no "
        "pod. Start a local one with `make up` and use the export line it prints, or name a kubeconfig."
    )


async def load(source: Source) -> Configuration:
    """Read the credentials; run exec plugins and token refreshes if the kubeconfig asks for them.

    Raises CredentialsError.
    """
    if source.kubeconfig is not None and not _exists(source.kubeconfig):
        raise CredentialsError(f"cannot use {source}: it does not exist")
    kubernetes = library.load()
    config, configuration = kubernetes.config, kubernetes.configuration()
    try:
        if source.kubeconfig is None:
            config.load_incluster_config(client_configuration=configuration)
        else:
            await config.load_kube_config(
                config_file=source.kubeconfig, client_configuration=configuration, persist_config=False
            )
    except Exception as error:  # kubernetes-asyncio checks little: an odd file raises AttributeError and worse
        raise CredentialsError(f"cannot use {source}: {_reason(config, error)}") from error
    return configuration


def namespace(source: Source) -> str:
    """Return the namespace that commands without one mean: the current context's, or the pod's own.

    Raises CredentialsError.
    """
    config = library.load().config
    try:
        if source.kubeconfig is None:
            return _IN_CLUSTER.with_name("namespace").read_text().strip() or _DEFAULT_NAMESPACE
        _, context = config.list_kube_config_contexts(source.kubeconfig)
        return str((context or {}).get("context", {}).get("namespace") or _DEFAULT_NAMESPACE)
    except Exception as error:  # as in load
        raise CredentialsError(f"cannot use {source}: {_reason(config, error)}") from error


def _reason(config: ModuleType, error: Exception) -> str:
    """Say what is wrong in one line; Python's own words for a file of the wrong shape would tell nobody anything."""
    words = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, config.ConfigException | OSError | ValueError):
        return words
    return f"it is no valid kubeconfig: {words}" if isinstance(error, yaml.YAMLError) else "it is no valid kubeconfig"


def _exists(paths: str) -> bool:
    """Whether any file of the list exists; KUBECONFIG may name several, of which some may be missing."""
    return any(Path(path).expanduser().exists() for path in paths.split(os.pathsep) if path)
