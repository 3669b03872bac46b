"""Damaged columnar files: whatever byte changed, there are rows that are safe to read or an `Unreadable`, and nothing else."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.ingest import readers_arrow, readers_parquet
from tasks.ingest.convert import as_type
from tasks.ingest.sound import holds_dictionary, refuse_unsound
from tasks.ingest.streams import Unreadable

_TABLE = pa.table({"né": pa.array(["a", "b", "a", None]).dictionary_encode(), "n": pa.array([1, 2, None, 4])})


def _written(**options: object) -> bytes:
    sink = io.BytesIO()
    pq.write_table(_TABLE, sink, **options)
    return sink.getvalue()


def _read(data: bytes) -> int:
    """Read a file as far as text of every dictionary; its rows."""
    n_rows = 0
    for block in readers_parquet.read(readers_parquet.opened(io.BytesIO(data))):
        for column in block.rows.columns:
            if pa.types.is_dictionary(column.type):
                as_type(column, pa.string())
        n_rows += block.rows.num_rows
    return n_rows


@pytest.mark.parametrize("compression", ["snappy", "zstd"])
def test_any_byte_of_a_parquet_file_may_be_wrong(compression: str) -> None:
    whole, n_refused = _written(compression=compression), 0
    assert _read(whole) == 4
    for place in range(len(whole)):
        for bit in (0x01, 0x80, 0xFF):
            damaged = bytearray(whole)
            damaged[place] ^= bit
            try:
                _read(bytes(damaged))
            except Unreadable:
                n_refused += 1
    assert n_refused > len(whole)


def test_a_name_that_is_not_utf8_is_damage() -> None:
    data = _written().replace("né".encode(), b"n\xff\xff")
    with pytest.raises(Unreadable, match="name of a column of the Parquet file is not UTF-8"):
        readers_parquet.opened(io.BytesIO(data))


def test_an_index_out_of_the_dictionary_is_damage() -> None:
    column = pa.DictionaryArray.from_arrays(pa.array([0, 7], pa.int32()), pa.array(["a"]), safe=False)
    with pytest.raises(Unreadable, match="the page is damaged"):
        refuse_unsound(column, "the page")


def test_dictionaries_are_found_inside_of_other_types() -> None:
    kind = pa.dictionary(pa.int32(), pa.string())
    assert holds_dictionary(pa.list_(pa.struct([("k", kind)])))
    assert not holds_dictionary(pa.list_(pa.struct([("k", pa.string())])))


def test_a_name_inside_of_a_struct_that_is_not_utf8_is_damage() -> None:
    sink = io.BytesIO()
    table = pa.table({"a": [{"né": 1}]})
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    data = sink.getvalue().replace("né".encode(), b"n\xff\xff")
    with pytest.raises(Unreadable, match="name of a column of the Arrow file is not UTF-8"):
        list(readers_arrow.read(io.BytesIO(data)))
