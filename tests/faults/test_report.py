"""The table, the summary and the complaints of the matrix."""

from __future__ import annotations

from tests.faults.matrix import Cell, Verdict
from tests.faults.report import complaints, summary, table


def verdict(
    scenario: str, fault: str, *complaint: str, nth: int = 1, struck: bool = True, why: str | None = None
) -> Verdict:
    """Return the verdict of a cell after ten seconds."""
    return Verdict(Cell(scenario, fault, "write", nth), struck, 10.0 * nth, complaint, why)


VERDICTS = (
    verdict("stop", "hangs"),
    verdict("stop", "hangs", nth=2),
    verdict("stop", "409", "ends otherwise"),
    verdict("start", "hangs", why="a reason"),
    verdict("start", "409", struck=False),
)


def test_the_table_counts_good_runs_and_marks_bad_ones() -> None:
    """A fault that struck nothing is left out."""
    assert table(VERDICTS).splitlines() == [
        "| fault | stop | start | all | longest, s |",
        "| --- | --: | --: | --: | --: |",
        "| hangs | 2 | 1 | 3 | 20 |",
        "| 409 | **0/1** | – | **0/1** | 10 |",  # noqa: RUF001 - the sign for no runs
        "| all | **2/3** | 1 | **3/4** | 20 |",
    ]


def test_the_summary_counts_the_runs_by_result() -> None:
    """Good, explained, and without effect."""
    assert summary(VERDICTS, wanted=5, seconds=120) == (
        "3 of 4 runs good, 1 of them with an explained difference; "
        "in 1 more the fault found nothing to strike; 2 minutes"
    )
    assert summary(VERDICTS, wanted=7, seconds=120).endswith("; no time for 2 more; 2 minutes")


def test_a_complaint_names_its_cell() -> None:
    """So that it can be tried again."""
    assert list(complaints(VERDICTS)) == ["stop / 409 / write 1: ends otherwise"]
