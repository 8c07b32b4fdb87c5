"""A local plane that cannot start is one error that says what to do, and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.sdk.errors import LocalPlaneError, SimulatorError
from controller.sdk.local_plane import local_plane


@pytest.mark.parametrize(
    ("nodes", "cpu", "message"),
    [(-1, "32", "nodes: must be 0 or more"), (3, "lots", "'lots' is not a Kubernetes quantity")],
)
def test_an_invalid_argument_is_refused(tmp_path: Path, nodes: int, cpu: str, message: str) -> None:
    """As a SimulatorError, before anything is started."""
    with pytest.raises(SimulatorError, match=message), local_plane(tmp_path / "state", nodes=nodes, cpu=cpu):
        pass

    assert not (tmp_path / "state").exists()


def test_missing_programs_are_named_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line, as every error of the Python API."""
    monkeypatch.setenv("KUBEBUILDER_ASSETS", "/nowhere")

    with pytest.raises(LocalPlaneError) as raised, local_plane(tmp_path / "state"):
        pass

    words = "the assets directory /nowhere does not exist; correct --assets (or KUBEBUILDER_ASSETS), or leave it out"
    assert str(raised.value) == words
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["lock"]


def test_a_folder_that_cannot_be_written_is_a_local_plane_error(tmp_path: Path) -> None:
    """Not an OSError."""
    (tmp_path / "file").write_text("")

    with pytest.raises(LocalPlaneError, match="cannot start a control plane in"), local_plane(tmp_path / "file" / "x"):
        pass
