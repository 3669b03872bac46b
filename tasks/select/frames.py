"""What workers do in the score pass, one data file at a time. They may run twice; the driver commits once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from infra.decisions import spill
from infra.files import Part, read_part
from infra.ids import F64, I64, Keys, in_sample
from infra.views import content_of
from tasks.kernels.ngrams import count_tokens, score_ngrams, token_buckets
from tasks.kernels.parity import score_parity
from tasks.select.budget import Mask
from tasks.select.counts import HashSpace, rows_of_file, texts_in
from tasks.select.filters import filtered
from tasks.select.kl import MEASURED_TOKENS, Measured, is_odd
from tasks.select.plan import Source
from tasks.select.safety import refuse_many
from tasks.select.scored import Rows, empty_rows, to_table
from tasks.select.scores import Scale, numbers_of, score_log_weights
from tasks.select.spaces import Rows as SpaceRows
from tasks.select.spaces import Space, space_log_weights
from tasks.select.verdicts import VERDICT
from tasks.select.weights import log_weights

Bounds = tuple[float | None, float | None]


@dataclass(frozen=True)
class Fitted:
    """What a record's log weights are a function of, beside the record: one of these, or nothing (all weights 0).

    `ratios` (R, n_buckets) of n-grams, integers, or floats in the reference's mode; `even` are those fitted on the even half of
    all rows, for what is measured; a space of points; or the scale of a score.
    """

    ratios: np.ndarray | None = None
    even: np.ndarray | None = None
    points: Space | None = None
    scale: Scale | None = None

    @property
    def nbytes(self) -> int:
        """What workers are sent once, and not with each piece of work."""
        return sum(part.nbytes for part in (self.ratios, self.even, self.points) if part is not None)


@dataclass(frozen=True)
class Scoring:
    """How rows are scored. Levels are those of the keyed sample: of the statistics, and of the rows that are measured."""

    n_targets: int
    n_strata: int
    level: int
    measured_level: int
    normalize: bool
    space: HashSpace
    kl_seed: int


@dataclass(frozen=True)
class Job:
    """A file of the pool, and that of a model's scores of its rows, where there is one."""

    source: Source
    scores: Part | None = None


@dataclass(frozen=True)
class Aim:
    """A file of target number `place`, of whose rows a sample of a level is weighed as the pool's are."""

    source: Source
    level: int
    place: int


@dataclass(frozen=True)
class Scored:
    """What came out of some data files: where the pool's rows were spilled, and those of the sample and of the measure apart;
    what is measured, the values of the strata, and tokens and log weights of each target's file."""

    parts: tuple[str, ...] = ()
    few: tuple[str, ...] = ()
    measured: tuple[Measured, ...] = ()
    values: tuple[frozenset[str | None], ...] = ()
    aims: tuple[tuple[I64, F64], ...] = ()


# --- the pass ------------------------------------------------------------------------------------------------------------------


@dataclass
class _Held:
    """What was found in files of the pool so far."""

    rows: list[pa.Table]
    few: list[pa.Table]
    measured: list[Measured]
    values: list[set[str | None]]


def score(jobs: Sequence[Job | Aim], keys: Keys, scoring: Scoring, fitted: Fitted, scratch: str) -> Scored:
    """Weigh the records of some files, and spill those of the pool."""
    aims = tuple(score_target(job, keys, scoring, fitted) for job in jobs if isinstance(job, Aim))
    pool = [job for job in jobs if isinstance(job, Job)]
    if not pool:
        return Scored(aims=aims)
    nothing = to_table(empty_rows(scoring.n_targets, scoring.n_strata))
    held = _Held([nothing], [nothing], [], [set() for _ in range(scoring.n_strata)])
    for job in pool:
        _score_file(job, held, keys, scoring, fitted)
    parts = (_spilled(scratch, held.rows),)
    few = parts if scoring.level == 0 else (_spilled(scratch, held.few),)
    return Scored(parts, few, tuple(held.measured), tuple(map(frozenset, held.values)), aims)


