"""Which tables to keep and which to retire, because a kept table can rebuild them: OPT-RET of R2D2 (arXiv 2312.13427). Pure.

    min  sum x_v store_v + sum y_uv rebuild_uv     x_v + sum_u y_uv = 1,   y_uv <= x_u,   x binary

Each table is kept (x_v) or rebuilt from one kept table that contains it as a multiset (y_uv). An edge whose rebuilding takes
too long is no edge. Of equal tables the one with the fewest bytes is the only source, so that sources form a DAG. Costs are
US dollars a month.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components

from infra.contracts import LetheError
from infra.settings import RetentionSettings

KEEP, RETIRE = "keep", "retire"
_GB = 1e9
_SCALE = 1e6  # HiGHS works to absolute tolerances near 1e-7: costs are scaled so that the largest of a component is a million


class PlanError(LetheError):
    """The solver did not prove a plan optimal."""


@dataclass(frozen=True)
class PlanRow:
    """What to do with one table: `parents` rebuild it when it is retired, in `rebuild_s` seconds; `monthly_cost` is that of the
    action in US dollars, `monthly_saving` what it saves against keeping the table.
    """

    table: str
    action: str
    parents: tuple[str, ...]
    n_bytes: int
    monthly_cost: float
    monthly_saving: float
    rebuild_s: float
    reason: str


def store_cost(n_bytes: int, prices: RetentionSettings) -> float:
    """Keeping a table for a month."""
    return n_bytes / _GB * prices.storage_gb_month


def rebuild_cost(parent_bytes: int, child_bytes: int, prices: RetentionSettings) -> float:
    """A month's accesses to a retired table: each reads and scans its parent and writes the child."""
    scan = parent_bytes / _GB * (prices.read_gb + prices.compute_gb)
    return prices.accesses_per_month * (scan + child_bytes / _GB * prices.write_gb)


def rebuild_s(parent_bytes: int, prices: RetentionSettings) -> float:
    """Seconds until a retired table can be read again."""
    return parent_bytes / _GB / prices.rebuild_gb_s


def retention_plan(
    n_bytes: Mapping[str, int],
    multiset_edges: Iterable[tuple[str, str]],
    apart: Mapping[str, str],
    prices: RetentionSettings,
) -> list[PlanRow]:
    """One row a table, sorted by name.

    `multiset_edges` are (child, parent); tables listed `apart` are kept, and may still be parents.
    """
    names = sorted(n_bytes)
    edges = set(multiset_edges)
    usable = {edge for edge in _sources(edges, n_bytes) if edge[0] not in apart}
    quick = sorted(edge for edge in usable if rebuild_s(n_bytes[edge[1]], prices) <= prices.max_rebuild_s)
    number = {name: i for i, name in enumerate(names)}
    store = np.array([store_cost(n_bytes[name], prices) for name in names])
    rebuild = np.array([rebuild_cost(n_bytes[parent], n_bytes[child], prices) for child, parent in quick])
    chosen = solve(store, [(number[child], number[parent]) for child, parent in quick], rebuild)
    reasons = _why_kept(names, edges, usable, quick) | dict(apart)

    def row(v: int) -> PlanRow:
        name, edge = names[v], chosen[v]
        if edge is not None:
            parent, cost = quick[edge][1], float(rebuild[edge])
            seconds = rebuild_s(n_bytes[parent], prices)
            return PlanRow(name, RETIRE, (parent,), n_bytes[name], cost, float(store[v]) - cost, seconds, "rebuilt from its parent")
        return PlanRow(name, KEEP, (), n_bytes[name], float(store[v]), 0.0, 0.0, reasons[name])

    return [row(v) for v in range(len(names))]


