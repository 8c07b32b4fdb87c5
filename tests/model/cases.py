"""What the product relies on of an API server: cases that hold at the model and at a real one alike.

Each is a function of a `Place`, which is its own: no controller of ours is at work there. A case leaves its objects
behind; those without a namespace it takes away.
"""

from __future__ import annotations

from typing import Final

from tests.model import case_deletions, case_reads, case_writes
from tests.model.place import Case

CASES: Final[tuple[Case, ...]] = (*case_writes.CASES, *case_reads.CASES, *case_deletions.CASES)
