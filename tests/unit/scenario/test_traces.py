"""Traces: the notations that are read, and the reported cause of each file that cannot be used."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from controller.scenario.document import Notes, decode
from controller.scenario.errors import DocumentError
from controller.scenario.profiles import Samples
from controller.scenario.schema import parse
from controller.scenario.tables import read
from controller.scenario.traces import COLUMNS, shares_of, times_of

SCENARIO = """\
apiVersion: simulation.node-classifier.io/v1alpha1
kind: Scenario
name: demo
vms: [{name: v, cpu: 0.1, memory: 0.1, consumption: {COLUMN: {trace: {file: t.csv WORDS}}}}]
"""


def traced(directory: Path, content: str | bytes, words: str = "", column: str = "cpu") -> Samples:
    """Play a trace; `words` are the fields beside its file."""
    (directory / "t.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    text = SCENARIO.replace("COLUMN", column).replace("WORDS", words and f", {words}")
    [group] = parse(text, "s.yaml", directory).vm_groups
    profile = group.cpu if column == "cpu" else group.memory
    assert isinstance(profile, Samples)
    return profile


def refused(directory: Path, content: str | bytes, words: str = "", column: str = "cpu") -> list[str]:
    """Play a trace that must be refused; return its problems."""
    with pytest.raises(DocumentError) as error:
        traced(directory, content, words, column)
    return [str(problem) for problem in error.value.problems]


def column(name: str, *cells: str) -> str:
    """Return a trace of one column, a row every five minutes."""
    return f"time,{name}\n" + "".join(f"{300 * row},{cell}\n" for row, cell in enumerate(cells))


# --- times -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (("0", "300", "450.5"), ""),
        (("-300", "0", "150.5"), ""),
        (("1700000000", "1700000300", "1700000450.5"), ""),
        (("1.7e+09", "1700000300.0", "1.7000004505E9"), ""),
        (("1700000000000", "1700000300000", "1700000450500"), "unit: ms"),
        (("1700000000000000", "1700000300000000", "1700000450500000"), "unit: us"),
        (("600000000", "900000000", "1050500000"), "unit: us"),
        (("0s", "5m", "450500ms"), "unit: us"),
        (("2026-03-01T12:00:00Z", "2026-03-01T12:05:00Z", "2026-03-01T12:07:30.5Z"), ""),
        (("2026-03-01t12:00:00z", "2026-03-01T14:05:00+02:00", "2026-03-01T06:37:30.500000-0530"), ""),
        (("2026-03-01 12:00", "2026-03-01 12:05:00", "2026-03-01 12:07:30.500000000"), ""),
        (("2026-03-01 12:00:00+00:00", "2026-03-01 12:05:00+00:00", "2026-03-01 12:07:30.5+00:00"), "unit: ms"),
        (("2026-02-28", "2026-02-28 00:05:00", "2026-02-28T00:07:30.5"), ""),
    ],
)
def test_times_are_relative_to_the_first_row(tmp_path: Path, rows: tuple[str, str, str], words: str) -> None:
    """In seconds, milliseconds or microseconds, as dates or as durations."""
    content = "time,cpu\n" + "".join(f"{row},0.5\n" for row in rows)
    assert traced(tmp_path, content, words).times == (0.0, 300.0, 450.5)


def test_a_trace_of_366_days_is_played_and_a_longer_one_is_not(tmp_path: Path) -> None:
    """The limit is on its length, wherever it begins; the first row beyond is reported."""
    year = 366 * 86400
    assert traced(tmp_path, f"time,cpu\n{10**9},0.1\n{10**9 + year},0.1\n").times == (0.0, year)
    assert refused(tmp_path, f"time,cpu\n-{10**9},0.1\n0,0.1\n5,0.1\n") == [
        (
            "t.csv:3: time: is 11574 days after the first row: want at most 366. "
            "If these are milliseconds, write unit: ms beside file:"
        )
    ]
    assert refused(tmp_path, "time,cpu\n2024-01-01,0.1\n2026-01-01,0.1\n") == [
        "t.csv:3: time: is 731 days after the first row: want at most 366"
    ]


@pytest.mark.parametrize(
    ("first", "hint"),
    [
        (1_700_000_000_000, "looks like milliseconds since 1970: write unit: ms beside file: (unit: s if these are"),
        (1_700_000_000_000_000, "looks like microseconds since 1970: write unit: us beside file: (unit: s if these"),
        (1_700_000_000_000_000_000, "looks like nanoseconds since 1970: divide by 1000, and write unit: us beside"),
    ],
)
def test_times_that_look_like_another_unit_are_one_problem(tmp_path: Path, first: int, hint: str) -> None:
    """However many rows there are; the message names the fix."""
    content = "time,cpu\n" + "".join(f"{first + row},0.1\n" for row in range(50))
    [problem] = refused(tmp_path, content)
    assert problem.startswith(f"t.csv:2: time: {first} {hint}")


def test_a_stated_unit_is_not_questioned(tmp_path: Path) -> None:
    """Though the numbers look like another unit."""
    content = "time,cpu\n1700000000000,0.1\n1700000300000,0.2\n"
    assert traced(tmp_path, content, "unit: s").times == (0.0, 300000.0)


def test_a_trace_that_is_too_long_names_the_unit_in_which_it_is_not(tmp_path: Path) -> None:
    """The coarsest of the finer units."""
    [problem] = refused(tmp_path, "time,cpu\n600000000,0.1\n2506199000000,0.2\n")
    assert problem.endswith("want at most 366. If these are microseconds, write unit: us beside file:")
    [problem] = refused(tmp_path, "time,cpu\n0,0.1\n2506199000000,0.2\n", "unit: ms")
    assert problem.endswith("want at most 366. If these are microseconds, write unit: us beside file:")


@pytest.mark.parametrize(
    "cell", ["soon", "1/2/2026 10:00", "2026-13-01", "2026-03-01T25:00:00Z", "0 days 00:05:00", "1e99999", "٣", "nan"]
)
def test_a_cell_that_is_no_time_is_reported_with_the_accepted_forms(tmp_path: Path, cell: str) -> None:
    """For each row."""
    [problem] = refused(tmp_path, f"time,cpu\n0,0.1\n{cell},0.1\n")
    assert problem == f"t.csv:3: time: want seconds, or a time such as 5m or 2026-03-01T12:00:00Z; not {cell!r}"


def test_an_empty_time_is_reported(tmp_path: Path) -> None:
    """Unless the whole row is empty."""
    [problem] = refused(tmp_path, "time,cpu\n0,0.1\n,0.1\n")
    assert problem.startswith("t.csv:3: time: is empty: ")


def test_times_must_ascend(tmp_path: Path) -> None:
    """Rows after a wrong one are checked, too; digits that a spreadsheet cut off are explained."""
    problems = refused(tmp_path, "time,cpu\n5,0\n3,0\n4,0\n6,0\n")
    assert [problem.split(": want")[0] for problem in problems] == ["t.csv:3: time", "t.csv:4: time"]
    [problem] = refused(tmp_path, "time,cpu\n1.7E+12,0\n1.7E+12,0\n", "unit: ms")
    assert problem.endswith("not '1.7E+12': if a spreadsheet cut its digits off, format the column as a number")


@pytest.mark.parametrize("end", ["", "end: repeat"])
@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (("0", "1e-400"), ""),
        (("0", "1e-320"), ""),
        (("0", "9.9e-10"), ""),
        (("5", "5.0000000001"), ""),
        (("1e15", "1000000000000000.0000000001"), "unit: s"),
        (("0", "0.0001"), "unit: us"),
        (("2026-03-01T12:00:00Z", "2026-03-01T12:00:00.0000000001Z"), ""),
    ],
)
def test_times_closer_than_a_nanosecond_are_refused(
    tmp_path: Path, rows: tuple[str, str], words: str, end: str
) -> None:
    """A trace of length 0 could not repeat."""
    content = "time,cpu\n" + "".join(f"{row},0.5\n" for row in rows)
    [problem] = refused(tmp_path, content, ", ".join(filter(None, (words, end))))
    assert problem == (
        f"t.csv:3: time: want a time at least a nanosecond later than that of the row before; not {rows[1]!r}"
    )


def test_a_trace_of_one_nanosecond_repeats(tmp_path: Path) -> None:
    """However late it is."""
    samples = traced(tmp_path, "time,cpu\n0,0.1\n1e-9,0.2\n", "end: repeat")
    assert samples.period == 2e-9
    assert samples.at(1e12, 0) in samples.values
    assert traced(tmp_path, "time,cpu\n5,0.1\n", "end: repeat").at(1e12, 0) == Decimal("0.1")


# --- shares ------------------------------------------------------------------------------------------------------


@given(st.floats(0, 10), st.sampled_from(["{!r}", "{:.20f}", "{:e}", "{:E}", "{:.17g}", "+{}", "{:G}", " {} "]))
@example(0.00041224999999999996, "{}")
@example(5e-05, "{}")
@example(-0.0, "{}")
@example(-1e-17, "{}")
@example(5e-324, "{!r}")
def test_any_float_that_a_program_writes_is_read(value: float, style: str) -> None:
    """Rounded to four places."""
    written = style.format(value)
    notes = Notes("t.csv")
    table = read(column("cpu", written), notes, needed="time", others=COLUMNS)
    assert table is not None
    assert shares_of(table, "cpu", None, notes) == (Decimal(written.strip()).quantize(Decimal("0.0001")),)


@pytest.mark.parametrize(
    ("cell", "share"), [(".5", "0.5"), ("1.", "1"), ("+2.5", "2.5"), ("1E-3", "0.001"), ("00.25", "0.25"), ("-0", "0")]
)
def test_short_notations_of_a_number_are_read(tmp_path: Path, cell: str, share: str) -> None:
    """Those of spreadsheets and other languages."""
    [value] = traced(tmp_path, column("cpu", cell)).values
    assert str(value.normalize()) == share


@pytest.mark.parametrize("cell", ["x", "-1", "100001", "1e9", "1e99999", "0x1", "1_0", "--1", "1e", ".", "1 2", "٣"])
def test_a_cell_that_is_no_share_is_reported_with_its_line(tmp_path: Path, cell: str) -> None:
    """With the accepted values."""
    [problem] = refused(tmp_path, column("cpu", "0.1", cell))
    assert problem == (f"t.csv:3: cpu: want a share of the VM's request, a number from 0 to 1000; not {cell!r}")


@pytest.mark.parametrize("cell", ["", "NaN", "nan", "NA", "N/A", "null", "None", "inf", "-inf"])
def test_a_missing_share_is_reported(tmp_path: Path, cell: str) -> None:
    """With the fix."""
    [problem] = refused(tmp_path, column("cpu", "0.1", cell))
    assert problem == (
        f"t.csv:3: cpu: is {cell or 'empty'}: each row needs a value, so take the row out, or fill it in"
    )


def test_a_column_that_is_not_played_may_have_any_content(tmp_path: Path) -> None:
    """Like a column of another name."""
    assert traced(tmp_path, "time,cpu,memory\n0,0.1,\n5,0.2,NaN\n").values == (Decimal("0.1"), Decimal("0.2"))


@pytest.mark.parametrize(
    ("name", "cells", "hint"),
    [
        ("cpu", ("2.86979", "93.215797", "50"), "t.csv:3: cpu: shares up to 93.215797 look like percent: "),
        ("memory", ("0.5", "1.5", "80"), "t.csv:3: memory: shares up to 80 look like percent: "),
    ],
)
def test_shares_that_look_like_percent_are_one_problem(
    tmp_path: Path, name: str, cells: tuple[str, ...], hint: str
) -> None:
    """The message names both fixes."""
    [problem] = refused(tmp_path, column(name, *cells), column=name)
    assert problem.startswith(hint)
    assert "percent: true" in problem
    assert "percent: false" in problem


@pytest.mark.parametrize(
    ("name", "cells", "largest"),
    [
        ("cpu", ("1600", "1500", "250"), "1600"),
        ("cpu", ("1600", "1500"), "1600"),
        ("cpu", ("0.5", "1000.1"), "1000.1"),
        ("memory", ("50", "1e5"), "100000"),
    ],
)
def test_percent_beyond_the_largest_share_is_one_problem(
    tmp_path: Path, name: str, cells: tuple[str, ...], largest: str
) -> None:
    """It names the largest value; percent: false is no fix then."""
    [problem] = refused(tmp_path, column(name, *cells), column=name)
    assert problem.endswith(
        f": shares up to {largest} look like percent: beside file:, write percent: true to divide by 100"
    )
    assert traced(tmp_path, column(name, "0"), "percent: true", name).high == 0


@pytest.mark.parametrize(("words", "highest"), [("percent: false", "1000"), ("percent: true", "100000")])
def test_a_share_beyond_the_limit_is_reported_by_line_if_percent_is_set(
    tmp_path: Path, words: str, highest: str
) -> None:
    """Nothing is guessed then."""
    assert traced(tmp_path, column("cpu", highest), words).high == 1000
    [problem] = refused(tmp_path, column("cpu", "1", f"{highest}.1"), words)
    assert problem.startswith("t.csv:3: cpu: want ")
    assert problem.endswith(f" from 0 to {highest}; not '{highest}.1'")


def test_percent_is_divided_by_a_hundred(tmp_path: Path) -> None:
    """Exactly, and rounded afterwards."""
    content = column("cpu", "2.86979", "93.215797", "1600")
    assert traced(tmp_path, content, "percent: true").values == (Decimal("0.0287"), Decimal("0.9322"), Decimal(16))


def test_large_shares_are_played_if_percent_is_false(tmp_path: Path) -> None:
    """Shares up to ten need no field."""
    assert traced(tmp_path, column("cpu", "10")).high == 10
    assert traced(tmp_path, column("cpu", "93.2"), "percent: false").high == Decimal("93.2")
    assert traced(tmp_path, column("memory", "1"), column="memory").high == 1
    assert traced(tmp_path, column("memory", "2.5"), "percent: false", "memory").high == Decimal("2.5")


def test_percent_signs_are_reported(tmp_path: Path) -> None:
    """Spreadsheets write values as they show them."""
    [problem] = refused(tmp_path, column("cpu", "93%"))
    assert problem.endswith("not '93%'; without the %, and with percent: true beside file:")


def test_one_file_may_be_read_in_two_ways(tmp_path: Path) -> None:
    """CPU in shares, memory in percent."""
    (tmp_path / "t.csv").write_text("time,cpu,memory\n0,0.5,50\n5,0.25,25\n")
    text = SCENARIO.replace("{COLUMN: {trace: {file: t.csv WORDS}}}", "{cpu: {trace: {file: t.csv}}, MEMORY}")
    text = text.replace("MEMORY", "memory: {trace: {file: t.csv, percent: true}}")
    [group] = parse(text, "s.yaml", tmp_path).vm_groups
    assert [part.at(5.0) for part in group.parts] == [("0.025", "0.025")]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("unit: min", "vms[0].consumption.cpu.trace.unit: want s, ms or us, not 'min'"),
        ("unit: 1", "vms[0].consumption.cpu.trace.unit: want s, ms or us: YAML reads 1 as a number"),
        ("percent: 100", "vms[0].consumption.cpu.trace.percent: want true or false, not '100'"),
        ("units: ms", "vms[0].consumption.cpu.trace.units: unknown field: did you mean unit?"),
    ],
)
def test_the_fields_beside_the_file_are_checked(tmp_path: Path, words: str, problem: str) -> None:
    """Like every other field."""
    found = refused(tmp_path, column("cpu", "0.1"), words)
    assert [one for one in found if one.startswith(f"s.yaml:4: {problem}")], found


# --- files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbftime,cpu,,\r\n0,0.1,,\r\n300,0.2,,\r\n,,,\r\n",
        b"time,cpu\r0,0.1\r300,0.2\r",
        b"\n\n,,\ntime,cpu\n\n0,0.1\n  ,  \n300,0.2\n\n",
        b",time,cpu,\n0,0,0.1,\n1,300,0.2,\n",
        b"time,cpu,note,note\n0,0.1\n300,0.2,x\n",
        b'"time","cpu"\n"0","0.1"\n"300"," 0.2 "\n',
        b"host,cpu,time\nx,0.1,0\ny,0.2,300",
        b"time,cpu\n0,0.1,,,\n300,0.2,\n",
        b'time, "cpu"\n0, "0.1"\n300,\t0.2\n',
        b'"time", "cpu"\n 0 , 0.1\n300 ,0.2\n',
        b"time , cpu\n0 , 0.1\n300 , 0.2\n",
        b"sep=,\r\ntime,cpu\r\n0,0.1\r\n300,0.2\r\n",
        b"\xef\xbb\xbfsep=;\r\ntime;cpu\r\n0;0.1\r\n300;0.2\r\n",
        b'"sep=;"\n"time";"cpu"\n0;0.1;\n300;0.2;;\n',
        b"SEP=\t\ntime\tcpu\n0\t0.1\n300\t0.2\n",
        b"sep=;\ntime,cpu\n0,0.1\n300,0.2\n",
    ],
)
def test_artefacts_of_spreadsheets_are_ignored(tmp_path: Path, content: bytes) -> None:
    """Byte-order marks, line endings, blank rows and columns, the pandas index, short rows."""
    samples = traced(tmp_path, content)
    assert (samples.times, samples.values) == ((0.0, 300.0), (Decimal("0.1"), Decimal("0.2")))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("time;cpu\n0;0.1\n", "t.csv:1: its columns are separated by ';': write it with commas between columns"),
        (
            '"time";"cpu"\n0;0,1\n',
            "t.csv:1: its columns are separated by ';', and its numbers have decimal commas: write it with comma",
        ),
        ("time\tcpu\n0\t0.1\n", "t.csv:1: its columns are separated by tabs: write it with commas between columns"),
        ("time|memory\n0|0.1\n", "t.csv:1: its columns are separated by '|': write it with commas between columns"),
        (
            'time,cpu\n0,"0,1"\n300,"0,2"\n',
            "t.csv:2: cpu: '0,1' has a decimal comma: write the column with points, 0.5 for 0,5",
        ),
        (
            "time,cpu\n0,0,1\n300,0,2\n",
            "t.csv:2: has 3 columns, the first line 2: if these are decimal commas, write 0.5, not 0,5",
        ),
        ("time cpu\n0 0.1\n", "t.csv:1: its columns are separated by spaces: write it with commas between columns"),
        ('"time,cpu"\n"0,0.1"\n"300,0.2"\n', "t.csv:1: each row is one quoted cell: save it without quotes around"),
        ('"time,""cpu""",\n"0,0.1",\n', "t.csv:1: each row is one quoted cell: save it without quotes around"),
        ('time,cpu\n"0,0.1"\n"300,0.2"\n', "t.csv:2: each row is one quoted cell: save it without quotes around"),
        ("sep=,\ntime;cpu\n0;0.1\n", "t.csv:2: its columns are separated by ';': write it with commas between"),
        ("sep=;\ntime;cpu\n0;0,1\n300;0,2\n", "t.csv:3: cpu: '0,1' has a decimal comma: write the column with point"),
        ("sep=;\ntime;cpu\n0;1;2\n", "t.csv:3: has 3 columns, the first line 2"),
        ("sep=;\n0;1\n", "t.csv:2: want a first line that names the columns time, and cpu or memory; not '0,1'"),
        ('sep=;\ntime;cpu\n0;"1\n', "t.csv:3: not valid CSV: unexpected end of data"),
        ("time,cpu\n0,1\n".encode("utf-16"), "t.csv:1: looks like UTF-16: save it as UTF-8"),
        ("time,cpu\n0,1\n".encode("utf-16-le"), "t.csv:1: looks like UTF-16: save it as UTF-8"),
        ("time,cpu\n0,1\n".encode("utf-16-be"), "t.csv:1: looks like UTF-16: save it as UTF-8"),
        ("time,cpu,a\n0,1,ä\n".encode("latin-1"), "t.csv:2: is not UTF-8: save it as UTF-8"),
        ("0,2.86\n300,93.2\n", "t.csv:1: want a first line that names the columns time, and cpu or memory; not '0,2.8"),
        ("time,cpu,time\n0,1,0\n", "t.csv:1: a column is there twice: time,cpu,time"),
        (b"time,cpu\n", "t.csv:1: has no rows below the first line"),
        (b",,\n\n", "t.csv:1: want a first line that names the columns time, and cpu or memory; not ''"),
    ],
)
def test_a_file_of_another_format_is_reported_with_the_cause(
    tmp_path: Path, content: str | bytes, problem: str
) -> None:
    """Once, however many rows there are."""
    [found] = refused(tmp_path, content)
    assert found.startswith(problem)


