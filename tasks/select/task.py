"""The door of selection: the records of a pool that are worth training on, for they read like the target."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from prefect import task

from infra.cluster import Scheduler, Workers, connect
from infra.contracts import NGRAM_COUNTS, SELECTION, LetheError, Lineage, Snapshot
from infra.decisions import ranges
from infra.discretion import discreet
from infra.files import write_part
from infra.ids import I64, sample_level, seed_of
from infra.lake import Lake
from infra.lineage import code_digest, stage_key
from infra.settings import ConfigError, SelectSettings, Settings
from tasks.select.decide import cut_within
from tasks.select.frames import (
    Sample,
    Scored,
    Scoring,
    Source,
    Spaces,
    count_file,
    count_measure,
    decide_range,
    find_near,
    joined_samples,
    score_file,
)
from tasks.select.kl import MEASURED_ROWS, Divergences, divergences, joined
from tasks.select.weights import EVERYTHING, Cut, cut_at, effective_sample_size, length_correlation, log_ratios, n_to_keep


class EmptyTarget(LetheError):
    """The target has no text to compare with."""


@dataclass(frozen=True)
class SelectResult:
    """What a selection came to. Counts are of records (copies are one); the figures below them are taken on the keyed sample.

    `kl_*` are KL(target || ·) in nats per n-gram, held out, see `tasks.select.kl`; `kl_reduction` = kl_raw - kl_selected.
    `effective_sample_size` is out of `n_sample`. `threshold` is the smallest key kept, None when every record with text is.
    `n_counted_files` are those that the run which made the selection had to count.
    """

    dataset: str
    snapshot: Snapshot
    found: bool
    seconds: float
    n_raw: int
    n_kept: int
    n_empty: int
    n_sample: int
    n_counted_files: int
    threshold: float | None
    kl_raw: float
    kl_selected: float
    kl_random: float
    kl_reduction: float
    random_kl_reduction: float
    effective_sample_size: float
    length_correlation: float


@dataclass(frozen=True)
class _Plan:
    """All that the output is a function of, and its key."""

    dataset: str
    chosen: SelectSettings
    inputs: tuple[Snapshot, ...]
    pool: tuple[Source, ...]
    target: tuple[Source, ...]
    scoring: Scoring
    params: dict[str, Any]
    code: str

    @property
    def key(self) -> str:
        return stage_key("select", self.code, self.inputs, self.params)


@task(name="select", persist_result=False)
@discreet
def select(
    settings: Settings,
    dataset: str,
    pool: tuple[Snapshot, ...],
    beside: tuple[Snapshot, ...] = (),
    scores: Snapshot | None = None,
    *,
    scheduler: Scheduler = None,
) -> SelectResult:
    """Decide which records of the pool to keep for a dataset, and commit `selection/<dataset>`, one row a record.

    Found, not run again, when the inputs' rows, the settings and the code are those of an earlier run. Raises `ConfigError` for a
    table without a text column, `EmptyTarget` for a target without text.
    """
    started = time.perf_counter()
    lake = Lake.open(settings)
    plan = _plan(settings, lake, dataset, pool, beside[0])
    snapshot = lake.reuse(f"selection/{dataset}", plan.key)
    found = snapshot is not None
    if snapshot is None:
        with connect(scheduler) as workers:
            snapshot = _run(lake, workers, plan)
    else:
        _forget_counts(lake, plan)
    figures = lake.lineage(snapshot).summary
    return SelectResult(dataset, snapshot, found, time.perf_counter() - started, **figures)


# --- the plan ------------------------------------------------------------------------------------------------------------------


def _plan(settings: Settings, lake: Lake, dataset: str, pool: Sequence[Snapshot], target: Snapshot) -> _Plan:
    chosen = settings.dataset(dataset).select
    pool = sorted(pool)
    sources = tuple(source for snapshot in pool for source in _sources(settings, lake, snapshot))
    n_rows = sum(snapshot.n_rows for snapshot in pool)
    level = sample_level(n_rows, settings.lake.sample_rows)
    scoring = Scoring(
        level=level,
        measured_level=max(level, sample_level(n_rows, 2 * MEASURED_ROWS)),
        normalize=chosen.normalize,
        temperature=chosen.temperature,
        seed=chosen.seed,
        spaces=Spaces(chosen.n_buckets, seed_of("select", chosen.seed, "weights"), seed_of("select", chosen.seed, "kl")),
    )
    params = {
        "select": chosen.model_dump(mode="json"),
        "sample_rows": settings.lake.sample_rows,
        "columns": {snapshot.table: _columns(settings, snapshot) for snapshot in (*pool, target)},
        "target": target.table,
    }
    code = code_digest("tasks.select", "tasks.kernels.ngrams", "tasks.kernels.tokens")
    inputs = (*pool, target)
    return _Plan(dataset, chosen, inputs, sources, tuple(_sources(settings, lake, target)), scoring, params, code)


def _sources(settings: Settings, lake: Lake, snapshot: Snapshot) -> list[Source]:
    """The data files of a snapshot, with the columns that selection reads."""
    name = snapshot.table.removeprefix("records/")
    table = settings.table(name)
    if table.text is None:
        raise ConfigError(f'table {name!r} has no text column, and selection compares texts. Add text = "<column>" to it')
    schema = lake.schema(snapshot)
    kind = schema.field(table.text).type if table.text in schema.names else None
    if kind is None or not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise ConfigError(
            f"table {name!r}: text = {table.text!r} names no text column; it has: "
            + ", ".join(f"{field.name} ({field.type})" for field in schema if field.name != "row_id")
        )
    return [Source(snapshot.table, part, table.text, table.subject) for part in lake.parts(snapshot)]


def _columns(settings: Settings, snapshot: Snapshot) -> dict[str, str | None]:
    table = settings.table(snapshot.table.removeprefix("records/"))
    subject = table.subject
    return {
        "text": table.text,
        "subject": subject.column if subject else None,
        "kind": subject.kind if subject else None,
    }


# --- the run -------------------------------------------------------------------------------------------------------------------


def _run(lake: Lake, workers: Workers, plan: _Plan) -> Snapshot:
    spaces = plan.scoring.spaces
    target = _total(workers.map(count_file, plan.target, lake.keys, 0, spaces), spaces)
    if not target.sum():
        raise EmptyTarget(f"{plan.inputs[-1].table}, the target of dataset {plan.dataset!r}, holds no text. Name another target")
    raw, n_counted = _raw_counts(lake, workers, plan)
    judge = _total(workers.map(count_measure, plan.target, lake.keys, spaces), spaces)
    smoothing = plan.chosen.smoothing
    ratios = log_ratios(target.sum(axis=0), raw.sum(axis=0), smoothing=smoothing)
    # A target of a handful of rows may have an empty half: then nothing can be held out of it.
    held_out = bool(target.sum(axis=1).all())
    even = log_ratios(target[0], raw[0], smoothing=smoothing) if held_out else ratios
    with lake.scratch() as scratch:
        passes = workers.map(score_file, plan.pool, lake.keys, plan.scoring, scratch, ratios, even)
        measure = divergences(
            joined([rows for one in passes for rows in one.measured]),
            judge[1] if held_out else judge.sum(axis=0),
            keep_fraction=plan.chosen.fraction,
            temperature=plan.chosen.temperature,
            seed=plan.chosen.seed,
        )
        return _decide(lake, workers, plan, passes, {"n_counted_files": n_counted, **_kl_figures(measure)})


def _forget_counts(lake: Lake, plan: _Plan) -> None:
    """Let go of the counts of files that are no longer in the pool: they may count erased rows."""
    known = _known_counts(lake, plan)
    names = {_name(source) for source in plan.pool}
    if not known.keys() <= names:
        _keep_counts(lake, plan, {name: counts for name, counts in known.items() if name in names})


def _decide(lake: Lake, workers: Workers, plan: _Plan, passes: Sequence[Scored], figures: dict[str, Any]) -> Snapshot:
    """Cut, decide each range of row ids, and commit the selection."""
    table = f"selection/{plan.dataset}"
    sample = joined_samples([one.sample for one in passes])
    parts = [one.uri for one in passes]
    spans = ranges(sum(source.part.file.n_rows for source in plan.pool)) if parts else []
    cut = cut_at(sample.keys, sample.row_ids, plan.chosen.fraction)
    if plan.chosen.exact and plan.scoring.level > 0:
        cut = _exact_cut(workers, spans, parts, sample, plan.chosen.fraction)
    decided = workers.map(decide_range, spans, parts, cut, lake.folder(table))
    summary = {
        "n_raw": sum(one.file.n_rows for one in decided),
        "n_kept": sum(one.n_kept for one in decided),
        "n_empty": sum(one.n_empty for one in decided),
        "n_sample": len(sample.row_ids),
        "threshold": None if cut == EVERYTHING else cut.key,
        "effective_sample_size": effective_sample_size(sample.log_weights, temperature=plan.chosen.temperature),
        "length_correlation": length_correlation(sample.log_weights, sample.n_tokens),
        **figures,
    }
    lineage = Lineage("select", plan.key, plan.code, plan.inputs, plan.params, summary)
    return lake.commit(table, SELECTION, [one.file for one in decided], lineage=lineage, overwrite=True)


def _exact_cut(workers: Workers, spans: Sequence[tuple[int, int]], parts: list[str], sample: Sample, keep_fraction: float) -> Cut:
    """The cut of all records instead of the sample's: one pass over the keys near that one, more if it lies elsewhere."""
    keys = np.sort(sample.keys[~np.isnan(sample.keys)])[::-1]
    n = len(keys)
    middle = n_to_keep(n, keep_fraction)
    reach = 4 * math.isqrt(n) + 1
    while True:
        low = float(keys[middle + reach]) if middle + reach < n else -math.inf
        high = float(keys[middle - reach]) if middle - reach >= 0 else math.inf
        found = workers.map(find_near, spans, parts, low, high)
        n_records = sum(part.n for part in found)
        k = n_to_keep(n_records, keep_fraction)
        if k == n_records:
            return EVERYTHING
        if (cut := cut_within(found, k)) is not None:
            return cut
        reach *= 8


