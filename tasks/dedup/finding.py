"""The search for a recipe: which rows of the parents are the child's.

The child is read once and the parents once or twice, its columns only: the hashes of all rows are counted, and with them the
rows that meet every condition that the child's rows meet. What the parents lack is written to `residual/<table>`; the rest is
the whole of the parents, a conjunction of up to three terms, or the members listed in `members/<table>`: whichever fits first,
by row count and fingerprint.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import pairwise

import numpy as np
import pyarrow as pa

from infra.cluster import Workers
from infra.contracts import DataFile, Lineage, Snapshot
from infra.files import Folder, Part, write_part
from infra.ids import I64, Digest
from infra.lake import Lake
from infra.layout import Layout
from infra.lineage import code_digest, stage_key
from infra.settings import SubjectSettings
from tasks.dedup import passes
from tasks.dedup.exact import N_RANGES, RUN_ROWS, Run, merge_runs
from tasks.dedup.members import MEMBER_BYTES, SCHEMA, Found, allot, as_batch, some_of, with_counts
from tasks.dedup.passes import NOBODY, UNKNOWN_SOURCE, Extents, Files, Piece, Profile
from tasks.dedup.recipes import MEMBERS, MEMBERSHIP, PREDICATE, PROJECTION, RESIDUAL, ROW_ID, NoRecipe, Recipe, Term, schema_of
from tasks.dedup.runs import Spilled, load, spill
from tasks.dedup.terms import best_terms, common_type, conjunction, terms_of

STAGE = "recipe"
HELD_BYTES = 512 << 20  # of members held at once; more are passes of their own
_SENT_BYTES = 1 << 20
_MERGING = 2.5  # merging runs takes their memory and that of what they merge to


@dataclass(frozen=True)
class Bench:
    """What a search works with: the lake, workers, a folder in the lake's scratch, and how many bytes of members are held."""

    lake: Lake
    workers: Workers
    scratch: str
    held_bytes: int = HELD_BYTES

    @property
    def key(self) -> bytes:
        return self.lake.keys.row


@dataclass(frozen=True)
class _Seen:
    """What the parents hold: all their rows, those that meet every term, and the number that meet each. Of the child's members
    those that they hold (`kept`, by ranges), those that they lack, and whether they hold some of these, only not often enough.
    """

    all: Digest
    met: Digest
    n_met: I64
    kept: tuple[Run | Spilled, ...]
    missing: Run
    is_short: bool


def search(
    bench: Bench, wanted: Recipe, own: Sequence[Part], sources: Sequence[Files], allowed: frozenset[str], *, some: bool = True
) -> Recipe:
    """The recipe that makes the rows of the files `own` from those of the parents (`sources`). `wanted` says what must come out;
    `allowed` are the columns, in lower case, that terms may be on.

    Writes `residual/<table>` and `members/<table>` where they are needed. Raises `NoRecipe` where the files do not hold the rows
    that `wanted` promises, and, with `some`, where the parents have none of them.
    """
    files = Files(tuple(own), tuple((name, name) for name, _ in wanted.columns))
    found = _profile(bench, wanted, files)
    wanted = replace(wanted, source=wanted.source or _source(found.sources))
    if _are_equal(wanted, sources):
        return replace(wanted, kind=PROJECTION)
    terms = _candidates(wanted, found.extents, sources, allowed)
    seen = _see(bench, sources, found.runs, terms)
    if not seen.missing.n_distinct:
        return _fitting(bench, wanted, sources, terms, seen, Digest.parse(wanted.digest))
    if some and seen.missing.n_rows == wanted.n_rows:
        raise NoRecipe(f"{wanted.table}: {_names(wanted)} has none of its rows. Keep it, or name other parents")
    residual, extents = _set_apart(bench, wanted, files, seen.missing)
    wanted, target = replace(wanted, residual=residual), Digest.parse(wanted.digest) - Digest.parse(residual.digest)
    if seen.is_short or not target.n_rows:
        return _by_members(bench, wanted, seen.kept)
    terms = _candidates(wanted, extents, sources, allowed)
    again = replace(_see(bench, sources, (), terms), kept=seen.kept)
    return _fitting(bench, wanted, sources, terms, again, target)


