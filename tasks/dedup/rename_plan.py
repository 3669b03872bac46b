"""Which columns need a sketch without a name, so that containments under other column names can be proposed. Pure.

A pair of schemas is plausible when each column of the child that the parent lacks by name and kind may be one of the columns
that only the parent has, of the same kind, and the tables share at least half of the child's columns or are of one width.
Plausible pairs can be millions. They are looked for in postings (schemas with a column, schemas with the same kinds), the
rarest first, until `MAX_LOOKS` pairs were looked at, `MAX_PAIRS` are plausible or their columns are `MAX_COLUMNS`; what is
left out then are pairs that share nothing but common names or common kinds. Tables of one column or with a column of the null
type take no part.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit

from infra.ids import I64
from tasks.dedup.schema_graph import NULL, SchemaClass, schema_classes

MAX_LOOKS = 1 << 24
MAX_PAIRS = 1 << 20
MAX_COLUMNS = 1 << 17
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class RenamePlan:
    """The plausible pairs of schema classes, int64 (n, 2) in ascending order, and which columns of each class need a sketch
    without a name. `complete`: no pair was left out.
    """

    classes: tuple[SchemaClass, ...]
    pairs: I64
    columns: tuple[tuple[str, ...], ...]
    complete: bool

    def wanted(self) -> dict[int, tuple[str, ...]]:
        """The columns to be sketched of each table (its position in the scan)."""
        return {table: names for one, names in zip(self.classes, self.columns, strict=True) for table in one.members if names}


def rename_plan(
    schemas: Sequence[Mapping[str, str]],
    *,
    max_looks: int = MAX_LOOKS,
    max_pairs: int = MAX_PAIRS,
    max_columns: int = MAX_COLUMNS,
) -> RenamePlan:
    """The plan for tables whose schemas map lower-case names to kinds; empty mappings take no part."""
    classes = [c for c in schema_classes(schemas) if len(c.columns) > 1 and NULL not in c.kinds]
    index = _indexed(classes)
    marks = np.zeros(len(index.tokens), np.bool_)
    found = np.empty((max_pairs, 2), np.int64)
    n_members = np.array([len(one.members) for one in classes], np.int64)
    n, complete = _pairs(*index.arrays(), n_members, np.array([max_looks, max_columns]), found, marks)
    pairs = found[:n][np.lexsort((found[:n, 1], found[:n, 0]))]
    columns = tuple(_marked(one, index, marks, i) for i, one in enumerate(classes))
    return RenamePlan(tuple(classes), pairs, columns, bool(complete))


def _marked(one: SchemaClass, index: _Index, marks: Bools, number: int) -> tuple[str, ...]:
    some = slice(index.offsets[number], index.offsets[number + 1])
    return tuple(one.columns[i] for i in sorted(index.places[some][marks[some]].tolist()))


@dataclass(frozen=True)
class _Index:
    """Classes as ascending tokens: one for each (name, kind), and one for the kinds as a whole; the rarer the smaller.

    Class i has `tokens[offsets[i]:offsets[i + 1]]`; `kinds` and `places` are the kind and the column of each token, -1 for
    that of the kinds as a whole. Token t has the classes `posted[starts[t]:starts[t + 1]]`.
    """

    offsets: I64
    tokens: I64
    kinds: I64
    places: I64
    starts: I64
    posted: I64

    def arrays(self) -> tuple[I64, I64, I64, I64, I64]:
        return self.offsets, self.tokens, self.kinds, self.starts, self.posted


Token = tuple[str, ...]


def _indexed(classes: Sequence[SchemaClass]) -> _Index:
    described = [_tokens(one) for one in classes]
    n_holders = Counter(token for tokens in described for token, _ in tokens)
    number = {token: i for i, token in enumerate(sorted(n_holders, key=lambda token: (n_holders[token], token)))}
    kind_number = defaultdict[str, int](lambda: len(kind_number))
    rows = list[tuple[int, int, int, int]]()
    for i, (one, tokens) in enumerate(zip(classes, described, strict=True)):
        for token, place in tokens:
            rows.append((i, number[token], kind_number[one.kinds[place]] if place >= 0 else -1, place))
    table = np.array(sorted(rows), np.int64).reshape(-1, 4)
    order = np.lexsort((table[:, 0], table[:, 1]))
    offsets = np.searchsorted(table[:, 0], np.arange(len(classes) + 1))
    starts = np.searchsorted(table[order, 1], np.arange(len(number) + 1))
    tokens, kinds, places = (np.ascontiguousarray(column) for column in table[:, 1:].T)
    return _Index(offsets.astype(np.int64), tokens, kinds, places, starts.astype(np.int64), table[order, 0])


def _tokens(one: SchemaClass) -> list[tuple[Token, int]]:
    named: list[tuple[Token, int]] = [(pair, i) for i, pair in enumerate(zip(one.columns, one.kinds, strict=True))]
    return [*named, (("", *sorted(one.kinds)), -1)]


@njit(cache=True, nogil=True)
def _pairs(
    offsets: I64, tokens: I64, kinds: I64, starts: I64, posted: I64, n_members: I64, limits: I64, found: I64, marks: Bools
) -> tuple[int, bool]:
    """Plausible pairs into `found`, their columns into `marks`; how many, and whether those are all."""
    n_found, n_looks, n_columns = 0, 0, 0
    free = np.zeros(len(kinds) + 1, np.int64)
    for token in range(len(starts) - 1):
        some = posted[starts[token] : starts[token + 1]]
        n_looks += len(some) * (len(some) - 1)
        if n_looks > limits[0]:
            return n_found, False
        for c in some:
            for p in some:
                if c == p or not _is_plausible(offsets, tokens, kinds, c, p, token, free):
                    continue
                more = _mark(offsets, tokens, kinds, c, p, free, marks, n_members, False)
                if n_found == len(found) or n_columns + more > limits[1]:
                    return n_found, False
                n_columns += _mark(offsets, tokens, kinds, c, p, free, marks, n_members, True)
                found[n_found, 0], found[n_found, 1] = c, p
                n_found += 1
    return n_found, True


@njit(cache=True, nogil=True)
def _is_plausible(offsets: I64, tokens: I64, kinds: I64, c: int, p: int, token: int, free: I64) -> bool:
    """Whether the pair is plausible, and `token` the rarest that they share, so that each pair is found once.

    A class has one token more than columns. `free` counts what the parent has of each kind and the child cannot name; it is
    all zero before and after.
    """
    n_child, n_parent = offsets[c + 1] - offsets[c] - 1, offsets[p + 1] - offsets[p] - 1
    if n_child > n_parent:
        return False
    i, j, n_shared, rarest = offsets[c], offsets[p], 0, -1
    while i < offsets[c + 1] or j < offsets[p + 1]:
        a = tokens[i] if i < offsets[c + 1] else len(tokens)
        b = tokens[j] if j < offsets[p + 1] else len(tokens)
        if a == b:
            rarest = a if rarest < 0 else rarest
            n_shared += kinds[i] >= 0
        elif a < b:
            free[kinds[i]] -= kinds[i] >= 0
        else:
            free[kinds[j]] += kinds[j] >= 0
        i, j = i + (a <= b), j + (b <= a)
        if rarest >= 0 and rarest != token:
            break
    fits = bool(rarest == token and n_shared < n_child and (2 * n_shared >= n_child or n_child == n_parent))
    for i in range(offsets[c], offsets[c + 1]):
        fits = fits and bool(free[kinds[i]] >= 0)
    _clear(offsets, kinds, c, p, free)
    return fits


@njit(cache=True, nogil=True)
def _clear(offsets: I64, kinds: I64, c: int, p: int, free: I64) -> None:
    for one in (c, p):
        for i in range(offsets[one], offsets[one + 1]):
            free[kinds[i]] = 0


@njit(cache=True, nogil=True)
def _mark(offsets: I64, tokens: I64, kinds: I64, c: int, p: int, free: I64, marks: Bools, n_members: I64, write: bool) -> int:
    """The columns that the pair does not share, those of the parent only where the child has such a kind: how many tables'
    columns are new, and with `write` mark them.
    """
    n_new = 0
    for side in range(2):  # the child's columns first: their kinds say which ones of the parent matter
        i, j = offsets[c], offsets[p]
        while i < offsets[c + 1] or j < offsets[p + 1]:
            a = tokens[i] if i < offsets[c + 1] else len(tokens)
            b = tokens[j] if j < offsets[p + 1] else len(tokens)
            at = i if a < b else j
            if side == 0 and a < b and kinds[at] >= 0:
                free[kinds[at]] = 1
            if (a < b) == (side == 0) and a != b and kinds[at] >= 0 and free[kinds[at]]:
                n_new += 0 if marks[at] else n_members[c if a < b else p]
                marks[at] = marks[at] or write
            i, j = i + (a <= b), j + (b <= a)
    _clear(offsets, kinds, c, p, free)
    return n_new
