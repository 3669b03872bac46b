"""Which tables to keep, which to archive, and which to retire because kept tables can rebuild them: OPT-RET of R2D2 (arXiv
2312.13427). Pure.

    min  sum x_v keep_v + sum a_v archive_v + sum y_s rebuild_s
    x_v + a_v + sum y_s over the sources s of v = 1,    y_s <= x_u for each parent u of s,    x binary

Each table is kept (x_v), archived (a_v) or rebuilt on access from kept tables (y_s). A parent is neither retired, or a reader
would wait for a chain of rebuildings, nor archived, or each access would pay the retrieval of a parent that may be far larger
than the table. Costs are US dollars a month.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components

from infra.contracts import LetheError
from infra.price_book import RetentionSettings
from tasks.dedup.access import Accesses, accesses_of
from tasks.dedup.edges import Cover, Edge, Rename
from tasks.dedup.options import ARCHIVE, KEEP, Option, Terms, cheapest_to_keep, options_of
from tasks.dedup.prices import throughput_gb_s
from tasks.dedup.savings import Savings, said, savings_from, summarise, why_kept
from tasks.dedup.sources import sources_of, without_copies

_SCALE = 1e6  # HiGHS works to absolute tolerances near 1e-7: costs are scaled so that the largest of a component is a million
LIMIT_S = 60.0  # derivations take well under a second; a web of tables without any order may take for ever
_OUT_OF_TIME = 1
_BATCH = 2000  # tables that the solver sees at a time, where components are small


class PlanError(LetheError):
    """The solver failed."""


@dataclass(frozen=True)
class PlanRow:
    """What to do with one table: `parents` rebuild it when it is retired, and its readers wait `rebuild_s` seconds;
    `monthly_cost` is that of the action in US dollars, `monthly_saving` what it saves against keeping the table.
    """

    table: str
    action: str
    parents: tuple[str, ...]
    n_bytes: int
    monthly_cost: float
    monthly_saving: float
    rebuild_s: float
    reason: str


@dataclass(frozen=True)
class Plan:
    """One row a table, sorted by name, and what they come to."""

    rows: tuple[PlanRow, ...]
    savings: Savings


def plan_from(rows: Iterable[dict[str, Any]], summary: Mapping[str, Any]) -> Plan:
    """A plan read back from its table and the summary of its commit."""
    whole = [PlanRow(**row) for row in rows]
    listed = [replace(row, parents=tuple(row.parents)) for row in whole]
    return Plan(tuple(sorted(listed, key=lambda row: row.table)), savings_from(summary))


def retention_plan(
    n_bytes: Mapping[str, int],
    n_rows: Mapping[str, int],
    edges: Sequence[Edge],
    covers: Iterable[Cover],
    apart: Mapping[str, str],
    prices: RetentionSettings,
    *,
    renames: Iterable[Rename] = (),
    logged: Accesses | None = None,
    needed: Mapping[str, str] | None = None,
    bits: Mapping[str, float] | None = None,
    measured_gb_s: float | None = None,
) -> Plan:
    """The cheapest plan for the tables of `n_bytes`; containments of any other table are left out of it.

    Tables listed `apart` are never retired, `needed` ones are kept; both map to a reason, and both may be parents. `logged` are
    the accesses that count where the settings name none of a table, `measured_gb_s` the throughput likewise; `bits` is the
    evidence measured of tables with little of it. Raises `PlanError`.
    """
    gb_s = throughput_gb_s(prices, measured_gb_s)
    told = logged or Accesses({})
    terms = Terms(n_bytes, apart, needed or {}, accesses_of(n_bytes, prices, told), bits or {}, prices, gb_s)
    every = sources_of(n_bytes, n_rows, edges, covers, renames)
    sources, heads = without_copies(every, n_bytes, lambda group: cheapest_to_keep(group, terms))
    options = options_of(sources, terms)
    chosen, gap = _choose(options, terms)
    why = _why(options, chosen, heads, terms)
    rows = tuple(_row(table, chosen.get(table), why, terms) for table in sorted(n_bytes))
    return Plan(rows, summarise(options, chosen, why, terms, logged=told, gap=gap))


def _choose(options: Sequence[Option], terms: Terms) -> tuple[dict[str, Option], float]:
    """The options that the optimum takes, by table, and the gap."""
    names = sorted(terms.n_bytes)
    number = {name: i for i, name in enumerate(names)}
    open_ = [option for option in options if not option.blocks]
    ways = [(number[option.table], tuple(number[parent] for parent in option.parents)) for option in open_]
    keep = np.array([terms.keep(name) for name in names])
    solved = solve(keep, ways, np.array([option.monthly for option in open_]))
    return {names[v]: open_[k] for v, k in enumerate(solved.taken) if k is not None}, solved.gap


def _why(options: Iterable[Option], chosen: Mapping[str, Option], heads: set[str], terms: Terms) -> dict[str, str]:
    """The constraint that keeps each kept table."""
    parents = {parent for option in chosen.values() for parent in option.parents}
    own = defaultdict[str, list[Option]](list)
    for option in options:
        own[option.table].append(option)
    return {table: why_kept(table, own[table], parents, heads, terms) for table in sorted(terms.n_bytes) if table not in chosen}


def _row(table: str, option: Option | None, why: Mapping[str, str], terms: Terms) -> PlanRow:
    keep, size = terms.keep(table), terms.n_bytes[table]
    if option is None:
        return PlanRow(table, KEEP, (), size, keep, 0.0, 0.0, said(table, why[table], terms))
    return PlanRow(table, option.action, option.parents, size, option.monthly, keep - option.monthly, option.wait_s, _how(option))


def _how(option: Option) -> str:
    """Why a table need not be kept."""
    if option.action == ARCHIVE:
        return "cheaper in the archive"
    whose = "its parent" if len(option.parents) == 1 else f"its {len(option.parents)} parents"
    rest = f" and {option.n_residual:,} rows that stay stored" if option.n_residual else ""
    return f"rebuilt from {whose}{rest}"


# --- the optimum ---------------------------------------------------------------------------------------------------------------

Way = tuple[int, tuple[int, ...]]


@dataclass(frozen=True)
class Solved:
    """For each table the position of the way that it goes, or None where it is kept. `gap` bounds what a better plan could save
    of a connected part's cost, as a share: 0.0 where the plan is proven to be the cheapest.
    """

    taken: list[int | None]
    gap: float


def solve(keep: np.ndarray, ways: Sequence[Way], costs: np.ndarray, *, limit_s: float = LIMIT_S) -> Solved:
    """The cheapest plan there is, or the best found where the solver needs more than `limit_s` seconds for a connected part.

    `ways` are (table, parents that must be kept); one without parents is an archive. `keep` and `costs` are the costs of tables
    and of ways; ways that cost no less than keeping are never taken.
    """
    useful = _useful(keep, ways, costs)
    movable = {ways[k][0] for k in useful}
    # A parent that nothing moves is kept anyway, and asks for no constraint.
    pairs = [(k, u) for k in useful for u in ways[k][1] if u in movable]
    kept, gap = np.ones(len(keep), dtype=bool), 0.0
    kept[list(movable)] = False
    if pairs:
        labels = _labels(len(keep), [(ways[k][0], u) for k, u in pairs])
        scale = _scale(labels, keep, [ways[k][0] for k in useful], costs[useful])
        scaled = costs * scale[[v for v, _ in ways]]
        for batch in _batches(labels, ways, useful, pairs):
            kept[batch.tables], left = _solve_batch(batch, ways, keep * scale, scaled, limit_s)
            gap = max(gap, left)
    return Solved(_cheapest_ways(kept, ways, useful, costs), gap)


def _useful(keep: np.ndarray, ways: Sequence[Way], costs: np.ndarray) -> list[int]:
    """The ways that some optimum may take: cheaper than to keep the table, and than those that need no parent."""
    best = keep.copy()
    alone = [k for k, (_, parents) in enumerate(ways) if not parents]
    first = dict[int, int]()
    for k in alone:
        if costs[k] < best[ways[k][0]]:
            best[ways[k][0]] = costs[k]
            first[ways[k][0]] = k
    return sorted([*first.values(), *(k for k, (v, parents) in enumerate(ways) if parents and costs[k] < best[v])])


def _labels(n: int, links: Sequence[tuple[int, int]]) -> np.ndarray:
    """The connected part of each table."""
    one, other = np.array(links).T
    _, labels = connected_components(csr_array((np.ones(len(links)), (one, other)), shape=(n, n)), directed=False)
    return labels


def _scale(labels: np.ndarray, keep: np.ndarray, tables: Sequence[int], costs: np.ndarray) -> np.ndarray:
    """What to multiply the costs of each table with: parts are independent, so each may have its own scale."""
    top = np.zeros(labels.max() + 1)
    np.maximum.at(top, labels, keep)
    np.maximum.at(top, labels[list(tables)], costs)
    return _SCALE / np.where(top > 0.0, top, 1.0)[labels]


@dataclass(frozen=True)
class _Batch:
    """Connected parts that are solved at once: their tables, their ways, and the pairs (way, parent) that bind."""

    tables: list[int]
    ways: list[int]
    pairs: list[tuple[int, int]]


def _batches(labels: np.ndarray, ways: Sequence[Way], useful: Iterable[int], pairs: Sequence[tuple[int, int]]) -> list[_Batch]:
    """The connected parts with a choice to make, small ones together: each call of the solver costs milliseconds."""
    parts = np.unique(labels[[u for _, u in pairs]])
    batch_of = np.full(labels.max() + 1, -1)
    batch_of[parts] = np.cumsum(np.bincount(labels)[parts]) // _BATCH
    batches = defaultdict[int, _Batch](lambda: _Batch([], [], []))
    place = batch_of[labels].tolist()
    for v in np.flatnonzero(batch_of[labels] >= 0).tolist():
        batches[place[v]].tables.append(v)
    for k in useful:
        if place[ways[k][0]] >= 0:
            batches[place[ways[k][0]]].ways.append(k)
    for k, u in pairs:
        batches[place[u]].pairs.append((k, u))
    return list(batches.values())


def _solve_batch(
    batch: _Batch, ways: Sequence[Way], keep: np.ndarray, costs: np.ndarray, limit_s: float
) -> tuple[np.ndarray, float]:
    """HiGHS: which tables are kept, and the gap that is left. Variables are x (a table each), then y (a way each)."""
    n, m = len(batch.tables), len(batch.ways)
    table = {v: i for i, v in enumerate(batch.tables)}
    way = {k: n + i for i, k in enumerate(batch.ways)}
    children = [table[ways[k][0]] for k in batch.ways]
    once = coo_array((np.ones(n + m), ([*range(n), *children], np.arange(n + m))), shape=(n, n + m))
    rows, n_pairs = np.arange(len(batch.pairs)), len(batch.pairs)
    columns = [*(way[k] for k, _ in batch.pairs), *(table[u] for _, u in batch.pairs)]
    signs = np.repeat([1.0, -1.0], n_pairs)
    only_kept = coo_array((signs, (np.concatenate([rows, rows]), columns)), shape=(n_pairs, n + m))
    solved = milp(
        np.concatenate([keep[batch.tables], costs[batch.ways]]),
        integrality=np.repeat([1, 0], [n, m]),
        bounds=Bounds(0, 1),
        constraints=[LinearConstraint(once.tocsr(), 1, 1), LinearConstraint(only_kept.tocsr(), -np.inf, 0)],
        options={"mip_rel_gap": 0.0, "time_limit": limit_s},
    )
    if solved.status == _OUT_OF_TIME and solved.x is None:
        return np.ones(n, dtype=bool), 1.0
    if solved.x is None or solved.status not in (0, _OUT_OF_TIME):
        said = f"the retention plan of {n} tables and {m} ways to rebuild them was not solved: {solved.message}"
        raise PlanError(f"{said} Lower [retention] max_rebuild_s")
    return solved.x[:n] > 0.5, min(1.0, float(solved.mip_gap or 0.0))


def _cheapest_ways(kept: np.ndarray, ways: Sequence[Way], useful: Iterable[int], costs: np.ndarray) -> list[int | None]:
    """The plan that the kept tables imply: each other one goes its cheapest way from kept ones."""
    best: list[int | None] = [None] * len(kept)
    for k in useful:
        v, parents = ways[k]
        now = best[v]
        if not kept[v] and all(kept[u] for u in parents) and (now is None or costs[k] < costs[now]):
            best[v] = k
    return best
