"""What lethe.toml may say of a table, through the door: drift, contracts, keys, types, partitions, pruning, and big files."""

from __future__ import annotations

import bz2
import errno
import gzip
import json
import random
from collections.abc import Callable
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra.contracts import MIXED, REQUESTS, CommitConflict, Lineage
from infra.files import SOURCE, read_part_table, write_part
from infra.ids import subject_token
from infra.settings import ConfigError, load_settings
from tasks.ingest import commits, content, passes
from tasks.ingest.columns import ColumnError
from tasks.ingest.compact import compact
from tasks.ingest.passes import Unreached
from tasks.ingest.sources import SourceError
from tasks.ingest.task import QuarantineLimit

Make = Callable[..., Any]


# --- drift --------------------------------------------------------------------------------------------------------------------


def test_a_file_that_would_make_a_column_text_is_stopped_and_the_others_go_on(make: Make) -> None:
    project = make().put(a__csv="id,v\n1,5\n", b__csv="id,v\n2,many\n", c__csv="id,v,w\n3,7.5,new\n")
    [result] = project.run()
    assert project.values() == [[1, 5.0, None], [3, 7.5, "new"]]
    assert (result.rows, result.quarantined, result.n_stopped, result.files) == (2, 1, 1, 3)
    [row] = project.rows("quarantine")
    assert row["reason"].startswith("column 'v' is int64 in the table and string in this file; to take both set tables.t.types.v")
    assert (row["line"], row["raw"], Path(row["source"]).name) == (0, "", "b.csv")
    assert project.run()[0].found and project.run()[0].n_stopped == 1


def test_a_stopped_file_keeps_its_older_rows_until_it_is_mended_or_allowed(make: Make) -> None:
    project = make().put(a__csv="id,v\n1,5\n", b__csv="id,v\n2,6\n")
    project.run()
    [stopped] = project.put(b__csv="id,v\n2,six\n").run()
    assert (project.values(), stopped.n_stopped) == ([[1, 5], [2, 6]], 1)
    [mended] = project.put(b__csv="id,v\n2,6\n").run()
    assert (project.values(), mended.n_stopped, mended.quarantined) == ([[1, 5], [2, 6]], 0, 0)
    project.put(b__csv="id,v\n2,six\n").run()
    (project.home / "lethe.toml").write_text('[tables.t]\nsource = "in/*"\ntypes = { v = "string" }\n')
    [allowed] = project.run()
    assert (project.values(), allowed.n_stopped, allowed.quarantined) == ([[1, "5"], [2, "six"]], 0, 0)


# --- rules --------------------------------------------------------------------------------------------------------------------

CONTRACT = """
[tables.t.contract]
id = { not_null = true, unique = true }
age = { range = [0, 120] }
state = { allowed = ["new", "done"] }
"""


def test_rows_that_break_a_contract_are_set_aside_with_the_rules_name(make: Make) -> None:
    project = make(CONTRACT).put(
        a__csv="id,age,state\n1,20,new\n,30,new\n3,200,done\n4,40,lost\n4,41,done\n5,50,new\n5,50,new\n",
        b__csv="id,age\n1,21\n6,60\n",
    )
    [result] = project.run()
    assert result.rows + result.quarantined == 9
    assert [row["id"] for row in sorted(project.rows(), key=lambda r: r["id"])] in ([1, 4, 5, 5, 6],)
    assert project.reasons() == [
        "contract: allowed on 'state'",
        "contract: not_null on 'id'",
        "contract: range on 'age'",
        "contract: unique on 'id'",
    ]
    lines = {row["reason"]: row["line"] for row in project.rows("quarantine") if row["line"]}
    assert lines["contract: range on 'age'"] == 4
    assert json.loads(next(r["raw"] for r in project.rows("quarantine") if "range" in r["reason"]))["age"] == 200


def test_a_row_that_is_there_keeps_its_key_against_a_new_one(make: Make) -> None:
    project = make('primary_key = ["id"]\n').put(a__csv="id,v\n1,old\n2,old\n")
    project.run()
    [result] = project.put(b__csv="id,v\n2,new\n3,new\n").run()
    assert project.values() == [[1, "old"], [2, "old"], [3, "new"]]
    assert (result.quarantined, project.reasons()) == (1, ["contract: primary_key"])
    project.put(a__csv="id,v\n1,newer\n").run()
    assert project.values() == [[1, "newer"], [3, "new"]]


