"""The door: rows in = table + quarantine + suppressed; the set of files decides, not their order or number; reruns change
nothing."""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import os
import random
import re
import tarfile
from collections import Counter
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from distributed import LocalCluster
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from ingest_project import TABLE, Project

from infra.contracts import REQUESTS, Lineage
from infra.discretion import UnexpectedError
from infra.files import write_part
from infra.ids import Digest, subject_token
from infra.lake import Lake
from infra.rowhash import row_hashes
from infra.settings import load_settings
from infra.subjects import subject_tokens
from tasks.ingest import task as door
from tasks.ingest.columns import ColumnError
from tasks.ingest.sources import SourceError
from tasks.ingest.streams import encoding_of
from tasks.ingest.task import ingest

WIDENING = TABLE + 'drift = "text"\n'


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path / "project")


def _zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


def _parquet(rows: list[dict[str, Any]]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue().to_pybytes()


CSV = b"id,name\n1,Ann\n2,\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a__csv", CSV),
        ("a__csv", b"\xef\xbb\xbf" + CSV),
        ("a__csv", "id,name\n1,Ann\n2,\n".encode("utf-16")),
        ("a__csv", CSV.replace(b",", b";").replace(b"\n", b"\r\n")),
        ("a__tsv", CSV.replace(b",", b"\t")),
        ("a__csv__gz", gzip.compress(CSV, mtime=0)),
        ("a__csv__zst", _zstd(CSV)),
        ("a__csv__bz2", bz2.compress(CSV)),
        ("a__jsonl", b'{"id":1,"name":"Ann"}\n{"id":2}\n'),
        ("a__ndjson__gz", gzip.compress(b'{"id":1,"name":"Ann"}\n\n{"name":null,"id":2}', mtime=0)),
        ("a__parquet", _parquet([{"id": 1, "name": "Ann"}, {"id": 2, "name": None}])),
    ],
    ids=lambda value: value if isinstance(value, str) else "content",  # compressed bytes in a test's name differ from run to run
)
def test_every_format_gives_the_same_rows_and_digest(project: Project, name: str, content: bytes) -> None:
    [result] = project.put(**{name: content}).run()
    [expected] = Project(project.home / "plain").put(a__csv=CSV).run()
    assert project.values() == [[1, "Ann"], [2, None]]
    assert (result.rows, result.quarantined, result.files, result.found) == (2, 0, 1, False)
    assert result.digest == expected.digest
    assert pa.schema(project.lake.schema(project.lake.snapshot("records/t"))).names == ["row_id", "id", "name"]


def test_rows_are_hashed_once_and_the_digest_is_that_of_what_lies_there(project: Project) -> None:
    [result] = project.put(a__csv=CSV, b__csv=b"id,name\n3,Cy\n").run()
    lake = project.lake
    snapshot = lake.snapshot("records/t")
    rows = lake.read(snapshot, ["id", "name"])
    digest = str(Digest.of(row_hashes(rows, rows.column_names, lake.keys.row)))
    assert (result.version, result.digest) == (snapshot.version, snapshot.digest) == (0, digest)
    [batch] = rows.combine_chunks().to_batches()
    with pytest.raises(AssertionError):
        write_part(lake.folder("records/t"), [batch], batch.schema, digest_of=Digest)


HOSTILE = st.lists(
    st.sampled_from(
        [b"1", b"2.5", b"a", b",", b"\n", b"\r\n", b'"', b"\xff", "é".encode(), b"NA", b"2020-01-01", b"\0", b"x,y\n"]
    ),
    max_size=40,
).map(b"".join)


