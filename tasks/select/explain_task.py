"""The door of `lethe select NAME --why` and `--samples`: records of a selection with their texts, for a person's eyes.

Nothing here is a Prefect task and nothing is written: what a person asks to see of a record is kept nowhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from infra.contracts import CONTAMINATED, CONTAMINATION, LetheError, Lineage, Snapshot, UnknownTable
from infra.discretion import discreet
from infra.files import Part, read_part
from infra.ids import I64, keyed_bits, seed_of
from infra.lake import Lake
from infra.settings import Settings
from tasks.select.budget import Mask
from tasks.select.explain import Decision, Ratios, Shared, Weighed, excerpt, said, shared_spans, weighed
from tasks.select.parity import parity_ratios
from tasks.select.weights import SCALE, log_ratios

RECORDS = "records/"
_TARGET = "target:"
_CLOSE = 1e-6


class UnknownRecord(LetheError):
    """No decision of that selection is about that record."""


@dataclass(frozen=True)
class Why:
    """All that there is to say of a record. `n_copies` are those in the pool; `representative` is the text that stands for it.

    `noise` is the part of the key that is chance: key = log weight / temperature + noise. `weights`, one a target, is empty where
    they are not of n-grams; `is_old`: the counts have moved on since the selection, and the weights with them.
    """

    dataset: str
    decision: Decision
    said: str
    table: str
    n_copies: int
    text: str = field(repr=False)
    noise: float | None
    threshold: float | None
    weights: tuple[Weighed, ...] = ()
    shared: tuple[Shared, ...] = ()
    representative: str | None = field(default=None, repr=False)
    is_old: bool = False


@dataclass(frozen=True)
class Sample:
    """A record of the selection, drawn for a person to read."""

    decision: Decision
    said: str
    table: str
    text: str = field(repr=False)


@dataclass(frozen=True)
class Ground:
    """What an answer stands on: a selection, why it exists, and the tables of its pool."""

    lake: Lake
    settings: Settings
    dataset: str
    snapshot: Snapshot
    lineage: Lineage
    pool: tuple[Snapshot, ...]

    @property
    def chosen(self) -> Mapping[str, Any]:
        return self.lineage.params["select"]


@discreet
def why(settings: Settings, dataset: str, row_id: int, *, n_most: int = 10) -> Why:
    """Why a record of the pool was kept or dropped, from the newest selection of a dataset.

    Raises `UnknownTable` before the first selection, `UnknownRecord` for a row id that it has not, and `StaleSnapshot` where the
    tables that it was made from are gone.
    """
    ground = ground_of(settings, dataset)
    decision = next(iter(_decisions(ground, np.array([row_id]))), None)
    if decision is None:
        raise UnknownRecord(
            f"the selection of dataset {dataset} has no such row id. Take one from: lethe select {dataset} --samples"
        )
    wanted = np.array([row_id, *([decision.representative] if decision.representative is not None else [])])
    found = texts_of(ground, wanted, ground.pool)
    table, n_copies, text = found.get(row_id, ("", 0, ""))
    weights = tuple(weighed(text, ratios, n_most=n_most) for ratios in ratios_of(ground.lake, dataset, ground.chosen))
    threshold = threshold_of(ground, decision, weights)
    return Why(
        dataset,
        decision,
        said(decision, threshold),
        table,
        n_copies,
        excerpt(text),
        _noise(decision, ground.chosen),
        threshold,
        weights,
        _shared(ground, decision, text),
        excerpt(found[decision.representative][2]) if decision.representative in found else None,
        is_old=not _agrees(decision, weights),
    )


@discreet
def samples(settings: Settings, dataset: str, n: int = 10) -> tuple[list[Sample], list[Sample]]:
    """`n` kept and `n` dropped records of the newest selection: a keyed draw, the same until the selection changes.

    Raises as `why` does.
    """
    ground = ground_of(settings, dataset)
    kept, dropped = _drawn(ground, n)
    found = texts_of(ground, np.concatenate([kept, dropped]), ground.pool)
    told = [
        Sample(one, said(one, threshold_of(ground, one)), table, excerpt(text))
        for one in _decisions(ground, np.concatenate([kept, dropped]))
        for table, _, text in [found.get(one.row_id, ("", 0, ""))]
    ]
    return [one for one in told if one.decision.keep], [one for one in told if not one.decision.keep]


def ground_of(settings: Settings, dataset: str) -> Ground:
    """The newest selection of a dataset. Raises `UnknownTable` before the first."""
    pool, lake = settings.dataset(dataset).pool, Lake.open(settings)
    table = f"selection/{dataset}"
    if not lake.exists(table):
        raise UnknownTable(f"dataset {dataset} has no selection yet. Run: lethe select {dataset}")
    snapshot = lake.snapshot(table)
    lineage = lake.lineage(snapshot)
    tables = tuple(one for one in lineage.inputs if one.table.removeprefix(RECORDS) in pool)
    return Ground(lake, settings, dataset, snapshot, lineage, tables)


# --- the selection -------------------------------------------------------------------------------------------------------------


def _decisions(ground: Ground, row_ids: I64) -> list[Decision]:
    """The decisions on some records, in the order of row ids."""
    found = [Decision(**row) for part in ground.lake.parts(ground.snapshot) for row in _rows(part, row_ids)]
    return sorted(found, key=lambda one: one.row_id)


def _rows(part: Part, row_ids: I64) -> Iterator[dict[str, Any]]:
    bounds = part.file.stats.get("row_id", {})
    if "min" in bounds and not ((row_ids >= bounds["min"]) & (row_ids <= bounds["max"])).any():
        return
    for batch in read_part(part):
        yield from batch.filter(pa.array(np.isin(np.asarray(batch.column("row_id")), row_ids))).to_pylist()


def _drawn(ground: Ground, n: int) -> tuple[I64, I64]:
    """Row ids of `n` kept and `n` dropped records: those whose keyed bits are the least."""
    drawn = [np.zeros(0, np.int64), np.zeros(0, np.int64)]
    seed = seed_of("select", ground.dataset, "samples")
    for part in ground.lake.parts(ground.snapshot):
        for batch in read_part(part, ["row_id", "keep"]):
            row_ids, keep = np.asarray(batch.column("row_id")), np.asarray(batch.column("keep"))
            drawn = [_least(had, row_ids[which], n, seed) for had, which in zip(drawn, (keep, ~keep), strict=True)]
    return drawn[0], drawn[1]


def _least(had: I64, more: I64, n: int, seed: int) -> I64:
    row_ids = np.concatenate([had, more])
    return row_ids[np.argsort(keyed_bits(row_ids, "samples", seed), kind="stable")[:n]]


def threshold_of(ground: Ground, decision: Decision, weights: Sequence[Weighed] = ()) -> float | None:
    """The least key that the budget keeps, of the target that the record's key is for where there are several; None: all are."""
    summary = ground.lineage.summary
    return summary.get("thresholds", {}).get(decision.target or _nearest(decision, weights), summary.get("threshold"))


