"""The plan is the cheapest there is: against every plan of small lakes, and against dynamic programming on chains."""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.price_book import RetentionSettings
from tasks.dedup.access import Accesses
from tasks.dedup.edges import EXACT, FINGERPRINT, Cover, Edge, Rename
from tasks.dedup.options import ARCHIVE, KEEP, RETIRE
from tasks.dedup.prices import archive_cost, keep_cost, rebuild_cost, rebuild_s
from tasks.dedup.retention import Plan, Way, plan_from, retention_plan, solve
from tasks.dedup.savings import sentence

GB = 10**9
PRICES = RetentionSettings()


def edge(child: str, parent: str, n_residual: int = 0) -> Edge:
    whole = n_residual == 0
    return Edge(child, parent, 1.0 if whole else 0.95, whole, whole, True, EXACT, 0, 0, n_residual)


def edges_of(pairs: Sequence[tuple[str, str]]) -> list[Edge]:
    return [edge(child, parent) for child, parent in pairs]


def planned(sizes: dict[str, int], pairs: Sequence[tuple[str, str]], prices: RetentionSettings = PRICES, **more: object) -> Plan:
    return retention_plan(sizes, dict.fromkeys(sizes, 100), edges_of(pairs), (), {}, prices, **more)  # type: ignore[arg-type]


def cost(plan: Plan) -> float:
    return sum(row.monthly_cost for row in plan.rows)


def actions(plan: Plan) -> dict[str, str]:
    return {row.table: row.action for row in plan.rows}


# --- the solver ----------------------------------------------------------------------------------------------------------------


def cheapest(keep: Sequence[float], ways: Sequence[Way], costs: Sequence[float]) -> float:
    """By trying every set of kept tables."""
    best = math.inf
    for kept in itertools.product((False, True), repeat=len(keep)):
        total = sum(c for c, k in zip(keep, kept, strict=True) if k)
        for v in (v for v, k in enumerate(kept) if not k):
            total += min(
                (c for (w, ps), c in zip(ways, costs, strict=True) if w == v and all(kept[p] for p in ps)), default=math.inf
            )
        best = min(best, total)
    return best


@st.composite
def choices(draw: st.DrawFn) -> tuple[list[float], list[Way], list[float]]:
    n = draw(st.integers(2, 7))
    price = st.integers(0, 1000).map(lambda cents: cents / 100)
    keep = draw(st.lists(price, min_size=n, max_size=n))
    table = st.integers(0, n - 1)
    way = st.tuples(table, st.frozensets(table, max_size=3)).map(lambda w: (w[0], tuple(sorted(w[1] - {w[0]}))))
    ways = draw(st.lists(way, unique=True, max_size=14))
    return keep, ways, draw(st.lists(price, min_size=len(ways), max_size=len(ways)))


@settings(max_examples=80, deadline=None)
@given(choices(), st.sampled_from([1e-9, 1.0, 1e6]))
def test_no_plan_is_cheaper(choice: tuple[list[float], list[Way], list[float]], scale: float) -> None:
    keep, ways, costs = choice
    taken = solve(np.array(keep) * scale, ways, np.array(costs) * scale).taken
    for v, k in enumerate(taken):
        assert k is None or (ways[k][0] == v and all(taken[p] is None for p in ways[k][1]))
    total = sum(keep[v] if k is None else costs[k] for v, k in enumerate(taken))
    assert total == pytest.approx(cheapest(keep, ways, costs), abs=1e-6)


def test_many_small_parts_are_solved_at_once_each_on_its_own_scale() -> None:
    keep = np.tile([4.0, 3.0, 2.0], 1500) * np.repeat(10.0 ** (np.arange(1500) % 7 - 3), 3)
    ways = [(3 * i + c, (3 * i + p,)) for i in range(1500) for c, p in ((1, 0), (2, 1), (2, 0), (0, 1))]
    costs = np.concatenate([np.array([1.0, 0.1, 1.9, 2.5]) * keep[3 * i] / 4 for i in range(1500)])
    assert solve(keep, ways, costs).taken == [k if k is None else 4 * i + k for i in range(1500) for k in (3, None, 1)]


