"""The differences from an undisturbed run that are no defect, each with its reason.

Guarantees: an explanation covers only its own difference; without that, the run has to be as good as any other.
"""

from __future__ import annotations

import re
from typing import Final

from controller.domain.objects import VirtualMachineMigration
from tests.faults.oracles import Evidence, judge
from tests.faults.requests import CRASHES, REQUEST_FAULTS
from tests.faults.scenarios import LIVE

_UNSEEN: Final = "the pod was deleted before its eviction was seen, so there is no record of it"
_REFUSED: Final = "the controller was forbidden to write the record"
_LATE: Final = "the late create made the pod that its incarnation lacked, so no further incarnation was needed"
_RENUMBERED: Final = "the create of the target may have been sent, so the next attempt had a number of its own"
_BLIND: Final = (
    *CRASHES,
    "410 as a status",
    "410 as an event",
    "continue token expires in a list",
    "old list after a reconnect",
)
_SAVED: Final = re.compile(r"incarnation \d+|migration vm: .*")
"""If the late create saves an incarnation, a lost target exists again, and the migration succeeds."""

_NUMBERS: Final = re.compile(r"incarnation \d+")


def explain(scenario: str, fault: str, run: Evidence, undisturbed: Evidence) -> str | None:
    """Return why a run may differ as it does; None if there is no such reason."""
    if scenario == "pod evicted" and fault in _BLIND:
        return _UNSEEN if _good_without_records(run, undisturbed) else None
    if scenario in ("pod evicted", "node lost") and fault == "403":
        return _REFUSED if _good_without_records(run, undisturbed) else None
    if scenario in ("pod deleted twice", "migrate, target lost") and "8 s" in fault:
        return _LATE if not judge(run, undisturbed, without=_SAVED) else None
    if scenario.startswith(LIVE) and fault in (*CRASHES, *REQUEST_FAULTS):
        return _RENUMBERED if not judge(run, undisturbed, without=_NUMBERS) else None
    return None


def _good_without_records(run: Evidence, undisturbed: Evidence) -> bool:
    return not judge(_without_records(run), _without_records(undisturbed))


def _without_records(evidence: Evidence) -> Evidence:
    others = [
        (number, seen)
        for number, seen in enumerate(evidence.history)
        if not (isinstance(seen.item, VirtualMachineMigration) and seen.item.spec.record_of is not None)
    ]
    return Evidence(tuple(seen for _, seen in others), sum(number < evidence.settled for number, _ in others))
