"""Keys over a whole table: what the workers find in spills and ranges is what a dictionary finds."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.files import SOURCE, Folder, Part, write_part
from infra.rowhash import row_hashes, row_ids
from infra.settings import ColumnContract, TableSettings
from tasks.ingest import unique
from tasks.ingest.unique import Losers, enforce, key_rules, without

ROW_KEY = b"k" * 32
USER = pa.schema([("a", pa.int64()), ("b", pa.string()), ("c", pa.float64())])
SCHEMA = USER.insert(0, pa.field("row_id", pa.int64()))
SECTION = TableSettings(
    source=("x",), primary_key=("a", "b"), contract={"c": ColumnContract(unique=True), "b": ColumnContract(unique=True)}
)
RULES = key_rules(SECTION)
Row = tuple[int | None, str | None, float | None]

ROWS = st.tuples(
    st.none() | st.integers(0, 2), st.none() | st.sampled_from("xyz"), st.none() | st.sampled_from([0.0, -0.0, 0.5, float("nan")])
)
FILES = st.lists(st.lists(ROWS, max_size=5), max_size=4)


def here(fn: Callable[..., Any], items: Sequence[Any], *common: Any) -> list[Any]:
    return [fn(item, *common) for item in items]


def part_of(folder: Path, rows: Sequence[Row], *, sources: Sequence[int] | None = None) -> Part:
    user = pa.RecordBatch.from_arrays(
        [pa.array([row[i] for row in rows], field.type) for i, field in enumerate(USER)], schema=USER
    )
    ids = row_ids("t", row_hashes(user, USER.names, ROW_KEY), ROW_KEY)
    batch = user.add_column(0, SCHEMA.field(0), pa.array(ids, pa.int64()))
    if sources is not None:
        batch = batch.append_column(SOURCE, pa.array(sources, pa.int64()))
    file = write_part(Folder(str(folder), ROW_KEY), [batch], SCHEMA, source="raw.csv", mixed=sources is not None)
    return Part(f"{folder}/{file.path}", file, SCHEMA)


def ids_of(rows: Sequence[Row]) -> list[int]:
    user = pa.table({field.name: pa.array([row[i] for row in rows], field.type) for i, field in enumerate(USER)})
    return row_ids("t", row_hashes(user, USER.names, ROW_KEY), ROW_KEY).tolist()


def run(folder: Path, new: Sequence[Sequence[Row]], old: Sequence[Sequence[Row]], **options: int) -> list[dict[int, str]]:
    """What each new file loses: row ids, with the reason."""
    parts = [part_of(folder, rows) for rows in new]
    scratch = str(folder / uuid.uuid4().hex)
    found = enforce(parts, [part_of(folder, rows) for rows in old], RULES, here, scratch, ROW_KEY, **options)
    empty = Losers(np.empty(0, np.int64), np.empty(0, np.int64))
    lost = [found.get(part.file.path, empty) for part in parts]
    return [{i: RULES[r].reason for i, r in zip(one.row_ids.tolist(), one.rules.tolist(), strict=True)} for one in lost]


def slow(new: Sequence[Sequence[Row]], old: Sequence[Sequence[Row]]) -> list[dict[int, str]]:
    """The same with a dictionary of all keys."""
    names = USER.names
    lost = dict[int, str]()
    for rule in reversed(RULES):  # the first rule has the last word
        held: dict[Any, tuple[set[int], set[int]]] = defaultdict(lambda: (set(), set()))
        for files, place in ((old, 0), (new, 1)):
            for rows in files:
                for row, row_id in zip(rows, ids_of(rows), strict=True):
                    key = tuple(row[names.index(name)] for name in rule.columns)
                    if None not in key:
                        held[tuple("nan" if value != value else value for value in key)][place].add(row_id)
        for stay, come in held.values():
            losing = come - stay if stay else come - {min(come)}
            lost.update(dict.fromkeys(losing, rule.reason))
    return [{row_id: lost[row_id] for row_id in ids_of(rows) if row_id in lost} for rows in new]


@settings(max_examples=60)
@given(new=FILES, old=FILES)
def test_the_losers_are_those_that_a_dictionary_finds(tmp_path: Path, new: list[list[Row]], old: list[list[Row]]) -> None:
    expected = slow(new, old)
    assert run(tmp_path, new, old) == expected
    assert run(tmp_path, new, old, few_keys=0, range_keys=3) == expected


@settings(max_examples=40)
@given(rows=st.lists(ROWS, max_size=10), old=st.lists(ROWS, max_size=4), data=st.data())
def test_how_rows_lie_in_files_does_not_matter(tmp_path: Path, rows: list[Row], old: list[Row], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(rows))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), min_size=2, max_size=2)))
    pieces = [shuffled[: cuts[0]], shuffled[cuts[0] : cuts[1]], shuffled[cuts[1] :]]
    together = {row_id: reason for lost in run(tmp_path, [rows], [old]) for row_id, reason in lost.items()}
    apart = {row_id: reason for lost in run(tmp_path, pieces, [old]) for row_id, reason in lost.items()}
    assert apart == together


@settings(max_examples=40)
@given(new=FILES, old=st.lists(ROWS, max_size=4))
def test_afterwards_every_key_is_kept_and_every_loser_is_told(tmp_path: Path, new: list[list[Row]], old: list[Row]) -> None:
    parts = [part_of(tmp_path, rows) for rows in new]
    found = enforce(parts, [part_of(tmp_path, old)], RULES, here, str(tmp_path / uuid.uuid4().hex), ROW_KEY)
    kept = list[list[Row]]()
    for part, rows in zip(parts, new, strict=True):
        lost = found.get(part.file.path, Losers(np.empty(0, np.int64), np.empty(0, np.int64)))
        pieces = list(without(part, lost, RULES))
        n_kept = sum(batch.num_rows for batch, _ in pieces)
        assert n_kept + sum(len(rejects) for _, rejects in pieces) == len(rows)
        assert all(batch.schema.names == SCHEMA.names for batch, _ in pieces)
        kept.append([tuple(row.values())[1:] for batch, _ in pieces for row in batch.to_pylist()])  # type: ignore[misc]
    assert not any(slow(kept, [old]))


@settings(max_examples=25)
@given(new=FILES, old=FILES)
def test_keys_whose_hashes_are_half_the_same_are_told_apart(tmp_path: Path, new: list[list[Row]], old: list[list[Row]]) -> None:
    def colliding(batch: Any, columns: Sequence[str], key: bytes) -> Any:
        hashes = row_hashes(batch, columns, key)
        hashes[:, 0] = 7
        return hashes

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unique, "row_hashes", colliding)
        found = run(tmp_path, new, old, few_keys=0)
    assert found == slow(new, old)


def test_rows_of_the_table_win_over_new_ones_and_copies_never_lose(tmp_path: Path) -> None:
    old = part_of(tmp_path, [(1, "x", 0.5)])
    rows: list[Row] = [(1, "x", 0.5), (1, "x", 0.25), (2, "y", None), (2, None, None), (2, None, 8.0)]
    new = part_of(tmp_path, rows, sources=[7, 8, 7, 8, 7])
    found = enforce([new], [old], RULES, here, str(tmp_path / "scratch"), ROW_KEY)
    ((batch, rejects),) = without(new, found[new.file.path], RULES)
    assert batch.column("c").to_pylist() == [0.5, None, None, 8.0]
    assert batch.column(SOURCE).to_pylist() == [7, 7, 8, 7]
    ((source, reject),) = rejects
    assert source == 8
    assert (reject.line, reject.reason, reject.raw) == (0, "contract: primary_key", '{"a":1,"b":"x","c":0.25}')


def test_files_from_before_a_column_break_no_key_of_it(tmp_path: Path) -> None:
    old = part_of(tmp_path, [(1, "x", 0.5)])
    narrow = replace(old, schema=pa.schema([SCHEMA.field("row_id"), SCHEMA.field("a")]))
    new = part_of(tmp_path, [(1, "x", 0.25)])
    assert enforce([new], [narrow], RULES, here, str(tmp_path / "scratch"), ROW_KEY) == {}


def test_without_rules_nothing_is_read(tmp_path: Path) -> None:
    gone = replace(part_of(tmp_path, [(1, "x", 0.5)]), uri=str(tmp_path / "gone"))
    assert enforce([gone], [gone], (), here, str(tmp_path), ROW_KEY) == {}
