"""What became of every row that came in: in the table, in quarantine and for which reason, suppressed, or erased since.

Read without Prefect and without the lake's lock. Rejected rows hold personal data: they are shown only where a person asks for
them, and never logged.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flows.documents import QuarantineDocument, QuarantinedTable, QuarantineReason, StoppedFile
from flows.workspace import RECORDS
from infra.contracts import UnknownTable
from infra.files import read_part
from infra.lake import Lake
from infra.retired import given_up, retired
from infra.settings import load_settings
from tasks.forget import ledger as requests
from tasks.ingest import ledger
from tasks.ingest.formats import split_chain
from tasks.ingest.ledger import Entry

N_EXAMPLES = 3
N_RAW = 5
_TABLE = "quarantine"
_PLACE = ("source", "line")
_Place = tuple[str, int, str]  # source, line, raw


@dataclass
class _Tally:
    """What is known of one reason in one table: how many rows, of which files, and the first of them."""

    n_rows: int = 0
    sources: set[str] = field(default_factory=set[str])
    first: list[_Place] = field(default_factory=list[_Place], repr=False)


@dataclass(frozen=True)
class _Ground:
    """What a report stands on: the lake, the folder of lethe.toml, what was erased of each table, how many raw rows to show, the
    rows of retired tables, and the tables that were given up."""

    lake: Lake
    home: Path
    erased: Mapping[str, int]
    n_raw: int
    n_retired: Mapping[str, int]
    given_up: Collection[str]


_Tallies = dict[str, dict[str, _Tally]]  # by table and reason


def quarantine_report(
    config: str | Path, tables: Sequence[str] | None = None, *, raw: bool = False, n_raw: int = N_RAW
) -> QuarantineDocument:
    """Where the rows of all ingested tables went, or of those named. With `raw`, the first `n_raw` rejected rows of each reason
    are told as they came: personal data, for the eyes of whoever asked.

    Raises `UnknownTable` for a table that was never ingested. Takes memory for a file's name a reason, not for the rows.
    """
    settings = load_settings(config)
    lake = Lake.open(settings)
    entries = _entries(lake, tables)
    n_retired = {name: entry.n_rows for name, entry in retired(lake).items()}
    ground = _Ground(lake, settings.home, _n_erased(lake), n_raw if raw else 0, n_retired, given_up(lake))
    tallies = _tallies(lake, None if tables is None else [*entries], ground.n_raw)
    told = [_told(ground, name, found, tallies.get(name, {})) for name, found in entries.items()]
    return QuarantineDocument(
        tables=told,
        n_in=sum(table.n_in for table in told),
        n_rows=sum(table.n_rows for table in told),
        n_quarantined=sum(table.n_quarantined for table in told),
        n_suppressed=sum(table.n_suppressed for table in told),
        n_erased=sum(table.n_erased for table in told),
        n_given_up=sum(table.n_given_up for table in told),
        adds_up=all(table.adds_up for table in told),
    )


def _entries(lake: Lake, tables: Sequence[str] | None) -> dict[str, list[Entry]]:
    """The ledger's entries by table, both sorted by name."""
    entries = defaultdict[str, list[Entry]](list)
    for (table, _), entry in sorted(ledger.read(lake).items()):
        entries[table].append(entry)
    missing = sorted(set(tables or ()) - entries.keys())
    if missing:
        known = ", ".join(entries) or "none"
        raise UnknownTable(f"no file was ever ingested into {', '.join(missing)}; tables with files: {known}. Run: lethe ingest")
    return {name: found for name, found in entries.items() if tables is None or name in tables}


def _n_erased(lake: Lake) -> Mapping[str, int]:
    """How many rows deletion requests took out of each table of the lake, as their ledger says; a batch of them counts once."""
    results = {
        str(result["hidden"]): result for request in requests.requests(lake) if (result := request.details.get(requests.ERASED))
    }
    erased = defaultdict[str, int](int)
    for result in results.values():
        for table in result["tables"]:
            erased[table["table"]] += int(table["n_erased"])
    return erased


# --- one pass over quarantine -------------------------------------------------------------------------------------------------


def _tallies(lake: Lake, tables: Sequence[str] | None, n_raw: int) -> _Tallies:
    found = defaultdict[str, dict[str, _Tally]](lambda: defaultdict(_Tally))
    if not lake.exists(_TABLE):
        return found
    columns = ["table", "reason", *_PLACE, *(["raw"] if n_raw else [])]
    for part in lake.parts(lake.snapshot(_TABLE)):
        for batch in read_part(part, columns):
            rows = batch if tables is None else batch.filter(pc.is_in(batch.column("table"), value_set=pa.array(tables)))
            _take(found, pa.Table.from_batches([rows]), max(n_raw, N_EXAMPLES))
    return found


