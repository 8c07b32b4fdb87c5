"""The model of the API server keeps the rules that a real one keeps (`tests/integration/test_model.py`)."""

from __future__ import annotations

import pytest

from tests.model.cases import CASES
from tests.model.place import Case, Place
from tests.model.server import ApiServer

pytestmark = pytest.mark.looptime


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
async def test_the_model_keeps_the_rules(case: Case) -> None:
    """Each on a server of its own."""
    await case(Place(ApiServer(), "default"))
