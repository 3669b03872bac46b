"""Data files: what is written is what is read, however its columns are encoded, and each is encoded the way that pays."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra import files
from infra.contracts import Lineage
from infra.files import SOURCE, Folder, Part, read_part, read_part_table, write_part
from infra.ids import Digest
from infra.lake import Lake
from infra.rowhash import row_hashes
from infra.settings import Settings

KEY = b"k" * 32
VALUES: dict[pa.DataType, st.SearchStrategy[Any]] = {
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.int32(): st.integers(-(2**31), 2**31 - 1),
    pa.int16(): st.integers(-9, 9),
    pa.float64(): st.floats(allow_nan=False),
    pa.string(): st.text(max_size=3),
    pa.bool_(): st.booleans(),
    pa.date32(): st.dates(),
    pa.timestamp("us"): st.datetimes(dt.datetime(1, 1, 1), dt.datetime(9999, 12, 31)),
    pa.list_(pa.int64()): st.lists(st.integers(-5, 5), max_size=2),
}


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    n_rows = draw(st.integers(1, 20))
    kinds = draw(st.lists(st.sampled_from(list(VALUES)), min_size=1, max_size=4))
    columns = [pa.array(draw(st.lists(st.none() | VALUES[kind], min_size=n_rows, max_size=n_rows)), kind) for kind in kinds]
    return pa.table(dict(zip("abcd", columns, strict=False)))


def written(folder: Path, table: pa.Table, **options: Any) -> Part:
    place = Folder(str(folder), KEY)
    return Part(f"{folder}/", write_part(place, table.to_batches(), table.schema, **options), table.schema)


def read(folder: Path, part: Part) -> pa.Table:
    return read_part_table(Part(f"{folder}/{part.file.path}", part.file, part.schema))


@pytest.mark.parametrize("tiny_bytes", [0, 1 << 20])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(table=tables())
def test_what_is_written_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_bytes: int, table: pa.Table) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(files, "_TINY_BYTES", tiny_bytes)
        part = written(tmp_path, table)
    assert read(tmp_path, part).equals(table)
    assert part.file.digest == str(Digest.of(row_hashes(table, table.schema.names, KEY)))
    assert part.file.n_rows == table.num_rows


def test_the_encodings_by_eye(tmp_path: Path) -> None:
    """Row ids plain, counts as differences, words that come back in a dictionary, words that do not plain."""
    n = 20_000
    random = np.random.default_rng(0)
    table = pa.table(
        {
            "row_id": random.integers(0, 2**63 - 1, n),
            "count": random.integers(0, 1000, n),
            "day": pa.array(random.integers(0, 9999, n), pa.int32()).cast(pa.date32()),
            "price": random.integers(0, 50, n) / 4,
            "weight": random.normal(size=n),
            "word": [f"w{i % 7}" for i in range(n)],
            "text": [f"text {i}" for i in range(n)],
            "absent": pa.nulls(n, pa.int64()),
        }
    )
    part = written(tmp_path, table)
    group = pq.ParquetFile(tmp_path / part.file.path).metadata.row_group(0)
    encodings = {group.column(i).path_in_schema: set(group.column(i).encodings) - {"RLE"} for i in range(group.num_columns)}
    delta, words, plain = {"DELTA_BINARY_PACKED"}, {"PLAIN", "RLE_DICTIONARY"}, {"PLAIN"}
    assert encodings == {
        "row_id": plain,
        "count": delta,
        "day": delta,
        "price": words,
        "weight": plain,
        "word": words,
        "text": plain,
        "absent": delta,
    }
    assert read(tmp_path, part).equals(table)


def test_the_hidden_column_of_mixed_files(tmp_path: Path) -> None:
    """It is written, counts for no digest, and is seen only by who asks for it."""
    table = pa.table({"a": [1, 2]})
    mixed = table.append_column(SOURCE, pa.array([7, -8], pa.int64()))
    place = Folder(str(tmp_path), KEY)
    file = write_part(place, mixed.to_batches(), table.schema, mixed=True)
    part = Part(f"{tmp_path}/{file.path}", file, table.schema)
    assert (file.source, file.digest) == ("m", written(tmp_path, table).file.digest)
    assert read_part_table(part).equals(table)
    [batch] = read_part(part, with_source=True)
    assert batch.column(SOURCE).to_pylist() == [7, -8]


def test_null_counts_of_all_flat_columns_reach_the_log_and_bounds_of_the_named_ones_alone(tmp_path: Path) -> None:
    lake = Lake.open(Settings(home=tmp_path))
    columns = {"n": [1, 2], "who": ["a", None], "none": pa.nulls(2, pa.string()), "dotted.x": [None, 0.5], "l": [[1], None]}
    table = pa.table(columns)
    file = write_part(lake.folder("records/t"), table.to_batches(), table.schema, stats=["n"])
    snapshot = lake.commit("records/t", table.schema, [file], lineage=Lineage("test", "t", ""))
    expected = {
        "n": {"min": 1, "max": 2, "n_nulls": 0},
        "who": {"n_nulls": 1},
        "none": {"n_nulls": 2},
        "dotted.x": {"n_nulls": 1},
    }
    assert lake.parts(snapshot)[0].file.stats == expected
    wider = pa.table({**columns, "later": pa.nulls(2, pa.string())})
    more = write_part(lake.folder("records/t"), wider.to_batches(), wider.schema, stats=["n"])
    snapshot = lake.commit("records/t", wider.schema, [more], lineage=Lineage("test", "t", ""))
    assert {"later" in part.file.stats for part in lake.parts(snapshot)} == {True, False}