def _kl_figures(kl: Divergences) -> dict[str, float]:
    return {
        "kl_raw": kl.raw,
        "kl_selected": kl.selected,
        "kl_random": kl.random,
        "kl_reduction": kl.raw - kl.selected,
        "random_kl_reduction": kl.raw - kl.random,
    }


# --- counts --------------------------------------------------------------------------------------------------------------------


def _raw_counts(lake: Lake, workers: Workers, plan: _Plan) -> tuple[I64, int]:
    """The pool's counts, (2, n_buckets), and how many files had to be counted: the others' are in `ngram_counts/<dataset>`."""
    spaces = plan.scoring.spaces
    known = _known_counts(lake, plan)
    fresh = [source for source in plan.pool if _name(source) not in known]
    counted = workers.map(count_file, fresh, lake.keys, plan.scoring.level, spaces)
    counts = known | {_name(source): found for source, found in zip(fresh, counted, strict=True)}
    counts = {_name(source): counts[_name(source)] for source in plan.pool}
    if fresh or len(counts) != len(known):
        _keep_counts(lake, plan, counts)
    return _total(list(counts.values()), spaces), len(fresh)


def _name(source: Source) -> tuple[str, str]:
    return source.table, source.part.file.path


def _total(parts: Sequence[I64], spaces: Spaces) -> I64:
    return sum(parts, np.zeros((2, spaces.n_buckets), np.int64))


