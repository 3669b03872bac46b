"""How much a containment proves: log2 of the row space that the child's rows were drawn from. Pure.

A table of two flags is contained in every table that has those flags, by accident. The row space is the product of the
columns' numbers of distinct values, NULL among them. Values are counted by the 16 low bits of their keyed hashes, so the
count is an integer that is never too large, does not depend on order or files, and stops at 16 bits a column.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from infra.ids import U64

MAX_BITS = 64.0  # the measure stops here: more evidence changes no decision
Slots = npt.NDArray[np.uint16]


def slots_of(cells: U64) -> Slots:
    """The distinct 16-bit slots that a column's cell hashes (n, 2) fall into, sorted."""
    seen = np.zeros(1 << 16, np.bool_)
    seen[(cells[:, 0] & np.uint64(0xFFFF)).astype(np.uint16)] = True
    return np.flatnonzero(seen).astype(np.uint16)


def evidence_bits(slots: Mapping[str, Slots]) -> float:
    """log2 of the product of the columns' occupied slots, at most `MAX_BITS`."""
    return min(MAX_BITS, sum(math.log2(len(found)) for found in slots.values() if len(found)))


def merge_slots(one: Mapping[str, Slots], other: Mapping[str, Slots]) -> dict[str, Slots]:
    """The slots of two sets of rows together; a column that is absent on one side holds nothing there."""
    both = {name: np.union1d(found, other[name]) for name, found in one.items() if name in other}
    return {**one, **other, **both}


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
