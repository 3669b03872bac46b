"""What workers do with a range of row ids: join scores with verdicts, count, and write the decisions. They may run twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from infra.contracts import BELOW_THRESHOLD, KEPT, SELECTION, DataFile
from infra.decisions import merged, sliced, spill
from infra.files import Folder, write_part
from infra.ids import F64, I64
from tasks.select.budget import I32, Candidates, Cuts, Totals, admitted, totals_of
from tasks.select.exact import Answer, Probe, admitted_totals, answer
from tasks.select.plan import TABLE
from tasks.select.report_figures import Shape, shape
from tasks.select.safety import Losses, losses
from tasks.select.scored import CODES, REASONS, Door, Joined, Rows, empty_rows, joined, of_table, to_table
from tasks.select.verdicts import VERDICT, verdicts
from tasks.select.weights import target_keys

_GROUP_ROWS = 65_536
_BELOW = CODES[BELOW_THRESHOLD]
Span = tuple[int, int]


@dataclass(frozen=True)
class Strata:
    """The `n` strata that floors are for: tables, the values of column `column` of those that are read, or all records as one."""

    column: int | None = None
    values: tuple[str | None, ...] = ()
    n: int = 1
    by_table: bool = False

    def numbers(self, rows: Rows) -> I32:
        """The stratum of each record."""
        if self.by_table:
            return rows.places.astype(np.int32)
        if self.column is None:
            return np.zeros(len(rows.row_ids), np.int32)
        found = pc.index_in(rows.strata[self.column], pa.array(self.values, pa.string()), skip_nulls=False)
        return np.asarray(found, np.int32)


@dataclass(frozen=True)
class Rules:
    """What makes candidates out of spilled scores and verdicts.

    `targets` are names, `tables` those of the pool by place, `columns` those of the strata: `watched` ones count for safety.
    """

    scored: tuple[str, ...]
    verdicts: tuple[str, ...]
    door: Door
    strata: Strata
    temperature: float
    seed: int
    targets: tuple[str, ...]
    tables: tuple[str, ...]
    columns: tuple[str, ...]
    watched: tuple[str, ...]

    def with_verdicts(self, found: Sequence[str]) -> Rules:
        """The same, with more spilled verdicts."""
        return replace(self, verdicts=(*self.verdicts, *found))


@dataclass(frozen=True)
class Look:
    """Of one range: the sample's candidates and their strata, and which of the ids asked for are candidates."""

    rows: Rows
    strata: I32
    present: I64


@dataclass(frozen=True)
class Decided:
    """A written part of the selection, and what is told of it."""

    file: DataFile
    losses: Losses
    raw: Shape
    selected: Shape
    n_by_target: tuple[int, ...]
    n_tokens: int


def look(span: Span, rules: Rules, asked: I64) -> Look:
    """Hear the verdicts on a range of row ids. `asked` are row ids, sorted; no others need be there, but for the sample's."""
    here = _joined(span, rules)
    rows = here.rows.take(here.candidates & here.rows.sampled)
    present = here.rows.row_ids[here.candidates & np.isin(here.rows.row_ids, asked, assume_unique=True)]
    return Look(rows, rules.strata.numbers(rows), present)


def sampled_ids(span: Span, rules: Rules) -> I64:
    """The row ids of a range that the keyed sample holds, each once."""
    table = merged(rules.scored, *span, columns=["row_id", "sampled"])
    return np.asarray(table.column("row_id").filter(table.column("sampled")))


def dropped(span: Span, rules: Rules, scratch: str) -> str:
    """Spill the ids of a range's records that are no candidates, as verdicts."""
    here = _joined(span, rules)
    which = ~here.candidates
    reasons = pa.array(REASONS).take(pa.array(here.codes[which]))
    return spill(scratch, verdicts(here.rows.row_ids[which], reason=reasons))


def counts_all(span: Span, rules: Rules) -> Totals:
    """The candidates of a range, counted."""
    return totals_of(_open(span, rules), rules.strata.n)


def answers(span: Span, rules: Rules, probe: Probe) -> Answer:
    """What a range says to a probe of the exact cut."""
    return answer(_open(span, rules), probe)


def counts_admitted(span: Span, rules: Rules, cuts: Cuts) -> Totals:
    """What cuts admit of a range."""
    return admitted_totals(_open(span, rules), cuts, rules.strata.n)


