"""Duplicates of a table: what workers do with a file's signatures, a range of keys, or a range of row ids. They may run twice.

The driver holds pairs of near duplicates, never records; a worker holds a batch of a file's entries, or one partition of all. Of
every record its text hash and its bands' keys are spilled once, in partitions by key; signatures are read again for candidates.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from infra.cluster import Workers
from infra.contracts import SIGNATURES
from infra.decisions import merged, ranges, spill
from infra.files import Part, filesystem, read_part
from infra.ids import I64
from infra.select_settings import NearDuplicateSettings
from tasks.select.duplicates import (
    NO_FOLLOWERS,
    Entries,
    Followers,
    Likeness,
    Links,
    Signatures,
    candidate_pairs,
    distinct_pairs,
    duplicate_verdicts,
    entries_of,
    joined_links,
    likeness_of,
    links_of,
    near_duplicates,
    signatures_from,
)
from tasks.select.verdicts import CUT

_PARTITION_ROWS = 2_000_000
_RANGE_ROWS = 200_000
_TEXT_COLUMNS = ("row_id", "n_words", "text_hash")
_NO_IDS = np.zeros(0, np.int64)


@dataclass(frozen=True)
class Layout:
    """How many partitions the text hashes and the bands' keys are spilled in."""

    n_texts: int
    n_keys: int
    likeness: Likeness | None


@dataclass(frozen=True)
class Spilled:
    """Where a file's text hashes and its entries lie (None: none are needed), a record batch for each partition."""

    texts: str | None
    entries: str | None


