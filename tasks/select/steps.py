"""The steps before the resampling: filters, decontamination, near duplicates. Each leaves verdicts, spilled by row id."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from infra.cluster import Workers
from infra.contracts import CONTAMINATION, SIGNATURES
from infra.decisions import spill
from infra.ids import I64
from infra.lake import Lake
from infra.select_settings import DecontaminateSettings, NearDuplicateSettings
from tasks.kernels.signals import SIGNALS, signals_of
from tasks.kernels.spans import Grams, gram_set, joined_grams
from tasks.select.contamination import Evaluation, contaminated, contamination_table, evaluation_of
from tasks.select.decide import Rules, Span, dropped, in_the_sample
from tasks.select.duplicates import signature_table
from tasks.select.duplicates_frames import duplicates
from tasks.select.frames import filter_file
from tasks.select.measured import Measure, gathered, measured, parts_by_source, texts_of
from tasks.select.plan import Plan, Source

SIGNAL_COLUMNS = pa.schema([("row_id", pa.int64()), *((name, pa.float32()) for name in SIGNALS)])


def local_verdicts(lake: Lake, workers: Workers, plan: Plan, rules: Rules, spans: Sequence[Span], scratch: str) -> list[str]:
    """The verdicts of filters and decontamination."""
    found = list[str]()
    if plan.select.filters:
        snapshot, _ = measured(lake, workers, plan, Measure("signals", SIGNAL_COLUMNS, signal_rows, None, {}))
        parts = parts_by_source(lake, plan, snapshot)
        found += workers.map(filter_file, parts, plan.select.filters, scratch)
    if plan.select.decontaminate is not None:
        found.append(spill(scratch, contamination(lake, workers, plan, rules, spans, plan.select.decontaminate)))
    return found


def contamination(
    lake: Lake, workers: Workers, plan: Plan, rules: Rules, spans: Sequence[Span], asked: DecontaminateSettings
) -> pa.Table:
    """The verdicts on records that share text with evaluation tables."""
    evaluation = _evaluation(workers, plan, asked)
    measure = Measure("contamination", CONTAMINATION, contamination_table, evaluation, {"evaluation": evaluation.digest})
    snapshot, _ = measured(lake, workers, plan, measure)
    hits = gathered(parts_by_source(lake, plan, snapshot), CONTAMINATION)
    found = workers.map(in_the_sample, spans, rules, np.unique(np.asarray(hits.column("row_id"))))
    sampled = np.concatenate([row_ids for _, row_ids in found])
    return contaminated(hits, asked, n_sampled=sum(n for n, _ in found), sampled=sampled)


def duplicate_verdicts(
    lake: Lake, workers: Workers, plan: Plan, rules: Rules, spans: Sequence[Span], scratch: str, asked: NearDuplicateSettings
) -> list[str]:
    """The verdicts on records of which a duplicate stays, among those that nothing else drops."""
    measure = Measure("signatures", SIGNATURES, signature_table, asked, signed(asked))
    snapshot, _ = measured(lake, workers, plan, measure)
    gone = workers.map(dropped, spans, rules, scratch)
    return duplicates(workers, parts_by_source(lake, plan, snapshot), gone, asked, scratch)


def signed(asked: NearDuplicateSettings) -> dict[str, object]:
    """What signatures are a function of: not the similarity that they are compared with, unless it is that of equals."""
    return {**asked.model_dump(exclude={"jaccard"}), "exact": asked.jaccard == 1.0}


def signal_rows(row_ids: I64, texts: pa.Array, _: None) -> pa.Table:
    """Signals of texts under their row ids."""
    return signals_of(texts).add_column(0, "row_id", pa.array(row_ids))


def _evaluation(workers: Workers, plan: Plan, asked: DecontaminateSettings) -> Evaluation:
    """The n-grams of the evaluation tables, as they stand."""
    grams = dict[str, Grams]()
    for name, sources in plan.evaluations.items():
        grams[name] = joined_grams(workers.map(grams_of_file, sources, asked.n), n=asked.n)
    return evaluation_of(grams, n=asked.n)


def grams_of_file(source: Source, n: int) -> Grams:
    """The n-grams of one file of an evaluation table."""
    return joined_grams([gram_set(batch.column(source.text), n=n) for batch in texts_of(source)], n=n)
