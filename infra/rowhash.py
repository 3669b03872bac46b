"""Canonical keyed 128-bit hashes of Arrow rows, straight over the Arrow buffers.

A row's hash is `finish(Σ over its columns of the cells' hashes)`, two independent 64-bit lanes, uint64 of shape (n, 2). The sum
frees the order of columns and lets one scan of a parent serve every child's column set; a NULL adds 0. A cell's hash is keyed by
the lower-cased column name and the family of its type; it depends on the value, never on width, unit, scale, encoding or slicing.

- numbers: integers, and floats and decimals that are integral and fit int64, hash as that integer; other floats by their float64
  bits, with one NaN; other decimals by (unscaled, scale) without trailing zeros;
- instants as (seconds, nanoseconds), naive and with a time zone apart; dates as days; time of day; durations;
- strings and bytes by length and content; dictionaries as their values;
- lists by length and ordered elements, maps as lists of key and value, structs as the sum of their named fields, mixed once more.

The hashes are keyed against accidents and curious readers, they are not a MAC. Little-endian machines are assumed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from functools import cache, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt
from numba import njit

from infra.contracts import LetheError

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


class UnhashableColumn(LetheError):
    """A column of a type that has no canonical form here."""


# --- what other modules call ---------------------------------------------------------------------------------------------------


def row_sums(batch: pa.RecordBatch | pa.Table, columns: Sequence[str], key: bytes) -> U64:
    """Σ of the keyed cell hashes of each row over `columns`, modulo 2^64 a lane; uint64 (n, 2).

    The sums of disjoint column sets add up to the sums of their union. Raises `UnhashableColumn` on unions and intervals.
    """
    out = np.zeros((batch.num_rows, 2), np.uint64)
    for name in columns:
        _add_column(batch.column(name), name, key, out)
    return out


def finish(sums: U64) -> U64:
    """Row hashes from row sums, uint64 (n, 2): a bijection of 128-bit numbers; each output lane depends on both input lanes."""
    out = np.array(sums, np.uint64, order="C", copy=True)
    _finish(out)
    return out


def row_hashes(batch: pa.RecordBatch | pa.Table, columns: Sequence[str], key: bytes) -> U64:
    """The 128-bit hashes of the rows over `columns`, whatever the order of columns; uint64 (n, 2)."""
    out = row_sums(batch, columns, key)
    _finish(out)
    return out


def cell_hashes(array: pa.Array | pa.ChunkedArray, column: str, key: bytes) -> U64:
    """The keyed hashes of one column's cells, uint64 (n, 2); (0, 0) where the cell is NULL."""
    out = np.zeros((len(array), 2), np.uint64)
    _add_column(array, column, key, out)
    return out


def row_ids(table: str, hashes: U64, key: bytes) -> I64:
    """Row ids, int64 (n,) and never negative: 63 bits of a keyed hash of (table, row hash)."""
    low, high = (_readonly(hashes[:, lane]) for lane in range(2))
    return _ids(low, high, _lane_keys(key, (table,), "row_id"))


# --- from columns to leaves ----------------------------------------------------------------------------------------------------

Path = tuple[str, ...]  # the lower-cased column name, then ".field" or "[]" for each level below it
Add = Callable[[Any, Path, bytes, U64], None]


def _add_column(column: pa.Array | pa.ChunkedArray, name: str, key: bytes, out: U64) -> None:
    chunks: Iterable[Any] = column.chunks if isinstance(column, pa.ChunkedArray) else (column,)
    start = 0
    for chunk in chunks:
        _add(chunk, (name.lower(),), key, out[start : start + len(chunk)])
        start += len(chunk)


def _add(array: Any, path: Path, key: bytes, out: U64) -> None:
    """Adds the cell hashes of `array` to `out`; every kind of type ends here."""
    n = len(array)
    if n == 0 or array.null_count == n:
        return
    kind = array.type
    add = _add_of(kind.id, kind)
    if add is None:
        raise UnhashableColumn(f"column {path[0]!r} is of type {kind}, which has no canonical form; cast it or leave it out")
    add(array, path, key, out)


