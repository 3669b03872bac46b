"""The passes over data files that finding and following a recipe takes: worker functions. They decide nothing.

Every pass reads a few files in batches, under the child's column names whatever the files call them, and hashes the rows over
these. Memory is bounded by the batch, by the members that are sought, and by one file's rows where files are written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from infra.contracts import DataFile
from infra.files import SOURCE, Part, read_part
from infra.ids import I64, U64, Digest, Keys
from infra.layout import Layout, data_files
from infra.rowhash import row_hashes, row_ids
from tasks.dedup.exact import RUN_ROWS, Run, merge_runs, run_of
from tasks.dedup.members import Found, Mask, count_members, found_of, take_members
from tasks.dedup.recipes import ROW_ID, Term
from tasks.dedup.runs import Spilled, load, spill
from tasks.dedup.terms import Extent, add_to_tally, extent_of, join_extents, meets, no_tally

ITEM_BYTES = 64 << 20
UNKNOWN_SOURCE = 0
Extents = dict[str, Extent]
NOBODY = merge_runs([])


@dataclass(frozen=True)
class Files:
    """Some files of one table, and pairs (the child's column, theirs) to read them by."""

    parts: tuple[Part, ...]
    columns: tuple[tuple[str, str], ...]

    @property
    def n_rows(self) -> int:
        return sum(part.file.n_rows for part in self.parts)


@dataclass(frozen=True)
class Piece:
    """Rows to be kept of some files: those that meet the terms, and with a run the members, each as often as it says there."""

    files: Files
    terms: tuple[Term, ...] = ()
    run: Run | Spilled | None = None


def items(files: Files, *, max_rows: float) -> Iterator[Files]:
    """Files in groups, each work for one worker: about ITEM_BYTES, and no more than `max_rows` rows."""
    held, n_bytes, n_rows = list[Part](), 0, 0
    for part in files.parts:
        if held and (n_bytes + part.file.n_bytes > ITEM_BYTES or n_rows + part.file.n_rows > max_rows):
            yield Files(tuple(held), files.columns)
            held, n_bytes, n_rows = [], 0, 0
        held.append(part)
        n_bytes, n_rows = n_bytes + part.file.n_bytes, n_rows + part.file.n_rows
    if held:
        yield Files(tuple(held), files.columns)


def _batches(files: Files) -> Iterator[pa.RecordBatch]:
    """The rows under the child's column names, in the files' own types."""
    theirs = list(dict.fromkeys(name for _, name in files.columns))
    mine = [name for name, _ in files.columns]
    for part in files.parts:
        for batch in read_part(part, theirs):
            yield pa.RecordBatch.from_arrays([batch.column(name) for _, name in files.columns], names=mine)


def _rows(files: Files, key: bytes) -> Iterator[tuple[pa.RecordBatch, U64]]:
    for batch in _batches(files):
        yield batch, row_hashes(batch, batch.schema.names, key)


def _met(batch: pa.RecordBatch, files: Files, term: Term) -> Mask:
    return meets(term, batch.column(_mine(files, term)))


def _mine(files: Files, term: Term) -> str:
    """The child's name of the column that a term is on."""
    return next(mine for mine, theirs in files.columns if theirs.lower() == term.column.lower())


def _all_met(batch: pa.RecordBatch, files: Files, terms: Sequence[Term]) -> Mask:
    mask = np.ones(batch.num_rows, np.bool_)
    for term in terms:
        mask &= _met(batch, files, term)
    return mask


# --- the child -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Profile:
    """A child's rows: digest, hashes in scratch, what each column holds, the numbers of the raw files they are from
    (`UNKNOWN_SOURCE`: not known), and whether they have the row ids that their content gives them.
    """

    digest: Digest
    runs: tuple[Spilled, ...]
    extents: Extents
    sources: frozenset[int]
    has_own_ids: bool


def profile(files: Files, table: str, key: bytes, scratch: str) -> Profile:
    """Worker: what some of a child's files hold."""
    digest, runs, extents, sources, is_own = Digest(), list[Spilled](), Extents(), frozenset[int](), True
    held, n_held = list[U64](), 0
    for batch, hashes, others in _own_rows(files, key):
        digest += Digest.of(hashes)
        extents = _more(extents, batch)
        sources |= frozenset(pc.unique(pc.fill_null(others[SOURCE], UNKNOWN_SOURCE)).to_pylist())
        is_own = is_own and (ROW_ID not in others or _has_ids(others[ROW_ID], row_ids(table, hashes, key)))
        held.append(hashes)
        n_held += len(hashes)
        if n_held >= RUN_ROWS:
            runs.append(spill(run_of(np.concatenate(held)), scratch))
            held, n_held = [], 0
    last = [spill(run_of(np.concatenate(held)), scratch)] if held else []
    return Profile(digest, (*runs, *last), extents, sources, is_own)


def _own_rows(files: Files, key: bytes) -> Iterator[tuple[pa.RecordBatch, U64, dict[str, pa.Array]]]:
    """A table's rows with their hashes, and beside them their row ids, where it has any, and their raw files' numbers."""
    names = [name for name, _ in files.columns]
    for part in files.parts:
        for batch in read_part(part, [*names, *([ROW_ID] if ROW_ID in part.schema.names else [])], with_source=True):
            user = batch.select(names)
            others = {name: batch.column(name) for name in batch.schema.names if name not in names}
            yield user, row_hashes(user, names, key), others


def _has_ids(column: pa.Array, ids: I64) -> bool:
    return column.null_count == 0 and bool((np.asarray(column) == ids).all())


def _more(extents: Extents, batch: pa.RecordBatch) -> Extents:
    return {name: extent_of(batch.column(name), extents.get(name)) for name in batch.schema.names}


def joined_extents(one: Extents, other: Mapping[str, Extent]) -> Extents:
    """What two sets of rows hold in all columns together."""
    return {**one, **{name: join_extents(one.get(name), extent) for name, extent in other.items()}}


def set_apart(piece: Piece, layout: Layout, keys: Keys) -> tuple[tuple[DataFile, ...], Extents]:
    """Worker: write the members among a child's rows, and tell what the columns of the others hold."""
    run, extents = load(piece.run or NOBODY), [Extents()]
    left = run.counts.copy()

    def members() -> Iterator[pa.RecordBatch]:
        for batch, hashes in _rows(piece.files, keys.row):
            taken = take_members(run, left, hashes)
            if not taken.all():
                extents.append(_more(extents.pop(), batch.filter(pa.array(~taken))))
            yield batch.filter(pa.array(taken))

    return data_files(layout, members(), keys), extents[0]


# --- the parents ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Counts:
    """Rows of some files: the digest of all, of those that meet every term, the number that meet each, and the members found."""

    all: Digest
    met: Digest
    n_met: I64
    found: Found


def count(files: Files, low: U64, high: U64, terms: Sequence[Term], key: bytes) -> Counts:
    """Worker: count the members (hashes in ascending order) and the rows that meet the terms."""
    run, found = Run(low, high, np.ones(len(low), np.int64)), np.zeros(len(low), np.int64)
    everything, met, n_met = Digest(), Digest(), np.zeros(len(terms), np.int64)
    for batch, hashes in _rows(files, key):
        masks = [_met(batch, files, term) for term in terms]
        n_met += np.array([mask.sum() for mask in masks], np.int64)
        everything += Digest.of(hashes)
        met += Digest.of(hashes[np.logical_and.reduce([np.ones(len(hashes), np.bool_), *masks])])
        count_members(run, hashes, found)
    return Counts(everything, met, n_met, found_of(found))


def tally(files: Files, terms: Sequence[Term], key: bytes) -> U64:
    """Worker: count rows and add up their hashes by the terms that they meet (see `terms.no_tally`)."""
    sums = no_tally(len(terms))
    for batch, hashes in _rows(files, key):
        add_to_tally(sums, [_met(batch, files, term) for term in terms], hashes)
    return sums


def extents_met(item: tuple[Files, Sequence[Term]]) -> Extents:
    """Worker: what the terms' columns hold (by the names in the terms) in the rows that meet them all."""
    files, terms = item
    extents = Extents()
    for batch in _batches(files):
        rows = batch.filter(pa.array(_all_met(batch, files, terms)))
        extents |= {term.column: extent_of(rows.column(_mine(files, term)), extents.get(term.column)) for term in terms}
    return extents


def write(piece: Piece, layout: Layout, keys: Keys) -> tuple[DataFile, ...]:
    """Worker: write the rows that a piece keeps, in the layout's types."""
    user = pa.schema([field for field in layout.schema if field.name != ROW_ID])
    kept = _kept(piece, keys.row)
    return data_files(layout, (_cast(batch, user) for batch in kept), keys)


def _kept(piece: Piece, key: bytes) -> Iterator[pa.RecordBatch]:
    run = None if piece.run is None else load(piece.run)
    left = None if run is None else run.counts.copy()
    for batch in _batches(piece.files):
        mask = _all_met(batch, piece.files, piece.terms)
        if run is not None and left is not None:
            mask &= take_members(run, left, row_hashes(batch, batch.schema.names, key))
        yield batch.filter(pa.array(mask))


def _cast(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Equal hashes are equal values: the cast changes their type alone."""
    columns = [_as_type(batch.column(field.name), field.type) for field in schema]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _as_type(column: pa.Array, kind: pa.DataType) -> pa.Array:
    if column.type == kind:
        return column
    return pa.nulls(len(column), kind) if column.null_count == len(column) else column.cast(kind)
