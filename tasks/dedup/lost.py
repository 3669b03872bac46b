"""Retired tables that cannot be rebuilt any more: how they are told, and the ways out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from infra.cluster import Workers
from infra.contracts import LetheError, Snapshot, StaleSnapshot, UnknownTable
from infra.files import MissingFile
from infra.lake import Lake
from infra.retired import RECORDS, Loss, Retired, entries, why_absent
from infra.settings import Settings
from tasks.dedup.recipes import NoRecipe, Recipe, of_json
from tasks.dedup.retire import rebuilt_s

_MISSING = "the lake lacks tables that it is rebuilt from"
_UNREADABLE = "versions of the tables that it is rebuilt from cannot be read"
_OTHER_ROWS = "the tables that it is rebuilt from do not give its rows any more"


class NotRetired(LetheError):
    """A table is to be restored that is not retired."""


class Unrestorable(LetheError):
    """A recipe does not give its table again; the message says what was lost, and the ways out."""


def ways_out(tables: Iterable[str]) -> str:
    """What can be done about tables that nothing rebuilds."""
    names = " ".join(tables)
    return f"Take it in from its raw files: lethe restore {names} --from-raw, or give it up: lethe restore {names} --give-up"


def listed(lake: Lake, tables: Sequence[str]) -> dict[str, Retired]:
    """The rows of tables that are retired, suspended or given up. Raises `NotRetired` for any other."""
    found = entries(lake)
    for name in (name for name in tables if name not in found):
        known = ", ".join(sorted(found)) or "none"
        raise NotRetired(f"{name} is not retired; retired tables: {known}. See: lethe status")
    return {name: found[name] for name in tables}


def recipe_of(entry: Retired) -> Recipe:
    """The recipe of a retired table. Raises `Unrestorable` for one that was given up."""
    if entry.is_given_up:
        raise Unrestorable(why_absent(entry))
    return of_json(json.loads(entry.recipe)["recipe"])


def standing(lake: Lake, recipe: Recipe) -> Recipe:
    """A recipe on versions that can be read: the pinned ones, else the newest, whose rows may be the same."""

    def one(snapshot: Snapshot) -> Snapshot:
        return lake.snapshot(snapshot.table) if lake.exists(snapshot.table) and not lake.is_readable(snapshot) else snapshot

    members = one(recipe.members) if recipe.members is not None else None
    residual = one(recipe.residual) if recipe.residual is not None else None
    return replace(recipe, parents=tuple(one(parent) for parent in recipe.parents), members=members, residual=residual)


def missing_of(lake: Lake, recipe: Recipe) -> tuple[str, ...]:
    """The tables of the lake that a recipe needs and that are not there."""
    needed = (*recipe.parents, recipe.members, recipe.residual)
    return tuple(one.table for one in needed if one is not None and not lake.exists(one.table))


def refuse_missing(lake: Lake, found: Mapping[str, Retired]) -> None:
    """Raises `Unrestorable` where the lake lacks what retired tables are rebuilt from; the message names all of them."""
    lost = {name: missing_of(lake, recipe_of(entry)) for name, entry in found.items()}
    lost = {name: missing for name, missing in lost.items() if missing}
    if lost:
        told = [f"{name} was made from {', '.join(gone)}, of which the lake has nothing any more" for name, gone in lost.items()]
        parents = {table.removeprefix(RECORDS) for gone in lost.values() for table in gone if table.startswith(RECORDS)}
        first = [f"Bring them back first: lethe ingest {' '.join(sorted(parents))}"] if parents else []
        raise Unrestorable(". ".join([*told, *first, ways_out(lost)]))


def loss_of(lake: Lake, settings: Settings, entry: Retired, workers: Workers) -> Loss | None:
    """Why a retired table cannot be rebuilt; None where it can, which is tried in scratch."""
    recipe = recipe_of(entry)
    if missing := missing_of(lake, recipe):
        return Loss(_MISSING, missing)
    try:
        seconds = rebuilt_s(lake, settings, standing(lake, recipe), workers)
    except (NoRecipe, MissingFile, StaleSnapshot, UnknownTable):
        return Loss(_UNREADABLE)
    return Loss(_OTHER_ROWS) if seconds is None else None
