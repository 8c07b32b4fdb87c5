"""Selects the cluster of a command, and reports a selection that may surprise the user.

Guarantees: a kubeconfig that the user names (`--kubeconfig`, $VMSIM_KUBECONFIG, $KUBECONFIG) is used without a report.
A local control plane that runs below the current folder is used if there are no other credentials; if ~/.kube/config
takes precedence over it, both are named. Each report is one line. A kubeconfig that was only found in a folder never
runs a program, and never leads to another machine.
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

_CONNECT_DEADLINE = 0.5  # seconds
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def find(connection: Connection, report: Callable[[str], object]) -> str | None:
    """Return the kubeconfig for a command; None means kubectl's rules.

    `report` is called with one line if the selection may surprise the user.
    """
    try:
        source = credentials.find(connection.kubeconfig, connection.choice)
    except CredentialsError:
        if (plane := running_plane(STATE)) is not None:
            report(f"using the local control plane that runs in {STATE}")
            return str(plane)
        return connection.kubeconfig  # reading the credentials raises the error
    by_default = connection.kubeconfig is None and not source.listed
    if by_default and source.kubeconfig == str(credentials.home_config()):
        plane = running_plane(STATE)
        chosen = _chosen(source) if plane is not None else None
        if chosen is not None:
            where = f"cluster {chosen.names.cluster!r} ({chosen.cluster.server}) of {source}"
            report(f"using {where}; for the local control plane that runs in {STATE}: --kubeconfig {plane}")
    return connection.kubeconfig


def running_plane(state: Path) -> Path | None:
    """Return the kubeconfig of the control plane in a folder, if its address accepts connections; else None."""
    path = state / "kubeconfig"
    if not path.is_file() or (chosen := _chosen(credentials.Source(str(path)))) is None:
        return None
    if chosen.cluster.proxy_url or chosen.user.exec is not None or chosen.user.auth_provider is not None:
        return None
    with suppress(OSError, ValueError):  # ValueError: the server is not a valid URL
        server = urlsplit(chosen.cluster.server)
        if server.hostname in _LOOPBACK:
            with socket.create_connection((server.hostname, server.port or 443), _CONNECT_DEADLINE):
                return path
    return None


def _chosen(source: credentials.Source) -> Chosen | None:
    try:
        return contexts.choose(credentials.read(source), source.choice)
    except (CredentialsError, InvalidKubeconfigError):
        return None