def _open(span: Span, rules: Rules) -> Candidates:
    """All candidates of a range."""
    here = _joined(span, rules)
    return _candidates(here.rows, rules.strata.numbers(here.rows), rules).take(here.candidates)


def decide_range(span: Span, rules: Rules, cuts: Cuts, edges: F64, folder: Folder) -> Decided:
    """Decide a range of row ids and write its part of the selection."""
    here = _joined(span, rules)
    rows, candidates = here.rows, _candidates(here.rows, rules.strata.numbers(here.rows), rules)
    keep, target = admitted(candidates, cuts)
    keep &= here.candidates
    codes = np.where(here.candidates & ~keep, _BELOW, here.codes).astype(np.int8)
    target = np.where(keep, target, -1)
    table = _decisions(here, candidates.keys, codes, target, rules)
    file = write_part(folder, table.to_batches(max_chunksize=_GROUP_ROWS), SELECTION, stats=("row_id",))
    told = best(rows.weights)
    return Decided(
        file,
        _losses(table, rows, rules),
        shape(rows.n_tokens, told, edges),
        shape(rows.n_tokens[keep], told[keep], edges),
        tuple(int(np.count_nonzero(target == r)) for r in range(len(rules.targets))),
        int(rows.n_tokens[keep].sum()),
    )


def keys_by(rows: Rows, rules: Rules, *, seed: int | None = None) -> F64:
    """Noisy keys (n, R) of records."""
    seed = rules.seed if seed is None else seed
    return target_keys(rows.weights, rows.row_ids, rules.targets, temperature=rules.temperature, seed=seed)


# --- joining -------------------------------------------------------------------------------------------------------------------


def _joined(span: Span, rules: Rules) -> Joined:
    rows = of_table(merged(rules.scored, *span))
    found = [VERDICT.empty_table(), *sliced(rules.verdicts, *span)]
    return joined(rows, pa.concat_tables(found), rules.door)


def _candidates(rows: Rows, strata: I32, rules: Rules) -> Candidates:
    return Candidates(rows.row_ids, keys_by(rows, rules), rows.n_tokens, strata)


def best(weights: F64) -> F64:
    """The log weight of the target that suits a record best: the one that is told of it, (n,)."""
    if weights.shape[1] == 1:
        return weights[:, 0]
    return np.where(np.isnan(weights).all(axis=1), np.nan, np.max(np.nan_to_num(weights, nan=-np.inf), axis=1))


def _decisions(here: Joined, keys: F64, codes: np.ndarray, target: I32, rules: Rules) -> pa.Table:
    """One SELECTION row for each record; of several targets, weight and key are of the one that admitted it, or the best."""
    rows = here.rows
    told = np.where(target >= 0, target, np.argmax(np.nan_to_num(keys, nan=-np.inf), axis=1))
    at = np.arange(len(told))
    named = pa.array(rules.targets, pa.string()).take(pa.array(np.maximum(target, 0), mask=target < 0))
    columns = {
        "row_id": pa.array(rows.row_ids),
        "keep": pa.array(codes == CODES[KEPT]),
        "reason": pa.array(REASONS).take(pa.array(codes)),
        "log_weight": pa.array(rows.weights[at, told], from_pandas=True),
        "key": pa.array(keys[at, told], from_pandas=True),
        "target": named if len(rules.targets) > 1 else pa.nulls(len(told), pa.string()),
        **{name: here.verdicts.column(name) for name in ("signal", "value", "bound", "representative", "cuts")},
    }
    return pa.table(columns, schema=SELECTION)


def _losses(table: pa.Table, rows: Rows, rules: Rules) -> Losses:
    """The decisions counted by table and by the values of the columns that are looked after."""
    strata = {name: column for name, column in zip(rules.columns, rows.strata, strict=True) if name in rules.watched}
    told = {TABLE: pa.array(rules.tables, pa.string()).take(pa.array(rows.places)), **strata}
    counted = table.select(["keep", "reason", "signal"])
    for name, column in told.items():
        counted = counted.append_column(name, column)
    return losses(counted)


def sampled(parts: Sequence[Look], n_targets: int, n_strata: int) -> tuple[Rows, I32]:
    """The sample's candidates of all ranges, in the order of row ids, and their strata."""
    rows = [empty_rows(n_targets, n_strata), *(part.rows for part in parts)]
    together = pa.concat_tables([to_table(one) for one in rows], promote_options="default")
    return of_table(together), np.concatenate([np.zeros(0, np.int32), *(part.strata for part in parts)])
