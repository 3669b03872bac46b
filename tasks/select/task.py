"""The door of selection: the records of a pool that are worth training on, and for every other one the reason why not.

Scores first (a weight towards each target, or a score of the user's own), then the verdicts of filters, decontamination and
near duplicates; what no verdict drops are candidates. The keyed sample of them says where the cut of the budget lies, and every
record is decided by its own row and that cut.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import reduce
from operator import add
from typing import Any

import numpy as np
from prefect import task

from infra.cluster import Scheduler, Workers, connect
from infra.contracts import SELECTION, LetheError, Lineage, Snapshot
from infra.decisions import ranges
from infra.discretion import discreet
from infra.files import Part, source_key
from infra.lake import Lake
from infra.per_file import by_source
from infra.settings import Settings
from tasks.select.budget import Budget, Candidates, Cuts, Floors, Totals, expected_totals, fit_cuts
from tasks.select.counts import let_go_of_counts
from tasks.select.decide import (
    Look,
    Rules,
    Span,
    Strata,
    answers,
    best,
    counts_admitted,
    counts_all,
    decide_range,
    keys_by,
    look,
    sampled,
)
from tasks.select.exact import Answer, Probe, exact_cuts
from tasks.select.figures import (
    budget_warnings,
    by_target,
    counts_of,
    fit_figures,
    losses_of,
    sample_figures,
    shapes_of,
    target_shape,
    warnings_of,
)
from tasks.select.fitting import Fit, fit, target_level
from tasks.select.frames import Aim, Job, Scored, score
from tasks.select.judged import asked_rows, judge
from tasks.select.measured import let_go
from tasks.select.plan import TABLE, Plan, Source, plan_of
from tasks.select.report_figures import weight_edges
from tasks.select.review import reviewed
from tasks.select.safety import refuse_many
from tasks.select.scored import Rows
from tasks.select.shares import shares
from tasks.select.steps import brought_up, duplicate_verdicts, local_verdicts

_RANGE_ROWS = 150_000
_EVENLY = 4  # ranges are a multiple of it, so that a few workers have as many each
_MEASURES = ("signals", "signatures", "contamination")


class UnscoredPool(LetheError):
    """The scores of a model are not those of the pool as it stands."""


@dataclass(frozen=True)
class SelectResult:
    """What a selection came to. Counts are of records (copies are one); the figures below them are taken on the keyed sample.

    `kl_*` are KL(target || ·) in nats per n-gram, the mean of all targets, held out, see `tasks.select.kl`; `kl_reduction` =
    kl_raw - kl_selected; None where nothing was compared. `effective_sample_size` is out of `n_sample`. `threshold` is the
    smallest key kept, None when every candidate is. `n_counted_files` are those whose n-grams the run that made the selection had
    to count. `figures` holds all that was told, see `tasks.select.report_figures`.
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
    kl_raw: float | None
    kl_selected: float | None
    kl_random: float | None
    kl_reduction: float | None
    random_kl_reduction: float | None
    effective_sample_size: float
    length_correlation: float
    warnings: tuple[str, ...]
    figures: dict[str, Any]


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

    `beside` are the targets and evaluation tables that the settings name, `scores` what a model said of the pool's records.
    Found, not run again, when the inputs' rows, the settings and the code are those of an earlier run. Raises `ConfigError` for
    columns that are not there, `EmptyTarget` for a target without text, `SourceLost` where safety stops the selection.
    """
    started = time.perf_counter()
    lake = Lake.open(settings)
    plan = plan_of(settings, lake, dataset, pool, beside, scores)
    snapshot = lake.reuse(f"selection/{dataset}", plan.key)
    found = snapshot is not None
    if snapshot is None:
        with connect(scheduler) as workers, lake.scratch() as scratch:
            snapshot = _run(_Run(lake, workers, plan, scratch), scores)
    else:
        with connect(scheduler) as workers:
            brought_up(lake, workers, plan)
    _let_go(lake, plan)
    if plan.select.reviews:
        with connect(scheduler) as workers:
            reviewed(lake, workers, plan)
    return _result(dataset, snapshot, lake.lineage(snapshot).summary, found=found, seconds=time.perf_counter() - started)


def _result(dataset: str, snapshot: Snapshot, summary: dict[str, Any], *, found: bool, seconds: float) -> SelectResult:
    told: dict[str, Any] = {**summary, "warnings": tuple(summary["warnings"])}
    named = {name: told[name] for name in _SUMMARY}
    return SelectResult(dataset, snapshot, found, seconds, **named, figures=dict(summary))


# The fields of a result that stand under their own names in the summary.
_SUMMARY = tuple(
    one.name for one in fields(SelectResult) if one.name not in ("dataset", "snapshot", "found", "seconds", "figures")
)


def _let_go(lake: Lake, plan: Plan) -> None:
    """What was counted and measured of files that are no longer in the pool may be of erased rows."""
    let_go_of_counts(lake, plan)
    for stage in _MEASURES:
        let_go(lake, plan, stage)


# --- the run -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Run:
    """What every step of a run needs."""

    lake: Lake
    workers: Workers
    plan: Plan
    scratch: str

    @property
    def spans(self) -> list[Span]:
        return ranges(self.plan.n_rows, _RANGE_ROWS, multiple=_EVENLY) if self.plan.pool else []


def _run(run: _Run, scores: Snapshot | None) -> Snapshot:
    """Score, hear the verdicts, cut, decide, and commit."""
    plan, workers = run.plan, run.workers
    jobs = _jobs(run, scores)
    fitted = fit(run.lake, workers, plan, jobs)
    tasks = shares([*jobs, *_aims(plan)], lambda job: job.source.part.file.n_bytes)
    passes = workers.map(score, tasks, run.lake.keys, fitted.scoring, fitted.fitted, run.scratch)
    rules = _rules(plan, fitted, passes)
    if plan.pool:
        rules = _with_verdicts(run, rules)
    few = replace(rules, scored=tuple(uri for one in passes for uri in one.few))
    spans = ranges(plan.n_rows >> plan.level, _RANGE_ROWS, multiple=_EVENLY) if plan.pool else []
    looks = workers.map(look, spans, few, asked_rows(passes))
    return _decided(run, fitted, passes, rules, looks)


def _jobs(run: _Run, scores: Snapshot | None) -> list[Job]:
    """The files of the pool, each with that of a model's scores where there are some."""
    if scores is None:
        return [Job(source) for source in run.plan.pool]
    scored = by_source(run.lake, scores)
    return [Job(source, _scores_of(source, scored)) for source in run.plan.pool]


