"""Malformed files: never a crash, never a silent drop. Every cell is a word that occurs nowhere else, so whatever a reader takes
separators, quotes and lines to be, each word must be found again: in the table, in quarantine, or in a column's name."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
from fault_project import Project, ingested
from hypothesis import example, given, settings
from hypothesis import strategies as st

from infra.lake import Lake
from infra.settings import load_settings

_WORD = re.compile(r"Q\d{4}z")
_MARK = b"\xef\xbb\xbf"
_LONG_NAME = b"x" * 5000 + b"Q0000z\n"
_SHIFTED = codecs.BOM_UTF16_LE + b"\xfe" + "Q0000z,Q0001z\nQ0002z,".encode("utf-16-le")  # words in the other order only
_LINE_END = re.compile(rb"\r\n|\n|\r")
_TABLES = '[collections.c]\nsource = "in/*"\n'

# --- files --------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Raw:
    """A file: its suffix, its bytes, and the text they stand for, None where nothing but a damaged stream is there."""

    suffix: str
    data: bytes
    text: bytes | None


_SEPARATORS = [",", ";", "|", "\t"]
_CELLS = [
    "{}",
    '"{}"',
    '"{}, {}"',
    '"{}\n{}"',
    '"{}""{}"',
    "{} {}",
    "{}é",
    "",
    '""',
    "NA",
    "1",
    "2.5",
    "007",
    "2020-01-01",
    "true",
]
_JUNK = [
    b"\0",
    b'"',
    b"'",
    b"\xff",
    b"\xe9",
    b"\r",
    b"\n",
    b"\n\n",
    b"\r\n",
    b",",
    b";",
    b"\\",
    b"{",
    b"[",
    b"]}",
    b"\xef\xbb\xbf",
    b"x" * 5000,
]
_PACKED: dict[str, Callable[[bytes], bytes]] = {
    "": lambda data: data,
    ".gz": lambda data: gzip.compress(data, mtime=0),
    ".bz2": bz2.compress,
    ".zst": lambda data: pa.Codec("zstd").compress(data, asbytes=True),
}


def _numbered(text: str) -> str:
    """The text with a word of its own for every {}."""
    parts = text.split("{}")
    return "".join(f"{part}Q{number:04d}z" for number, part in enumerate(parts[:-1])) + parts[-1]


@st.composite
def _csv(draw: st.DrawFn) -> tuple[str, bytes]:
    separator = draw(st.sampled_from(_SEPARATORS))
    width = draw(st.integers(1, 4))
    cells = st.sampled_from(_CELLS)
    rows = draw(st.lists(st.lists(cells, min_size=width, max_size=width), max_size=8))
    ends = draw(st.lists(st.sampled_from(["\n", "\n", "\r\n", "\r", "\n\n"]), min_size=len(rows) + 1, max_size=len(rows) + 1))
    lines = [separator.join(row) + end for row, end in zip([["{}"] * width, *rows], ends, strict=True)]
    encoding = draw(st.sampled_from(["utf-8", "utf-8", "utf-8-sig", "utf-16", "cp1252"]))
    return draw(st.sampled_from([".csv", ".csv", ".tsv"])), _numbered("".join(lines)).encode(encoding)


_VALUES = st.recursive(
    st.sampled_from(["{}", "{}", 1, 2.5, True, None, "é{}", 2**70]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("xyz"), inner, max_size=3),
    max_leaves=4,
)


@st.composite
def _jsonl(draw: st.DrawFn) -> tuple[str, bytes]:
    rows = draw(st.lists(st.dictionaries(st.sampled_from(["a", "b", "B", "c d"]), _VALUES, max_size=3), max_size=8))
    lines = [json.dumps(row, ensure_ascii=draw(st.booleans())) for row in rows]
    if draw(st.integers(0, 3)) == 0:
        return ".json", _numbered(f"[{', '.join(lines)}]").encode()
    return draw(st.sampled_from([".jsonl", ".ndjson"])), _numbered("\n".join(lines)).encode()


@st.composite
def _mutated(draw: st.DrawFn, data: bytes) -> bytes:
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(data)))
        end = min(len(data), place + draw(st.integers(0, 12)))
        what = draw(st.sampled_from(["junk", "junk", "cut", "twice", "end", "flip"]))
        if what == "junk":
            data = data[:place] + draw(st.sampled_from(_JUNK)) + data[place:]
        elif what == "cut":
            data = data[:place] + data[end:]
        elif what == "twice":
            data = data[:end] + data[place:]
        elif what == "end":
            data = data[:place]
        elif place < len(data):
            data = data[:place] + bytes([data[place] ^ draw(st.integers(1, 255))]) + data[place + 1 :]
    return data


@st.composite
def _text_files(draw: st.DrawFn) -> Raw:
    suffix, whole = draw(st.one_of(_csv(), _jsonl()))
    text = draw(_mutated(whole)).replace(b"#", b"+")  # a comment would be no record
    packing = draw(st.sampled_from(["", "", *_PACKED]))
    packed = _PACKED[packing](text)
    damaged = draw(_mutated(packed)) if packing and draw(st.booleans()) else packed
    return Raw(suffix + packing, damaged, text if damaged == packed else None)


def _readings(data: bytes, *, without: str = "") -> list[Counter[str]]:
    """The words of a text in whatever encoding it has; in each, where a byte too many leaves words in both orders of UTF-16. In
    the order that its first bytes name there may be none."""
    named = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    for encodings in (("latin-1",), ("utf-16", "utf-16-be")):
        texts = (data.decode(encoding, "ignore").replace(without, "") for encoding in encodings)
        found = [Counter(_WORD.findall(text)) for text in texts]
        if any(found):
            return [words for place, words in enumerate(found) if words or (named and place == 0)]
    return [Counter[str]()]


# --- what became of them ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Seen:
    """A table's rows and rejects as numbers and as words; `whole`: a reject stands for all that could not be read of the file."""

    n_rows: int
    n_rejects: int
    words: Counter[str]
    names: frozenset[str]
    whole: bool


