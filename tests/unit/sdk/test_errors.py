"""Which errors the Python API exports: each kind that can leave one of its methods."""

from __future__ import annotations

from collections.abc import Iterator

from controller.operations.errors import SimulatorError
from controller.scenario.errors import DocumentError, KeptError, NoScenarioError, NotGoneError, UnansweredError
from controller.sdk import _exporter, _pod_manager, _vm_manager, errors

ROOMS = {module.__name__.rpartition(".")[0] for module in (_exporter, _pod_manager, _vm_manager)} | {
    "controller.operations",
    "controller.scenario",
}
ELSEWHERE = {DocumentError, NoScenarioError, KeptError, NotGoneError, UnansweredError}
"""Of scenario files, of rehearsing and of unloading, which the Python API does not do."""


def kinds(root: type[SimulatorError]) -> Iterator[type[SimulatorError]]:
    """Yield every kind of error there is of the rooms that the Python API is made of."""
    for kind in root.__subclasses__():
        yield kind
        yield from kinds(kind)


def test_every_error_that_can_leave_a_method_is_exported_or_is_a_kind_of_one() -> None:
    """By more than the root, which says nothing."""
    exported = {getattr(errors, name) for name in errors.__all__} - {SimulatorError}
    ours = {kind for kind in kinds(SimulatorError) if kind.__module__.rpartition(".")[0] in ROOMS}
    assert ours >= exported
    assert {kind for kind in ours if exported.isdisjoint(kind.__mro__)} == ELSEWHERE
