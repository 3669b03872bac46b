"""What a curated dataset rests on: its training set and the records it was decided on. Read without Prefect and torch."""

from __future__ import annotations

from flows.workspace import RECORDS
from infra.contracts import LetheError, Snapshot
from infra.lake import Lake


class NotCurated(LetheError):
    """A model or an export is asked for before its training set is there."""


def pool_of_training_set(lake: Lake, dataset: str) -> tuple[Snapshot, tuple[Snapshot, ...]]:
    """The newest training set of a dataset and the record tables it was decided on. Raises `NotCurated`."""
    table = f"training_set/{dataset}"
    if not lake.exists(table):
        raise NotCurated(f"dataset {dataset} has no training set yet. Run: lethe curate {dataset}")
    training_set = lake.snapshot(table)
    inputs = lake.lineage(training_set).inputs
    return training_set, tuple(_newest(lake, s) for s in inputs if s.table.startswith(RECORDS))


def _newest(lake: Lake, snapshot: Snapshot) -> Snapshot:
    """The latest version with the same rows: the one decided on may have been purged since, its rows may not."""
    latest = lake.snapshot(snapshot.table)
    return latest if latest.digest == snapshot.digest else snapshot