def _fitting(
    bench: Bench, wanted: Recipe, sources: Sequence[Files], terms: Sequence[Term], seen: _Seen, target: Digest
) -> Recipe:
    """The first kind of recipe that gives the target."""
    if seen.all == target:
        return replace(wanted, kind=PROJECTION)
    if terms and seen.met == target:
        best = best_terms(terms, seen.n_met.tolist(), seen.all.n_rows)
        work = [item for files in sources for item in passes.items(files, max_rows=math.inf)]
        sums = sum(bench.workers.map(passes.tally, work, best, bench.key), np.uint64(0))
        chosen = conjunction(np.asarray(sums), target)
        if chosen is not None:
            return replace(wanted, kind=PREDICATE, terms=tuple(best[place] for place in chosen))
    return _by_members(bench, wanted, seen.kept)


# --- the child -----------------------------------------------------------------------------------------------------------------


def _profile(bench: Bench, wanted: Recipe, files: Files) -> Profile:
    work = list(passes.items(files, max_rows=math.inf))
    found = reduce(_both, bench.workers.map(passes.profile, work, wanted.table, bench.key, bench.scratch))
    if str(found.digest) != wanted.digest:
        raise NoRecipe(f"{wanted.table}: its files do not hold the rows that its log tells of. Run: lethe ingest")
    if not found.has_own_ids:
        raise NoRecipe(f"{wanted.table}: its row ids are not those that its rows would get when they are made again. Keep it")
    return found


def _both(one: Profile, other: Profile) -> Profile:
    return Profile(
        one.digest + other.digest,
        (*one.runs, *other.runs),
        passes.joined_extents(one.extents, other.extents),
        one.sources | other.sources,
        one.has_own_ids and other.has_own_ids,
    )


def _source(numbers: frozenset[int]) -> str:
    """The key of the one raw file that rows are from; empty where it is not one, or not known."""
    known = numbers - {UNKNOWN_SOURCE}
    return next(iter(known)).to_bytes(8, "big", signed=True).hex() if len(known) == len(numbers) == 1 else ""


def _are_equal(wanted: Recipe, sources: Sequence[Files]) -> bool:
    """Whether the digests alone tell that the parents' rows are the child's: comparable only where the columns are the same."""
    mine = {name.lower() for name, _ in wanted.columns}
    is_named_alike = all(name.lower() == theirs.lower() for files in sources for name, theirs in files.columns)
    schemas = [files.parts[0].schema for files in sources if files.parts]
    is_same = all({name.lower() for name in schema.names} - {ROW_ID} == mine for schema in schemas)
    total = sum((Digest.parse(parent.digest) for parent in wanted.parents), Digest())
    return is_named_alike and is_same and str(total) == wanted.digest


def _candidates(wanted: Recipe, extents: Extents, sources: Sequence[Files], allowed: frozenset[str]) -> list[Term]:
    """The terms that all the child's rows meet, on columns whose values compare with the parents'."""
    terms = list[Term]()
    for name, theirs in wanted.columns:
        if name.lower() in allowed and name in extents:
            found = terms_of(theirs, extents[name])
            kinds = {_kind(files, name) for files in sources if files.parts}
            terms += found if kinds == {extents[name].kind} else [term for term in found if term == Term(theirs, nulls=True)]
    return terms


def _kind(files: Files, name: str) -> pa.DataType | None:
    return common_type(files.parts[0].schema.field(dict(files.columns)[name]).type)


def _set_apart(bench: Bench, wanted: Recipe, files: Files, missing: Run) -> tuple[Snapshot, Extents]:
    """Write the rows that the parents lack; the table of them, and what the columns of the others hold."""
    layout = residual_layout(bench.lake, wanted)
    pieces = shared_out(bench, [files], missing, everything=True)
    written = bench.workers.map(passes.set_apart, pieces, layout, bench.lake.keys)
    extents = reduce(passes.joined_extents, (found for _, found in written), Extents())
    made = [file for files, _ in written for file in files]
    return commit(bench.lake, wanted, RESIDUAL + wanted.table, layout.schema, made), extents


# --- the parents ---------------------------------------------------------------------------------------------------------------


def _see(bench: Bench, sources: Sequence[Files], runs: Sequence[Spilled], terms: Sequence[Term]) -> _Seen:
    """Count the child's members among the parents' rows, a range of hashes at a time; the first pass counts all else, too."""
    seen = list[_Seen]()
    for first, last in _ranges(runs, bench.held_bytes):
        run = merge_runs([load(one, first, last) for one in runs]) if runs else NOBODY
        seen.append(_see_range(bench, sources, run, () if seen else terms))
    missing = merge_runs([one.missing for one in seen])
    return replace(
        seen[0], kept=tuple(run for one in seen for run in one.kept), missing=missing, is_short=any(s.is_short for s in seen)
    )


