"""The scanner's own sensitivity: whatever is planted in a place where a value is known to survive is found, and nothing else."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import sqlite3
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import CommitProperties, DeltaTable, write_deltalake

from infra.cluster import connect
from infra.contracts import QUARANTINE, SOURCES, Snapshot
from infra.files import SOURCE
from infra.ids import subject_token
from infra.rowhash import row_hashes
from infra.settings import TableSettings
from tasks.forget.parquet_bytes import NotParquetError, bounds
from tasks.forget.scan import Residue, scan
from tasks.forget.seal import Entry, Seal, lost_rows
from tests.tasks.forget.conftest import OTHERS, VICTIM, House, papers, people, records, rows_of, source

CUSTOMER = 987654
ROW_ID = 0x123456789ABCDEF
CARTS = TableSettings.model_validate({"source": "x", "subject": {"kind": "customer", "column": "carts[].buyer"}})
ROW = pa.table({"who": ["x"], "n": [1]})


def look(house: House) -> Residue:
    """Scan for the victim, for a customer with a number, and for one erased row."""
    keys = house.lake.keys
    sought = {
        "user": frozenset({subject_token(keys, "user", VICTIM)}),
        "customer": frozenset({subject_token(keys, "customer", CUSTOMER), subject_token(keys, "customer", 7)}),
    }
    rows = lost_rows("t", np.array([ROW_ID]), row_hashes(ROW, ROW.schema.names, keys.row), np.ones(1, bool))
    entry = Entry("t", "subject", Snapshot("t", 0, "1:0", 1), 1, ())
    with connect(None) as workers:
        return scan(house.lake, house.settings, sought, [Seal(("r",), (entry,), rows)], workers)


def put(home: Path, name: str, content: bytes | str) -> None:
    path = home / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def parquet(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def sqlite(home: Path, name: str, value: Any, column: str = "value") -> None:
    path = home / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with sqlite3.connect(path) as connection:
        connection.execute(f"CREATE TABLE tags (key TEXT, {column})")
        connection.execute("INSERT INTO tags VALUES ('k', ?)", (value,))
    connection.close()


def actions(*lines: dict[str, Any]) -> str:
    return "\n".join(json.dumps(line) for line in lines)


def bound(column: str, value: Any) -> dict[str, Any]:
    stats = {"numRecords": 7, "minValues": {column: value}, "maxValues": {}, "nullCount": {column: 7}}
    return {"add": {"path": "part-0.parquet", "size": 7, "modificationTime": 7, "stats": json.dumps(stats)}}


def safetensors(header: dict[str, Any], body: bytes) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def zipped(name: str, content: str) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return sink.getvalue()


def unreferenced() -> pa.Table:
    """A dictionary that still holds a value which no row has."""
    return pa.table({"email": pa.DictionaryArray.from_arrays(pa.array([0], pa.int32()), pa.array([OTHERS[0], VICTIM]))})


def ipc(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def png_with_text(text: str) -> bytes:
    return b"\x89PNG\r\n\x1a\n\x00\x00\x00\x20tEXtComment\x00" + text.encode() + b"\x00\xff\xfe"


LOG = "lake/records/people/_delta_log"
PART = "lake/records/people/part-1.parquet"
PAPERS = "lake/records/papers/part-1.parquet"
REVIEWED = papers((OTHERS[0], [OTHERS[1], VICTIM]))
VICTIMS = people([OTHERS[0], VICTIM])
NESTED = pa.table({"email": [[{"home": VICTIM}]], "n": [1]})
IDS = pa.array([5, ROW_ID], pa.int64())

PLANTS: dict[str, Callable[[Path], None]] = {
    "cell": lambda home: put(home, PART, parquet(VICTIMS, write_statistics=False)),
    "cell, any name": lambda home: put(home, "lake/records/people/.x/orphan.tmp", parquet(VICTIMS, write_statistics=False)),
    "cell in change data": lambda home: put(home, "lake/records/people/_change_data/c.parquet", parquet(VICTIMS)),
    "nested cell": lambda home: put(home, PART, parquet(NESTED, write_statistics=False)),
    "cell on a path": lambda home: put(home, PAPERS, parquet(REVIEWED, write_statistics=False)),
    "short id on a path": lambda home: put(
        home, "lake/records/orders/p.parquet", parquet(pa.table({"buyer": [{"id": 7}]}), write_statistics=False)
    ),
    "integer cell": lambda home: put(home, "lake/records/orders/p.parquet", parquet(pa.table({"id": [CUSTOMER]}))),
    "short integer cell": lambda home: put(home, "lake/records/orders/p.parquet", parquet(pa.table({"id": [7.0]}))),
    "unreferenced dictionary value": lambda home: put(home, PART, parquet(unreferenced())),
    "footer metadata": lambda home: put(
        home, PART, parquet(people([OTHERS[0]]).replace_schema_metadata({"pandas": json.dumps({"attrs": {"who": VICTIM}})}))
    ),
    "field metadata": lambda home: put(
        home, PART, parquet(pa.table({"n": [1]}, schema=pa.schema([pa.field("n", pa.int64(), metadata={"by": VICTIM})])))
    ),
    "draft without footer": lambda home: put(home, "lake/records/people/draft-1.parquet", parquet(VICTIMS)[:-60]),
    "scratch spill": lambda home: put(home, "lake/_scratch/a/b.parquet", parquet(pa.table({"row_id": IDS}))),
    "bounds in the log": lambda home: put(home, f"{LOG}/00.json", actions(bound("email", VICTIM))),
    "integer bounds in the log": lambda home: put(home, "lake/records/orders/_delta_log/0.json", actions(bound("id", 7))),
    "bounds of a struct": lambda home: put(home, f"{LOG}/00.json", actions(bound("email", {"home": VICTIM}))),
    "bounds of a path": lambda home: put(
        home, "lake/records/orders/_delta_log/0.json", actions(bound("buyer", {"id": 7, "n": 1}))
    ),
    "bounds of row ids": lambda home: put(home, f"{LOG}/00.json", actions(bound("row_id", ROW_ID))),
    "predicate": lambda home: put(
        home, f"{LOG}/00.json", actions({"commitInfo": {"operationParameters": {"predicate": f"email = '{VICTIM}'"}}})
    ),
    "integer predicate": lambda home: put(
        home, "lake/records/orders/_delta_log/0.json", actions({"commitInfo": {"operationParameters": {"predicate": "id = 7"}}})
    ),
    "custom metadata": lambda home: put(home, f"{LOG}/00.json", actions({"commitInfo": {"reason": f"erase {VICTIM}"}})),
    "partition value": lambda home: put(home, f"{LOG}/00.json", actions({"remove": {"partitionValues": {"email": VICTIM}}})),
    "path in the log": lambda home: put(home, f"{LOG}/00.json", actions({"add": {"path": f"email={VICTIM}/p.parquet"}})),
    "quoted path in the log": lambda home: put(
        home, f"{LOG}/00.json", actions({"add": {"path": f"email={VICTIM.replace('@', '%2540')}/p.parquet"}})
    ),
    "key in the log": lambda home: put(home, f"{LOG}/00.json", actions({"txn": {VICTIM: 1}})),
    "compacted log": lambda home: put(home, f"{LOG}/00.01.compacted.json", actions(bound("email", VICTIM))),
    "checksum": lambda home: put(home, f"{LOG}/01.crc", actions({"allFiles": [{"stats": VICTIM}]})),
    "uuid checkpoint": lambda home: put(home, f"{LOG}/01.checkpoint.3a0d65cd.json", actions(bound("email", VICTIM))),
    "sidecar": lambda home: put(home, f"{LOG}/_sidecars/3a.parquet", parquet(pa.Table.from_pylist([bound("email", VICTIM)]))),
    "unfinished commit": lambda home: put(home, f"{LOG}/_commit_0a.json.tmp", VICTIM),
    "statistics folder": lambda home: put(home, "lake/records/people/_autostats/s.json", json.dumps({"max": VICTIM})),
    "folder name": lambda home: (home / "lake/records/people" / f"email={VICTIM}").mkdir(parents=True),
    "quoted folder name": lambda home: (home / "lake/records/people" / f"email={VICTIM.replace('@', '%40')}").mkdir(parents=True),
    "integer folder name": lambda home: (home / "lake/records/orders/id=7").mkdir(parents=True),
    "file name": lambda home: put(home, f"tracking/artifacts/1/{VICTIM}.png", b""),
    "decision": lambda home: put(home, "lake/selection/d/p.parquet", parquet(pa.table({"row_id": IDS}))),
    "row id elsewhere": lambda home: put(home, "lake/scores/d/p.parquet", parquet(pa.table({"nested": [[ROW_ID]]}))),
    "row id as text": lambda home: put(home, "tracking/artifacts/1/rows.txt", f"dropped {ROW_ID}, 5"),
    "row id in numpy": lambda home: np.save((home / "lake").mkdir(exist_ok=True) or home / "lake/ids.npy", np.asarray(IDS)),
    "row id in a checkpoint": lambda home: put(
        home,
        "lake/checkpoints/c.safetensors",
        safetensors({"order": {"dtype": "I64", "shape": [2], "data_offsets": [0, 16]}}, np.asarray(IDS).tobytes()),
    ),
    "whole row of a mixed file": lambda home: put(
        home, "lake/records/other/p.parquet", parquet(ROW.append_column(SOURCE, pa.array([7], pa.int64())))
    ),
    "whole row under another id": lambda home: put(home, "lake/records/other/p.parquet", parquet(ROW)),
    "checkpoint header": lambda home: put(
        home, "lake/checkpoints/c.safetensors", safetensors({"__metadata__": {"by": VICTIM}}, b"\xff" * 8)
    ),
    "tag": lambda home: sqlite(home, "tracking/mlflow.db", VICTIM),
    "tag with JSON": lambda home: sqlite(home, "tracking/mlflow.db", json.dumps([{"inputs": {"who": VICTIM}}])),
    "tag with a blob": lambda home: sqlite(home, "tracking/mlflow.db", b"\x00\x01" + VICTIM.encode() + b"\xff"),
    "numeric parameter": lambda home: sqlite(home, "tracking/mlflow.db", str(CUSTOMER)),
    "column in the schema": lambda home: sqlite(home, "tracking/mlflow.db", 1, column=f'"{VICTIM}"'),
    "row id in the database": lambda home: sqlite(home, "tracking/mlflow.db", ROW_ID),
    "write-ahead log": lambda home: put(home, "tracking/mlflow.db-wal", b"\x00\xff" + VICTIM.encode() + b"\x00\xfe"),
    "flow parameters": lambda home: sqlite(home, ".lethe/prefect/prefect.db", json.dumps({"requests": [["user", VICTIM]]})),
    "artifact": lambda home: put(home, "tracking/artifacts/1/eval.json", json.dumps({"columns": ["t"], "data": [[VICTIM]]})),
    "table artifact": lambda home: put(home, "tracking/artifacts/1/errors.csv", f"n,who\n1,{VICTIM}\n"),
    "number in a table artifact": lambda home: put(home, "tracking/artifacts/1/errors.csv", "n,id\n1,7\n"),
    "gzip": lambda home: put(home, "tracking/artifacts/1/t.json.gz", gzip.compress(VICTIM.encode())),
    "zip": lambda home: put(home, "tracking/artifacts/1/m.zip", zipped("data.txt", f"by {VICTIM}")),
    "zip member": lambda home: put(home, "tracking/artifacts/1/m.zip", zipped(f"{VICTIM}.txt", "")),
    "picture": lambda home: put(home, "tracking/artifacts/1/p.png", png_with_text(VICTIM)),
    "Arrow file": lambda home: put(home, "tracking/artifacts/1/x.arrow", ipc(VICTIMS)),
    "dictionary of an Arrow slice": lambda home: put(home, "tracking/artifacts/1/x.arrow", ipc(unreferenced().slice(0, 1))),
    "pickle": lambda home: put(home, "tracking/artifacts/1/x.pkl", pickle.dumps({"who": VICTIM})),
    "log of a server": lambda home: put(home, ".lethe/server.log", f"GET /?user={VICTIM} 200\n"),
}


@pytest.mark.parametrize("place", PLANTS)
def test_what_is_planted_is_found_and_not_repeated(house: House, place: str) -> None:
    records(house.lake, "people", [people(OTHERS)])
    assert look(house).hits == ()
    PLANTS[place](house.settings.home)
    found = look(house)
    assert found.hits, place
    assert VICTIM not in "".join([*found.hits, *found.mentions])


def test_a_rejected_line(house: House) -> None:
    lines = [{"table": "people", "source": "s", "line": 1, "reason": "ragged", "raw": f"1;{VICTIM};2"}]
    rows_of("quarantine", QUARANTINE, lines, house.lake)
    assert [hit.rpartition(": ")[2] for hit in look(house).hits] == ["raw lines"]


def test_every_place_of_a_foreign_delta_table(house: House) -> None:
    """A table as write_deltalake makes it, then deleted by value and vacuumed: the log and its checkpoint still tell."""
    uri = f"{house.lake.root}/records/people"
    write_deltalake(uri, people([*OTHERS, VICTIM]))
    places = "\n".join(look(house).hits)
    for place in ("maxValues.email", "cells of email", "footer of email", "page index of email"):
        assert place in places
    reason = CommitProperties(custom_metadata={"reason": f"erase {VICTIM}"})
    DeltaTable(uri).delete(f"email = '{VICTIM}'", commit_properties=reason)
    DeltaTable(uri).vacuum(0, dry_run=False, enforce_retention_duration=False, full=True)
    DeltaTable(uri).create_checkpoint()
    places = "\n".join(look(house).hits)
    for place in ("maxValues.email", "predicate", "reason"):
        assert place in places
    assert "cells of email" not in places


def test_partitions_and_change_data_of_a_foreign_delta_table(house: House) -> None:
    uri = f"{house.lake.root}/records/people"
    write_deltalake(uri, people([OTHERS[0], VICTIM]), partition_by=["email"])
    DeltaTable(uri).create_checkpoint()
    visits = f"{house.lake.root}/records/visits"
    write_deltalake(visits, pa.table({"who": [VICTIM, "x"]}), configuration={"delta.enableChangeDataFeed": "true"})
    DeltaTable(visits).delete(f"who = '{VICTIM}'")
    places = "\n".join(look(house).hits)
    assert VICTIM not in places
    for place in ("<subject>", ": name", "partitionValues", "_change_data", "checkpoint.parquet: log"):
        assert place in places


def test_bounds_of_a_path_have_the_role_of_their_leaf(house: House) -> None:
    """Parquet's paths spell lists in their own way; the footer of a short id's column is a hit like its cells."""
    settings = house.settings.model_copy(update={"tables": {**house.settings.tables, "orders": CARTS}})
    put(house.settings.home, "lake/records/orders/p.parquet", parquet(pa.table({"carts": [[{"buyer": 7, "n": 8}], [{"n": 7}]]})))
    places = "\n".join(look(House(settings, house.lake)).hits)
    assert "cells of carts[].buyer" in places
    assert "footer of carts.list.element.buyer" in places
    assert ".n" not in places


def test_bounds_stand_in_three_places() -> None:
    """pyarrow writes the page bounds into the page index or into the page headers; both are read, and so is the footer."""
    with_index, without = io.BytesIO(parquet(VICTIMS, write_page_index=True)), io.BytesIO(parquet(VICTIMS))
    assert {b.where for b in bounds(with_index) if b.value == VICTIM} == {"footer", "page index"}
    assert {b.where for b in bounds(without) if b.value == VICTIM} == {"footer", "page header"}
    assert {b.value for b in bounds(with_index) if b.column == "spend"} == {0.0, 1.0}
    assert {b.where for b in bounds(io.BytesIO(parquet(VICTIMS, data_page_version="2.0"))) if b.value == VICTIM} >= {"footer"}
    with pytest.raises(NotParquetError):
        list(bounds(io.BytesIO(b"PAR1 and no more PAR1")))


def test_others_and_coincidences_are_no_hits(house: House) -> None:
    """Short numbers in counts, another table's column, words of a text, and the token itself, which is no secret."""
    home, token = house.settings.home, subject_token(house.lake.keys, "user", VICTIM)
    records(house.lake, "people", [people(OTHERS)])
    records(house.lake, "cities", [pa.table({"id": [7, CUSTOMER], "quote": ["x", f"so said {VICTIM} to us"]})])
    put(
        home,
        f"{LOG}/99.tmp",
        actions({"add": {"path": "p", "size": 7, "note": "7:00ff", "stats": json.dumps({"numRecords": 7})}}),
    )
    put(home, "tracking/artifacts/1/readme.txt", "about identity\nsteps: 7\n")
    put(home, "tracking/artifacts/1/metrics.json", json.dumps({"n": 7, "epoch": "7", "token": token, "ratio": 7.0}))
    assert look(house).hits == ()