@settings(max_examples=30)
@given(HOSTILE, HOSTILE, st.booleans())
def test_no_input_crashes_or_loses_a_line(
    tmp_path_factory: pytest.TempPathFactory, one: bytes, two: bytes, is_json: bool
) -> None:
    suffix, head = ("jsonl", b"") if is_json else ("csv", b"k,v\n")
    assume(all(encoding_of(head + data) == "utf-8" for data in (one, two)))  # NULs may make a few bytes UTF-16
    project = Project(tmp_path_factory.mktemp("p"))
    [result] = project.put(**{f"a__{suffix}": head + one, f"b__{suffix}": head + two}).run()
    rejected = project.rows("quarantine")
    assert (len(project.rows()), len(rejected)) == (result.rows, result.quarantined)
    if is_json:
        assert result.rows + result.quarantined == sum(bool(line.strip()) for text in (one, two) for line in text.split(b"\n"))
    kept = Counter(c for values in [*project.values(), [r["raw"] for r in rejected]] for v in values for c in str(v))
    assert kept["a"] >= (one + two).count(b"a")


ROWS = st.lists(
    st.tuples(st.sampled_from(["", "1", "2", "2.5", "NA", "007"]), st.sampled_from(["", '""', "x", '"q,""r"', "2020-01-01"])),
    min_size=1,
    max_size=12,
)


@settings(max_examples=12)
@given(ROWS, st.randoms(use_true_random=False))
def test_one_file_or_five_in_any_order_are_the_same_table(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], chance: random.Random
) -> None:
    lines = [f"{k},{v}" for k, v in rows]
    whole, cut, step = (Project(tmp_path_factory.mktemp("p"), WIDENING) for _ in range(3))
    whole.put(a__csv="\n".join(["k,v", *lines]))
    chance.shuffle(lines)
    cut.put(**{f"{n}__csv": "\n".join(["k,v", *lines[n::5]]) for n in range(5)})
    for n in chance.sample(range(5), 5):
        last = step.put(**{f"{n}__csv": "\n".join(["k,v", *lines[n::5]])}).run()
    results = [whole.run()[0], cut.run()[0], last[0]]
    assert len({(r.rows, r.digest) for r in results}) == 1
    assert len({tuple(sorted(row["row_id"] for row in p.rows())) for p in (whole, cut, step)}) == 1


# --- again ------------------------------------------------------------------------------------------------------------------


