"""N-gram counts of data files, kept in `ngram_counts/<dataset>`: a file is counted once, an erased row's counts go with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from infra.cluster import Workers
from infra.contracts import NGRAM_COUNTS, Lineage, Snapshot
from infra.files import read_part, write_part
from infra.ids import I64, Keys, in_sample
from infra.lake import Lake
from infra.lineage import stage_key
from infra.subjects import roots, row_places
from tasks.kernels.ngrams import count_ngrams
from tasks.kernels.parity import count_parity
from tasks.select.budget import Mask
from tasks.select.kl import is_odd
from tasks.select.plan import EmptyTarget, Plan, Source

Name = tuple[str, str]


@dataclass(frozen=True)
class HashSpace:
    """A hash space of n-grams; `seed` None is that of the reference, SHA-256."""

    n_buckets: int
    seed: int | None


@dataclass(frozen=True)
class Counts:
    """N-gram counts of the even and the odd half of rows: of the pool's sample (2, n_buckets), and of each target."""

    raw: I64
    targets: tuple[I64, ...]
    n_files: int


def hash_space(plan: Plan) -> HashSpace:
    """The space that weights are fitted in."""
    return HashSpace(plan.select.n_buckets, None if plan.is_parity else plan.weights_seed)


def counted(lake: Lake, workers: Workers, plan: Plan) -> Counts:
    """The counts that weights are fitted on; only files not met before are read. Raises `EmptyTarget`."""
    known = _known(lake, plan)
    wanted = {name: (source, level) for name, source, level in _wanted(plan)}
    fresh = [job for name, job in wanted.items() if name not in known]
    found = workers.map(count_file, fresh, lake.keys, hash_space(plan))
    fresh_names = [name for name in wanted if name not in known]
    counts = {**known, **dict(zip(fresh_names, found, strict=True))}
    counts = {name: counts[name] for name in wanted}
    if fresh or len(counts) != len(known):
        _keep(lake, f"ngram_counts/{plan.dataset}", counts, _lineage(plan))
    targets = {target: [counts[_target_name(target, s)] for s in sources] for target, sources in plan.targets.items()}
    for target in (name for name, parts in targets.items() if not sum(int(part.sum()) for part in parts)):
        raise EmptyTarget(f"{target}, a target of dataset {plan.dataset!r}, holds no text. Name another target")
    raw = total([counts[source.name] for source in plan.pool], plan.select.n_buckets)
    return Counts(raw, tuple(total(parts, plan.select.n_buckets) for parts in targets.values()), len(fresh))


def let_go_of_counts(lake: Lake, plan: Plan) -> None:
    """Let go of the counts of files that are no longer read, whatever they were counted for: they may count erased rows."""
    table = f"ngram_counts/{plan.dataset}"
    if not lake.exists(table):
        return
    snapshot = lake.snapshot(table)
    known, wanted = _read(lake, snapshot), {name for name, _, _ in _wanted(plan)}
    if not known.keys() <= wanted:
        _keep(lake, table, {name: counts for name, counts in known.items() if name in wanted}, lake.lineage(snapshot))


def total(parts: Sequence[I64], n_buckets: int) -> I64:
    """Counts added up, (2, n_buckets)."""
    return sum(parts, np.zeros((2, n_buckets), np.int64))


def _wanted(plan: Plan) -> Iterator[tuple[Name, Source, int]]:
    """The files to count, under the names that their counts are kept by, and the level of the sample: targets count whole, and so
    does the pool in the reference's mode."""
    for source in plan.pool:
        yield source.name, source, 0 if plan.is_parity else plan.level
    for target, sources in plan.targets.items():
        for source in sources:
            yield _target_name(target, source), source, 0


def _sources(plan: Plan) -> Iterator[Source]:
    """All files that are counted."""
    yield from plan.pool
    for sources in plan.targets.values():
        yield from sources


def _target_name(target: str, source: Source) -> Name:
    return f"target:{target}", source.part.file.path


# --- in the workers ------------------------------------------------------------------------------------------------------------