def _nearest(decision: Decision, weights: Sequence[Weighed]) -> str | None:
    """The target that a dropped record's log weight is for: it is told without its name."""
    if decision.log_weight is None:
        return None
    known = [(abs(one.log_weight - decision.log_weight), one.target) for one in weights if one.log_weight is not None]
    return min(known)[1] if known else None


def _noise(decision: Decision, chosen: Mapping[str, Any]) -> float | None:
    if decision.key is None or decision.log_weight is None:
        return None
    return decision.key - decision.log_weight / temperature_of(chosen)


def temperature_of(chosen: Mapping[str, Any]) -> float:
    """The temperature that weights are divided by; the reference has none."""
    return 1.0 if chosen["mode"] == "parity" else float(chosen["temperature"])


# --- the pool ------------------------------------------------------------------------------------------------------------------


def texts_of(ground: Ground, row_ids: I64, tables: Sequence[Snapshot]) -> dict[int, tuple[str, int, str]]:
    """Of records of some tables by row id: the table, the number of copies, and the text (all cells where a table has no text
    column)."""
    found = dict[int, tuple[str, int, str]]()
    for snapshot in tables:
        name = snapshot.table.removeprefix(RECORDS)
        column = ground.settings.table(name).text
        for part in ground.lake.parts(snapshot):
            for row_id, text in _met(part, row_ids, column):
                found[row_id] = (name, found[row_id][1] + 1 if row_id in found else 1, text)
    return found


