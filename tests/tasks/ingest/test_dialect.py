"""Dialects: what a writer wrote is read back whatever its habits; what is guessed is safe; what is told is done."""

from __future__ import annotations

import csv
import io
import re
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from infra.settings import ConfigError, ReadSettings
from tasks.ingest import readers_csv
from tasks.ingest.dialect import HEAD_BYTES, Dialect, HeaderIncomplete, detect, from_json
from tasks.ingest.streams import Unreadable

ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "cp1252"]
CELLS = st.text("ab \"',;|\t\n\rßé7", max_size=6).map(str.strip)
NAMES = st.lists(st.text("abcé", min_size=1, max_size=4), min_size=2, max_size=5, unique_by=str.lower)


def table(width: int) -> st.SearchStrategy[list[list[str]]]:
    return st.lists(st.lists(CELLS, min_size=width, max_size=width), min_size=1, max_size=8)


def written(rows: list[list[str]], encoding: str = "utf-8", **habits: Any) -> bytes:
    sink = io.StringIO(newline="")
    csv.writer(sink, **habits).writerows(rows)
    return sink.getvalue().encode(encoding)


def found(data: bytes, options: ReadSettings | None = None, n_bytes: int = 1 << 20) -> tuple[Dialect, list[list[str]], int]:
    """The dialect, the rows (NULL as empty text), the number of rejects."""
    dialect, text = readers_csv.opened((data[i : i + n_bytes] for i in range(0, len(data), n_bytes)), options or ReadSettings())
    blocks = list(readers_csv.read(text, dialect))
    columns = [[column.to_pylist() for column in block.rows.columns] for block in blocks if block.rows is not None]
    rows = [[cell or "" for cell in row] for block in columns for row in zip(*block, strict=True)]
    return dialect, rows, sum(len(block.rejects) for block in blocks)


@settings(max_examples=60)
@given(st.data())
def test_what_the_csv_module_wrote_is_read_back_when_its_habits_are_told(data: st.DataObject) -> None:
    names = data.draw(NAMES)
    rows = data.draw(table(len(names)))
    separator, quote = data.draw(st.sampled_from(",;\t|~")), data.draw(st.sampled_from("\"'"))
    encoding = data.draw(st.sampled_from(ENCODINGS))
    style = data.draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
    end = data.draw(st.sampled_from(["\n", "\r\n", "\r"]))
    if style == csv.QUOTE_MINIMAL:  # the module leaves another line end than its own unquoted
        rows = [[re.sub("[\r\n]", end[0], text) for text in row] for row in rows]
    raw = written([names, *rows], encoding, delimiter=separator, quotechar=quote, lineterminator=end, quoting=style)
    given_encoding = encoding if encoding == "cp1252" else None
    options = ReadSettings(separator=separator, quote=quote, header=True, encoding=given_encoding)
    dialect, cells, n_rejects = found(raw, options, data.draw(st.integers(1, 64)))
    assert (list(dialect.names), cells, n_rejects) == (names, rows, 0)


@settings(max_examples=60)
@given(st.data())
def test_what_the_csv_module_wrote_is_read_back_when_nothing_is_told(data: st.DataObject) -> None:
    """Separators inside cells are quoted, so that they do not count; apostrophes quote where they quote everything."""
    names = data.draw(NAMES)
    rows = [names, *data.draw(table(len(names)))]
    separator, quote = data.draw(st.sampled_from(",;\t|")), data.draw(st.sampled_from("\"'"))
    encoding = data.draw(st.sampled_from(ENCODINGS[:-1]))
    end = data.draw(st.sampled_from(["\n", "\r\n"]))
    raw = written(rows, encoding, delimiter=separator, quotechar=quote, quoting=csv.QUOTE_ALL, lineterminator=end)
    dialect, cells, n_rejects = found(raw)
    assert (dialect.separator, dialect.quote, cells, n_rejects) == (separator, quote, rows[1:], 0)


WORDS = st.text("abcdefgh", min_size=1, max_size=5)
SHAPES = st.lists(st.sampled_from(["word", "number", "day", "phrase"]), min_size=2, max_size=5)


def cell(kind: str, n: int) -> str:
    return {"word": f"w{n % 7}", "number": str(n * 37 % 101), "day": f"2020-01-{n % 28 + 1:02}", "phrase": f"so it was {n}"}[kind]


@settings(max_examples=50)
@given(SHAPES, st.sampled_from(",;\t|"), st.integers(3, 15), st.integers(20, 60), st.booleans())
def test_more_records_of_the_same_shape_change_nothing(
    kinds: list[str], separator: str, few: int, many: int, header: bool
) -> None:
    names = [[f"name {n}" for n in range(len(kinds))]] if header else []
    rows = [[cell(kind, n + 5 * place) for place, kind in enumerate(kinds)] for n in range(many)]
    one, other = (detect(written([*names, *rows[:n]], delimiter=separator)) for n in (few, many))
    assert one == other
    assert one.separator == separator and one.header >= header


