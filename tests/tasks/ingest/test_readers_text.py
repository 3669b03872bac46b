"""Text files: a file is a row, whatever its bytes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.ingest import readers_arrow, readers_parquet, readers_text
from tasks.ingest.infer import columns_of, schema_of
from tasks.ingest.streams import Unreadable


def row_of(data: bytes, n_bytes: int = 1 << 20) -> dict[str, str]:
    [block] = readers_text.read((data[i : i + n_bytes] for i in range(0, len(data), n_bytes)), "a/b.txt")
    return block.rows.to_pylist()[0]


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0")), st.integers(1, 9))
def test_text_is_kept_as_it_is(text: str, n_bytes: int) -> None:
    expected = text.removeprefix("\ufeff")
    assert row_of(text.encode(), n_bytes) == {"path": "a/b.txt", "text": expected}


@given(st.binary(max_size=40))
def test_every_file_is_one_row(data: bytes) -> None:
    row_of(data)["text"].encode()


def test_rows_by_eye() -> None:
    assert row_of(b"")["text"] == ""
    assert row_of(b"caf\xe9 \x80\r\n")["text"] == "café €\r\n"
    assert row_of("é\n".encode("utf-16"))["text"] == row_of(b"\xef\xbb\xbf\xc3\xa9\n")["text"] == "é\n"
    [block] = readers_text.read(iter([b"007"]), "x.txt")
    schema = schema_of(columns_of([readers_arrow.shapes(block.rows)]))
    assert readers_parquet.typed(block.rows, schema, {})[0].to_pylist() == [{"path": "x.txt", "text": "007"}]
    assert not block.is_wide


def test_a_text_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers_text, "MAX_BYTES", 5)
    with pytest.raises(Unreadable, match="too much for one text"):
        list(readers_text.read(iter([b"abc", b"def"]), "x.txt"))


def test_what_a_damaged_file_holds_is_kept() -> None:
    def blocks() -> Iterator[bytes]:
        yield b"abc"
        raise Unreadable("broken")

    found = readers_text.read(blocks(), "x.txt")
    assert next(found).rows.to_pylist() == [{"path": "x.txt", "text": "abc"}]
    with pytest.raises(Unreadable, match="broken"):
        next(found)
