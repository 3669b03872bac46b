"""The cuts of `budget.fit_cuts` on all records of a pool, found in bounded memory by asking ranges of it again and again. Pure.

A cut is looked for as in a radix sort. Keys become 64-bit numbers in the same order; a range answers a `Probe` with how many of
its records fall into each of `N_BINS` bins of a bracket, by group (a stratum, or all records as one); the driver goes on in the
bin in which the budget ends, until a bracket holds so few records that they can be collected and sorted. Records whose keys are
all one number are told apart by their row ids in the same way. Three passes a target are the rule, three more where there are
floors. All sums are of integers: ranges may answer in any order, and twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add

import numpy as np

from infra.ids import F64, I64, U64
from tasks.select.budget import (
    EVERYTHING,
    NOTHING,
    Budget,
    Candidates,
    Cut,
    Cuts,
    Mask,
    TargetCuts,
    Totals,
    admitted,
    gathered,
    opened,
    totals_of,
)

N_BITS = 12
N_BINS = 1 << N_BITS
ROOM = 1 << 16
_TOP = np.uint64(1 << 63)
_ALL = np.uint64((1 << 64) - 1)


@dataclass(frozen=True)
class Brackets:
    """Of each group the bracket that its cut lies in, positions [low, low + 2^bits), each of shape (G,).

    A position is a key's rank; where `tied` says so, all keys left are of rank `rank`, and a position comes from the row id.
    Groups that are not `wanted` have no cut to look for.
    """

    low: U64
    bits: I64
    tied: Mask
    rank: U64
    wanted: Mask

    @staticmethod
    def whole(wanted: Mask) -> Brackets:
        zeros = np.zeros(len(wanted), np.uint64)
        return Brackets(zeros, np.full(len(wanted), 64, np.int64), np.zeros(len(wanted), np.bool_), zeros, wanted)

    def narrowed(self, g: int, step: int, bin_: int) -> Brackets:
        """Group g goes on in one bin of its bracket, 2^step positions wide."""
        low, bits = self.low.copy(), self.bits.copy()
        low[g] += np.uint64(bin_ << step)
        bits[g] = step
        return replace(self, low=low, bits=bits)

    def by_row_id(self, g: int) -> Brackets:
        """Group g goes on among the records whose keys are the one number that is left in its bracket."""
        low, bits, tied, rank = (one.copy() for one in (self.low, self.bits, self.tied, self.rank))
        low[g], bits[g], tied[g], rank[g] = 1, 63, True, self.low[g]
        return replace(self, low=low, bits=bits, tied=tied, rank=rank)


@dataclass(frozen=True)
class Probe:
    """What a range of records is asked about a target's candidates, those that no cut of `earlier` admits.

    Groups are strata, or with `as_one` there is but one. With `collect` the records within the brackets are wanted, else counts.
    """

    target: int
    earlier: Cuts | None
    as_one: bool
    brackets: Brackets
    n_bins: int
    collect: bool = False


@dataclass(frozen=True)
class Collected:
    """The records of a range that lie within the brackets of their groups, each array of shape (n,)."""

    row_ids: I64
    keys: F64
    n_tokens: I64
    groups: I64


@dataclass(frozen=True)
class Answer:
    """Records and tokens by group and bin, int64 of shape (G, n_bins + 1), where bin n_bins lies above the bracket; or, where
    those are wanted, the records within."""

    n: I64
    n_tokens: I64
    collected: Collected | None = None


def ranks(keys: F64) -> U64:
    """Unsigned numbers in the order of finite or infinite keys; 0.0 and -0.0 are equal."""
    bits = (keys + 0.0).view(np.uint64)
    return np.where(bits & _TOP != 0, ~bits, bits | _TOP)


def positions(keys: F64, row_ids: I64, groups: I64, brackets: Brackets) -> U64:
    """Where records stand in their groups' orders, the first one highest."""
    rank = ranks(keys)
    tied, level = brackets.tied[groups], brackets.rank[groups]
    by_row = _TOP - row_ids.astype(np.uint64)
    return np.where(tied, np.where(rank == level, by_row, np.where(rank > level, _ALL, np.uint64(0))), rank)


