"""Taking over: the rows are those that ingest would have made of the same values, and every one of them went somewhere."""

from __future__ import annotations

import contextlib
import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.contracts import REQUESTS, Lineage
from infra.files import write_part
from infra.foreign import ForeignUnreadable, registered
from infra.ids import subject_token
from infra.lake import Lake
from infra.settings import Settings, load_settings
from infra.subjects import subject_tokens
from tasks.ingest import foreign, ledger
from tasks.ingest.columns import ColumnError
from tasks.ingest.foreign import Adopted, ContractBroken, NameTaken, NotRegistered, adopt, register, unregister
from tasks.ingest.task import ingest

SUBJECT = 'subject = { kind = "author", column = "who" }\n'
POSTS = pa.table(
    {
        "who": pa.array([f"author {n % 7}" for n in range(60)]),
        "n": pa.array([None if n % 5 == 0 else n for n in range(60)], pa.int32()),
        "at": pa.array(range(60), pa.timestamp("us", "UTC")),
        "tags": pa.array([["a", None], [], None] * 20, pa.list_(pa.string())),
        "part": pa.array(["x", "y", None] * 20),
    }
)


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LETHE_SECRET", "ab" * 32)


def home_of(path: Path, text: str = "") -> Settings:
    path.mkdir(parents=True, exist_ok=True)
    (path / "lethe.toml").write_text(text, encoding="utf-8")
    return load_settings(path)


def theirs(path: Path, table: pa.Table = POSTS, **options: Any) -> str:
    write_deltalake(path, table, **options)
    return str(path)


def section(uri: str, more: str = SUBJECT) -> str:
    return f'[tables.posts]\nsource = "delta+{uri}"\n{more}'


def suppress(lake: Lake, who: str) -> None:
    row = {"request_id": "r", "kind": "author", "subject": subject_token(lake.keys, "author", who), "state": "received"}
    table = pa.Table.from_pylist([row], schema=REQUESTS)
    file = write_part(lake.folder("requests"), table.to_batches(), REQUESTS)
    lake.commit("requests", REQUESTS, [file], lineage=Lineage("test", "r", ""))


def records(lake: Lake, table: str = "posts") -> list[dict[str, Any]]:
    rows = lake.read(lake.snapshot(f"records/{table}")).to_pylist()
    return sorted(rows, key=lambda row: (row["row_id"], repr(row)))


def files_of(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


# --- the same rows ------------------------------------------------------------------------------------------------------------

CELLS = st.fixed_dictionaries(
    {
        "who": st.none() | st.sampled_from(["a", "b", "é", " a"]),
        "n": st.none() | st.integers(-(1 << 40), 1 << 40),
        "x": st.none() | st.floats(width=64),
        "raw": st.none() | st.binary(max_size=3),
    }
)
KINDS = pa.schema([("who", pa.string()), ("n", pa.int64()), ("x", pa.float64()), ("raw", pa.binary())])


@settings(max_examples=10, deadline=None)
@given(rows=st.lists(CELLS, min_size=1, max_size=12), cut=st.integers(0, 12), by_who=st.booleans())
def test_rows_ids_and_digests_are_those_of_the_same_rows_from_parquet(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], cut: int, by_who: bool
) -> None:
    place = tmp_path_factory.mktemp("same")
    if by_who:  # an empty partition value is NULL by protocol
        rows = [{**row, "who": row["who"] or None} for row in rows]
    table = pa.Table.from_pylist(rows, schema=KINDS)
    for number, some in enumerate((table.slice(0, cut), table.slice(cut))):
        theirs(place / "theirs", some, mode="append" if number else "error", partition_by=["who"] if by_who else None)
    taking = home_of(place / "adopt", section(str(place / "theirs")))
    adopted = adopt.fn(taking, "posts", str(place / "theirs"))
    reading = home_of(place / "ingest", '[tables.posts]\nsource = "in/*.parquet"\n' + SUBJECT)
    (place / "ingest" / "in").mkdir()
    pq.write_table(table, place / "ingest" / "in" / "one.parquet")
    [ingested] = ingest.fn(reading)
    assert adopted.digest == ingested.digest and adopted.n_source_rows == adopted.n_rows == len(rows)
    assert [repr(row) for row in records(Lake.open(taking))] == [repr(row) for row in records(Lake.open(reading))]


