"""Keys over a whole table: `unique` columns and the primary key, in bounded memory.

Exact copies (one row id) never break a key. Of different rows that share one, those that the table has already stay, and among
new ones the row with the lowest id: the outcome of a run depends neither on the order of its files nor on how rows lie in them.
Each key is judged on all rows. NULL in a key exempts the row (rules of the primary key's columns refuse it before).

Workers spill the hashes of keys, sorted, and ranges of hashes are joined one at a time: a range takes about 100 MB, a losing row
16 bytes of the driver. Where the new rows are few, only those rows of the table are spilled whose keys some new row has.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from infra.contracts import MIXED
from infra.decisions import ranges
from infra.files import SOURCE, Part, filesystem, read_part
from infra.rowhash import row_hashes
from infra.settings import TableSettings
from tasks.ingest.blocks import Reject
from tasks.ingest.convert import json_text

I64 = npt.NDArray[np.int64]

_OLD = -1  # the part of rows that the table has already
_FEW_KEYS = 2_000_000
_SPILL_KEYS = 1_000_000
_SPILL_GROUP = 131_072
_RANGE_KEYS = 2_000_000
_OWN = ("row_id", SOURCE)
_NO_KEYS = pa.schema(
    [("hash", pa.int64()), ("rest", pa.int64()), ("row_id", pa.int64()), ("rule", pa.int16()), ("part", pa.int32())]
).empty_table()


@dataclass(frozen=True)
class KeyRule:
    """Columns whose values, together, no two different rows of a table share."""

    reason: str
    columns: tuple[str, ...]


@dataclass(frozen=True)
class Losers:
    """Row ids to be taken out of one part, int64 (n,), sorted, and the place of the rule that each breaks first, int64 (n,)."""

    row_ids: I64
    rules: I64


class RunMap(Protocol):
    """The cluster's map: fn(item, *common) for every item."""

    def __call__(self, fn: Callable[..., Any], items: Sequence[Any], *common: Any) -> list[Any]: ...


def key_rules(section: TableSettings) -> tuple[KeyRule, ...]:
    """The primary key, then the unique columns as lethe.toml names them; empty for most tables."""
    key = [KeyRule("contract: primary_key", section.primary_key)] if section.primary_key else []
    unique = [name for name, contract in section.contract.items() if contract.unique]
    return (*key, *(KeyRule(f"contract: unique on {name!r}", (name,)) for name in unique))


def enforce(
    new: Sequence[Part],
    old: Sequence[Part],
    rules: Sequence[KeyRule],
    run_map: RunMap,
    scratch: str,
    row_key: bytes,
    *,
    few_keys: int = _FEW_KEYS,
    range_keys: int = _RANGE_KEYS,
) -> dict[str, Losers]:
    """Which rows of the new parts break a key, by the parts' paths (`part.file.path`); parts without such a row are left out.

    `old`: the parts that stay in the table. `scratch`: a folder for spills, which the caller removes. `row_key`: the lake's key
    of row hashes. `few_keys`: up to so many new keys, old rows are looked up instead of spilled; `range_keys`: keys joined at a
    time.
    """
    if not rules or not new:
        return {}
    numbered = _batches(list(enumerate(new)))
    spills = _flat(run_map(keys_of, numbered, rules, scratch, row_key, None))
    n_keys = sum(spill.n_keys for spill in spills)
    only = _known(spills) if n_keys <= few_keys else None
    spills += _flat(run_map(keys_of, _batches([(_OLD, part) for part in old]), rules, scratch, row_key, only))
    cuts = ranges(sum(spill.n_keys for spill in spills), range_keys)
    found = run_map(losers, cuts, [spill.uri for spill in spills])
    return {new[part].file.path: lost for part, lost in _by_part(found)}


def _flat(lists: Iterable[list[Spill]]) -> list[Spill]:
    return [spill for spills in lists for spill in spills]


def _batches(parts: Iterable[tuple[int, Part]]) -> list[list[tuple[int, Part]]]:
    """Numbered parts in batches of about a spill's rows, one worker call each."""
    made, held, n_rows = list[list[tuple[int, Part]]](), list[tuple[int, Part]](), 0
    for number, part in parts:
        held.append((number, part))
        n_rows += part.file.n_rows
        if n_rows >= _SPILL_KEYS:
            made.append(held)
            held, n_rows = [], 0
    return [*made, held] if held else made