def lake_of(n: int) -> tuple[dict[str, int], list[Edge]]:
    """Derivations: some raw tables, the others parts of earlier ones, and so of all that these are part of."""
    rng = np.random.default_rng(4)
    sizes, above = dict[str, int](), dict[str, list[str]]()
    for i in range(n):
        name = f"t{i:05}"
        if i < n // 10 or rng.random() < 0.1:
            sizes[name], above[name] = int(rng.lognormal(20, 2)), []
        else:
            parent = f"t{int(i * rng.uniform(0.4, 1.0)):05}"
            sizes[name], above[name] = max(1, int(sizes[parent] * rng.uniform(0.05, 1.0))), [parent, *above[parent]]
    return sizes, edges_of([(child, parent) for child, parents in above.items() for parent in parents])


def test_a_lake_of_twenty_thousand_tables_takes_seconds() -> None:
    sizes, edges = lake_of(20_000)
    start = time.perf_counter()
    plan = retention_plan(sizes, dict.fromkeys(sizes, 100), edges, (), {}, PRICES)
    assert time.perf_counter() - start < 60.0
    kept = {row.table for row in plan.rows if row.action == KEEP}
    assert all(set(row.parents) <= kept for row in plan.rows)
    assert plan.savings.gap == 0.0 and plan.savings.n_retired > 5000
    assert len(edges) > 40_000


def test_a_part_that_takes_too_long_gets_the_best_plan_found() -> None:
    rng = np.random.default_rng(1)
    ways = [(int(v), (int(u),)) for v, u in rng.integers(0, 400, (1200, 2)) if u != v]
    keep, costs = rng.uniform(1, 2, 400), rng.uniform(0.1, 0.9, len(ways))
    solved = solve(keep, ways, costs, limit_s=0.0)
    assert solved.gap > 0.0
    assert all(k is None or solved.taken[ways[k][1][0]] is None for k in solved.taken)
    assert sum(keep[v] if k is None else costs[k] for v, k in enumerate(solved.taken)) <= keep.sum() + 1e-9


# --- the plan ------------------------------------------------------------------------------------------------------------------

Lake = tuple[dict[str, int], list[Edge], list[Cover], RetentionSettings]


