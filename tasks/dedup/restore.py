"""The doors that bring retired tables back, and those that keep recipes good: renewed when parents move, and tables brought back
for as long as an erasure lasts.

An erasure works on tables, not on recipes: retired ones are suspended first (restored, their rows in `recipes` say so) and
retired again when it is done, so the person goes from them as from any other table. A run that is killed leaves them suspended,
which only takes room, and the next one retires them.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from prefect import task

from infra.cluster import Scheduler, Workers, connect
from infra.contracts import DataFile, Lineage, StaleSnapshot, UnknownTable
from infra.discretion import discreet
from infra.files import MissingFile
from infra.ids import Digest, key_of
from infra.lake import Lake, no_table
from infra.retired import RECORDS, SUSPENDED, Retired, entries, put, retired, take
from infra.settings import Settings
from tasks.dedup.lost import Unrestorable, listed, recipe_of, refuse_missing, standing, ways_out
from tasks.dedup.rebuild import find_recipe, fingerprint_of, rebuild, renewed
from tasks.dedup.recipes import NoRecipe, Recipe, schema_of
from tasks.dedup.retire import discard, entry_of, finish_removal, rebuilt_s, settle

_LOG = logging.getLogger("lethe.dedup")
MIXED_SOURCES = "mixed"


@dataclass(frozen=True)
class Restored:
    """A table that is back, equal by its digest to the one that was retired.

    One that was taken in `from_raw` files may not be the `same`: `n_rows_retired` were retired, and `n_suppressed` rows of its
    files were refused, for their subjects asked to be erased.
    """

    table: str
    parents: tuple[str, ...]
    n_rows: int
    n_bytes: int
    version: int
    digest: str
    seconds: float
    same: bool = True
    n_rows_retired: int = 0
    n_suppressed: int = 0
    from_raw: bool = False


# --- restoring -----------------------------------------------------------------------------------------------------------------


@task(name="restore", persist_result=False)
@discreet
def restore(settings: Settings, tables: Sequence[str], *, scheduler: Scheduler = None) -> tuple[Restored, ...]:
    """Rebuild retired tables and take them off the list. Again, after a kill or not: what is missing is done.

    Raises `NotRetired` before anything is done, and `Unrestorable` where the rows that come out are not those that were retired.
    The lake's lease is held alone.
    """
    lake = Lake.open(settings)
    with lake.writing(), connect(scheduler) as workers:
        found = listed(lake, tables)
        refuse_missing(lake, {name: entry for name, entry in found.items() if not entry.is_suspended})
        done = [_back(lake, settings, entry, workers) for entry in found.values()]
        for one in done:
            take(lake, one.table, {"restored": one.table})
            discard(lake, [one.table])
    return tuple(done)


def _back(lake: Lake, settings: Settings, entry: Retired, workers: Workers) -> Restored:
    """A retired table, committed again; a suspended one is in the lake as it is."""
    if not entry.is_suspended:
        return _restored(lake, settings, entry, workers)
    now = lake.snapshot(RECORDS + entry.table)
    return Restored(entry.table, entry.parents, now.n_rows, entry.n_bytes, now.version, now.digest, 0.0)


def _restored(lake: Lake, settings: Settings, entry: Retired, workers: Workers) -> Restored:
    """A retired table, committed again; it stays on the list."""
    start = time.perf_counter()
    finish_removal(lake, entry)
    recipe = standing(lake, recipe_of(entry))
    table = RECORDS + entry.table
    files = _rebuilt(lake, settings, entry, recipe, workers)
    params = {name: value for name, value in entry.params.items() if name != "restored"}
    if not recipe.source:
        params["restored"] = MIXED_SOURCES
    lineage = Lineage("restore", key_of("restore", entry.table, entry.digest), "", recipe.parents, params, {"kind": recipe.kind})
    schema, by = schema_of(recipe), recipe.partition_by
    made = lake.commit(table, schema, files, lineage=lineage, expect=no_table(table), partition_by=by)
    seconds = time.perf_counter() - start
    _LOG.info("%s: restored, %d rows", entry.table, made.n_rows)
    return Restored(entry.table, entry.parents, made.n_rows, sum(f.n_bytes for f in files), made.version, made.digest, seconds)


def _rebuilt(lake: Lake, settings: Settings, entry: Retired, recipe: Recipe, workers: Workers) -> list[DataFile]:
    """The table's data files in its folder, with the rows that were retired. Raises `Unrestorable`."""
    folder = lake.folder(RECORDS + entry.table)
    try:
        files = rebuild(lake, settings, recipe, workers=workers, folder=folder)
    except (NoRecipe, MissingFile, StaleSnapshot) as lost:
        raise Unrestorable(f"{entry.table} cannot be rebuilt: {lost}. {ways_out([entry.table])}") from None
    found, wanted = fingerprint_of(files), Digest.parse(entry.digest)
    if found != wanted:
        lake.retire(RECORDS + entry.table)
        used = ", ".join(f"{snapshot.table}@{snapshot.version}" for snapshot in recipe.parents)
        raise Unrestorable(
            f"{entry.table}: {used} give {found.n_rows} rows that are not the {wanted.n_rows} that were retired "
            f"(digest {found}, not {wanted}). The versions that it was retired from are gone; nothing was changed. "
            f"{ways_out([entry.table])}"
        )
    return files


# --- recipes that stay good ----------------------------------------------------------------------------------------------------


