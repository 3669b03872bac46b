"""What the score pass says of records, as rows that are spilled by row id and joined with verdicts a range at a time. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from infra.contracts import (
    BELOW_THRESHOLD,
    CONTAMINATED,
    DUPLICATE,
    EMPTY_TEXT,
    FILTERED,
    KEPT,
    NEAR_DUPLICATE,
    NO_SCORE,
    TOO_SHORT,
)
from infra.ids import F64, I64
from tasks.select.budget import Mask
from tasks.select.verdicts import CUT, first_verdicts

REASONS = (KEPT, BELOW_THRESHOLD, EMPTY_TEXT, TOO_SHORT, NO_SCORE, FILTERED, CONTAMINATED, DUPLICATE, NEAR_DUPLICATE)
CODES = {reason: code for code, reason in enumerate(REASONS)}


@dataclass(frozen=True)
class Rows:
    """n records: log weights (n, R) for R targets, NaN where there is nothing to weigh; whether the keyed sample holds them; the
    place of their table in the pool; a score of the user's own (NaN without one); and the values of columns counted apart.
    """

    row_ids: I64
    weights: F64
    n_tokens: I64
    sampled: Mask
    places: I64
    scores: F64
    strata: tuple[pa.Array, ...] = ()

    def take(self, which: Mask) -> Rows:
        """The records where the mask is true."""
        strata = tuple(column.filter(pa.array(which)) for column in self.strata)
        return Rows(
            self.row_ids[which],
            self.weights[which],
            self.n_tokens[which],
            self.sampled[which],
            self.places[which],
            self.scores[which],
            strata,
        )


def to_table(rows: Rows) -> pa.Table:
    """Rows as a table, a column each: `w0`, `w1` ... are the weights, `s0` ... the strata; NaN is NULL."""
    columns: dict[str, pa.Array] = {
        "row_id": pa.array(rows.row_ids),
        "n_tokens": pa.array(rows.n_tokens),
        "sampled": pa.array(rows.sampled),
        "place": pa.array(rows.places, pa.int32()),
        "score": pa.array(rows.scores, from_pandas=True),
    }
    columns |= {f"w{r}": pa.array(rows.weights[:, r], from_pandas=True) for r in range(rows.weights.shape[1])}
    columns |= {f"s{i}": column for i, column in enumerate(rows.strata)}
    return pa.table(columns)


def of_table(table: pa.Table) -> Rows:
    """The rows of such a table."""

    def floats(name: str) -> F64:
        return np.asarray(table.column(name).to_numpy(), np.float64)

    names = table.schema.names
    weights = [floats(name) for name in names if name.startswith("w")]
    return Rows(
        np.asarray(table.column("row_id")),
        np.stack(weights, axis=1) if weights else np.zeros((table.num_rows, 0)),
        np.asarray(table.column("n_tokens")),
        np.asarray(table.column("sampled")),
        np.asarray(table.column("place"), np.int64),
        floats("score"),
        tuple(table.column(name).combine_chunks() for name in names if name.startswith("s") and name[1:].isdigit()),
    )


def empty_rows(n_targets: int, n_strata: int) -> Rows:
    """No record at all, with so many weights and strata."""
    ids, none = np.zeros(0, np.int64), np.zeros(0)
    strata = tuple(pa.array([], pa.string()) for _ in range(n_strata))
    return Rows(ids, np.zeros((0, n_targets)), ids, np.zeros(0, np.bool_), ids, none, strata)


# --- rows and verdicts ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Door:
    """What a record must pass beside the verdicts on it. `min_tokens` is the reference's; `low` and `high` bound the score of the
    user's own; `scored`: a record without a score cannot be judged; `is_bounded`: nor can it where a bound is asked for, also
    where the sample has no score that one could be taken from."""

    min_tokens: int = 0
    low: float | None = None
    high: float | None = None
    scored: bool = False
    is_bounded: bool = False

    @property
    def least(self) -> float:
        return -np.inf if self.low is None else self.low

    @property
    def most(self) -> float:
        return np.inf if self.high is None else self.high


@dataclass(frozen=True)
class Joined:
    """Rows with what was said of them: `codes` (n,) are places in `REASONS`, `KEPT` where nothing speaks against a record,
    and `verdicts` is a row of `VERDICT` for each record, NULL where there is none."""

    rows: Rows
    codes: npt.NDArray[np.int8]
    verdicts: pa.Table

    @property
    def candidates(self) -> Mask:
        return self.codes == CODES[KEPT]


def joined(rows: Rows, found: pa.Table, door: Door) -> Joined:
    """Rows, sorted by row id, with the first verdict on each of them."""
    verdicts = _aligned(rows.row_ids, first_verdicts(found))
    known = pa.array([CUT if name == KEPT else name for name in REASONS])
    codes = np.array(pc.fill_null(pc.index_in(verdicts.column("reason"), known), CODES[KEPT]), np.int8)
    missing = np.isnan(rows.scores)
    for reason, where in (
        (NO_SCORE if door.scored else EMPTY_TEXT, np.isnan(rows.weights).any(axis=1)),
        (TOO_SHORT, rows.n_tokens < door.min_tokens),
        (NO_SCORE, missing & door.is_bounded),
    ):
        codes[(codes == CODES[KEPT]) & where] = CODES[reason]
    with np.errstate(invalid="ignore"):
        below, above = rows.scores < door.least, rows.scores > door.most
    outside = (codes == CODES[KEPT]) & (below | above)
    codes[outside] = CODES[FILTERED]
    verdicts = _told(verdicts, outside, "score", rows.scores, np.where(below, door.least, door.most))
    short = codes == CODES[TOO_SHORT]
    return Joined(rows, codes, _told(verdicts, short, "n_tokens", rows.n_tokens, np.full(len(short), door.min_tokens)))


def _aligned(row_ids: I64, verdicts: pa.Table) -> pa.Table:
    """A verdict for each row id, in their order; NULLs where there is none."""
    ids = np.asarray(verdicts.column("row_id"))
    if not len(ids):
        nothing = {field.name: pa.nulls(len(row_ids), field.type) for field in verdicts.schema}
        return pa.table(nothing, schema=verdicts.schema)
    places = np.minimum(np.searchsorted(ids, row_ids), len(ids) - 1)
    return verdicts.take(pa.array(places, mask=ids[places] != row_ids))


def _told(verdicts: pa.Table, which: Mask, signal: str, values: F64 | I64, bounds: F64 | I64) -> pa.Table:
    """The verdicts, with those of a number outside its bounds."""
    if not which.any():
        return verdicts
    mask = pa.array(which)
    for name, said in (
        ("signal", pa.scalar(signal)),
        ("value", pa.array(values, pa.float64())),
        ("bound", pa.array(bounds, pa.float64())),
    ):
        at = verdicts.schema.get_field_index(name)
        verdicts = verdicts.set_column(at, verdicts.schema.field(at), pc.if_else(mask, said, verdicts.column(at)))
    return verdicts
