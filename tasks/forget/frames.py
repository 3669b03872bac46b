"""The Dask side of forgetting: worker functions over data files and over the objects of the residue scan. They decide nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from infra.contracts import MIXED, DataFile
from infra.files import SOURCE, Folder, Part, filesystem, quarantine_source, read_part, source_key, source_number, write_part
from infra.ids import I64, U64, Keys
from infra.mentions import Sought
from infra.rowhash import row_hashes
from infra.settings import SubjectSettings
from infra.subjects import Mask, concerned, roots
from tasks.forget.decoders import scan_file, scan_name
from tasks.forget.locate import SubjectsOf, quarantined
from tasks.forget.residue import Findings, Target, Wanted
from tasks.forget.seal import NO_ROW_ID

NO_SOURCE = 0
Hash = tuple[int, int]
Columns = tuple[str, ...]


def _no_ids() -> I64:
    return np.empty(0, np.int64)


def _no_hashes() -> U64:
    return np.empty((0, 2), np.uint64)


@dataclass(frozen=True)
class Hits:
    """Rows found in one file: positions int64 (n,), row ids (n,), row hashes over the table's columns (n, 2), and the numbers of
    the raw files they came from (n,), `NO_SOURCE` where none is known.

    `projected` holds, for each projection asked for, the hashes over its columns.
    """

    part: Part
    positions: I64 = field(default_factory=_no_ids)
    row_ids: I64 = field(default_factory=_no_ids)
    hashes: U64 = field(default_factory=_no_hashes)
    sources: I64 = field(default_factory=_no_ids)
    projected: tuple[U64, ...] = ()


@dataclass(frozen=True)
class Rewrite:
    """One file to write again without the rows at `positions`; `source` names the raw file that all its rows came from, if it is
    one and known."""

    part: Part
    positions: I64
    source: str


def user_columns(schema: pa.Schema) -> list[str]:
    """The columns that a table's row hashes cover: all but Lethe's own id."""
    return [name for name in schema.names if name != "row_id"]


# --- finding rows ---------------------------------------------------------------------------------------------------------------


def locate_part(
    part: Part, subjects: Sequence[SubjectSettings], sought: Sought, projections: Sequence[Columns], keys: Keys
) -> Hits:
    """The rows of one file that name a requested subject in any subject column. Other columns are read only where somebody is
    found."""
    columns = roots(part.schema, subjects)
    mask = _joined([concerned(batch, subjects, sought, keys) for batch in read_part(part, columns)])
    return _hits(part, mask, projections, keys) if mask.any() else Hits(part, projected=tuple(_no_hashes() for _ in projections))


def locate_quarantined(part: Part, subjects: SubjectsOf, sought: Sought, keys: Keys) -> Hits:
    """The rows of one quarantine file that name one of the subjects."""
    mask = _joined([quarantined(batch, subjects, sought, keys) for batch in read_part(part)])
    if not mask.any():
        return Hits(part)
    named = [_named_sources(batch.filter(pa.array(wanted))) for batch, wanted in _with_mask(part, mask, ["table", "source"])]
    return replace(_hits(part, mask, (), keys), sources=np.concatenate(named))


def _joined(masks: Sequence[Mask]) -> Mask:
    return np.concatenate([np.zeros(0, np.bool_), *masks])


def _named_sources(rows: pa.RecordBatch) -> I64:
    """The numbers of the raw files of rejected rows, which say themselves where they come from."""
    named = zip(rows["table"].to_pylist(), rows["source"].to_pylist(), strict=True)
    return np.array([source_number(source_key(quarantine_source(table, uri))) for table, uri in named], np.int64)


def _hits(part: Part, mask: Mask, projections: Sequence[Columns], keys: Keys) -> Hits:
    """What is to be known of the masked rows of a file before they are gone."""
    columns = user_columns(part.schema)
    ids, sources, hashes, projected = [_no_ids()], [_no_ids()], [_no_hashes()], [[_no_hashes()] for _ in projections]
    for batch, wanted in _with_mask(part, mask, with_source=True):
        rows = batch.filter(pa.array(wanted))
        ids.append(_row_ids(rows))
        sources.append(np.asarray(pc.fill_null(rows.column(SOURCE), NO_SOURCE)))
        hashes.append(row_hashes(rows, columns, keys.row))
        for held, projection in zip(projected, projections, strict=True):
            held.append(row_hashes(rows, projection, keys.row))
    joined = tuple(np.concatenate(held) for held in projected)
    positions = np.flatnonzero(mask).astype(np.int64)
    return Hits(part, positions, np.concatenate(ids), np.concatenate(hashes), np.concatenate(sources), joined)


def _row_ids(rows: pa.RecordBatch) -> I64:
    if "row_id" not in rows.schema.names:
        return np.full(rows.num_rows, NO_ROW_ID, np.int64)
    return np.asarray(rows.column("row_id")).astype(np.int64)


def _with_mask(
    part: Part, mask: Mask, columns: Sequence[str] | None = None, *, with_source: bool = False
) -> Iterator[tuple[pa.RecordBatch, Mask]]:
    start = 0
    for batch in read_part(part, columns, with_source=with_source):
        yield batch, mask[start : start + batch.num_rows]
        start += batch.num_rows


# --- finding copies -------------------------------------------------------------------------------------------------------------


def count_retained(hits: Hits, columns: Columns, wanted: Mapping[Hash, int], keys: Keys) -> I64:
    """How often each wanted row hash (hash -> index) occurs over `columns` in the rows of a file that stay, int64 (n wanted,)."""
    counts = np.zeros(len(wanted), np.int64)
    mask = np.zeros(hits.part.file.n_rows, np.bool_)
    mask[hits.positions] = True
    for batch, erased in _with_mask(hits.part, mask, columns):
        _, indices = matches(row_hashes(batch, columns, keys.row), wanted, skip=erased)
        np.add.at(counts, indices, 1)
    return counts


def matches(hashes: U64, wanted: Mapping[Hash, int], *, skip: Mask | None = None) -> tuple[I64, I64]:
    """(positions, indices into wanted) of the row hashes, uint64 (n, 2), that are wanted and not skipped."""
    low = np.fromiter((low for low, _ in wanted), np.uint64, len(wanted))
    near = np.isin(hashes[:, 0], low)
    if skip is not None:
        near &= ~skip
    pairs = [(int(i), wanted.get((int(hashes[i, 0]), int(hashes[i, 1])), -1)) for i in np.flatnonzero(near)]
    found = np.array([pair for pair in pairs if pair[1] >= 0], np.int64).reshape(-1, 2)
    return found[:, 0], found[:, 1]


@dataclass(frozen=True)
class Copies:
    """Rows of one file that equal erased rows: as `Hits`, with the index of the erased row hash that each equals."""

    hits: Hits
    indices: I64


def find_copies(part: Part, columns: Columns, wanted: Mapping[Hash, int], keys: Keys) -> Copies:
    """The rows of a file whose hash over `columns` is wanted."""
    mask, indices, start = np.zeros(part.file.n_rows, np.bool_), [_no_ids()], 0
    for batch in read_part(part, columns):
        positions, found = matches(row_hashes(batch, columns, keys.row), wanted)
        mask[positions + start] = True
        indices.append(found)
        start += batch.num_rows
    return Copies(_hits(part, mask, (), keys) if mask.any() else Hits(part), np.concatenate(indices))


# --- rewriting ------------------------------------------------------------------------------------------------------------------


def rewrite_part(job: Rewrite, folder: Folder) -> DataFile | None:
    """Write a file again without the named positions, every copy of a row apart; None when no row is left. Every row that stays
    still says which raw file it came from."""
    mask, file = np.zeros(job.part.file.n_rows, np.bool_), job.part.file
    mask[job.positions] = True
    if mask.all():
        return None
    mixed = file.source == MIXED or (file.source != "" and not job.source)
    kept = (batch.filter(pa.array(~erased)) for batch, erased in _with_mask(job.part, mask, with_source=mixed))
    return write_part(
        folder,
        kept,
        job.part.schema,
        source=job.source,
        stats=[name for name, said in file.stats.items() if "min" in said],
        digest_columns=user_columns(job.part.schema),
        mixed=mixed,
        partition=file.partition,
    )


# --- the residue scan -----------------------------------------------------------------------------------------------------------


def scan_objects(targets: Sequence[Target], wanted: Wanted) -> Findings:
    """Decode a group of objects. One that vanished meanwhile counts for nothing; a folder (URI ends in /) has only a name."""
    return sum((_scan(target, wanted) for target in targets), Findings())


def _scan(target: Target, wanted: Wanted) -> Findings:
    if target.uri.endswith("/"):
        return scan_name(target, wanted)
    fs, path = filesystem(target.uri)
    local = path if Path(path).is_file() else None
    try:
        with Path(path).open("rb") if local else fs.open(path, "rb") as file:
            return scan_file(target, wanted, file, path=local)
    except FileNotFoundError:
        return Findings()