_ADD_OF = dict[int, Add | None]()


def _add_of(number: int, kind: Any) -> Add | None:
    """What adds a type's hashes; types with one `number` are of one family."""
    if number not in _ADD_OF:
        _ADD_OF[number] = next((add for is_kind, add in _KINDS if is_kind(kind)), None)
    return _ADD_OF[number]


_ODD = np.array([0, 1, 1, 0], np.uint64)


@lru_cache(4096)
def _lane_keys(key: bytes, path: Path, tag: str) -> U64:
    """Key material of one column and type family, uint64 (2, 4): start, two odd multipliers and end of each lane."""
    parts = [part.encode("utf-8", "surrogatepass") for part in (tag, *path)]
    message = b"".join(len(part).to_bytes(8, "little") + part for part in parts)
    digest = hashlib.blake2b(message, key=_secret(key), digest_size=64).digest()
    return _readonly(np.frombuffer(digest, np.uint64).reshape(2, 4) | _ODD)


@cache
def _secret(key: bytes) -> bytes:
    return hashlib.blake2b(key, digest_size=32, person=b"lethe/rowhash").digest()


# --- leaves --------------------------------------------------------------------------------------------------------------------


def _add_integers(array: Any, path: Path, key: bytes, out: U64) -> None:
    values = _values(array, _dtype(array.type))
    if pt.is_uint64(array.type) and values.max() >> np.uint64(63):
        words = np.stack([values, np.zeros_like(values)], axis=1).view(np.int64)
        _decimals(_readonly(words), 0, *_validity(array), *_number_keys(key, path, "decimal"), out)
    else:
        wide = values.astype(np.uint64 if values.dtype.kind == "u" else np.int64, copy=False)
        _words(_readonly(wide.view(np.uint64)), *_validity(array), _lane_keys(key, path, "integer"), out)


def _add_floats(array: Any, path: Path, key: bytes, out: U64) -> None:
    values = _readonly(_values(array, _dtype(array.type)).astype(np.float64, copy=False))
    _floats(values, _readonly(values.view(np.uint64)), *_validity(array), *_number_keys(key, path, "float"), out)


