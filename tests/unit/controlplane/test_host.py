"""The cache directory is the conventional one of each system."""

from pathlib import Path

import pytest

from controller.controlplane.errors import InvalidSettingError
from controller.controlplane.host import cache_directory


@pytest.mark.parametrize(
    ("environment", "system", "directory"),
    [
        ({"HOME": "/home/me"}, "linux", "/home/me/.cache/vmsim"),
        ({"HOME": "/home/me", "XDG_CACHE_HOME": "/xdg"}, "linux", "/xdg/vmsim"),
        ({"HOME": "/Users/me"}, "darwin", "/Users/me/Library/Caches/vmsim"),
        ({"HOME": "/home/me", "XDG_CACHE_HOME": "/xdg", "VMSIM_CACHE_DIR": "/mine"}, "linux", "/mine"),
        ({"HOME": "/Users/me", "VMSIM_CACHE_DIR": "/mine"}, "darwin", "/mine"),
    ],
)
def test_cache_directory_follows_the_conventions(environment: dict[str, str], system: str, directory: str) -> None:
    """Our own variable comes first, then those of the system."""
    assert cache_directory(environment, system) == Path(directory)


def test_no_home_and_no_variable_is_an_error() -> None:
    """The user of a container without HOME gets a hint, not a traceback."""
    with pytest.raises(InvalidSettingError, match="VMSIM_CACHE_DIR"):
        cache_directory({}, "linux")
