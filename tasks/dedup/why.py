"""Why one table is, or is not, contained in another: the step that settles it, and a witness that a person can look up. Pure.

The witness of the log is a column, and the child's file that holds what the parent cannot hold; that of a count is the number of
rows that the parent lacks, and how much of each column it has. No value of any row is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tasks.dedup.bounds import ABOVE, BELOW, GAP, NULLS, VALUES, Boxes, Ranks, Refutation, outside, without_witness
from tasks.dedup.edges import BOUNDS, EXACT, FINGERPRINT, WITNESS
from tasks.dedup.exact import Counted
from tasks.dedup.scan import AnyPart, Facts
from tasks.dedup.schema_graph import compatible

EMPTY, SCHEMA = "empty", "schema"
_SHOWN = 3
_SAYS = {
    VALUES: "has values, and {parent} has none",
    BELOW: "has values below the least one that {parent} has",
    ABOVE: "has values above the greatest one that {parent} has",
    NULLS: "has NULLs, and {parent} has none",
    GAP: "has an extreme that lies in no file of {parent}",
}


@dataclass(frozen=True)
class Why:
    """What settles whether `child` is contained in `parent`, and by which `step`.

    `column` and `file` are the witness, as far as there is one: names as the child has them. Where rows were counted, `n_rows` of
    the child are not in the parent, copies counted, `n_distinct` of them distinct; and `fractions` says of each column how much
    of the child's distinct cells the parent's column has, the smallest first.
    """

    child: str
    parent: str
    contained: bool
    multiset: bool
    step: str
    text: str
    column: str | None = None
    file: str | None = None
    n_rows: int | None = None
    n_distinct: int | None = None
    fractions: tuple[tuple[str, float], ...] = ()


# --- by the log ----------------------------------------------------------------------------------------------------------------


def why_by_log(child: Facts, parent: Facts) -> Why | None:
    """The answer where the log has it; None where rows must be counted."""
    return _empty(child, parent) or _schema(child, parent) or _equal(child, parent) or _bounds(child, parent)


def _empty(child: Facts, parent: Facts) -> Why | None:
    if not child.snapshot.n_rows:
        return Why(child.name, parent.name, True, True, EMPTY, f"{child.name} has no rows: it is in every table, by accident")
    if not parent.snapshot.n_rows:
        n_rows = child.snapshot.n_rows
        return Why(child.name, parent.name, False, False, EMPTY, f"{parent.name} has no rows", n_rows=n_rows)
    return None


def _schema(child: Facts, parent: Facts) -> Why | None:
    for one in (child, parent):
        if not one.kinds:
            text = f"the columns of {one.name} cannot be told apart: there are none, or names differ only in case"
            return Why(child.name, parent.name, False, False, SCHEMA, text)
    missing = [name for name in child.columns if name not in parent.kinds]
    if missing:
        text = f"{parent.name} has no column {_listed([child.names[name] for name in missing])}"
        return Why(child.name, parent.name, False, False, SCHEMA, text, child.names[missing[0]])
    apart = [name for name in child.columns if not compatible(child.kinds[name], parent.kinds[name])]
    if apart:
        kinds = f"{child.kinds[apart[0]]} in {child.name} and {parent.kinds[apart[0]]} in {parent.name}"
        text = f"column {child.names[apart[0]]!r} is {kinds}, which have no value in common"
        return Why(child.name, parent.name, False, False, SCHEMA, text, child.names[apart[0]])
    return None


def _listed(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(map(repr, names[:_SHOWN])) + (f" and {more} more" if more > 0 else "")


def _equal(child: Facts, parent: Facts) -> Why | None:
    if child.kinds != parent.kinds or child.snapshot.digest != parent.snapshot.digest:
        return None
    text = f"{child.name} and {parent.name} have the same columns and the same fingerprint: they are equal"
    return Why(child.name, parent.name, True, True, FINGERPRINT, text, n_rows=0, n_distinct=0)


def _bounds(child: Facts, parent: Facts) -> Why | None:
    ours, theirs = _boxes(child, parent)
    columns = np.array([parent.columns.index(name) for name in child.columns], np.int64)
    if (refuted := outside(ours, theirs, columns)) is not None:
        return _refuted(child, parent, BOUNDS, refuted)
    if (refuted := without_witness(ours, theirs, columns)) is not None:
        return _refuted(child, parent, WITNESS, refuted)
    return None


def _boxes(child: Facts, parent: Facts) -> tuple[Boxes, Boxes]:
    ranks = Ranks()
    for one in (child, parent):
        ranks.add([part.file for part in one.parts], one.names, one.kinds)
    ours, theirs = ranks.boxes()
    return ours, theirs


def _refuted(child: Facts, parent: Facts, step: str, found: Refutation) -> Why:
    column = child.names[child.columns[found.column]]
    file = _shown([part for part in child.parts if part.file.n_rows][found.file])
    text = f"column {column!r} of {child.name}, in file {file}, {_SAYS[found.what].format(parent=parent.name)}"
    return Why(child.name, parent.name, False, False, step, text, column, file)


def _shown(part: AnyPart) -> str:
    """The file's name without folders: they may be named for values of its rows."""
    return part.file.path.rpartition("/")[2]


# --- by counting ---------------------------------------------------------------------------------------------------------------


def why_by_count(child: Facts, parent: Facts, rows: Counted, cells: Mapping[str, Counted]) -> Why:
    """The answer from what the parent lacks of the child's rows, and of the cells of each of its columns by lower-case name."""
    found = sorted(((child.names[name], counted.fraction) for name, counted in cells.items()), key=lambda one: (one[1], one[0]))
    least = found[0][0] if found and found[0][1] < 1.0 else None
    return Why(
        child.name,
        parent.name,
        rows.set,
        rows.multiset,
        EXACT,
        _counted_text(child, parent, rows, found),
        least,
        n_rows=rows.n_residual,
        n_distinct=rows.n_missing_distinct,
        fractions=tuple(found),
    )


def _counted_text(child: Facts, parent: Facts, rows: Counted, found: list[tuple[str, float]]) -> str:
    if rows.multiset:
        return f"every row of {child.name} is in {parent.name}, as often as it is in {child.name}"
    if rows.set:
        return f"every row of {child.name} is in {parent.name}, but {rows.n_residual:,} of {rows.n_rows:,} are copies too many"
    lacks = f"{parent.name} lacks {rows.n_residual:,} of the {rows.n_rows:,} rows of {child.name}"
    distinct = f"{rows.n_missing_distinct:,} of {rows.n_distinct:,} distinct ones"
    return f"{lacks} ({distinct}); {_where(parent, found)}"


def _where(parent: Facts, found: list[tuple[str, float]]) -> str:
    """Which columns the mismatch lies in."""
    poor = [f"{name!r} ({_percent(share)})" for name, share in found if share < 1.0]
    if not poor:
        return f"{parent.name} has every value of every column, but not in one row"
    more = f" and {len(poor) - _SHOWN} more" if len(poor) > _SHOWN else ""
    return f"of these columns it has not all values: {', '.join(poor[:_SHOWN])}{more}"


def _percent(share: float) -> str:
    """A share that is not all never reads as 100 %."""
    return f"{min(np.floor(share * 1000) / 10, 99.9):.1f} %"
