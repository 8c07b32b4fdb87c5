"""The cases of the API server's model, on a real API server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import TypeAlias

import pytest

from controller.controlplane.plane import ControlPlane
from controller.kube import credentials
from controller.kube.client import Client
from tests.integration.tools import Kubectl
from tests.model.cases import CASES
from tests.model.place import Case, Place

Run: TypeAlias = Callable[[Case, str], None]


@pytest.fixture(scope="module")
def namespaces(kubectl: Kubectl) -> Iterator[dict[str, str]]:
    """Create a namespace for each case, all at once; yield their names by the case's name."""
    found = {case.__name__: f"case-{number}" for number, case in enumerate(CASES)}
    kubectl("create", "-f", "-", stdin="\n---\n".join(map(_namespace, found.values())))
    # Until a namespace has its service account, the API server refuses every pod in it.
    kubectl.eventually(
        *("get", "serviceaccounts", "-A", "-o", "jsonpath={.items[*].metadata.namespace}"),
        until=lambda text: set(found.values()) <= set(text.split()),
    )
    yield found
    kubectl("delete", "namespace", "--wait=false", *found.values())


def _namespace(name: str) -> str:
    return f"{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}}}}}"


@pytest.fixture(scope="module")
def run(plane: ControlPlane) -> Iterator[Run]:
    """Run a case; one connection serves all of them, since opening it takes longer than a case."""
    with asyncio.Runner() as runner:
        client = runner.run(Client.connect(credentials.find(str(plane.kubeconfig))))
        yield lambda case, namespace: runner.run(_run(case, Place(client, namespace)))
        runner.run(client.close())


async def _run(case: Case, place: Place) -> None:
    await case(place)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_a_case_of_the_model_holds_for_the_api_server(case: Case, run: Run, namespaces: dict[str, str]) -> None:
    """Each in a namespace of its own."""
    run(case, namespaces[case.__name__])
