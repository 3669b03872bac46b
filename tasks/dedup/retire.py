"""The doors that take tables out of the lake: find how each is rebuilt, prove it, and, once somebody has approved, remove it.

A proposal changes nothing that anybody reads: it leaves recipes, each of which has rebuilt its table row for row, and the tables
that they need (`members/*`, `residual/*`). Retiring commits the recipe first and removes the table's files afterwards. Whatever
is killed, the next settling ends it.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from prefect import task

from infra.cluster import Scheduler, Workers, connect
from infra.contracts import LetheError, Snapshot
from infra.discretion import discreet
from infra.files import Folder
from infra.foreign import PREFIX as FOREIGN
from infra.ids import Digest, key_of
from infra.lake import Lake
from infra.retired import MEMBERS, RECORDS, RESIDUAL, Retired, dependents, put, retired
from infra.settings import Settings
from tasks.dedup.prices import keep_cost, rebuild_cost
from tasks.dedup.rebuild import find_recipe, fingerprint_of, kept_bytes, rebuild
from tasks.dedup.recipes import NoRecipe, Recipe, as_json
from tasks.dedup.task import DedupResult

_LOG = logging.getLogger("lethe.dedup")


class RetireRefused(LetheError):
    """A table may not be retired; the message says why, and what to do."""


@dataclass(frozen=True)
class Retirement:
    """One table that can be retired: its recipe, which has rebuilt it in `rebuild_s` seconds, the version that it rebuilt, and
    what that takes in the lake. `params` are what the version's commit says of the table.
    """

    recipe: Recipe
    child: Snapshot
    n_bytes: int
    monthly_saving: float
    rebuild_s: float
    params: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def table(self) -> str:
        return self.recipe.table

    @property
    def parents(self) -> tuple[str, ...]:
        return tuple(snapshot.table.removeprefix(RECORDS) for snapshot in self.recipe.parents)


@dataclass(frozen=True)
class Proposal:
    """What could be retired, and why other tables could not. Approval is of its `digest`."""

    tables: tuple[Retirement, ...]
    refused: Mapping[str, str]

    @property
    def digest(self) -> str:
        """16 hex digits over the tables, their rows, their parents and the kinds of their recipes."""
        told = [[t.table, t.child.digest, t.recipe.kind, *([s.table, s.digest] for s in t.recipe.parents)] for t in self.tables]
        return key_of("retire", told)[:16]


@dataclass(frozen=True)
class Way:
    """One way to a table: its parents, the names that its columns have there (pairs of lower-case names; None: their own), and
    how many rows would have to be kept beside."""

    parents: tuple[str, ...]
    columns: tuple[tuple[str, str], ...] | None = None
    n_residual: int = 0


# --- proposing -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """A table that somebody wants retired: the parents that they named (none: the cheapest will do), the ways that the scan
    found, and why it is listed apart, if it is. `must_save`: nobody named it, so it goes only if that saves something."""

    parents: tuple[str, ...]
    ways: tuple[Way, ...]
    apart: str = ""
    must_save: bool = False


@dataclass(frozen=True)
class _Ground:
    """What a proposal is made on. `among`: for some tables, those that their parents must be taken from."""

    lake: Lake
    settings: Settings
    asked: Mapping[str, Asked]
    among: Mapping[str, frozenset[str]]
    taken: Mapping[str, Retired]
    workers: Workers


@task(name="propose", persist_result=False)
@discreet
def propose(
    settings: Settings,
    asked: Mapping[str, Asked],
    *,
    among: Mapping[str, frozenset[str]] | None = None,
    refused: Mapping[str, str] | None = None,
    scheduler: Scheduler = None,
) -> Proposal:
    """Find a recipe for each of the tables `asked` and rebuild it into scratch; those of which nothing stands in the way.

    `among` are those that some tables must be rebuilt from, `refused` what the caller knows against retiring a table. What is
    asked must come from a scan of the tables as they stand.
    """
    lake, against = Lake.open(settings), refused or {}
    with connect(scheduler) as workers:
        ground = _Ground(lake, settings, asked, among or {}, retired(lake), workers)
        found = {table: _why_not(ground, table) or against.get(table) or _proposed(ground, table) for table in sorted(asked)}
    ready = tuple(one for one in found.values() if isinstance(one, Retirement))
    reasons = {table: one for table, one in found.items() if isinstance(one, str)}
    discard(lake, [table for table in reasons if table not in ground.taken])
    return Proposal(ready, reasons)


def discard(lake: Lake, tables: Sequence[str]) -> None:
    """Drop what recipes need beside the parents of tables."""
    for name in (f"{stage}{table}" for table in tables for stage in (MEMBERS, RESIDUAL)):
        if lake.exists(name):
            lake.drop(name)


def _proposed(ground: _Ground, table: str) -> Retirement | str:
    """The retirement of one table, or why it cannot be rebuilt."""
    asked = ground.asked[table]
    parents = {*asked.parents, *(parent for way in asked.ways for parent in way.parents)}
    sizes = {name: _n_bytes(ground.lake, RECORDS + name) for name in {table, *parents}}
    way = _chosen(ground, table, sizes)
    return way if isinstance(way, str) else _proved(ground, table, way, sizes)


def _why_not(ground: _Ground, table: str) -> str | None:
    """What forbids to retire a table, whatever its parents are."""
    if table.startswith(FOREIGN):
        return "it is another writer's"
    if table in ground.taken:
        return "it is retired already"
    if not ground.lake.exists(RECORDS + table):
        return "the lake has no such table"
    if ground.asked[table].apart:
        return f"its containments prove nothing: {ground.asked[table].apart}"
    if (pattern := ground.settings.retention.kept_by(table)) is not None:
        return f"[retention] keep names it ({pattern})"
    children = dependents(ground.taken).get(table)
    return f"it rebuilds {', '.join(children)}, retired before" if children else None


def asked_of(scanned: DedupResult, table: str, parents: Sequence[str] = ()) -> Asked:
    """What a scan knows of a table that is to be retired, from these parents if any are named."""
    return Asked(tuple(parents), ways(scanned, table), scanned.listed_apart.get(table, ""))


def ways(scanned: DedupResult, table: str) -> tuple[Way, ...]:
    """All that a table can be rebuilt from, as the scan found exactly."""
    edges = [e for e in (*scanned.edges, *scanned.near) if e.child == table and e.exact and (e.multiset or e.n_residual)]
    found = [Way((e.parent,), None, 0 if e.multiset else e.n_residual) for e in edges]
    found += [Way((r.parent,), r.columns) for r in scanned.renames if r.child == table and r.multiset]
    found += [Way(tuple(sorted(c.parents))) for c in scanned.covers if c.child == table and c.multiset]
    return tuple(found)


def _chosen(ground: _Ground, table: str, sizes: Mapping[str, int]) -> Way | str:
    """The way whose parents have the fewest bytes, of those that are allowed; or why there is none."""
    asked = tuple(sorted(ground.asked[table].parents))
    found = [w for w in ground.asked[table].ways if (tuple(sorted(w.parents)) == asked if asked else not w.n_residual)]
    if asked and not found:  # somebody knows better: what these lack is kept beside
        found = [Way(asked, None, ground.lake.snapshot(RECORDS + table).n_rows)]
    if not found:
        return "no table holds all its rows with their copies, as the scan found. See: lethe dedup"
    free = [way for way in found if not any(_is_taken(ground, parent) for parent in way.parents)]
    if not free:
        return f"{_named(found)} cannot rebuild it: retired, to be retired in this call, another writer's, or not in the lake"
    wanted = ground.among.get(table)
    fit = [way for way in free if wanted is None or (set(way.parents) <= wanted and not way.n_residual)]
    if not fit:
        return f"a dataset's pool names it, and not {_named(free)}, which would stand for it there. Name that one in the pool"
    return min(fit, key=lambda way: (way.n_residual, sum(sizes[parent] for parent in way.parents), way.parents))


def _is_taken(ground: _Ground, parent: str) -> bool:
    gone = parent in ground.taken or parent in ground.asked
    return gone or parent.startswith(FOREIGN) or not ground.lake.exists(RECORDS + parent)


def _named(found: Sequence[Way]) -> str:
    return " or ".join(sorted({" with ".join(way.parents) for way in found}))


def _proved(ground: _Ground, table: str, way: Way, sizes: Mapping[str, int]) -> Retirement | str:
    """The recipe of a table, once it has rebuilt it; or why not."""
    lake, child = ground.lake, ground.lake.snapshot(RECORDS + table)
    parents = [lake.snapshot(RECORDS + parent) for parent in way.parents]
    _LOG.info("%s: looking for a recipe from %s", table, ", ".join(way.parents))
    try:
        recipe = find_recipe(lake, ground.settings, child, parents, columns=way.columns, workers=ground.workers)
    except NoRecipe as none:
        return str(none).removeprefix(f"{table}: ")  # the refusal names it already
    seconds = rebuilt_s(lake, ground.settings, recipe, ground.workers)
    limit = ground.settings.retention.limit_s(table)
    if seconds is None:
        return "its recipe did not give the same rows again"
    if seconds > limit:
        return f"rebuilding it took {seconds:.1f} s, more than [retention] max_rebuild_s = {limit:g}"
    beside = kept_bytes(lake, recipe)
    saving = _saving(ground.settings, table, sum(sizes[parent] for parent in way.parents), sizes[table], beside)
    if ground.asked[table].must_save and saving <= 0.0:
        return f"its recipe keeps {beside:,} bytes beside the parents, which leaves nothing to save"
    return Retirement(recipe, child, sizes[table], saving, seconds, lake.lineage(child).params)


def rebuilt_s(lake: Lake, settings: Settings, recipe: Recipe, workers: Workers) -> float | None:
    """Rebuild a table into scratch: the seconds that it took, None where the rows are not those that the recipe promises."""
    start = time.perf_counter()
    with lake.scratch() as place:
        files = rebuild(lake, settings, recipe, workers=workers, folder=Folder(place, lake.keys.row))
    is_same = fingerprint_of(files) == Digest.parse(recipe.digest)
    return time.perf_counter() - start if is_same else None


def _saving(settings: Settings, table: str, parent_bytes: int, n_bytes: int, beside: int) -> float:
    """US dollars a month, by the price book; `beside` are the bytes that the recipe needs beside the parents."""
    prices = settings.retention
    told = prices.accesses_of(table)
    accesses = prices.accesses_per_month if told is None else told
    rebuilt = rebuild_cost(parent_bytes, n_bytes, prices, residual_bytes=beside)
    return keep_cost(n_bytes, prices).monthly(accesses) - rebuilt.monthly(accesses)


def _n_bytes(lake: Lake, table: str) -> int:
    """The bytes of a table's data files; 0 for one that is not the lake's own."""
    return sum(part.file.n_bytes for part in lake.parts(lake.snapshot(table))) if lake.exists(table) else 0


# --- retiring ------------------------------------------------------------------------------------------------------------------


@task(name="retire", persist_result=False)
@discreet
def retire(settings: Settings, proposal: Proposal, *, approved: Mapping[str, str]) -> tuple[str, ...]:
    """Remove the tables of a proposal that was approved; returns their names. `approved` says how, for the log of `recipes`.

    Raises `RetireRefused` before the first removal where a table or its parents moved since they were proposed. The lake's lease
    is held alone.
    """
    lake = Lake.open(settings)
    with lake.writing():
        taken, names = retired(lake), [one.table for one in proposal.tables]
        for one in proposal.tables:
            _refuse_moved(lake, one, taken)
        for one in proposal.tables:
            put(lake, entry_of(one.recipe, one.n_bytes, one.params), {**approved, "plan": proposal.digest})
            lake.retire(RECORDS + one.table)
            _LOG.info("%s: retired, %d bytes", one.table, one.n_bytes)
    return tuple(names)


def entry_of(recipe: Recipe, n_bytes: int, params: Mapping[str, Any]) -> Retired:
    """The row of `recipes` that retires a table."""
    parents = tuple(snapshot.table.removeprefix(RECORDS) for snapshot in recipe.parents)
    text = json.dumps({"recipe": as_json(recipe), "params": dict(params)}, sort_keys=True)
    now = datetime.now(UTC)
    return Retired(recipe.table, recipe.kind, text, parents, recipe.digest, recipe.n_rows, n_bytes, now)


def _refuse_moved(lake: Lake, one: Retirement, taken: Mapping[str, Retired]) -> None:
    """A proposal holds for the rows that it was made on, while others may have written."""
    recipe = one.recipe
    used = [snapshot for snapshot in (*recipe.parents, recipe.members, recipe.residual) if snapshot is not None]
    gone = [parent for parent in one.parents if parent in taken]
    moved = [s.table for s in (one.child, *used) if not lake.exists(s.table) or lake.snapshot(s.table).digest != s.digest]
    stale = [s.table for s in used if s.table not in moved and not lake.is_readable(s)]
    if one.table in taken or gone or moved or stale or one.table in dependents(taken):
        what = ", ".join(sorted({*gone, *(name.removeprefix(RECORDS) for name in (*moved, *stale))} or {one.table}))
        raise RetireRefused(f"{one.table}: {what} changed since this was proposed; nothing was removed. Run it again")


# --- ending what was killed ----------------------------------------------------------------------------------------------------


def settle(lake: Lake, *, keep: Sequence[str] = ()) -> None:
    """End what was killed: remove what is left of retired tables, and drop what recipes needed that never came to be (but for
    the tables `keep`). Only call it with `writing()` held."""
    found = retired(lake)
    for name in leftovers(lake):
        finish_removal(lake, found[name])
    beside = {name.partition("/")[2] for stage in (MEMBERS, RESIDUAL) for name in lake.tables(stage)}
    discard(lake, sorted(beside - found.keys() - set(keep)))


def leftovers(lake: Lake) -> list[str]:
    """Retired tables that a killed removal, or a killed restoring, left something of."""
    return [name for name in sorted(retired(lake)) if lake.exists(RECORDS + name)]


def finish_removal(lake: Lake, entry: Retired) -> None:
    """Remove what is left of a retired table. Raises `RetireRefused` where it is another table than the one that was retired."""
    table = RECORDS + entry.table
    if lake.exists(table) and (found := lake.snapshot(table).digest) != entry.digest:
        raise RetireRefused(
            f"{entry.table} is retired with digest {entry.digest}, and {lake.uri(table)} holds other rows ({found}). "
            f"Move that folder elsewhere, then run: lethe restore {entry.table}"
        )
    lake.retire(table)