def _ranges(runs: Sequence[Spilled], held_bytes: int) -> Iterator[tuple[int, int]]:
    n_bytes = _MERGING * MEMBER_BYTES * sum(run.n_distinct for run in runs)
    n_cuts = min(N_RANGES, max(1, math.ceil(n_bytes / held_bytes)))
    return pairwise(N_RANGES * i // n_cuts for i in range(n_cuts + 1))


def _see_range(bench: Bench, sources: Sequence[Files], run: Run, terms: Sequence[Term]) -> _Seen:
    work = [item for files in sources for item in passes.items(files, max_rows=math.inf)]
    counts = bench.workers.map(passes.count, work, run.low, run.high, terms, bench.key)
    found = np.zeros(run.n_distinct, np.int64)
    for one in counts:
        found[one.found[0]] += one.found[1]
    kept = with_counts(run, np.minimum(found, run.counts))
    return _Seen(
        sum((one.all for one in counts), Digest()),
        sum((one.met for one in counts), Digest()),
        sum((one.n_met for one in counts), np.zeros(len(terms), np.int64)),
        (sent(bench, kept),),
        with_counts(run, np.maximum(run.counts - found, 0)),
        bool(((found > 0) & (found < run.counts)).any()),
    )


def sent(bench: Bench, run: Run) -> Run | Spilled:
    """A run as it travels to a worker: a large one by way of scratch."""
    return run if run.n_bytes <= _SENT_BYTES else spill(run, bench.scratch)


def shared_out(
    bench: Bench, sources: Sequence[Files], run: Run, *, max_rows: float = math.inf, everything: bool = False
) -> list[Piece]:
    """Who keeps which of the members, so that all together keep each as often as the run says; with `everything`, also those who
    keep none.
    """
    work = [item for files in sources for item in passes.items(files, max_rows=max_rows)]
    counts = bench.workers.map(passes.count, work, run.low, run.high, (), bench.key)
    shares: Iterator[Found] = allot((one.found for one in counts), run.counts)
    pieces = zip(work, shares, strict=True)
    return [Piece(item, (), sent(bench, some_of(run, *share))) for item, share in pieces if everything or len(share[0])]


# --- what is kept beside a recipe ----------------------------------------------------------------------------------------------


def _by_members(bench: Bench, wanted: Recipe, kept: Sequence[Run | Spilled]) -> Recipe:
    return replace(wanted, kind=MEMBERSHIP, members=commit_members(bench.lake, wanted, (load(run) for run in kept)))


def commit_members(lake: Lake, wanted: Recipe, runs: Iterable[Run]) -> Snapshot:
    """The table of the hashes of the child's rows, for which the runs stand."""
    table = MEMBERS + wanted.table
    batches = (as_batch(piece) for run in runs for piece in _cut(run))
    files = [write_part(lake.folder(table), [batch], SCHEMA) for batch in batches]
    return commit(lake, wanted, table, SCHEMA, files)


def _cut(run: Run) -> Iterator[Run]:
    for start in range(0, run.n_distinct, RUN_ROWS):
        rows = slice(start, start + RUN_ROWS)
        yield Run(run.low[rows], run.high[rows], run.counts[rows])


def commit(lake: Lake, wanted: Recipe, table: str, schema: pa.Schema, files: Sequence[DataFile]) -> Snapshot:
    """Replace all rows of a table that a recipe needs; its log tells whose rows they are."""
    code = code_digest("tasks.dedup")
    params = {"subjects": [list(pair) for pair in wanted.subjects]} if table.startswith(RESIDUAL) else {}
    key = stage_key(STAGE, code, wanted.parents, {"table": table, "digest": wanted.digest})
    lineage = Lineage(STAGE, key, code, wanted.parents, params)
    return lake.commit(table, schema, files, lineage=lineage, overwrite=True)


def layout_of(recipe: Recipe, folder: Folder, source: str = "") -> Layout:
    """How the recipe's table is written into a folder; `source` is the uri of its raw file."""
    subjects = tuple(SubjectSettings(kind=kind, column=column) for kind, column in recipe.subjects)
    return Layout(folder, recipe.table, schema_of(recipe), recipe.partition_by, subjects, recipe.private, source)


def residual_layout(lake: Lake, recipe: Recipe) -> Layout:
    """How the rows that the parents lack are written."""
    return replace(layout_of(recipe, lake.folder(RESIDUAL + recipe.table)), partition_by=())


def _names(wanted: Recipe) -> str:
    return ", ".join(parent.table for parent in wanted.parents)