def _score_file(job: Job, held: _Held, keys: Keys, scoring: Scoring, fitted: Fitted) -> None:
    values = [set[str | None]() for _ in range(scoring.n_strata)]
    for batch, found in weighed(job, keys, scoring, fitted):
        held.rows.append(to_table(found))
        few = found.sampled
        for name, seen, column in zip(job.source.strata, values, found.strata, strict=True):
            seen.update(column.unique().to_pylist())
            refuse_many(name or "", seen)
        if fitted.even is not None:
            which = _is_measured(found, scoring)
            held.measured.append(_measured(texts_in(batch, job.source, which), found.row_ids[which], scoring, fitted.even))
            few = few | which
        if scoring.level:
            held.few.append(to_table(found.take(few)))
    for known, seen in zip(held.values, values, strict=True):
        known.update(seen)


def _spilled(scratch: str, tables: Sequence[pa.Table]) -> str:
    return spill(scratch, pa.concat_tables(tables, promote_options="default"))


def weighed(job: Job, keys: Keys, scoring: Scoring, fitted: Fitted) -> Iterator[tuple[pa.RecordBatch, Rows]]:
    """Batches of a file, and what is said of their rows."""
    source, own = job.source, _scores_by_row(job.scores) if job.scores is not None else None
    at = 0
    for batch, row_ids, sampled in rows_of_file(source, keys, scoring.level, _more(source)):
        values = _values(batch, source) if own is None else own[at : at + batch.num_rows]
        at += batch.num_rows
        weights, n_tokens = _weights(batch, source, values, scoring, fitted)
        strata = tuple(_stratum(batch, column) for column in source.strata)
        table = np.full(len(row_ids), source.place, np.int64)
        yield batch, Rows(row_ids, weights, n_tokens, sampled, table, values, strata)


def _more(source: Source) -> list[str]:
    named = [*source.strata, source.score, *(source.view.columns(embeds=True) if source.view else ())]
    return [name for name in named if name is not None]


def _weights(batch: pa.RecordBatch, source: Source, values: F64, scoring: Scoring, fitted: Fitted) -> tuple[F64, I64]:
    """Log weights (n, R) and tokens (n,) of a batch; a record without a text counts as one token where no text is read."""
    texts = batch.column(source.text) if source.text else None
    if fitted.ratios is not None:
        if texts is None:
            raise ValueError("n-grams are taken of texts")
        return ngram_weights(texts, fitted.ratios, scoring)
    n_tokens = count_tokens(texts) if texts is not None else np.ones(batch.num_rows, np.int64)
    if fitted.points is not None and source.view is not None:
        return space_log_weights(fitted.points, content_of(batch, source.view)), n_tokens
    if fitted.scale is not None:
        return score_log_weights(values, fitted.scale)[:, None], n_tokens
    empty = (n_tokens == 0)[:, None]
    return np.where(empty, np.nan, np.zeros((batch.num_rows, scoring.n_targets))), n_tokens


def ngram_weights(texts: pa.Array, ratios: np.ndarray, scoring: Scoring) -> tuple[F64, I64]:
    """Log weights (n, R) and tokens (n,) of texts by ratios of their n-grams."""
    if scoring.space.seed is None:
        weights, n_tokens = score_parity(texts, ratios)
        return np.where((n_tokens > 0)[:, None], weights.reshape(len(n_tokens), scoring.n_targets), np.nan), n_tokens
    sums, n_tokens = score_ngrams(texts, ratios, seed=scoring.space.seed)
    return log_weights(sums.reshape(len(n_tokens), scoring.n_targets), n_tokens, normalize=scoring.normalize), n_tokens


def _stratum(batch: pa.RecordBatch, column: str | None) -> pa.Array:
    if column is None:
        return pa.nulls(batch.num_rows, pa.string())
    return labels(batch.column(column))