@given(st.binary(max_size=200) | st.text("a,;\"'\n#1.", max_size=80).map(str.encode), st.booleans())
@example(b"sep=;\n", True)
@example(b"#", True)
@example(b"#\n#", False)
def test_no_first_bytes_are_too_hostile(head: bytes, whole: bool) -> None:
    """A dialect or a reason, never a crash; what is behind the header is all that is behind it."""
    try:
        dialect = detect(head, whole=whole)
    except (Unreadable, HeaderIncomplete):
        return
    assert from_json(dialect.to_json()) == dialect
    assert dialect.header_bytes <= max(len(head), len(head.decode("utf-16", "replace").encode()))
    assert len({name.lower() for name in dialect.names}) == len(dialect.names)


@given(st.lists(st.lists(st.text("ab1.", max_size=3), min_size=2, max_size=2), min_size=1, max_size=9))
def test_a_header_that_is_told_of_is_one_and_otherwise_every_record_is_a_row(rows: list[list[str]]) -> None:
    assume(all(any(row) for row in rows))
    raw = written(rows)
    with_header = found(raw, ReadSettings(header=True, separator=","))
    without = found(raw, ReadSettings(header=False, separator=","))
    assert with_header[1] == rows[1:] and without[1] == rows
    assert without[0].names == ("column_1", "column_2") and (without[0].header_bytes, without[0].header_lines) == (0, 0)


# --- by eye -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "separator", "names"),
    [
        ("a;b\n1,5;2,5\n3,5;4,5\n", ";", ("a", "b")),
        ("text\nyes, it is\nno, it is not\nwell, then, so\n", "\t", ("text",)),
        ("text\nplain\n", ",", ("text",)),
        ('text\n"yes, it is"\n"no; it is not"\n', ",", ("text",)),
        ("Rain, in mm\n1\n2\n3\n", "\t", ("Rain, in mm",)),
        ("name, title\tage\tcity\nAnn, Dr\t7\tUlm\n", "\t", ("name, title", "age", "city")),
        ("id,name\n1,Ann\nbad\n", ",", ("id", "name")),
        ("id,name\nbad\n", ",", ("id", "name")),
        ("a,b,c\n1;2;3\n4;5;6\n", ",", ("a", "b", "c")),
        ("sep=;\na;b,c\n1;2,3\n", ";", ("a", "b,c")),
        ('"sep=|"\r\na|b\r\n', "|", ("a", "b")),
        ('a|"b,;|"|c\n1|2|3\n', "|", ("a", "b,;|", "c")),
    ],
)
def test_separators_are_what_the_records_agree_on(text: str, separator: str, names: tuple[str, ...]) -> None:
    dialect = detect(text.encode())
    assert (dialect.separator, dialect.names) == (separator, names)


def test_tabs_separate_a_tsv_unless_told_otherwise() -> None:
    data = b"a,b\n1,2\n"
    assert detect(data, kind="tsv").names == ("a,b",)
    assert detect(data, ReadSettings(separator=","), kind="tsv").names == ("a", "b")


@pytest.mark.parametrize(
    ("text", "quote"),
    [
        ("a,b\n'x, y',1\n'it''s',2\n'z',3\n", "'"),
        ("'a','b'\n'1','2'\n", "'"),
        ("a,b\n'tis,7\nit's,8\n", '"'),
        ("a,b\n'x',1\ny,2\n'z',3\n", '"'),
        ("a,b\n\"x\",'y'\n\"z\",'w'\n", '"'),
    ],
)
def test_apostrophes_quote_only_where_they_always_do(text: str, quote: str) -> None:
    assert detect(text.encode()).quote == quote


def test_no_quotes_are_none() -> None:
    _, rows, n_rejects = found(b'a,b\n"x,y"\n', ReadSettings(quote="", separator=","))
    assert (rows, n_rejects) == ([['"x', 'y"']], 0)


@pytest.mark.parametrize(
    "text",
    [
        "1.5,2020-01-01\n2.5,2020-01-02\n",
        "1.5,0.5,7.5\n2.5,3.5,1\n",
        "5,0,0\n4,4,4\n",
        "7\n5\n6\n",
        "5,,3,5\n4,,4,2\n",
    ],
)
def test_a_first_record_that_is_certainly_data_is_a_row(text: str) -> None:
    dialect, rows, _ = found(text.encode())
    assert not dialect.header and len(rows) == text.count("\n") and dialect.names[0] == "column_1"