def _aims(plan: Plan) -> list[Aim]:
    """The files of the targets, of which a sample is told as the pool is."""
    aims = enumerate(plan.targets.values() if plan.compares else ())
    return [Aim(source, target_level(sources), place) for place, sources in aims for source in sources]


def _with_verdicts(run: _Run, rules: Rules) -> Rules:
    """The rules, with the verdicts of all steps before the resampling."""
    rules = rules.with_verdicts(local_verdicts(run.lake, run.workers, run.plan, rules, run.scratch))
    asked = run.plan.select.near_duplicates
    if asked is None:
        return rules
    found = duplicate_verdicts(run.lake, run.workers, run.plan, rules, run.spans, run.scratch, asked)
    return rules.with_verdicts(found)


def _scores_of(source: Source, scored: dict[str, Part]) -> Part:
    part = scored.get(source_key("/".join(source.name)))
    if part is None:
        raise UnscoredPool(f"{source.table} has rows that the model never scored. Run: lethe curate")
    return part


def _rules(plan: Plan, fitted: Fit, passes: Sequence[Scored]) -> Rules:
    return Rules(
        scored=tuple(uri for one in passes for uri in one.parts),
        verdicts=(),
        door=fitted.door,
        strata=_strata(plan, passes),
        temperature=plan.temperature,
        seed=plan.select.seed,
        targets=tuple(plan.targets) if plan.compares else ("",),
        tables=plan.tables,
        columns=plan.strata,
        watched=plan.select.safety.by,
    )


