"""The `sources` table: which raw file was ingested with which content, one row a (table, uri)."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from infra.contracts import SOURCES, CommitConflict, Lineage, Snapshot
from infra.files import write_part
from infra.ids import key_of
from infra.lake import Lake, no_table

TABLE = "sources"
_TRIES = 20


@dataclass(frozen=True, order=True)
class Entry:
    """One raw file as it was ingested; `columns` holds the shapes of its columns (`tasks.ingest.infer.to_json`), `dialect` what
    was found out of its form (JSON), `options` the digest of what lethe.toml said of its table, `stopped` why it was not taken in
    (its rows are those of its last content that was)."""

    table: str
    uri: str
    n_bytes: int
    modified: str
    content_digest: str
    columns: str
    n_rows: int
    n_quarantined: int
    n_suppressed: int
    dialect: str = ""
    options: str = ""
    stopped: str = ""


Ledger = dict[tuple[str, str], Entry]


def read(lake: Lake) -> Ledger:
    """All entries by (table, uri); none where the lake has no ledger yet."""
    return _read(lake, lake.snapshot(TABLE)) if lake.exists(TABLE) else {}


def _read(lake: Lake, snapshot: Snapshot) -> Ledger:
    names = [name for name in lake.schema(snapshot).names if name in SOURCES.names]  # a ledger of an older release has fewer
    return {(row["table"], row["uri"]): _entry(row) for row in lake.read(snapshot, names).to_pylist()}


def _entry(row: dict[str, Any]) -> Entry:
    return Entry(**{name: value for name, value in row.items() if value is not None})


def merge(lake: Lake, entries: Iterable[Entry], gone: Collection[tuple[str, str]] = ()) -> Ledger:
    """Put these entries in place of older ones of their files and take the `gone` (table, uri) out; the ledger as it is then.

    It is small, and a whole one cannot be half written. Other writers' entries are kept: it is planned again on every conflict.
    """
    fresh = {(entry.table, entry.uri): entry for entry in entries}
    for _ in range(_TRIES):
        base = lake.snapshot(TABLE) if lake.exists(TABLE) else no_table(TABLE)
        old = _read(lake, base) if base.version >= 0 else {}
        merged = {key: entry for key, entry in {**old, **fresh}.items() if key not in gone or key in fresh}
        if merged == old:
            return old
        try:
            _write(lake, merged, base)
        except CommitConflict:
            continue
        return merged
    raise CommitConflict(f"{TABLE}: {_TRIES} writes in a row met another writer. Run the command again")


def _write(lake: Lake, ledger: Ledger, base: Snapshot) -> None:
    entries = sorted(ledger.values())
    batch = pa.RecordBatch.from_pylist([asdict(entry) for entry in entries], schema=SOURCES)
    files = [write_part(lake.folder(TABLE), [batch], SOURCES)] if entries else []
    key = key_of("sources", [[e.table, e.uri, e.content_digest] for e in entries])
    lake.commit(TABLE, SOURCES, files, lineage=Lineage("ingest", key, ""), overwrite=True, expect=base)


def suppressed(lake: Lake) -> frozenset[str]:
    """The tokens of everybody who asked to be erased, whatever the state of the request: they do not come back."""
    if not lake.exists("requests"):
        return frozenset()
    tokens = lake.read(lake.snapshot("requests"), ["subject"]).column("subject").to_pylist()
    return frozenset(token for token in tokens if token)
