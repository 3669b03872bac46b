"""`lethe register` and `lethe adopt`, from lethe.toml to the document that is printed."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from flows import show
from flows.curate import ingest_tables
from flows.maintain import scan
from flows.status import status_of
from flows.tables import adopt, register, unregister
from infra.contracts import LetheError
from infra.lake import Lake
from infra.settings import load_settings
from tasks.forget.locate import hidden_name
from tasks.forget.task import erase, register_requests

ROWS = pa.table({"who": [f"author {n % 9}" for n in range(90)], "n": pa.array(range(90), pa.int64())})


@pytest.fixture(name="home")
def _home(tmp_path: Path) -> Path:
    """Two tables of another writer, one of them also among the raw files."""
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "own.csv").write_text("who,n\n" + "".join(f"author {n % 9},{n}\n" for n in range(90)))
    for name, rows in (("copy", ROWS), ("part", ROWS.slice(0, 30))):
        write_deltalake(tmp_path / "theirs" / name, rows)
    (tmp_path / "lethe.toml").write_text('[tables.own]\nsource = "raw/*.csv"\n')
    return tmp_path


def test_the_walk_of_a_table_of_another_writer(home: Path) -> None:
    config = str(home / "lethe.toml")
    ingest_tables(config=config)
    for name in ("copy", "part"):
        document = show.entered(register(name, f"theirs/{name}", config))
        show.text(document)
    assert [(t["name"], t["rows"]) for t in status_of(config).foreign] == [("foreign/copy", 90), ("foreign/part", 30)]
    scanned = scan(config)
    found = {(e.child, e.parent) for e in scanned.edges}
    equal = {("own", "foreign/copy"), ("foreign/copy", "own")}
    assert found == {*equal, ("foreign/part", "own"), ("foreign/part", "foreign/copy")}
    with (home / "lethe.toml").open("a") as toml:
        toml.write('[tables.part]\nsource = "delta+theirs/part"\nsubject = { kind = "author", column = "who" }\n')
    taken = show.adopted(adopt("part", config=config))
    assert (taken.rows, taken.subjects, taken.outside) == (30, ["who"], str(home / "theirs" / "part"))
    show.text(taken)
    assert show.adopted(adopt("part", config=config)).found
    show.text(show.entered(unregister("copy", config), removed=True))
    assert status_of(config).foreign == []
    again = show.deduped(scan(config))
    assert {(e.child, e.parent) for e in again.edges} == {("part", "own")}
    show.text(again)


def test_what_cannot_be_compared_is_printed(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = str(home / "lethe.toml")
    register("copy", str(home / "theirs" / "copy"), config)
    (home / "theirs" / "copy").rename(home / "elsewhere")
    show.text(show.deduped(scan(config)))
    assert "not compared: foreign/copy: no Delta table can be read" in capsys.readouterr().out
    with pytest.raises(LetheError, match="no Delta table can be read"):
        register("copy", str(home / "theirs" / "copy"), config)


def test_an_erasure_reaches_what_was_taken_over_and_knows_where_it_came_from(home: Path) -> None:
    (home / "lethe.toml").write_text(
        '[tables.part]\nsource = "delta+theirs/part"\nsubject = { kind = "author", column = "who" }\n', encoding="utf-8"
    )
    config = str(home / "lethe.toml")
    adopt("part", str(home / "theirs" / "part"), config=config)
    settings = load_settings(config)
    ids = register_requests(settings, [("author", "author 3")])
    erased = erase.fn(settings, ids, containment=None)
    origin = f"delta+{home / 'theirs' / 'part'}"
    assert [table.sources for table in erased.tables] == [(hidden_name(origin, Lake.open(settings).keys),)]
    again = adopt("part", config=config)
    assert again.found and again.digest.startswith("27:"), "what was erased does not come back"
