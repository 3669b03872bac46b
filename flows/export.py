"""A curated dataset as Parquet files outside the lake: the pool's kept records, each once."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flows.documents import ExportDocument
from flows.training_sets import pool_of_training_set
from flows.workspace import RECORDS
from infra.contracts import LetheError
from infra.decisions import kept_ids
from infra.files import Part, filesystem, read_part
from infra.ids import I64
from infra.lake import Lake
from infra.settings import Settings, load_settings, resolve
from infra.spans import Cuts, read_cuts, without_cuts


class ExportRefused(LetheError):
    """The place to export to is in use, or not to be used."""


def export(config: Path, name: str, to: str) -> ExportDocument:
    """Write the kept records of a dataset to a new folder or URL, one Parquet file a data file of the pool."""
    settings = load_settings(config)
    settings.dataset(name)
    lake = Lake.open(settings)
    place = resolve(Path.cwd(), to)
    _refuse_inside(place, settings)
    fs, folder = filesystem(place)
    if fs.exists(folder) and fs.ls(folder):
        raise ExportRefused(f"{to} is not empty. Name a folder that does not exist yet")
    training_set, pool = pool_of_training_set(lake, name)
    kept, cuts = kept_ids(lake.parts(training_set)), read_cuts(lake.parts(training_set))
    fs.makedirs(folder, exist_ok=True)
    taken = np.zeros(len(kept), np.bool_)
    written = list[int]()
    for snapshot in pool:
        text = settings.table(snapshot.table.removeprefix(RECORDS)).text if len(cuts.row_ids) else None
        for part in lake.parts(snapshot):
            batches = (_without_cuts(batch, text, cuts) for batch in _kept(part, kept, taken))
            written.append(_write(fs, f"{folder}/part-{uuid.uuid4().hex}.parquet", batches, part.schema))
    return ExportDocument(
        dataset=name, to=to, n_rows=int(taken.sum()), n_files=len(written) - written.count(0), n_bytes=sum(written)
    )


def _without_cuts(batch: pa.RecordBatch, text: str | None, cuts: Cuts) -> pa.RecordBatch:
    """Records without the spans that selection cut out of their text."""
    return without_cuts(batch, text, cuts.of(np.asarray(batch.column("row_id"))))


def _refuse_inside(place: str, settings: Settings) -> None:
    """An export among the lake's own files would be taken for them, and purged."""
    for own in (settings.lake_uri, str(settings.private_dir), settings.artifacts_uri):
        if f"{os.path.normpath(place)}/".startswith(f"{os.path.normpath(own)}/"):
            raise ExportRefused(f"{place} lies in {own}, which is Lethe's own. Name a folder outside of it")


def _write(fs: Any, path: str, batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> int:
    """Write batches as one Parquet file; returns its bytes, 0 (and no file) when there is no batch."""
    first = next(batches, None)
    if first is None:
        return 0
    with fs.open(path, "wb") as sink, pq.ParquetWriter(sink, schema, compression="zstd") as writer:
        for batch in chain([first], batches):
            writer.write_batch(batch)
    return int(fs.info(path)["size"])


def _kept(part: Part, kept: I64, taken: np.ndarray) -> Iterator[pa.RecordBatch]:
    """The kept records of one file that no earlier file gave, each once; marks them in `taken`."""
    for batch in read_part(part):
        ids = np.asarray(batch.column("row_id"))
        _, first = np.unique(ids, return_index=True)
        once = np.zeros(len(ids), np.bool_)
        once[first] = True
        place = np.minimum(np.searchsorted(kept, ids), max(0, len(kept) - 1))
        wanted = once & (kept[place] == ids) & ~taken[place] if len(kept) else np.zeros(len(ids), np.bool_)
        taken[place[wanted]] = True
        if wanted.any():
            yield batch.filter(pa.array(wanted))
