"""Compaction: small data files of a table joined into ones of the target size, rows in order of their subjects. The rows, and so
the digests, stay what they are; raw files are still told apart by the hidden column of mixed files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.parquet as pq
from prefect import task

from infra.cluster import Scheduler, Workers, connect
from infra.contracts import CommitConflict, DataFile, LetheError, Snapshot
from infra.discretion import discreet
from infra.files import Part, filesystem, read_part
from infra.ids import Digest, Keys
from infra.lake import Lake
from infra.layout import TARGET_BYTES, TARGET_ROWS
from infra.settings import ConfigError, Settings, TableSettings
from infra.subjects import remembered
from tasks.ingest.packs import Job
from tasks.ingest.parts import data_files
from tasks.ingest.sources import RawFile

SMALL_BYTES = 16 << 20
MIN_FILES = 4  # fewer are not worth a rewrite
_TRIES = 4


@dataclass(frozen=True)
class Compacted:
    """What compaction made of one table."""

    table: str
    n_files_before: int
    n_files: int
    n_bytes_before: int
    n_bytes: int
    n_rewritten: int


class ChangedRows(LetheError):
    """A rewrite of data files did not give the same rows; nothing was committed."""


@task(name="compact", persist_result=False)
@discreet
def compact(settings: Settings, *, scheduler: Scheduler = None) -> list[Compacted]:
    """Join the small data files of every records table that has several; only tables that changed are told of."""
    lake = Lake.open(settings)
    with connect(scheduler) as workers:
        done = (_compact(lake, settings, table, workers) for table in lake.tables("records"))
        return [one for one in done if one is not None]


def _compact(lake: Lake, settings: Settings, table: str, workers: Workers) -> Compacted | None:
    for _ in range(_TRIES):
        base = lake.snapshot(table)
        found = lake.parts(base)
        small = [part for part in found if part.file.n_bytes < SMALL_BYTES]
        sizes = dict(zip((part.file.path for part in small), workers.map(_n_held_bytes, small), strict=True))
        groups = list(_groups([part for part in small if sizes[part.file.path] < TARGET_BYTES // 2], sizes))
        if not groups:
            return None
        job = Job(RawFile(table.removeprefix("records/"), "", 0, ""), lake.folder(table), _section(lake, settings, base))
        made = [file for files in workers.map(_joined, groups, job, lake.keys) for file in files]
        gone = [part.file for group in groups for part in group]
        try:
            _commit(lake, base, made, gone)
        except CommitConflict:
            continue
        kept = [part.file for part in found if part.file not in gone]
        n_bytes = [sum(file.n_bytes for file in files) for files in ((*kept, *gone), (*kept, *made))]
        return Compacted(base.table, len(found), len(kept) + len(made), *n_bytes, n_rewritten=len(gone))
    return None  # whoever is writing it so busily will leave it to the next run


def _section(lake: Lake, settings: Settings, base: Snapshot) -> TableSettings:
    """What lethe.toml says of a table, partitioned as it is; of one that it no longer names, the subjects that its log tells."""
    is_as = {"partition_by": lake.partitioning(base)}
    try:
        return settings.table(base.table.removeprefix("records/")).model_copy(update=is_as)
    except ConfigError:
        known = remembered(lake.lineage(base).params)
        return TableSettings(source=("-",)).model_copy(update={**is_as, "subjects": known})


def _n_held_bytes(part: Part) -> int:
    """About what a file's rows take in memory, by its footer: what lies small on the disk may be large there."""
    fs, path = filesystem(part.uri)
    with fs.open(path, "rb") as file:
        metadata = pq.read_metadata(file)
    return sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))


def _groups(small: Iterable[Part], sizes: Mapping[str, int]) -> Iterator[list[Part]]:
    """Files to be joined: of one partition, up to the target size (`sizes`: bytes in memory by path), at least so many that it
    pays."""
    by_partition: dict[tuple[tuple[str, str | None], ...], list[Part]] = defaultdict(list)
    for part in small:
        by_partition[tuple(sorted(part.file.partition.items()))].append(part)
    for files in by_partition.values():
        if len(files) >= MIN_FILES:
            yield from (group for group in _filled(files, sizes) if len(group) > 1)


def _filled(files: Sequence[Part], sizes: Mapping[str, int]) -> Iterator[list[Part]]:
    held, n_bytes, n_rows = list[Part](), 0, 0
    for part in files:
        size = sizes[part.file.path]
        if held and (n_bytes + size > TARGET_BYTES or n_rows + part.file.n_rows > TARGET_ROWS):
            yield held
            held, n_bytes, n_rows = [], 0, 0
        held.append(part)
        n_bytes, n_rows = n_bytes + size, n_rows + part.file.n_rows
    yield held


def _joined(group: list[Part], job: Job, keys: Keys) -> tuple[DataFile, ...]:
    """The worker's part: the rows of some files in one."""
    user = pa.schema([field for field in group[0].schema if field.name != "row_id"])
    batches = (batch.drop_columns(["row_id"]) for part in group for batch in read_part(part, with_source=True))
    return data_files(job, user, batches, keys, mixed=True)


def _commit(lake: Lake, base: Snapshot, made: Sequence[DataFile], gone: Sequence[DataFile]) -> None:
    before, after = (sum((Digest.parse(file.digest) for file in files), Digest()) for files in (gone, made))
    if before != after:
        raise ChangedRows(
            f"{base.table}: joining {len(gone)} files would change its rows; nothing was changed. Run: lethe ingest"
        )
    lineage = replace(lake.lineage(base), stage="compact")
    lake.commit(base.table, lake.schema(base), made, lineage=lineage, remove=gone, expect=base)