def test_too_many_rejects_fail_the_table_before_its_commit_and_no_other(make: Make, tmp_path: Path) -> None:
    project = make('max_quarantine_fraction = 0.5\n[tables.u]\nsource = "in/*"\n').put(a__csv="a,b\n1,2\n3\n4\n")
    with pytest.raises(QuarantineLimit, match=r"table t: 2 of 3 rows .* max_quarantine_fraction = 0\.5"):
        project.run()
    assert not project.lake.exists("records/t")
    assert [row["table"] for row in project.rows("quarantine")] == ["u", "u"]
    assert len(project.rows("records/u")) == 1
    assert not [path for path in (project.home / "lake" / "records").rglob("*.parquet") if "t" in path.parts]


def test_a_rule_or_an_option_on_no_column_is_refused(make: Make) -> None:
    for text in (
        "[tables.t.contract]\nnope = { not_null = true }\n",
        'types = { nope = "int64" }\n',
        'columns = ["id", "nope"]\n',
    ):
        with pytest.raises(ColumnError, match="'nope'"):
            make(text).put(a__csv="id\n1\n").run()
    with pytest.raises(ColumnError, match="column 'id' is int64, and its rule names text"):
        make('[tables.t.contract]\nid = { range = ["a", "b"] }\n').put(a__csv="id\n1\n").run()
    with pytest.raises(ConfigError, match=r"lethe\.toml: tables\.t: encoding = 'utf9'"):
        make('encoding = "utf9"\n').put(a__csv="id\n1\n").run()
    with pytest.raises(ConfigError, match=r"types\.id"):
        make('types = { id = "number" }\n').put(a__csv="id\n1\n").run()


# --- reading ------------------------------------------------------------------------------------------------------------------


def test_what_lethe_toml_says_overrides_every_guess(make: Make) -> None:
    text = """
separator = "|"
encoding = "cp1252"
null_strings = ["-"]
decimal_mark = ","
date_formats = ["%d.%m.%Y"]
columns = ["zip", "price", "born", "note"]
types = { zip = "string", price = "decimal(8,2)", born = "date" }
"""
    raw = "zip|price|born|note|extra\n007|1.234,50|31.12.1999|caf\xe9, ok|x\n8|-|-|-|y\n9|much|01.01.2000|z|z\n"
    project = make(text).put(a__csv=raw.encode("cp1252"))
    [result] = project.run()
    rows = [{k: str(v) if v is not None else None for k, v in row.items() if k != "row_id"} for row in project.rows()]
    assert sorted(rows, key=lambda row: row["zip"]) == [
        {"zip": "007", "price": "1234.50", "born": "1999-12-31", "note": "café, ok"},
        {"zip": "8", "price": None, "born": None, "note": None},
    ]
    assert (result.quarantined, project.reasons()) == (1, ["type: column 'price' is no decimal(8,2)"])


def test_changed_options_read_every_file_again(make: Make) -> None:
    project = make().put(a__csv="id;v\n1;x\n", b__csv="id;v\n2;y\n")
    project.run()
    (project.home / "lethe.toml").write_text('[tables.t]\nsource = "in/*"\ncolumns = ["id"]\n')
    [result] = project.run()
    assert ([row["id"] for row in project.rows()], result.found) == ([1, 2], False) or project.values() == [[1], [2]]
    assert project.run()[0].found


def test_the_ledger_records_what_was_detected(make: Make) -> None:
    project = make().put(a__csv="id;;id\n1;2;3\n")
    project.run()
    [entry] = project.rows("sources")
    found = json.loads(entry["dialect"])
    assert (found["separator"], found["names"]) == (";", ["id", "column_2", "id_2"])
    assert len(found["renamed"]) == 2