def test_problems_of_times_and_shares_are_reported_together(tmp_path: Path) -> None:
    """All of a file at once."""
    problems = refused(tmp_path, "time,cpu\n0,0.1,9\nsoon,0.1\n5,x\n6,50\n")
    assert [problem.split(": want")[0].split(": shares")[0] for problem in problems] == [
        "t.csv:2: has 3 columns, the first line 2",
        "t.csv:3: time",
        "t.csv:4: cpu",
        "t.csv:5: cpu",
    ]


@given(rest=st.binary(max_size=60), unit=st.sampled_from([None, "ms"]), percent=st.sampled_from([None, True]))
@example(rest=b"0,\x00\n", unit=None, percent=None)
@example(rest=b"1e9999,1e9999\n", unit=None, percent=None)
@example(rest=b"0,0\n1e9999,1e-9999\n", unit="ms", percent=True)
@example(rest=b"-1e9999,1\n1e-9999,1\n", unit=None, percent=None)
def test_any_bytes_are_a_trace_or_a_problem(*, rest: bytes, unit: str | None, percent: bool | None) -> None:
    """The reader raises nothing else."""
    notes = Notes("t.csv")
    try:
        text = decode(b"time,cpu\n" + rest, "t.csv")
    except DocumentError:
        return
    table = read(text, notes, needed="time", others=COLUMNS)
    if table is None:
        assert notes.problems
        return
    times, shares = times_of(table, unit, notes), shares_of(table, "cpu", percent, notes)
    assert notes.problems or (times is not None and shares is not None and len(times) == len(shares))
