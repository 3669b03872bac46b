"""Segments: every line belongs to exactly one of them, and their blocks give the digest of the whole."""

from __future__ import annotations

import hashlib
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.ingest import content
from tasks.ingest.content import ContentReader, content_digest, segments

LINES = st.lists(st.sampled_from([b"a\n", b"long line of text\n", b"\n", b"crlf\r\n", b"no end"]), max_size=30).map(b"".join)


@pytest.fixture(autouse=True)
def _small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content, "SEGMENT_BYTES", 16)


def _read(data: bytes, segment: content.Segment, sip: int) -> tuple[bytes, ContentReader]:
    reader = ContentReader(io.BytesIO(data), segment)
    return b"".join(iter(lambda: reader.read(sip), b"")), reader


@given(LINES, st.integers(1, 40))
def test_segments_are_a_partition_of_the_lines(data: bytes, sip: int) -> None:
    read = [_read(data, segment, sip) for segment in segments(len(data))]
    assert b"".join(text for text, _ in read) == data
    filled = [text for text, _ in read if text]
    assert all(text.endswith(b"\n") for text in filled[:-1])
    assert [reader.n_lines for _, reader in read] == [text.count(b"\n") for text, _ in read]


@given(LINES, st.integers(1, 40), st.booleans())
def test_the_digest_is_the_files_whoever_reads_it(data: bytes, sip: int, reads: bool) -> None:
    blocks = list[str]()
    for segment in segments(len(data)):
        reader = ContentReader(io.BytesIO(data), segment)
        if reads:
            reader.read(sip)
        blocks += reader.blocks()
    whole = ContentReader(io.BytesIO(data))
    whole.read(sip)
    assert tuple(blocks) == whole.blocks()
    assert content_digest(blocks) == content_digest(whole.blocks())


def test_a_small_file_has_its_plain_digest() -> None:
    reader = ContentReader(io.BytesIO(b"id\n1\n"))
    assert reader.read() == b"id\n1\n"
    assert content_digest(reader.blocks()) == hashlib.sha256(b"id\n1\n").hexdigest()


def test_a_line_longer_than_a_segment_leaves_the_next_one_empty() -> None:
    data = b"head\n" + b"x" * 40 + b"\n1\n"
    texts = [_read(data, segment, 7)[0] for segment in segments(len(data))]
    assert texts == [data[:46], b"", b"1\n"] or (b"".join(texts) == data and texts[1] == b"")


@pytest.mark.parametrize(("n_bytes", "n"), [(0, 1), (16, 1), (23, 1), (24, 2), (39, 2), (40, 3)])
def test_a_small_rest_goes_with_the_last_segment(n_bytes: int, n: int) -> None:
    assert [(s.index, s.n, s.end is None) for s in segments(n_bytes)] == [(i, n, i == n - 1) for i in range(n)]
