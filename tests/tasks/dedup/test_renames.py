"""Planted renames are proposed, what is false does not survive the exact check, and a plan finds the pairs of the slow road."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import permutations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.rowhash import cell_hashes, finish, row_hashes
from tasks.dedup.rename_plan import rename_plan
from tasks.dedup.renames import ANY_NAME, MAX_CANDIDATES, MAX_MAPPINGS, MAX_PARENTS, Proposal, best_assignments, proposals
from tasks.dedup.schema_graph import kind_of
from tasks.dedup.sketches import COLUMN_FLOOR, COLUMN_SCALE, Sketch, sketch_of

KEY = b"secret"
SCHEMA = st.dictionaries(st.sampled_from("abcdefg"), st.sampled_from(["int", "int", "string", "null"]), max_size=6)

# --- the plan ------------------------------------------------------------------------------------------------------------------


def unshared(child: Mapping[str, str], parent: Mapping[str, str]) -> dict[str, str]:
    return {name: kind for name, kind in child.items() if parent.get(name) != kind}


def is_plausible(child: Mapping[str, str], parent: Mapping[str, str]) -> bool:
    if any(len(one) < 2 or "null" in one.values() for one in (child, parent)) or len(child) > len(parent):
        return False
    ours, theirs = unshared(child, parent), unshared(parent, child)
    near = 2 * (len(child) - len(ours)) >= len(child) or len(child) == len(parent)
    meets = len(ours) < len(child) or Counter(child.values()) == Counter(parent.values())
    return bool(ours) and near and meets and Counter(ours.values()) <= Counter(theirs.values())


@settings(max_examples=150, deadline=None)
@given(st.lists(SCHEMA, max_size=10))
def test_the_plan_is_that_of_the_slow_road(schemas: list[dict[str, str]]) -> None:
    plan = rename_plan(schemas)
    found = {(c, p) for a, b in plan.pairs for c in plan.classes[a].members for p in plan.classes[b].members}
    expected = {(c, p) for c, a in enumerate(schemas) for p, b in enumerate(schemas) if is_plausible(a, b)}
    assert found == expected
    wanted = {table: set[str]() for table in range(len(schemas))}
    for c, p in expected:
        ours, theirs = unshared(schemas[c], schemas[p]), unshared(schemas[p], schemas[c])
        wanted[c] |= ours.keys()
        wanted[p] |= {name for name, kind in theirs.items() if kind in ours.values()}
    assert plan.wanted() == {table: tuple(sorted(names)) for table, names in wanted.items() if names}
    assert plan.complete


@settings(max_examples=100, deadline=None)
@given(st.lists(SCHEMA, max_size=10), st.integers(0, 60), st.integers(0, 20), st.integers(0, 20))
def test_a_plan_keeps_its_bounds(schemas: list[dict[str, str]], looks: int, n_pairs: int, n_columns: int) -> None:
    whole = {tuple(pair) for pair in rename_plan(schemas).pairs.tolist()}
    plan = rename_plan(schemas, max_looks=looks, max_pairs=n_pairs, max_columns=n_columns)
    some = {tuple(pair) for pair in plan.pairs.tolist()}
    assert some <= whole
    assert some == whole or not plan.complete
    assert len(some) <= n_pairs
    assert sum(map(len, plan.wanted().values())) <= n_columns


def test_the_commonest_names_go_first() -> None:
    rare = [{"id": "int", "rare": "int", "x": "int"}, {"id": "int", "rare": "int", "y": "int"}]
    common = [{"id": "int", f"a{i}": "string", f"b{i}": "float"} for i in range(100)]
    plan = rename_plan([*rare, *common], max_looks=50)
    assert not plan.complete
    assert plan.wanted() == {0: ("x",), 1: ("y",)}


# --- proposals -----------------------------------------------------------------------------------------------------------------


def sketch(cells: np.ndarray) -> Sketch:
    return sketch_of(np.ascontiguousarray(cells[:, 0]), scale=COLUMN_SCALE, floor=COLUMN_FLOOR)


def proposed(tables: Sequence[pa.Table], *, with_named: bool = False) -> list[Proposal]:
    plan = rename_plan([{name.lower(): kind_of(t.schema.field(name).type) for name in t.column_names} for t in tables])
    wanted = plan.wanted()
    sketches = {(t, n): sketch(cell_hashes(tables[t][n], ANY_NAME, KEY)) for t, names in wanted.items() for n in names}
    named = {(i, n): sketch(cell_hashes(t[n], n, KEY)) for i, t in enumerate(tables) for n in t.column_names}
    return proposals(plan, sketches, [t.num_rows for t in tables], named=named if with_named else None)


def verified(tables: Sequence[pa.Table], one: Proposal) -> bool:
    """The exact check: the child's cells under the parent's names."""
    child, parent = tables[one.child], tables[one.parent]
    sums = sum(cell_hashes(child[ours], theirs, KEY) for ours, theirs in one.columns)
    wanted = row_hashes(parent, [theirs for _, theirs in one.columns], KEY)
    return set(map(tuple, finish(sums).tolist())) <= set(map(tuple, wanted.tolist()))


def truths(tables: Sequence[pa.Table]) -> set[tuple[int, int]]:
    """Every pair for which some mapping of the columns, of one kind and not all of one name, holds; the slow road."""
    found = set[tuple[int, int]]()
    for c, child in enumerate(tables):
        for p, parent in enumerate(tables):
            rows = {name: parent[name].to_pylist() for name in parent.column_names}
            for names in permutations(parent.column_names, child.num_columns):
                kinds = all(child[a].type == parent[b].type for a, b in zip(child.column_names, names, strict=True))
                shared = all(a == b for a, b in zip(child.column_names, names, strict=True) if a in rows)
                if c == p or not kinds or not shared or list(names) == child.column_names:
                    continue
                mine = set(zip(*(child[a].to_pylist() for a in child.column_names), strict=True))
                if mine <= set(zip(*(rows[b] for b in names), strict=True)):
                    found.add((c, p))
    return found


@st.composite
def lakes(draw: st.DrawFn) -> list[pa.Table]:
    tables = list[pa.Table]()
    for _ in range(draw(st.integers(1, 3))):
        n = draw(st.integers(1, 8))
        root = {name: draw(st.lists(st.integers(0, 9), min_size=n, max_size=n)) for name in "abc"}
        tables.append(pa.table({name: pa.array(values, pa.int64()) for name, values in root.items()}))
        rows = draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=n))
        columns = draw(st.lists(st.sampled_from("abc"), min_size=2, max_size=3, unique=True))
        names = draw(st.lists(st.sampled_from("abcxyz"), min_size=len(columns), max_size=len(columns), unique=True))
        tables.append(pa.table({new: tables[-1][old].take(rows) for new, old in zip(names, columns, strict=True)}))
    return tables


@settings(max_examples=60, deadline=None)
@given(lakes(), st.booleans())
def test_small_lakes_are_searched_as_by_hand(tables: list[pa.Table], with_named: bool) -> None:
    found = proposed(tables, with_named=with_named)
    schemas = [dict.fromkeys(t.column_names, "int") for t in tables]
    expected = {(c, p) for c, p in truths(tables) if is_plausible(schemas[c], schemas[p])}
    survivors = {(one.child, one.parent) for one in found if verified(tables, one)}
    assert survivors <= expected
    lost = expected - survivors
    n_mappings = Counter((one.child, one.parent) for one in found)
    assert all(n_mappings[pair] == MAX_MAPPINGS for pair in lost)  # only where the likeliest mappings are not all
    assert max(n_mappings.values(), default=0) <= MAX_MAPPINGS


def family(rng: np.random.Generator, n: int) -> pa.Table:
    return pa.table(
        {
            "id": rng.permutation(10 * n)[:n],
            "name": [f"name {i}" for i in rng.integers(0, n, n)],
            "price": rng.normal(size=n),
            "is_new": rng.random(n) < 0.5,
            "is_sold": rng.random(n) < 0.5,
        }
    )


@pytest.mark.parametrize("n", [50, 3_000])
def test_planted_renames_are_found_among_near_misses(n: int) -> None:
    rng = np.random.default_rng(n)
    tables, expected = list[pa.Table](), set[tuple[int, int]]()
    for f in range(12):
        root = family(rng, n)
        rows = np.sort(rng.choice(n, n // 2, replace=False))
        child = root.take(rows).select(["id", "name", "price", "is_sold"]).rename_columns(["id", "name", "cost", "gone"])
        whole = root.rename_columns(list("vwxyz"))
        swapped = child.set_column(2, "cost", child["cost"].take(rng.permutation(len(rows))))
        changed = child.set_column(0, "id", pa.array([-1, *child["id"].to_pylist()[1:]]))
        tables += [root, child, swapped, changed, whole]
        expected |= {(5 * f + 1, 5 * f), (5 * f, 5 * f + 4), (5 * f + 4, 5 * f)}
    found = proposed(tables, with_named=True)
    survivors = [one for one in found if verified(tables, one)]
    assert {(one.child, one.parent) for one in survivors} == expected
    assert len(survivors) == len(expected)
    right = (("cost", "price"), ("gone", "is_sold"), ("id", "id"), ("name", "name"))
    assert all(one.columns == right for one in survivors if one.child % 5 == 1)
    assert len(found) <= MAX_MAPPINGS * len(expected)  # the near misses fall to their sketches, or share mappings with these


def test_a_flag_under_another_name_is_tried_in_all_its_places() -> None:
    root = pa.table({"id": range(4), "x": [1, 0, 1, 0], "y": [0, 0, 1, 1], "z": [5, 6, 7, 8]})
    child = root.select(["id", "y"]).rename_columns(["id", "flag"])
    found = proposed([root, child])
    assert {one.columns for one in found} == {(("flag", "x"), ("id", "id")), (("flag", "y"), ("id", "id"))}
    assert [one.columns for one in found if verified([root, child], one)] == [(("flag", "y"), ("id", "id"))]


def test_candidates_are_bounded_and_the_smallest_parents_are_kept() -> None:
    values = pa.array(range(100))
    child = pa.table({"id": values, "x": values})
    parents = [pa.table({"id": pa.array(range(100 + i)), "y": pa.array(range(100 + i))}) for i in range(MAX_CANDIDATES + 9)]
    found = [one for one in proposed([*reversed(parents), child]) if one.child == len(parents)]
    assert [len(parents) - 1 - one.parent for one in found] == list(reversed(range(MAX_PARENTS)))


def test_an_empty_lake_has_no_proposals() -> None:
    assert proposed([]) == proposed([pa.table({"a": [1], "b": [2]})]) == []


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 8), st.integers(0, 999))
def test_assignments_are_the_best_by_hand(n: int, m: int, limit: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    alike, allowed = rng.random((n, m)), rng.random((n, m)) < 0.7
    every = [columns for columns in permutations(range(m), n) if all(allowed[i, c] for i, c in enumerate(columns))]
    every.sort(key=lambda columns: -sum(alike[i, c] for i, c in enumerate(columns)))
    assert best_assignments(alike, allowed, limit) == every[:limit]