def test_partitions_lie_in_files_of_their_own_and_come_back_whole(make: Make) -> None:
    project = make('partition_by = ["year"]\n').put(a__csv="id,year\n1,2020\n2,2021\n3,2020\n4,\n", b__csv="id,year\n5,2021\n")
    [result] = project.run()
    parts = project.lake.parts(project.lake.snapshot("records/t"))
    assert sorted(str(part.file.partition["year"]) for part in parts) == ["2020", "2021", "None"]
    assert project.values() == [[1, 2020], [2, 2021], [3, 2020], [4, None], [5, 2021]]
    [plain] = make().put(a__csv="id,year\n1,2020\n2,2021\n3,2020\n4,\n", b__csv="id,year\n5,2021\n").run()
    assert plain.digest == result.digest
    (project.home / "lethe.toml").write_text('[tables.t]\nsource = "in/*"\n')
    [again] = project.run()
    assert (again.digest, project.lake.partitioning(project.lake.snapshot("records/t"))) == (result.digest, ())


# --- many files, gone files ---------------------------------------------------------------------------------------------------


def test_small_files_share_a_data_file_and_are_still_told_apart(make: Make) -> None:
    project = make().put(**{f"f{n}__csv": f"id,v\n{n},{n * n}\n{n},x{n}\n" for n in range(30)})
    project.run()
    [part] = project.lake.parts(project.lake.snapshot("records/t"))
    assert part.file.source == MIXED
    assert SOURCE in pq.read_schema(part.uri).names
    assert SOURCE not in part.schema.names
    [result] = project.put(f3__csv="id,v\n100,new\n").run()
    expected = sorted([[n, v] for n in range(30) if n != 3 for v in (str(n * n), f"x{n}")] + [[100, "new"]], key=repr)
    assert project.values() == expected
    fresh = make().put(**{path.name.replace(".", "__"): path.read_bytes() for path in (project.home / "in").iterdir()})
    assert fresh.run()[0].digest == result.digest


