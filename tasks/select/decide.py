"""From scores to decision rows, a range of row ids at a time; and the exact cut, when the settings ask for it. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from infra.contracts import BELOW_THRESHOLD, EMPTY_TEXT, KEPT, SELECTION
from infra.ids import F64, I64
from tasks.select.weights import Cut, is_kept, nth

SCORED = pa.schema([("row_id", pa.int64()), ("log_weight", pa.float64()), ("key", pa.float64())])


@dataclass(frozen=True)
class Near:
    """Of one range of row ids: how many records have text, how many keys lie above a bracket, and the records within it."""

    n: int
    n_above: int
    keys: F64
    row_ids: I64


def scored(row_ids: I64, log_weights: F64, keys: F64) -> pa.Table:
    """Scores as a table; a document without tokens (NaN) has NULL for both."""
    return pa.table([pa.array(row_ids), pa.array(log_weights, from_pandas=True), pa.array(keys, from_pandas=True)], schema=SCORED)


def decisions(table: pa.Table, cut: Cut) -> pa.Table:
    """One SELECTION row for each row of a scored table."""
    row_ids, keys = row_ids_and_keys(table)
    keep = is_kept(keys, row_ids, cut)
    reason = np.where(np.isnan(keys), EMPTY_TEXT, np.where(keep, KEPT, BELOW_THRESHOLD))
    columns = [
        table.column("row_id"),
        pa.array(keep),
        pa.array(reason, pa.string()),
        table.column("log_weight"),
        table.column("key"),
    ]
    rest = [pa.nulls(table.num_rows, field.type) for field in list(SELECTION)[len(columns) :]]
    return pa.table([*columns, *rest], schema=SELECTION)


def near(table: pa.Table, low: float, high: float) -> Near:
    """The records of a scored table about a bracket [low, high] of keys."""
    row_ids, keys = row_ids_and_keys(table)
    within = (keys >= low) & (keys <= high)
    return Near(int((~np.isnan(keys)).sum()), int((keys > high).sum()), keys[within], row_ids[within])


def cut_within(found: list[Near], k: int) -> Cut | None:
    """The cut that keeps the k largest keys of all ranges, or None where it lies outside the bracket."""
    keys = np.concatenate([part.keys for part in found])
    missing = k - sum(part.n_above for part in found)
    if not 1 <= missing <= len(keys):
        return None
    return nth(keys, np.concatenate([part.row_ids for part in found]), missing)


def row_ids_and_keys(table: pa.Table) -> tuple[I64, F64]:
    """Both columns as arrays; NULL keys as NaN."""
    return np.asarray(table.column("row_id")), np.asarray(table.column("key").to_numpy(), np.float64)
