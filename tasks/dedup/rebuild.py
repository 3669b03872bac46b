"""Recipes at work: find the one that makes a child from its parents, follow it, and keep it true when the parents move.

A recipe is proven by its fingerprint, the sum of 128-bit row hashes: whoever removes a table rebuilds it first and compares.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import reduce

import numpy as np
import pyarrow as pa

from infra.cluster import Workers
from infra.contracts import DataFile, Snapshot, StaleSnapshot, UnknownTable
from infra.files import Folder, Part, filesystem, read_part, source_key
from infra.ids import Digest
from infra.lake import Lake
from infra.layout import TARGET_ROWS
from infra.settings import ConfigError, Settings, SubjectSettings
from infra.subjects import declared, remembered, roots
from tasks.dedup import passes
from tasks.dedup.exact import Run, found_counts, merge_runs
from tasks.dedup.finding import Bench, commit, commit_members, layout_of, residual_layout, search, sent, shared_out
from tasks.dedup.members import MEMBER_BYTES, digest_of, of_batches, with_counts
from tasks.dedup.passes import NOBODY, Counts, Files, Piece
from tasks.dedup.recipes import MEMBERSHIP, ROW_ID, NoRecipe, Recipe, Term, schema_of, schema_text
from tasks.dedup.runs import Spilled, load
from tasks.dedup.terms import tightened

RECORDS, SOURCES = "records/", "sources"


def find_recipe(
    lake: Lake,
    settings: Settings,
    child: Snapshot,
    parents: Sequence[Snapshot],
    *,
    columns: Sequence[tuple[str, str]] | None = None,
    workers: Workers,
) -> Recipe:
    """What makes the child from its parents (from all of them together, where there are several). `columns` are pairs (child's
    column, parents' column), whatever the case; None: the names are the same.

    Writes `members/<table>` and `residual/<table>` where the recipe needs them. Raises `NoRecipe` where there is no row, a column
    is missing, the child's row ids are not those of its rows, or the parents have none of them.
    """
    wanted = _wanted(lake, settings, child, parents, columns)
    with lake.scratch() as scratch:
        bench = Bench(lake, workers, scratch)
        return search(bench, wanted, lake.parts(child), _sources(lake, wanted), _allowed(lake, settings, wanted))


def rebuild(lake: Lake, settings: Settings, recipe: Recipe, *, workers: Workers, folder: Folder | str) -> list[DataFile]:
    """Write the recipe's rows into a folder, with their row ids, as ingest writes a table; nothing is committed.

    The digests are those of what was written: compare `fingerprint_of` them with the recipe's. Raises `StaleSnapshot` where a
    version that it needs is gone.
    """
    place = Folder(folder, lake.keys.row) if isinstance(folder, str) else folder
    layout = layout_of(_as_said_now(settings, recipe), place, _raw_file(lake, recipe))
    with lake.scratch() as scratch:
        made = list[DataFile]()
        for pieces in _pieces(Bench(lake, workers, scratch), recipe):
            made += (file for files in workers.map(passes.write, pieces, layout, lake.keys) for file in files)
        return made


def fingerprint_of(files: Iterable[DataFile]) -> Digest:
    """The digest of the rows of all files."""
    return sum((Digest.parse(file.digest) for file in files), Digest())


def kept_bytes(lake: Lake, recipe: Recipe) -> int:
    """The bytes of the files that a recipe keeps beside the parents: what is not saved by it."""
    kept = [snapshot for snapshot in (recipe.members, recipe.residual) if snapshot is not None]
    return sum(part.file.n_bytes for snapshot in kept for part in lake.parts(snapshot))


def parents_readable(lake: Lake, recipe: Recipe) -> bool:
    """Whether every file that a rebuild reads is there: of the parents, the members and the residual rows."""
    return all(_is_readable(lake, snapshot) for snapshot in (*recipe.parents, recipe.members, recipe.residual) if snapshot)


def renewed(lake: Lake, settings: Settings, recipe: Recipe, *, erased: bool, workers: Workers) -> Recipe:
    """The recipe on its parents' newest versions.

    The same rows, as the versions give them that it names: what the parents lost since becomes residual. With `erased`, those
    versions are gone and so are people: rows that the parents lost are no longer the recipe's, nor are the copies of them in
    `residual/<table>` that stood for a missing number. Renew first where the parents moved before the erasure: rows that came
    since cannot be told apart. Raises `NoRecipe` where such rows are seen.
    """
    newest = replace(recipe, parents=tuple(lake.snapshot(parent.table) for parent in recipe.parents))
    if erased:
        with lake.scratch() as scratch:
            return _without_erased(Bench(lake, workers, scratch), newest)
    if [parent.digest for parent in newest.parents] == [parent.digest for parent in recipe.parents]:
        return newest
    with lake.scratch() as place, lake.scratch() as scratch:
        made = rebuild(lake, settings, recipe, workers=workers, folder=place)
        own = [Part(f"{place}/{file.path}", file, schema_of(recipe)) for file in made]
        wanted = replace(newest, terms=(), members=None, residual=None)
        bench = Bench(lake, workers, scratch)
        return search(bench, wanted, own, _sources(lake, wanted), _allowed(lake, settings, wanted), some=False)


# --- what is wanted ------------------------------------------------------------------------------------------------------------


def _wanted(
    lake: Lake, settings: Settings, child: Snapshot, parents: Sequence[Snapshot], columns: Sequence[tuple[str, str]] | None
) -> Recipe:
    """A recipe that says all but how."""
    table, schema = child.table.removeprefix(RECORDS), lake.schema(child)
    mine = [name for name in schema.names if name != ROW_ID]
    if not child.n_rows or not mine or not parents or child.table in {parent.table for parent in parents}:
        raise NoRecipe(f"{table}: a recipe needs rows, columns, and parents that are other tables")
    subjects, private = _said_of(lake, settings, child)
    said = declared(schema, subjects)
    return Recipe(
        table=table,
        kind="",
        parents=tuple(parents),
        columns=_named(table, mine, lake.schema(parents[0]).names, columns),
        terms=(),
        members=None,
        residual=None,
        digest=child.digest,
        n_rows=child.n_rows,
        schema=schema_text(schema),
        partition_by=lake.partitioning(child),
        subjects=tuple((kind, column) for kind, column in said),
        private=private,
    )


def _named(
    table: str, mine: Sequence[str], theirs: Sequence[str], columns: Sequence[tuple[str, str]] | None
) -> tuple[tuple[str, str], ...]:
    """Each column of the child with the parent's, as written."""
    pairs = {name.lower(): name.lower() for name in mine} if columns is None else {a.lower(): b.lower() for a, b in columns}
    written = {name.lower(): name for name in theirs if name != ROW_ID}
    if len({name.lower() for name in mine}) < len(mine):
        raise NoRecipe(f"{table}: names of its columns differ in case alone. Keep it")
    missing = [name for name in mine if pairs.get(name.lower()) not in written]
    if missing:
        raise NoRecipe(f"{table}: its parents lack the columns {', '.join(missing)}. Name other parents")
    return tuple((name, written[pairs[name.lower()]]) for name in mine)


def _sources(lake: Lake, recipe: Recipe) -> list[Files]:
    """The parents' files, each with its own spelling of the columns."""
    return [_files(lake, recipe, parent) for parent in recipe.parents]


def _files(lake: Lake, recipe: Recipe, parent: Snapshot) -> Files:
    parts = lake.parts(parent)
    names = parts[0].schema.names if parts else [theirs for _, theirs in recipe.columns]
    mine = [name for name, _ in recipe.columns]
    return Files(tuple(parts), _named(recipe.table, mine, names, recipe.columns))


# --- privacy -------------------------------------------------------------------------------------------------------------------


def _said(
    settings: Settings, table: str, schema: pa.Schema, known: Iterable[SubjectSettings]
) -> tuple[tuple[SubjectSettings, ...], tuple[str, ...]]:
    """Whose rows a table holds, and its private columns in lower case, sorted: those that name subjects, and its text. `known`
    are the subjects that are remembered, whatever lethe.toml says by now.
    """
    try:
        section = settings.table(table)
        named, text = section.subjects, section.text
    except ConfigError:
        named, text = (), None
    subjects = tuple(dict.fromkeys((*named, *known)))
    columns = {name for subject in subjects for name in (subject.column, re.split(r"[.\[]", subject.column)[0])}
    columns |= {*roots(schema, subjects), *([text] if text else [])}
    return subjects, tuple(sorted(name.lower() for name in columns))


def _said_of(lake: Lake, settings: Settings, snapshot: Snapshot) -> tuple[tuple[SubjectSettings, ...], tuple[str, ...]]:
    """As `_said`, of a table that is there: its own log is asked, too."""
    known = remembered(lake.lineage(snapshot).params)
    return _said(settings, snapshot.table.removeprefix(RECORDS), lake.schema(snapshot), known)


def _as_said_now(settings: Settings, recipe: Recipe) -> Recipe:
    """The recipe with the subjects and the private columns that lethe.toml has named since."""
    schema, known = schema_of(recipe), (SubjectSettings(kind=kind, column=column) for kind, column in recipe.subjects)
    subjects, private = _said(settings, recipe.table, schema, known)
    pairs = tuple((kind, column) for kind, column in declared(schema, subjects))
    return replace(recipe, subjects=pairs, private=tuple(sorted({*recipe.private, *private})))


def _allowed(lake: Lake, settings: Settings, recipe: Recipe) -> frozenset[str]:
    """The child's columns, in lower case, that are private neither there nor in a parent: terms are written down."""
    private = set[str]().union(*(_said_of(lake, settings, parent)[1] for parent in recipe.parents))
    names = ((mine.lower(), theirs.lower()) for mine, theirs in recipe.columns)
    return frozenset(mine for mine, theirs in names if mine not in recipe.private and theirs not in private)


# --- following -----------------------------------------------------------------------------------------------------------------


def _pieces(bench: Bench, recipe: Recipe) -> Iterator[list[Piece]]:
    """The work of a rebuild, as much of it at a time as its members allow."""
    standing = replace(recipe, parents=tuple(_standing(bench.lake, parent) for parent in recipe.parents))
    sources = _sources(bench.lake, standing)
    share = sum(files.n_rows for files in sources) / max(1, recipe.n_rows)
    max_rows = TARGET_ROWS * max(1.0, share)  # about one full data file comes out of each piece
    if recipe.kind == MEMBERSHIP:
        for run in _member_runs(bench, recipe):
            yield shared_out(bench, sources, run, max_rows=max_rows)
    else:
        yield [Piece(item, recipe.terms) for files in sources for item in passes.items(files, max_rows=max_rows)]
    yield [Piece(item) for item in passes.items(_residual(bench.lake, recipe), max_rows=TARGET_ROWS)]


def _residual(lake: Lake, recipe: Recipe) -> Files:
    parts = () if recipe.residual is None else tuple(lake.parts(recipe.residual))
    return Files(parts, tuple((name, name) for name, _ in recipe.columns))


def _member_runs(bench: Bench, recipe: Recipe) -> Iterator[Run]:
    """The members, as many at a time as may be held."""
    held, n_rows = list[Part](), 0
    for part in bench.lake.parts(recipe.members) if recipe.members is not None else []:
        if held and MEMBER_BYTES * (n_rows + part.file.n_rows) > bench.held_bytes:
            yield _run(held)
            held, n_rows = [], 0
        held.append(part)
        n_rows += part.file.n_rows
    if held:
        yield _run(held)


def _run(parts: Sequence[Part]) -> Run:
    return merge_runs([of_batches([*read_part(part)]) for part in parts])


def _standing(lake: Lake, snapshot: Snapshot) -> Snapshot:
    """The newest version, where it has the same rows: the one named may be gone when the newer is there."""
    newest = lake.snapshot(snapshot.table)
    return newest if newest.digest == snapshot.digest else snapshot


def _raw_file(lake: Lake, recipe: Recipe) -> str:
    """The uri of the one raw file that all rows are from, as the ledger tells it; empty where there is none."""
    if not recipe.source or not lake.exists(SOURCES):
        return ""
    rows = lake.read(lake.snapshot(SOURCES), ["table", "uri"]).to_pylist()
    uris = (row["uri"] for row in rows if row["table"] == recipe.table)
    return next((uri for uri in uris if source_key(uri) == recipe.source), "")


def _is_readable(lake: Lake, snapshot: Snapshot) -> bool:
    try:
        parts = lake.parts(_standing(lake, snapshot))
    except (StaleSnapshot, UnknownTable):
        return False
    places = (filesystem(part.uri) for part in parts)
    return all(fs.exists(path) for fs, path in places)


# --- after an erasure ----------------------------------------------------------------------------------------------------------


def _without_erased(bench: Bench, recipe: Recipe) -> Recipe:
    """The recipe's rows that its parents, at these versions, still have, and the residual ones as they are now."""
    sources, residual = _sources(bench.lake, recipe), _newest(bench.lake, recipe.residual)
    if recipe.kind != MEMBERSHIP:
        met = sum((one.met for one in _counts(bench, sources, NOBODY, recipe.terms)), Digest())
        return _left(replace(recipe, residual=residual, terms=_tightened(bench, recipe, sources)), met)
    kept, lost, digest = _still_there(bench, recipe, sources)
    now = replace(recipe, residual=_without(bench, replace(recipe, residual=residual), lost))
    return _left(replace(now, members=commit_members(bench.lake, now, (load(run) for run in kept))), digest)


def _counts(bench: Bench, sources: Sequence[Files], run: Run, terms: Sequence[Term]) -> list[Counts]:
    work = [item for files in sources for item in passes.items(files, max_rows=math.inf)]
    return bench.workers.map(passes.count, work, run.low, run.high, terms, bench.key)


def _tightened(bench: Bench, recipe: Recipe, sources: Sequence[Files]) -> tuple[Term, ...]:
    """The terms that the rows which are left would have given: a bound may have been one of an erased row."""
    work = [(item, recipe.terms) for files in sources for item in passes.items(files, max_rows=math.inf)] if recipe.terms else []
    found = reduce(passes.joined_extents, bench.workers.map(passes.extents_met, work), passes.Extents())
    return tuple(tightened(term, found.get(term.column)) for term in recipe.terms)


def _left(recipe: Recipe, kept: Digest) -> Recipe:
    digest = kept + (Digest() if recipe.residual is None else Digest.parse(recipe.residual.digest))
    if digest.n_rows > recipe.n_rows:
        raise NoRecipe(
            f"{recipe.table}: its parents have {digest.n_rows} rows for its {recipe.n_rows}; some came before the erasure. "
            "Restore it from what is left, or take it in again: lethe ingest"
        )
    return replace(recipe, digest=str(digest), n_rows=digest.n_rows)


def _still_there(bench: Bench, recipe: Recipe, sources: Sequence[Files]) -> tuple[list[Run | Spilled], Run, Digest]:
    """The members that the parents have, those that they lost altogether, and the digest of the former."""
    kept, lost, digest = list[Run | Spilled](), list[Run](), Digest()
    for run in _member_runs(bench, recipe):
        found = np.zeros(run.n_distinct, np.int64)
        for one in _counts(bench, sources, run, ()):
            found[one.found[0]] += one.found[1]
        left = with_counts(run, np.minimum(found, run.counts))
        digest += digest_of(left)
        kept.append(sent(bench, left))
        lost.append(with_counts(run, np.where(found == 0, run.counts, 0)))
    return kept, merge_runs(lost), digest


def _newest(lake: Lake, snapshot: Snapshot | None) -> Snapshot | None:
    """A residual table as it is now; None where no row is left in it."""
    newest = None if snapshot is None else lake.snapshot(snapshot.table)
    return newest if newest is not None and newest.n_rows else None


def _without(bench: Bench, recipe: Recipe, lost: Run) -> Snapshot | None:
    """The residual rows without those that were there because the parents had too few of them, where they have none now."""
    files = _residual(bench.lake, recipe)
    work = list(passes.items(files, max_rows=math.inf))
    profiles = bench.workers.map(passes.profile, work, recipe.table, bench.key, bench.scratch)
    run = merge_runs([load(one) for profile in profiles for one in profile.runs])
    is_lost = found_counts(run, [lost]) > 0
    if recipe.residual is None or not is_lost.any():
        return recipe.residual
    layout = residual_layout(bench.lake, recipe)
    pieces = shared_out(bench, [files], with_counts(run, np.where(is_lost, 0, run.counts)))
    made = [file for some in bench.workers.map(passes.write, pieces, layout, bench.lake.keys) for file in some]
    return _newest(bench.lake, commit(bench.lake, recipe, recipe.residual.table, layout.schema, made))