def duplicates(
    workers: Workers, parts: Sequence[Part], dropped: Sequence[str], asked: NearDuplicateSettings, scratch: str
) -> list[str]:
    """Verdicts on the duplicates among records, spilled; `parts` are files of signatures.

    `dropped` names spilled verdicts of other steps: the records that they drop take no part. Raises `LastCopyLost`.
    """
    likeness = likeness_of(asked) if asked.jaccard < 1.0 else None
    n_rows = sum(part.file.n_rows for part in parts)
    n_entries = n_rows * likeness.n_bands if likeness else 0
    layout = Layout(-(-n_rows // _PARTITION_ROWS), -(-n_entries // _PARTITION_ROWS), likeness)
    spilled = workers.map(key_file, parts, tuple(dropped), layout, scratch)
    near = NO_FOLLOWERS
    if likeness is not None:
        keyed = tuple(one.entries for one in spilled)
        pairs = workers.map(pairs_of_partition, range(layout.n_keys), layout.n_keys, keyed, likeness)
        near = _near(workers, parts, distinct_pairs(np.concatenate([np.zeros((0, 2), np.int64), *pairs])), likeness, scratch)
    texts, bound = tuple(one.texts for one in spilled), likeness.bound if likeness else 1.0
    return workers.map(decide_partition, range(layout.n_texts), layout.n_texts, texts, near, bound, scratch)


def _near(workers: Workers, parts: Sequence[Part], pairs: I64, likeness: Likeness, scratch: str) -> Followers:
    """Who follows whom, of candidate pairs."""
    if not len(pairs):
        return NO_FOLLOWERS
    ids = np.unique(pairs)
    signed = tuple(uri for uri in workers.map(candidates_of_file, parts, ids, scratch) if uri)

    def confirmed(some: I64) -> Links:
        return joined_links(workers.map(links_of_block, _blocks(some, len(ids)), signed, likeness))

    return near_duplicates(pairs, likeness, confirmed)


@dataclass(frozen=True)
class Block:
    """Pairs whose first records lie in one range of row ids and whose second ones in another."""

    left: tuple[int, int]
    right: tuple[int, int]
    pairs: I64


def _blocks(pairs: I64, n_rows: int) -> list[Block]:
    """The pairs by ranges of row ids small enough for two of them to be at hand."""
    spans = ranges(n_rows, _RANGE_ROWS)
    where = np.searchsorted(np.asarray([lo for lo, _ in spans]), pairs, side="right") - 1
    number = where[:, 0] * len(spans) + where[:, 1]
    order = np.argsort(number, kind="stable")
    numbers, starts = np.unique(number[order], return_index=True)
    blocks = np.split(pairs[order], starts[1:])
    return [Block(spans[k // len(spans)], spans[k % len(spans)], block) for k, block in zip(numbers, blocks, strict=True)]


# --- a file --------------------------------------------------------------------------------------------------------------------


def key_file(part: Part, dropped: Sequence[str], layout: Layout, scratch: str) -> Spilled:
    """Spill the text hashes and the bands' entries of a file's records that nothing drops."""
    gone, likeness = _gone(part, dropped), layout.likeness
    texts = _partitioned(map(_texts_batch, _left(part, gone, _TEXT_COLUMNS)), layout.n_texts, scratch)
    if likeness is None:
        return Spilled(texts, None)
    entries = (_entries_batch(entries_of(found, likeness)) for found in _left(part, gone, SIGNATURES.names))
    return Spilled(texts, _partitioned(entries, layout.n_keys, scratch))


def _left(part: Part, gone: I64, columns: Sequence[str]) -> Iterator[Signatures]:
    for batch in read_part(part, columns):
        yield signatures_from(_rows(batch, gone, among=False))


def candidates_of_file(part: Part, ids: I64, scratch: str) -> str | None:
    """Spill the signatures of a file's records that are among `ids`."""
    table = pa.Table.from_batches([_rows(batch, ids, among=True) for batch in read_part(part)], part.schema)
    return spill(scratch, table) if table.num_rows else None


def _rows(batch: pa.RecordBatch, ids: I64, *, among: bool) -> pa.RecordBatch:
    return batch.filter(pa.array(np.isin(np.asarray(batch.column("row_id")), ids, invert=not among)))


def _gone(part: Part, dropped: Sequence[str]) -> I64:
    """The ids of a file's records that other steps drop."""
    ids = np.concatenate([_NO_IDS, *(np.asarray(batch.column("row_id")) for batch in read_part(part, ["row_id"]))])
    return np.concatenate([_NO_IDS, *(ids[np.isin(ids, _dropped_ids(uri))] for uri in dropped)])


def _dropped_ids(uri: str) -> I64:
    fs, path = filesystem(uri)
    with fs.open(path, "rb") as file:
        table = pq.read_table(file, columns=["row_id", "reason"])
    return np.asarray(table.column("row_id").filter(pc.not_equal(table.column("reason"), CUT)))


# --- a partition ---------------------------------------------------------------------------------------------------------------


def pairs_of_partition(partition: int, n_partitions: int, uris: Sequence[str | None], likeness: Likeness) -> I64:
    """The candidate pairs among all files' entries of one partition."""
    table = _gathered(partition, n_partitions, uris)
    return candidate_pairs(_entries_from(table), likeness) if table is not None else np.zeros((0, 2), np.int64)


def links_of_block(block: Block, signed: Sequence[str], likeness: Likeness) -> Links:
    """The pairs of a block that their signatures confirm."""
    left = _signatures(signed, block.left)
    right = left if block.right == block.left else _signatures(signed, block.right)
    return links_of(block.pairs, left, right, likeness)


def _signatures(uris: Sequence[str], span: tuple[int, int]) -> Signatures:
    table = merged(uris, *span).cast(SIGNATURES).combine_chunks()
    return signatures_from(table.to_batches()[0] if table.num_rows else pa.RecordBatch.from_pylist([], SIGNATURES))


def decide_partition(
    partition: int, n_partitions: int, uris: Sequence[str | None], near: Followers, bound: float, scratch: str
) -> str:
    """Spill the verdicts on the records of a range of text hashes."""
    table = _gathered(partition, n_partitions, uris)
    if table is None:
        return spill(scratch, duplicate_verdicts(_NO_IDS, np.zeros((0, 2), np.uint64), near, bound))
    hashes = np.stack([np.asarray(table.column(name)) for name in ("text", "text_2")], axis=1)
    return spill(scratch, duplicate_verdicts(np.asarray(table.column("row_id")), hashes, near, bound))


# --- spilled by partition ------------------------------------------------------------------------------------------------------


def _texts_batch(found: Signatures) -> pa.RecordBatch:
    return pa.record_batch({"text": found.text_hashes[:, 0], "text_2": found.text_hashes[:, 1], "row_id": found.row_ids})


def _entries_batch(entries: Entries) -> pa.RecordBatch:
    columns = {"key": entries.keys, "row_id": entries.row_ids, "n_words": entries.n_words, "text": entries.texts}
    return pa.record_batch({**columns, **{f"bits_{k}": entries.bits[:, k] for k in range(entries.bits.shape[1])}})


def _entries_from(table: pa.Table) -> Entries:
    keys, row_ids, n_words, texts, *bits = (np.asarray(column) for column in table.columns)
    return Entries(keys, row_ids, n_words, texts, np.stack(bits, axis=1))


def _partitioned(batches: Iterator[pa.RecordBatch], n_partitions: int, scratch: str) -> str | None:
    """Write batches as an Arrow file that holds of each of them one batch for each partition: equal ranges of the upper 32 bits
    of the first column. None if there is no batch."""
    first = next(batches, None)
    if first is None:
        return None
    uri = f"{scratch.rstrip('/')}/{uuid.uuid4().hex}.arrow"
    fs, path = filesystem(uri)
    fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
    with fs.open(path, "wb") as sink, pa.ipc.new_file(sink, first.schema) as writer:
        for batch in chain([first], batches):
            partition = ((np.asarray(batch.column(0)) >> np.uint64(32)) * np.uint64(n_partitions)) >> np.uint64(32)
            ordered = batch.take(pa.array(np.argsort(partition, kind="stable"))) if n_partitions > 1 else batch
            ends = np.cumsum(np.bincount(partition.astype(np.int64), minlength=n_partitions)).tolist()
            for begin, end in pairwise([0, *ends]):
                writer.write_batch(ordered.slice(begin, end - begin))
    return uri


def _gathered(partition: int, n_partitions: int, uris: Sequence[str | None]) -> pa.Table | None:
    """The rows of one partition out of all files."""
    found = [batch for uri in uris if uri is not None for batch in _batches(uri, partition, n_partitions)]
    return pa.Table.from_batches(found).combine_chunks() if found else None


def _batches(uri: str, partition: int, n_partitions: int) -> list[pa.RecordBatch]:
    fs, path = filesystem(uri)
    with fs.open(path, "rb") as file, pa.ipc.open_file(file) as reader:
        return [reader.get_batch(k) for k in range(partition, reader.num_record_batches, n_partitions)]
