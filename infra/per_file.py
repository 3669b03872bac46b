"""Tables that are derived a data file at a time: what is new is measured, what is gone is let go, in one commit.

A data file never changes, so what was measured of it in one way (the same code and parameters, as the lineage tells them) holds
for as long as it is there. Such a table has one data file for each file that it was measured of, under that one's `source_key`:
- a file is measured once: a run measures those that no earlier run measured in the same way;
- what was measured of an erased row goes with the file that held the row;
- a run that is killed leaves the table as it was, and the next one measures what is missing;
- of two runs at once, the later one to commit plans again on what the other left: a file that both measured is there once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import TypeVar

import pyarrow as pa

from infra.contracts import CommitConflict, DataFile, Lineage, Snapshot
from infra.files import Part
from infra.lake import Lake, no_table

_TRIES = 8  # commits that may meet another run's before the conflict is told
_T = TypeVar("_T")
_Made = TypeVar("_Made")


def updated(
    lake: Lake,
    table: str,
    wanted: Mapping[str, _T],
    measure: Callable[[Sequence[_T]], Sequence[DataFile]],
    *,
    schema: pa.Schema,
    lineage: Lineage,
) -> Snapshot:
    """The table, brought up to the files that are `wanted`, by their source keys; found, where it is up to them already.

    `measure` gives a data file, written into the table's folder under the file's source, for each file that is new, in their
    order. Raises `CommitConflict` where other runs go on committing first.
    """
    fresh = dict[str, DataFile]()

    def attempt() -> Snapshot:
        base = lake.snapshot(table) if lake.exists(table) else no_table(table)
        known = _measured_alike(lake, base, lineage)
        has = {file.source: file for file in known or ()}
        missing = [key for key in wanted if key not in has and key not in fresh]
        if missing:
            fresh.update(zip(missing, measure([wanted[key] for key in missing]), strict=True))
        add = [fresh[key] for key in wanted if key not in has]
        stays = {file.path for key, file in has.items() if key in wanted}
        gone = [file for file in known or () if file.path not in stays]
        if known is not None and not add and not gone:
            return base
        return lake.commit(table, schema, add, remove=gone, lineage=lineage, overwrite=known is None, expect=base)

    return _tried(attempt)


def is_up_to_date(lake: Lake, table: str, wanted: Collection[str], lineage: Lineage) -> bool:
    """Whether `updated` would find the table as it is to be."""
    base = lake.snapshot(table) if lake.exists(table) else no_table(table)
    known = _measured_alike(lake, base, lineage)
    return known is not None and {file.source for file in known} == set(wanted)


def let_go(lake: Lake, table: str, wanted: Collection[str]) -> None:
    """Take out of a table, where there is one, what was measured of other files than these (source keys): it may be of erased
    rows. Raises `CommitConflict` as `updated` does."""

    def attempt() -> None:
        snapshot = lake.snapshot(table)
        gone = [part.file for part in lake.parts(snapshot) if part.file.source not in wanted]
        if gone:
            lake.commit(table, lake.schema(snapshot), [], remove=gone, lineage=lake.lineage(snapshot), expect=snapshot)

    if lake.exists(table):
        _tried(attempt)


def by_source(lake: Lake, snapshot: Snapshot) -> dict[str, Part]:
    """The files of such a table by the source keys of those that they were measured of."""
    return {part.file.source: part for part in lake.parts(snapshot)}


def _measured_alike(lake: Lake, base: Snapshot, lineage: Lineage) -> list[DataFile] | None:
    """The files of the table; None where it is not there, or was measured in another way."""
    if base.version < 0:
        return None
    before = lake.lineage(base)
    if (before.code, before.params) != (lineage.code, lineage.params):
        return None
    return [part.file for part in lake.parts(base)]


def _tried(attempt: Callable[[], _Made]) -> _Made:
    """What an attempt comes to, made again for as long as another run's commit comes before its own."""
    for _ in range(_TRIES - 1):
        with suppress(CommitConflict):
            return attempt()
    return attempt()