def test_how_files_are_read_together_changes_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digests = set[str]()
    for number, (n_bytes, options) in enumerate([(1, {"partition_by": ["part"]}), (1 << 30, {})]):
        monkeypatch.setattr(foreign, "_CALL_BYTES", n_bytes)
        uri = theirs(tmp_path / f"theirs{number}", **options)
        digests.add(adopt.fn(home_of(tmp_path / f"home{number}"), "posts", uri).digest)
    assert len(digests) == 1


class Elsewhere:
    """Workers in other processes, as far as pickle goes; every function runs twice, as it may after a lost worker."""

    def map(self, fn: Any, items: Any, *common: Any, progress: Any = None) -> list[Any]:
        del progress
        return [self._run((fn, item, *common)) for _ in range(2) for item in items][len(items) :]

    def _run(self, call: Any) -> Any:
        fn, *arguments = pickle.loads(pickle.dumps(call))
        return pickle.loads(pickle.dumps(fn(*arguments)))


def test_workers_make_the_same_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = theirs(tmp_path / "theirs", partition_by=["part"])
    here = adopt.fn(home_of(tmp_path / "here"), "posts", uri)
    monkeypatch.setattr(foreign, "_CALL_BYTES", 1)
    monkeypatch.setattr(foreign, "connect", lambda _scheduler: contextlib.nullcontext(Elsewhere()))
    config = home_of(tmp_path / "there")
    entry = register.fn(config, "posts", uri)
    there = adopt.fn(config, "posts")
    assert entry.digest == here.source_digest and there.digest == here.digest


def test_every_row_went_somewhere(tmp_path: Path) -> None:
    bad = pa.array([b"author 1", b"\xff", b"author 2", b"author 1", b"fine"]).view(pa.string())
    place = tmp_path / "theirs"
    uri = theirs(place, pa.table({"who": pa.array(["a"] * 5), "n": pa.array(range(5), pa.int64())}))
    swap(place, pa.table({"who": bad, "n": pa.array(range(5), pa.int64())}))
    config = home_of(tmp_path / "home", section(uri))
    lake = Lake.open(config)
    suppress(lake, "author 1")
    register.fn(config, "their-posts", uri)
    result = adopt.fn(config, "their-posts", table="posts")
    assert (result.n_source_rows, result.n_rows, result.n_quarantined, result.n_suppressed) == (5, 2, 1, 2)
    assert sorted(row["n"] for row in records(lake)) == [2, 4]
    [reject] = lake.read(lake.snapshot("quarantine")).to_pylist()
    assert (reject["table"], reject["source"], reject["line"], reject["reason"]) == ("posts", f"delta+{uri}", 0, "not UTF-8")
    assert "\\xff" in reject["raw"]
    entry = ledger.read(lake)["posts", f"delta+{uri}"]
    assert (entry.n_rows, entry.n_quarantined, entry.n_suppressed, entry.content_digest) == (2, 1, 2, result.source_digest)


def swap(path: Path, table: pa.Table) -> None:
    """Other rows in a table's only file, the log's size with it."""
    [log] = (path / "_delta_log").glob("*.json")
    [file] = path.glob("*.parquet")
    before = file.stat().st_size
    pq.write_table(table, file)
    log.write_text(log.read_text().replace(f'"size":{before}', f'"size":{file.stat().st_size}'))


