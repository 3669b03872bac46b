"""What a table can be rebuilt from: tables that hold all its rows, or all but a few that stay stored beside. Pure.

Only what was checked exactly counts. An estimate never authorises a removal.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from tasks.dedup.edges import Cover, Edge, Rename


@dataclass(frozen=True)
class Source:
    """`parents`, all of them, rebuild `child` but for `n_residual` of its rows, about `residual_bytes`."""

    child: str
    parents: tuple[str, ...]
    n_residual: int = 0
    residual_bytes: int = 0


def sources_of(
    n_bytes: Mapping[str, int],
    n_rows: Mapping[str, int],
    edges: Sequence[Edge],
    covers: Iterable[Cover],
    renames: Iterable[Rename],
) -> list[Source]:
    """All that tables of `n_bytes` can be rebuilt from, one for each child and set of parents, sorted.

    Edges with all copies, edges with a known number of residual rows, covers, and containments under other names.
    """
    whole = [Source(edge.child, (edge.parent,)) for edge in (*edges, *renames) if edge.multiset and _is_exact(edge)]
    unions = [Source(cover.child, tuple(sorted(cover.parents))) for cover in covers if cover.multiset]
    near = [_near(edge, n_bytes, n_rows) for edge in edges if edge.exact and not edge.multiset]
    best = dict[tuple[str, tuple[str, ...]], Source]()
    for source in (*whole, *unions, *(one for one in near if one is not None)):
        key = source.child, source.parents
        ours = source.child in n_bytes and source.child not in source.parents and all(p in n_bytes for p in source.parents)
        if ours and (key not in best or source.n_residual < best[key].n_residual):
            best[key] = source
    return [best[key] for key in sorted(best)]


def _is_exact(edge: Edge | Rename) -> bool:
    return isinstance(edge, Rename) or edge.exact


def _near(edge: Edge, n_bytes: Mapping[str, int], n_rows: Mapping[str, int]) -> Source | None:
    """An edge with residual rows; None where their number is not known or is all of them."""
    rows = n_rows.get(edge.child, 0)
    if edge.child not in n_bytes or not 0 < edge.n_residual < rows:
        return None
    return Source(edge.child, (edge.parent,), edge.n_residual, math.ceil(n_bytes[edge.child] * edge.n_residual / rows))


def without_copies(
    sources: Sequence[Source], n_bytes: Mapping[str, int], cheapest: Callable[[Collection[str]], str]
) -> tuple[list[Source], set[str]]:
    """Sources with at most two of each class of equal tables among the parents; and the tables that are such parents.

    Of equal tables the smallest in bytes (then in name) is a source, and the one that `cheapest` picks to be the only one kept.
    Where these are one table, as with equal accesses they are, sources form a DAG. A table whose only source is another of the
    class keeps it.
    """
    whole = {(s.child, s.parents[0]) for s in sources if len(s.parents) == 1 and not s.n_residual}
    equals = defaultdict[str, set[str]](set)
    for child, parent in whole:
        if (parent, child) in whole:
            equals[child].add(parent)
    classes = {name: frozenset((name, *group)) for name, group in equals.items()}
    heads = {group: {min(group, key=lambda name: (n_bytes[name], name)), cheapest(group)} for group in set(classes.values())}
    has = {(s.child, s.parents) for s in sources}

    def stays(source: Source) -> bool:
        child, parent = source.child, source.parents[0]
        if len(source.parents) > 1 or parent not in classes or parent in heads[classes[parent]]:
            return True
        return not any(head == child or (child, (head,)) in has for head in heads[classes[parent]])

    return [source for source in sources if stays(source)], {head for some in heads.values() for head in some}
