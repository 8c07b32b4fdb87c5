"""The cases of the API server's model, on the model; `tests/integration/test_model.py` has the real API server."""

from __future__ import annotations

import pytest

from tests.model.cases import CASES
from tests.model.place import Case, Place
from tests.model.server import ApiServer

pytestmark = pytest.mark.looptime


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
async def test_a_case_holds_for_the_model(case: Case) -> None:
    """Each on a server of its own."""
    await case(Place(ApiServer(), "default"))