def test_a_second_run_reads_nothing_and_commits_nothing(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.put(a__csv=CSV, b__csv="id,name\n3,x,y\n").run()
    versions = [project.lake.snapshot(table).version for table in ("records/t", "sources", "quarantine")]
    monkeypatch.setattr(door.frames, "read", None)
    [again] = project.run()
    assert (again.found, again.rows, again.quarantined, again.files) == (True, 2, 1, 2)
    assert [project.lake.snapshot(table).version for table in ("records/t", "sources", "quarantine")] == versions


def test_a_touched_file_of_equal_content_commits_no_rows(project: Project) -> None:
    [first] = project.put(a__csv=CSV).run()
    os.utime(project.home / "in" / "a.csv", (1, 1))
    [again] = project.run()
    assert (again.version, again.digest, again.rows) == (first.version, first.digest, first.rows)
    assert project.run()[0].found


def test_a_changed_file_replaces_its_own_rows_and_rejects(project: Project) -> None:
    project.put(a__csv="id,name\n1,Ann\nbad\n", b__csv="id,name\n9,Zoe\nworse\n").run()
    [result] = project.put(a__csv="id,name\n7,Bob\n8,Eve\n").run()
    assert project.values() == [[7, "Bob"], [8, "Eve"], [9, "Zoe"]]
    assert [row["raw"] for row in project.rows("quarantine")] == ["worse"]
    assert (result.rows, result.quarantined, result.files) == (3, 1, 2)


def test_a_file_that_is_gone_keeps_its_rows_even_when_types_change(project: Project) -> None:
    project.put(a__csv="id,v\n1,5\n", b__csv="id,v\n2,6\n").run()
    (project.home / "in" / "a.csv").unlink()
    [result] = project.put(c__csv="id,v,w\n3,7.5,new\n").run()
    assert project.values() == [[1, 5.0, None], [2, 6.0, None], [3, 7.5, "new"]]
    assert (result.rows, result.files) == (3, 3)
    [result] = Project(project.home, WIDENING).put(d__csv="id,v\n4,many\n").run()
    assert [row[1] for row in project.values()] == ["5", "6", "7.5", "many"]
    assert [result.rows, len(project.rows())] == [4, 4]


@pytest.mark.parametrize("step", ["records", "ledger"])
@pytest.mark.parametrize("files", [1, 2])
def test_a_crash_between_the_commits_neither_loses_nor_doubles(
    project: Project, monkeypatch: pytest.MonkeyPatch, step: str, files: int
) -> None:
    project.put(**{f"f{n}__csv": f"id,name\n{n},x\nbad\n" for n in range(files)})

    merge, n_merges = door.ledger.merge, 0

    def killed(*args: Any, **options: Any) -> Any:
        nonlocal n_merges
        n_merges += 1
        if step == "ledger" and n_merges == 1:  # what is in doubt is noted first
            return merge(*args, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(door, "_commit_all", killed) if step == "records" else patch.setattr(door.ledger, "merge", killed)
        with pytest.raises(KeyboardInterrupt):
            project.run()
    version = project.lake.snapshot("records/t").version if step == "ledger" else None
    [result] = project.run()
    assert (result.rows, result.quarantined, len(project.rows()), len(project.rows("quarantine"))) == (files, files, files, files)
    assert version in (None, result.version)


# --- subjects ---------------------------------------------------------------------------------------------------------------

PEOPLE = TABLE + 'subject = {kind = "person", column = "who"}\n'


def _suppress(lake: Lake, who: str) -> None:
    row = {"request_id": "r", "kind": "person", "subject": subject_token(lake.keys, "person", who)}
    row |= {"state": "hidden", "at": datetime.now(UTC), "detail": ""}
    file = write_part(lake.folder("requests"), [pa.RecordBatch.from_pylist([row], schema=REQUESTS)], REQUESTS)
    lake.commit("requests", REQUESTS, [file], lineage=Lineage("forget", "k", ""))


@pytest.mark.parametrize(
    "content",
    ["who,v\n7,1\n8,2\n7,3\n,4\n", "who,v\n7,1\n8.5,2\n7,3\n,4\n", "who,v\n7,1\nx,2\n7,3\n,4\n", "who,v\n 7,1\nx,2\n7 ,3\n,4\n"],
)
def test_suppressed_subjects_do_not_come_back(project: Project, content: str) -> None:
    Project(project.home, PEOPLE).put(a__csv=content)
    _suppress(project.lake, "7")
    [result] = project.run()
    assert (result.rows, result.n_suppressed, result.quarantined) == (2, 2, 0)
    assert sorted(row["v"] for row in project.rows()) == [2, 4]


def test_suppressed_subjects_stay_away_under_any_spelling_of_the_column(project: Project) -> None:
    """Files may write a column's name in several cases; the table has the first file's."""
    Project(project.home, PEOPLE).put(a__csv="who,v\n7,1\n8,2\n", b__csv="WHO,v\n7,3\n9,4\n")
    _suppress(project.lake, "7")
    assert project.run()[0].n_suppressed == 2
    assert project.values() == [[8, 2], [9, 4]]
    assert project.run()[0].found
    with pytest.raises(ColumnError, match="write 'who'"):
        Project(project.home, PEOPLE.replace("who", "WHO")).run()


def test_rows_lie_in_the_order_of_their_subjects(project: Project) -> None:
    lines = [f"{n % 7},{n}" for n in range(70)]
    Project(project.home, PEOPLE).put(a__csv="\n".join(["who,v", *lines])).run()
    people = [row["who"] for row in project.rows()]
    assert sum(a != b for a, b in pairwise(people)) == 6


IDS = st.lists(
    st.one_of(
        st.integers(-(2**70), 2**70).map(str),
        st.floats().map(repr),
        st.dates().map(str),
        st.sampled_from(["12e4", "True", "1.50", "7.0", "-0", "007", "+7", " 12", "x ", "2020-01-01T00:00:00Z", ".5", "1e400"]),
    ),
    min_size=1,
    max_size=6,
)


def _nobody(text: str) -> bool:
    return text.strip() in ("nan", "NaN")


@settings(max_examples=25)
@given(IDS, IDS, st.sampled_from(["csv", "tsv", "jsonl", "json numbers"]))
def test_every_id_is_found_as_it_is_written(
    tmp_path_factory: pytest.TempPathFactory, one: list[str], two: list[str], kind: str
) -> None:
    """Blanks around an id are no part of it, as around a number; NA and NaN among whole numbers are nobody."""
    if kind == "json numbers":
        one, two = ([t for t in ids if _is_json_number(t)] for ids in (one, two))
    project = Project(tmp_path_factory.mktemp("p"), PEOPLE)
    project.put(**{f"{n}__{kind[:5]}".replace("json ", "jsonl"): _people(ids, kind) for n, ids in enumerate((one, two))}).run()
    keys, rows = project.lake.keys, project.lake.read(project.lake.snapshot("records/t"))
    assert rows.num_rows == len(one) + len(two)
    if rows.num_rows:
        assert rows.schema.field("who").type in (pa.int64(), pa.string())
        found = set(subject_tokens(rows["who"], "person", keys).to_pylist())
        assert {subject_token(keys, "person", t.strip()) for t in (*one, *two) if not _nobody(t)} <= found


def _is_json_number(text: str) -> bool:
    return re.fullmatch(r"-?(0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?", text) is not None and text != "-0"


def _people(ids: list[str], kind: str) -> str:
    if kind.startswith("json"):
        return "".join(f'{{"v":1,"who":{t if kind == "json numbers" else json.dumps(t)}}}\n' for t in ids)
    return "".join(
        f"{row}\n" for row in ("who\tv" if kind == "tsv" else "who,v", *(f"{t}{chr(9) if kind == 'tsv' else ','}1" for t in ids))
    )


def test_ids_of_a_column_declared_later_are_read_again_as_written(project: Project) -> None:
    project.put(a__csv="who,v\n1.50,1\n2.0,2\n").run()
    assert project.values() == [[1.5, 1], [2.0, 2]]
    [result] = Project(project.home, PEOPLE).run()
    assert (project.values(), result.found) == ([["1.50", 1], ["2.0", 2]], False)
    assert project.run()[0].found


# --- columns that lethe.toml names -------------------------------------------------------------------------------------------


def test_a_table_without_its_subject_is_refused(project: Project) -> None:
    Project(project.home, PEOPLE).put(a__csv=CSV)
    with pytest.raises(ColumnError, match=r"table t, subject: there is no column 'who'\. It has: id, name\."):
        project.run()


@pytest.mark.parametrize("kind", ["tables", "collections"])
@pytest.mark.parametrize(("header", "line"), [("Who,v", 'text = "v"'), ("who,V", 'text = "v"')])
def test_a_column_in_another_case_is_refused(project: Project, kind: str, header: str, line: str) -> None:
    text = PEOPLE.replace("tables", kind) + line
    Project(project.home, text).put(a__csv=f"{header}\n7,1\n")
    with pytest.raises(ColumnError, match=r"Names match exactly: write '(Who|V)'"):
        project.run()


def test_a_column_named_after_the_ingest_is_refused_too(project: Project) -> None:
    project.put(a__csv=CSV).run()
    Project(project.home, TABLE + 'text = "note"\n')
    with pytest.raises(ColumnError, match="no column 'note'"):
        project.run()


def test_a_table_of_a_collection_may_have_no_subject(project: Project) -> None:
    Project(project.home, PEOPLE.replace("tables", "collections")).put(a__csv=CSV, b__csv="who,v\n7,1\n").run()
    said = [project.lake.lineage(project.lake.snapshot(f"records/t/{name}")).params for name in "ab"]
    assert said == [{"subjects": []}, {"subjects": [["person", "who"]]}]


@pytest.mark.parametrize("content", ["", "id,name\n"])
def test_a_table_without_rows_needs_no_subject(project: Project, content: str) -> None:
    assert Project(project.home, PEOPLE).put(a__csv=content).run()[0].rows == 0


NESTED = {
    "a__jsonl": b'{"who":"x"}\n{"who":["y","z"]}\n',
    "b__parquet": _parquet([{"who": [7]}]),
    "c__parquet": _parquet([{"who": {"id": 7}}]),
}


@pytest.mark.parametrize("name", NESTED)
def test_a_nested_subject_is_refused(project: Project, name: str) -> None:
    Project(project.home, PEOPLE).put(**{name: NESTED[name]}, d__csv="who\nann\n")
    with pytest.raises(ColumnError, match="'who' holds lists or objects"):
        project.run()


def test_an_error_at_the_door_quotes_no_value(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_args: Any) -> None:
        raise ValueError("Ann Smith")

    monkeypatch.setattr(door.frames, "read", broken)
    with pytest.raises(UnexpectedError) as caught:
        project.put(a__csv=CSV).run()
    assert "Ann" not in str(caught.value)


def test_the_log_tells_no_bounds_of_personal_columns(project: Project) -> None:
    Project(project.home, PEOPLE + 'text = "note"\n').put(a__csv="who,note,v\n7,5,1\n8,6,2\n").run()
    [part] = project.lake.parts(project.lake.snapshot("records/t"))
    assert part.file.stats["v"] == {"min": 1, "max": 2, "n_nulls": 0}
    assert all(part.file.stats[name] == {"n_nulls": 0} for name in ("who", "note"))


# --- damage -----------------------------------------------------------------------------------------------------------------


def test_what_cannot_be_read_is_one_reject_and_the_others_go_on(project: Project) -> None:
    project.put(
        a__csv__gz=gzip.compress(b"k\n" + b"1\n" * 50_000, mtime=0)[:-9], b__parquet=b"no", c__csv="k\n5\n", d__odd="k\n6\n"
    )
    [result] = project.run()
    reasons = {Path(row["source"]).name: row["reason"].split(":")[0] for row in project.rows("quarantine")}
    assert reasons == {
        "a.csv.gz": "the gzip stream is cut short",
        "b.parquet": "not a Parquet file",
        "d.odd": "the suffix '.odd' is no format that is known. Set format = ... for its table in lethe.toml",
    }
    assert result.rows > 40_000
    assert {row["k"] for row in project.rows()} == {1, 5}


def test_a_file_in_latin1_is_read_and_one_bad_line_is_not_the_file(project: Project) -> None:
    project.put(a__csv="k\ncafé\nnaïve\n".encode("latin-1"), b__csv="k\nthé\n".encode() + b"caf\xe9\n").run()
    assert project.values() == [["café"], ["naïve"], ["thé"]]
    assert [row["raw"] for row in project.rows("quarantine")] == ["caf\\xe9"]
    dialects = {Path(row["uri"]).name: json.loads(row["dialect"])["encoding"] for row in project.rows("sources")}
    assert dialects == {"a.csv": "cp1252", "b.csv": "utf-8"}


def test_an_empty_table_has_its_schema_and_no_file(project: Project) -> None:
    [result] = project.put(a__csv="id,name\n").run()
    snapshot = project.lake.snapshot("records/t")
    assert (result.rows, project.lake.schema(snapshot).names, project.lake.parts(snapshot)) == (0, ["row_id", "id", "name"], [])


def test_a_table_that_never_had_a_file_is_refused(project: Project) -> None:
    with pytest.raises(SourceError, match=r"tables\.t: no file: no file matches in/\*"):
        project.run()


def test_what_a_source_without_files_is_stands_in_the_error(project: Project) -> None:
    folder = project.home / "in"
    (folder / "sub").mkdir(parents=True)
    (folder / "gone.csv").symlink_to("nowhere.csv")
    for source, said in {"gone.csv": "is a link that leads nowhere", "sub": "is a folder", "no.csv": "does not exist"}.items():
        Project(project.home, TABLE.replace("*", source))
        with pytest.raises(SourceError, match=f"in/{source} {said}"):
            project.run()
    Project(project.home)
    with pytest.raises(SourceError, match=r"matches only: a folder.*, a link that leads nowhere"):
        project.run()


def test_a_parquet_value_that_nothing_holds_costs_its_row_alone(project: Project) -> None:
    far = pa.array([0, 2**61, 1], pa.timestamp("ms"))
    year = pa.array([0, 0, 400_000_000_000_000_000], pa.timestamp("us"))
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"id": [1, 2, 3], "far": far, "year": year}), sink)
    [result] = project.put(a__parquet=sink.getvalue().to_pybytes(), b__csv="id\n4\n").run()
    assert (result.rows, result.quarantined, {row["id"] for row in project.rows()}) == (2, 2, {1, 4})
    found = {row["reason"]: row["raw"] for row in project.rows("quarantine")}
    assert list(found) == ["a value of column 'far' is no timestamp[us]", "a time in column 'year' is not in the years 1 to 9999"]
    assert str(2**61) in found["a value of column 'far' is no timestamp[us]"]