def _why_kept(names: Sequence[str], *edges: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The reason to keep each table: where its edges end among all of them, those to sources, and those that are quick
    enough.
    """
    contained, usable, quick = ({child for child, _ in some} for some in edges)
    reasons = dict.fromkeys(names, "no table contains it")
    reasons |= dict.fromkeys(contained, "source of its copies")
    reasons |= dict.fromkeys(usable, "too slow to rebuild")
    return reasons | dict.fromkeys(quick, "cheaper to keep")


def _sources(edges: set[tuple[str, str]], n_bytes: Mapping[str, int]) -> set[tuple[str, str]]:
    """The edges of a DAG: of tables that contain each other, the smallest in bytes (then in name) is the only source."""
    equals = defaultdict[str, set[str]](set)
    for child, parent in edges:
        if (parent, child) in edges:
            equals[child].add(parent)
    first = {name: min((name, *group), key=lambda n: (n_bytes[n], n)) for name, group in equals.items()}
    return {(c, p) for c, p in edges if first.get(p, p) == p and not (first.get(c) == c and p in equals[c])}


# --- the optimum ---------------------------------------------------------------------------------------------------------------


def solve(store: np.ndarray, edges: Sequence[tuple[int, int]], rebuild: np.ndarray) -> list[int | None]:
    """For each table the position of the edge (child, parent) that rebuilds it, or None where it is kept; the cheapest plan
    there is.
    """
    chosen: list[int | None] = [None] * len(store)
    for nodes, numbers in _components(len(store), edges):
        local = {node: i for i, node in enumerate(nodes)}
        part = [(local[edges[k][0]], local[edges[k][1]]) for k in numbers]
        for node, k in zip(nodes, _solve_component(store[nodes], part, rebuild[numbers]), strict=True):
            chosen[node] = None if k is None else numbers[k]
    return chosen


def _components(n_nodes: int, edges: Sequence[tuple[int, int]]) -> list[tuple[list[int], list[int]]]:
    """(nodes, positions of edges) of each connected part that has an edge."""
    if not edges:
        return []
    children, parents = np.array(edges).T
    graph = csr_array((np.ones(len(edges)), (children, parents)), shape=(n_nodes, n_nodes))
    _, labels = connected_components(graph, directed=False)
    parts = defaultdict[int, tuple[list[int], list[int]]](lambda: ([], []))
    for k, child in enumerate(children):
        parts[int(labels[child])][1].append(k)
    for node, label in enumerate(labels):
        if int(label) in parts:
            parts[int(label)][0].append(node)
    return list(parts.values())


def _solve_component(store: np.ndarray, edges: Sequence[tuple[int, int]], rebuild: np.ndarray) -> list[int | None]:
    """HiGHS on one connected part: variables are x (a table each), then y (an edge each)."""
    n, m = len(store), len(edges)
    children, parents = np.array(edges).T
    costs = np.concatenate([store, rebuild])
    top = costs.max()
    once = coo_array(
        (np.ones(n + m), (np.concatenate([np.arange(n), children]), np.arange(n + m))),
        shape=(n, n + m),
    )
    rows = np.arange(m)
    only_kept = coo_array(
        (np.concatenate([np.ones(m), -np.ones(m)]), (np.concatenate([rows, rows]), np.concatenate([n + rows, parents]))),
        shape=(m, n + m),
    )
    solved = milp(
        costs * (_SCALE / top if top > 0 else 1.0),
        integrality=np.concatenate([np.ones(n), np.zeros(m)]),
        bounds=Bounds(0, 1),
        constraints=[LinearConstraint(once.tocsr(), 1, 1), LinearConstraint(only_kept.tocsr(), -np.inf, 0)],
        options={"mip_rel_gap": 0.0},
    )
    if solved.x is None or solved.status != 0:
        raise PlanError(
            f"the retention plan of {n} tables and {m} edges was not solved: {solved.message} Lower [retention] max_rebuild_s"
        )
    return _cheapest_sources(solved.x[:n] > 0.5, edges, rebuild)


def _cheapest_sources(kept: np.ndarray, edges: Sequence[tuple[int, int]], rebuild: np.ndarray) -> list[int | None]:
    """The plan that the kept tables imply: each other table is rebuilt by its cheapest edge from a kept one."""
    best: list[int | None] = [None] * len(kept)
    for k, (child, parent) in enumerate(edges):
        now = best[child]
        if not kept[child] and kept[parent] and (now is None or rebuild[k] < rebuild[now]):
            best[child] = k
    return best