def _count_params(plan: _Plan) -> dict[str, Any]:
    """What the counts of a file are a function of, beside the file."""
    return {
        "n_buckets": plan.chosen.n_buckets,
        "seed": plan.chosen.seed,
        "level": plan.scoring.level,
        "columns": {source.table: plan.params["columns"][source.table] for source in plan.pool},
    }


def _known_counts(lake: Lake, plan: _Plan) -> dict[tuple[str, str], I64]:
    """Counts of data files, which never change, from the last run that counted the same rows in the same way."""
    table = f"ngram_counts/{plan.dataset}"
    if not lake.exists(table):
        return {}
    snapshot = lake.snapshot(table)
    lineage = lake.lineage(snapshot)
    if (lineage.code, lineage.params) != (plan.code, _count_params(plan)):
        return {}
    rows = lake.read(snapshot)
    counts = [np.asarray(row.values, np.int64).reshape(2, -1) for row in rows.column("counts")]
    return dict(zip(zip(rows.column("table").to_pylist(), rows.column("file").to_pylist(), strict=True), counts, strict=True))


def _keep_counts(lake: Lake, plan: _Plan, counts: dict[tuple[str, str], I64]) -> None:
    params = _count_params(plan)
    table = f"ngram_counts/{plan.dataset}"
    names = list(counts)
    columns = [
        pa.array([name for name, _ in names], pa.string()),
        pa.array([file for _, file in names], pa.string()),
        pa.array([found.ravel() for found in counts.values()], pa.list_(pa.int64())),
    ]
    rows = pa.record_batch(columns, schema=NGRAM_COUNTS)
    file = write_part(lake.folder(table), [rows], NGRAM_COUNTS)
    pool = plan.inputs[:-1]
    lineage = Lineage("select", stage_key("ngram_counts", plan.code, pool, params), plan.code, pool, params)
    lake.commit(table, NGRAM_COUNTS, [file], lineage=lineage, overwrite=True)