def _met(part: Part, row_ids: I64, column: str | None) -> Iterator[tuple[int, str]]:
    """Row ids and texts of the records in a file that are asked for; texts are read only of a file that has one."""
    if not any(_asked(batch, row_ids).any() for batch in read_part(part, ["row_id"])):
        return
    names = ["row_id", column] if column is not None else part.schema.names
    for batch in read_part(part, names):
        rows = batch.filter(pa.array(_asked(batch, row_ids)))
        for place, row_id in enumerate(rows.column("row_id").to_pylist()):
            yield row_id, _text(rows, place, column)


def _asked(batch: pa.RecordBatch, row_ids: I64) -> Mask:
    return np.isin(np.asarray(batch.column("row_id")), row_ids)


def _text(rows: pa.RecordBatch, place: int, column: str | None) -> str:
    if column is None:
        return ", ".join(f"{name}: {rows.column(name)[place]}" for name in rows.schema.names if name != "row_id")
    raw = rows.column(column).slice(place, 1).cast(pa.large_binary())[0].as_py()
    return "" if raw is None else raw.decode("utf-8", "replace")


# --- weights and spans ---------------------------------------------------------------------------------------------------------


def ratios_of(lake: Lake, dataset: str, chosen: Mapping[str, Any]) -> list[Ratios]:
    """What the weights of a selection are a function of, a target each, from `ngram_counts/<dataset>`; none for other methods."""
    table = f"ngram_counts/{dataset}"
    if not lake.exists(table):
        return []
    counts = dict[str, I64]()
    for row in lake.read(lake.snapshot(table)).to_pylist():
        name = row["table"] if row["table"].startswith(_TARGET) else ""
        halves = np.asarray(row["counts"], np.int64).reshape(2, -1)
        counts[name] = counts.get(name, np.zeros(halves.shape[1], np.int64)) + halves.sum(axis=0)
    raw = counts.pop("", None)
    targets = {name.removeprefix(_TARGET): found for name, found in sorted(counts.items()) if found.any()}
    return [_ratios(name, found, raw, chosen) for name, found in targets.items()] if raw is not None else []


def _ratios(target: str, counts: I64, raw: I64, chosen: Mapping[str, Any]) -> Ratios:
    if chosen["mode"] == "parity":
        return Ratios(target, parity_ratios(counts, raw), None, normalize=False)
    nats = log_ratios(counts, raw, smoothing=chosen["smoothing"]) / SCALE
    return Ratios(target, nats, seed_of("select", chosen["seed"], "weights"), normalize=chosen["normalize"])


def _agrees(decision: Decision, weights: Sequence[Weighed]) -> bool:
    """Whether the weights are those that the decision was made by."""
    known = [one.log_weight for one in weights if one.log_weight is not None]
    if decision.log_weight is None or not known:
        return True
    return min(abs(one - decision.log_weight) for one in known) <= _CLOSE * max(1.0, abs(decision.log_weight))


def _shared(ground: Ground, decision: Decision, text: str) -> tuple[Shared, ...]:
    """The text that a record shares with evaluation tables: in runs as long as the decision asks for."""
    table = f"contamination/{ground.dataset}"
    if not ground.lake.exists(table):
        return ()
    parts = ground.lake.parts(ground.lake.snapshot(table))
    rows = [row for part in parts for row in _rows(part, np.array([decision.row_id]))]
    hits = pa.Table.from_pylist(rows, CONTAMINATION)
    copies = hits.group_by(hits.column_names).aggregate([])
    judged = decision.reason == CONTAMINATED or decision.cuts is not None
    return shared_spans(text, copies, n_words=decision.bound or 0 if judged else 0)
