"""Who is kept: a budget of rows or tokens, shared between targets, with floors for strata; decided by cuts. Pure.

The targets take turns. Target r admits, out of what earlier ones left, the largest keys of its own until the budget's share of
targets 1 to r is used up: what a target leaves over goes to the next. Where strata have floors, a target first admits the best of
each stratum up to its part of the floor, and then the best of all others with what the budget has left. So the outcome is a cut
for each target and stratum, fitted on the keyed sample, and whether a record is kept is a function of its own row and of the
cuts. Order and partitioning change nothing: keys that are equal stand in the order of row ids.

A budget of rows admits its share of the sample rounded up; one of tokens admits the longest run of records, in the order of
falling keys, whose tokens stay within it, be that none at all. What it leaves unused of the rows that the cuts are fitted on is
less than the tokens of the first record left out, by the last target's keys. Shorter records behind that one are not taken in its
place: whether one fits would hang on the lengths of all before it, so that one erased record could turn any number of decisions,
and short records would be favoured. Only floors exceed a budget, and `Cuts.exceeded` says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from infra.ids import F64, I64

Mask = npt.NDArray[np.bool_]
I32 = npt.NDArray[np.int32]

# --- one cut -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cut:
    """Where selection ends: a record is kept when its key is above `key`, or equal to it with a row id up to `row_id`."""

    key: float
    row_id: int


EVERYTHING = Cut(-math.inf, (1 << 63) - 1)
NOTHING = Cut(math.inf, -1)


def n_to_keep(n: int, keep_fraction: float) -> int:
    """ceil(keep_fraction · n), a product that floating point puts a hair above an integer counting as that integer."""
    return min(n, math.ceil(round(keep_fraction * n, 9)))


def nth(keys: F64, row_ids: I64, k: int) -> Cut:
    """The cut that keeps exactly the first k (k >= 1) in the order of falling keys, equal ones by rising row id."""
    order = np.lexsort((row_ids, -keys))
    last = order[k - 1]
    return Cut(float(keys[last]), int(row_ids[last]))


# --- what is asked for ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Candidates:
    """Records that no other step dropped. A record with a NaN among its keys has no text: it is no candidate.

    `keys` are noisy, of shape (n, R), one a target; `strata` are numbers from 0 on, all 0 where there are no floors.
    """

    row_ids: I64
    keys: F64
    n_tokens: I64
    strata: I32

    @staticmethod
    def of(row_ids: I64, keys: F64, n_tokens: I64, strata: I32 | None = None) -> Candidates:
        """Candidates with keys of shape (n,) or (n, R), of one stratum unless given."""
        columns = keys[:, np.newaxis] if keys.ndim == 1 else keys
        return Candidates(row_ids, columns, n_tokens, np.zeros(len(row_ids), np.int32) if strata is None else strata)

    def take(self, which: Mask | I64) -> Candidates:
        return Candidates(self.row_ids[which], self.keys[which], self.n_tokens[which], self.strata[which])

    def with_text(self) -> Candidates:
        return self.take(has_text(self))


def has_text(rows: Candidates) -> Mask:
    return np.logical_not(np.isnan(rows.keys).any(axis=1))


@dataclass(frozen=True)
class Floors:
    """The least of each stratum that is kept: a share of its records, a number of them, or the larger of both."""

    min_fraction: float = 0.0
    min_rows: int = 0


@dataclass(frozen=True)
class Budget:
    """How much is kept, by one of three measures, and how it is shared between targets (shares need not add up to 1)."""

    fraction: float | None = None
    n_rows: int | None = None
    n_tokens: int | None = None
    shares: tuple[float, ...] = (1.0,)
    floors: Floors = Floors()

    def __post_init__(self) -> None:
        named = [value for value in (self.fraction, self.n_rows, self.n_tokens) if value is not None]
        if len(named) != 1 or named[0] < 0:
            raise ValueError(f"a budget is one of fraction, n_rows and n_tokens, and not negative: {self}")
        if not self.shares or min(self.shares) < 0 or not 0 < max(self.shares) < math.inf:
            raise ValueError(f"the shares of targets are numbers from 0 on, not all 0: {self.shares}")

    @property
    def in_tokens(self) -> bool:
        return self.n_tokens is not None


@dataclass(frozen=True)
class Totals:
    """Candidates in the whole pool: records with text, and their tokens, each of shape (n_strata,)."""

    n_records: I64
    n_tokens: I64

    def __add__(self, other: Totals) -> Totals:
        return Totals(self.n_records + other.n_records, self.n_tokens + other.n_tokens)

    def __sub__(self, other: Totals) -> Totals:
        return Totals(self.n_records - other.n_records, self.n_tokens - other.n_tokens)


def totals_of(rows: Candidates, n_strata: int = 1) -> Totals:
    """Counts of candidates by stratum; those of parts add up."""
    rows = rows.with_text()
    n_tokens = np.zeros(n_strata, np.int64)
    np.add.at(n_tokens, rows.strata, rows.n_tokens)
    return Totals(np.bincount(rows.strata, minlength=n_strata).astype(np.int64), n_tokens)


def expected_totals(sample: Candidates, level: int, n_strata: int = 1) -> Totals:
    """What a sample, halved `level` times, says of the pool: with these, rows outside the sample have no part in the cuts."""
    found = totals_of(sample, n_strata)
    return Totals(found.n_records << level, found.n_tokens << level)


# --- cuts ----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cuts:
    """What decides each record alone: for each target and stratum a cut, `keys` and `row_ids` of shape (R, n_strata).

    `general` are the cuts of strata whose floor does not matter. `n_admitted` and `n_tokens` of shape (R,) are what each target
    admits of the rows that the cuts were fitted on. `exceeded`: the floors alone are more than the budget.
    """

    keys: F64
    row_ids: I64
    general: tuple[Cut, ...]
    n_admitted: tuple[int, ...]
    n_tokens: tuple[int, ...]
    exceeded: bool

    @property
    def thresholds(self) -> tuple[float | None, ...]:
        """The least general key of each target; None where everything is kept."""
        return tuple(None if cut == EVERYTHING else cut.key for cut in self.general)


@dataclass(frozen=True)
class TargetCuts:
    """The cuts of one target: the general one, and each stratum's own (n_strata,); what both admit."""

    general: Cut
    strata: tuple[Cut, ...]
    n_admitted: int
    n_tokens: int


