"""What workers do, one data file or one range of row ids at a time. They may run twice; the driver commits once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from infra.contracts import SELECTION, DataFile
from infra.decisions import merged, spill
from infra.files import Folder, Part, read_part, write_part
from infra.ids import F64, I64, U64, Keys, in_sample
from infra.settings import SubjectSettings
from infra.subjects import roots, row_places
from tasks.kernels.ngrams import count_ngrams, score_ngrams, token_buckets
from tasks.select.decide import Near, decisions, near, scored
from tasks.select.kl import MEASURED_TOKENS, Measured, is_odd
from tasks.select.weights import Cut, Mask, keys_of, log_weights

_GROUP_ROWS = 65_536


@dataclass(frozen=True)
class Source:
    """One data file of the pool or of the target, and where its texts and its subjects are."""

    table: str
    part: Part
    text: str
    subject: SubjectSettings | None


@dataclass(frozen=True)
class Spaces:
    """The two hash spaces: that of the weights, and that of the measure."""

    n_buckets: int
    seed: int
    kl_seed: int


@dataclass(frozen=True)
class Scoring:
    """How rows are scored. Levels are those of the keyed sample: of the statistics, and of the rows that are measured."""

    level: int
    measured_level: int
    normalize: bool
    temperature: float
    seed: int
    spaces: Spaces


@dataclass(frozen=True)
class Sample:
    """The rows of a file that the keyed sample holds."""

    row_ids: I64
    log_weights: F64
    keys: F64
    n_tokens: I64


@dataclass(frozen=True)
class Scored:
    """What came out of one data file: where its scores were spilled, its rows of the sample, and those that are measured."""

    uri: str
    sample: Sample
    measured: tuple[Measured, ...]


@dataclass(frozen=True)
class Decided:
    """A written part of the selection."""

    file: DataFile
    n_kept: int
    n_empty: int


# --- counting ------------------------------------------------------------------------------------------------------------------


def count_file(source: Source, keys: Keys, level: int, spaces: Spaces) -> I64:
    """N-gram counts of a file's sampled rows, int64 (2, n_buckets): of the even half and of the odd half of its rows.

    Copies of a record count as often as they occur, so that files can be added and subtracted.
    """
    counts = np.zeros((2, spaces.n_buckets), np.int64)
    for batch, row_ids, places in _rows(source, keys):
        odd, sampled = is_odd(row_ids), in_sample(places, level)
        for half, which in enumerate((sampled & ~odd, sampled & odd)):
            counts[half] += count_ngrams(_texts(batch, source, which), n_buckets=spaces.n_buckets, seed=spaces.seed)
    return counts


def count_measure(source: Source, keys: Keys, spaces: Spaces) -> I64:
    """N-gram counts of a file in the space of the measure, int64 (2, n_buckets): of the even and of the odd half of its rows."""
    return count_file(source, keys, 0, Spaces(spaces.n_buckets, spaces.kl_seed, spaces.kl_seed))


# --- scoring -------------------------------------------------------------------------------------------------------------------


def score_file(source: Source, keys: Keys, plan: Scoring, scratch: str, ratios: I64, even_ratios: I64) -> Scored:
    """Score a file's rows and spill them; `even_ratios` are those fitted on the even half, for the rows that are measured."""
    tables, samples, measured = list[pa.Table](), list[Sample](), list[Measured]()
    for batch, row_ids, places in _rows(source, keys):
        sums, n_tokens = score_ngrams(batch.column(source.text), ratios, seed=plan.spaces.seed)
        weights = log_weights(sums, n_tokens, normalize=plan.normalize)
        noisy = keys_of(weights, row_ids, temperature=plan.temperature, seed=plan.seed)
        tables.append(scored(row_ids, weights, noisy))
        which = in_sample(places, plan.level)
        samples.append(Sample(row_ids[which], weights[which], noisy[which], n_tokens[which]))
        which = in_sample(places, plan.measured_level) & is_odd(row_ids) & (n_tokens > 0)
        measured.append(_measured(row_ids[which], _texts(batch, source, which), plan, even_ratios))
    empty = scored(np.zeros(0, np.int64), np.zeros(0), np.zeros(0))
    return Scored(spill(scratch, pa.concat_tables([empty, *tables])), joined_samples(samples), tuple(measured))


def _measured(row_ids: I64, texts: pa.Array, plan: Scoring, ratios: I64) -> Measured:
    sums, n_tokens = score_ngrams(texts, ratios, seed=plan.spaces.seed)
    offsets, buckets = token_buckets(texts, n_buckets=plan.spaces.n_buckets, seed=plan.spaces.kl_seed, max_tokens=MEASURED_TOKENS)
    return Measured(row_ids, log_weights(sums, n_tokens, normalize=plan.normalize), np.diff(offsets), buckets)


def joined_samples(parts: Sequence[Sample]) -> Sample:
    """Samples one after the other, one row a row id, in the order of row ids."""
    ids = np.concatenate([np.zeros(0, np.int64), *(part.row_ids for part in parts)])
    ids, first = np.unique(ids, return_index=True)
    weights = np.concatenate([np.zeros(0), *(part.log_weights for part in parts)])
    keys = np.concatenate([np.zeros(0), *(part.keys for part in parts)])
    n_tokens = np.concatenate([np.zeros(0, np.int64), *(part.n_tokens for part in parts)])
    return Sample(ids, weights[first], keys[first], n_tokens[first])


# --- deciding ------------------------------------------------------------------------------------------------------------------


def find_near(span: tuple[int, int], parts: Sequence[str], low: float, high: float) -> Near:
    """The records of a range of row ids whose keys lie about a bracket."""
    return near(merged(parts, *span), low, high)


def decide_range(span: tuple[int, int], parts: Sequence[str], cut: Cut, folder: Folder) -> Decided:
    """Decide a range of row ids and write its part of the selection."""
    table = decisions(merged(parts, *span), cut)
    file = write_part(folder, table.to_batches(max_chunksize=_GROUP_ROWS), SELECTION, stats=("row_id",))
    keep, log_weight = table.column("keep"), table.column("log_weight")
    return Decided(file, int(np.count_nonzero(np.asarray(keep))), log_weight.null_count)


# --- reading -------------------------------------------------------------------------------------------------------------------


def _rows(source: Source, keys: Keys) -> Iterator[tuple[pa.RecordBatch, I64, U64]]:
    """Batches of a file with their row ids and places."""
    names = ["row_id", source.text, *roots(source.part.schema, [source.subject] if source.subject else [])]
    for batch in read_part(source.part, list(dict.fromkeys(names))):
        yield batch, np.asarray(batch.column("row_id")), row_places(batch, source.subject, keys)


def _texts(batch: pa.RecordBatch, source: Source, which: Mask) -> pa.Array:
    texts = batch.column(source.text)
    return texts if which.all() else texts.filter(pa.array(which))
