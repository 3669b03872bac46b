"""Runs in scratch come back as they were, and what is searched range by range is what is searched at once."""

from __future__ import annotations

import dataclasses
import pickle
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.dedup import runs as module
from tasks.dedup.exact import N_RANGES, Counted, Run, count, merge_runs, run_of
from tasks.dedup.runs import Runs, Search, Spilled, TornRun, found_in, load, search, searches, spill, totals
from tests.local_bucket import local_bucket

Rows = list[int]
LEAST_BYTES = 1
POOL = np.random.default_rng(0).integers(0, 1 << 64, (60, 2), np.uint64)
ROWS = st.lists(st.integers(0, 59), max_size=60)


def run(rows: Rows) -> Run:
    return run_of(POOL[rows])


def same(a: Run, b: Run) -> bool:
    return all(np.array_equal(x, y) for x, y in ((a.low, b.low), (a.high, b.high), (a.counts, b.counts)))


def everything(
    runs: dict[str, Runs], pairs: list[tuple[str, str]], memory_bytes: int, limit_fraction: float = 1.0
) -> list[Counted]:
    jobs = searches(pairs, runs, memory_bytes=memory_bytes, limit_fraction=limit_fraction)
    sent: list[Search] = pickle.loads(pickle.dumps(jobs))
    return totals(jobs, [search(job) for job in sent], len(pairs))


@given(ROWS, st.integers(0, N_RANGES), st.integers(0, N_RANGES))
def test_a_spilled_run_is_read_range_by_range(rows: Rows, one: int, other: int) -> None:
    first, last = sorted((one, other))
    with tempfile.TemporaryDirectory() as scratch:
        whole = run(rows)
        spilled = spill(whole, scratch)
        assert (spilled.n_rows, spilled.n_distinct) == (len(rows), len(set(rows)))
        assert same(load(spilled), whole)
        assert same(load(spilled, first, last), load(whole, first, last))
        parts = [load(spilled, *bounds) for bounds in ((0, first), (first, last), (last, N_RANGES))]
        assert same(merge_runs(parts), whole)


@given(
    st.lists(st.lists(ROWS, min_size=1, max_size=3), min_size=1, max_size=4), st.sampled_from([LEAST_BYTES, 1 << 30]), st.data()
)
def test_the_road_changes_nothing(tables: list[list[Rows]], job_bytes: int, data: st.DataObject) -> None:
    """In memory or in scratch, in one job or in many, with one run or several: it is what counting at once finds."""
    with tempfile.TemporaryDirectory() as scratch, pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "JOB_BYTES", 700 if job_bytes == LEAST_BYTES else job_bytes)
        runs = dict[str, Runs]()
        for number, parts in enumerate(tables):
            is_spilled = [data.draw(st.booleans()) for _ in parts]
            made = [spill(run(p), scratch) if away else run(p) for p, away in zip(parts, is_spilled, strict=True)]
            runs[str(number)] = tuple(made)
        pairs = data.draw(st.lists(st.tuples(st.sampled_from([*runs]), st.sampled_from([*runs])), max_size=6))
        whole = {name: merge_runs([run(p) for p in tables[int(name)]]) for name in runs}
        expected = [count([whole[a]], [whole[b]], n_runs=1, limit_fraction=1.0)[0] for a, b in pairs]
        assert everything(runs, pairs, LEAST_BYTES) == expected
        stopped = everything(runs, pairs, LEAST_BYTES, 0.0)
        assert [(f.set, f.multiset) for f in stopped] == [(f.set, f.multiset) for f in expected]
        assert all(f.complete for f, e in zip(stopped, expected, strict=True) if e.set)


