"""A sketch depends on its set alone, never refutes a true containment, and estimates the others without bias."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.dedup.sketches import (
    ROW_FLOOR,
    ROW_SCALE,
    WHOLE,
    Sketch,
    Sketcher,
    as_row,
    canonical,
    compare_pairs,
    fraction_estimate,
    merged,
    n_common,
    of_row,
    pack,
    packed_rows,
    refuted,
    sketch_of,
)

HASH = st.one_of(st.integers(0, 40), st.integers(0, 2**64 - 1), st.integers(2**64 - 3, 2**64 - 1))
HASHES = st.lists(HASH, max_size=80)
SHAPE = st.fixed_dictionaries({"scale": st.sampled_from([1, 2, 7, 1024]), "floor": st.integers(1, 12)})


def array(values: list[int] | set[int]) -> np.ndarray:
    return np.array(list(values), np.uint64)


def slow(values: list[int] | set[int], *, scale: int, floor: int) -> tuple[int, list[int]]:
    distinct = sorted(set(values))
    if len(distinct) < floor:
        return 2**64 - 1, distinct
    bound = max((2**64 - 1) // scale, distinct[floor - 1])
    return bound, [h for h in distinct if h <= bound]


def plain(sketch: Sketch) -> tuple[int, list[int]]:
    assert sketch.hashes.dtype == np.uint64
    return int(sketch.bound), sketch.hashes.tolist()


def cut(values: list[int], at: list[int]) -> list[list[int]]:
    places = [0, *sorted(a % (len(values) + 1) for a in at), len(values)]
    return [values[a:b] for a, b in pairwise(places)]


@settings(max_examples=200, deadline=None)
@given(HASHES, st.lists(st.integers(0, 80), max_size=5), SHAPE)
def test_batches_make_the_sketch_of_the_whole(values: list[int], at: list[int], shape: dict[str, int]) -> None:
    sketcher = Sketcher(**shape)
    for batch in cut(values, at):
        sketcher.add(array(batch))
    assert plain(sketcher.done()) == plain(sketch_of(array(values), **shape)) == slow(values, **shape)


@settings(max_examples=200, deadline=None)
@given(HASHES, st.lists(st.integers(0, 80), max_size=5), SHAPE)
def test_files_add_up_to_their_table(values: list[int], at: list[int], shape: dict[str, int]) -> None:
    whole = merged([sketch_of(array(file), **shape) for file in cut(values, at)])
    assert whole.hashes.tolist() == [h for h in sorted(set(values)) if h <= int(whole.bound)]
    assert plain(canonical(whole, **shape)) == slow(values, **shape)


@settings(max_examples=200, deadline=None)
@given(HASHES, HASHES, st.lists(st.integers(0, 80), max_size=4), st.lists(st.integers(0, 80), max_size=4), SHAPE)
def test_a_true_containment_is_never_refuted(
    child: list[int], more: list[int], at: list[int], at_too: list[int], shape: dict[str, int]
) -> None:
    parent = [*more, *child]
    a = merged([sketch_of(array(file), **shape) for file in cut(child, at)])
    b = merged([sketch_of(array(file), **shape) for file in cut(parent, at_too)])
    _, n_missing = compare_pairs(pack([a]), pack([b]), np.array([[0, 0]]))
    assert not refuted(n_missing).any()


@settings(max_examples=200, deadline=None)
@given(st.lists(HASHES, min_size=1, max_size=4), st.lists(HASHES, min_size=1, max_size=4), SHAPE)
def test_pairs_are_compared_as_by_hand(children: list[list[int]], parents: list[list[int]], shape: dict[str, int]) -> None:
    a, b = ([sketch_of(array(values), **shape) for values in side] for side in (children, parents))
    pairs = np.argwhere(np.ones((len(a), len(b)), np.bool_))
    expected = []
    for c, p in pairs:
        low = [h for h in a[c].hashes.tolist() if h <= min(int(a[c].bound), int(b[p].bound))]
        expected.append((len(low), len(set(low) - set(b[p].hashes.tolist()))))
    n_compared, n_missing = compare_pairs(pack(a), pack(b), pairs)
    assert list(zip(n_compared.tolist(), n_missing.tolist(), strict=True)) == expected


@settings(max_examples=30, deadline=None)
@given(st.sets(HASH, max_size=5), st.sets(st.integers(0, 400), min_size=90, max_size=150))
def test_common_hashes_of_long_and_short_lists(few: set[int], many: set[int]) -> None:
    one, other = np.sort(array(few)), np.sort(array(many))
    assert n_common(one, other) == n_common(other, one) == len(few & many)


@settings(deadline=None)
@given(st.lists(HASHES, max_size=4), SHAPE)
def test_rows_of_profiles_keep_every_bit(sets: list[list[int]], shape: dict[str, int]) -> None:
    sketches = [sketch_of(array(values), **shape) for values in sets]
    rows = [as_row(sketch) for sketch in sketches]
    assert [plain(of_row(bound, hashes.tolist())) for bound, hashes in rows] == [plain(sketch) for sketch in sketches]
    offsets = np.cumsum([0, *(len(hashes) for _, hashes in rows)])
    values = np.concatenate([np.zeros(0, np.int64), *(hashes for _, hashes in rows)])
    packed = packed_rows(np.array([bound for bound, _ in rows], np.int64), offsets, values)
    assert [plain(packed.sketch(i)) for i in range(len(packed))] == [plain(sketch) for sketch in sketches]
    assert [plain(pack(sketches).sketch(i)) for i in range(len(sketches))] == [plain(sketch) for sketch in sketches]


def test_nothing_is_a_whole_set() -> None:
    assert plain(merged([])) == plain(sketch_of(array([]), scale=2, floor=3)) == (int(WHOLE), [])
    assert sketch_of(array([6, 5, 5]), scale=1024, floor=2).bound == (2**64 - 1) // 1024
    assert sketch_of(array([6, 5, 5]), scale=1024, floor=3).is_whole


@pytest.mark.parametrize(("n_child", "n_parent"), [(100, 200), (5_000, 20_000), (400_000, 600_000), (200, 600_000)])
@pytest.mark.parametrize("truth", [0.5, 0.95])
def test_estimates_are_unbiased_and_their_errors_true(n_child: int, n_parent: int, truth: float) -> None:
    rng = np.random.default_rng([n_child, n_parent, int(100 * truth)])
    shift, within, errors = 0.0, 0, []
    n_trials = 30
    for _ in range(n_trials):
        universe = rng.integers(0, 2**64 - 1, 2 * n_parent, np.uint64, endpoint=True)
        n_in = round(truth * n_child)
        child, parent = universe[:n_child], universe[n_child - n_in :][:n_parent]
        a, b = (pack([sketch_of(side, scale=ROW_SCALE, floor=ROW_FLOOR)]) for side in (child, parent))
        (fraction,), (error,) = fraction_estimate(*compare_pairs(a, b, np.array([[0, 0]])))
        shift += fraction - truth
        within += abs(fraction - truth) <= 3 * error
        errors.append(error)
    if n_parent < 1000:
        assert shift == pytest.approx(0.0)  # whole sets are compared whole
    elif n_child > 1000:
        assert abs(shift / n_trials) < 4 * np.mean(errors) / np.sqrt(n_trials)
    assert within >= n_trials - 2


def test_errors_are_never_nothing() -> None:
    n_compared, n_missing = np.array([0, 10, 10, 10, 1000]), np.array([0, 0, 5, 10, 0])
    fraction, error = fraction_estimate(n_compared, n_missing)
    assert fraction.tolist() == [0.5, 1.0, 0.5, 0.0, 1.0]
    assert error[0] == 0.5
    assert error[1] == error[3] == pytest.approx(0.05 / 1.1)
    assert 0 < error[4] < error[1] < error[2] == pytest.approx(np.sqrt(0.025 + 0.0025) / 1.1)
