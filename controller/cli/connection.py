"""kubectl's connection flags (cluster, user, namespace, timeout), the same on every command, with kubectl's meanings.

Guarantees: a command that `connecting` decorates has all of them, and receives them as one checked value.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final

import typer

from controller.cli import flags
from controller.cli.parameters import replacing

if TYPE_CHECKING:
    from controller.kube.contexts import Choice

_NAME: Final = "connection"


@dataclass(frozen=True, slots=True)
class Connection:
    """The values of the connection flags; None for a flag that is not given."""

    kubeconfig: str | None = None
    context: str | None = None
    cluster: str | None = None
    user: str | None = None
    namespace: str | None = None
    request_timeout: float | None = None
    """The deadline of one request, in seconds; infinity means none."""

    @property
    def choice(self) -> Choice:
        """The context, cluster, user and namespace that the flags name."""
        from controller.kube.contexts import Choice  # noqa: PLC0415 - as in moving.py

        return Choice(self.context, self.cluster, self.user, self.namespace)


Kubeconfig = Annotated[
    str | None,
    typer.Option(
        envvar="VMSIM_KUBECONFIG",
        metavar="FILE",
        help="Kubeconfig with the credentials of the cluster.",
        show_default="$KUBECONFIG, ~/.kube/config, the pod's service account, the control plane that runs in .vmsim",
    ),
]
Context = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Kubeconfig context to use.", show_default="the current context"),
]
Cluster = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Kubeconfig cluster to use.", show_default="the context's"),
]
User = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Kubeconfig user to use.", show_default="the context's"),
]
RequestTimeout = Annotated[
    str | None,
    typer.Option(
        metavar="DURATION",
        help="Timeout of one request to the API server: 1s, 2m, or a number of seconds. 0: no timeout.",
        show_default="15s",
    ),
]


def connecting(
    *, namespace: str = "Namespace to use.", default: str = "the kubeconfig's"
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Replace a command's parameter `connection` by the flags; `namespace` and `default` describe -n in its help."""
    scope = Annotated[
        str | None, typer.Option("--namespace", "-n", metavar="NAME", help=namespace, show_default=default)
    ]
    options = {
        "namespace": scope,
        "kubeconfig": Kubeconfig,
        "context": Context,
        "cluster": Cluster,
        "user": User,
        "request_timeout": RequestTimeout,
    }
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for name, annotation in options.items()
    ]

    return replacing(_NAME, added, _connection)


def _connection(*, namespace: str | None, request_timeout: str | None, **names: str | None) -> Connection:
    return Connection(
        namespace=flags.namespace(namespace), request_timeout=flags.request_timeout(request_timeout), **names
    )
