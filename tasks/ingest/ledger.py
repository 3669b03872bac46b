"""The `sources` table: which raw file was ingested with which content, one row a (table, uri)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import pyarrow as pa

from infra.contracts import SOURCES, Lineage
from infra.files import write_part
from infra.ids import key_of
from infra.lake import Lake

TABLE = "sources"


@dataclass(frozen=True, order=True)
class Entry:
    """One raw file as it was ingested; `columns` holds the shapes of its columns (`tasks.ingest.infer.to_json`)."""

    table: str
    uri: str
    n_bytes: int
    modified: str
    content_digest: str
    columns: str
    n_rows: int
    n_quarantined: int
    n_suppressed: int


Ledger = dict[tuple[str, str], Entry]


def read(lake: Lake) -> Ledger:
    """All entries by (table, uri); none where the lake has no ledger yet."""
    if not lake.exists(TABLE):
        return {}
    rows = lake.read(lake.snapshot(TABLE)).select(SOURCES.names).to_pylist()
    return {(row["table"], row["uri"]): Entry(**row) for row in rows}


def write(lake: Lake, ledger: Ledger) -> None:
    """Replace the ledger: it is small, and a whole one cannot be half written."""
    entries = sorted(ledger.values())
    batch = pa.RecordBatch.from_pylist([asdict(entry) for entry in entries], schema=SOURCES)
    files = [write_part(lake.folder(TABLE), [batch], SOURCES)] if entries else []
    key = key_of("sources", [[e.table, e.uri, e.content_digest] for e in entries])
    lake.commit(TABLE, SOURCES, files, lineage=Lineage("ingest", key, ""), overwrite=True)


def updated(ledger: Ledger, entries: Iterable[Entry]) -> Ledger:
    """The ledger with these entries in place of older ones of their files."""
    return {**ledger, **{(entry.table, entry.uri): entry for entry in entries}}
