"""One decision a record, whatever the files it lies in and however the ranges are cut."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from infra import decisions
from infra.contracts import Lineage
from infra.decisions import kept_ids, merged, ranges, spill
from infra.files import write_part
from infra.lake import Lake

IDS = st.integers(0, 2**63 - 1) | st.sampled_from([0, 1, 2**62, 2**63 - 1])


@given(files=st.lists(st.lists(IDS, max_size=20), min_size=1, max_size=4), n_rows=st.integers(0, 10))
def test_merging_ranges_gives_each_record_once(tmp_path: Path, files: list[list[int]], n_rows: int) -> None:
    tables = [pa.table({"row_id": pa.array(ids, pa.int64()), "x": pa.array([i % 97 for i in ids], pa.int64())}) for ids in files]
    with mock.patch.object(decisions, "_SPILL_GROUP", 3):  # a range reads some of a part's row groups
        parts = [spill(str(tmp_path), table) for table in tables]
    found = pa.concat_tables([merged(parts, lo, hi) for lo, hi in ranges(n_rows, rows_per_range=3)])
    assert found["row_id"].to_pylist() == sorted({i for ids in files for i in ids})
    assert found["x"].to_pylist() == [i % 97 for i in found["row_id"].to_pylist()]


def test_ranges_cover_all_ids_without_overlap() -> None:
    for n_rows in (0, 1, 5_000_000):
        cuts = ranges(n_rows)
        assert cuts[0][0] == 0
        assert cuts[-1][1] == 1 << 63
        assert all(a[1] == b[0] for a, b in itertools.pairwise(cuts))
    assert [len(ranges(n_rows, 10, multiple=4)) for n_rows in (0, 10, 11, 40, 41)] == [1, 1, 4, 4, 8]


def test_kept_ids_are_those_whose_column_is_true(make_lake: Callable[..., Lake]) -> None:
    lake = make_lake()
    table = pa.table({"row_id": pa.array([5, 3, 9], pa.int64()), "keep": [True, False, True], "control": [False, True, True]})
    file = write_part(lake.folder("selection/x"), table.to_batches(), table.schema)
    snapshot = lake.commit("selection/x", table.schema, [file], lineage=Lineage("select", "k", "c"))
    assert np.array_equal(kept_ids(lake.parts(snapshot)), [5, 9])
    assert np.array_equal(kept_ids(lake.parts(snapshot), "control"), [3, 9])