def test_small_files_that_hold_much_are_not_held_together(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {f"f{n}__csv__gz": gzip.compress(b"id,v\n" + b"".join(b"%d,%d\n" % (n, k) for k in range(99))) for n in range(9)}
    [expected] = make().put(**files).run()
    monkeypatch.setattr("tasks.ingest.frames.KEEP_BYTES", 8000)
    project = make().put(**files)
    [result] = project.run()
    assert (result.rows, result.digest) == (9 * 99, expected.digest)
    assert 1 < len(project.lake.parts(project.lake.snapshot("records/t"))) < 9


def test_rows_of_files_that_are_gone_leave_only_with_prune(make: Make) -> None:
    project = make().put(a__csv="id,v\n1,x\nbad\n", b__csv="id,v\n2,y\n")
    project.run()
    (project.home / "in" / "a.csv").unlink()
    [kept] = project.run()
    assert (kept.rows, kept.n_vanished, kept.quarantined) == (2, 1, 1)
    [pruned] = project.run(prune=True)
    assert (project.values(), pruned.rows, pruned.files, pruned.n_vanished, pruned.quarantined) == ([[2, "y"]], 1, 1, 0, 0)
    (project.home / "in" / "b.csv").unlink()
    with pytest.raises(SourceError, match="--prune would take all its rows"):
        project.run(prune=True)
    assert project.values() == [[2, "y"]]


def test_compaction_changes_files_and_not_rows(make: Make) -> None:
    project = make('subject = { kind = "person", column = "who" }\n')
    for n in range(5):
        project.put(**{f"f{n}__csv": "who,v\n" + "".join(f"p{k},{n}\n" for k in range(9))}).run()
    before = project.lake.snapshot("records/t")
    assert len(project.lake.parts(before)) == 5
    [done] = compact.fn(load_settings(project.home))
    after = project.lake.snapshot("records/t")
    assert (done.n_files_before, done.n_files, after.digest) == (5, 1, before.digest)
    people = [row["who"] for row in project.rows()]
    assert sum(one != other for one, other in pairwise(people)) == 8
    assert compact.fn(load_settings(project.home)) == []
    project.put(f2__csv="who,v\np0,77\n").run()
    assert sorted(row["v"] for row in project.rows()) == sorted([n for n in (0, 1, 3, 4) for _ in range(9)] + [77])


# --- sequences that once went wrong -------------------------------------------------------------------------------------------


def test_changed_options_hold_for_files_of_equal_content(make: Make) -> None:
    project = make().put(a__csv="k,v\nr1,1\nr2,900\nr2,5\n")
    project.run()
    (project.home / "lethe.toml").write_text(
        '[tables.t]\nsource = "in/*"\nprimary_key = ["k"]\n[tables.t.contract]\nv = { range = [0, 100] }\n'
    )
    [result] = project.run()
    assert (project.values(), result.quarantined) == ([["r1", 1], ["r2", 5]], 1)


def _killed_at(monkeypatch: pytest.MonkeyPatch, project: Any, n: int, **options: Any) -> None:
    """Run until the n-th commit (from 1), which is not made."""
    commit, made = commits.Lake.commit, list[str]()

    def killing(lake: Any, table: str, *args: Any, **given: Any) -> Any:
        made.append(table)
        if len(made) == n:
            raise KeyboardInterrupt
        return commit(lake, table, *args, **given)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(commits.Lake, "commit", killing)
        project.run(**options)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_a_file_that_is_put_back_after_a_crash_is_what_the_table_has(make: Make, monkeypatch: pytest.MonkeyPatch, n: int) -> None:
    old, new = "id,v\n1,x\nbad\n", "id,v\n2,y\n3,z\n"
    project = make().put(a__csv=old)
    project.run()
    project.put(a__csv=new)
    _killed_at(monkeypatch, project, n)
    [result] = project.put(a__csv=old).run()
    assert (project.values(), result.quarantined, len(project.rows("quarantine"))) == ([[1, "x"]], 1, 1)
    assert project.run()[0].found


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_file_that_comes_back_after_a_killed_prune_is_there_again(make: Make, monkeypatch: pytest.MonkeyPatch, n: int) -> None:
    project = make().put(a__csv="id\n1\n", b__csv="id\n2\n")
    project.run()
    (project.home / "in" / "b.csv").unlink()
    _killed_at(monkeypatch, project, n, prune=True)
    project.put(b__csv="id\n2\n").run()
    assert project.values() == [[1], [2]]


def test_a_file_that_is_gone_after_a_crash_can_be_pruned(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    project = make().put(a__csv="id\n1\n")
    project.run()
    project.put(b__csv="id,w\n2,x\n")
    _killed_at(monkeypatch, project, 3)
    (project.home / "in" / "b.csv").unlink()
    [kept] = project.run()
    assert (project.values(), kept.n_vanished) == ([[1, None], [2, "x"]], 1)
    project.run(prune=True)
    assert [row["id"] for row in project.rows()] == [1]


@pytest.mark.parametrize("gone", ["", "v", "2020-01-01"])
def test_rows_without_a_value_take_any_type(make: Make, gone: str) -> None:
    project = make('drift = "text"\n').put(a__csv="k,v\na,2020-01-01\n", b__csv=f"k,v\nb,{gone}\n")
    project.run()
    (project.home / "in" / "b.csv").unlink()
    [result] = project.put(a__csv="k,v\na,1.5\n").run()
    assert result.rows == 2
    assert [row["k"] for row in sorted(project.rows(), key=lambda row: row["k"])] == ["a", "b"]


def test_a_type_that_rows_of_gone_files_do_not_have_is_refused_with_a_way_out(make: Make) -> None:
    project = make().put(a__csv="k,v\na,abc\n", b__csv="k,v\nb,1\n")
    project.run()
    (project.home / "in" / "a.csv").unlink()
    (project.home / "lethe.toml").write_text('[tables.t]\nsource = "in/*"\ntypes = { v = "int64" }\n')
    with pytest.raises(ColumnError, match=r"column 'v': rows whose raw files are gone .* lethe ingest --prune"):
        project.run()
    project.run(prune=True)
    assert project.values() == [["b", 1]]


def test_a_key_is_free_when_its_row_leaves_in_the_same_run(make: Make) -> None:
    project = make('primary_key = ["k"]\n').put(a__csv="k,v\nr1,1\n", c__csv="k,v\nr2,1\n")
    project.run()
    (project.home / "in" / "a.csv").unlink()
    project.put(b__csv="k,v\nr1,2\n").run(prune=True)
    assert project.values() == [["r1", 2], ["r2", 1]]


def test_a_column_named_as_the_hidden_one_gets_another_name(make: Make) -> None:
    project = make().put(a__csv=f"id,{SOURCE}\n1,x\n", b__csv=f"id,{SOURCE}\n2,y\n")
    project.run()
    assert sorted(row[f"{SOURCE}_"] for row in project.rows()) == ["x", "y"]


def test_a_partition_column_that_no_file_has_is_refused_and_an_empty_table_goes_on(make: Make) -> None:
    with pytest.raises(ColumnError, match="partition_by: no column 'nope'"):
        make('partition_by = ["nope"]\n').put(a__csv="id\n1\n").run()
    project = make('partition_by = ["p"]\n').put(a__csv="")
    project.run()
    project.put(b__csv="id,p\n1,x\n2,\n").run()
    assert project.values() == [[1, "x"], [2, None]]


def test_every_data_file_of_a_big_table_lies_in_the_order_of_its_subjects(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks do not end where data files do: a file that is full may not be one that is too large to be put in order."""
    for name in ("infra.layout.TARGET_ROWS", "infra.layout.SORT_ROWS"):
        monkeypatch.setattr(name, 100)
    monkeypatch.setattr("tasks.ingest.streams.BLOCK_BYTES", 512)
    lines = "".join(f"p{n % 7},{n}\n" for n in range(1000))
    project = make('subject = { kind = "person", column = "who" }\n').put(a__csv="who,v\n" + lines)
    project.run()
    parts = project.lake.parts(project.lake.snapshot("records/t"))
    assert [part.file.n_rows for part in parts] == [100] * 10
    for part in parts:
        people = read_part_table(part, ["who"]).column("who").to_pylist()
        assert sum(one != other for one, other in pairwise(people)) == 6


# --- what may not come back, and what is not known ---------------------------------------------------------------------------


def test_an_erased_subject_comes_back_neither_as_a_row_nor_as_a_reject(make: Make) -> None:
    rules = (
        'types = { v = "int64" }\nsubject = { kind = "person", column = "who" }\n[tables.t.contract]\nv = { range = [0, 9] }\n'
    )
    project = make(rules)
    row = {"request_id": "r", "kind": "person", "subject": subject_token(project.lake.keys, "person", "ann")}
    row |= {"state": "received", "at": datetime.now(UTC), "detail": ""}
    file = write_part(project.lake.folder("requests"), [pa.RecordBatch.from_pylist([row], schema=REQUESTS)], REQUESTS)
    project.lake.commit("requests", REQUESTS, [file], lineage=Lineage("forget", "k", ""))
    [result] = project.put(a__csv="who,v\nann,1\nann,99\nann,many\nann,1,ragged\nbob,2\nbob,99\n").run()
    assert (project.values(), result.quarantined, result.n_suppressed) == ([["bob", 2]], 1, 4)
    assert "ann" not in str(project.rows("quarantine"))


class _BreakingOff:
    """A file whose store breaks off at the second read."""

    def __init__(self, file: Any) -> None:
        self._file, self._n = file, 0

    def read(self, n_bytes: int = -1) -> bytes:
        self._n += 1
        if self._n > 1:
            raise ConnectionResetError(errno.ECONNRESET, "ann")
        return self._file.read(n_bytes)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@pytest.mark.parametrize("kind", ["csv", "csv__gz", "csv__bz2", "csv__zst", "jsonl", "parquet", "arrow"])
def test_a_store_that_breaks_off_is_no_damaged_file(make: Make, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    text, table, sink = b"id\n1\n2\n", pa.table({"id": [1, 2]}), pa.BufferOutputStream()
    if kind == "parquet":
        pq.write_table(table, sink)
    elif kind == "arrow":
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    packed = {"csv": text, "jsonl": b'{"id":1}\n{"id":2}\n', "csv__gz": gzip.compress(text), "csv__bz2": bz2.compress(text)}
    packed["csv__zst"] = pa.compress(text, "zstd", asbytes=True)
    project = make().put(**{f"a__{kind}": packed.get(kind) or sink.getvalue().to_pybytes()})
    with monkeypatch.context() as patch:
        for name in ("opened", "random_access"):
            patch.setattr(passes.archives, name, _broken(getattr(passes.archives, name)))
        with pytest.raises(
            Unreached, match=r"broke off while it was read \(Connection reset by peer\)\. Run the command again"
        ) as caught:
            project.run()
    assert "ann" not in str(caught.value)
    assert (project.rows("quarantine"), project.rows("sources")) == ([], [])
    assert project.run()[0].rows == 2


def _broken(opened: Any) -> Any:
    @contextmanager
    def broken(*args: Any, **options: Any) -> Any:
        with opened(*args, **options) as file:
            yield _BreakingOff(file)

    return broken


# --- big files ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["plain", "quoted", "cp1252", "jsonl"])
def test_segments_of_a_big_file_give_what_one_reading_gives(make: Make, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    chance = random.Random(7)
    values = {"plain": ["a", "bb", "7"], "quoted": ['"x\ny"', '"a,b"', "c"], "cp1252": ["caf\xe9", "x"], "jsonl": ["a"]}[kind]
    lines = ["id,v", *(f"{n},{chance.choice(values)}" for n in range(3000)), "bad", *(f"{n},z" for n in range(500))]
    if kind == "jsonl":
        lines = [json.dumps({"id": n, "v": str(n)}) for n in range(3000)] + ["bad"] + ['{"id": 1}'] * 500
    data = "\n".join(lines).encode("cp1252" if kind == "cp1252" else "utf-8")
    name = "a__jsonl" if kind == "jsonl" else "a__csv"
    whole = make().put(**{name: data})
    [expected] = whole.run()
    monkeypatch.setattr(content, "SEGMENT_BYTES", 4096)
    monkeypatch.setattr("tasks.ingest.packs.SMALL_BYTES", 0)
    cut = make().put(**{name: data})
    [result] = cut.run()
    assert (result.rows, result.digest, result.quarantined) == (expected.rows, expected.digest, expected.quarantined)
    assert [(r["line"], r["raw"]) for r in cut.rows("quarantine")] == [(r["line"], r["raw"]) for r in whole.rows("quarantine")]
    if kind in ("plain", "jsonl"):
        assert len(cut.lake.parts(cut.lake.snapshot("records/t"))) > 3
    assert cut.run()[0].found
    # Types that widen late: segments are written twice, and their lines are still the file's.
    late = make().put(**{name: data + (b'\n{"id": 1.5}' if kind == "jsonl" else b"\n1.5,z")})
    late.run()
    assert [r["line"] for r in late.rows("quarantine")] == [r["line"] for r in whole.rows("quarantine")]
    (cut.home / "in" / name.replace("__", ".")).touch()
    [touched] = cut.run()
    assert (touched.version, touched.digest) == (result.version, result.digest)


# --- other writers --------------------------------------------------------------------------------------------------------------


def test_two_ingests_of_one_table_at_once_end_as_one_after_the_other(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    project = make().put(a__csv="id\n1\n", b__csv="id\n2\n")
    commit, raced = commits.Lake.commit, list[str]()

    def overtaken(lake: Any, table: str, *args: Any, **options: Any) -> Any:
        if table == "records/t" and not raced:
            raced.append(table)
            project.put(c__csv="id\n3\n").run()
        return commit(lake, table, *args, **options)

    monkeypatch.setattr(commits.Lake, "commit", overtaken)
    project.run()
    assert (project.values(), raced) == ([[1], [2], [3]], ["records/t"])
    assert sorted(Path(row["uri"]).name for row in project.rows("sources")) == ["a.csv", "b.csv", "c.csv"]
    assert project.run()[0].found


def test_a_table_that_changes_its_types_is_refused_when_another_writer_was_first(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make('drift = "text"\n').put(a__csv="id\n1\n")
    project.run()
    project.put(b__csv="id\nx\n")
    commit, raced = commits.Lake.commit, list[str]()

    def overtaken(lake: Any, table: str, *args: Any, **options: Any) -> Any:
        if table == "records/t" and not raced:
            raced.append(table)
            (project.home / "in" / "b.csv").unlink()
            project.put(c__csv="id\n3\n").run()
            project.put(b__csv="id\nx\n")
        return commit(lake, table, *args, **options)

    monkeypatch.setattr(commits.Lake, "commit", overtaken)
    with pytest.raises(CommitConflict):
        project.run()
    project.run()
    assert project.values() == [["1"], ["3"], ["x"]]