def test_mixed_formats_and_nested_values_share_one_table(project: Project) -> None:
    project.put(
        a__jsonl='{"id":1,"tags":["x"],"Row_ID":5}\n', b__parquet=_parquet([{"id": 2, "tags": ["y", None]}]), c__csv="ID\n3.5\n"
    ).run()
    assert project.values() == [[1.0, ["x"], 5], [2.0, ["y", None], None], [3.5, None, None]]
    assert project.run()[0].found


def test_rows_are_found_again_after_a_column_came(project: Project) -> None:
    project.put(a__csv="id\n1\n", b__csv="id\n2\n").run()
    before = {row["id"]: row["row_id"] for row in project.rows()}
    project.put(c__csv="id,late\n3,x\n").run()
    assert {row["id"]: row["row_id"] for row in project.rows() if row["id"] < 3} == before


# --- many -------------------------------------------------------------------------------------------------------------------


def test_a_collection_makes_a_table_of_each_file(project: Project) -> None:
    Project(project.home, '[collections.c]\nsource = "in/*.csv"\n').put(**{f"t{n}__csv": f"n\n{n}\n{n}\n" for n in range(30)})
    seen = list[tuple[str, int, int]]()
    results = ingest.fn(load_settings(project.home), None, progress=lambda *step: seen.append(step))
    assert [(r.name, r.rows, r.files) for r in results[:2]] == [("c/t0", 2, 1), ("c/t1", 2, 1)]
    assert [(done, n) for _, done, n in seen] == [(n, 30) for n in range(1, 31)]
    assert {row["n"] for row in project.rows("records/c/t7")} == {7}
    assert all(result.found for result in project.run())


