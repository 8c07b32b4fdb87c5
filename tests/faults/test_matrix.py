"""A part of the matrix of faults on the real API server; `make faults` tries all of it.

The runs are concurrent, each on a stage of its own, so that all of them take about as long as one that waits for a
create of unknown outcome.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from controller.controlplane.plane import ControlPlane
from tests.faults.matrix import WRITE, Cell, Matrix, Verdict, laboratory

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

PODS: Final = "pods"
VMS: Final = "virtualmachines"
MIGRATIONS: Final = "virtualmachinemigrations"

# At least one cell for each fault and for each scenario; those that once failed, and those in which a missing guard
# would lead to a second pod.
CELLS: Final = (
    Cell("create", "killed before commit", WRITE, 1),
    Cell("create", "killed, commits 8 s later", WRITE, 1),
    Cell("create", "reply lost after commit", WRITE, 1),
    Cell("create", "403", WRITE, 1),
    Cell("create", "old list after a reconnect", PODS, 1),
    Cell("start", "commits 8 s after its connection broke", WRITE, 1),
    Cell("start", "no bookmarks", VMS, 1),
    Cell("stop", "killed after commit", WRITE, 1),
    Cell("stop", "401", WRITE, 1),
    Cell("stop", "dropped before the server", WRITE, 1),
    Cell("stop", "5 s behind the others", PODS, 1),
    # The garbage collector may be faster than the controller, which then has nothing to write.
    Cell("delete", "cut in mid-line", PODS, 1),
    Cell("delete", "garbage in a line", VMS, 1),
    Cell("recreate", "killed before commit", WRITE, 1),
    Cell("recreate", "5 s behind the others", VMS, 1),
    Cell("recreate", "events told twice", PODS, 1),
    Cell("pod deleted", "killed, commits 8 s later", WRITE, 2),
    Cell("pod deleted", "hangs", WRITE, 1),
    Cell("pod deleted", "410 as an event", PODS, 1),
    Cell("pod evicted", "503, an HTML page", WRITE, 1),
    Cell("pod evicted", "killed before commit", WRITE, 2),
    Cell("pod failed", "409", WRITE, 1),
    Cell("pod failed", "ended cleanly", PODS, 2),
    Cell("node lost", "500", WRITE, 1),
    Cell("node lost", "killed after commit", WRITE, 1),
    # The first write of a migration is a dry run, the second its claim.
    Cell("migrate", "500", WRITE, 1),
    Cell("migrate", "killed before commit", WRITE, 2),
    Cell("migrate", "killed after commit", WRITE, 3),
    Cell("migrate", "429, Retry-After 2", WRITE, 2),
    Cell("migrate", "cut in mid-line", VMS, 1),
    Cell("migrate", "continue token expires in a list", MIGRATIONS, 1),
    Cell("migrate, VM deleted", "killed after commit", WRITE, 2),
    Cell("migrate, VM deleted", "504", WRITE, 2),
    Cell("migrate, target lost", "killed before commit", WRITE, 3),
    Cell("migrate, target lost", "arrives 3 s late", WRITE, 2),
    Cell("drain", "killed after commit", WRITE, 4),
    Cell("drain", "reply 3 s late", WRITE, 3),
    Cell("drain", "410 as a status", VMS, 1),
    # The first writes of a live migration: a dry run, its claim, its target, its phase Running. Then the hand-over, or
    # the mark that it is undone.
    Cell("live", "killed, commits 8 s later", WRITE, 3),
    Cell("live", "reply lost after commit", WRITE, 5),
    Cell("live", "killed after commit", WRITE, 8),
    Cell("live, cancelled", "killed before commit", WRITE, 5),
    Cell("live, target evicted", "5 s behind the others", PODS, 1),
    Cell("live, source deleted", "500", WRITE, 5),
    Cell("live, stopped", "409", WRITE, 5),
)


async def _try(plane: ControlPlane, directory: Path) -> dict[Cell, Verdict]:
    async with laboratory(plane.kubeconfig, directory) as lab:
        matrix = await Matrix.build(lab, len(CELLS))
        await matrix.references(dict.fromkeys(cell.scenario for cell in CELLS))
        verdicts = await matrix.verdicts(CELLS, lambda _: None)
    return {verdict.cell: verdict for verdict in verdicts}


@pytest.fixture(scope="module")
def verdicts(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Cell, Verdict]]:
    """The verdict of every cell; all are tried at once."""
    with asyncio.Runner() as runner:
        yield runner.run(_try(plane, tmp_path_factory.mktemp("runs")))


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_a_run_with_a_fault_ends_as_the_undisturbed_one(verdicts: dict[Cell, Verdict], cell: Cell) -> None:
    """The fault strikes; at every version there is at most one live pod, and nothing is written after the end."""
    verdict = verdicts[cell]
    assert (verdict.struck, verdict.complaints) == (True, ())