def test_what_is_taken_over_is_a_table_like_any_other(tmp_path: Path) -> None:
    uri = theirs(tmp_path / "theirs", POSTS.slice(0, 30))
    config = home_of(tmp_path / "home", section(uri))
    lake = Lake.open(config)
    entry = register.fn(config, "their-posts", uri)
    before = files_of(tmp_path / "theirs")
    result = adopt.fn(config, "their-posts", table="posts")
    assert (result.table, result.outside, result.source_digest) == ("posts", uri, entry.digest)
    assert result.subjects == ("who",) and not result.found
    assert files_of(tmp_path / "theirs") == before
    assert registered(lake) == ()
    said = lake.lineage(lake.snapshot("records/posts")).params
    assert said["subjects"] == [["author", "who"]]
    assert (said["adopted"]["uri"], said["adopted"]["version"], said["adopted"]["digest"]) == (uri, 0, entry.digest)
    [part] = lake.parts(lake.snapshot("records/posts"))
    assert part.file.stats["who"].keys() == {"n_nulls"} and "min" in part.file.stats["n"]
    rows = lake.read(lake.snapshot("records/posts"))
    tokens = subject_tokens(rows.column("who"), "author", lake.keys).to_pylist()
    assert tokens == sorted(tokens), "rows lie in the order of their subjects"


def test_without_a_section_there_is_no_subject_and_the_name_is_the_registered_one(tmp_path: Path) -> None:
    config = home_of(tmp_path / "home")
    uri = theirs(tmp_path / "theirs")
    register.fn(config, "a/b", uri)
    result = adopt.fn(config, "a/b")
    assert (result.table, result.n_rows, result.subjects) == ("a/b", 60, ())
    assert Lake.open(config).exists("records/a/b")


def test_an_empty_table_is_taken_over_with_its_columns(tmp_path: Path) -> None:
    config = home_of(tmp_path / "home")
    result = adopt.fn(config, "posts", theirs(tmp_path / "theirs", POSTS.slice(0, 0)))
    assert result.n_rows == 0
    lake = Lake.open(config)
    assert lake.schema(lake.snapshot("records/posts")).names == ["row_id", *POSTS.column_names]


# --- crashes ------------------------------------------------------------------------------------------------------------------


class Killed(Exception):
    """Stands for kill -9."""


STEPS = ["commit_quarantine", "_commit", "_ledger_entry", "forget_registration", "_result"]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("after", [False, True])
def test_a_run_that_was_killed_is_finished_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, after: bool
) -> None:
    monkeypatch.setenv("LETHE_DEBUG", "1")
    results = list[tuple[Adopted, list[dict[str, Any]], list[Any]]]()
    for name in ("calm", "killed"):
        uri = theirs(tmp_path / name / "theirs")
        swap(tmp_path / name / "theirs", POSTS.set_column(4, "part", [pa.array([b"\xff"] * 60).view(pa.string())]).slice(0, 9))
        config = home_of(tmp_path / name, section(uri))
        register.fn(config, "posts", uri)
        if name == "killed":
            with monkeypatch.context() as patched, pytest.raises(Killed):
                patched.setattr(foreign, step, killed(getattr(foreign, step), after=after))
                adopt.fn(config, "posts")
        result = adopt.fn(config, "posts")
        lake = Lake.open(config)
        quarantine = [(r["table"], r["line"], r["reason"], r["raw"]) for r in lake.read(lake.snapshot("quarantine")).to_pylist()]
        results.append((result, records(lake), quarantine))
        assert registered(lake) == () and list(ledger.read(lake)) == [("posts", f"delta+{uri}")]
    (calm, rows, rejects), (again, same_rows, same_rejects) = results
    assert same_rows == rows and same_rejects == rejects and len(rejects) == 9
    assert (calm.digest, calm.n_rows, calm.n_quarantined) == (again.digest, again.n_rows, again.n_quarantined)


def killed(real: Any, *, after: bool) -> Any:
    def function(*args: Any, **options: Any) -> None:
        if after:
            real(*args, **options)
        raise Killed

    return function


def test_again_is_nothing(tmp_path: Path) -> None:
    config = home_of(tmp_path / "home")
    uri = theirs(tmp_path / "theirs")
    register.fn(config, "posts", uri)
    first = adopt.fn(config, "posts")
    theirs(tmp_path / "theirs", mode="append")
    for again in (adopt.fn(config, "posts"), adopt.fn(config, "posts", uri)):
        assert again.found and (again.digest, again.n_rows, again.version) == (first.digest, first.n_rows, first.version)


# --- refusals -----------------------------------------------------------------------------------------------------------------


