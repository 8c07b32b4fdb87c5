"""What a person is told to do next fits what happened."""

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
def test_whoever_finds_the_disk_full_the_hint_is_to_free_space(error: ControlPlaneError) -> None:
    """Not to look at the network, or to start afresh."""
    assert error.hint == FREE_SPACE


def test_another_failure_keeps_its_own_hint() -> None:
    """As ever."""
    assert "down" in CommandError("kwokctl", "exit code 1").hint
