"""The door of `lethe select NAME --neighbours`: records that lie near to evaluation items, for a person to compare.

Nothing here is a Prefect task and nothing is written, as with `explain_task`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from infra.contracts import SELECTION, LetheError, Snapshot
from infra.discretion import discreet
from infra.files import read_part
from infra.ids import I64
from infra.lake import Lake
from infra.settings import Settings
from tasks.kernels.kmeans import UNIT
from tasks.select.explain import excerpt
from tasks.select.explain_task import RECORDS, Ground, ground_of, texts_of

_DECIDED = ("row_id", "keep", "reason")
_ORDER = ("distance", "table", "item", "row_id")


class NotReviewed(LetheError):
    """Nobody asked for the neighbours of a dataset's evaluation items, or they are of another selection."""


@dataclass(frozen=True)
class Pair:
    """An evaluation item and a record near to it. `similarity` is the cosine of their embeddings, 1 for the same direction.

    `table` is the item's; `keep` and `reason` are the selection's of the record. Texts are there where they were asked for.
    """

    item: int
    table: str
    row_id: int
    similarity: float
    keep: bool
    reason: str
    item_text: str | None = field(default=None, repr=False)
    text: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Review:
    """The first pairs of a list of `n_pairs`, of `n_items` evaluation items; in `n_kept` of them the record is kept."""

    dataset: str
    n_pairs: int
    n_items: int
    n_kept: int
    pairs: tuple[Pair, ...]


@discreet
def review(settings: Settings, dataset: str, n: int = 10, *, texts: bool = False) -> Review:
    """`n` pairs from `neighbours/<dataset>`: records that are kept before others, the most similar first.

    Raises `NotReviewed` where lethe.toml asks for none, or the list is not of the newest selection, `UnknownTable` before the
    first selection, and with `texts` `StaleSnapshot` where the tables that it was made from are gone.
    """
    if not settings.dataset(dataset).select.reviews:
        raise NotReviewed(
            f"dataset {dataset} lists no neighbours of evaluation items. Add neighbours = 3 to "
            f"[datasets.{dataset}.select.decontaminate], and run: lethe select {dataset}"
        )
    ground = ground_of(settings, dataset)
    table = _judged(ground, ground.lake.read(_listed(ground)))
    first = table.sort_by([("keep", "descending"), *((name, "ascending") for name in _ORDER)]).slice(0, n)
    read = _texts(settings, ground, first) if texts else {}
    n_kept = int(np.count_nonzero(table.column("keep")))
    return Review(dataset, table.num_rows, len(table.column("item").unique()), n_kept, _pairs(first, read))


def n_listed(settings: Settings, lake: Lake) -> dict[str, int]:
    """The pairs that are listed for review, by dataset; those that lethe.toml asks for."""
    asked = [name for name, dataset in settings.datasets.items() if dataset.select.reviews]
    return {name: lake.snapshot(_name(name)).n_rows for name in sorted(asked) if lake.exists(_name(name))}


def _name(dataset: str) -> str:
    return f"neighbours/{dataset}"


def _listed(ground: Ground) -> Snapshot:
    """The list, where it is that of the selection."""
    name = _name(ground.dataset)
    found = ground.lake.snapshot(name) if ground.lake.exists(name) else None
    if found is None or ground.lake.lineage(found).key != ground.lineage.key:
        raise NotReviewed(
            f"dataset {ground.dataset} has no list of neighbours of its selection as it is. Run: lethe select {ground.dataset}"
        )
    return found


def _judged(ground: Ground, listed: pa.Table) -> pa.Table:
    """The list, with what the selection decided about each record."""
    wanted, decided = pc.unique(listed.column("row_id")), list[pa.RecordBatch]()
    for part in ground.lake.parts(ground.snapshot):
        for batch in read_part(part, [*_DECIDED]):
            decided.append(batch.filter(pc.is_in(batch.column("row_id"), value_set=wanted)))
    schema = pa.schema([SELECTION.field(name) for name in _DECIDED])
    return listed.join(pa.Table.from_batches(decided, schema), "row_id", join_type="inner")


def _pairs(listed: pa.Table, texts: Mapping[int, str]) -> tuple[Pair, ...]:
    return tuple(
        Pair(
            item=row["item"],
            table=row["table"],
            row_id=row["row_id"],
            similarity=similarity(row["distance"]),
            keep=row["keep"],
            reason=row["reason"],
            item_text=texts.get(row["item"]),
            text=texts.get(row["row_id"]),
        )
        for row in listed.to_pylist()
    )


def similarity(distance: int) -> float:
    """The cosine of two embeddings, from their squared distance in 1 / `UNIT`^2: embeddings of texts have norm `UNIT`."""
    return 1.0 - distance / (2.0 * UNIT * UNIT)


def _texts(settings: Settings, ground: Ground, nearest: pa.Table) -> dict[int, str]:
    """Beginnings of the texts of items and records, by row id."""
    evaluations = settings.dataset(ground.dataset).evaluations
    beside = [one for one in ground.lineage.inputs if one.table.removeprefix(RECORDS) in evaluations]
    found = [_read(ground, _ids(nearest, "item"), beside), _read(ground, _ids(nearest, "row_id"), ground.pool)]
    return {row_id: text for part in found for row_id, text in part.items()}


def _read(ground: Ground, row_ids: I64, tables: Sequence[Snapshot]) -> dict[int, str]:
    return {row_id: excerpt(text) for row_id, (_, _, text) in texts_of(ground, row_ids, tables).items()}


def _ids(table: pa.Table, column: str) -> I64:
    return np.asarray(table.column(column))
