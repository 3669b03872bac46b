"""A retired table that nothing rebuilds any more does not block the lake: it is taken in from its raw files, or given up."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from copies_lake import PERSON, visits, write_csv, write_lake
from test_retire import digests, lake_of, yes
from typer import BadParameter

from flows import show
from flows.approval import NobodyToAsk, type_names
from flows.cli import restore as restore_command
from flows.curate import ingest_tables
from flows.forget import forget, request
from flows.maintain import maintain
from flows.quarantine import quarantine_report
from flows.retire import NoRawFiles, asking, give_up, restore, retire
from flows.status import status_of
from flows.workspace import opened
from infra.contracts import LetheError
from infra.retired import TableRetired, entries, given_up, retired
from tasks.dedup.give_up import Rebuildable
from tasks.dedup.lost import Unrestorable
from tasks.forget.certificate import contents, problems_of
from tasks.forget.returns import ErasedWouldReturn

MORE = (
    f'[tables.{PERSON}]\nsource = "raw/adults.csv"\nsubject = {{ kind = "person", column = "patient" }}\n'
    '[datasets.some]\npool = ["visits", "adults"]\n'
)
COPIES = ("adults", PERSON, "doses", "odd")


@dataclass(frozen=True)
class World:
    """A lake whose `COPIES` were retired from visits, and one like it that is kept aside."""

    home: Path
    kept: Path

    @property
    def config(self) -> str:
        return str(self.home / "lethe.toml")

    @property
    def records(self) -> Path:
        return self.home / "lake" / "records"

    def lost(self) -> str:
        """Somebody deletes visits by hand. Returns the path of lethe.toml."""
        shutil.rmtree(self.records / "visits")
        return self.config


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World(tmp_path_factory.mktemp("give-up") / "p", tmp_path_factory.mktemp("give-up") / "kept")
    ingest_tables(config=write_lake(world.home, more=MORE))
    with asking(yes):
        assert retire(list(COPIES), parents=["visits"], config=world.config).retired == tuple(sorted(COPIES))
    shutil.copytree(world.home, world.kept, dirs_exist_ok=True)
    return world


@pytest.fixture
def world(made: World) -> World:
    shutil.rmtree(made.home)
    shutil.copytree(made.kept, made.home)
    return made


def test_forgetting_goes_on_once_tables_are_given_up_and_says_so(world: World) -> None:
    config = world.lost()
    request([("person", PERSON)], config)
    for blocked in (lambda: forget(None, config), lambda: maintain(config)):
        with pytest.raises(Unrestorable) as error:
            blocked()
        for table in COPIES:
            assert f"{table} was made from records/visits, of which the lake has nothing" in str(error.value)
        for way in ("lethe ingest visits", f"lethe restore {' '.join(sorted(COPIES))} --from-raw", "--give-up"):
            assert way in str(error.value)
    n_rows = retired(lake_of(config))["odd"].n_rows
    done, datasets = give_up(list(COPIES), config)
    assert give_up(["odd"], config)[0] == done[-1:], "once more is nothing more"
    assert {one.missing for one in done} == {("records/visits",)} and datasets["adults"] == ["some"]
    assert retired(lake_of(config)) == {} and digests(config, "members", "residual") == {}
    assert set(json.loads(entries(lake_of(config))["odd"].recipe)) == {"params", "given_up", "loss"}
    result = forget(None, config)
    assert result is not None
    (path,) = (Path(one.path) for one in result.certificates)
    told = contents(path.read_bytes())
    assert problems_of(path) == [] and PERSON not in json.dumps(told), "a table is named for the person"
    assert len(told["given_up"]) == len(COPIES) and told["given_up"][-1] == {
        "table": "records/odd",
        "given_up": done[-1].given_up,
        "reason": "the lake lacks tables that it is rebuilt from",
        "missing": ["records/visits"],
        "n_rows": n_rows,
    }
    assert any("the raw files of 4 tables that were given up" in line for line in told["not_covered"])
    assert maintain(config).renewed == ()
    for document in (status_of(Path(config)), quarantine_report(config), show.given_up(done, datasets)):
        show.text(document)
    assert [one["name"] for one in status_of(Path(config)).given_up] == sorted(COPIES)


def test_no_raw_file_brings_a_table_back_that_was_given_up(world: World) -> None:
    config = world.lost()
    n_in = quarantine_report(config, ["odd"]).n_in
    give_up(["adults", "odd"], config)
    write_csv(world.home / "raw" / "adults.csv", visits()[:30])
    found = {t.name: t for t in ingest_tables(["adults", "odd", "visits"], config)}
    assert (found["adults"].rows, found["adults"].n_stopped, found["odd"].rows, found["odd"].n_stopped) == (0, 1, 0, 0)
    report = quarantine_report(config, ["odd"])
    assert (report.adds_up, report.n_rows, report.n_given_up) == (True, 0, n_in)
    with opened(config) as work, pytest.raises(TableRetired, match=r"adults was given up on .* restore adults --from-raw"):
        work.records(["adults"])
    with pytest.raises(Unrestorable, match="adults was given up on"):
        restore(["adults"], config)
    (back,) = restore(["adults"], config, from_raw=True)
    assert (back.n_rows, back.same) == (30, False)
    assert ingest_tables(["adults"], config)[0].n_stopped == 0 and set(given_up(lake_of(config))) == {"odd"}


def test_raw_files_bring_back_what_was_retired_and_nobody_who_asked_to_be_erased(world: World) -> None:
    """A request that waits counts as much as one that is done; doses name nobody, so nobody would find such rows in them."""
    config = world.lost()
    wanted = {name: entry.digest for name, entry in retired(lake_of(config)).items()}
    done = restore(["doses", "odd"], config, from_raw=True)
    assert [(one.table, one.digest, one.same) for one in done] == [(name, wanted[name], True) for name in ("doses", "odd")]
    assert all(t.found for t in ingest_tables(["doses", "odd"], config)) and quarantine_report(config, ["odd"]).adds_up
    request([("person", PERSON)], config)
    (back,) = restore(["adults"], config, from_raw=True)
    assert back.n_suppressed == back.n_rows_retired - back.n_rows > 0 and not back.same
    show.text(show.restored((*done, back)))
    assert PERSON not in lake_of(config).read(lake_of(config).snapshot("records/adults"))["patient"].to_pylist()
    assert set(entries(lake_of(config))) == {PERSON} and digests(config, "members", "residual") == {}


def test_a_parent_that_came_back_without_a_person_does_not_rebuild(world: World) -> None:
    """The request was filed first: no ingest gives the parent the person's rows again."""
    config = world.lost()
    request([("person", PERSON)], config)
    ingest_tables(["visits"], config)
    with pytest.raises(Unrestorable, match=r"give \d+ rows.*nothing was changed.*--from-raw.*--give-up") as error:
        forget(None, config)
    assert all(f"{table}: records/visits@" in str(error.value) for table in COPIES)
    with pytest.raises(ErasedWouldReturn, match="no column for the persons of 1 deletion requests"):
        restore(["doses"], config, from_raw=True)
    done, _ = give_up(["doses"], config)
    assert done[0].missing == () and "do not give its rows any more" in done[0].reason