def _known(spills: Sequence[Spill]) -> I64:
    """The sorted hashes of all spilled keys."""
    hashes = [np.asarray(_read(spill.uri, ["hash"]).column("hash")) for spill in spills]
    return np.unique(np.concatenate([np.empty(0, np.int64), *hashes]))


def _by_part(found: Iterable[tuple[I64, I64, I64]]) -> Iterator[tuple[int, Losers]]:
    """(part, its losers) from (part, row id, rule) of all ranges: of several rules that a row breaks, the first."""
    columns = [np.concatenate([np.empty(0, np.int64), *arrays]) for arrays in zip(*found, strict=True)]
    parts, ids, rules = (columns[i][np.lexsort((columns[2], columns[1], columns[0]))] for i in range(3))
    is_first = _changes(parts, ids)
    parts, ids, rules = parts[is_first], ids[is_first], rules[is_first]
    for start, end in pairwise([*np.flatnonzero(_changes(parts)), len(parts)]):
        yield int(parts[start]), Losers(ids[start:end], rules[start:end])


def _changes(*columns: I64) -> npt.NDArray[np.bool_]:
    """Where sorted rows differ from the one before; the first one does."""
    changed = np.ones(len(columns[0]), np.bool_)
    changed[1:] = np.any([column[1:] != column[:-1] for column in columns], axis=0)
    return changed


# --- spilling keys (workers) --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spill:
    """One file of keys in scratch, sorted by `hash`: two lanes of the key's hash (63 and 64 bits), row id, rule, part."""

    uri: str
    n_keys: int


def keys_of(
    parts: Sequence[tuple[int, Part]], rules: Sequence[KeyRule], scratch: str, row_key: bytes, only: I64 | None
) -> list[Spill]:
    """Spill the keys of numbered parts; with `only` (sorted), those whose hash is in it. A repeated call leaves more files."""
    spills, held, n_keys = list[Spill](), list[pa.Table](), 0
    for number, part in parts:
        for keys in _keys(part, number, rules, row_key, only):
            held.append(keys)
            n_keys += keys.num_rows
            if n_keys >= _SPILL_KEYS:
                spills.append(_spill(scratch, held))
                held, n_keys = [], 0
    return [*spills, _spill(scratch, held)] if n_keys else spills


def _keys(part: Part, number: int, rules: Sequence[KeyRule], row_key: bytes, only: I64 | None) -> Iterator[pa.Table]:
    """The keys of one part's rows. A column that the part's table lacked when it was written is NULL."""
    present = [(place, rule) for place, rule in enumerate(rules) if set(rule.columns) <= set(part.schema.names)]
    names = dict.fromkeys(name for _, rule in present for name in rule.columns)
    if not present:
        return
    for batch in read_part(part, ["row_id", *(name for name in names if name != "row_id")]):
        for place, rule in present:
            yield _of_rule(batch, rule, place, number, row_key, only)


def _of_rule(batch: pa.RecordBatch, rule: KeyRule, place: int, number: int, row_key: bytes, only: I64 | None) -> pa.Table:
    is_key = np.ones(batch.num_rows, np.bool_)
    for name in rule.columns:
        if batch.column(name).null_count:
            is_key &= np.asarray(pc.is_valid(batch.column(name)))
    lanes = row_hashes(batch, rule.columns, row_key)
    hashes = (lanes[:, 0] >> np.uint64(1)).astype(np.int64)
    if only is not None:
        is_key &= _is_in(hashes, only)
    n = int(is_key.sum())
    columns = (hashes[is_key], lanes[is_key, 1].view(np.int64), np.asarray(batch.column("row_id"))[is_key])
    arrays = [*columns, np.full(n, place, np.int16), np.full(n, number, np.int32)]
    return pa.table(arrays, names=_NO_KEYS.schema.names)


def _is_in(values: I64, wanted: I64) -> npt.NDArray[np.bool_]:
    """Which values are among the sorted ones."""
    if not len(wanted):
        return np.zeros(len(values), np.bool_)
    return wanted[np.minimum(np.searchsorted(wanted, values), len(wanted) - 1)] == values


