"""The steps before the resampling: filters, decontamination, near duplicates. Each leaves verdicts, spilled by row id."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from infra.cluster import Workers
from infra.contracts import CONTAMINATION, SIGNATURES
from infra.decisions import ranges, sliced, spill
from infra.files import Part, read_part
from infra.ids import I64
from infra.lake import Lake
from infra.select_settings import DecontaminateSettings, NearDuplicateSettings
from tasks.kernels.signals import SIGNALS, signals_of
from tasks.kernels.spans import Grams, gram_set, joined_grams
from tasks.select.contamination import (
    Evaluation,
    common_grams,
    contaminated,
    contamination_table,
    evaluation_of,
    frequencies,
)
from tasks.select.counts import counted, is_counted
from tasks.select.decide import Rules, Span, dropped, sampled_ids
from tasks.select.duplicates import signature_table
from tasks.select.duplicates_frames import duplicates
from tasks.select.frames import filter_file
from tasks.select.measured import Measure, is_measured, measured, parts_by_source, texts_of
from tasks.select.plan import RECORDS, Plan, Source

SIGNAL_COLUMNS = pa.schema([("row_id", pa.int64()), *((name, pa.float32()) for name in SIGNALS)])


def brought_up(lake: Lake, workers: Workers, plan: Plan) -> None:
    """Count and measure what a selection that was found is explained by. It is found by its rows, whatever files they lie in;
    counts and measures are of files, and may be those of other settings by now."""
    asked = plan.select
    if plan.asked.method == "importance" and not is_counted(lake, plan):
        counted(lake, workers, plan)
    if asked.measures_signals:
        measured(lake, workers, plan, _OF_SIGNALS)
    if asked.near_duplicates is not None:
        measured(lake, workers, plan, _of_signatures(asked.near_duplicates))
    spans = asked.decontaminate
    if spans is not None and not is_measured(lake, plan, "contamination", _sought(plan, spans)):
        measured(lake, workers, plan, _of_contamination(plan, spans, _evaluation(workers, plan, spans)))


def local_verdicts(lake: Lake, workers: Workers, plan: Plan, rules: Rules, scratch: str) -> list[str]:
    """The verdicts of filters and decontamination."""
    found = list[str]()
    if plan.select.measures_signals:
        snapshot = measured(lake, workers, plan, _OF_SIGNALS)
        parts = parts_by_source(lake, plan, snapshot)
        found += workers.map(filter_file, parts if plan.select.filters else [], plan.select.filters, scratch)
    if plan.select.decontaminate is not None:
        found += contamination(lake, workers, plan, rules, scratch, plan.select.decontaminate)
    return found


def contamination(
    lake: Lake, workers: Workers, plan: Plan, rules: Rules, scratch: str, asked: DecontaminateSettings
) -> list[str]:
    """The verdicts on records that share text with evaluation tables."""
    evaluation = _evaluation(workers, plan, asked)
    snapshot = measured(lake, workers, plan, _of_contamination(plan, asked, evaluation))
    hits = workers.map(spill_hits, parts_by_source(lake, plan, snapshot), scratch)
    spans = ranges(max(plan.n_rows, snapshot.n_rows))  # a record has any number of hits: a range holds few of both
    found = workers.map(count_hits, spans, hits, rules)
    common = common_grams([one for _, one in found], sum(n for n, _ in found), asked)
    return workers.map(judge_hits, spans, hits, common, asked, scratch)


def duplicate_verdicts(
    lake: Lake, workers: Workers, plan: Plan, rules: Rules, spans: Sequence[Span], scratch: str, asked: NearDuplicateSettings
) -> list[str]:
    """The verdicts on records of which a duplicate stays, among those that nothing else drops."""
    snapshot = measured(lake, workers, plan, _of_signatures(asked))
    gone = workers.map(dropped, spans, rules, scratch)
    return duplicates(workers, parts_by_source(lake, plan, snapshot), gone, asked, scratch)


# --- what is measured ----------------------------------------------------------------------------------------------------------


def _of_signatures(asked: NearDuplicateSettings) -> Measure:
    return Measure("signatures", SIGNATURES, signature_table, asked, signed(asked))


def _of_contamination(plan: Plan, asked: DecontaminateSettings, evaluation: Evaluation) -> Measure:
    return Measure("contamination", CONTAMINATION, contamination_table, evaluation, _sought(plan, asked))


def _sought(plan: Plan, asked: DecontaminateSettings) -> dict[str, Any]:
    """What the n-grams that are looked for are a function of: the rows of the evaluation tables, and their columns."""
    tables = [snapshot for snapshot in plan.inputs if snapshot.table.removeprefix(RECORDS) in plan.evaluations]
    return {
        "n": asked.n,
        "rows": {snapshot.table: snapshot.digest for snapshot in tables},
        "columns": {snapshot.table: plan.params["columns"][snapshot.table] for snapshot in tables},
    }


def signed(asked: NearDuplicateSettings) -> dict[str, object]:
    """What signatures are a function of: not the similarity that they are compared with, unless it is that of equals."""
    return {**asked.model_dump(exclude={"jaccard"}), "exact": asked.jaccard == 1.0}


def signal_rows(row_ids: I64, texts: pa.Array, _: None) -> pa.Table:
    """Signals of texts under their row ids."""
    return signals_of(texts).add_column(0, "row_id", pa.array(row_ids))


_OF_SIGNALS = Measure("signals", SIGNAL_COLUMNS, signal_rows, None, {})


def _evaluation(workers: Workers, plan: Plan, asked: DecontaminateSettings) -> Evaluation:
    """The n-grams of the evaluation tables, as they stand."""
    grams = dict[str, Grams]()
    for name, sources in plan.evaluations.items():
        grams[name] = joined_grams(workers.map(grams_of_file, sources, asked.n), n=asked.n)
    return evaluation_of(grams, n=asked.n)


def grams_of_file(source: Source, n: int) -> Grams:
    """The n-grams of one file of an evaluation table."""
    return joined_grams([gram_set(batch.column(source.text), n=n) for batch in texts_of(source)], n=n)


def spill_hits(part: Part, scratch: str) -> str:
    """Spill what was found in one file of the pool."""
    return spill(scratch, pa.concat_tables([CONTAMINATION.empty_table(), *map(_table, read_part(part))]))


def _table(batch: pa.RecordBatch) -> pa.Table:
    return pa.Table.from_batches([batch])


def count_hits(span: Span, hits: Sequence[str], rules: Rules) -> tuple[int, tuple[I64, I64]]:
    """How many records of a range the keyed sample holds, and in how many of those each n-gram is."""
    sampled = sampled_ids(span, rules)
    return len(sampled), frequencies(pa.concat_tables(sliced(hits, *span, columns=["row_id", "gram"])), sampled)


def judge_hits(span: Span, hits: Sequence[str], common: I64, asked: DecontaminateSettings, scratch: str) -> str:
    """Spill the verdicts on a range of records."""
    return spill(scratch, contaminated(pa.concat_tables(sliced(hits, *span)), common, asked))