@st.composite
def lakes(draw: st.DrawFn) -> Lake:
    """Small lakes of chains, covers and residual rows, at prices where each action pays now and then."""
    n = draw(st.integers(1, 6))
    names = [f"t{i}" for i in range(n)]
    sizes = {name: draw(st.integers(1, 2000)) * GB // 10 for name in names}
    pairs = draw(st.lists(st.sampled_from(list(itertools.permutations(names, 2)) or [("", "")]), unique=True, max_size=9))
    forward = [(c, p) for c, p in pairs if c > p]  # no equal tables
    edges = [edge(c, p, draw(st.sampled_from([0, 0, 1, 30]))) for c, p in forward]
    sets = st.frozensets(st.sampled_from(names), min_size=2, max_size=3)
    whole = draw(st.lists(sets, max_size=3, unique=True)) if n > 2 else []
    covers = [Cover(max(some), tuple(sorted(some - {max(some)})), True, 0, ()) for some in whole if len(some) == 3]
    prices = RetentionSettings(
        accesses_per_month=draw(st.sampled_from([0.0, 0.1, 1.0, 5.0])),
        max_rebuild_s=draw(st.sampled_from([60.0, 300.0, 3600.0])),
        maintenance_gb_month=draw(st.sampled_from([0.0, 0.01])),
        archive=draw(st.booleans()),
        archive_latency_s=draw(st.sampled_from([0.0, 120.0])),
        archive_stay_days=draw(st.sampled_from([30.0, 365.0])),
        min_saving_month=draw(st.sampled_from([0.0, 0.5])),
    )
    return sizes, edges, covers, prices


def by_trying_all(lake: Lake, needed: Sequence[str] = ()) -> float:
    """Every assignment of an action and a source to every table."""
    sizes, edges, covers, prices = lake
    ways: dict[str, list[tuple[float, tuple[str, ...]]]] = {}
    for name, size in sizes.items():
        keep = keep_cost(size, prices).fixed
        found = [(archive_cost(size, prices), (), prices.archive_latency_s)] if prices.archive else []
        for parents, residual in [((e.parent,), size * e.n_residual / 100) for e in edges if e.child == name] + [
            (c.parents, 0) for c in covers if c.child == name
        ]:
            scanned, rest = sum(sizes[p] for p in parents), math.ceil(residual)
            found.append((rebuild_cost(scanned, size, prices, residual_bytes=rest), parents, rebuild_s(scanned + rest, 0.2)))
        priced = [(c.monthly(prices.accesses_per_month), parents) for c, parents, wait in found if wait <= prices.max_rebuild_s]
        worth = [(c, parents) for c, parents in priced if keep - c >= prices.min_saving_month and name not in needed]
        ways[name] = [(keep, ("",)), *worth]
    totals = []
    for plan in itertools.product(*ways.values()):
        kept = {name for name, (_, parents) in zip(ways, plan, strict=True) if parents == ("",)}
        if all(parents == ("",) or set(parents) <= kept for _, parents in plan):
            totals.append(sum(c for c, _ in plan))
    return min(totals)


def plan_of(lake: Lake, **more: object) -> Plan:
    sizes, edges, covers, prices = lake
    return retention_plan(sizes, dict.fromkeys(sizes, 100), edges, covers, {}, prices, **more)  # type: ignore[arg-type]


@settings(max_examples=120, deadline=None)
@given(lakes())
def test_the_plan_of_a_small_lake_is_the_best_of_all(lake: Lake) -> None:
    plan = plan_of(lake)
    assert cost(plan) == pytest.approx(by_trying_all(lake), rel=1e-9)
    kept = {row.table for row in plan.rows if row.action == KEEP}
    for row in plan.rows:
        assert set(row.parents) <= kept and bool(row.parents) == (row.action == RETIRE)
        assert row.rebuild_s <= lake[3].max_rebuild_s
    before = sum(keep_cost(size, lake[3]).fixed for size in lake[0].values())
    assert cost(plan) <= before
    assert plan.savings.monthly_cost == pytest.approx(cost(plan)) and plan.savings.monthly_saving == pytest.approx(
        before - cost(plan)
    )


@settings(max_examples=40, deadline=None)
@given(lakes(), st.data())
def test_what_is_needed_stays_and_the_rest_is_the_best_there_is(lake: Lake, data: st.DataObject) -> None:
    needed = data.draw(st.sets(st.sampled_from(sorted(lake[0]))))
    plan = plan_of(lake, needed=dict.fromkeys(needed, "needed by reader crm"))
    assert all(row.action == KEEP and row.reason == "needed by reader crm" for row in plan.rows if row.table in needed)
    assert cost(plan) == pytest.approx(by_trying_all(lake, sorted(needed)), rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(lakes())
def test_more_time_never_costs_more(lake: Lake) -> None:
    costs = [cost(plan_of((*lake[:3], lake[3].model_copy(update={"max_rebuild_s": s})))) for s in (0.0, 60.0, 900.0, 1e9)]
    assert all(later <= sooner * (1 + 1e-9) for sooner, later in itertools.pairwise(costs))


PRICE_KEYS = [name for name in RetentionSettings.model_fields if name.endswith(("_gb", "_gb_month", "_1000", "saving_month"))]


@settings(max_examples=40, deadline=None)
@given(lakes(), st.sampled_from([1e-6, 0.5, 1000.0]))
def test_prices_in_another_currency_give_the_same_plan(lake: Lake, rate: float) -> None:
    assert len(PRICE_KEYS) == 12
    other = lake[3].model_copy(update={key: getattr(lake[3], key) * rate for key in PRICE_KEYS})
    assert cost(plan_of((*lake[:3], other))) == pytest.approx(cost(plan_of(lake)) * rate, rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(lakes())
def test_each_need_is_true_and_is_the_least(lake: Lake) -> None:
    """A limit on time raised to what a need says frees its table and saves at least what it says; a second less does not, unless
    through a parent that the plan does not keep.
    """
    before = plan_of(lake)
    for need in before.savings.needs:
        if need.constraints != ("too slow to rebuild",):
            continue
        limit = int(need.change.removeprefix("max_rebuild_s >= "))
        own = lake[3].model_copy(update={"max_rebuild_s_of": {need.table: float(limit)}})
        assert cost(before) - cost(plan_of((*lake[:3], own))) >= need.monthly_saving * (1 - 1e-9)
        possible = {e.parent for e in lake[1] if e.child == need.table} | {
            p for c in lake[2] if c.child == need.table for p in c.parents
        }
        if any(actions(before)[parent] != KEEP for parent in possible):
            continue
        less = lake[3].model_copy(update={"max_rebuild_s_of": {need.table: limit - 1.0}})
        assert actions(plan_of((*lake[:3], less)))[need.table] == actions(before)[need.table]


@settings(max_examples=60, deadline=None)
@given(lakes(), st.data())
def test_what_each_need_promises_comes_true(lake: Lake, data: st.DataObject) -> None:
    """Lifting the constraints of any need saves at least what it says; fewer accesses, at most."""
    sizes = lake[0]
    needed = dict.fromkeys(data.draw(st.sets(st.sampled_from(sorted(sizes)))), "needed by reader crm")
    prices = lake[3].model_copy(update={"keep": tuple(data.draw(st.sets(st.sampled_from(sorted(sizes)))))})
    before = plan_of((*lake[:3], prices), needed=needed)
    for need in before.savings.needs:
        if "cheaper to keep" in need.constraints:
            continue
        update = {"keep": tuple(name for name in prices.keep if name != need.table), "max_rebuild_s_of": {need.table: 1e9}}
        freed = prices.model_copy(update={**update, "min_saving_month": 0.0})
        after = plan_of((*lake[:3], freed), needed={name: why for name, why in needed.items() if name != need.table})
        assert cost(before) - cost(after) >= need.monthly_saving * (1 - 1e-9) > 0.0


def chain_cost(sizes: list[int], prices: RetentionSettings) -> float:
    """F(j) = keep_j + min over kept i before j of F(i) + all between, each archived or rebuilt from i, whichever is cheaper;
    sizes descend along the chain. Of two kept tables the smaller is the better source, so none reaches beyond.
    """
    accesses = prices.accesses_per_month

    def away(i: int | None, k: int) -> float:
        cold = archive_cost(sizes[k], prices).monthly(accesses) if prices.archive else math.inf
        if i is None or rebuild_s(sizes[i], 0.2) > prices.max_rebuild_s:
            return cold
        return min(cold, rebuild_cost(sizes[i], sizes[k], prices).monthly(accesses))

    between = lambda i, j: sum(away(i, k) for k in range(0 if i is None else i + 1, j))  # noqa: E731
    best = list[float]()
    for j in range(len(sizes)):
        befores = [between(None, j), *(best[i] + between(i, j) for i in range(j))]
        best.append(keep_cost(sizes[j], prices).fixed + min(befores))
    ends = [between(None, len(sizes)), *(best[i] + between(i, len(sizes)) for i in range(len(sizes)))]
    return min(ends)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 2000), min_size=1, max_size=12, unique=True),
    st.sampled_from([0.0, 0.1, 0.6, 1.0, 5.0]),
    st.sampled_from([60.0, 3600.0]),
    st.booleans(),
)
def test_chains_agree_with_dynamic_programming(sizes: list[int], accesses: float, max_s: float, archive: bool) -> None:
    prices = RetentionSettings(accesses_per_month=accesses, max_rebuild_s=max_s, archive=archive)
    line = sorted((size * GB for size in sizes), reverse=True)
    names = [f"t{i:02}" for i in range(len(line))]
    pairs = [(names[c], names[p]) for p, c in itertools.combinations(range(len(line)), 2)]
    assert cost(planned(dict(zip(names, line, strict=True)), pairs, prices)) == pytest.approx(chain_cost(line, prices), rel=1e-9)


