"""The behaviour of an API server that the product relies on: cases that hold for the model and for a real one.

Each is a function of a `Place` of its own, where no controller of ours runs. A case leaves its namespaced objects
behind, and deletes the others.
"""

from __future__ import annotations

from typing import Final

from tests.model import case_deletions, case_reads, case_writes
from tests.model.place import Case

CASES: Final[tuple[Case, ...]] = (*case_writes.CASES, *case_reads.CASES, *case_deletions.CASES)