def _spill(scratch: str, tables: Sequence[pa.Table]) -> Spill:
    uri = f"{scratch.rstrip('/')}/{uuid.uuid4().hex}.parquet"
    fs, path = filesystem(uri)
    fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
    keys = pa.concat_tables(tables)
    keys = keys.take(pa.array(np.argsort(np.asarray(keys.column("hash")), kind="stable")))
    with fs.open(path, "wb") as sink:
        pq.write_table(keys, sink, row_group_size=_SPILL_GROUP, use_dictionary=False, compression="none")
    return Spill(uri, keys.num_rows)


def _read(uri: str, columns: Sequence[str] | None = None, filters: Any = None) -> pa.Table:
    fs, path = filesystem(uri)
    with fs.open(path, "rb") as file:
        return pq.read_table(file, columns=columns, filters=filters)


# --- joining ranges (workers) -------------------------------------------------------------------------------------------------


def losers(span: tuple[int, int], spills: Sequence[str]) -> tuple[I64, I64, I64]:
    """(part, row id, rule) of the new rows that break a key, among the keys with lo <= hash < hi; int64 (n,) each."""
    lo, hi = span
    condition = (pc.field("hash") >= lo) & (pc.field("hash") <= hi - 1)
    pieces = [_read(uri, None, condition) for uri in spills]
    return _losers(_shared(pa.concat_tables([_NO_KEYS, *pieces])))


def _shared(keys: pa.Table) -> pa.Table:
    """The keys whose hash is not alone: few, mostly, and only they need the long sort."""
    hashes = np.asarray(keys.column("hash"))
    order = np.argsort(hashes, kind="stable")  # merges the spills' sorted runs
    first = _changes(hashes[order])
    is_alone = first & np.append(first[1:], True)
    return keys.take(pa.array(order[~is_alone]))


def _losers(keys: pa.Table) -> tuple[I64, I64, I64]:
    hashes, rests, ids, rules, parts = (np.asarray(column).astype(np.int64, copy=False) for column in keys.columns)
    is_new = parts != _OLD
    order = np.lexsort((ids, is_new, rests, rules, hashes))
    hashes, rests, ids, rules, parts, is_new = (array[order] for array in (hashes, rests, ids, rules, parts, is_new))
    starts = np.flatnonzero(_changes(hashes, rules, rests))
    winner = np.repeat(starts, np.diff(np.append(starts, len(ids))))  # the first of a key: an old row, or the lowest new id
    is_copy = np.where(is_new[winner], ids == ids[winner], _is_in(ids, np.unique(ids[~is_new])))
    lost = is_new & ~is_copy
    return parts[lost], ids[lost], rules[lost]


# --- taking them out (workers) ------------------------------------------------------------------------------------------------


def without(
    part: Part, lost: Losers, rules: Sequence[KeyRule]
) -> Iterator[tuple[pa.RecordBatch, list[tuple[int | None, Reject]]]]:
    """A part's rows without the losers, and the losers as rejects with the number of their raw file (None: unknown).

    Kept batches have the table's columns, and `SOURCE` where the part is mixed. A reject has line 0, for the part does not know
    it, and the row as JSON.
    """
    for batch in read_part(part, with_source=True):
        ids = np.asarray(batch.column("row_id"))
        is_lost = _is_in(ids, lost.row_ids)
        rejects = _rejects(batch.filter(pa.array(is_lost)), lost, rules) if is_lost.any() else []
        kept = batch.filter(pa.array(~is_lost)) if rejects else batch
        yield kept if part.file.source == MIXED else kept.drop_columns([SOURCE]), rejects


def _rejects(batch: pa.RecordBatch, lost: Losers, rules: Sequence[KeyRule]) -> list[tuple[int | None, Reject]]:
    broken = lost.rules[np.searchsorted(lost.row_ids, np.asarray(batch.column("row_id")))]
    sources = batch.column(SOURCE).to_pylist()
    rows = batch.drop_columns([name for name in _OWN if name in batch.schema.names]).to_pylist()
    return [
        (source, Reject(0, rules[rule].reason, json_text(row)))
        for source, rule, row in zip(sources, broken.tolist(), rows, strict=True)
    ]