def fuzzed(home: str) -> dict[str, Seen]:
    """Ingest, and look: the counts that were reported must be those of what lies there."""
    results = ingested(home)
    lake = Lake.open(load_settings(home))
    rejects = lake.read(lake.snapshot("quarantine")).to_pylist() if lake.exists("quarantine") else []
    found = dict[str, Seen]()
    for result in results:
        rows = lake.read(lake.snapshot(f"records/{result.name}"))
        mine = [row for row in rejects if row["table"] == result.name]
        assert (rows.num_rows, len(mine)) == (result.rows, result.quarantined), result.name
        text = "\n".join([*_texts(rows.drop_columns(["row_id"])), *(row["raw"] for row in mine)])
        schema = rows.schema.serialize().to_pybytes().decode(errors="replace")  # its repr cuts long names
        words, names = Counter(_WORD.findall(text)), frozenset(_WORD.findall(schema))
        whole = any(row["line"] == 0 for row in mine)
        found[result.name] = Seen(rows.num_rows, len(mine), words, names, whole)
    return found


def _texts(rows: pa.Table) -> list[str]:
    """Every value, as text; names of columns and fields are none."""
    held, texts = [value for column in rows.columns for value in column.to_pylist()], list[str]()
    while held:
        value = held.pop()
        if isinstance(value, dict | list):
            held += value.values() if isinstance(value, dict) else value
        else:
            texts.append(str(value))
    return texts


# --- laws ---------------------------------------------------------------------------------------------------------------------


def _seen(folder: Path, files: list[Raw]) -> list[Seen]:
    project = Project(folder, _TABLES).put({f"f{place}{file.suffix}": file.data for place, file in enumerate(files)})
    found = project.value(fuzzed)
    return [found[f"c/f{place}"] for place in range(len(files))]


def _holds(file: Raw, seen: Seen) -> None:
    if file.text is None:
        return
    readings = _readings(file.text)
    unquoted = _readings(file.text, without='"')  # a quote inside a word may go, and leave the word
    assert not seen.words - reduce(or_, [*readings, *unquoted]), "a word is there twice"
    if seen.whole:
        return
    assert any(not words.keys() - seen.words.keys() - seen.names for words in readings), "a word is lost"
    lines = _lines(file)
    if lines is not None:
        assert seen.n_rows + seen.n_rejects in lines, "rows in are not rows in the table + rows in quarantine"


