"""How the pairs that the log left open are settled: by what an earlier scan counted, by sketches, by inference, by counting rows.

Sketches refute; only counting says that a table is contained. Pairs that are nearly containments are counted as well, or, where
a table is large, estimated from the sketches.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from infra.cluster import Workers
from tasks.dedup.edges import EXACT, KNOWN, SKETCH, TRANSITIVE
from tasks.dedup.evidence import evidence_bits
from tasks.dedup.exact import Counted, Run, count
from tasks.dedup.frames import Reader, RunKey, Want
from tasks.dedup.known import Change, still
from tasks.dedup.profiles import CELLS, ROWS, Columns, Profiles
from tasks.dedup.runs import search, searches, totals
from tasks.dedup.scan import Candidates, Facts, Inference, Pair, Settled
from tasks.dedup.sketches import WHOLE, compare_pairs, fraction_estimate, pack

COUNTED_ROWS = 1 << 22  # pairs of no more rows together are counted even where they can only be nearly contained
_DEVIATIONS = 3.0  # a sketch settles that a pair is no near containment only from so many standard errors on
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Before:
    """What an earlier scan counted, by (child, parent), and how tables changed since; a table that is not among `changes` is new
    or changed beyond telling. `recast` names tables whose columns are not what they were, `gone` those that are no more; `bits`
    is the evidence that was measured, and `empty` are the measured tables without any value.
    """

    counted: Mapping[tuple[str, str], Settled] = field(default_factory=dict)
    changes: Mapping[str, Change] = field(default_factory=dict)
    recast: frozenset[str] = frozenset()
    gone: frozenset[str] = frozenset()
    bits: Mapping[str, float] = field(default_factory=dict)
    empty: frozenset[str] = frozenset()

    def contained(self) -> list[tuple[str, str]]:
        """(child, parent) of the containments."""
        return [pair for pair, one in self.counted.items() if one.counted.set and not one.is_refuted]

    def is_stable(self, table: Facts) -> bool:
        """Whether a table's rows and columns are those that were compared."""
        return table.name in self.changes and self.changes[table.name].is_none and table.name not in self.recast

    def still(self, child: Facts, parent: Facts, approximate: float) -> Settled | None:
        """What was counted or estimated of a pair, if it holds for the tables as they are."""
        known = self.counted.get((child.name, parent.name))
        if known is None or child.name in self.recast or child.name not in self.changes or parent.name not in self.changes:
            return None
        changes = self.changes[child.name], self.changes[parent.name]
        if known.error:
            return known if all(change.is_none for change in changes) else None
        counted = still(known.counted, *changes, approximate=approximate)
        return None if counted is None else replace(known, counted=counted)


@dataclass
class Ledger:
    """Settled pairs: `found` are containments and near ones, `refuted` were counted in vain and will not be again; `steps` counts
    the pairs that might have been containments.
    """

    found: list[Settled] = field(default_factory=list)
    refuted: list[Settled] = field(default_factory=list)
    steps: dict[str, int] = field(default_factory=lambda: {KNOWN: 0, SKETCH: 0, TRANSITIVE: 0, EXACT: 0})

    def record(self, one: Settled, *, near: bool) -> None:
        (self.found if one.counted.set or near else self.refuted).append(one)


def settle(
    facts: Sequence[Facts],
    candidates: Candidates,
    before: Before,
    reader: Reader,
    *,
    approximate: float,
    values: Mapping[int, Columns],
) -> Ledger:
    """Every candidate pair settled. `values` are columns to be sketched without their names while files are open."""
    ledger, inference = Ledger(), Inference()
    _carry(facts, candidates, before, ledger, inference)
    pairs = _known(facts, candidates.pairs, before, ledger, inference, approximate)
    n_known = len(candidates.pairs) - len(pairs)
    overlaps = _known(facts, candidates.overlaps, before, ledger, inference, approximate)
    ledger.steps[KNOWN] = n_known + candidates.n_carried
    reader.profile(wants(facts, candidates, pairs, values, before))
    doubtful, near = _sketched(facts, pairs, overlaps, reader.profiles, ledger, approximate)
    _count(facts, doubtful, near, reader, ledger, inference, approximate)
    return ledger


def is_near(counted: Counted, approximate: float) -> bool:
    """Whether a pair that is no containment is worth showing."""
    return not counted.set and counted.complete and counted.fraction >= approximate - _ROUNDING and counted.fraction > 0


