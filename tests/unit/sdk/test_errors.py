"""The errors that the Python API exports: each kind that its methods can raise."""

from __future__ import annotations

from collections.abc import Iterator

from controller.operations.errors import HandedOverError, NotMigratingError, SimulatorError
from controller.scenario.errors import (
    DocumentError,
    KeptError,
    NoScenarioError,
    NotGoneError,
    SpeedError,
    UnansweredError,
)
from controller.sdk import _exporter, _pod_manager, _vm_manager, errors

ROOMS = {module.__name__.rpartition(".")[0] for module in (_exporter, _pod_manager, _vm_manager)} | {
    "controller.operations",
    "controller.scenario",
}
ELSEWHERE = {
    *(DocumentError, NoScenarioError, KeptError, NotGoneError, SpeedError, UnansweredError),
    *(NotMigratingError, HandedOverError),
}
"""Errors of scenario files and plays, of dry runs, of unloading and of cancelling: the API offers none."""


def kinds(root: type[SimulatorError]) -> Iterator[type[SimulatorError]]:
    """Yield every error class that derives from a class."""
    for kind in root.__subclasses__():
        yield kind
        yield from kinds(kind)


def test_every_error_of_a_method_is_exported_or_derives_from_an_exported_one() -> None:
    """SimulatorError itself does not count."""
    exported = {getattr(errors, name) for name in errors.__all__} - {SimulatorError}
    ours = {kind for kind in kinds(SimulatorError) if kind.__module__.rpartition(".")[0] in ROOMS}
    assert ours >= exported
    assert {kind for kind in ours if exported.isdisjoint(kind.__mro__)} == ELSEWHERE