def admitted(rows: Candidates, cuts: Cuts) -> tuple[Mask, I32]:
    """Which records are kept, and the number of the target that admits each, -1 for none."""
    target = np.full(len(rows.row_ids), -1, np.int32)
    with_text = has_text(rows)
    for r in range(len(cuts.general)):
        keys, key, row_id = rows.keys[:, r], cuts.keys[r, rows.strata], cuts.row_ids[r, rows.strata]
        within = (keys > key) | ((keys == key) & (rows.row_ids <= row_id))
        target[within & with_text & (target < 0)] = r
    return target >= 0, target


def gathered(targets: Sequence[TargetCuts], *, exceeded: bool) -> Cuts:
    """The cuts of targets as those of a selection: a record is kept by the wider of the general cut and its stratum's."""
    wide = [[wider(one.general, own) for own in one.strata] for one in targets]
    return Cuts(
        np.array([[cut.key for cut in cuts] for cuts in wide], np.float64),
        np.array([[cut.row_id for cut in cuts] for cuts in wide], np.int64),
        tuple(one.general for one in targets),
        tuple(one.n_admitted for one in targets),
        tuple(one.n_tokens for one in targets),
        exceeded,
    )


def wider(one: Cut, other: Cut) -> Cut:
    """Of two cuts the one that keeps more."""
    return min(one, other, key=lambda cut: (cut.key, -cut.row_id))


# --- fitting -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ledger:
    """Budget and floors in units of the rows at hand, the part of them that targets up to each one have, and what is used.

    `floors` and `kept` are numbers of records, int64 of shape (n_strata,); `open_ended` are strata of which no row is at hand,
    though they have a floor.
    """

    limit: int
    in_tokens: bool
    floors: I64
    open_ended: Mask
    parts: tuple[Fraction, ...]
    used: int
    kept: I64

    def left(self, r: int) -> int:
        """The units that target r may use: all that targets up to r may, less what is used."""
        upto = self.parts[r] * self.limit
        return (math.floor(upto) if self.in_tokens else math.ceil(upto)) - self.used

    def needs(self, r: int) -> I64:
        """The records of each stratum that target r has to admit for the floors, int64 of shape (n_strata,)."""
        upto = [math.ceil(self.parts[r] * floor) for floor in self.floors.tolist()]
        return np.maximum(np.array(upto, np.int64) - self.kept, 0)

    def after(self, cuts: TargetCuts, kept: I64) -> Ledger:
        """The ledger when a target has admitted `kept` records of each stratum."""
        return replace(self, used=self.used + (cuts.n_tokens if self.in_tokens else cuts.n_admitted), kept=self.kept + kept)


