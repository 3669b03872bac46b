"""Profiles and logs come back as they were written, and only what is asked for is decoded."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from infra.contracts import DataFile, Snapshot
from infra.files import Part
from tasks.dedup.logs import as_text, of_text
from tasks.dedup.profiles import CELLS, ROWS, Profile, Profiles, Shelf, as_table
from tasks.dedup.scan import Facts
from tasks.dedup.sketches import Sketch

NAMES = st.text(max_size=5).filter(lambda name: "\0" not in name)
SKETCHES = st.lists(st.integers(0, 2**64 - 1), max_size=6, unique=True).map(
    lambda some: Sketch(np.uint64(max(some, default=2**64 - 1)), np.array(sorted(some), np.uint64))
)
PROFILES = st.builds(
    Profile,
    NAMES,
    NAMES,
    st.sampled_from([ROWS, CELLS]),
    st.lists(NAMES, max_size=3).map(tuple),
    st.integers(0, 9),
    st.integers(0, 9),
    SKETCHES,
)


def told(one: Profile) -> tuple[object, ...]:
    return one.place, one.n_rows, one.n_nulls, one.columns, one.sketch.bound, one.sketch.hashes.tolist()


@given(st.lists(PROFILES, max_size=6))
def test_profiles_are_read_as_written(some: list[Profile]) -> None:
    shelf = Shelf(as_table(some))
    assert [told(shelf.at(i)) for i in range(len(some))] == [told(one) for one in some]


def facts(*files: str) -> Facts:
    schema = pa.schema([("a", pa.int64())])
    parts = tuple(Part(f"/lake/{name}", DataFile(name, 1, 1, "1:0"), schema) for name in files)
    return Facts("t", Snapshot("records/t", 0, "1:0", 1), parts, {"a": "a"}, {"a": "int"})


def test_only_files_without_a_profile_are_unknown() -> None:
    whole = Sketch(np.uint64(2**64 - 1), np.array([1, 2], np.uint64))
    profiles = Profiles([Shelf(as_table([Profile("t", "x", ROWS, ("a",), 2, 0, whole)]))])
    assert [part.file.path for part in profiles.unknown(facts("x", "y"), ROWS, ("a",))] == ["y"]
    assert len(profiles.unknown(facts("x"), CELLS, ("a",))) == 1
    profiles.add([Profile("t", "y", ROWS, ("a",), 1, 0, Sketch(whole.bound, np.array([2, 3], np.uint64)))])
    assert profiles.sketch(facts("x", "y"), ROWS, ("a",)).hashes.tolist() == [1, 2, 3]
    assert [one.file for one in profiles.new] == ["y"]


def test_a_log_is_read_as_it_was() -> None:
    schema = pa.schema([("a", pa.int64()), ("Ä.b", pa.string())])
    stats = {"a": {"min": 1, "max": 2**60, "n_nulls": 0}, "Ä.b": {"n_nulls": 1}}
    file = DataFile("part-1.parquet", 3, 99, "3:ff", stats, "m", {"a": None})
    parts, kinds = of_text(as_text([Part("/lake/t/part-1.parquet", file, schema)], {"a": "int"}), "/lake/t")
    assert parts == [Part("/lake/t/part-1.parquet", file, schema)] and kinds == {"a": "int"}
    assert of_text(as_text([], {}), "/lake/t") == ([], {})
