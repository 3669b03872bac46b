"""Containments under other column names: proposed from sketches of cells that were hashed under one name for all. Pure.

A column of the child that the parent lacks by name may be any of the parent's own columns whose sketch holds all of the
child's hashes. An inverted index over the sketches, rarest hashes first, finds the tables that may have it; the columns are
then assigned to each other, the most alike first. A proposal is only worth an exact check: hash the child's cells under the
parent's names, and search them in the parent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import groupby, islice, product

import numpy as np
from numba import njit
from scipy.optimize import linear_sum_assignment

from infra.ids import I64
from tasks.dedup.rename_plan import RenamePlan
from tasks.dedup.sketches import F64, Bools, Packed, Sketch, compare_pairs, pack

ANY_NAME = "*"  # the name under which cells are hashed for the sketches that this module compares
MAX_POSTING = 256  # a hash in more columns than this finds nothing
N_PROBES = 4
MAX_CANDIDATES = 64  # parents of one child that are compared
MAX_PARENTS = 16  # parents of one child that are proposed
MAX_MAPPINGS = 4  # of columns, for one child and parent
_NEVER = 1e9

Column = tuple[int, str]  # position of a table in the scan, and the lower-case name


@dataclass(frozen=True)
class Proposal:
    """That `child` may be contained in `parent` (positions in the scan) with its columns taken by other names.

    `columns` are pairs (child's column, parent's column) of all the child's columns, sorted; some pair differs.
    """

    child: int
    parent: int
    columns: tuple[tuple[str, str], ...]


def proposals(
    plan: RenamePlan,
    sketches: Mapping[Column, Sketch],
    n_rows: Sequence[int],
    *,
    named: Mapping[Column, Sketch] | None = None,
) -> list[Proposal]:
    """What is worth an exact check, by child and parent, the likeliest mapping first.

    `sketches` are those of the plan's columns, hashed under `ANY_NAME`; `n_rows` goes by table. `named` are sketches of columns
    hashed under their own names, as far as there are any: they refute pairs whose other columns do not fit. Each child has at
    most `MAX_PARENTS` parents, the smallest among those that agree in equally many columns, with `MAX_MAPPINGS` mappings each.
    """
    lake = _Lake.of(plan, sketches, named or {})
    pairs = _candidates(plan, lake, np.asarray(n_rows, np.int64)).tolist()
    found = list[Proposal]()
    for child, some in groupby(pairs, key=lambda pair: pair[0]):
        fitting = (mapped for _, parent in some if (mapped := _mapped(lake, child, parent)))
        found += [one for mapped in sorted(islice(fitting, MAX_PARENTS), key=lambda m: m[0].parent) for one in mapped]
    return found


@dataclass(frozen=True)
class _Sketches:
    """Packed sketches, and where each column's is."""

    place: dict[Column, int]
    packed: Packed

    @staticmethod
    def of(sketches: Mapping[Column, Sketch]) -> _Sketches:
        keys = sorted(sketches)
        return _Sketches({key: i for i, key in enumerate(keys)}, pack([sketches[key] for key in keys]))

    def compare(self, pairs: Sequence[tuple[Column, Column]]) -> tuple[I64, I64]:
        places = np.array([(self.place[a], self.place[b]) for a, b in pairs], np.int64).reshape(-1, 2)
        return compare_pairs(self.packed, self.packed, places)


@dataclass(frozen=True)
class _Lake:
    """The class of each table, the kinds of each class's columns, and the sketches without and with a name."""

    class_of: dict[int, int]
    kinds: tuple[dict[str, str], ...]
    free: _Sketches
    named: _Sketches

    @staticmethod
    def of(plan: RenamePlan, sketches: Mapping[Column, Sketch], named: Mapping[Column, Sketch]) -> _Lake:
        class_of = {table: number for number, one in enumerate(plan.classes) for table in one.members}
        kinds = tuple(dict(zip(one.columns, one.kinds, strict=True)) for one in plan.classes)
        known = {key: sketch for key, sketch in sketches.items() if key[0] in class_of}
        return _Lake(class_of, kinds, _Sketches.of(known), _Sketches.of(named))

    def kinds_of(self, table: int) -> dict[str, str]:
        return self.kinds[self.class_of[table]]