def opened(counted: Totals, totals: Totals, budget: Budget) -> Ledger:
    """The ledger of a budget for rows that hold `counted` of the pool's `totals`."""
    n, n_tokens = int(counted.n_records.sum()), int(counted.n_tokens.sum())
    if budget.fraction is not None:
        limit = n_to_keep(n, budget.fraction)
    elif budget.n_rows is not None:
        limit = min(n, -(-budget.n_rows * n // max(1, int(totals.n_records.sum()))))
    else:
        limit = min(n_tokens, (budget.n_tokens or 0) * n_tokens // max(1, int(totals.n_tokens.sum())))
    floors = least_rows(counted, totals, budget.floors)
    has_floor = budget.floors.min_rows > 0 or budget.floors.min_fraction > 0
    open_ended = np.logical_and(has_floor, counted.n_records == 0)
    return Ledger(limit, budget.in_tokens, floors, open_ended, parts_up_to(budget.shares), 0, np.zeros_like(floors))


def least_rows(counted: Totals, totals: Totals, floors: Floors) -> I64:
    """The floor of each stratum in records of `counted`, rounded up; never more than there are. int64 of shape (n_strata,)."""
    found = np.zeros(len(counted.n_records), np.int64)
    for s, (n, whole) in enumerate(zip(counted.n_records.tolist(), totals.n_records.tolist(), strict=True)):
        share = n_to_keep(n, floors.min_fraction)
        found[s] = min(n, max(share, -(-floors.min_rows * n // max(1, whole))))
    return found


def parts_up_to(shares: Sequence[float]) -> tuple[Fraction, ...]:
    """The part of the whole that the targets up to each one have; the last is 1."""
    exact = [Fraction(share / max(shares)).limit_denominator(10**9) for share in shares]
    return tuple(sum(exact[: r + 1], Fraction(0)) / sum(exact) for r in range(len(exact)))


def fit_cuts(sample: Candidates, totals: Totals, budget: Budget) -> Cuts:
    """The cuts that meet a budget on a sample of the pool; `totals` of the pool turn numbers of rows and tokens into its share.

    A floor of a stratum that the sample does not hold keeps all of that stratum.
    """
    rows = sample.with_text()
    n_strata = len(totals.n_records)
    ledger = opened(totals_of(rows, n_strata), totals, budget)
    found = list[TargetCuts]()
    for r in range(len(budget.shares)):
        cuts, taken = _fit_target(rows, r, ledger)
        ledger = ledger.after(cuts, np.bincount(rows.strata[taken], minlength=n_strata))
        rows = rows.take(np.logical_not(taken))
        found.append(cuts)
    return gathered(found, exceeded=ledger.used > ledger.limit)


def _fit_target(rows: Candidates, r: int, ledger: Ledger) -> tuple[TargetCuts, Mask]:
    """The cuts of target r over the records that others left, and which of those it admits."""
    keys = rows.keys[:, r]
    order = np.lexsort((rows.row_ids, -keys))
    units = rows.n_tokens if ledger.in_tokens else np.ones_like(rows.n_tokens)
    needs = ledger.needs(r)
    by_floor = _rank_within(rows.strata[order]) < needs[rows.strata[order]]
    rest = order[~by_floor]
    left = ledger.left(r) - int(units[order[by_floor]].sum())
    n_more = int(np.searchsorted(np.cumsum(units[rest]), left, side="right"))
    taken = np.zeros(len(order), np.bool_)
    taken[order[by_floor]] = True
    taken[rest[:n_more]] = True
    last = int(rest[n_more - 1]) if n_more else -1
    general = EVERYTHING if n_more == len(rest) and left >= 0 else _cut_after(keys, rows.row_ids, last)
    strata = _floor_cuts(keys, rows, order[by_floor], needs, ledger)
    return TargetCuts(general, strata, int(taken.sum()), int(rows.n_tokens[taken].sum())), taken


def _floor_cuts(keys: F64, rows: Candidates, chosen: I64, needs: I64, ledger: Ledger) -> tuple[Cut, ...]:
    """Each stratum's own cut, from the records chosen for the floors in the order of falling keys."""
    last = np.full(len(needs), -1, np.int64)
    last[rows.strata[chosen]] = chosen
    there = np.bincount(rows.strata, minlength=len(needs))
    whole = ledger.open_ended | ((needs > 0) & (needs >= there))
    return tuple(EVERYTHING if whole[s] else _cut_after(keys, rows.row_ids, int(last[s])) for s in range(len(needs)))


def _cut_after(keys: F64, row_ids: I64, place: int) -> Cut:
    """The cut behind the record at a place; that which keeps nothing where the place is -1."""
    return NOTHING if place < 0 else Cut(float(keys[place]), int(row_ids[place]))


def _rank_within(groups: npt.NDArray[np.integer]) -> I64:
    """The place of each element among those of its group, from 0 on."""
    order = np.argsort(groups, kind="stable")
    sizes = np.bincount(groups) if len(groups) else np.zeros(0, np.int64)
    starts = np.repeat(np.cumsum(sizes) - sizes, sizes)
    ranks = np.empty(len(groups), np.int64)
    ranks[order] = np.arange(len(groups)) - starts
    return ranks