def test_a_large_pair_is_several_jobs_that_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MIN_BYTES", 1 << 16)
    rows = np.random.default_rng(1).integers(0, 1 << 64, (40_000, 2), np.uint64)
    parent = tuple(spill(run_of(part), str(tmp_path)) for part in np.array_split(rows, 5))
    child = tuple(spill(run_of(part), str(tmp_path)) for part in np.array_split(rows[10_000:30_000], 2))
    runs = {"child": child, "parent": parent}
    jobs = searches([("child", "parent")], runs, memory_bytes=1 << 16, limit_fraction=0.1)
    assert len(jobs) > 10
    assert all(24 * sum(len(load(r, job.first_range, job.last_range).low) for r in child) < 1 << 16 for job in jobs)
    assert [(job.first_range, job.last_range) for job in jobs][-1][1] == N_RANGES
    assert totals(jobs, [search(job) for job in jobs], 1) == [Counted(20_000, 20_000, 0, 0)]


def test_a_child_that_lacks_too_much_is_read_no_further(tmp_path: Path) -> None:
    rows = np.random.default_rng(1).integers(0, 1 << 64, (100_000, 2), np.uint64)
    parent = tuple(spill(run_of(part), str(tmp_path)) for part in np.array_split(rows[:50_000], 2))
    runs: dict[str, Runs] = {"in": (run_of(rows[:40_000]),), "out": (run_of(rows[50_000:]),), "parent": parent}
    inside, outside = everything(runs, [("in", "parent"), ("out", "parent")], 1 << 30, 0.1)
    assert inside == Counted(40_000, 40_000, 0, 0)
    assert not outside.complete and outside.n_missing_distinct < 1_000


def test_several_parents_are_one_and_say_who_has_what(tmp_path: Path) -> None:
    """A year and its two halves: neither holds it, both together do; row 5 is in both."""
    year, spring, autumn = run([*range(10)]), run([*range(6)]), spill(run([*range(5, 10)]), str(tmp_path))
    runs: dict[str, Runs] = {"year": (year,), "halves": (spring, autumn), "spring": (spring,)}
    together, alone = everything(runs, [("year", "halves"), ("year", "spring")], LEAST_BYTES)
    assert together == Counted(10, 10, 0, 0)
    assert alone == Counted(10, 10, 4, 4)
    rows, found = found_in((year,), [(spring,), (autumn,)])
    assert same(rows, year) and found.sum(axis=1).tolist() == [6, 5]
    parts = [found_in((year,), [(spring,), (autumn,)], first, first + 64)[1] for first in range(0, N_RANGES, 64)]
    assert np.array_equal(np.concatenate(parts, axis=1), found)


def test_a_torn_run_is_no_answer(tmp_path: Path) -> None:
    spilled = spill(run([*range(9)]), str(tmp_path))
    path = Path(spilled.uri)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(TornRun):
        load(spilled)


def test_an_empty_run_comes_back(tmp_path: Path) -> None:
    spilled = spill(run([]), str(tmp_path))
    assert dataclasses.asdict(spilled) == {"uri": spilled.uri, "n_rows": 0, "starts": (0,) * (N_RANGES + 1)}
    assert isinstance(spilled, Spilled) and load(spilled).n_distinct == 0


@pytest.fixture(name="bucket")
def _bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with local_bucket("lake", monkeypatch) as uri:
        yield f"{uri}/scratch"


@pytest.mark.s3
def test_runs_lie_in_a_bucket_as_in_a_folder(bucket: str) -> None:
    rows = np.random.default_rng(2).integers(0, 1 << 64, (50_000, 2), np.uint64)
    whole, nothing = run_of(rows), run_of(rows[:0])
    spilled = spill(whole, bucket)
    assert same(load(spilled), whole) and same(load(spilled, 3, 90), load(whole, 3, 90))
    assert same(load(spill(nothing, bucket)), nothing)
    runs: dict[str, Runs] = {"child": (run_of(rows[:30_000]),), "parent": (spilled,)}
    assert everything(runs, [("child", "parent")], LEAST_BYTES) == [Counted(30_000, 30_000, 0, 0)]