@pytest.mark.parametrize("text", ["release 7.0 of 7 parts", "'7.00' or -7.0", "7"])
def test_a_short_number_proves_nothing_however_it_is_written(house: House, text: str) -> None:
    put(house.settings.home, "lake/notes.txt", text)
    found = look(house)
    assert (found.hits, found.mentions) == ((), ())


def test_the_same_text_in_another_column_is_a_mention(house: House) -> None:
    records(house.lake, "people", [people(OTHERS)])
    records(house.lake, "cities", [pa.table({"mayor": [VICTIM, "x"]})])
    found = look(house)
    assert found.hits == ()
    assert any("cells of mayor" in mention for mention in found.mentions)


def test_another_field_of_the_same_struct_is_a_mention(house: House) -> None:
    """Only the leaf that lethe.toml names holds ids: beside it, the same text may be somebody else's."""
    people_of = pa.array([[{"id": OTHERS[0], "quotes": [VICTIM]}], None])
    records(house.lake, "papers", [pa.table({"author": ["x", "y"], "reviewers": people_of})])
    found = look(house)
    assert found.hits == ()
    assert any("cells of reviewers[].quotes[]" in mention for mention in found.mentions)


def test_the_source_of_a_row_is_nobodys(house: House) -> None:
    """The hidden column of a mixed file: cells that are counted, and no more."""
    plain, marked = people(OTHERS), people(OTHERS[:1])
    records(house.lake, "people", [plain])
    n_before = look(house).n_cells
    records(house.lake, "people", [marked], sources=["raw/a.csv", "raw/b.csv"])
    found = look(house)
    assert (found.hits, found.mentions) == ((), ())
    assert found.n_cells > n_before


