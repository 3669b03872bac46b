"""Tables as ingest leaves them, for tests of recipes: row ids from their content, bounds in the log, one source a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from infra.contracts import DataFile, Lineage, Snapshot
from infra.files import Part, read_part_table, write_part
from infra.lake import Lake
from infra.rowhash import row_hashes, row_ids
from tasks.dedup.recipes import Recipe, schema_of

BOUNDED = (pa.types.is_integer, pa.types.is_floating, pa.types.is_temporal)


def put(
    lake: Lake, name: str, files: Sequence[pa.Table], *, sources: Sequence[str] = (), subjects: Sequence[Any] = ()
) -> Snapshot:
    """Commit a table of the given files."""
    user = files[0].schema
    schema = user.insert(0, pa.field("row_id", pa.int64()))
    stats = [field.name for field in user if any(test(field.type) for test in BOUNDED)]
    written = list[DataFile]()
    for number, file in enumerate(files):
        ids = row_ids(name, row_hashes(file, user.names, lake.keys.row), lake.keys.row)
        batches = file.add_column(0, "row_id", pa.array(ids)).cast(schema).combine_chunks().to_batches()
        source = sources[number] if sources else ""
        folder = lake.folder(f"records/{name}")
        if file.num_rows:
            written.append(write_part(folder, batches, schema, stats=stats, digest_columns=user.names, source=source))
    lineage = Lineage("test", name, "", params={"subjects": list(subjects)})
    return lake.commit(f"records/{name}", schema, written, lineage=lineage, overwrite=True)


def split(table: pa.Table, n_files: int) -> list[pa.Table]:
    """The rows dealt out to so many files."""
    return [table.take(pa.array(range(start, table.num_rows, n_files), pa.int64())) for start in range(n_files)]


def rows_of(table: pa.Table) -> Counter[tuple[Any, ...]]:
    """Rows with their copies; NaN equals NaN."""
    columns = [[("NaN" if value != value else value) for value in table[name].to_pylist()] for name in table.column_names]
    return Counter(zip(*[map(repr_of, column) for column in columns], strict=True))


def repr_of(value: Any) -> str:
    """-0.0 equals 0.0."""
    return repr(value + 0.0) if isinstance(value, float) else repr(value)


def read_back(folder: str, recipe: Recipe, files: Sequence[DataFile]) -> pa.Table:
    """What a rebuild wrote."""
    schema = schema_of(recipe)
    return pa.concat_tables([schema.empty_table(), *(read_part_table(Part(f"{folder}/{f.path}", f, schema)) for f in files)])