def count_file(job: tuple[Source, int], keys: Keys, space: HashSpace) -> I64:
    """N-gram counts of a file's sampled rows, int64 (2, n_buckets): of the even half and of the odd half of its rows.

    Copies of a record count as often as they occur, so that files can be added and subtracted.
    """
    source, level = job
    counts = np.zeros((2, space.n_buckets), np.int64)
    for batch, row_ids, sampled in rows_of_file(source, keys, level):
        odd = is_odd(row_ids)
        for half, which in enumerate((sampled & ~odd, sampled & odd)):
            counts[half] += count_texts(texts_in(batch, source, which), space)
    return counts


def count_texts(texts: pa.Array, space: HashSpace) -> I64:
    """N-gram counts of texts in a space, int64 (n_buckets,)."""
    if space.seed is None:
        return count_parity(texts, n_buckets=space.n_buckets)
    return count_ngrams(texts, n_buckets=space.n_buckets, seed=space.seed)


def rows_of_file(source: Source, keys: Keys, level: int, more: Sequence[str] = ()) -> Iterator[tuple[pa.RecordBatch, I64, Mask]]:
    """Batches of a file with their row ids, and which of their rows the keyed sample of a level holds; `more` are columns to read
    beside the text."""
    whose = source.subject if level else None  # a sample of all rows need not know whose they are
    named = ["row_id", *([source.text] if source.text else []), *more]
    names = [*named, *roots(source.part.schema, [whose] if whose else [])]
    for batch in read_part(source.part, list(dict.fromkeys(names))):
        yield batch, np.asarray(batch.column("row_id")), in_sample(row_places(batch, whose, keys), level)


def texts_in(batch: pa.RecordBatch, source: Source, which: Mask) -> pa.Array:
    """The texts of some rows of a batch."""
    texts = batch.column(source.text or "")
    return texts if which.all() else texts.filter(pa.array(which))


# --- the table -----------------------------------------------------------------------------------------------------------------


def _params(plan: Plan) -> dict[str, Any]:
    """What the counts of a file are a function of, beside the file."""
    return {
        "n_buckets": plan.select.n_buckets,
        "seed": plan.select.seed,
        "mode": plan.select.mode,
        "level": plan.level,
        "columns": {table: plan.params["columns"][table] for table in sorted({source.table for source in _sources(plan)})},
    }


def _known(lake: Lake, plan: Plan) -> dict[Name, I64]:
    """Counts of data files, which never change, from the last run that counted the same rows in the same way."""
    table = f"ngram_counts/{plan.dataset}"
    if not lake.exists(table):
        return {}
    snapshot = lake.snapshot(table)
    lineage = lake.lineage(snapshot)
    if (lineage.code, lineage.params) != (plan.code, _params(plan)):
        return {}
    return _read(lake, snapshot)


def _read(lake: Lake, snapshot: Snapshot) -> dict[Name, I64]:
    rows = lake.read(snapshot)
    counts = [np.asarray(row.values, np.int64).reshape(2, -1) for row in rows.column("counts")]
    return dict(zip(zip(rows.column("table").to_pylist(), rows.column("file").to_pylist(), strict=True), counts, strict=True))


def _lineage(plan: Plan) -> Lineage:
    params = _params(plan)
    return Lineage("select", stage_key("ngram_counts", plan.code, plan.inputs, params), plan.code, plan.inputs, params)


def _keep(lake: Lake, table: str, counts: dict[Name, I64], lineage: Lineage) -> None:
    columns = [
        pa.array([name for name, _ in counts], pa.string()),
        pa.array([file for _, file in counts], pa.string()),
        pa.array([found.ravel() for found in counts.values()], pa.list_(pa.int64())),
    ]
    rows = pa.record_batch(columns, schema=NGRAM_COUNTS)
    file = write_part(lake.folder(table), [rows], NGRAM_COUNTS)
    lake.commit(table, NGRAM_COUNTS, [file], lineage=lineage, overwrite=True)
