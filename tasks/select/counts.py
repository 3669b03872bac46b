"""N-gram counts of data files, kept in `ngram_counts/<dataset>`: a file is counted once, an erased row's counts go with it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
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
from tasks.select.shares import shares

Name = tuple[str, str]
Sent = I64 | npt.NDArray[np.uint32]

_BATCH_FILES = 64


@dataclass(frozen=True)
class HashSpace:
    """A hash space of n-grams; `seed` None is that of the reference, SHA-256."""

    n_buckets: int
    seed: int | None


@dataclass(frozen=True)
class Counts:
    """N-gram counts of the even and the odd half of rows: of the pool's sample (2, n_buckets), and of each target; `judges` are
    those of each target in the space of the measure."""

    raw: I64
    targets: tuple[I64, ...]
    judges: tuple[I64, ...]
    n_files: int


@dataclass(frozen=True)
class Count:
    """A file to count: the name of its counts, the level of the sample of its rows, and the space."""

    name: Name
    source: Source
    level: int
    space: HashSpace


def hash_space(plan: Plan) -> HashSpace:
    """The space that weights are fitted in."""
    return HashSpace(plan.select.n_buckets, None if plan.is_parity else plan.weights_seed)


def counted(lake: Lake, workers: Workers, plan: Plan) -> Counts:
    """The counts that weights are fitted on, of which only files not met before are read; and those that judge what was selected.
    Raises `EmptyTarget`."""
    known, wanted = _known(lake, plan), {one.name: one for one in _wanted(plan)}
    fresh, judging = [one for name, one in wanted.items() if name not in known], list(_judging(plan))
    tasks = shares([*fresh, *judging], lambda one: one.source.part.file.n_bytes)
    found = {name: sent.astype(np.int64) for name, sent in chain.from_iterable(workers.map(count_files, tasks, lake.keys))}
    counts = {name: known[name] if name in known else found[name] for name in wanted}
    if fresh or len(counts) != len(known):
        _keep(lake, f"ngram_counts/{plan.dataset}", counts, _lineage(plan))
    n_buckets = plan.select.n_buckets
    targets = {target: total(_of_target(counts, target, sources), n_buckets) for target, sources in plan.targets.items()}
    for target in (name for name, of_target in targets.items() if not of_target.any()):
        raise EmptyTarget(f"{target}, a target of dataset {plan.dataset!r}, holds no text. Name another target")
    judges = tuple(total(_of_target(found, _judge_name(target), s), n_buckets) for target, s in plan.targets.items())
    raw = total([counts[source.name] for source in plan.pool], n_buckets)
    return Counts(raw, tuple(targets.values()), judges, len(fresh))


def is_counted(lake: Lake, plan: Plan) -> bool:
    """Whether the counts that are kept are those of the plan's files."""
    snapshot = _counted_alike(lake, plan)
    return snapshot is not None and set(_names(lake.read(snapshot, ["table", "file"]))) == {one.name for one in _wanted(plan)}


def _of_target(counts: dict[Name, I64], target: str, sources: Sequence[Source]) -> Iterator[I64]:
    return (counts[_target_name(target, source)] for source in sources)


def let_go_of_counts(lake: Lake, plan: Plan) -> None:
    """Let go of the counts of files that are no longer read, whatever they were counted for: they may count erased rows."""
    table = f"ngram_counts/{plan.dataset}"
    if not lake.exists(table):
        return
    snapshot = lake.snapshot(table)
    known, wanted = _names(lake.read(snapshot, ["table", "file"])), {one.name for one in _wanted(plan)}
    if not wanted.issuperset(known):
        kept = {name: counts for name, counts in _read(lake, snapshot).items() if name in wanted}
        _keep(lake, table, kept, lake.lineage(snapshot))


def total(parts: Iterable[I64], n_buckets: int) -> I64:
    """Counts added up, (2, n_buckets)."""
    return sum(parts, np.zeros((2, n_buckets), np.int64))


def _wanted(plan: Plan) -> Iterator[Count]:
    """The files to count, under the names that their counts are kept by: targets count whole, and so does the pool in the
    reference's mode."""
    space = hash_space(plan)
    for source in plan.pool:
        yield Count(source.name, source, 0 if plan.is_parity else plan.level, space)
    for target, sources in plan.targets.items():
        for source in sources:
            yield Count(_target_name(target, source), source, 0, space)


