"""The doors for retired tables that nothing rebuilds: give them up, and take them off the list once their raw files gave them
again.

One commit to `recipes` gives a table up; what its recipe needed goes afterwards, and whatever settles next ends what was killed.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prefect import task

from infra.cluster import Scheduler, Workers, connect
from infra.contracts import LetheError
from infra.discretion import discreet
from infra.lake import Lake
from infra.retired import RECORDS, Loss, Retired, amend, without_recipe
from infra.settings import Settings
from tasks.dedup.lost import listed, loss_of
from tasks.dedup.restore import Restored
from tasks.dedup.retire import discard, settle

_LOG = logging.getLogger("lethe.dedup")


class Rebuildable(LetheError):
    """A table is to be given up that its recipe still rebuilds."""


@dataclass(frozen=True)
class GivenUp:
    """A table that was given up: when (ISO 8601), why, the tables that were missing for it, and how many rows it had."""

    table: str
    given_up: str
    reason: str
    missing: tuple[str, ...]
    n_rows: int


@task(name="give-up", persist_result=False)
@discreet
def give_up(settings: Settings, tables: Sequence[str], *, keep: bool = False, scheduler: Scheduler = None) -> tuple[GivenUp, ...]:
    """Give up retired tables that cannot be rebuilt: their recipes are dropped, their rows in `recipes` say when and why. Again,
    after a kill or not: what is missing is done. With `keep`, what lies beside the recipes stays (see `retired_still`).

    Raises `NotRetired`, and `Rebuildable` for a table that a recipe rebuilds, before anything is given up. The lake's lease is
    held alone.
    """
    lake, names = Lake.open(settings), list(dict.fromkeys(tables))
    with lake.writing(), connect(scheduler) as workers:
        settle(lake, keep=names)
        found = listed(lake, names)
        losses = {name: _loss(lake, settings, entry, workers) for name, entry in found.items() if not entry.is_given_up}
        lost = {name: without_recipe(found[name], loss) for name, loss in losses.items()}
        amend(lake, lambda rows: {**rows, **lost}, {"given up": sorted(lost)})
        _LOG.info("%d tables given up", len(lost))
        if not keep:
            discard(lake, names)
    return tuple(_told(entry) for entry in listed(lake, names).values())


def _loss(lake: Lake, settings: Settings, entry: Retired, workers: Workers) -> Loss:
    if entry.is_suspended:
        raise Rebuildable(f"{entry.table} is in the lake: it was brought back for an erasure. Run: lethe forget")
    loss = loss_of(lake, settings, entry, workers)
    if loss is None:
        raise Rebuildable(f"{entry.table} can be rebuilt from {', '.join(entry.parents)}. Run: lethe restore {entry.table}")
    return loss


def _told(entry: Retired) -> GivenUp:
    return GivenUp(entry.table, entry.given_up, entry.loss.reason, entry.loss.missing, entry.n_rows)


@task(name="retired-still", persist_result=False)
@discreet
def retired_still(settings: Settings, before: Mapping[str, Retired]) -> None:
    """Give tables that were given up a moment ago, with `keep`, their recipes again; those that are in the lake by now stay as
    they are."""
    lake = Lake.open(settings)
    with lake.writing():
        still = {name: entry for name, entry in before.items() if not lake.exists(RECORDS + name)}
        amend(lake, lambda rows: {**rows, **still}, {"retired still": sorted(still)})


@task(name="taken-in", persist_result=False)
@discreet
def taken_in(settings: Settings, tables: Sequence[str], *, n_suppressed: Mapping[str, int]) -> tuple[Restored, ...]:
    """Take tables that were given up off the list, once ingest has brought them back; each is compared with what was retired.
    `n_suppressed`: how many rows of each ingest refused because they are of subjects who asked to be erased."""
    lake = Lake.open(settings)
    with lake.writing():
        done = [_compared(lake, entry, n_suppressed.get(name, 0)) for name, entry in listed(lake, tables).items()]
        same = {one.table: one.same for one in done}
        amend(lake, lambda rows: {name: entry for name, entry in rows.items() if name not in same}, {"from raw files": same})
        discard(lake, list(same))
    return tuple(done)


def _compared(lake: Lake, entry: Retired, n_suppressed: int) -> Restored:
    now = lake.snapshot(RECORDS + entry.table)
    n_bytes = sum(part.file.n_bytes for part in lake.parts(now))
    same = now.digest == entry.digest
    _LOG.info("%s: restored from raw files, %d rows, %d were retired", entry.table, now.n_rows, entry.n_rows)
    return Restored(
        entry.table,
        (),
        now.n_rows,
        n_bytes,
        now.version,
        now.digest,
        0.0,
        same=same,
        n_rows_retired=entry.n_rows,
        n_suppressed=n_suppressed,
        from_raw=True,
    )