def _carry(facts: Sequence[Facts], candidates: Candidates, before: Before, ledger: Ledger, inference: Inference) -> None:
    """What was counted of pairs of which neither table changed. Of equal tables the representative takes part."""
    number = {facts[table].name: table for table in candidates.groups if table in candidates.stable}
    equal = {facts[t].name: one for one, equals in candidates.groups.items() for t in equals}
    for (child, parent), known in before.counted.items():
        a, b = number.get(child), number.get(parent)
        if a is not None and b is not None and equal[child] != equal[parent]:
            one = replace(known, child=a, parent=b)
            (ledger.refuted if known.is_refuted else ledger.found).append(one)
            if not known.error:
                inference.record(a, b, known.counted)


def _known(
    facts: Sequence[Facts], pairs: Iterable[Pair], before: Before, ledger: Ledger, inference: Inference, approximate: float
) -> list[Pair]:
    """The pairs of which nothing is known."""
    unknown = list[Pair]()
    for child, parent in pairs:
        known = before.still(facts[child], facts[parent], approximate)
        if known is None:
            unknown.append((child, parent))
        else:
            near = bool(known.error) or is_near(known.counted, approximate)
            ledger.record(replace(known, child=child, parent=parent), near=near)
            if not known.error:
                inference.record(child, parent, known.counted)
    return unknown


def wants(
    facts: Sequence[Facts], candidates: Candidates, searched: Iterable[Pair], values: Mapping[int, Columns], before: Before
) -> dict[int, Want]:
    """What must be known of which tables: rows of both sides of every pair over the child's columns, and the cells of tables
    that may turn out to be contained, for the evidence. The rows of `searched` pairs will be counted.
    """
    rows, runs = defaultdict[int, set[Columns]](set), defaultdict[int, set[Columns]](set)
    for some, wanted in (((*candidates.pairs, *candidates.overlaps, *candidates.asked), rows), (searched, runs)):
        for child, parent in some:
            wanted[child].add(facts[child].columns)
            wanted[parent].add(facts[child].columns)
    cells = {child for child, _ in (*candidates.pairs, *candidates.overlaps)}
    cells |= {table for table, equals in candidates.groups.items() if len(equals) > 1 and facts[table].kinds}
    cells = {table for table in cells if table not in candidates.stable or facts[table].name not in before.bits}
    return {
        table: Want(
            *(frozenset(rows[table]), facts[table].columns if table in cells else ()),
            *(values.get(table, ()), frozenset(runs[table])),
        )
        for table in sorted(rows.keys() | cells | values.keys())
    }


# --- sketches ------------------------------------------------------------------------------------------------------------------


def _sketched(
    facts: Sequence[Facts],
    pairs: Sequence[Pair],
    overlaps: Sequence[Pair],
    profiles: Profiles,
    ledger: Ledger,
    approximate: float,
) -> tuple[list[Pair], list[Pair]]:
    """(pairs that may be containments, pairs to be counted although they are none). Estimates of large pairs are recorded."""
    asked = [*pairs, *overlaps]
    n_compared, n_missing, whole = _compared(facts, asked, profiles)
    fractions, errors = fraction_estimate(n_compared, n_missing)
    least = np.where(whole, fractions, fractions + _DEVIATIONS * errors)
    doubtful, near = list[Pair](), list[Pair]()
    for i, (child, parent) in enumerate(asked):
        possible = i < len(pairs) and not n_missing[i]
        if possible:
            doubtful.append((child, parent))
            continue
        ledger.steps[SKETCH] += i < len(pairs)
        if approximate < 1.0 and least[i] >= approximate - _ROUNDING and fractions[i] > 0:
            if facts[child].snapshot.n_rows + facts[parent].snapshot.n_rows <= COUNTED_ROWS:
                near.append((child, parent))
            elif fractions[i] >= approximate:
                ledger.record(_estimated(facts, child, parent, float(fractions[i]), float(errors[i])), near=True)
    return doubtful, near


def _compared(facts: Sequence[Facts], pairs: Sequence[Pair], profiles: Profiles) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each pair: hashes compared, hashes missing, and whether both sketches hold every row."""
    numbers = dict[RunKey, int]()
    for child, parent in pairs:
        for table in (child, parent):
            numbers.setdefault((table, facts[child].columns), len(numbers))
    sketches = [profiles.sketch(facts[table], ROWS, columns) for table, columns in numbers]
    packed = pack(sketches)
    asked = np.array(
        [(numbers[child, facts[child].columns], numbers[parent, facts[child].columns]) for child, parent in pairs], np.int64
    ).reshape(-1, 2)
    whole = np.array([sketch.bound == WHOLE for sketch in sketches], np.bool_)
    return *compare_pairs(packed, packed, asked), whole[asked[:, 0]] & whole[asked[:, 1]]


def _estimated(facts: Sequence[Facts], child: int, parent: int, fraction: float, error: float) -> Settled:
    """A near containment as the sketches have it: its counts are the estimate's."""
    n_rows = facts[child].snapshot.n_rows
    n_missing = max(1, round((1.0 - fraction) * n_rows))
    return Settled(child, parent, Counted(n_rows, n_rows, n_missing, n_missing, complete=False), SKETCH, error)