@task(name="renew", persist_result=False)
@discreet
def renew(settings: Settings, *, scheduler: Scheduler = None) -> tuple[str, ...]:
    """Let recipes rest on the newest versions of their parents, before old ones go; the tables whose recipes changed.

    Each was proved again. Raises `Unrestorable` where none is found: then no old version may be removed. The lake's lease is held
    alone.
    """
    lake = Lake.open(settings)
    with lake.writing(), connect(scheduler) as workers:
        settle(lake)
        found = retired(lake)
        refuse_missing(lake, found)
        return tuple(name for name, entry in sorted(found.items()) if _renewed(lake, settings, entry, workers))


def _renewed(lake: Lake, settings: Settings, entry: Retired, workers: Workers) -> bool:
    recipe = recipe_of(entry)
    if all(lake.exists(s.table) and lake.snapshot(s.table) == s for s in recipe.parents):
        return False
    try:
        fresh = renewed(lake, settings, standing(lake, recipe), erased=False, workers=workers)
    except (NoRecipe, MissingFile, StaleSnapshot, UnknownTable) as lost:
        raise Unrestorable(
            f"{entry.table} has no recipe on what its parents are now: {lost}. Run: lethe restore {entry.table}. "
            f"Where that fails: {ways_out([entry.table])}"
        ) from None
    if fresh.digest != entry.digest or rebuilt_s(lake, settings, fresh, workers) is None:
        raise Unrestorable(
            f"{entry.table} was not the same when its recipe was renewed. Run: lethe restore {entry.table}. "
            f"Where that fails: {ways_out([entry.table])}"
        )
    made = replace(entry_of(fresh, entry.n_bytes, entry.params), retired=entry.retired)
    put(lake, made, {"renewed": entry.table})
    for used, now in ((recipe.members, fresh.members), (recipe.residual, fresh.residual)):
        if used is not None and now is None:
            lake.drop(used.table)
    return True


@task(name="holds", persist_result=False)
@discreet
def holds(settings: Settings, table: str, *, scheduler: Scheduler = None) -> bool:
    """Whether all rows of a retired table, with their copies, are in its parents as these are now. Its recipe is renewed where
    they moved."""
    lake = Lake.open(settings)
    with connect(scheduler) as workers:
        _renewed(lake, settings, retired(lake)[table], workers)
    return recipe_of(retired(lake)[table]).residual is None


# --- for as long as an erasure lasts --------------------------------------------------------------------------------------------


@task(name="suspend", persist_result=False)
@discreet
def suspend(settings: Settings, *, scheduler: Scheduler = None) -> tuple[str, ...]:
    """Bring every retired table back, to be retired again by `resume`; their names. What recipes needed beside is dropped.

    Raises `Unrestorable`, which names all tables that cannot be brought back; the others wait until the erasure is done.
    """
    lake, lost = Lake.open(settings), list[str]()
    with lake.writing(), connect(scheduler) as workers:
        settle(lake)
        refuse_missing(lake, retired(lake))
        for entry in retired(lake).values():
            try:
                _suspended(lake, settings, entry, workers)
            except Unrestorable as error:
                lost.append(str(error))
        if lost:
            raise Unrestorable(". ".join(lost))
        return tuple(sorted(name for name, entry in entries(lake).items() if entry.is_suspended))


def _suspended(lake: Lake, settings: Settings, entry: Retired, workers: Workers) -> None:
    """Bring one table back; its row says that it is to be retired again."""
    _restored(lake, settings, entry, workers)
    told = {"columns": recipe_of(entry).columns, "params": entry.params}
    waits = replace(entry, kind=SUSPENDED, recipe=json.dumps(told, sort_keys=True))
    put(lake, waits, {"suspended": entry.table})
    discard(lake, [entry.table])


@dataclass(frozen=True)
class Resumed:
    """What became of suspended tables: retired again, or kept, and why."""

    retired: tuple[str, ...] = ()
    kept: Mapping[str, str] = field(default_factory=dict[str, str])

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@task(name="resume", persist_result=False)
@discreet
def resume(settings: Settings, *, scheduler: Scheduler = None) -> Resumed:
    """Retire suspended tables again, each by a recipe that is found anew and proved; one that has none any more is kept."""
    lake = Lake.open(settings)
    done, kept = list[str](), dict[str, str]()
    with lake.writing(), connect(scheduler) as workers:
        for name, entry in sorted((n, e) for n, e in entries(lake).items() if e.is_suspended):
            made = _again(lake, settings, entry, workers)
            if isinstance(made, str):
                kept[name] = made
                take(lake, name, {"kept": name})
                discard(lake, [name])
                continue
            put(lake, made, {"retired again": name})
            lake.retire(RECORDS + name)
            done.append(name)
    return Resumed(tuple(done), kept)


def _again(lake: Lake, settings: Settings, entry: Retired, workers: Workers) -> Retired | str:
    """The row that retires a suspended table again, or why it must be kept."""
    gone = [name for name in (entry.table, *entry.parents) if not lake.exists(RECORDS + name)]
    if gone:
        return f"{', '.join(gone)} is not in the lake"
    child = lake.snapshot(RECORDS + entry.table)
    parents = [lake.snapshot(RECORDS + parent) for parent in entry.parents]
    document = json.loads(entry.recipe)
    try:
        recipe = find_recipe(lake, settings, child, parents, columns=[tuple(p) for p in document["columns"]], workers=workers)
    except NoRecipe as none:
        return str(none)
    if rebuilt_s(lake, settings, recipe, workers) is None:
        return "its recipe did not give the same rows again"
    n_bytes = sum(part.file.n_bytes for part in lake.parts(child))
    return replace(entry_of(recipe, n_bytes, lake.lineage(child).params), retired=entry.retired)