def test_only_what_is_lost_is_given_up(world: World, tmp_path: Path) -> None:
    config, raw = world.config, world.home / "raw" / "odd"
    wanted = retired(lake_of(config))["odd"].digest
    for refused in (lambda: give_up(["odd"], config), lambda: restore(["odd"], config, from_raw=True)):
        with pytest.raises(Rebuildable, match=r"odd can be rebuilt from visits. Run: lethe restore odd"):
            refused()
    shutil.move(world.records / "visits", tmp_path / "visits")
    shutil.rmtree(raw)
    with pytest.raises(NoRawFiles, match=r"odd: none of its raw files is there.*--give-up"):
        restore(["odd"], config, from_raw=True)
    raw.mkdir()
    write_csv(raw / "0.csv", [{"ward": "A", "shift": 1}])
    with pytest.raises(LetheError, match="patient"):
        restore(["odd"], config, from_raw=True)
    assert set(retired(lake_of(config))) == set(COPIES), "what failed is retired as it was"
    shutil.move(tmp_path / "visits", world.records / "visits")
    assert restore(["odd"], config)[0].digest == wanted, "the parent was put back"


def test_who_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    type_names(["odd"], yes=True)
    monkeypatch.setattr("sys.stdin.isatty", lambda: False)
    with pytest.raises(NobodyToAsk, match="loses its rows"):
        type_names(["odd"], yes=False)
    with pytest.raises(BadParameter, match="exclude each other"):
        restore_command(["odd"], from_raw=True, give_up=True)
