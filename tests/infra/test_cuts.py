"""Texts without their cuts, against slicing bytes; and what stands for a record that is cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.contracts import DataFile
from infra.files import Folder, Part, write_part
from infra.spans import CUTS, Cuts, contents, read_cuts, without, without_cuts


@st.composite
def cut_texts(draw: st.DrawFn) -> tuple[str | None, list[int] | None, str | None]:
    """(text, byte offsets between its characters, what is left)."""
    pieces = draw(st.lists(st.text(max_size=5), max_size=7))
    edges = np.cumsum([len(piece.encode()) for piece in pieces]).tolist()
    cuts = [edge for i in range(1, len(pieces), 2) for edge in (edges[i - 1], edges[i])]
    if draw(st.booleans()):
        return None, draw(st.sampled_from([None, cuts])), None
    return "".join(pieces), cuts, "".join(pieces[::2])


@given(st.lists(cut_texts(), max_size=6), st.sampled_from([pa.string(), pa.large_string(), pa.string_view()]), st.integers(0, 2))
def test_texts_without_their_cuts(rows: list[tuple], kind: pa.DataType, skipped: int) -> None:
    texts = pa.array([text for text, _, _ in rows], pa.string()).cast(kind)[skipped:]
    left = without(texts, pa.array([cuts for _, cuts, _ in rows], CUTS)[skipped:])
    assert left.type == kind and left.to_pylist() == [rest for _, _, rest in rows][skipped:]
    left.validate(full=True)


def test_dictionaries_and_invalid_utf8() -> None:
    texts = pa.array([b"a\xffb cd", b"xyz"], pa.binary()).view(pa.string())
    left = without(texts, pa.array([[4, 6], None], CUTS)).view(pa.binary())
    assert left.to_pylist() == [b"a\xffb ", b"xyz"]
    words = pa.array(["one two", "three"]).dictionary_encode()
    left = without(words, pa.array([[0, 4], None], CUTS))
    assert left.type == words.type and left.to_pylist() == ["two", "three"]


@pytest.mark.parametrize("cuts", [[None, None], [[], None]])
def test_where_nothing_is_cut_nothing_is_copied(cuts: list) -> None:
    texts = pa.array(["a", "b"])
    assert without(texts, pa.array(cuts, CUTS)) is texts
    ids = np.array([4, 5])
    assert contents(ids, pa.array(cuts, CUTS)) is ids and contents(ids, None) is ids


def test_only_the_text_of_a_batch_is_cut() -> None:
    rows = pa.record_batch({"row_id": [1, 2], "body": ["a b", "c"], "other": ["a b", "c"]})
    cuts = Cuts(np.array([1]), pa.array([[0, 2]], CUTS)).of(np.array([1, 2]))
    assert without_cuts(rows, "body", cuts).to_pydict() == {"row_id": [1, 2], "body": ["b", "c"], "other": ["a b", "c"]}
    assert without_cuts(rows, None, cuts) is rows is without_cuts(rows, "body", None) is without_cuts(rows, "absent", cuts)


def test_other_cuts_are_other_content() -> None:
    ids = np.array([7, 7, 7, 8, 9])
    found = contents(ids, pa.array([[0, 2], [0, 3], [0, 2], [0, 2], None], CUTS))
    assert found[0] == found[2] and len(set(found.tolist())) == 4 and found[4] == 9 and (found >= 0).all()


def test_cuts_are_read_from_decisions_and_found_by_row_id(tmp_path: Path) -> None:
    schema = pa.schema([("row_id", pa.int64()), ("cuts", CUTS)])

    def part(rows: pa.Table) -> Part:
        file: DataFile = write_part(folder, rows.to_batches(), rows.schema)
        return Part(f"{tmp_path}/{file.path}", file, rows.schema)

    folder = Folder(str(tmp_path), b"key")
    old = part(pa.table({"row_id": [1, 2]}))
    parts = [
        part(pa.table([[5, 3], [[1, 2], None]], schema=schema)),
        part(pa.table([[4, 5], [[0, 9], [1, 2]]], schema=schema)),
        old,
    ]
    cuts = read_cuts(parts)
    assert cuts.row_ids.tolist() == [4, 5] and cuts.of(np.array([5, 3, 4])).to_pylist() == [[1, 2], None, [0, 9]]
    assert read_cuts([old]).of(np.array([1, 2])).null_count == 2
