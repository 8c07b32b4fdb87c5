"""One real control plane for the whole session, the real controller as a process, and the real kubectl."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.controlplane.plane import ControlPlane
from tests.integration import accounts
from tests.integration.tools import Controller, Kubectl, sweep
from tests.plane import install

REPOSITORY = Path(__file__).resolve().parents[2]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder, with a timeout that suffices on a busy machine."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.integration)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(90))


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane with three fake nodes and our CRDs."""
    directory = tmp_path_factory.mktemp("plane")
    with ControlPlane(directory / "state", nodes=3, audit_policy=accounts.audit_policy(directory)) as plane:
        install(plane)
        yield plane


@pytest.fixture(scope="session")
def kubectl(plane: ControlPlane) -> Kubectl:
    """kubectl against the session's control plane."""
    return Kubectl(plane.kubectl, plane.kubeconfig)


@pytest.fixture(scope="module")
def controller(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controller]:
    """Run a controller for one module: the next module may need none, or others."""
    with Controller.start(plane.kubeconfig, tmp_path_factory.mktemp("controller") / "log") as process:
        yield process


@pytest.fixture
def clean(kubectl: Kubectl) -> Iterator[None]:
    """Delete the VMs and pods of the default namespace before and after: other modules may have theirs there."""
    sweep(kubectl)
    yield
    sweep(kubectl)
