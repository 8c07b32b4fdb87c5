"""The hint of an error fits its cause."""

import pytest

from controller.controlplane.errors import FREE_SPACE, CommandError, ControlPlaneError
from controller.controlplane.program_errors import DownloadError, GoCommandError


@pytest.mark.parametrize(
    "error",
    [
        GoCommandError("go build", "mkdir /tmp/go-build: no space left on device"),
        DownloadError("https://example.org/etcd", "cannot unpack it: [Errno 28] No space left on device"),
        CommandError("kwokctl create cluster", "write pki/ca.crt: disk quota exceeded"),
    ],
)
def test_the_hint_is_to_free_space_whichever_program_finds_the_disk_full(error: ControlPlaneError) -> None:
    """It is not to check the network, or to start again."""
    assert error.hint == FREE_SPACE


def test_an_error_for_another_reason_has_its_own_hint() -> None:
    """Only a full disk replaces the hint."""
    assert "down" in CommandError("kwokctl", "exit code 1").hint