def _lines(file: Raw) -> tuple[int, ...] | None:
    """How many records a text has, where its format alone tells: JSON lines always, CSV without quotes. The first line of a CSV
    may be a header or a record."""
    assert file.text is not None
    if file.suffix.startswith(".json") and not file.suffix.startswith(".jsonl"):
        return _items(file.text)
    text = file.text.removeprefix(_MARK)  # a byte-order mark is no record
    if "json" in file.suffix:
        return (sum(bool(line.strip()) for line in text.split(b"\n")),)
    if b'"' in text or b"\0" in text:
        return None
    n = sum(bool(line) for line in _LINE_END.split(text))
    return (max(0, n - 1), n)


def _items(text: bytes) -> tuple[int, ...] | None:
    """How many records a JSON document is, where it is an array."""
    try:
        document = json.loads(text)
    except ValueError:
        return None
    return (len(document),) if isinstance(document, list) else None


@settings(max_examples=8)
@given(files=st.lists(_text_files(), min_size=1, max_size=8))
@example(
    files=[
        Raw(".csv", b"", b""),
        Raw(".jsonl", b"\n \n", b"\n \n"),
        Raw(".jsonl", _MARK, _MARK),
        Raw(".csv", b'"', b'"'),
        Raw(".tsv", b"\xff\xfe", b""),
    ]
)
@example(files=[Raw(".csv", _SHIFTED, _SHIFTED), Raw(".csv", _LONG_NAME, _LONG_NAME)])
def test_every_word_of_a_text_is_found_again(tmp_path_factory: pytest.TempPathFactory, files: list[Raw]) -> None:
    for file, seen in zip(files, _seen(tmp_path_factory.mktemp("fuzz"), files), strict=True):
        _holds(file, seen)


@pytest.mark.slow
@settings(max_examples=400)
@given(files=st.lists(_text_files(), min_size=4, max_size=16))
def test_every_word_of_many_texts_is_found_again(tmp_path_factory: pytest.TempPathFactory, files: list[Raw]) -> None:
    for file, seen in zip(files, _seen(tmp_path_factory.mktemp("fuzz"), files), strict=True):
        _holds(file, seen)


# --- binary formats -----------------------------------------------------------------------------------------------------------

_TABLE = pa.table(
    {
        "n": pa.array([1, 2, None, 4]),
        "text": ["Q0000z", "Q0001z", None, "é"],
        "tags": [["x"], [], None, ["y", "z"]],
        "inner": [{"k": 1.5}, {"k": None}, None, {"k": 2.0}],
        "kind": pa.array(["a", "b", "a", None]).dictionary_encode(),
        "at": pa.array([0, 1, 2, 3], pa.timestamp("us")),
    }
)


def _parquet(**options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(_TABLE, sink, **options)
    return sink.getvalue()


def _arrow() -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, _TABLE.schema) as writer:
        writer.write_table(_TABLE)
    return sink.getvalue()


_WHOLE = {
    "plain.parquet": _parquet(compression="none", use_dictionary=False),
    "snappy.parquet": _parquet(),
    "zstd.parquet": _parquet(compression="zstd", data_page_version="2.0"),
    "file.arrow": _arrow(),
}


@st.composite
def _binary_files(draw: st.DrawFn) -> Raw:
    name = draw(st.sampled_from(sorted(_WHOLE)))
    return Raw(f"-{name}", draw(_mutated(_WHOLE[name])), None)


@settings(max_examples=8)
@given(files=st.lists(_binary_files(), min_size=1, max_size=6))
@example(files=[Raw(f"-{name}", data, None) for name, data in _WHOLE.items()])
def test_broken_binary_files_crash_nothing(tmp_path_factory: pytest.TempPathFactory, files: list[Raw]) -> None:
    """Rows, rejects, or a reject for the file: an empty table would be a silent drop."""
    home = tmp_path_factory.mktemp("fuzz")
    project = Project(home, _TABLES).put({f"f{place}{file.suffix}": file.data for place, file in enumerate(files)})
    for seen in project.value(fuzzed).values():
        assert seen.n_rows + seen.n_rejects > 0


@pytest.mark.slow
@settings(max_examples=400)
@given(files=st.lists(_binary_files(), min_size=8, max_size=24))
def test_many_broken_binary_files_crash_nothing(tmp_path_factory: pytest.TempPathFactory, files: list[Raw]) -> None:
    home = tmp_path_factory.mktemp("fuzz")
    project = Project(home, _TABLES).put({f"f{place}{file.suffix}": file.data for place, file in enumerate(files)})
    for seen in project.value(fuzzed).values():
        assert seen.n_rows + seen.n_rejects > 0
