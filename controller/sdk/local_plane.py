"""`local_plane`: a cluster with fake nodes and a controller on this machine, as a context manager.

Guarantees: VMs can be created inside the context; a control plane that was running keeps running after it, and one that
was stopped keeps its objects, except nodes that are not wanted. Linux and macOS.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from controller.kube import credentials
from controller.kube.errors import KubeError
from controller.operations.errors import SimulatorError, translated
from controller.operations.installing import install_on
from controller.sdk._background import background
from controller.sdk.errors import LocalPlaneError

_READY = 30.0


@dataclass(frozen=True, slots=True)
class LocalPlane:
    """A running cluster: the path of its kubeconfig, for every manager, and the URL of the controller's metrics."""

    kubeconfig: str
    metrics: str


@contextmanager
def local_plane(
    state: str | Path = ".vmsim", *, nodes: int = 3, cpu: str = "32", memory: str = "256Gi"
) -> Iterator[LocalPlane]:
    """Run a control plane with our resources, and a controller, until the context exits.

    All files are in the folder `state`, as for `vmsim up`; the logs stay there. Each of the `nodes` has `cpu` and
    `memory`, as Kubernetes quantities; fake nodes of an existing plane are resized, and those beyond `nodes` are
    deleted with their pods. The first call on a machine obtains the programs, which may take minutes; standard error
    shows the progress. Raises SimulatorError: LocalPlaneError if the plane or its controller cannot start.
    """
    if sys.platform == "win32":
        raise LocalPlaneError("a local control plane runs on Linux and macOS; on Windows run this in WSL")
    from controller.controlplane.errors import ControlPlaneError  # noqa: PLC0415 - it does not load on Windows

    try:
        with ExitStack() as stack:
            try:
                plane = _set_up(stack, Path(state), nodes, cpu, memory)
            except KubeError as error:
                raise translated(error) from error
            except SimulatorError:
                raise
            except OSError as error:
                raise LocalPlaneError(f"cannot start a control plane in {state}: {error}") from error
            yield plane
    except ControlPlaneError as error:
        raise LocalPlaneError(f"{error}; {error.hint}") from error


def _set_up(stack: ExitStack, state: Path, nodes: int, cpu: str, memory: str) -> LocalPlane:
    from controller.controlplane import controllers  # noqa: PLC0415
    from controller.controlplane.nodes import NodeCapacity  # noqa: PLC0415
    from controller.controlplane.plane import ControlPlane  # noqa: PLC0415

    made = ControlPlane(state, nodes=nodes, capacity=NodeCapacity(cpu, memory))
    made.end_leftovers()  # the controller of a process that was killed would act beside ours
    plane = stack.enter_context(made.borrowed())
    kubeconfig = str(plane.kubeconfig)
    background().run(lambda: install_on(credentials.Source(kubeconfig)))
    # The first line of its log names the address of its metrics.
    flags = ("--log-format", "json", "--log-level", "info")
    running = stack.enter_context(controllers.running(kubeconfig, state, *flags))
    running.wait_ready(_READY)
    return LocalPlane(kubeconfig, controllers.metrics_url(running.log) or "")
