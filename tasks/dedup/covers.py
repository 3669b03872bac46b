"""Union covers: a child that lies in several parents taken together and in none of them alone, as a year in its months. Pure.

Sketches say cheaply which children may have a cover: what no candidate holds, no union holds. Exact counts then choose one.
The rows of a child fall into few patterns (how often a row is needed, and how often each candidate has it), so that counts of
any number of rows, taken hash range by hash range, are kept as a short tally, and the choice is greedy on it (Chvátal, "A
greedy heuristic for the set-covering problem", 1979). The tally proves what is chosen, and no parent of it can be left out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
from numba import njit

from infra.ids import I64, U64
from tasks.dedup.sketches import F64, Bools, Packed, Sketch, compare_pairs, fraction_estimate, pack

MAX_PARENTS = 1024  # candidates that one child is counted in: those that seem to hold most of it
MAX_WORDS = 1 << 23  # a tally is kept below this many counts (64 MiB)
_CHUNK_ROWS = 1 << 16
_MAX_CODE = 1 << 62


@dataclass(frozen=True)
class Candidate:
    """A table that may be a part of covers. Of two that serve alike the one of fewer rows is taken, then the first by name."""

    name: str
    n_rows: int

    @property
    def order(self) -> tuple[int, str]:
        return self.n_rows, self.name


# --- by sketches ---------------------------------------------------------------------------------------------------------------


def coverable(child: Sketch, parents: Sequence[Sketch]) -> bool:
    """Whether the union of the parents may hold the child: False is certain, True is not."""
    pairs = np.array([(0, parent) for parent in range(len(parents))], np.int64).reshape(-1, 2)
    _, n_missing = compare_unions(pack([child]), pack(parents), pairs)
    return not n_missing[0]


def compare_unions(children: Packed, parents: Packed, pairs: I64) -> tuple[I64, I64]:
    """For each child, against the union of the parents that `pairs`, int64 (n, 2), give it: how many of its hashes lie up to
    the bounds of all, and how many of those every parent lacks. One missing hash refutes every cover.
    """
    order = np.argsort(pairs[:, 0], kind="stable")
    starts = np.searchsorted(pairs[order, 0], np.arange(len(children) + 1))
    n_compared, n_missing = np.zeros(len(children), np.int64), np.zeros(len(children), np.int64)
    _compare_unions(
        *(children.offsets, children.hashes, children.bounds),
        *(parents.offsets, parents.hashes, parents.bounds),
        *(starts.astype(np.int64), np.ascontiguousarray(pairs[order, 1], np.int64), n_compared, n_missing),
    )
    return n_compared, n_missing


def questions(
    children: Packed,
    parents: Packed,
    pairs: I64,
    candidates: Sequence[Candidate],
    contained_in: Mapping[str, Collection[str]],
    *,
    at_most: F64 | None = None,
) -> dict[int, list[int]]:
    """The children worth counting, each with at least two and at most `MAX_PARENTS` parents, most promising first.

    `pairs` are (child, parent) positions whose schemas fit and where the parent does not contain the child alone; `candidates`
    describe the packed parents. `at_most` bounds, for each pair, the fraction of the child that exact counts leave possible.
    Parents that another candidate is known to contain (`contained_in`, by name) add nothing and are left out.
    """
    most = np.ones(len(pairs)) if at_most is None else at_most
    kept = _coverable_pairs(children, parents, pairs, most)
    pairs, most = pairs[kept], most[kept]
    share = np.minimum(fraction_estimate(*compare_pairs(children, parents, pairs))[0], most)
    found = dict[int, list[int]]()
    for i in np.lexsort((pairs[:, 1], -share, pairs[:, 0])):
        found.setdefault(int(pairs[i, 0]), []).append(int(pairs[i, 1]))
    best = {child: [some[i] for i in undominated([candidates[p] for p in some], contained_in)] for child, some in found.items()}
    return {child: some[:MAX_PARENTS] for child, some in best.items() if len(some) > 1}


def _coverable_pairs(children: Packed, parents: Packed, pairs: I64, most: F64) -> Bools:
    """The pairs that may matter, of the children that neither sketches nor counts refute."""
    kept = most > 0
    total = np.bincount(pairs[:, 0], weights=most, minlength=len(children))
    _, n_missing = compare_unions(children, parents, pairs[kept])
    possible = (total > 1.0 - 1e-9) & (n_missing == 0)
    return kept & possible[pairs[:, 0]]


def undominated(candidates: Sequence[Candidate], contained_in: Mapping[str, Collection[str]]) -> list[int]:
    """Positions of the candidates that no other one contains; of equal ones the first in order is kept."""
    order = {one.name: one.order for one in candidates}

    def is_kept(one: Candidate) -> bool:
        above = (name for name in contained_in.get(one.name, ()) if name in order and name != one.name)
        return all(one.name in contained_in.get(name, ()) and one.order < order[name] for name in above)

    return [i for i, one in enumerate(candidates) if is_kept(one)]


@njit(cache=True, nogil=True)
def _compare_unions(
    c_offsets: I64,
    c_hashes: U64,
    c_bounds: U64,
    p_offsets: I64,
    p_hashes: U64,
    p_bounds: U64,
    starts: I64,
    parents: I64,
    n: I64,
    missing: I64,
) -> None:
    for c in range(len(c_bounds)):
        some = parents[starts[c] : starts[c + 1]]
        bound = c_bounds[c]
        for p in some:
            bound = min(bound, p_bounds[p])
        child = c_hashes[c_offsets[c] : c_offsets[c + 1]]
        child = child[: np.searchsorted(child, bound, side="right")]
        held = np.zeros(len(child), np.bool_)
        for p in some:
            _mark(child, p_hashes[p_offsets[p] : p_offsets[p + 1]], held)
        n[c] = len(child)
        missing[c] = len(child) - held.sum()


@njit(cache=True, nogil=True)
def _mark(child: U64, parent: U64, held: Bools) -> None:
    i, j = 0, 0
    while i < len(child) and j < len(parent):
        a, b = child[i], parent[j]
        if a == b:
            held[i] = True
        i += a <= b
        j += b <= a


# --- exact counts --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tally:
    """The rows of a child by pattern: `needed`, int64 (m,), is how often a row occurs in the child, `held`, int64 (m, parents),
    how often each parent has it, no more than it is needed; `n_rows`, int64 (m,), counts the distinct rows of the pattern.

    Where patterns were too many, `counts_copies` is False, so that only presence is told, and `left_out`, bool (parents,), are
    parents that count as empty.
    """

    needed: I64
    held: I64
    n_rows: I64
    left_out: Bools
    counts_copies: bool = True


def tally_of(pieces: Iterable[tuple[I64, I64]], n_parents: int, *, max_words: int = MAX_WORDS) -> Tally:
    """The tally of pieces of a child: (copies of each distinct row (n,), how often each parent has the row (parents, n)).

    Where patterns exceed `max_words` it gives up first copies and then the parents that hold least, so it may miss a cover,
    and never names a false one.
    """
    nobody = np.zeros(n_parents, np.bool_)
    total = Tally(np.zeros(0, np.int64), np.zeros((0, n_parents), np.int64), np.zeros(0, np.int64), nobody)
    for needed, found in pieces:
        for start in range(0, len(needed), _CHUNK_ROWS):
            chunk = slice(start, start + _CHUNK_ROWS)
            held = np.minimum(found[:, chunk], needed[chunk]).T
            part = Tally(needed[chunk], held, np.ones(len(held), np.int64), nobody)
            total = add_tallies(total, part, max_words=max_words)
    return total


def add_tallies(one: Tally, other: Tally, *, max_words: int = MAX_WORDS) -> Tally:
    """The tally of two parts of a child, of the same parents in the same order."""
    both = _joined(one, other)
    while both.held.size > max_words and not both.left_out.all():
        both = _coarser(both)
    return both


def _joined(one: Tally, other: Tally) -> Tally:
    both = np.concatenate([one.needed, other.needed]), np.concatenate([one.held, other.held])
    n_rows, left_out = np.concatenate([one.n_rows, other.n_rows]), one.left_out | other.left_out
    return _compact(Tally(*both, n_rows, left_out, one.counts_copies and other.counts_copies))


def _compact(tally: Tally) -> Tally:
    """The tally with one row a pattern, once what it no longer tells is taken out."""
    most = np.iinfo(np.int64).max if tally.counts_copies else 1
    needed, held = np.minimum(tally.needed, most), np.minimum(tally.held, np.where(tally.left_out, 0, most))
    codes = reduce(_refined, held.T, (needed, int(needed.max(initial=0)) + 1))[0]
    _, first, pattern = np.unique(codes, return_index=True, return_inverse=True)
    n_rows = np.zeros(len(first), np.int64)
    np.add.at(n_rows, pattern, tally.n_rows)
    return replace(tally, needed=needed[first], held=held[first], n_rows=n_rows)


def _refined(known: tuple[I64, int], column: I64) -> tuple[I64, int]:
    """Codes below a limit, one for each pattern, with one more column taken in; exact, unlike a hash."""
    codes, limit = known
    size = int(column.max(initial=0)) + 1
    if limit * size >= _MAX_CODE:
        distinct, codes = np.unique(codes, return_inverse=True)
        limit = len(distinct)
    return codes * size + column, limit * size


def _coarser(tally: Tally) -> Tally:
    if tally.counts_copies:
        return _compact(replace(tally, counts_copies=False))
    sums = np.where(tally.left_out, -1, tally.n_rows @ tally.held)
    used = np.flatnonzero(sums >= 0)
    left_out = tally.left_out.copy()
    left_out[used[np.argsort(sums[used], kind="stable")][: (len(used) + 1) // 2]] = True
    return _compact(replace(tally, left_out=left_out))


# --- choosing ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Choice:
    """Positions of the parents that cover a child together, by name; `multiset`: with all copies (UNION ALL).

    None of them can be left out of what is claimed.
    """

    parents: tuple[int, ...]
    multiset: bool


def choose(tally: Tally, candidates: Sequence[Candidate]) -> Choice | None:
    """A cover of a child by at least two of the candidates, all its copies if it can be; None if together they lack a row.

    A candidate that holds all rows of the child alone, were it without their copies, takes no part.
    """
    usable = np.flatnonzero(~(tally.held > 0).all(axis=0))
    order = sorted(usable.tolist(), key=lambda parent: candidates[parent].order)
    for multiset in (True, False) if tally.counts_copies else (False,):
        needed, held = tally.needed, tally.held[:, order]
        if not multiset:
            needed, held = np.minimum(needed, 1), np.minimum(held, 1)
        if len(needed) and (held.sum(axis=1) >= needed).all():
            picked = _irredundant(needed, held, _greedy(needed, held, tally.n_rows))
            return Choice(tuple(sorted((order[i] for i in picked), key=lambda p: candidates[p].name)), multiset)
    return None


def _greedy(needed: I64, held: I64, n_rows: I64) -> list[int]:
    """Columns of `held` that meet every need together, the largest gain first, and the first column of those."""
    left, picked = needed.copy(), list[int]()
    while left.any():
        gains = n_rows @ np.minimum(held, left[:, None])
        picked.append(int(gains.argmax()))
        left = np.maximum(left - held[:, picked[-1]], 0)
    return picked


def _irredundant(needed: I64, held: I64, picked: Sequence[int]) -> list[int]:
    """What is left of the columns when each that the others can do without has gone, the last in order before the first."""
    kept = list(picked)
    for one in sorted(picked, reverse=True):
        others = [column for column in kept if column != one]
        if (held[:, others].sum(axis=1) >= needed).all():
            kept = others
    return kept