# --- examples for the eye ------------------------------------------------------------------------------------------------------


def test_two_of_three_copies_go_and_the_smallest_stays() -> None:
    sizes = {"a": 5 * GB, "b": 4 * GB, "c": 6 * GB}
    plan = planned(sizes, list(itertools.permutations(sizes, 2)))
    rows = plan.rows
    assert [(row.table, row.action, row.parents) for row in rows] == [
        ("a", RETIRE, ("b",)),
        ("b", KEEP, ()),
        ("c", RETIRE, ("b",)),
    ]
    assert rows[1].reason == "source of its copies"
    assert rows[0].monthly_cost == pytest.approx(4 * 0.005, rel=0.2)
    assert plan.savings.bytes_freed == 11 * GB


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 100), min_size=2, max_size=5), st.booleans())
def test_of_copies_the_best_one_stays(sizes: list[int], archive: bool) -> None:
    prices = RetentionSettings(archive=archive, accesses_per_month=0.5)
    named = {f"t{i}": size * GB for i, size in enumerate(sizes)}
    plan = planned(named, list(itertools.permutations(named, 2)), prices)
    assert cost(plan) == pytest.approx(by_trying_all((named, edges_of(list(itertools.permutations(named, 2))), [], prices)))


def test_of_copies_the_one_that_all_read_stays() -> None:
    sizes = {"busy": 5 * GB, "idle": 4 * GB}
    prices = RetentionSettings(accesses={"busy": 1000.0, "id*": 0.1})
    assert actions(planned(sizes, [("busy", "idle"), ("idle", "busy")], prices)) == {"busy": KEEP, "idle": RETIRE}


