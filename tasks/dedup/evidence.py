"""How much a containment proves: log2 of the row space that the child's rows were drawn from. Pure.

A table of two flags is contained in every table that has those flags, by accident. The row space is the product of the
columns' numbers of distinct values, NULL among them. They are counted in the columns' sketches: exactly below
`COLUMN_FLOOR` values, and from the `COLUMN_FLOOR` smallest hashes above (Bar-Yossef et al., "Counting distinct elements in a
data stream", 2002), which are the same however the rows lie in files.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from tasks.dedup.sketches import COLUMN_FLOOR, Sketch

MAX_BITS = 64.0  # the measure stops here: more evidence changes no decision


def evidence_bits(columns: Mapping[str, Sketch], *, with_nulls: Collection[str] = ()) -> float:
    """log2 of the product of the columns' numbers of distinct values, at most `MAX_BITS`.

    NULL is one more value. It hashes to 0; where the cells of NULLs were left out of a sketch, `with_nulls` names its column.
    """
    bits = (math.log2(max(1.0, _n_values(found, name in with_nulls))) for name, found in columns.items())
    return min(MAX_BITS, math.fsum(bits))


def _n_values(found: Sketch, has_nulls: bool) -> float:
    return n_distinct(found) + (has_nulls and not _holds_null(found))


def n_distinct(column: Sketch) -> float:
    """The number of distinct values in a column sketch, NULL among them.

    Exact below `COLUMN_FLOOR`; above, its relative standard error is about 1 / sqrt(`COLUMN_FLOOR`).
    """
    smallest, has_null = column.hashes[:COLUMN_FLOOR], _holds_null(column)
    n = len(smallest) - has_null
    if len(smallest) == COLUMN_FLOOR:
        return (n - 1) * 2.0**64 / (float(smallest[-1]) + 1.0) + has_null
    return has_null + (n if column.is_whole else n * 2.0**64 / (float(column.bound) + 1.0))


def _holds_null(column: Sketch) -> bool:
    return len(column.hashes) > 0 and bool(column.hashes[0] == 0)


def why_apart(n_rows: int, n_columns: int, *, all_null: bool) -> str | None:
    """Why a containment of a table of this shape proves nothing; None if it may.

    Low evidence is another reason, see `evidence_bits`.
    """
    if n_rows == 0:
        return "empty"
    if n_columns == 0:
        return "no comparable column"
    if all_null:
        return "all null"
    return "single column" if n_columns == 1 else None