# --- counting ------------------------------------------------------------------------------------------------------------------


def _count(
    facts: Sequence[Facts],
    doubtful: Sequence[Pair],
    near: Sequence[Pair],
    reader: Reader,
    ledger: Ledger,
    inference: Inference,
    approximate: float,
) -> None:
    """Count the open pairs, parents by ascending size; what is in memory at once, which then speaks for others."""
    limit = 1.0 - approximate + _ROUNDING if approximate < 1.0 else 0.0
    counting, later = {*doubtful}, list[Pair]()
    reader.fetch((table, facts[pair[0]].columns) for pair in (*doubtful, *near) for table in pair)

    def record(pair: Pair, counted: Counted, step: str) -> None:
        ledger.steps[step] += pair in counting
        inference.record(*pair, counted)
        ledger.record(Settled(*pair, counted, step), near=is_near(counted, approximate))

    for pair in _ascending(facts, (*doubtful, *near)):
        runs = [reader.runs[table, facts[pair[0]].columns] for table in pair]
        if (implied := _implied(inference, pair, facts, approximate)) is not None:
            record(pair, implied, TRANSITIVE)
        elif all(len(some) == 1 and isinstance(some[0], Run) for some in runs):
            record(pair, _counted_here(runs, limit), EXACT)
        else:
            later.append(pair)
    open_pairs = list[Pair]()
    for pair in later:
        if (implied := _implied(inference, pair, facts, approximate)) is not None:
            record(pair, implied, TRANSITIVE)
        else:
            open_pairs.append(pair)
    for pair, counted in zip(open_pairs, _counted_by(reader.workers, facts, open_pairs, reader, limit), strict=True):
        record(pair, counted, EXACT)


def _counted_here(runs: Sequence[Sequence[object]], limit: float) -> Counted:
    child, parent = (some[0] for some in runs)
    assert isinstance(child, Run) and isinstance(parent, Run)
    return count([child], [parent], n_runs=1, limit_fraction=limit)[0]


def _implied(inference: Inference, pair: Pair, facts: Sequence[Facts], approximate: float) -> Counted | None:
    """What follows from earlier counts. That a pair is no containment is not enough where near ones are wanted."""
    n_rows = facts[pair[0]].snapshot.n_rows
    if inference.holds(*pair):
        return Counted(n_rows, 0, 0, 0)
    if approximate >= 1.0 and inference.refuted(*pair):
        return Counted(n_rows, n_rows, 1, 1, complete=False)
    return None


def _ascending(facts: Sequence[Facts], pairs: Iterable[Pair]) -> Iterator[Pair]:
    """Small parents first, and large children first, which then speak for the small ones in them."""

    def size(table: int) -> tuple[int, int, str]:
        return facts[table].snapshot.n_rows, len(facts[table].kinds), facts[table].name

    children = defaultdict[int, list[int]](list)
    for child, parent in pairs:
        children[parent].append(child)
    for parent in sorted(children, key=size):
        yield from ((child, parent) for child in sorted(children[parent], key=size, reverse=True))


def _counted_by(workers: Workers, facts: Sequence[Facts], pairs: Sequence[Pair], reader: Reader, limit: float) -> list[Counted]:
    asked = [((child, facts[child].columns), (parent, facts[child].columns)) for child, parent in pairs]
    jobs = searches(asked, reader.runs, memory_bytes=reader.memory_bytes, limit_fraction=limit)
    return totals(jobs, workers.map(search, jobs), len(pairs))


# --- evidence ------------------------------------------------------------------------------------------------------------------


def evidence(facts: Facts, profiles: Profiles) -> tuple[float, bool]:
    """(bits of evidence that a table's rows carry, whether it holds no value at all)."""
    cells = {name: profiles.of(facts, CELLS, (name,)) for name in facts.columns}
    sketches = {name: profiles.sketch(facts, CELLS, (name,)) for name in facts.columns}
    empty = all(one.n_nulls == one.n_rows for some in cells.values() for one in some)
    return evidence_bits(sketches, with_nulls=[name for name, some in cells.items() if any(one.n_nulls for one in some)]), empty