def test_a_file_larger_than_what_is_kept_is_streamed(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "".join(f"{n},text {n}\n" for n in range(5_000))
    [small] = project.put(a__csv="n,t\n" + lines).run()
    monkeypatch.setattr("tasks.ingest.streams.BLOCK_BYTES", 1_000)
    monkeypatch.setattr(door.frames, "KEEP_BYTES", 0)
    other = Project(project.home / "streamed").put(a__csv="n,t\n" + lines)
    [streamed] = other.run()
    assert (streamed.rows, streamed.digest) == (5_000, small.digest)


@pytest.mark.slow
def test_a_dask_cluster_writes_the_same_tables(project: Project) -> None:
    project.put(**{f"f{n}__csv": f"id,v\n{n},{n}{'.5' if n == 3 else ''}\nbad\n" for n in range(6)})
    files = {path.name.replace(".", "__"): path.read_bytes() for path in (project.home / "in").iterdir()}
    [here] = Project(project.home / "local").put(**files).run()
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        [there] = ingest.fn(load_settings(project.home), None, scheduler=cluster.scheduler_address)
    assert (there.rows, there.quarantined, there.digest) == (here.rows, here.quarantined, here.digest) == (6, 6, there.digest)


@pytest.mark.slow
def test_real_tables_keep_every_line(tmp_path: Path, shared_data: Path) -> None:
    with tarfile.open(shared_data / "lake" / "snapshots.tar.gz") as archive:
        archive.extractall(tmp_path / "in", filter="data")
    project = Project(tmp_path, '[collections.s]\nsource = "in/**/*.csv"\n')
    results = project.run()
    n_records = 0
    for path in (tmp_path / "in").rglob("*.csv"):
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as lines:
            n_records += sum(bool(record) for record in csv.reader(lines)) - 1
    assert sum(r.rows + r.quarantined for r in results) == n_records
    assert all(result.found for result in project.run())
