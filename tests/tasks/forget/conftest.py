"""A small lake with a person in it: two tables with subjects, a copy without the subject column, and rejected lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from infra.contracts import CONTAINMENT, QUARANTINE, SOURCES, Lineage, Snapshot
from infra.files import SOURCE, source_key, source_number, write_part
from infra.ids import key_of
from infra.lake import Lake
from infra.rowhash import row_hashes, row_ids
from infra.settings import Settings

VICTIM = "zz.alice@example.com"
AUTHOR, REVIEWERS = {"kind": "user", "column": "author"}, {"kind": "user", "column": "reviewers[].id"}
OTHERS = ("aa.bob@example.com", "cc.carol@example.com", "mm.dave@example.com")


def records(
    lake: Lake,
    name: str,
    files: Sequence[pa.Table],
    *,
    source: str = "raw/people.csv",
    sources: Sequence[str] = (),
    params: dict[str, Any] | None = None,
) -> Snapshot:
    """Commit tables as files of `records/<name>`, as ingest would; with `sources`, row i of a file is from sources[i mod n]."""
    table = f"records/{name}"
    described = []
    for rows in files:
        ids = row_ids(name, row_hashes(rows, rows.schema.names, lake.keys.row), lake.keys.row)
        full, schema = rows.add_column(0, "row_id", pa.array(ids)), rows.schema.insert(0, pa.field("row_id", pa.int64()))
        numbers = [source_number(source_key(sources[i % len(sources)])) for i in range(rows.num_rows)] if sources else []
        marked = full.append_column(SOURCE, pa.array(numbers, pa.int64())) if sources else full
        described.append(
            write_part(
                lake.folder(table),
                marked.to_batches(),
                schema,
                source=source,
                stats=["row_id"],
                digest_columns=rows.schema.names,
                mixed=bool(sources),
            )
        )
    schema = pa.schema([pa.field("row_id", pa.int64()), *files[0].schema])
    return lake.commit(table, schema, described, lineage=Lineage("ingest", key_of(name, len(files)), "", params=params or {}))


def rows_of(table: str, schema: pa.Schema, rows: Sequence[dict[str, Any]], lake: Lake) -> Snapshot:
    """Commit rows of one of Lethe's own tables."""
    file = write_part(lake.folder(table), pa.Table.from_pylist(list(rows), schema=schema).to_batches(), schema)
    return lake.commit(table, schema, [file], lineage=Lineage("test", key_of(table, len(rows)), ""))


@dataclass(frozen=True)
class House:
    """An open lake with its settings."""

    settings: Settings
    lake: Lake


@pytest.fixture
def house(tmp_path: Path) -> House:
    """An empty lake; `people` and `visits` have subjects, `papers` and `reviews` several, `cities` and `wide` have none."""
    settings = Settings.model_validate(
        {
            "home": tmp_path,
            "tables": {
                "people": {"source": "raw/people.csv", "subject": {"kind": "user", "column": "email"}},
                "visits": {"source": "raw/visits.csv", "subject": {"kind": "user", "column": "who"}},
                "orders": {"source": "raw/orders.csv", "subject": {"kind": "customer", "column": "id"}},
                "carts": {"source": "raw/carts.jsonl", "subject": {"kind": "customer", "column": "buyer.id"}},
                "papers": {"source": "raw/papers/*", "subject": [AUTHOR, REVIEWERS]},
                "abstracts": {"source": "raw/abstracts.csv", "subject": AUTHOR},
                "reviews": {"source": "raw/reviews.csv", "subject": {"kind": "user", "column": "editor"}},
                "cities": {"source": "raw/cities.csv"},
                "wide": {"source": "raw/wide.csv"},
            },
            "collections": {"by": {"source": "raw/by/*", "subject": AUTHOR}},
        }
    )
    return House(settings, Lake.open(settings))


def people(emails: Sequence[str | None], city: str = "Rome") -> pa.Table:
    """Rows with an e-mail, a city that may differ by row, and a number."""
    n = len(emails)
    return pa.table(
        {
            "email": pa.array(emails, pa.string()),
            "city": pa.array([f"{city} {i}" for i in range(n)]),
            "spend": pa.array([float(i) for i in range(n)]),
        }
    )


def papers(*rows: tuple[str | None, Sequence[str | None]]) -> pa.Table:
    """Rows with an author, reviewers and a title."""
    reviewers = pa.array([[{"id": name} for name in names] for _, names in rows], pa.list_(pa.struct([("id", pa.string())])))
    authors = pa.array([author for author, _ in rows], pa.string())
    return pa.table({"author": authors, "reviewers": reviewers, "title": pa.array([f"paper {i}" for i in range(len(rows))])})


@pytest.fixture
def populated(house: House) -> House:
    """The victim in three files of two tables, in a copy of one, in a wider table and among the rejected lines."""
    first, second = people([*OTHERS, VICTIM], "Rome"), people([OTHERS[0], VICTIM, VICTIM], "Oslo")
    third = people([OTHERS[1]], "Bern")
    records(house.lake, "people", [first, second, third])
    records(
        house.lake, "visits", [pa.table({"who": [VICTIM, OTHERS[0], None], "page": ["a", "b", "c"]})], source="raw/visits.csv"
    )
    records(house.lake, "cities", [pa.concat_tables([first, second]).select(["city", "spend"])], source="raw/cities.csv")
    wide = pa.concat_tables([first, second])
    records(house.lake, "wide", [wide.append_column("note", pa.array([f"n{i}" for i in range(wide.num_rows)]))])
    rows_of("containment", CONTAINMENT, [edge("cities", "people"), edge("people", "wide")], house.lake)
    rejected = [("people", f'"{VICTIM}",x,"7'), ("people", "nobody@example.com,y"), ("orders", f"{VICTIM},3")]
    lines = [
        {"table": t, "source": "raw/people.csv", "line": i, "reason": "ragged", "raw": r} for i, (t, r) in enumerate(rejected)
    ]
    rows_of("quarantine", QUARANTINE, lines, house.lake)
    rows_of("sources", SOURCES, [source("people", "raw/people.csv"), source("visits", "raw/visits.csv")], house.lake)
    return house


def edge(child: str, parent: str, *, multiset: bool = True) -> dict[str, Any]:
    """A row of the table `containment`."""
    said = {"fraction": 1.0, "set": True, "multiset": multiset, "exact": True, "step": "exact", "relation": "contained"}
    return {"child": child, "parent": parent, **said}


def source(table: str, uri: str) -> dict[str, Any]:
    """A row of the table `sources`."""
    return {"table": table, "uri": uri, "n_bytes": 1, "content_digest": "", "n_rows": 1}
