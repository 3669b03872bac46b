"""An export leaves out what selection cut out of a text."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from flows.export import export
from infra.contracts import TRAINING_SET, Lineage, Snapshot
from infra.files import write_part
from infra.lake import Lake
from infra.settings import load_settings

CONFIG = """\
[tables.notes]
source = "raw/*.jsonl"
text   = "body"
[datasets.d]
pool = ["notes"]
"""


def test_exports_hold_no_cut_span(tmp_path: Path) -> None:
    (tmp_path / "lethe.toml").write_text(CONFIG)
    lake = Lake.open(load_settings(tmp_path / "lethe.toml"))
    bodies = ["plain", "naïve secret words", "dropped", "secret"]
    records = pa.table({"row_id": [1, 2, 3, 4], "body": bodies, "note": bodies})
    pool = commit(lake, "records/notes", records)
    rows = [{"row_id": i, "shard": 0, "slice": 0, "keep": i != 3, "reason": "kept", "control": False} for i in (1, 2, 3, 4)]
    rows[1]["cuts"], rows[3]["cuts"] = [len("naïve ".encode()), len("naïve secret ".encode())], [0, 6]
    commit(lake, "training_set/d", pa.Table.from_pylist(rows, TRAINING_SET), pool)
    export(tmp_path / "lethe.toml", "d", str(tmp_path / "out"))
    found = pq.read_table(tmp_path / "out").sort_by("row_id")
    assert found.drop_columns("row_id").to_pylist() == [
        {"body": "plain", "note": "plain"},
        {"body": "naïve words", "note": "naïve secret words"},
        {"body": "", "note": "secret"},
    ]
    assert found.schema.equals(records.schema)


def commit(lake: Lake, name: str, table: pa.Table, *inputs: Snapshot) -> Snapshot:
    file = write_part(lake.folder(name), table.to_batches(), table.schema)
    return lake.commit(name, table.schema, [file], lineage=Lineage("test", "", "", inputs=inputs), overwrite=True)
