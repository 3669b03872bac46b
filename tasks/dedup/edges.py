"""What a containment scan says of tables: edges, covers by several parents, and containments under other column names. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

FINGERPRINT, BOUNDS, WITNESS, SKETCH = "fingerprint", "bounds", "witness", "sketch"
KNOWN, TRANSITIVE, EXACT = "known", "transitive", "exact"
STEPS = (FINGERPRINT, BOUNDS, WITNESS, KNOWN, SKETCH, TRANSITIVE, EXACT)


@dataclass(frozen=True)
class Edge:
    """How much of `child` is in `parent`, compared over the child's columns.

    `fraction` is the share of the child's distinct rows that the parent has: 1.0 where `set`. `n_residual` counts the rows of the
    child that the parent lacks, copies counted: 0 where `multiset`. Where not `exact`, both are estimates and `error` is the
    standard error of the fraction. `step` says what settled it.
    """

    child: str
    parent: str
    fraction: float
    set: bool
    multiset: bool
    exact: bool
    step: str
    child_version: int
    parent_version: int
    n_residual: int = 0
    error: float = 0.0


@dataclass(frozen=True)
class Cover:
    """`child` is contained in its `parents` taken together (UNION ALL), and in none of them alone; checked exactly.

    No parent can be left out. `multiset`: also with all copies.
    """

    child: str
    parents: tuple[str, ...]
    multiset: bool
    child_version: int
    parent_versions: tuple[int, ...]


@dataclass(frozen=True)
class Rename:
    """`child` is contained in `parent` once columns are taken by another name; checked exactly.

    `columns` are pairs (child's column, parent's column) of all the child's columns, in lower case, sorted; some pair differs.
    """

    child: str
    parent: str
    columns: tuple[tuple[str, str], ...]
    multiset: bool
    child_version: int
    parent_version: int


def contained(edges: Iterable[Edge]) -> list[Edge]:
    """The edges that are containments, as sets at least."""
    return [edge for edge in edges if edge.set]
