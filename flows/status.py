"""What a lake holds, read without Prefect and without taking its lock."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flows.documents import StatusDocument
from flows.workspace import RECORDS
from infra.foreign import Registered, registered
from infra.lake import Lake
from infra.retired import Retired, given_up, retired
from infra.settings import load_settings
from tasks.forget.ledger import request_states
from tasks.select.review_task import n_listed
from tasks.train.versions import registered_versions


def status_of(config: Path) -> StatusDocument:
    """Tables, datasets, models and deletion requests, each with its newest version."""
    settings = load_settings(config)
    lake = Lake.open(settings)
    gone = retired(lake)
    return StatusDocument(
        tables=[_table(lake, name) for name in lake.tables("records") if name.removeprefix(RECORDS) not in gone],
        datasets=[_dataset(lake, name) for name in lake.tables("training_set")],
        models=[{"name": name, **version} for name in sorted(settings.models) for version in registered_versions(settings, name)],
        requests=request_states(lake),
        foreign=[_foreign(entry) for entry in registered(lake)],
        neighbours=n_listed(settings, lake),
        retired=[_retired(entry) for _, entry in sorted(gone.items())],
        given_up=[_given_up(entry) for _, entry in sorted(given_up(lake).items())],
    )


def _table(lake: Lake, table: str) -> dict[str, Any]:
    snapshot = lake.snapshot(table)
    return {"name": table.removeprefix(RECORDS), "rows": snapshot.n_rows, "version": snapshot.version, "digest": snapshot.digest}


def _retired(entry: Retired) -> dict[str, Any]:
    return {
        "name": entry.table,
        "rows": entry.n_rows,
        "bytes": entry.n_bytes,
        "parents": list(entry.parents),
        "kind": entry.kind,
        "digest": entry.digest,
        "retired": entry.retired.isoformat(timespec="seconds"),
    }


def _given_up(entry: Retired) -> dict[str, Any]:
    return {
        "name": entry.table,
        "rows": entry.n_rows,
        "given_up": entry.given_up,
        "reason": entry.loss.reason,
        "missing": list(entry.loss.missing),
    }


def _dataset(lake: Lake, table: str) -> dict[str, Any]:
    snapshot = lake.snapshot(table)
    summary = lake.lineage(snapshot).summary
    return {
        "name": table.split("/", 1)[1],
        "n_records": snapshot.n_rows,
        "n_kept": summary.get("n_kept", 0),
        "version": snapshot.version,
        "digest": snapshot.digest,
    }


def _foreign(entry: Registered) -> dict[str, Any]:
    """A table of another writer as it was when it was last read; it is not opened."""
    return {
        "name": f"foreign/{entry.name}",
        "uri": entry.uri,
        "rows": entry.n_rows,
        "bytes": entry.n_bytes,
        "version": entry.version,
        "digest": entry.digest,
        "registered": entry.registered.isoformat(timespec="seconds"),
    }
