"""What the steps before the resampling say of a record: a reason to drop it, and what a person needs to see why. Pure.

Every such step (filters, near duplicates, decontamination) yields a table of this schema, a row for each record that it drops or
cuts; records without a row pass. Of several verdicts on a record the first in the order of `PRIORITY` is the reason told.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from infra.contracts import CONTAMINATED, DUPLICATE, FILTERED, NEAR_DUPLICATE, NO_SCORE, SELECTION, TOO_SHORT

CUT = "cut"  # no reason to drop: the record stays, without the spans in `cuts`
PRIORITY = (TOO_SHORT, NO_SCORE, FILTERED, CONTAMINATED, DUPLICATE, NEAR_DUPLICATE, CUT)
VERDICT = pa.schema(
    [SELECTION.field(name) for name in ("row_id", "reason", "signal", "value", "bound", "representative", "cuts")]
)


def verdicts(row_ids: Sequence[int] | np.ndarray | pa.Array, **columns: object) -> pa.Table:
    """A table of verdicts: `reason` for all rows (a string or an array), the other columns of `VERDICT` as given, else NULL."""
    n = len(row_ids)
    filled = {"row_id": pa.array(row_ids, pa.int64())}
    for field in VERDICT.remove(0):
        value = columns.pop(field.name, None)
        filled[field.name] = pa.array([value] * n if value is None or isinstance(value, str) else value, field.type)
    if columns:
        raise TypeError(f"verdicts have no {', '.join(columns)}")
    return pa.table(filled, schema=VERDICT)


def first_verdicts(table: pa.Table) -> pa.Table:
    """One verdict a record, the first in the order of `PRIORITY`, sorted by row id."""
    if not table.num_rows:
        return table
    rank = pc.index_in(table.column("reason"), pa.array(PRIORITY))
    table = table.append_column("rank", rank).sort_by([("row_id", "ascending"), ("rank", "ascending")]).drop_columns("rank")
    ids = np.asarray(table.column("row_id"))
    first = np.ones(len(ids), np.bool_)
    first[1:] = ids[1:] != ids[:-1]
    return table.filter(pa.array(first))