def test_of_copies_the_one_that_is_needed_stays() -> None:
    sizes = {"a": 5 * GB, "b": 4 * GB}
    both = [("a", "b"), ("b", "a")]
    assert actions(planned(sizes, both, needed={"a": "needed by model tickets"})) == {"a": KEEP, "b": RETIRE}


def test_copies_of_a_retired_table_are_rebuilt_from_what_rebuilds_it() -> None:
    sizes = {"big": 10 * GB, "copy1": 9 * GB, "copy2": 9 * GB}
    plan = planned(sizes, [("copy1", "big"), ("copy2", "big"), ("copy1", "copy2"), ("copy2", "copy1")])
    assert {row.table: row.parents for row in plan.rows} == {"big": (), "copy1": ("big",), "copy2": ("big",)}


def test_a_year_is_rebuilt_from_its_months() -> None:
    sizes = {"year": 12 * GB, "h1": 6 * GB, "h2": 7 * GB}
    cover = Cover("year", ("h1", "h2"), True, 0, (0, 0))
    plan = retention_plan(sizes, dict.fromkeys(sizes, 5), [], [cover], {}, PRICES)
    row = plan.rows[2]
    assert (row.action, row.parents, row.reason) == (RETIRE, ("h1", "h2"), "rebuilt from its 2 parents")
    assert row.rebuild_s == pytest.approx(13 / 0.2)