def _strata(plan: Plan, passes: Sequence[Scored]) -> Strata:
    """The strata of the floors: tables, or the values that a column has in the pool."""
    asked = plan.select.floors
    if asked is None:
        return Strata()
    if asked.by == TABLE:
        return Strata(n=max(1, len(plan.tables)), by_table=True)
    column = plan.strata.index(asked.by)
    found = {value for one in passes if one.parts for value in one.values[column]}
    refuse_many(asked.by, found)
    values = sorted(found, key=lambda value: (value is None, value or ""))
    return Strata(column, tuple(values), max(1, len(values)))


# --- the cut, and what is told of it -------------------------------------------------------------------------------------------


def _decided(run: _Run, fitted: Fit, passes: Sequence[Scored], rules: Rules, looks: Sequence[Look]) -> Snapshot:
    """Cut, decide each range of row ids, and commit the selection once safety has nothing against it."""
    plan, table = run.plan, f"selection/{run.plan.dataset}"
    rows, strata = sampled(looks, len(rules.targets), len(rules.columns))
    budget = _budget(plan, rules)
    cuts, within = _cuts(run, rules, rows, strata, budget)
    aims = [aim for one in passes for aim in one.aims]
    edges = weight_edges(best(rows.weights), *(weights for _, weights in aims))
    decided = run.workers.map(decide_range, run.spans, rules, cuts, edges, run.lake.folder(table))
    losses = losses_of(decided)
    present = np.concatenate([rows.row_ids[:0], *(one.present for one in looks)])
    verdict = judge(plan, fitted, passes, present, budget, within)
    summary = {
        **counts_of(decided, losses),
        **sample_figures(rows, strata, within, rules, budget, cuts, plan.select.planned_epochs),
        **shapes_of(decided, target_shape(aims, edges), edges),
        "targets": by_target(plan, decided, rules, verdict.by_target),
        "warnings": [*warnings_of(plan, losses), *budget_warnings(plan, losses, cuts, len(rows.row_ids))],
        "budget": _told(budget),
        **fit_figures(fitted),
        **verdict.figures,
    }
    lineage = Lineage("select", plan.key, plan.code, plan.inputs, plan.params, summary)
    return run.lake.commit(table, SELECTION, [one.file for one in decided], lineage=lineage, overwrite=True)


def _budget(plan: Plan, rules: Rules) -> Budget:
    """The budget asked for; everything, where nothing is asked for and nothing is ranked."""
    asked = plan.select
    floors = Floors(asked.floors.min_fraction, asked.floors.min_rows) if asked.floors else Floors()
    shares = tuple(plan.asked.target.values()) if plan.compares else (1.0,)
    if asked.n_rows is not None or asked.n_tokens is not None:
        return Budget(None, asked.n_rows, asked.n_tokens, shares, floors)
    unranked = plan.asked.method == "none" or (plan.asked.method == "score" and rules.door.is_bounded)
    return Budget(1.0 if unranked and asked.keep_fraction is None else asked.fraction, None, None, shares, floors)


def _told(budget: Budget) -> dict[str, float]:
    """The budget by the name that lethe.toml has for it."""
    named = {"keep_fraction": budget.fraction, "n_rows": budget.n_rows, "n_tokens": budget.n_tokens}
    return {name: value for name, value in named.items() if value is not None}


def _cuts(run: _Run, rules: Rules, rows: Rows, strata: np.ndarray, budget: Budget) -> tuple[Cuts, Totals]:
    """The cuts, and what the sample says of the pool: no row outside it has a part in them, unless the cut is to be exact."""
    sample = Candidates(rows.row_ids, keys_by(rows, rules), rows.n_tokens, strata)
    expected = expected_totals(sample, run.plan.level, rules.strata.n)
    if run.plan.level == 0 or not (run.plan.select.exact or run.plan.is_parity):
        return fit_cuts(sample, expected, budget), expected

    def ask(probe: Probe) -> list[Answer]:
        return run.workers.map(answers, run.spans, rules, probe)

    def count(cuts: Cuts) -> list[Totals]:
        return run.workers.map(counts_admitted, run.spans, rules, cuts)

    totals = reduce(add, run.workers.map(counts_all, run.spans, rules))
    return exact_cuts(totals, budget, ask, count), expected
