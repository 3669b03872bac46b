"""Parts of a text that nobody trains on or exports: cuts, as byte offsets [begin, end, begin, end, ...] of its UTF-8, ascending.

Selection writes them in its decisions, the training set carries them, and whoever reads the text leaves them out. A record that
is cut keeps its row id; `contents` tells it from the whole one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from infra.files import Part, read_part
from infra.ids import I64

CUTS = pa.list_(pa.int32())


@dataclass(frozen=True, eq=False)
class Cuts:
    """The cuts of the records that have some, by ascending row id."""

    row_ids: I64
    cuts: pa.Array

    def of(self, row_ids: I64) -> pa.Array:
        """The cuts of each of these records, NULL where it has none."""
        if not len(self.row_ids):
            return pa.nulls(len(row_ids), CUTS)
        at = np.minimum(np.searchsorted(self.row_ids, row_ids), len(self.row_ids) - 1)
        return self.cuts.take(pa.array(at, mask=self.row_ids[at] != row_ids))


def read_cuts(parts: Sequence[Part]) -> Cuts:
    """The cuts in a decision table; none in one that was written before there were cuts."""
    ids, cuts = [np.zeros(0, np.int64)], [pa.array([], CUTS)]
    for part in (part for part in parts if "cuts" in part.schema.names):
        for batch in read_part(part, ["row_id", "cuts"]):
            rows = batch.filter(batch.column("cuts").is_valid())
            ids.append(np.asarray(rows.column("row_id")))
            cuts.append(rows.column("cuts"))
    row_ids, first = np.unique(np.concatenate(ids), return_index=True)
    return Cuts(row_ids, pa.concat_arrays(cuts).take(pa.array(first)))


def without(texts: pa.Array, cuts: pa.Array) -> pa.Array:
    """A column of text without the cuts of each row; the column itself where no row has any.

    Offsets lie between characters, so that valid UTF-8 stays valid.
    """
    cut = _rows_with_cuts(cuts)
    if not len(cut):
        return texts
    plain = texts if pt.is_string(texts.type) or pt.is_large_string(texts.type) else texts.cast(pa.large_string())
    raw = plain.view(pa.binary() if pt.is_string(plain.type) else pa.large_binary())
    left = [_left(raw[int(i)].as_py(), cuts[int(i)].as_py()) for i in cut]
    where = np.full(len(raw), -1)
    where[cut] = np.arange(len(cut))
    both = pa.concat_arrays([raw, pa.array(left, raw.type)])
    found = both.take(pa.array(np.where(where < 0, np.arange(len(raw)), len(raw) + where))).view(plain.type)
    return found if found.type == texts.type else found.cast(texts.type)


def _left(text: bytes | None, cut: Sequence[int]) -> bytes | None:
    if text is None:
        return None
    edges = [0, *cut, len(text)]
    return b"".join(text[begin:end] for begin, end in zip(edges[::2], edges[1::2], strict=True))


def without_cuts(rows: pa.RecordBatch, text: str | None, cuts: pa.Array | None) -> pa.RecordBatch:
    """Rows whose column `text` is without their cuts; the rows themselves where they have neither."""
    if text is None or cuts is None or text not in rows.schema.names or not len(_rows_with_cuts(cuts)):
        return rows
    at = rows.schema.get_field_index(text)
    return rows.set_column(at, rows.schema.field(at), without(rows.column(at), cuts))


def contents(row_ids: I64, cuts: pa.Array | None) -> I64:
    """A number for what of each record is trained on: its row id, or a hash of the id and of the cuts where it has some."""
    cut = _rows_with_cuts(cuts) if cuts is not None else np.zeros(0, np.int64)
    if cuts is None or not len(cut):
        return row_ids
    found = row_ids.copy()
    for i in cut:
        found[i] = _content(int(row_ids[i]), cuts[int(i)].as_py())
    return found


def _content(row_id: int, cut: Sequence[int]) -> int:
    raw = np.array([row_id, *cut], "<i8").tobytes()
    return int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "little") >> 1


def _rows_with_cuts(cuts: pa.Array) -> Any:
    """Places of the rows whose list is neither NULL nor empty."""
    if cuts.null_count == len(cuts):
        return np.zeros(0, np.int64)
    return np.flatnonzero(np.asarray(cuts.value_lengths().fill_null(0)))