# --- candidates by common hashes -----------------------------------------------------------------------------------------------


def _candidates(plan: RenamePlan, lake: _Lake, n_rows: I64) -> I64:
    """Pairs (child, parent) of tables, at most `MAX_CANDIDATES` a child: those with most of the child's columns in common."""
    keys, packed = list(lake.free.place), lake.free.packed
    tables = np.array([table for table, _ in keys], np.int64)
    classes = np.array([lake.class_of[table] for table, _ in keys], np.int64)
    kinds = _numbered([lake.kinds_of(table)[name] for table, name in keys])
    names = _numbered([name for _, name in keys])
    owners = np.repeat(np.arange(len(keys)), np.diff(packed.offsets))
    order = np.lexsort((owners, packed.hashes))
    hashes, starts, n_holders = np.unique(packed.hashes[order], return_index=True, return_counts=True)
    place = np.searchsorted(hashes, packed.hashes)
    first_pair = np.searchsorted(plan.pairs[:, 0], np.arange(len(plan.classes) + 1))
    found = np.empty((len(np.unique(tables)) * MAX_CANDIDATES, 2), np.int64)
    n = _vote(
        *(tables, classes, kinds, names, packed.offsets, place, starts, n_holders, owners[order]),
        *(first_pair, np.ascontiguousarray(plan.pairs[:, 1]), n_rows, found),
    )
    return found[:n]


def _numbered(words: Sequence[str]) -> I64:
    number = {word: i for i, word in enumerate(sorted(set(words)))}
    return np.array([number[word] for word in words], np.int64)


@njit(cache=True, nogil=True)
def _vote(
    tables: I64,
    classes: I64,
    kinds: I64,
    names: I64,
    offsets: I64,
    place: I64,
    starts: I64,
    n_holders: I64,
    owners: I64,
    first_pair: I64,
    pair_parents: I64,
    n_rows: I64,
    found: I64,
) -> int:
    """Each column of a child votes once for each table that has a column of its kind and one of its probed hashes."""
    votes, voted = np.zeros(len(n_rows), np.int64), np.full(len(n_rows), -1, np.int64)
    touched = np.empty(len(n_rows), np.int64)
    n_found, n_touched = 0, 0
    for column in range(len(tables)):
        plausible = pair_parents[first_pair[classes[column]] : first_pair[classes[column] + 1]]
        for probe in _probes(place[offsets[column] : offsets[column + 1]], n_holders):
            for other in owners[starts[probe] : starts[probe] + n_holders[probe]]:
                parent = tables[other]
                if kinds[other] != kinds[column] or names[other] == names[column] or voted[parent] == column:
                    continue
                at = np.searchsorted(plausible, classes[other])
                if parent == tables[column] or at == len(plausible) or plausible[at] != classes[other]:
                    continue
                if votes[parent] == 0:
                    touched[n_touched] = parent
                    n_touched += 1
                votes[parent] += 1
                voted[parent] = column
        if column + 1 == len(tables) or tables[column + 1] != tables[column]:
            for parent in _elected(touched[:n_touched], votes, n_rows):
                found[n_found, 0], found[n_found, 1] = tables[column], parent
                n_found += 1
            votes[touched[:n_touched]] = 0
            n_touched = 0
    return n_found


@njit(cache=True, nogil=True)
def _probes(places: I64, n_holders: I64) -> I64:
    """The rarest hashes of a column that others have too and that are not too common; the smallest of those, which a larger
    column's lower bound spares, come first among equals.
    """
    useful = places[(n_holders[places] > 1) & (n_holders[places] <= MAX_POSTING)]
    if len(useful) <= N_PROBES:
        return useful
    rarest = useful[np.argsort(n_holders[useful], kind="mergesort")]
    rarest[N_PROBES - 1] = useful[0] if not (rarest[: N_PROBES - 1] == useful[0]).any() else rarest[N_PROBES - 1]
    return rarest[:N_PROBES]


