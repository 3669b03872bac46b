"""The quarantine report: its counts are those of the rows, however these lie in files; it shows no row that nobody asked for."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows import show
from flows.documents import QuarantineDocument
from flows.quarantine import quarantine_report
from infra.contracts import QUARANTINE, Lineage, UnknownTable
from infra.files import write_part
from infra.lake import Lake
from tasks.forget import ledger as requests
from tasks.ingest import ledger
from tasks.ingest.ledger import Entry

MakeLake = Callable[..., Lake]
Reject = tuple[str, str, int, str, str]  # table, source, line, reason, raw
RECORDS = pa.schema([("row_id", pa.int64())])
SECRET_CELL = "eve@example.org"


def put(lake: Lake, table: str, rows: pa.Table, files: int = 1) -> None:
    pieces = [rows.slice(start, -(-rows.num_rows // files)) for start in range(0, rows.num_rows, -(-rows.num_rows // files))]
    made = [write_part(lake.folder(table), piece.to_batches(), rows.schema) for piece in pieces]
    lake.commit(table, rows.schema, made, lineage=Lineage("ingest", f"{table} {rows.num_rows}", ""))


def put_rejects(lake: Lake, rejects: Sequence[Reject], files: int = 1) -> None:
    columns = [list(column) for column in zip(*rejects, strict=True)]
    put(lake, "quarantine", pa.table(columns, schema=QUARANTINE), files)


def put_records(lake: Lake, table: str, n: int) -> None:
    put(lake, f"records/{table}", pa.table({"row_id": pa.array(range(n), pa.int64())}, schema=RECORDS))


def entry(table: str, uri: str, n_rows: int, n_quarantined: int, n_suppressed: int = 0, stopped: str = "") -> Entry:
    return Entry(table, uri, 1, "", "d", "{}", n_rows, n_quarantined, n_suppressed, stopped=stopped)


def config_of(lake: Lake) -> Path:
    return Path(lake.root).parent / "lethe.toml"


@pytest.fixture
def people(make_lake: MakeLake) -> Lake:
    """One table of two files with ten rows, three of them bad, beside a clean one."""
    lake = make_lake()
    home = Path(lake.root).parent
    first, second = f"{home}/raw/a.csv", f"{home}/raw/b.csv"
    ledger.merge(lake, [entry("people", first, 5, 2, 1), entry("people", second, 2, 1), entry("clean", "s3://x/c.csv", 4, 0)])
    put_records(lake, "people", 7)
    put_records(lake, "clean", 4)
    put_rejects(
        lake,
        [
            ("people", second, 9, "contract: range on 'age'", f'{{"age":200,"mail":"{SECRET_CELL}"}}'),
            ("people", first, 7, "contract: range on 'age'", '{"age":-1}'),
            ("people", first, 0, "3 fields, the header has [2]", "a,b,\x1b[31mc"),
        ],
        files=2,
    )
    return lake


def printed(document: QuarantineDocument, capsys: pytest.CaptureFixture[str]) -> str:
    show.text(document)
    return capsys.readouterr().out


def test_a_report_tells_where_every_row_went(people: Lake, capsys: pytest.CaptureFixture[str]) -> None:
    document = quarantine_report(config_of(people))
    clean, table = document.tables
    assert (clean.name, clean.n_in, clean.fraction, clean.reasons, clean.adds_up) == ("clean", 4, 0.0, [], True)
    assert (table.n_in, table.n_rows, table.n_quarantined, table.n_suppressed, table.n_erased) == (11, 7, 3, 1, 0)
    assert (table.fraction, table.adds_up) == (3 / 11, True)
    reason, other = table.reasons
    assert (reason.reason, reason.n_rows, reason.n_files) == ("contract: range on 'age'", 2, 2)
    assert reason.examples == ["raw/a.csv:7", "raw/b.csv:9"]
    assert (other.reason, other.examples) == ("3 fields, the header has [2]", ["raw/a.csv"])
    out = printed(document, capsys)
    assert "15 rows in = 11 in tables + 3 in quarantine + 1 suppressed" in out
    assert "1 of 2 tables have no rejected row" in out
    assert "has [2]" in out  # brackets are no markup
    assert "27.27%" in out


def test_rows_are_shown_only_to_those_who_ask(people: Lake, capsys: pytest.CaptureFixture[str]) -> None:
    quiet = quarantine_report(config_of(people))
    assert SECRET_CELL not in quiet.model_dump_json()
    document = quarantine_report(config_of(people), ["people"], raw=True, n_raw=1)
    assert [reason.raw for reason in document.tables[0].reasons] == [['{"age":-1}'], ["a,b,\x1b[31mc"]]
    assert SECRET_CELL in quarantine_report(config_of(people), ["people"], raw=True).model_dump_json()
    out = printed(document, capsys)
    assert "a,b,\\x1b[31mc" in out
    assert "\x1b" not in out


def test_a_stopped_file_is_told_with_its_message(people: Lake, capsys: pytest.CaptureFixture[str]) -> None:
    home, said = Path(people.root).parent, "column 'age' is int64 in the table and string in this file"
    ledger.merge(people, [entry("people", f"{home}/raw/new.csv", 0, 1, stopped=said)])
    put_rejects(people, [("people", f"{home}/raw/new.csv", 0, said, "")])
    document = quarantine_report(config_of(people), ["people"])
    (stopped,) = document.tables[0].stopped
    assert (stopped.file, stopped.message) == ("raw/new.csv", said)
    assert document.adds_up
    assert printed(document, capsys).count(said) == 1


def test_rows_that_are_nowhere_are_said_to_be_missing(people: Lake, capsys: pytest.CaptureFixture[str]) -> None:
    ledger.merge(people, [entry("clean", "s3://x/c.csv", 6, 0)])
    document = quarantine_report(config_of(people))
    assert [(table.name, table.adds_up) for table in document.tables] == [("clean", False), ("people", True)]
    assert not document.adds_up
    out = printed(document, capsys)
    assert "17 rows in != 11 in tables" in out
    assert "2 missing" in out


def test_erased_rows_are_told_as_erased(people: Lake) -> None:
    (request_id,) = requests.register(people, [("person", "eve")], kinds=["person"])
    erased = {"hidden": "2026-11-01T00:00:00", "tables": [{"table": "records/clean", "n_erased": 2}]}
    requests.advance(people, request_id, requests.ERASED, erased)
    ledger.merge(people, [entry("clean", "s3://x/c.csv", 6, 0)])
    clean = quarantine_report(config_of(people), ["clean"]).tables[0]
    assert (clean.n_in, clean.n_rows, clean.n_erased, clean.adds_up) == (6, 4, 2, True)


def test_a_table_that_was_never_ingested_is_named(people: Lake) -> None:
    with pytest.raises(UnknownTable, match="into nobody; tables with files: clean, people"):
        quarantine_report(config_of(people), ["people", "nobody"])


def test_a_lake_without_a_row_has_a_report(make_lake: MakeLake, capsys: pytest.CaptureFixture[str]) -> None:
    document = quarantine_report(config_of(make_lake()))
    assert document.tables == []
    assert "0 rows in" in printed(document, capsys)


REJECTS = st.lists(
    st.tuples(
        st.sampled_from(["t", "u"]), st.sampled_from(["a", "b", "c"]), st.integers(0, 5), st.sampled_from(["x", "y"]), st.just("")
    ),
    min_size=1,
    max_size=20,
)


@settings(max_examples=25)
@given(rejects=REJECTS, files=st.integers(1, 4))
def test_counts_are_those_of_the_rows_however_they_lie(make_lake: MakeLake, rejects: list[Reject], files: int) -> None:
    lake = make_lake(folder=uuid.uuid4().hex)
    counts = Counter((table, source) for table, source, _, _, _ in rejects)
    ledger.merge(lake, [entry(table, source, 0, n) for (table, source), n in counts.items()])
    put_rejects(lake, rejects, files)
    document = quarantine_report(config_of(lake))
    assert document.adds_up
    for table in document.tables:
        for reason in table.reasons:
            here = sorted((s, line) for t, s, line, r, _ in rejects if (t, r) == (table.name, reason.reason))
            assert (reason.n_rows, reason.n_files) == (len(here), len({source for source, _ in here}))
            assert reason.examples == list(dict.fromkeys(f"{s}:{line}" if line else s for s, line in here[:3]))
    assert sum(reason.n_rows for table in document.tables for reason in table.reasons) == len(rejects)