def _add_decimals(array: Any, path: Path, key: bytes, out: U64) -> None:
    n_bytes = array.type.byte_width
    dtype = np.int32 if n_bytes == 4 else np.int64
    words = _values(array, dtype, per_value=max(1, n_bytes // 8)).astype(np.int64, copy=False)
    words = _readonly(words.reshape(len(array), -1))
    _decimals(words, array.type.scale, *_validity(array), *_number_keys(key, path, "decimal"), out)


def _add_booleans(array: Any, path: Path, key: bytes, out: U64) -> None:
    first, last = array.offset // 8, (array.offset + len(array) + 7) // 8
    packed = np.frombuffer(array.buffers()[1], np.uint8)[first:last]
    skipped = array.offset - 8 * first
    words = np.unpackbits(packed, bitorder="little")[skipped : skipped + len(array)].astype(np.uint64)
    _words(_readonly(words), *_validity(array), _lane_keys(key, path, "boolean"), out)


def _add_dates(array: Any, path: Path, key: bytes, out: U64) -> None:
    days = _values(array, np.int32).astype(np.int64) if pt.is_date32(array.type) else _values(array, np.int64) // 86_400_000
    _words(_readonly(days.view(np.uint64)), *_validity(array), _lane_keys(key, path, "date"), out)


def _add_instants(array: Any, path: Path, key: bytes, out: U64) -> None:
    """Timestamps, times of day and durations: counts of a unit, hashed as (seconds, nanoseconds)."""
    dtype = np.int32 if pt.is_time32(array.type) else np.int64
    counts = _readonly(_values(array, dtype).astype(np.int64, copy=False))
    per_second = _PER_SECOND[array.type.unit]
    _instants(counts, per_second, *_validity(array), _lane_keys(key, path, _instant_tag(array.type)), out)


def _instant_tag(kind: Any) -> str:
    if pt.is_timestamp(kind):
        return "timestamp" if kind.tz is None else "timestamp with zone"
    return "duration" if pt.is_duration(kind) else "time"


def _add_bytes(array: Any, path: Path, key: bytes, out: U64) -> None:
    kind = array.type
    tag = "string" if pt.is_string(kind) or pt.is_large_string(kind) else "binary"
    data = _array(array.buffers()[2], np.uint8)
    _bytes(_readonly(data), _offsets(array), *_validity(array), _lane_keys(key, path, tag), out)


def _add_fixed_bytes(array: Any, path: Path, key: bytes, out: U64) -> None:
    width = array.type.byte_width
    offsets = _readonly(np.arange(array.offset, array.offset + len(array) + 1) * width)
    data = _readonly(_array(array.buffers()[1], np.uint8))
    _bytes(data, offsets, *_validity(array), _lane_keys(key, path, "binary"), out)


# --- encodings and nested types ------------------------------------------------------------------------------------------------


def _add_dictionary(array: Any, path: Path, key: bytes, out: U64) -> None:
    """Each distinct value is hashed once, unless the slice is shorter than its dictionary (Arrow has no `take` for views)."""
    values, indices = array.dictionary, array.indices
    if len(values) > len(array) and not (pt.is_nested(values.type) or _is_view(values.type)):
        _add(values.take(indices), path, key, out)
    else:
        hashes = np.zeros((len(values), 2), np.uint64)
        _add(values, path, key, hashes)
        positions = _readonly(_values(indices, _dtype(indices.type)).astype(np.int64, copy=False))
        _taken(positions, hashes, *_validity(indices), out)


def _is_view(kind: Any) -> bool:
    return pt.is_string_view(kind) or pt.is_binary_view(kind)


def _add_views(array: Any, path: Path, key: bytes, out: U64) -> None:
    _add(array.cast(pa.large_string() if pt.is_string_view(array.type) else pa.large_binary()), path, key, out)


def _add_runs(array: Any, path: Path, key: bytes, out: U64) -> None:
    _add(pc.call_function("run_end_decode", [array]), path, key, out)


def _add_storage(array: Any, path: Path, key: bytes, out: U64) -> None:
    _add(array.storage, path, key, out)


def _add_lists(array: Any, path: Path, key: bytes, out: U64) -> None:
    offsets = _offsets(array)
    _add_elements(array, array.values, offsets[:-1], offsets[1:], path, key, out)


def _add_fixed_lists(array: Any, path: Path, key: bytes, out: U64) -> None:
    starts = np.arange(array.offset, array.offset + len(array)) * array.type.list_size
    _add_elements(array, array.values, starts, starts + array.type.list_size, path, key, out)


def _add_list_views(array: Any, path: Path, key: bytes, out: U64) -> None:
    """Lists that may lie in any order and overlap (Arrow 25 casts some of them to broken lists, so they are read as they are)."""
    dtype = np.int64 if pt.is_large_list_view(array.type) else np.int32
    sizes = _array(array.buffers()[2], dtype)[array.offset : array.offset + len(array)]
    starts = _values(array, dtype).astype(np.int64)
    _add_elements(array, array.values, starts, starts + sizes, path, key, out)


def _add_maps(array: Any, path: Path, key: bytes, out: U64) -> None:
    """A map is the list of its entries; the entries' own field names differ between writers and do not count."""
    offsets = _offsets(array)
    keys, items = (array.values.field(i) for i in range(2))
    entries = pa.StructArray.from_arrays([keys, items], names=["key", "value"])
    _add_elements(array, entries, offsets[:-1], offsets[1:], path, key, out)


def _add_elements(array: Any, values: Any, starts: I64, ends: I64, path: Path, key: bytes, out: U64) -> None:
    """Lists as ranges of `values`; only what lies between the first start and the last end is hashed."""
    first, last = int(starts.min()), int(ends.max())
    elements = np.zeros((last - first, 2), np.uint64)
    _add(values.slice(first, last - first), (*path, "[]"), key, elements)
    bounds = _readonly(starts - first), _readonly(ends - first)
    _lists(elements, *bounds, *_validity(array), _lane_keys(key, path, "list"), out)


def _add_structs(array: Any, path: Path, key: bytes, out: U64) -> None:
    sums = np.zeros((len(array), 2), np.uint64)
    for i in range(array.type.num_fields):
        _add(array.field(i), (*path, "." + array.type.field(i).name.lower()), key, sums)
    _structs(sums, *_validity(array), _lane_keys(key, path, "struct"), out)


_KINDS: tuple[tuple[Callable[[Any], bool], Add], ...] = (
    (pt.is_integer, _add_integers),
    (pt.is_floating, _add_floats),
    (lambda t: pt.is_string(t) or pt.is_large_string(t), _add_bytes),
    (pt.is_boolean, _add_booleans),
    (lambda t: pt.is_timestamp(t) or pt.is_time(t) or pt.is_duration(t), _add_instants),
    (pt.is_date, _add_dates),
    (pt.is_decimal, _add_decimals),
    (pt.is_dictionary, _add_dictionary),
    (pt.is_fixed_size_binary, _add_fixed_bytes),
    (lambda t: pt.is_binary(t) or pt.is_large_binary(t), _add_bytes),
    (_is_view, _add_views),
    (pt.is_map, _add_maps),
    (pt.is_struct, _add_structs),
    (lambda t: pt.is_list(t) or pt.is_large_list(t), _add_lists),
    (pt.is_fixed_size_list, _add_fixed_lists),
    (lambda t: pt.is_list_view(t) or pt.is_large_list_view(t), _add_list_views),
    (pt.is_run_end_encoded, _add_runs),
    (lambda t: isinstance(t, pa.BaseExtensionType), _add_storage),
)


# --- Arrow buffers as NumPy arrays ---------------------------------------------------------------------------------------------
# Kernels see read-only, aligned, C-ordered arrays of few dtypes only, so each is compiled once.


def _readonly(values: npt.NDArray[Any]) -> Any:
    flags = values.flags
    if not (flags.c_contiguous and flags.aligned):
        values = np.require(values, requirements=["C", "A"])
    if values.flags.writeable:
        values = values.view()
        values.flags.writeable = False
    return values


_WIDTHS = {**{f"{sign}int{8 * n}": f"{sign or 'i'}{n}" for sign in ("", "u") for n in (1, 2, 4, 8)}, "float16": "f2"}
_DTYPES = {pa.type_for_alias(name).id: np.dtype(width) for name, width in {**_WIDTHS, "float32": "f4", "float64": "f8"}.items()}


def _dtype(kind: Any) -> np.dtype[Any]:
    """The NumPy type of an integer or float type (Arrow's own answer would import pandas)."""
    return _DTYPES[kind.id]


def _array(buffer: Any, dtype: Any) -> npt.NDArray[Any]:
    """A whole Arrow buffer, or what there is when Arrow left it out."""
    if buffer is None or buffer.size == 0:
        return np.empty(0, dtype)
    return np.frombuffer(buffer, dtype, buffer.size // np.dtype(dtype).itemsize)


def _values(array: Any, dtype: Any, *, per_value: int = 1) -> npt.NDArray[Any]:
    """The array's own values (its slice of the data buffer), without a copy."""
    buffer, n, start = array.buffers()[1], len(array) * per_value, array.offset * per_value
    if buffer is None or buffer.size == 0:
        return np.empty(0, dtype)
    return np.frombuffer(buffer, dtype, n, start * np.dtype(dtype).itemsize)


def _offsets(array: Any) -> I64:
    """Offsets of a variable-width array's n values, int64 (n + 1,)."""
    large = pt.is_large_string(array.type) or pt.is_large_binary(array.type) or pt.is_large_list(array.type)
    offsets = _array(array.buffers()[1], np.int64 if large else np.int32)[array.offset : array.offset + len(array) + 1]
    return _readonly(offsets.astype(np.int64, copy=False))


_NO_BITMAP = _readonly(np.empty(0, np.uint8))


def _validity(array: Any) -> tuple[npt.NDArray[np.uint8], int]:
    """The validity bitmap and the position of its first bit; an empty bitmap where nothing is NULL."""
    if not array.null_count:
        return _NO_BITMAP, array.offset
    return _readonly(_array(array.buffers()[0], np.uint8)), array.offset


def _number_keys(key: bytes, path: Path, tag: str) -> tuple[U64, U64]:
    return _lane_keys(key, path, "integer"), _lane_keys(key, path, tag)


# --- kernels -------------------------------------------------------------------------------------------------------------------
# Each adds to out (n, 2) and leaves a row alone when its validity bit is off. `keys` is (2, 4), a row a lane, from `_lane_keys`;
# the lanes differ in their multipliers too, so that what collides in one is no likelier to collide in the other.

Bitmap = npt.NDArray[np.uint8]
Bytes = npt.NDArray[np.uint8]
Words = npt.NDArray[np.int64]
Word = np.uint64

_MUL_1 = np.uint64(0xBF58476D1CE4E5B9)
_MUL_2 = np.uint64(0x94D049BB133111EB)
_SALT_0, _SALT_1 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)
_SALT_2, _SALT_3 = np.uint64(0x165667B19E3779F9), np.uint64(0xD6E8FEB86659FD93)
_LOW_32 = np.uint64(0xFFFFFFFF)
_SIGN = np.uint64(1 << 63)
_NAN = np.uint64(0x7FF8000000000000)
_FITS_TIMES_10 = np.uint64((2**64 - 1) // 10)
# Numba turns uint64 with a plain int into float64, hence every small constant has a name.
_U0, _U1, _U2, _U3, _U4, _U7, _U8, _U10 = (np.uint64(i) for i in (0, 1, 2, 3, 4, 7, 8, 10))
_U16, _U24, _U27, _U30, _U31, _U32, _U47 = (np.uint64(i) for i in (16, 24, 27, 30, 31, 32, 47))


@njit(cache=True, nogil=True, inline="always")
def _is_null(bitmap: Bitmap, position: int) -> bool:
    return len(bitmap) > 0 and not (bitmap[position >> 3] >> (position & 7)) & 1


@njit(cache=True, nogil=True)
def _step(h: Word, word: Word, odd: Word, odd_too: Word) -> Word:
    """Takes one more word in; a bijection of the word for a given `h`, and of `h` for a given word.

    The word is multiplied before it meets `h`: otherwise its flipped top bit leaves a difference that no key changes, and the
    next word can undo it.
    """
    x = (h ^ (word ^ (word >> _U47)) * odd) * odd_too
    return x ^ (x >> _U32)


@njit(cache=True, nogil=True)
def _mix(x: Word) -> Word:
    """A bijection whose output bits all depend on all input bits (splitmix64's finaliser)."""
    x = (x ^ (x >> _U30)) * _MUL_1
    x = (x ^ (x >> _U27)) * _MUL_2
    return x ^ (x >> _U31)


@njit(cache=True, nogil=True)
def _start(keys: U64, lane: int, word: Word) -> Word:
    return _step(keys[lane, 0], word, keys[lane, 1], keys[lane, 2])


@njit(cache=True, nogil=True)
def _end(keys: U64, lane: int, h: Word) -> Word:
    return _mix(h ^ keys[lane, 3])


@njit(cache=True, nogil=True)
def _finish(sums: U64) -> None:
    """In place: four Feistel rounds over the two lanes, then each lane's own mix."""
    for i in range(len(sums)):
        a, b = sums[i, 0], sums[i, 1]
        a ^= _mix(b + _SALT_0)
        b ^= _mix(a + _SALT_1)
        a ^= _mix(b + _SALT_2)
        b ^= _mix(a + _SALT_3)
        sums[i, 0], sums[i, 1] = _mix(a), _mix(b)


@njit(cache=True, nogil=True)
def _ids(low: U64, high: U64, keys: U64) -> I64:
    ids = np.empty(len(low), np.int64)
    for i in range(len(low)):
        h = _end(keys, 0, _start(keys, 0, low[i]))
        h = _end(keys, 1, _step(h ^ keys[1, 0], high[i], keys[1, 1], keys[1, 2]))
        ids[i] = np.int64(h >> _U1)
    return ids


_CHUNK = 512  # rows whose hashes are held before they are added


@njit(cache=True, nogil=True)
def _words(words: U64, bitmap: Bitmap, bit: int, keys: U64, out: U64) -> None:
    """Lane after lane, over plain arrays: so the compiler takes several words at a time."""
    low_lane, high_lane = np.empty(_CHUNK, np.uint64), np.empty(_CHUNK, np.uint64)
    for first in range(0, len(words), _CHUNK):
        some = words[first : first + _CHUNK]
        _lane(some, keys[0, 0], keys[0, 1], keys[0, 2], keys[0, 3], low_lane)
        _lane(some, keys[1, 0], keys[1, 1], keys[1, 2], keys[1, 3], high_lane)
        for i in range(len(some)):
            if not _is_null(bitmap, bit + first + i):
                out[first + i, 0] += low_lane[i]
                out[first + i, 1] += high_lane[i]


@njit(cache=True, nogil=True)
def _lane(words: U64, begin: Word, odd: Word, odd_too: Word, end: Word, out: U64) -> None:
    for i in range(len(words)):
        out[i] = _mix(_step(begin, words[i], odd, odd_too) ^ end)


@njit(cache=True, nogil=True)
def _floats(values: F64, patterns: U64, bitmap: Bitmap, bit: int, integer_keys: U64, float_keys: U64, out: U64) -> None:
    for i in range(len(values)):
        if _is_null(bitmap, bit + i):
            continue
        value = values[i]
        if -(2.0**63) <= value < 2.0**63 and value == np.floor(value):
            keys, word = integer_keys, np.uint64(np.int64(value))
        else:
            keys, word = float_keys, patterns[i] if value == value else _NAN
        for lane in range(2):
            out[i, lane] += _end(keys, lane, _start(keys, lane, word))


@njit(cache=True, nogil=True)
def _instants(counts: I64, per_second: int, bitmap: Bitmap, bit: int, keys: U64, out: U64) -> None:
    nanos = 1_000_000_000 // per_second
    for i in range(len(counts)):
        if _is_null(bitmap, bit + i):
            continue
        seconds = counts[i] // per_second
        fraction = (counts[i] - seconds * per_second) * nanos
        for lane in range(2):
            h = _start(keys, lane, np.uint64(seconds))
            out[i, lane] += _end(keys, lane, _step(h, np.uint64(fraction), keys[lane, 1], keys[lane, 2]))


# Short texts come back: a table of some that were hashed costs half of a hash. It is given up where they do not.
_N_SLOTS = 256
_MAX_SHORT = np.uint64(16)
_SLOT_SHIFT = np.uint64(56)
_FAIR_TRIAL = 4096


@njit(cache=True, nogil=True)
def _bytes(data: Bytes, offsets: I64, bitmap: Bitmap, bit: int, keys: U64, out: U64) -> None:
    odd_0, odd_too_0, odd_1, odd_too_1 = keys[0, 1], keys[0, 2], keys[1, 1], keys[1, 2]
    slots = np.zeros((_N_SLOTS, 5), np.uint64)  # first and last word, length (0: free), hash
    n_missed = 0
    for i in range(len(offsets) - 1):
        if _is_null(bitmap, bit + i):
            continue
        start, end = np.uint64(offsets[i]), np.uint64(offsets[i + 1])
        length, head, last, slot = end - start, _U0, _U0, _U0
        is_short = _U0 < length <= _MAX_SHORT and (n_missed < _FAIR_TRIAL or n_missed < i >> 1)
        if is_short:
            last = _load_last(data, start, length)
            head = last if length <= _U8 else _load_64(data, start)
            slot = ((head ^ (last * _MUL_1) ^ length) * _MUL_2) >> _SLOT_SHIFT
            if slots[slot, 2] == length and slots[slot, 0] == head and slots[slot, 1] == last:
                out[i, 0] += slots[slot, 3]
                out[i, 1] += slots[slot, 4]
                continue
            n_missed += 1
        h_0, h_1 = _start(keys, 0, length), _start(keys, 1, length)
        at = start
        for _ in range(length >> _U3):
            word = _load_64(data, at)
            h_0, h_1 = _step(h_0, word, odd_0, odd_too_0), _step(h_1, word, odd_1, odd_too_1)
            at += _U8
        if length & _U7:
            word = _load_last(data, start, length)
            h_0, h_1 = _step(h_0, word, odd_0, odd_too_0), _step(h_1, word, odd_1, odd_too_1)
        h_0, h_1 = _end(keys, 0, h_0), _end(keys, 1, h_1)
        out[i, 0] += h_0
        out[i, 1] += h_1
        if is_short:
            slots[slot, 0], slots[slot, 1], slots[slot, 2], slots[slot, 3], slots[slot, 4] = head, last, length, h_0, h_1


@njit(cache=True, nogil=True, inline="always")
def _load_32(data: Bytes, at: Word) -> Word:
    low = np.uint64(data[at]) | np.uint64(data[at + _U1]) << _U8
    return low | np.uint64(data[at + _U2]) << _U16 | np.uint64(data[at + _U3]) << _U24


@njit(cache=True, nogil=True, inline="always")
def _load_64(data: Bytes, at: Word) -> Word:
    return _load_32(data, at) | _load_32(data, at + _U4) << _U32


@njit(cache=True, nogil=True, inline="always")
def _load_last(data: Bytes, start: Word, length: Word) -> Word:
    """The last word of a value that is not empty: its last eight bytes (the length tells the overlap), or all it has."""
    if length >= _U8:
        return _load_64(data, start + length - _U8)
    if length >= _U4:
        return _load_32(data, start) | _load_32(data, start + length - _U4) << _U32
    middle, last = data[start + (length >> _U1)], data[start + length - _U1]
    return np.uint64(data[start]) | np.uint64(middle) << _U8 | np.uint64(last) << _U16


@njit(cache=True, nogil=True)
def _taken(indices: I64, values: U64, bitmap: Bitmap, bit: int, out: U64) -> None:
    for i in range(len(indices)):
        if _is_null(bitmap, bit + i):
            continue
        out[i, 0] += values[indices[i], 0]
        out[i, 1] += values[indices[i], 1]


@njit(cache=True, nogil=True)
def _structs(sums: U64, bitmap: Bitmap, bit: int, keys: U64, out: U64) -> None:
    for i in range(len(sums)):
        if _is_null(bitmap, bit + i):
            continue
        for lane in range(2):
            out[i, lane] += _end(keys, lane, _start(keys, lane, sums[i, lane]))


@njit(cache=True, nogil=True)
def _lists(elements: U64, starts: I64, ends: I64, bitmap: Bitmap, bit: int, keys: U64, out: U64) -> None:
    for i in range(len(starts)):
        if _is_null(bitmap, bit + i):
            continue
        length = np.uint64(ends[i] - starts[i])
        h_0, h_1 = _start(keys, 0, length), _start(keys, 1, length)
        for j in range(starts[i], ends[i]):
            h_0 = _step(h_0, elements[j, 0], keys[0, 1], keys[0, 2])
            h_1 = _step(h_1, elements[j, 1], keys[1, 1], keys[1, 2])
        out[i, 0] += _end(keys, 0, h_0)
        out[i, 1] += _end(keys, 1, h_1)


# A decimal is (sign, magnitude in 32-bit limbs, scale). Those within int64, nearly all, are brought down in one register.


@njit(cache=True, nogil=True)
def _decimals(words: Words, scale: int, bitmap: Bitmap, bit: int, integer_keys: U64, decimal_keys: U64, out: U64) -> None:
    """`words` is (n, 1), (n, 2) or (n, 4): two's complement, lowest word first."""
    n_words = words.shape[1]
    limbs = np.zeros(2 * n_words, np.uint64)
    for i in range(len(words)):
        if _is_null(bitmap, bit + i):
            continue
        negative = words[i, n_words - 1] < 0
        if _is_short(words, i):
            left = _reduce_short(words[i, 0], scale, limbs)
        else:
            _spread(words, i, negative, limbs)
            left = _reduce_long(limbs, scale)
        is_integer, word = _integer(limbs, left, negative)
        for lane in range(2):
            if is_integer:
                out[i, lane] += _end(integer_keys, lane, _start(integer_keys, lane, word))
            else:
                out[i, lane] += _decimal(limbs, left, negative, decimal_keys, lane)


@njit(cache=True, nogil=True)
def _is_short(words: Words, i: int) -> bool:
    for j in range(1, words.shape[1]):  # noqa: SIM110  (Numba compiles no generators)
        if words[i, j] != words[i, 0] >> 63:
            return False
    return True


@njit(cache=True, nogil=True)
def _reduce_short(value: int, scale: int, limbs: U64) -> int:
    """Puts the magnitude of an int64 without its trailing zeros into `limbs`; returns the scale that is left (0 for zero)."""
    magnitude = _U0 - np.uint64(value) if value < 0 else np.uint64(value)
    limbs[:] = _U0
    if magnitude == _U0:
        return 0
    tenth = magnitude // _U10
    while tenth * _U10 == magnitude:
        magnitude, scale = tenth, scale - 1
        tenth = magnitude // _U10
    limbs[0], limbs[1] = magnitude & _LOW_32, magnitude >> _U32
    return scale


@njit(cache=True, nogil=True)
def _spread(words: Words, i: int, negative: bool, limbs: U64) -> None:
    """The magnitude of a two's complement number as 32-bit limbs, lowest first."""
    carry = _U1 if negative else _U0
    for j in range(len(limbs)):
        limb = (np.uint64(words[i, j >> 1]) >> (_U32 if j & 1 else _U0)) & _LOW_32
        if negative:
            limb = (limb ^ _LOW_32) + carry
            carry = limb >> _U32
        limbs[j] = limb & _LOW_32


@njit(cache=True, nogil=True)
def _reduce_long(limbs: U64, scale: int) -> int:
    """Strips the trailing zeros of a magnitude that is not zero; returns the scale that is left."""
    while _remainder(limbs) == _U0:
        rest = _U0
        for j in range(len(limbs) - 1, -1, -1):
            part = rest << _U32 | limbs[j]
            limbs[j], rest = part // _U10, part % _U10
        scale -= 1
    return scale


@njit(cache=True, nogil=True)
def _remainder(limbs: U64) -> Word:
    """The magnitude modulo 10."""
    rest = _U0
    for j in range(len(limbs) - 1, -1, -1):
        rest = (rest << _U32 | limbs[j]) % _U10
    return rest


@njit(cache=True, nogil=True)
def _integer(limbs: U64, scale: int, negative: bool) -> tuple[bool, Word]:
    """(True, its bits) where magnitude · 10^-scale is an integer within int64."""
    for j in range(2, len(limbs)):
        if limbs[j] != _U0:
            return False, _U0
    magnitude = limbs[0] | limbs[1] << _U32
    while scale < 0 and magnitude <= _FITS_TIMES_10:
        magnitude *= _U10
        scale += 1
    fits = magnitude < _SIGN or (negative and magnitude == _SIGN)
    return scale == 0 and fits, _U0 - magnitude if negative else magnitude


@njit(cache=True, nogil=True)
def _decimal(limbs: U64, scale: int, negative: bool, keys: U64, lane: int) -> Word:
    n_limbs = len(limbs)
    while limbs[n_limbs - 1] == _U0:
        n_limbs -= 1
    h = _start(keys, lane, np.uint64((scale << 16) | (n_limbs << 1) | (1 if negative else 0)))
    for j in range(n_limbs):
        h = _step(h, limbs[j], keys[lane, 1], keys[lane, 2])
    return _end(keys, lane, h)
