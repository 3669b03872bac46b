"""What is measured of a record's text once, a data file at a time: the tables `signals`, `signatures` and `contamination`.

Each of these tables has one data file for each file of the pool (see `infra.per_file`): a new file costs its own pass, and what
was measured of an erased row goes with the file that held it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from infra import per_file
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


def measured(lake: Lake, workers: Workers, plan: Plan, measure: Measure) -> Snapshot:
    """The table of a measure, brought up to the files of the pool; only those not met before are read."""
    table, lineage = _table(measure.stage, plan), _lineage(plan, measure.stage, measure.params)

    def run(fresh: Sequence[Source]) -> list[DataFile]:
        return workers.map(measure_file, fresh, measure, lake.folder(table))

    return per_file.updated(lake, table, _wanted(plan), run, schema=measure.schema, lineage=lineage)


def is_measured(lake: Lake, plan: Plan, stage: str, params: dict[str, Any]) -> bool:
    """Whether the table of a measure with these parameters is that of the pool's files."""
    return per_file.is_up_to_date(lake, _table(stage, plan), _wanted(plan).keys(), _lineage(plan, stage, params))


def _lineage(plan: Plan, stage: str, measured_with: dict[str, Any]) -> Lineage:
    params = {"measure": measured_with}
    return Lineage("select", stage_key(stage, plan.code, plan.inputs, params), plan.code, plan.inputs, params)


def let_go(lake: Lake, plan: Plan, stage: str) -> None:
    """Take out of a measure's table what is of files that are no longer in the pool: it may be of erased rows."""
    per_file.let_go(lake, _table(stage, plan), _wanted(plan).keys())


def parts_by_source(lake: Lake, plan: Plan, snapshot: Snapshot) -> list[Part]:
    """The files of a measure's table in the order of the pool's."""
    parts = per_file.by_source(lake, snapshot)
    return [parts[key] for key in _wanted(plan)]


def _table(stage: str, plan: Plan) -> str:
    return f"{stage}/{plan.dataset}"


def _wanted(plan: Plan) -> dict[str, Source]:
    """The files of the pool by the keys that the files of a measure's table have in their names."""
    return {source_key(_told(source)): source for source in plan.pool}


def _told(source: Source) -> str:
    """What a file's measures are of: the file, and its text column."""
    return "/".join((*source.name, source.text or ""))


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