def test_rows_that_the_parent_lacks_stay_stored_and_paid() -> None:
    sizes, rows = {"a": 10 * GB, "b": 11 * GB}, {"a": 1000, "b": 1100}
    plan = retention_plan(sizes, rows, [edge("a", "b", 100)], (), {}, RetentionSettings(accesses_per_month=0.0, archive=False))
    assert plan.rows[0].monthly_cost == pytest.approx(1 * 0.023)
    assert plan.savings.bytes_freed == 9 * GB
    assert plan.rows[0].reason == "rebuilt from its parent and 100 rows that stay stored"


def test_only_what_was_checked_exactly_is_a_source() -> None:
    sizes = {"a": 10 * GB, "b": 11 * GB}
    guesses = [
        replace(edge("a", "b"), exact=False),
        replace(edge("a", "b", 3), exact=False),
        replace(edge("a", "b"), multiset=False),
    ]
    covers = [Cover("a", ("b", "gone"), True, 0, ()), Cover("a", ("b",), False, 0, ())]
    for guess in guesses:
        assert actions(retention_plan(sizes, {"a": 9, "b": 9}, [guess], covers, {}, PRICES))["a"] == KEEP
    renamed = Rename("a", "b", (("x", "y"),), True, 0, 0)
    assert actions(retention_plan(sizes, {"a": 9, "b": 9}, [], [], {}, PRICES, renames=[renamed]))["a"] == RETIRE


def test_tables_that_nobody_reads_are_archived_unless_a_kept_one_rebuilds_them() -> None:
    sizes = {"big": 100 * GB, "part": 90 * GB, "small": 1 * GB}
    plan = planned(sizes, [("part", "big"), ("small", "big")], RetentionSettings(archive=True, accesses={"small": 3.0, "*": 0.0}))
    # `big` in the archive costs 0.4 $ a month and kept 2.3 $, more than what it would rebuild saves.
    assert actions(plan) == {"big": ARCHIVE, "part": ARCHIVE, "small": KEEP}
    assert plan.rows[0].reason == "cheaper in the archive" and plan.savings.bytes_archived == 190 * GB


def test_what_leaves_the_archive_early_is_paid_until_it_may() -> None:
    long, short = (RetentionSettings(archive_stay_days=days, archive_put_1000=0.0, get_1000=0.0) for days in (90.0, 9.0))
    assert archive_cost(10 * GB, long).fixed == pytest.approx(0.04)
    assert archive_cost(10 * GB, short).fixed == pytest.approx(0.4)
    assert archive_cost(1, long).fixed == pytest.approx(128 * 1024 / GB * 0.004)
    assert archive_cost(10 * GB, long).per_access == pytest.approx(10 * 0.03 + 10 * GB / (8 << 20) * 0.01 / 1000)


@pytest.mark.parametrize("reason", ["low evidence", "empty"])
def test_a_table_listed_apart_is_kept(reason: str) -> None:
    plan = retention_plan({"a": GB, "b": 2 * GB}, {"a": 5, "b": 9}, [edge("a", "b")], (), {"a": reason}, PRICES)
    assert [(row.action, row.reason) for row in plan.rows] == [(KEEP, reason), (KEEP, "no table contains it")]
    assert plan.savings.needs == ()


@pytest.mark.parametrize(
    ("prices", "reason", "change"),
    [
        ({}, "too slow to rebuild", "max_rebuild_s >= 5000 would retire a: "),
        ({"max_rebuild_s_of": {"a*": 60.0}}, "too slow to rebuild", "max_rebuild_s_of.'a*' >= 5000 would retire a: "),
        ({"rebuild_gb_s": 2.0, "keep": ("a",)}, "kept by name: a", "keep without 'a' would retire a: "),
        ({"rebuild_gb_s": 2.0, "min_saving_month": 20.0}, "saves too little", "min_saving_month <= 15.1 would retire a: "),
        (
            {"rebuild_gb_s": 2.0, "accesses_per_month": 9.0},
            "cheaper to keep",
            "fewer than 3.7 accesses a month would retire a: up to ",
        ),
    ],
)
def test_a_table_that_stays_says_what_would_free_it(prices: dict[str, object], reason: str, change: str) -> None:
    plan = planned({"a": 900 * GB, "b": 1000 * GB}, [("a", "b")], RetentionSettings(archive=False, **prices))  # type: ignore[arg-type]
    assert (plan.rows[0].action, plan.rows[0].reason) == (KEEP, reason)
    assert sentence(plan.savings.needs[0]).startswith(change)
    assert plan.savings.bound[0].constraint == reason.partition(":")[0]