def labels(values: pa.Array) -> pa.Array:
    """Values as text: one text for values that a row id takes for one, as 0.0 and -0.0 are."""
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_floating(values.type):
        values = pc.add(values, pa.scalar(0.0, values.type))
    return values.cast(pa.string())


def _values(batch: pa.RecordBatch, source: Source) -> F64:
    if source.score is None:
        return np.full(batch.num_rows, np.nan)
    return numbers_of(batch.column(source.score))


def _scores_by_row(part: Part) -> F64:
    """A model's scores of a file's rows, in the order of the rows."""
    found = [numbers_of(batch.column("score")) for batch in read_part(part, ["score"])]
    return np.concatenate([np.zeros(0), *found])


def _is_measured(rows: Rows, scoring: Scoring) -> Mask:
    """Which rows are measured: a sample of the held-out half."""
    return in_sample(rows.row_ids, scoring.measured_level) & is_odd(rows.row_ids) & (rows.n_tokens > 0)


def _measured(texts: pa.Array, row_ids: I64, scoring: Scoring, even: np.ndarray) -> Measured:
    """Of rows of the held-out half, weights by what the other half taught, and n-grams in the space of the measure."""
    weights, _ = ngram_weights(texts, even, scoring)
    offsets, buckets = token_buckets(texts, n_buckets=scoring.space.n_buckets, seed=scoring.kl_seed, max_tokens=MEASURED_TOKENS)
    return Measured(row_ids, weights, np.diff(offsets), buckets)


# --- what a table tells of its rows --------------------------------------------------------------------------------------------


def filter_file(part: Part, bounds: dict[str, Bounds], scratch: str) -> str:
    """Spill the verdicts of filters on the rows of a file of signals."""
    found = [VERDICT.empty_table()]
    for batch in read_part(part):
        found.append(filtered(np.asarray(batch.column("row_id")), pa.Table.from_batches([batch]), bounds))
    return spill(scratch, pa.concat_tables(found))


def drawn_scores(job: Job, keys: Keys, level: int) -> tuple[I64, F64]:
    """Row ids and scores of the rows of a file that the keyed sample holds."""
    source, own = job.source, _scores_by_row(job.scores) if job.scores is not None else None
    ids, found, at = [np.zeros(0, np.int64)], [np.zeros(0)], 0
    for batch, row_ids, which in rows_of_file(source, keys, level, [source.score] if source.score else []):
        values = _values(batch, source) if own is None else own[at : at + batch.num_rows]
        at += batch.num_rows
        ids.append(row_ids[which])
        found.append(values[which])
    return np.concatenate(ids), np.concatenate(found)


def drawn_content(source: Source, keys: Keys, level: int) -> SpaceRows:
    """Row ids and content of the rows of a file that the keyed sample holds."""
    if source.view is None:
        raise ValueError("a source without a view")
    schema = pa.schema([source.part.schema.field(name) for name in source.view.columns(embeds=True)])
    found = [SpaceRows(np.zeros(0, np.int64), content_of(pa.RecordBatch.from_pylist([], schema), source.view))]
    for batch, row_ids, which in rows_of_file(source, keys, level, schema.names):
        found.append(SpaceRows(row_ids[which], content_of(batch.filter(pa.array(which)), source.view)))
    content = pa.concat_tables([rows.content for rows in found], promote_options="permissive")
    return SpaceRows(np.concatenate([rows.row_ids for rows in found]), content)


def score_target(aim: Aim, keys: Keys, scoring: Scoring, fitted: Fitted) -> tuple[I64, F64]:
    """Tokens and log weights of a sample of a target's file, those towards that target."""
    source = aim.source
    sizes, found = [np.zeros(0, np.int64)], [np.zeros(0)]
    for batch, _, which in rows_of_file(source, keys, aim.level, _more(source)):
        some = batch.filter(pa.array(which))
        weights, n_tokens = _weights(some, source, np.full(some.num_rows, np.nan), scoring, fitted)
        sizes.append(n_tokens)
        found.append(weights[:, aim.place])
    return np.concatenate(sizes), np.concatenate(found)
