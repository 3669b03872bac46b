"""Which tables of records are retired: their rows lie no more in the lake, a recipe rebuilds them from others. One row each in
the table `recipes`.

The row decides, whatever still lies in the table's folder: with the row a table is retired, without it, it is there. So one
commit retires a table (its files go afterwards) and one restores it (its files came before), and a kill in between leaves nothing
in doubt.

A table that could not be rebuilt any more and was given up keeps a row, without a recipe: it says when and why, and no raw file
brings the table back until somebody asks for that.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa

from infra.contracts import RECIPES, CommitConflict, LetheError, Lineage
from infra.files import write_part
from infra.ids import key_of
from infra.lake import Lake, no_table

TABLE = "recipes"
RECORDS, MEMBERS, RESIDUAL = "records/", "members/", "residual/"
SUSPENDED = "suspended"  # the kind of a table that was brought back for an erasure and is to be retired again
GIVEN_UP = "given up"  # the kind of a table that could not be rebuilt any more: nothing is left of its recipe
_TRIES = 8


class TableRetired(LetheError):
    """A table is asked for that is retired."""


@dataclass(frozen=True)
class Loss:
    """Why a retired table cannot be rebuilt, and which tables of the lake are `missing` for it."""

    reason: str
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Retired:
    """One retired table, by its name in lethe.toml: how it is rebuilt, from which tables, its digest, rows, and the bytes that it
    took; `recipe` is JSON that the dedup stage reads.

    A suspended one is in the lake like any other, until it is retired again. One that was given up has no recipe any more.
    """

    table: str
    kind: str
    recipe: str
    parents: tuple[str, ...]
    digest: str
    n_rows: int
    n_bytes: int
    retired: dt.datetime

    @property
    def is_suspended(self) -> bool:
        return self.kind == SUSPENDED

    @property
    def is_given_up(self) -> bool:
        return self.kind == GIVEN_UP

    @property
    def is_retired(self) -> bool:
        """Whether its recipe stands for it."""
        return not (self.is_suspended or self.is_given_up)

    @property
    def given_up(self) -> str:
        """When it was given up, ISO 8601."""
        return json.loads(self.recipe)["given_up"]

    @property
    def loss(self) -> Loss:
        """Why it was given up."""
        told = json.loads(self.recipe)["loss"]
        return Loss(told["reason"], tuple(told["missing"]))

    @property
    def params(self) -> dict[str, Any]:
        """What the commit of the table said of it, its subjects among it."""
        return json.loads(self.recipe)["params"]


Entries = Mapping[str, Retired]


def entries(lake: Lake) -> dict[str, Retired]:
    """Every row by table, also of suspended tables and of those given up."""
    return _read(lake, lake.snapshot(TABLE).version) if lake.exists(TABLE) else {}


def retired(lake: Lake) -> dict[str, Retired]:
    """The retired tables by their names in lethe.toml."""
    return {name: entry for name, entry in entries(lake).items() if entry.is_retired}


def given_up(lake: Lake) -> dict[str, Retired]:
    """The tables that were given up and that nothing has brought back since, by their names in lethe.toml."""
    return {name: entry for name, entry in entries(lake).items() if entry.is_given_up and not lake.exists(RECORDS + name)}


def absent(lake: Lake, *, anew: Collection[str] = ()) -> dict[str, Retired]:
    """The tables that no raw file may bring back: retired ones, and those given up but for the ones to be taken in `anew`."""
    found = entries(lake).items()
    return {name: entry for name, entry in found if entry.is_retired or (entry.is_given_up and name not in anew)}


def dependents(found: Entries) -> dict[str, list[str]]:
    """The retired tables that each table has to rebuild."""
    parents = sorted({parent for entry in found.values() if entry.is_retired for parent in entry.parents})
    return {parent: sorted(n for n, e in found.items() if parent in e.parents and e.is_retired) for parent in parents}


def why_retired(table: str) -> str:
    """What is said to somebody who wants a retired table."""
    return f"{table} is retired. Run: lethe restore {table}"


def why_absent(entry: Retired) -> str:
    """What is said to somebody who wants a table that is retired or was given up."""
    if not entry.is_given_up:
        return why_retired(entry.table)
    return (
        f"{entry.table} was given up on {entry.given_up[:10]}: {entry.loss.reason}. Take it out of lethe.toml, or take it in "
        f"from its raw files: lethe restore {entry.table} --from-raw"
    )


def without_recipe(entry: Retired, loss: Loss) -> Retired:
    """The row of a table that is given up now: of its recipe, only what the table's commit said of it stays."""
    now = dt.datetime.now(dt.UTC).isoformat(timespec="microseconds")
    told = {"params": entry.params, "given_up": now, "loss": asdict(loss)}
    return replace(entry, kind=GIVEN_UP, recipe=json.dumps(told, sort_keys=True))


def put(lake: Lake, entry: Retired, params: Mapping[str, Any]) -> None:
    """Put a row in place of the one of its table, in one commit."""
    amend(lake, lambda rows: {**rows, entry.table: entry}, params)


def take(lake: Lake, table: str, params: Mapping[str, Any]) -> None:
    """Take the row of a table out, in one commit: the table is retired no more."""
    amend(lake, lambda rows: {name: entry for name, entry in rows.items() if name != table}, params)


def amend(lake: Lake, change: Callable[[dict[str, Retired]], Entries], params: Mapping[str, Any] | None = None) -> Entries:
    """Change the rows in one commit, which says `params`; on a conflict they are changed as they are then. The rows after it."""
    for _ in range(_TRIES):
        base = lake.snapshot(TABLE) if lake.exists(TABLE) else no_table(TABLE)
        now = _read(lake, base.version) if base.version >= 0 else {}
        fresh = change(dict(now))
        if fresh == now:
            return now
        rows = [{**asdict(entry), "parents": list(entry.parents)} for _, entry in sorted(fresh.items())]
        batch = pa.RecordBatch.from_pylist(rows, schema=RECIPES)
        files = [write_part(lake.folder(TABLE), [batch], RECIPES)] if rows else []
        lineage = Lineage("retire", key_of(TABLE, [file.digest for file in files]), "", params=dict(params or {}))
        try:
            lake.commit(TABLE, RECIPES, files, lineage=lineage, overwrite=True, expect=base)
        except CommitConflict:
            continue
        return fresh
    raise CommitConflict(f"{TABLE}: {_TRIES} writes in a row met another writer. Run the command again")


def _read(lake: Lake, version: int) -> dict[str, Retired]:
    rows: list[dict[str, Any]] = lake.read(lake.snapshot(TABLE, version)).to_pylist()
    read = [Retired(**row) for row in rows]
    return {entry.table: replace(entry, parents=tuple(entry.parents)) for entry in read}