def test_names_of_tables_and_raw_files_are_mentions(house: House) -> None:
    """A table and a raw file that are named for the subject stay, wherever logs and runs name them; a partition does not."""
    home, table, uri = house.settings.home, f"by/{VICTIM}", f"/data/raw/by/{VICTIM}/posts.csv"
    records(house.lake, table, [people(OTHERS)], source=uri)
    rows_of("sources", SOURCES, [source(table, uri)], house.lake)
    log = {"inputs": [{"table": f"records/{table}"}], "apart": {table: "empty"}, "contents": {uri: "00ff"}}
    put(home, "lake/containment/_delta_log/0.json", actions({"commitInfo": {"lethe": json.dumps(log)}}))
    sqlite(home, "tracking/mlflow.db", f"records/{table}")
    found = look(house)
    assert found.hits == ()
    assert found.n_names == 2
    assert {m.rpartition(" ")[2] for m in found.mentions} == {"(name)"}
    assert VICTIM not in "".join(found.mentions)
    put(home, f"lake/records/by~{VICTIM}/email={VICTIM}/p.txt", b"")
    put(home, "tracking/artifacts/1/note.txt", f"records/{table} is of {VICTIM}")
    assert len(look(house).hits) >= 2


def test_a_table_whose_name_is_the_id_hides_nothing(house: House) -> None:
    records(house.lake, VICTIM, [people(OTHERS)])
    put(house.settings.home, "lake/containment/_delta_log/0.json", actions({"apart": {VICTIM: "empty"}}))
    assert look(house).hits == ()
    put(house.settings.home, "tracking/artifacts/1/who.json", json.dumps({"who": VICTIM}))
    put(house.settings.home, "lake/containment/_delta_log/1.json", actions({"reason": f"erase {VICTIM}"}))
    assert len(look(house).hits) == 2


def test_what_no_decoder_reads_is_counted(house: House) -> None:
    put(house.settings.home, "lake/checkpoints/blob", b"\x00\xff\xfe\x01" * 100)
    put(house.settings.home, "lake/checkpoints/broken.gz", b"\x1f\x8b\x08broken\xff")
    put(house.settings.home, PART, parquet(people(OTHERS), bloom_filter_options={"email": True}))
    found = look(house)
    assert found.n_opaque == 3
    assert found.n_objects >= 3


def test_the_sealed_plan_and_the_secret_are_not_scanned(house: House) -> None:
    sealed = house.settings.private_dir / "requests" / "r.parquet"
    sealed.parent.mkdir(parents=True)
    pq.write_table(pa.table({"row_id": IDS}), sealed)
    assert look(house).hits == ()
