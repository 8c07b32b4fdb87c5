"""Which cluster a command means, where kubectl's rules leave it open or may surprise.

Guarantees: what a person names (`--kubeconfig`, $VMSIM_KUBECONFIG, $KUBECONFIG) is used without a word. A local
control plane that runs below the current folder is used where there is no other cluster, and named where ~/.kube/config
comes before it, in one line each. Nothing that lies in a folder makes us run a program or leave this machine.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from controller.cli.connection import Connection
from controller.cli.local import STATE
from controller.kube import contexts, credentials
from controller.kube.contexts import Chosen
from controller.kube.errors import CredentialsError
from controller.kube.kubeconfig import InvalidKubeconfigError

_PATIENCE = 0.5
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def find(connection: Connection, say: Callable[[str], object]) -> str | None:
    """Return the kubeconfig that a command is to use; None leaves it to kubectl's rules.

    `say` is told, if a person may not expect what is used.
    """
    try:
        source = credentials.find(connection.kubeconfig, connection.choice)
    except CredentialsError:
        if (plane := running_plane(STATE)) is not None:
            say(f"using the local control plane that runs in {STATE}")
            return str(plane)
        return connection.kubeconfig  # whoever reads the credentials says that there are none
    if source.kubeconfig == str(credentials.home_config()) and connection.kubeconfig is None:
        plane = running_plane(STATE)
        chosen = _chosen(source) if plane is not None else None
        if chosen is not None:
            where = f"cluster {chosen.names.cluster!r} ({chosen.cluster.server}) of {source}"
            say(f"using {where}; for the local control plane that runs in {STATE}: --kubeconfig {plane}")
    return connection.kubeconfig


def running_plane(state: Path) -> Path | None:
    """Return the kubeconfig of the control plane in a folder, if one answers there."""
    path = state / "kubeconfig"
    if not path.is_file() or (chosen := _chosen(credentials.Source(str(path)))) is None:
        return None
    server = urlsplit(chosen.cluster.server)
    if server.hostname not in _LOOPBACK or chosen.user.exec is not None or chosen.user.auth_provider is not None:
        return None
    with suppress(OSError), socket.create_connection((server.hostname, server.port or 443), _PATIENCE):
        return path
    return None


def _chosen(source: credentials.Source) -> Chosen | None:
    try:
        return contexts.choose(credentials.read(source), source.choice)
    except (CredentialsError, InvalidKubeconfigError):
        return None
