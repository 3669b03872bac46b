"""Tables derived a data file at a time: whatever came before, they hold what measuring every file anew gives, each file once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import count

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra import per_file
from infra.contracts import CommitConflict, DataFile, Lineage, Snapshot
from infra.files import source_key, write_part
from infra.lake import Lake

SCHEMA = pa.schema([("row_id", pa.int64()), ("product", pa.int64())])
Rows = tuple[int, ...]
File = tuple[str, Rows]
numbers = count()


class Killed(Exception):
    """What ends a run half-way."""


@dataclass
class Pool:
    """Immutable files by name, and a table that is derived from them: each row, and `factor` times the row."""

    lake: Lake
    table: str
    factor: int = 1
    files: dict[str, Rows] = field(default_factory=dict[str, Rows])
    read: list[str] = field(default_factory=list[str])

    def append(self, rows: Rows) -> None:
        self.files[f"f{next(numbers)}"] = rows

    def pop(self, at: int) -> Rows:
        return self.files.pop([*self.files][at % len(self.files)]) if self.files else ()

    def compact(self) -> None:
        rows = [row for some in self.files.values() for row in some]
        self.files = {}
        self.append(tuple(rows))

    @property
    def wanted(self) -> dict[str, File]:
        return {source_key(name): (name, rows) for name, rows in self.files.items()}

    def run(self, *, killed_after: int | None = None, meanwhile: Callable[[], object] = lambda: None) -> Snapshot:
        """Bring the table up to date; `meanwhile` happens between measuring and the commit. `read` says what was measured."""
        self.read = []

        def measure(fresh: Sequence[File]) -> list[DataFile]:
            found = [self.measured(one) for one in fresh[:killed_after]]
            if killed_after is not None:
                raise Killed
            meanwhile()
            return found

        lineage = Lineage("test", "", "code", params={"factor": self.factor})
        return per_file.updated(self.lake, self.table, self.wanted, measure, schema=SCHEMA, lineage=lineage)

    def measured(self, file: File) -> DataFile:
        name, rows = file
        self.read.append(name)
        batch = pa.record_batch(
            [pa.array(rows, pa.int64()), pa.array([self.factor * row for row in rows], pa.int64())], schema=SCHEMA
        )
        return write_part(self.lake.folder(self.table), [batch], SCHEMA, source=name)

    def rows(self) -> list[tuple[int, int]]:
        rows = self.lake.read(self.lake.snapshot(self.table)).to_pylist()
        return sorted((row["row_id"], row["product"]) for row in rows)

    def anew(self) -> list[tuple[int, int]]:
        return sorted((row, self.factor * row) for rows in self.files.values() for row in rows)

    def known(self) -> list[str]:
        """Source keys of the table's files, as often as they are there."""
        if not self.lake.exists(self.table):
            return []
        return sorted(part.file.source for part in self.lake.parts(self.lake.snapshot(self.table)))


@pytest.fixture
def make_pool(make_lake: Callable[..., Lake]) -> Callable[[], Pool]:
    lake = make_lake()
    return lambda: Pool(lake, f"signals/d{next(numbers)}")


some_rows = st.lists(st.integers(0, 99), max_size=3).map(tuple)
changes = st.one_of(
    st.tuples(st.just("append"), some_rows),
    st.tuples(st.just("remove"), st.integers(0, 9)),
    st.tuples(st.just("erase a row"), st.integers(0, 9)),
    st.tuples(st.just("compact"), st.none()),
    st.tuples(st.just("killed"), st.integers(0, 2)),
    st.tuples(st.just("another run"), some_rows),
    st.tuples(st.just("an older run"), some_rows),
    st.tuples(st.just("measured otherwise"), st.none()),
)


def change(pool: Pool, what: str, argument: object) -> None:
    """One thing that happens to a pool between two runs."""
    if what == "append":
        pool.append(argument)
    elif what == "remove":
        pool.pop(argument)
    elif what == "erase a row":
        pool.append(pool.pop(argument)[1:])
    elif what == "compact":
        pool.compact()
    elif what == "killed":
        pool.append((1, 2))
        with suppress(Killed):
            pool.run(killed_after=argument)
    elif what == "another run":
        pool.append(argument)
        pool.run(meanwhile=replace(pool).run)
    elif what == "an older run":
        before = replace(pool, files=dict(pool.files))
        pool.pop(0)
        pool.append(argument)
        before.run(meanwhile=pool.run)
    else:
        pool.factor += 1


@settings(max_examples=25)
@given(st.lists(changes, max_size=6))
def test_it_holds_what_measuring_anew_gives_and_reads_only_what_is_new(make_pool: Callable[[], Pool], story: list) -> None:
    pool = make_pool()
    for what, argument in story:
        had, factor = set(pool.known()), pool.factor
        change(pool, what, argument)
        is_quiet = what in ("append", "remove", "erase a row", "compact", "killed")
        made = pool.run()
        assert pool.rows() == pool.anew() and pool.known() == sorted(pool.wanted)
        if is_quiet:
            assert sorted(map(source_key, pool.read)) == sorted(pool.wanted.keys() - had)
        if pool.factor != factor:
            assert len(pool.read) == len(pool.files)
        assert pool.run() == made and not pool.read


def test_two_runs_at_once_leave_each_file_once_and_both_are_answered(make_pool: Callable[[], Pool]) -> None:
    pool = make_pool()
    pool.append((1,))
    pool.run()
    pool.append((2, 3))
    other = replace(pool)
    others = list[Snapshot]()
    mine = pool.run(meanwhile=lambda: others.append(other.run()))
    assert mine == others[0] and pool.rows() == [(1, 1), (2, 2), (3, 3)] and len(pool.known()) == 2
    assert pool.read == other.read == [[*pool.files][-1]]


def test_a_run_that_meets_others_again_and_again_says_so(make_pool: Callable[[], Pool], monkeypatch: pytest.MonkeyPatch) -> None:
    pool = make_pool()
    pool.append((1,))

    def refuse(*_: object, **__: object) -> Snapshot:
        raise CommitConflict("another writer was first")

    monkeypatch.setattr(pool.lake, "commit", refuse)
    with pytest.raises(CommitConflict):
        pool.run()
    assert len(pool.read) == 1


def test_a_pool_of_no_file_has_an_empty_table_that_is_made_once(make_pool: Callable[[], Pool]) -> None:
    pool = make_pool()
    assert pool.run() == pool.run() and pool.rows() == []


def test_what_left_the_pool_is_let_go_without_measuring(make_pool: Callable[[], Pool]) -> None:
    pool = make_pool()
    per_file.let_go(pool.lake, pool.table, pool.wanted)
    assert not pool.lake.exists(pool.table)
    pool.append((1, 2))
    pool.append((3,))
    before = pool.run()
    pool.pop(0)
    per_file.let_go(pool.lake, pool.table, pool.wanted)
    after = pool.lake.snapshot(pool.table)
    assert pool.rows() == [(3, 3)] and pool.lake.lineage(after) == pool.lake.lineage(before)
    assert pool.run() == after
    assert [part.file.source for part in per_file.by_source(pool.lake, after).values()] == [*pool.wanted]
