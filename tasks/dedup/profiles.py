"""What is known of data files without opening them: sketches of their rows and columns, which never change as files never do.
Pure.

A profile is of one file and one of three things: its rows over a column set, the cells of a column under the column's name, or
the cells under no name (to compare columns that are called otherwise). Profiles hold keyed hashes and counts, no value.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from infra.contracts import PROFILES
from tasks.dedup.scan import AnyPart, Facts, file_of
from tasks.dedup.sketches import COLUMN_FLOOR, COLUMN_SCALE, ROW_FLOOR, ROW_SCALE, Sketch, as_row, canonical, merged, of_row

ROWS, CELLS, VALUES = "rows", "cells", "values"
Columns = tuple[str, ...]
Key = tuple[str, str, Columns]  # a file or a table, what, and columns
_KEPT = {
    ROWS: {"scale": ROW_SCALE, "floor": ROW_FLOOR},
    CELLS: {"scale": COLUMN_SCALE, "floor": COLUMN_FLOOR},
    VALUES: {"scale": COLUMN_SCALE, "floor": COLUMN_FLOOR},
}


@dataclass(frozen=True)
class Profile:
    """The sketch of one file's rows or cells. `file` is the file's name in its table's log; `n_nulls` counts the column's NULLs,
    which are no cells.
    """

    table: str
    file: str
    what: str
    columns: Columns
    n_rows: int
    n_nulls: int
    sketch: Sketch

    @property
    def key(self) -> Key:
        return self.file, self.what, self.columns


def scale_of(what: str) -> dict[str, int]:
    """How sketches of rows, of cells and of values are made."""
    return _KEPT[what]


class Shelf:
    """Rows of the table `profiles`, decoded a table at a time: a scan after a scan needs few of them."""

    def __init__(self, rows: pa.Table) -> None:
        self._rows = rows.combine_chunks()
        names = pc.dictionary_encode(self._rows["table"]).combine_chunks()
        places = names.indices.to_numpy() if len(names) else np.zeros(0, np.int32)
        order = np.argsort(places, kind="stable")
        starts = np.searchsorted(places[order], np.arange(len(names.dictionary) + 1))
        tables = names.dictionary.to_pylist()
        self._places = {table: order[starts[i] : starts[i + 1]] for i, table in enumerate(tables)}

    def of(self, table: str) -> list[Profile]:
        """The profiles of a table's files."""
        places = self._places.get(table)
        return [] if places is None else of_table(self._rows.take(pa.array(places)))


class Profiles:
    """The profiles of all files by table, file and columns; those of a table's files together on request. `new` are those that
    were added.
    """

    def __init__(self, shelves: Sequence[Shelf] = ()) -> None:
        self.new: list[Profile] = []
        self._shelves = shelves
        self._known = dict[str, dict[Key, Profile]]()
        self._tables = dict[Key, Sketch]()

    def add(self, found: Iterable[Profile]) -> None:
        for one in found:
            self._of(one.table)[one.key] = one
            self.new.append(one)

    def unknown(self, table: Facts, what: str, columns: Columns) -> list[AnyPart]:
        """The files of a table that have no such profile yet."""
        known = self._of(table.name)
        return [part for part in table.parts if (file_of(part), what, columns) not in known]

    def of(self, table: Facts, what: str, columns: Columns) -> list[Profile]:
        """The profiles of a table's files; all of them must be there."""
        known = self._of(table.name)
        return [known[file_of(part), what, columns] for part in table.parts]

    def sketch(self, table: Facts, what: str, columns: Columns) -> Sketch:
        """The sketch of a table as it would be of one file, however its rows lie."""
        key = table.name, what, columns
        if key not in self._tables:
            together = merged([one.sketch for one in self.of(table, what, columns)])
            self._tables[key] = canonical(together, **scale_of(what))
        return self._tables[key]

    def _of(self, table: str) -> dict[Key, Profile]:
        if table not in self._known:
            self._known[table] = {one.key: one for shelf in self._shelves for one in shelf.of(table)}
        return self._known[table]


def as_table(profiles: Sequence[Profile]) -> pa.Table:
    """Rows of the table `profiles`."""
    bounds, hashes = zip(*(as_row(one.sketch) for one in profiles), strict=True) if profiles else ((), ())
    offsets = np.zeros(len(profiles) + 1, np.int32)
    np.cumsum([len(some) for some in hashes], out=offsets[1:])
    columns: dict[str, Any] = {
        "table": [one.table for one in profiles],
        "file": [one.file for one in profiles],
        "what": [one.what for one in profiles],
        "columns": [list(one.columns) for one in profiles],
        "n_rows": [one.n_rows for one in profiles],
        "n_nulls": [one.n_nulls for one in profiles],
        "threshold": list(bounds),
        "hashes": pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.concatenate([np.zeros(0, np.int64), *hashes]))),
        "log": pa.nulls(len(profiles), pa.large_string()),
    }
    return pa.table({field.name: pa.array(columns[field.name], field.type) for field in PROFILES}, schema=PROFILES)


def of_table(rows: pa.Table) -> list[Profile]:
    """What `as_table` wrote."""
    return [profile for batch in rows.to_batches() for profile in _of_batch(batch)]


def _of_batch(batch: pa.RecordBatch) -> Iterable[Profile]:
    names = ("table", "file", "what", "columns", "n_rows", "n_nulls", "threshold")
    lists = batch.column("hashes")
    offsets, hashes = lists.offsets.to_numpy(), lists.values.to_numpy()
    plain = zip(*(batch.column(name).to_pylist() for name in names), strict=True)
    for i, (table, file, what, columns, n_rows, n_nulls, bound) in enumerate(plain):
        sketch = of_row(bound, hashes[offsets[i] : offsets[i + 1]])
        yield Profile(table, file, what, tuple(columns), n_rows, n_nulls, sketch)