def _take(found: _Tallies, rows: pa.Table, n_first: int) -> None:
    """Take some rejects into the tallies."""
    for group in rows.group_by(["table", "reason", "source"]).aggregate([([], "count_all")]).to_pylist():
        tally = found[group["table"]][group["reason"]]
        tally.n_rows += group["count_all"]
        tally.sources.add(group["source"])
    for row in _firsts(rows, n_first).to_pylist():
        tally = found[row["table"]][row["reason"]]
        tally.first = sorted([*tally.first, (row["source"], row["line"], row.get("raw") or "")])[:n_first]


def _firsts(rows: pa.Table, n_first: int) -> pa.Table:
    """The first rows of each table and reason, by file and line."""
    rows = rows.sort_by([(name, "ascending") for name in ("table", "reason", *_PLACE)])
    is_new = np.ones(rows.num_rows, np.bool_)
    for name in ("table", "reason"):
        codes = np.asarray(rows.column(name).combine_chunks().dictionary_encode().indices)
        is_new[1:] &= codes[1:] == codes[:-1]
    is_new[1:] = ~is_new[1:]
    starts = np.flatnonzero(is_new)
    ranks = np.arange(rows.num_rows) - np.repeat(starts, np.diff(np.append(starts, rows.num_rows)))
    return rows.filter(pa.array(ranks < n_first))


# --- what is told -------------------------------------------------------------------------------------------------------------


def _told(ground: _Ground, name: str, entries: Sequence[Entry], tallies: Mapping[str, _Tally]) -> QuarantinedTable:
    """One table; its rows are counted where they are, and held against what the readers counted."""
    n_suppressed = sum(entry.n_suppressed for entry in entries)
    n_in = n_suppressed + sum(entry.n_rows + entry.n_quarantined for entry in entries)
    n_rows = ground.n_retired.get(name) or (
        ground.lake.snapshot(RECORDS + name).n_rows if ground.lake.exists(RECORDS + name) else 0
    )
    n_quarantined = sum(tally.n_rows for tally in tallies.values())
    missing = n_in - n_rows - n_quarantined - n_suppressed
    is_given_up = name in ground.given_up
    is_erased = not is_given_up and 0 < missing <= ground.erased.get(RECORDS + name, 0) + ground.erased.get(_TABLE, 0)
    return QuarantinedTable(
        name=name,
        n_in=n_in,
        n_rows=n_rows,
        n_quarantined=n_quarantined,
        n_suppressed=n_suppressed,
        n_erased=missing if is_erased else 0,
        fraction=n_quarantined / n_in if n_in else 0.0,
        n_given_up=missing if is_given_up else 0,
        adds_up=missing == 0 or is_erased or is_given_up,
        reasons=_reasons(tallies, ground.home, ground.n_raw),
        stopped=[StoppedFile(file=_shown(e.uri, ground.home), message=e.stopped) for e in entries if e.stopped],
    )


def _reasons(tallies: Mapping[str, _Tally], home: Path, n_raw: int) -> list[QuarantineReason]:
    """The most frequent first."""
    ordered = sorted(tallies.items(), key=lambda item: (-item[1].n_rows, item[0]))
    return [
        QuarantineReason(
            reason=reason,
            n_rows=tally.n_rows,
            n_files=len(tally.sources),
            examples=_examples(tally.first[:N_EXAMPLES], home),
            raw=[raw for _, _, raw in tally.first[:n_raw]],
        )
        for reason, tally in ordered
    ]


def _examples(first: Iterable[_Place], home: Path) -> list[str]:
    """Places as file:line; the file alone where no line can be told."""
    places = (f"{_shown(source, home)}:{line}" if line else _shown(source, home) for source, line, _ in first)
    return list(dict.fromkeys(places))


def _shown(uri: str, home: Path) -> str:
    """A file as a person would name it from the folder of lethe.toml; a member of an archive behind the archive's name."""
    member, archive = split_chain(uri)
    if archive:
        return f"{archive.removeprefix('file://').removeprefix(f'{home}/')}!{member.partition('://')[2] or member}"
    return uri.removeprefix(f"{home}/")