@njit(cache=True, nogil=True)
def _elected(touched: I64, votes: I64, n_rows: I64) -> I64:
    """The tables of most votes, the smallest first among equals."""
    some = np.sort(touched)
    some = some[np.argsort(n_rows[some], kind="mergesort")]
    return some[np.argsort(-votes[some], kind="mergesort")][:MAX_CANDIDATES]


# --- columns to columns --------------------------------------------------------------------------------------------------------


def _mapped(lake: _Lake, child: int, parent: int) -> list[Proposal]:
    """The likeliest mappings of a pair of tables; none where the sketches refute them all."""
    ours, theirs = lake.kinds_of(child), lake.kinds_of(parent)
    shared = [name for name, kind in ours.items() if theirs.get(name) == kind]
    renamed = [name for name, kind in ours.items() if theirs.get(name) != kind]
    others = [name for name, kind in theirs.items() if ours.get(name) != kind and (parent, name) in lake.free.place]
    if len(renamed) > len(others) or not all((child, name) in lake.free.place for name in renamed):
        return []
    allowed, alike = _compared(lake, [(child, name) for name in renamed], [(parent, name) for name in others])
    if not allowed.any(axis=1).all() or not _is_possible(lake, child, parent, shared):
        return []
    same = [(name, name) for name in shared]
    mappings = ([others[p] for p in one] for one in best_assignments(alike, allowed, MAX_MAPPINGS))
    return [Proposal(child, parent, tuple(sorted([*same, *zip(renamed, names, strict=True)]))) for names in mappings]


def _compared(lake: _Lake, ours: Sequence[Column], theirs: Sequence[Column]) -> tuple[Bools, F64]:
    """(ours, theirs): whether the kinds are the same and the sketch holds all of the child's hashes, and how alike the two
    columns are then, from 0 to 1.
    """
    pairs = list(product(ours, theirs))
    n_ours, n_missing = lake.free.compare(pairs)
    n_theirs, _ = lake.free.compare([(b, a) for a, b in pairs])
    same_kind = np.array([lake.kinds_of(a[0])[a[1]] == lake.kinds_of(b[0])[b[1]] for a, b in pairs], np.bool_)
    alike = (n_ours - n_missing) / np.maximum(n_theirs, 1)
    shape = len(ours), len(theirs)
    return (same_kind & (n_missing == 0)).reshape(shape), alike.reshape(shape)


def _is_possible(lake: _Lake, child: int, parent: int, shared: Sequence[str]) -> bool:
    """Whether the columns of one name fit, as far as they were sketched."""
    both = [((child, name), (parent, name)) for name in shared]
    known = [(a, b) for a, b in both if a in lake.named.place and b in lake.named.place]
    return not known or not lake.named.compare(known)[1].any()


def best_assignments(alike: F64, allowed: Bools, limit: int) -> list[tuple[int, ...]]:
    """The `limit` assignments of rows to different columns, where `allowed`, of the largest sums of `alike`, best first
    (Murty, "An algorithm for ranking all the assignments in order of increasing cost", 1968).
    """
    best, heap = list[tuple[int, ...]](), list[tuple[float, tuple[int, ...], Bools]]()
    _push(heap, alike, allowed)
    while heap and len(best) < limit:
        _, found, open_to = heappop(heap)
        best.append(found)
        if open_to.sum() == len(found):
            continue  # nothing else is open
        for row, column in enumerate(found):  # all others: the first rows keep their column, this one does not
            rest = open_to.copy()
            rest[row, column] = False
            _push(heap, alike, rest)
            open_to = open_to.copy()
            open_to[row] = False
            open_to[row, column] = True
    return best


def _push(heap: list[tuple[float, tuple[int, ...], Bools]], alike: F64, allowed: Bools) -> None:
    rows, columns = linear_sum_assignment(np.where(allowed, -alike, _NEVER))
    if len(rows) == len(alike) and allowed[rows, columns].all():
        heappush(heap, (-float(alike[rows, columns].sum()), tuple(columns.tolist()), allowed))
