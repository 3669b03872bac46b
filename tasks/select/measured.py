"""What is measured of a record's text once, a data file at a time: the tables `signals`, `signatures` and `contamination`.

A data file of the pool never changes, so what was measured of it holds while it is in the pool. Each of these tables has one
data file for each file of the pool, and carries its name (as a key) in its own: a new file costs its own pass, and what was
measured of an erased row goes with the file that held it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from infra.cluster import Workers
from infra.contracts import DataFile, Lineage, Snapshot
from infra.files import Folder, Part, read_part, source_key, write_part
from infra.ids import I64
from infra.lake import Lake
from infra.lineage import stage_key
from tasks.select.plan import Plan, Source

Measurer = Callable[[I64, pa.Array, Any], pa.Table]


@dataclass(frozen=True)
class Measure:
    """One of the tables: its stage, the schema, the function of row ids and texts that gives its rows, and that one's argument.

    `params` is the argument in plain values: what was measured under others is measured again.
    """

    stage: str
    schema: pa.Schema
    measurer: Measurer
    argument: Any
    params: dict[str, Any]


def measured(lake: Lake, workers: Workers, plan: Plan, measure: Measure) -> tuple[Snapshot, int]:
    """The table of a measure, brought up to the files of the pool, and how many of them had to be read."""
    table = f"{measure.stage}/{plan.dataset}"
    params = {"measure": measure.params}
    wanted = {_key(source): source for source in plan.pool}
    known = _known(lake, table, plan.code, params)
    fresh = [source for key, source in wanted.items() if key not in known]
    files = workers.map(measure_file, fresh, measure, lake.folder(table))
    gone = [file for key, file in known.items() if key not in wanted]
    if lake.exists(table) and known and not files and not gone:
        return lake.snapshot(table), 0
    lineage = Lineage("select", stage_key(measure.stage, plan.code, plan.inputs, params), plan.code, plan.inputs, params)
    overwrite = not known
    snapshot = lake.commit(table, measure.schema, files, remove=None if overwrite else gone, lineage=lineage, overwrite=overwrite)
    return snapshot, len(files)


def let_go(lake: Lake, plan: Plan, stage: str) -> None:
    """Take out of a measure's table what is of files that are no longer in the pool: it may be of erased rows."""
    table = f"{stage}/{plan.dataset}"
    if not lake.exists(table):
        return
    snapshot = lake.snapshot(table)
    wanted = {_key(source) for source in plan.pool}
    gone = [part.file for part in lake.parts(snapshot) if part.file.source not in wanted]
    if gone:
        lineage = lake.lineage(snapshot)
        lake.commit(table, lake.schema(snapshot), [], remove=gone, lineage=lineage)


def parts_by_source(lake: Lake, plan: Plan, snapshot: Snapshot) -> list[Part]:
    """The files of a measure's table in the order of the pool's."""
    parts = {part.file.source: part for part in lake.parts(snapshot)}
    return [parts[_key(source)] for source in plan.pool]


def _key(source: Source) -> str:
    return source_key(_told(source))


def _told(source: Source) -> str:
    """What a file's measures are of: the file, and its text column."""
    return "/".join((*source.name, source.text or ""))


def _known(lake: Lake, table: str, code: str, params: dict[str, Any]) -> dict[str, DataFile]:
    """The files of the table by the key of the pool's file, where they were measured in the same way."""
    if not lake.exists(table):
        return {}
    snapshot = lake.snapshot(table)
    lineage = lake.lineage(snapshot)
    if lineage.code != code or lineage.params != params:
        return {}
    return {part.file.source: part.file for part in lake.parts(snapshot)}


# --- in the workers ------------------------------------------------------------------------------------------------------------


def measure_file(source: Source, measure: Measure, folder: Folder) -> DataFile:
    """Measure one file of the pool and write what came out; a file of no rows where there is nothing to say."""
    return write_part(folder, _batches(source, measure), measure.schema, source=_told(source))


def _batches(source: Source, measure: Measure) -> Iterator[pa.RecordBatch]:
    for batch in texts_of(source):
        ids = np.asarray(batch.column("row_id"))
        yield from measure.measurer(ids, batch.column(source.text), measure.argument).to_batches()


def texts_of(source: Source) -> Iterator[pa.RecordBatch]:
    """Row ids and texts of a file, in batches."""
    if source.text is None:
        raise ValueError("a source without a text column")
    yield from read_part(source.part, ["row_id", source.text])