def _judging(plan: Plan) -> Iterator[Count]:
    """The files of the targets in the space of the measure. They are counted with the others, and not kept."""
    space = HashSpace(plan.select.n_buckets, plan.kl_seed)
    for target, sources in plan.targets.items():
        for source in sources:
            yield Count(_target_name(_judge_name(target), source), source, 0, space)


def _sources(plan: Plan) -> Iterator[Source]:
    """All files that are counted."""
    yield from plan.pool
    for sources in plan.targets.values():
        yield from sources


def _target_name(target: str, source: Source) -> Name:
    return f"target:{target}", source.part.file.path


def _judge_name(target: str) -> str:
    return f"{target}:judge"


# --- in the workers ------------------------------------------------------------------------------------------------------------


def count_files(files: Sequence[Count], keys: Keys) -> list[tuple[Name, Sent]]:
    """The counts of some files by their names, in 32 bits where they fit: the driver is sent those of every file."""
    counts = ((one.name, count_file(one, keys)) for one in files)
    return [(name, found.astype(np.uint32) if found.max(initial=0) < 1 << 32 else found) for name, found in counts]


def count_file(one: Count, keys: Keys) -> I64:
    """N-gram counts of a file's sampled rows, int64 (2, n_buckets): of the even half and of the odd half of its rows.

    Copies of a record count as often as they occur, so that files can be added and subtracted.
    """
    counts = np.zeros((2, one.space.n_buckets), np.int64)
    for batch, row_ids, sampled in rows_of_file(one.source, keys, one.level):
        odd = is_odd(row_ids)
        for half, which in enumerate((sampled & ~odd, sampled & odd)):
            counts[half] += count_texts(texts_in(batch, one.source, which), one.space)
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
    snapshot = _counted_alike(lake, plan)
    return _read(lake, snapshot) if snapshot is not None else {}


def _counted_alike(lake: Lake, plan: Plan) -> Snapshot | None:
    """The counts that are kept, where they were counted in the plan's way."""
    table = f"ngram_counts/{plan.dataset}"
    if not lake.exists(table):
        return None
    snapshot = lake.snapshot(table)
    lineage = lake.lineage(snapshot)
    return snapshot if (lineage.code, lineage.params) == (plan.code, _params(plan)) else None


def _read(lake: Lake, snapshot: Snapshot) -> dict[Name, I64]:
    rows = lake.read(snapshot)
    counts = [np.asarray(row.values, np.int64).reshape(2, -1) for row in rows.column("counts")]
    return dict(zip(_names(rows), counts, strict=True))


def _names(rows: pa.Table) -> list[Name]:
    return list(zip(rows.column("table").to_pylist(), rows.column("file").to_pylist(), strict=True))


def _lineage(plan: Plan) -> Lineage:
    params = _params(plan)
    return Lineage("select", stage_key("ngram_counts", plan.code, plan.inputs, params), plan.code, plan.inputs, params)


def _keep(lake: Lake, table: str, counts: dict[Name, I64], lineage: Lineage) -> None:
    file = write_part(lake.folder(table), _batches(counts), NGRAM_COUNTS)
    lake.commit(table, NGRAM_COUNTS, [file], lineage=lineage, overwrite=True)


def _batches(counts: dict[Name, I64]) -> Iterator[pa.RecordBatch]:
    """Counts as rows, some files at a time: a column of lists holds 2^31 numbers at most."""
    names = list(counts)
    for start in range(0, max(1, len(names)), _BATCH_FILES):
        some = names[start : start + _BATCH_FILES]
        columns = [pa.array([name[place] for name in some], pa.string()) for place in (0, 1)]
        yield pa.record_batch([*columns, _lists([counts[name].ravel() for name in some])], schema=NGRAM_COUNTS)


def _lists(arrays: Sequence[I64]) -> pa.Array:
    """Arrays as a column of lists, whole: made of a list of arrays it takes ten times as long."""
    ends = np.cumsum([0, *map(len, arrays)])
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), pa.array(np.concatenate([np.zeros(0, np.int64), *arrays])))
