"""What is known of data files without opening them: sketches of their rows and columns, which never change as files never do.
Pure.

A profile is of one file and one of three things: its rows over a column set, the cells of a column under the column's name, or
the cells under no name (to compare columns that are called otherwise). Profiles hold keyed hashes and counts, no value.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from infra.contracts import PROFILES
from tasks.dedup.scan import AnyPart, Facts, file_of
from tasks.dedup.sketches import COLUMN_FLOOR, COLUMN_SCALE, ROW_FLOOR, ROW_SCALE, Sketch, as_row, canonical, merged, of_row

ROWS, CELLS, VALUES = "rows", "cells", "values"
Columns = tuple[str, ...]
_Place = tuple[str, str, str, str]  # table, file, what, and the columns as JSON
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
    def place(self) -> _Place:
        return self.table, self.file, self.what, _as_text(self.columns)


def scale_of(what: str) -> dict[str, int]:
    """How sketches of rows, of cells and of values are made."""
    return _KEPT[what]


class Shelf:
    """Rows of the table `profiles`, of which a scan after a scan needs few: sketches are decoded when they are asked for."""

    def __init__(self, rows: pa.Table) -> None:
        whole = rows.combine_chunks()
        lists = whole["hashes"].combine_chunks()
        self._hashes, self._offsets = lists.values.to_numpy(), lists.offsets.to_numpy()
        self._counts = [whole[name].to_numpy() for name in ("n_rows", "n_nulls", "threshold")]
        self.keys: list[_Place] = [*zip(*(whole[name].to_pylist() for name in ("table", "file", "what", "columns")), strict=True)]

    def at(self, i: int) -> Profile:
        """The i-th profile."""
        (table, file, what, columns), (n_rows, n_nulls, bound) = self.keys[i], (int(some[i]) for some in self._counts)
        sketch = of_row(bound, self._hashes[self._offsets[i] : self._offsets[i + 1]])
        return Profile(table, file, what, _of_text(columns), n_rows, n_nulls, sketch)


class Profiles:
    """The profiles of all files by table, file and columns; those of a table's files together on request. `new` are those that
    were added.
    """

    def __init__(self, shelves: Sequence[Shelf] = ()) -> None:
        self.new: list[Profile] = []
        self._added = dict[_Place, Profile]()
        self._shelved = {key: (shelf, i) for shelf in shelves for i, key in enumerate(shelf.keys)}
        self._tables = dict[tuple[str, str, Columns], Sketch]()

    def add(self, found: Iterable[Profile]) -> None:
        for one in found:
            self._added[one.place] = one
            self.new.append(one)

    def unknown(self, table: Facts, what: str, columns: Columns) -> list[AnyPart]:
        """The files of a table that have no such profile yet."""
        text = _as_text(columns)
        places = ((part, (table.name, file_of(part), what, text)) for part in table.parts)
        return [part for part, place in places if place not in self._shelved and place not in self._added]

    def of(self, table: Facts, what: str, columns: Columns) -> list[Profile]:
        """The profiles of a table's files; all of them must be there."""
        text = _as_text(columns)
        return [self._at((table.name, file_of(part), what, text)) for part in table.parts]

    def _at(self, place: _Place) -> Profile:
        if place in self._added:
            return self._added[place]
        shelf, i = self._shelved[place]
        return shelf.at(i)

    def sketch(self, table: Facts, what: str, columns: Columns) -> Sketch:
        """The sketch of a table as it would be of one file, however its rows lie."""
        key = table.name, what, columns
        if key not in self._tables:
            together = merged([one.sketch for one in self.of(table, what, columns)])
            self._tables[key] = canonical(together, **scale_of(what))
        return self._tables[key]


def as_table(profiles: Sequence[Profile]) -> pa.Table:
    """Rows of the table `profiles`."""
    bounds, hashes = zip(*(as_row(one.sketch) for one in profiles), strict=True) if profiles else ((), ())
    offsets = np.zeros(len(profiles) + 1, np.int32)
    np.cumsum([len(some) for some in hashes], out=offsets[1:])
    columns: dict[str, Any] = {
        "table": [one.table for one in profiles],
        "file": [one.file for one in profiles],
        "what": [one.what for one in profiles],
        "columns": [_as_text(one.columns) for one in profiles],
        "n_rows": [one.n_rows for one in profiles],
        "n_nulls": [one.n_nulls for one in profiles],
        "threshold": list(bounds),
        "hashes": pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.concatenate([np.zeros(0, np.int64), *hashes]))),
        "log": pa.nulls(len(profiles), pa.large_string()),
    }
    return pa.table({field.name: pa.array(columns[field.name], field.type) for field in PROFILES}, schema=PROFILES)


def _as_text(columns: Columns) -> str:
    return json.dumps(columns, separators=(",", ":"), ensure_ascii=False)


def _of_text(text: str) -> Columns:
    return tuple(json.loads(text))
