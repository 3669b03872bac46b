"""The record scanner and the fields it finds, against the slow road: any quote, any comment sign, any cut."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tasks.ingest.fields import fields
from tasks.ingest.scan import Records, occurrences, records

SHORT = st.text("ab1,'\"#\n\r|é", max_size=80).map(str.encode)
# Several times over, so that words of 64 bytes are filled, and the last one is not.
TEXTS = st.builds(lambda text, n: text * n, SHORT, st.integers(1, 4))
QUOTES = st.sampled_from([b'"', b"'", b""])
COMMENTS = st.sampled_from([b"#", b"a", b""])

Line = tuple[int, list[bytes | None]]


def byte(sign: bytes) -> int:
    return sign[0] if sign else -1


def slow(data: bytes, quote: bytes, comment: bytes) -> tuple[list[Line], bool]:
    """The records of `data` as (line, fields), a byte at a time; and whether it ends inside quotes."""
    lines, i, line = list[Line](), 0, 0
    while i < len(data):
        start, first = i, line
        if comment and data[i : i + 1] == comment:
            while i < len(data) and data[i] not in b"\r\n":
                i += 1
            row: list[bytes | None] = []
        else:
            row, i, line, is_open = slow_record(data, i, line, quote)
            if is_open:
                return lines, True
        if row and i > start:
            lines.append((first, row))
        if i < len(data):
            i += 2 if data[i : i + 2] == b"\r\n" else 1
            line += 1
    return lines, False


def slow_record(data: bytes, i: int, line: int, quote: bytes) -> tuple[list[bytes | None], int, int, bool]:
    row = list[bytes | None]()
    while True:
        value, quoted, closed, start = b"", False, -1, i
        while i < len(data) and data[i] not in b",\r\n":
            sign = data[i : i + 1]
            if quote and sign == quote and i in (start, closed):
                value += quote if quoted else b""
                quoted, i = True, i + 1
                while i < len(data) and data[i : i + 1] != quote:
                    line += data[i] == 13 or (data[i] == 10 and data[i - 1] != 13)
                    value += data[i : i + 1]
                    i += 1
                if i == len(data):
                    return row, i, line, True
                i = closed = i + 1
            else:
                value += sign
                i += 1
        row.append(value if quoted or value else None)
        if i == len(data) or data[i] != 44:
            return row, i, line, False
        i += 1


def fast(data: bytes, found: Records, quote: int) -> list[Line]:
    lines = list[Line]()
    for i, n in enumerate(found.n_fields.tolist()):
        one = fields(data, found, np.array([i]), [str(j) for j in range(n)], quote)
        buffer, bounds = one.buffer.tobytes(), zip(one.starts[:, 0], one.ends[:, 0], strict=True)
        lines.append((int(found.lines[i]), [None if end < start else buffer[start:end] for start, end in bounds]))
    return lines


@given(TEXTS, QUOTES, COMMENTS)
def test_the_scanner_finds_what_the_slow_road_finds(data: bytes, quote: bytes, comment: bytes) -> None:
    found = records(data, ",", last=True, quote=byte(quote), comment=byte(comment))
    lines, quoted = slow(data, quote, comment)
    assert (fast(data, found, byte(quote)), found.quoted) == (lines, quoted)


@given(TEXTS, QUOTES, COMMENTS, st.integers(0, 80))
def test_a_cut_anywhere_changes_nothing(data: bytes, quote: bytes, comment: bytes, cut: int) -> None:
    signs = {"quote": byte(quote), "comment": byte(comment)}
    whole = records(data, ",", last=True, **signs)
    head = records(data[:cut], ",", last=False, **signs)
    rest = data[head.consumed :]
    tail = records(rest, ",", last=True, **signs)
    lines = fast(data[:cut], head, signs["quote"]) + [
        (line + head.n_lines, row) for line, row in fast(rest, tail, signs["quote"])
    ]
    assert lines == fast(data, whole, signs["quote"])
    assert (head.n_lines + tail.n_lines, head.consumed + tail.consumed, tail.quoted) == (
        whole.n_lines,
        whole.consumed,
        whole.quoted,
    )


@given(TEXTS, st.sampled_from(b"a\n\r\xc3"))
def test_occurrences_are_those_that_bytes_count(data: bytes, byte: int) -> None:
    assert occurrences(data, byte) == data.count(byte)