@pytest.mark.parametrize(
    "text",
    [
        "country,2019,2020\nFR,1,2\n",
        "2019,2020,2021\n5,6,7\n8,9,1\n",
        ",0,1,2\n0,5,6,7\n1,5,6,7\n",
        "1042,77,3051\n5,6,7\n8,9,1\n",
        "0\n5\n6\n",
        "400.5,401.0,401.5\n0.1,0.2,0.15\n",
        "2020-01-01,2020-01-02\n1,2\n",
        "a,b\nc,d\n",
        "5,1,3\n",
        "5,1,3\n4,x,4\n",
        ",0.5,0.1\n7,5,6\n",
    ],
)
def test_a_first_record_that_may_be_a_header_is_one(text: str) -> None:
    assert detect(text.encode()).header


def test_names_are_unique_and_what_was_renamed_is_said() -> None:
    dialect = detect(b"a,A,,row_id, b \n1,2,3,4,5\n")
    assert dialect.names == ("a", "A_2", "column_3", "row_id_", "b")
    assert dialect.renamed == (
        "2 columns were named 'a': a, A_2",
        "column 3 had no name: column_3",
        "column 4 was named 'row_id': row_id_",
    )
    assert detect(b"a,b\n1,2\n").renamed == ()


@pytest.mark.parametrize(
    ("text", "names", "n_lines"),
    [
        ("# made in 2020\n# by hand\na,b\n1,2\n", ("a", "b"), 3),
        ("##v=4\n#chrom\tpos\nx\t1\ny\t2\n", ("#chrom", "pos"), 2),
        ("#id\n1\n2\n", ("#id",), 1),
        ("# note\nvalue\n1\n2\n", ("value",), 2),
        ("# note\n\n\na,b\nx,y\n", ("a", "b"), 4),
        ("# a, b\n1,5\n3,4\n", ("# a", "b"), 1),
        ("\r\n\r\na,b\r\n1,2", ("a", "b"), 3),
    ],
)
def test_lines_before_the_header_are_counted(text: str, names: tuple[str, ...], n_lines: int) -> None:
    dialect = detect(text.encode())
    assert (dialect.names, dialect.header_lines, dialect.comment) == (names, n_lines, "")
    assert dialect.header_bytes == sum(map(len, text.encode().splitlines(keepends=True)[:n_lines]))


def test_a_later_line_of_a_hash_is_a_record_unless_comments_are_told_of() -> None:
    data = b"# note\ncolour,n\n#fff,1\n"
    assert found(data)[1] == [["#fff", "1"]]
    assert found(data, ReadSettings(comment="#"))[1] == []


def test_the_mark_of_utf8_counts_among_the_bytes_before_the_rows() -> None:
    dialect = detect(b"\xef\xbb\xbfa,b\n1,2\n")
    assert (dialect.encoding, dialect.header_bytes, dialect.names) == ("utf-8", 7, ("a", "b"))


@pytest.mark.parametrize("told", [{"separator": "é"}, {"quote": "\n"}, {"comment": "\r"}, {"separator": "'", "quote": "'"}])
def test_options_that_cannot_be_meant_are_refused(told: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=next(iter(told))):
        detect(b"a\n", ReadSettings(**told))  # pyright: ignore[reportArgumentType]


def test_a_header_that_does_not_end_asks_for_more() -> None:
    with pytest.raises(HeaderIncomplete):
        detect(b"a," * HEAD_BYTES)


# --- the real packs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("pack", "step"), [("rdatasets", 3), ("santos", 1), ("pcm_dpc", 40)])
def test_real_tables_keep_their_headers(shared_data: Path, pack: str, step: int) -> None:
    """As Python's csv module reads their first record; no name is a number."""
    n_files = 0
    with tarfile.open(shared_data / "lake" / f"{pack}.tar.gz") as archive:
        for place, member in enumerate(archive):
            file = archive.extractfile(member) if member.name.endswith(".csv") and place % step == 0 else None
            if file is None:
                continue
            n_files += 1
            head = file.read(HEAD_BYTES)
            dialect = detect(head, whole=member.size <= HEAD_BYTES)
            first = next(csv.reader(io.StringIO(head.decode("utf-8-sig", "replace"), newline="")))
            assert (dialect.header, dialect.separator, dialect.quote, dialect.header_lines) == (True, ",", '"', 1), member.name
            assert [" ".join(name.split()) or f"column_{n}" for n, name in enumerate(first, 1)] == list(
                dialect.names
            ) or dialect.renamed
    assert n_files > 40


def test_a_day_over_days_is_no_name() -> None:
    lines = b"".join(b"%d,name %d,%d.5,2024-01-%02d\n" % (n, n, n, n) for n in range(1, 20))
    assert not detect(lines).header
    assert detect(b"id,name,score,2024-01-01\n" + lines.replace(b"2024-01-", b"")).header