def answer(rows: Candidates, probe: Probe) -> Answer:
    """What a range of records says to a probe."""
    rows, groups, bins = _placed(rows, probe)
    shape = (len(probe.brackets.low), probe.n_bins + 1)
    if probe.collect:
        within = (bins >= 0) & (bins < probe.n_bins)
        found = Collected(rows.row_ids[within], rows.keys[within, probe.target], rows.n_tokens[within], groups[within])
        return Answer(np.zeros((0, 0), np.int64), np.zeros((0, 0), np.int64), found)
    known = bins >= 0
    flat = groups[known] * shape[1] + bins[known]
    n_tokens = np.zeros(shape[0] * shape[1], np.int64)
    np.add.at(n_tokens, flat, rows.n_tokens[known])
    return Answer(np.bincount(flat, minlength=len(n_tokens)).reshape(shape), n_tokens.reshape(shape))


def _placed(rows: Candidates, probe: Probe) -> tuple[Candidates, I64, I64]:
    """The records that a probe is about, their groups, and their bins."""
    rows = rows.with_text()
    if probe.earlier is not None:
        rows = rows.take(np.logical_not(admitted(rows, probe.earlier)[0]))
    rows = rows.take(probe.brackets.wanted[_groups(rows, probe)])
    groups = _groups(rows, probe)
    return rows, groups, _bins(positions(rows.keys[:, probe.target], rows.row_ids, groups, probe.brackets), groups, probe)


def _groups(rows: Candidates, probe: Probe) -> I64:
    return np.zeros(len(rows.row_ids), np.int64) if probe.as_one else rows.strata.astype(np.int64)


def _bins(at: U64, groups: I64, probe: Probe) -> I64:
    """The bin of each position in its group's bracket: -1 below it, n_bins above it."""
    low, bits = probe.brackets.low[groups], probe.brackets.bits[groups]
    step = np.maximum(bits - _bits_of(probe.n_bins), 0)
    offset = (at - low) >> step.astype(np.uint64)
    inside = (at >= low) & (offset < np.uint64(1) << (bits - step).astype(np.uint64))
    return np.where(inside, offset.astype(np.int64), np.where(at < low, -1, probe.n_bins))


def _bits_of(n_bins: int) -> int:
    return n_bins.bit_length() - 1


# --- the driver ----------------------------------------------------------------------------------------------------------------


Ask = Callable[[Probe], Sequence[Answer]]
Count = Callable[[Cuts], Sequence[Totals]]


def exact_cuts(totals: Totals, budget: Budget, ask: Ask, count: Count) -> Cuts:
    """The cuts that `fit_cuts` finds on all records, which `totals` counts.

    `ask` puts a probe to every range of the pool's candidates (`answer`), and `count` what cuts admit (`admitted_totals`).
    """
    ledger = opened(totals, totals, budget)
    found, taken = list[TargetCuts](), totals - totals
    for r in range(len(budget.shares)):
        earlier = gathered(found, exceeded=False) if found else None
        needs = ledger.needs(r)
        strata = _stratum_cuts(earlier, r, needs, (totals - taken).n_records, ledger.open_ended, ask)
        floored = gathered([*found, TargetCuts(NOTHING, strata, 0, 0)], exceeded=False)
        by_floor = _total(count(floored)) if needs.any() else taken
        left = ledger.left(r) - _units(by_floor - taken, ledger.in_tokens)
        general = _general_cut(floored, r, totals - by_floor, left, ask, in_tokens=ledger.in_tokens)
        now = _total(count(gathered([*found, TargetCuts(general, strata, 0, 0)], exceeded=False)))
        step = now - taken
        found.append(TargetCuts(general, strata, int(step.n_records.sum()), int(step.n_tokens.sum())))
        ledger, taken = ledger.after(found[-1], step.n_records), now
    return gathered(found, exceeded=ledger.used > ledger.limit)


def admitted_totals(rows: Candidates, cuts: Cuts, n_strata: int) -> Totals:
    """What cuts admit of a range of records, by stratum."""
    return totals_of(rows.take(admitted(rows, cuts)[0]), n_strata)


def _stratum_cuts(earlier: Cuts | None, r: int, needs: I64, there: I64, open_ended: Mask, ask: Ask) -> tuple[Cut, ...]:
    """Each stratum's own cut: behind the best that it needs of those that are there."""
    wanted = np.logical_and(needs > 0, needs < there)
    cuts = _search(Probe(r, earlier, False, Brackets.whole(wanted), _n_bins(len(needs))), needs, ask, in_tokens=False)
    whole = open_ended | ((needs > 0) & (needs >= there))
    return tuple(EVERYTHING if all_of_it else cut or NOTHING for all_of_it, (cut, _) in zip(whole, cuts, strict=True))


