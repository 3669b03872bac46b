"""The plan is the cheapest there is: against every plan of small graphs, and against dynamic programming on chains."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.settings import RetentionSettings
from tasks.dedup.retention import KEEP, RETIRE, PlanRow, rebuild_cost, rebuild_s, retention_plan, solve, store_cost

GB = 10**9
PRICES = RetentionSettings()


def cost(plan: list[PlanRow]) -> float:
    return sum(row.monthly_cost for row in plan)


def cheapest(store: list[float], edges: list[tuple[int, int]], rebuild: list[float]) -> float:
    """By trying every set of kept tables."""
    best = math.inf
    for kept in itertools.product((False, True), repeat=len(store)):
        total = sum(s for s, k in zip(store, kept, strict=True) if k)
        for v, keep in enumerate(kept):
            if not keep:
                total += min((r for (c, p), r in zip(edges, rebuild, strict=True) if c == v and kept[p]), default=math.inf)
        best = min(best, total)
    return best


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[float], list[tuple[int, int]], list[float]]:
    n = draw(st.integers(2, 7))
    price = st.integers(0, 1000).map(lambda cents: cents / 100)
    store = draw(st.lists(price, min_size=n, max_size=n))
    every = [(c, p) for c in range(n) for p in range(n) if c != p]
    edges = draw(st.lists(st.sampled_from(every), unique=True, max_size=14))
    return store, edges, draw(st.lists(price, min_size=len(edges), max_size=len(edges)))


@settings(max_examples=60, deadline=None)
@given(graphs(), st.sampled_from([1e-9, 1.0, 1e6]))
def test_no_plan_is_cheaper(graph: tuple[list[float], list[tuple[int, int]], list[float]], scale: float) -> None:
    store, edges, rebuild = graph
    chosen = solve(np.array(store) * scale, edges, np.array(rebuild) * scale)
    for v, k in enumerate(chosen):
        assert k is None or (edges[k][0] == v and chosen[edges[k][1]] is None)
    total = sum(store[v] if k is None else rebuild[k] for v, k in enumerate(chosen))
    assert total == pytest.approx(cheapest(store, edges, rebuild), abs=1e-6)


def chain_cost(sizes: list[int], prices: RetentionSettings) -> float:
    """F(j) = store_j + min over kept i before j of F(i) + the rebuilding of all between from i; sizes descend along the
    chain.
    """
    best = [store_cost(sizes[0], prices)]
    between = lambda i, j: sum(  # noqa: E731
        rebuild_cost(sizes[i], sizes[k], prices) if rebuild_s(sizes[i], prices) <= prices.max_rebuild_s else math.inf
        for k in range(i + 1, j)
    )
    for j in range(1, len(sizes)):
        best.append(store_cost(sizes[j], prices) + min(best[i] + between(i, j) for i in range(j)))
    return min(best[i] + between(i, len(sizes)) for i in range(len(sizes)))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 2000), min_size=1, max_size=12, unique=True),
    st.sampled_from([0.1, 1.0, 5.0]),
    st.sampled_from([60.0, 3600.0]),
)
def test_chains_agree_with_dynamic_programming(sizes: list[int], accesses: float, max_s: float) -> None:
    prices = RetentionSettings(accesses_per_month=accesses, max_rebuild_s=max_s)
    line = sorted((size * GB for size in sizes), reverse=True)
    names = [f"t{i:02}" for i in range(len(line))]
    edges = [(names[c], names[p]) for p, c in itertools.combinations(range(len(line)), 2)]
    plan = retention_plan(dict(zip(names, line, strict=True)), edges, {}, prices)
    assert cost(plan) == pytest.approx(chain_cost(line, prices), rel=1e-9)


def test_two_of_three_copies_go_and_the_smallest_stays() -> None:
    sizes = {"a": 5 * GB, "b": 4 * GB, "c": 6 * GB}
    plan = retention_plan(sizes, itertools.permutations(sizes, 2), {}, PRICES)
    assert [(row.table, row.action, row.parents) for row in plan] == [("a", RETIRE, ("b",)), ("b", KEEP, ()), ("c", RETIRE, ("b",))]
    assert plan[1].reason == "source of its copies"
    assert plan[0].monthly_cost == pytest.approx(4 * 0.0059 + 5 * 0.005)


def test_copies_of_a_retired_table_are_rebuilt_from_what_rebuilds_it() -> None:
    sizes = {"big": 10 * GB, "copy1": 9 * GB, "copy2": 9 * GB}
    edges = [("copy1", "big"), ("copy2", "big"), ("copy1", "copy2"), ("copy2", "copy1")]
    plan = {row.table: row for row in retention_plan(sizes, edges, {}, PRICES)}
    assert {name: row.parents for name, row in plan.items()} == {"big": (), "copy1": ("big",), "copy2": ("big",)}


@pytest.mark.parametrize("reason", ["low evidence", "empty"])
def test_a_table_listed_apart_is_kept(reason: str) -> None:
    plan = retention_plan({"a": GB, "b": 2 * GB}, [("a", "b")], {"a": reason}, PRICES)
    assert [(row.action, row.reason) for row in plan] == [(KEEP, reason), (KEEP, "no table contains it")]


def test_a_table_that_would_take_too_long_is_kept() -> None:
    plan = retention_plan({"a": 900 * GB, "b": 1000 * GB}, [("a", "b")], {}, PRICES)
    assert (plan[0].action, plan[0].reason) == (KEEP, "too slow to rebuild")


def test_a_small_part_of_a_large_table_is_cheaper_to_keep() -> None:
    plan = retention_plan({"a": GB, "b": 100 * GB}, [("a", "b")], {}, PRICES)
    assert (plan[0].action, plan[0].reason) == (KEEP, "cheaper to keep")


def test_no_tables_no_plan() -> None:
    assert retention_plan({}, [], {}, PRICES) == []