def test_a_reader_and_little_evidence_are_named_with_what_they_cost() -> None:
    sizes = {"a": 10 * GB, "b": 11 * GB, "c": 9 * GB}
    pairs = edges_of([("a", "b"), ("c", "b")])
    plan = retention_plan(
        sizes,
        dict.fromkeys(sizes, 9),
        pairs,
        (),
        {"c": "low evidence"},
        PRICES,
        needed={"a": "needed by reader crm"},
        bits={"c": 12.34},
    )
    assert [need.change for need in plan.savings.needs] == ["no need of it (needed by reader crm)", "min_evidence_bits <= 12.3"]
    assert [(one.constraint, one.n_tables) for one in plan.savings.bound] == [
        ("needed", 1),
        ("listed apart", 1),
        ("no table contains it", 1),
    ]
    assert plan.savings.bound[0].monthly_saving == plan.savings.needs[0].monthly_saving > 0.1


def test_a_small_part_of_a_large_table_is_cheaper_to_keep() -> None:
    plan = planned({"a": GB, "b": 100 * GB}, [("a", "b")])
    assert (plan.rows[0].action, plan.rows[0].reason) == (KEEP, "cheaper to keep")


def test_a_measured_throughput_counts_unless_the_settings_name_one() -> None:
    sizes, pairs = {"a": 9 * GB, "b": 10 * GB}, [("a", "b")]
    assert planned(sizes, pairs, measured_gb_s=0.001).rows[0].reason == "too slow to rebuild"
    assert planned(sizes, pairs, RetentionSettings(rebuild_gb_s=0.1), measured_gb_s=0.001).rows[0].rebuild_s == pytest.approx(
        100.0
    )


def test_logged_accesses_count_where_the_user_says_nothing() -> None:
    sizes, pairs = {"a": 9 * GB, "b": 10 * GB}, [("a", "b")]
    logged = Accesses({"a": 50.0, "b": 0.0}, n_lines=7, n_bad=2)
    plan = planned(sizes, pairs, RetentionSettings(archive=True), logged=logged)
    assert actions(plan) == {"a": KEEP, "b": ARCHIVE} and plan.savings.n_bad_log_lines == 2
    assert actions(planned(sizes, pairs, RetentionSettings(accesses={"*": 1.0}), logged=logged)) == {"a": RETIRE, "b": KEEP}


def test_a_plan_is_read_back_as_it_was() -> None:
    plan = planned({"a": 900 * GB, "b": 1000 * GB, "c": 800 * GB}, [("a", "b"), ("c", "b")], needed={"c": "needed by reader crm"})
    assert plan.savings.needs
    rows, summary = json.loads(json.dumps([[asdict(row) for row in reversed(plan.rows)], asdict(plan.savings)]))
    assert plan_from(rows, summary) == plan


def test_no_tables_no_plan() -> None:
    plan = planned({}, [])
    assert plan.rows == () and plan.savings.monthly_saving == 0.0


def test_a_copy_known_by_its_fingerprint_is_a_source() -> None:
    known = replace(edge("a", "b"), step=FINGERPRINT)
    assert actions(retention_plan({"a": GB, "b": 2 * GB}, {"a": 9, "b": 9}, [known], (), {}, PRICES))["a"] == RETIRE