def _general_cut(earlier: Cuts, r: int, there: Totals, left: int, ask: Ask, *, in_tokens: bool) -> Cut:
    """The cut that uses what is left of the budget on the records that neither earlier targets nor floors admit."""
    if left >= _units(there, in_tokens):
        return EVERYTHING
    if left < 0 or (left == 0 and not in_tokens):
        return NOTHING
    probe = Probe(r, earlier, True, Brackets.whole(np.ones(1, np.bool_)), N_BINS)
    cut, k = _search(probe, np.array([left]), ask, in_tokens=in_tokens)[0]
    if cut is None and k > 0:  # the first record beyond the budget is known; now the last one within it is looked for
        cut, _ = _search(probe, np.array([k]), ask, in_tokens=False)[0]
    return cut or NOTHING


def _search(probe: Probe, limits: I64, ask: Ask, *, in_tokens: bool) -> list[tuple[Cut | None, int]]:
    """Of each group the cut behind the longest run of first records whose units stay within its limit, and the run's length.

    Groups whose records all fit are not to be searched. The cut is None where the run ends before the records looked at.
    """
    room = max(1, ROOM // len(limits))
    found = _Found(probe.brackets, np.zeros(len(limits), np.int64), np.zeros(len(limits), np.int64))
    wide = probe.brackets.wanted.copy()
    if not wide.any():
        return [(None, 0)] * len(limits)
    while wide.any():
        n, n_tokens = _counted(ask(replace(probe, brackets=found.brackets)))
        for g in np.flatnonzero(wide):
            found, n_within = _narrowed(found, int(g), n[g], n_tokens[g] if in_tokens else n[g], int(limits[g]), in_tokens)
            wide[g] = n_within > room
    return _runs(ask(replace(probe, brackets=found.brackets, collect=True)), found, limits, in_tokens)


@dataclass(frozen=True)
class _Found:
    """Brackets, and of each group the records and the units above its bracket."""

    brackets: Brackets
    n_above: I64
    units_above: I64


def _narrowed(found: _Found, g: int, n: I64, units: I64, limit: int, in_tokens: bool) -> tuple[_Found, int]:
    """Go on in the bin in which group g's limit lies; also, how many records that holds."""
    upto = np.cumsum(units[::-1])
    place = int(np.searchsorted(upto, limit, side="right" if in_tokens else "left"))
    bin_ = len(units) - 1 - place
    n_above, units_above = found.n_above.copy(), found.units_above.copy()
    n_above[g], units_above[g] = n[bin_ + 1 :].sum(), upto[place - 1]
    step = max(int(found.brackets.bits[g]) - _bits_of(len(units) - 1), 0)
    brackets = found.brackets.narrowed(g, step, bin_)
    if step == 0 and n[bin_] > 1 and not brackets.tied[g]:
        brackets = brackets.by_row_id(g)
    return _Found(brackets, n_above, units_above), int(n[bin_])


def _runs(answers: Sequence[Answer], found: _Found, limits: I64, in_tokens: bool) -> list[tuple[Cut | None, int]]:
    """Where each group's run ends among the records collected."""
    row_ids, keys, n_tokens, groups = (
        np.concatenate([getattr(one.collected, name) for one in answers]) for name in ("row_ids", "keys", "n_tokens", "groups")
    )
    order = np.lexsort((row_ids, -keys, groups))
    starts = np.searchsorted(groups[order], np.arange(len(limits) + 1))
    runs = list[tuple[Cut | None, int]]()
    for g, limit in enumerate(limits.tolist()):
        mine = order[starts[g] : starts[g + 1]]
        units = n_tokens[mine] if in_tokens else np.ones(len(mine), np.int64)
        k = int(np.searchsorted(np.cumsum(units), limit - found.units_above[g], side="right"))
        cut = Cut(float(keys[mine[k - 1]]), int(row_ids[mine[k - 1]])) if k else None
        runs.append((cut, int(found.n_above[g]) + k))
    return runs


def _n_bins(n_groups: int) -> int:
    """Fewer bins where there are many groups, so that an answer stays within some megabytes."""
    return 1 << max(4, min(N_BITS, 18 - n_groups.bit_length()))


def _counted(answers: Sequence[Answer]) -> tuple[I64, I64]:
    return np.sum([one.n for one in answers], axis=0), np.sum([one.n_tokens for one in answers], axis=0)


def _total(parts: Sequence[Totals]) -> Totals:
    return reduce(add, parts)


def _units(totals: Totals, in_tokens: bool) -> int:
    return int((totals.n_tokens if in_tokens else totals.n_records).sum())