def test_names_that_are_taken_are_refused(tmp_path: Path) -> None:
    uri = theirs(tmp_path / "theirs")
    config = home_of(tmp_path / "home", '[tables.posts]\nsource = "in/*"\n[collections.all]\nsource = "in/*"\n')
    for name in ("posts", "all", "all/x", "../x", "", "a//b"):
        with pytest.raises(NameTaken):
            register.fn(config, name, uri)
        with pytest.raises(NameTaken):
            adopt.fn(config, "fine", uri, table=name or "..")
    assert registered(Lake.open(config)) == ()
    register.fn(config, "fine", uri)
    with pytest.raises(NameTaken, match="is registered for"):
        register.fn(config, "fine", theirs(tmp_path / "others"))
    adopt.fn(config, "fine")
    with pytest.raises(NameTaken, match="of its own"):
        register.fn(config, "fine", uri)
    with pytest.raises(NameTaken, match="of its own"):
        adopt.fn(config, "fine", str(tmp_path / "others"))


def test_a_table_of_the_lake_is_not_another_writers(tmp_path: Path) -> None:
    config = home_of(tmp_path / "home")
    adopt.fn(config, "posts", theirs(tmp_path / "theirs"))
    with pytest.raises(NameTaken, match="a table of this lake"):
        register.fn(config, "loop", Lake.open(config).uri("records/posts"))


def test_what_is_not_registered_is_said(tmp_path: Path) -> None:
    config = home_of(tmp_path / "home")
    register.fn(config, "there", theirs(tmp_path / "theirs"))
    for call in (lambda: adopt.fn(config, "other"), lambda: unregister.fn(config, "other")):
        with pytest.raises(NotRegistered, match="there is: there"):
            call()
    assert unregister.fn(config, "there").uri == str(tmp_path / "theirs")
    assert registered(Lake.open(config)) == () and DeltaTable(tmp_path / "theirs").version() == 0


def test_a_subject_that_is_not_there_stops_before_anything_is_written(tmp_path: Path) -> None:
    uri = theirs(tmp_path / "theirs")
    config = home_of(tmp_path / "home", section(uri, 'subject = { kind = "author", column = "nobody" }\n'))
    with pytest.raises(ColumnError, match="nobody"):
        adopt.fn(config, "posts", uri)
    assert Lake.open(config).tables() == []


def test_rows_that_break_a_rule_go_to_quarantine_as_far_as_the_limit_allows(tmp_path: Path) -> None:
    rules = "max_quarantine_fraction = {}\n[tables.posts.contract]\nn = {{ range = [0, 49] }}\n"
    uri = theirs(tmp_path / "theirs")
    with pytest.raises(ContractBroken, match="8 of 60 rows"):
        adopt.fn(home_of(tmp_path / "strict", section(uri, rules.format(0.1))), "posts", uri)
    assert not Lake.open(load_settings(tmp_path / "strict")).exists("records/posts")
    result = adopt.fn(home_of(tmp_path / "lenient", section(uri, rules.format(0.2))), "posts", uri)
    assert (result.n_rows, result.n_quarantined) == (52, 8)
    with pytest.raises(ContractBroken, match="primary_key"):
        adopt.fn(home_of(tmp_path / "key", section(uri, 'primary_key = ["n"]\n')), "posts", uri)


def test_rows_that_changed_under_their_version_are_refused(tmp_path: Path) -> None:
    config = home_of(tmp_path / "home")
    uri = theirs(tmp_path / "theirs", POSTS.select(["n"]))
    register.fn(config, "posts", uri)
    swap(tmp_path / "theirs", POSTS.select(["n"]).slice(1))
    with pytest.raises(ForeignUnreadable, match="other rows than when it was registered"):
        adopt.fn(config, "posts")
    assert not Lake.open(config).exists("records/posts")


def test_relative_addresses_are_those_of_the_settings(tmp_path: Path) -> None:
    config = home_of(tmp_path / "home")
    theirs(tmp_path / "home" / "beside")
    entry = register.fn(config, "x", "beside/")
    assert entry.uri == str(tmp_path / "home" / "beside") and entry.n_rows == 60
    assert register.fn(config, "x", f"file://{entry.uri}") == entry
