"""Tables that others can rebuild leave the lake and come back equal by digest; everybody else knows that they are gone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from copies_lake import COPIES, odd, visits, write_csv, write_lake
from deltalake import write_deltalake
from small_lake import write_project

from flows import show
from flows.curate import curate, ingest_tables
from flows.export import export
from flows.maintain import maintain, scan
from flows.quarantine import quarantine_report
from flows.retire import Answer, asking, needed_by_models, restore, retire
from flows.status import status_of
from flows.tables import adopt, register
from flows.train import train
from flows.workspace import opened
from infra.contracts import LetheError
from infra.lake import Lake
from infra.retired import TableRetired, entries, retired
from infra.settings import load_settings
from tasks.dedup.lost import NotRetired, Unrestorable
from tasks.dedup.retire import Proposal, RetireRefused


def yes(_: Proposal) -> Answer:
    return Answer(True, "test")


def no(_: Proposal) -> Answer:
    return Answer(False, "test")


def lake_of(config: str) -> Lake:
    return Lake.open(load_settings(config))


def digests(config: str, *stages: str) -> dict[str, str]:
    lake = lake_of(config)
    return {name: lake.snapshot(name).digest for stage in stages for name in lake.tables(stage)}


def retired_all(config: str) -> None:
    """Retire all copies: those that visits hold whole, and the one with rows of its own."""
    with asking(yes):
        assert set(retire([t for t in COPIES if t != "near"], config=config).retired) == set(COPIES) - {"near"}
        assert retire(["near"], parents=["visits"], config=config).retired == ("near",)


def test_what_is_retired_comes_back_equal(tmp_path: Path) -> None:
    config = write_lake(tmp_path / "p")
    ingest_tables(config=config)
    before = digests(config, "records")
    retired_all(config)
    assert list(digests(config, "records")) == ["records/visits"]
    kinds = {name: entry.kind for name, entry in retired(lake_of(config)).items()}
    assert (kinds["doses"], kinds["adults"], kinds["odd"]) == ("projection", "predicate", "membership")
    assert digests(config, "residual").keys() == {"residual/near"}
    assert {e.child for e in scan(config).edges} == set()
    for table in ingest_tables(config=config):
        assert table.found and f"records/{table.name}" in before and table.digest == before[f"records/{table.name}"]
    assert quarantine_report(config).adds_up
    document = status_of(Path(config))
    assert [t["name"] for t in document.tables] == ["visits"]
    assert {t["name"] for t in document.retired} == set(COPIES)
    show.text(document)
    assert [t.table for t in restore(list(COPIES), config)] == list(COPIES)
    assert digests(config, "records", "members", "residual") == before
    assert entries(lake_of(config)) == {}
    with pytest.raises(NotRetired, match="odd is not retired"):
        restore(["odd"], config)


def test_nothing_goes_without_a_yes(tmp_path: Path) -> None:
    config = write_lake(tmp_path / "p")
    ingest_tables(config=config)
    before = digests(config, "records")
    with asking(no):
        result = retire(["odd", "adults"], config=config)
    assert not result.approved and {t.table for t in result.proposal.tables} == {"odd", "adults"}
    dry = retire(plan=True, config=config, dry_run=True)
    show.text(show.retiring(dry))
    assert not dry.approved and dry.retired == ()
    assert digests(config, "records", "members", "residual") == before


def test_the_plan_takes_no_table_whose_recipe_costs_what_it_saves(tmp_path: Path) -> None:
    """A sample is rebuilt by its rows' hashes, which are as large as it is; whoever names it may have it retired all the same."""
    config = write_lake(tmp_path / "p")
    with open(config, "a", encoding="utf-8") as toml:
        toml.write('[tables.some]\nsource = "raw/some.csv"\n')
    write_csv(tmp_path / "p" / "raw" / "some.csv", [row for n, row in enumerate(visits()) if n * 7919 % 1009 < 400])
    ingest_tables(config=config)
    planned, named = retire(plan=True, config=config, dry_run=True), retire(["some"], config=config, dry_run=True)
    assert "nothing to save" in planned.proposal.refused["some"]
    assert [(t.table, t.recipe.kind, t.monthly_saving < 0) for t in named.proposal.tables] == [("some", "membership", True)]


def test_what_moved_while_somebody_thought_stays(tmp_path: Path) -> None:
    config = write_lake(tmp_path / "p")
    ingest_tables(config=config)

    def slow(proposal: Proposal) -> Answer:
        write_csv(tmp_path / "p" / "raw" / "adults.csv", visits()[:90])
        ingest_tables(["adults"], config)
        return yes(proposal)

    with asking(slow), pytest.raises(RetireRefused, match="adults: adults changed since"):
        retire(["adults", "odd"], config=config)
    assert retired(lake_of(config)) == {}
    assert len(digests(config, "records")) == 5 and digests(config, "members") == {}


def test_raw_files_of_a_retired_table_are_stopped_and_taken_in_after_it_is_back(tmp_path: Path) -> None:
    raw, config = tmp_path / "p" / "raw", write_lake(tmp_path / "p")
    ingest_tables(config=config)
    retired_all(config)
    write_csv(raw / "odd" / "1.csv", odd()[1:60:2])
    write_csv(raw / "odd" / "2.csv", [{**v, "ward": "N"} for v in visits()[:5]])
    write_csv(raw / "visits.csv", [*visits(), *visits(400, 410)])
    found = {t.name: t for t in ingest_tables(config=config)}
    assert (found["odd"].n_stopped, found["odd"].digest) == (2, retired(lake_of(config))["odd"].digest)
    assert (found["visits"].rows, found["visits"].n_stopped) == (410, 0), "the others go on"
    assert not lake_of(config).exists("records/odd")
    report = quarantine_report(config)
    stopped = [s for t in report.tables for s in t.stopped]
    assert len(stopped) == 2 and all("lethe restore odd" in s.message for s in stopped)
    assert all(t.found for t in ingest_tables(config=config)), "they are told once"
    restore(["odd", "adults"], config)
    back = {t.name: t for t in ingest_tables(config=config)}
    fresh = write_lake(tmp_path / "q")
    write_csv(tmp_path / "q" / "raw" / "odd" / "1.csv", odd()[1:60:2])
    write_csv(tmp_path / "q" / "raw" / "odd" / "2.csv", [{**v, "ward": "N"} for v in visits()[:5]])
    expected = {t.name: t for t in ingest_tables(config=fresh)}
    assert (back["odd"].digest, back["odd"].n_stopped) == (expected["odd"].digest, 0)
    write_csv(raw / "adults.csv", visits()[:30])
    assert ingest_tables(["adults"], config)[0].rows == 30, "rows of one raw file are known as its own"
    assert quarantine_report(config).adds_up


def test_the_newest_parents_do_where_the_old_are_gone(tmp_path: Path) -> None:
    config = write_lake(tmp_path / "p")
    ingest_tables(config=config)
    before = digests(config, "records")
    retired_all(config)
    lake = lake_of(config)
    with lake.writing():
        lake.purge(["records/visits", "members/odd"])
    assert restore(["odd"], config)[0].digest == before["records/odd"]
    write_csv(tmp_path / "p" / "raw" / "visits.csv", visits()[:390])
    ingest_tables(["visits"], config)
    with lake.writing():
        lake.purge(["records/visits"])
    with pytest.raises(Unrestorable, match=r"records/visits@\d+"):
        restore(["doses"], config)
    assert not lake.exists("records/doses") and "doses" in retired(lake)


def test_a_lost_parent_is_named_with_the_way_back(tmp_path: Path) -> None:
    config = write_lake(tmp_path / "p")
    ingest_tables(config=config)
    before = digests(config, "records")
    with asking(yes):
        retire(["doses"], config=config)
        with pytest.raises(RetireRefused, match=r"retired\. near: its parents lack the columns"):
            retire(["near"], parents=["shifts"], config=_with_shifts(tmp_path / "p"))
    shutil.rmtree(tmp_path / "p" / "lake" / "records" / "visits")
    with pytest.raises(Unrestorable, match=r"doses was made from records/visits.*Bring them back first: lethe ingest visits"):
        restore(["doses"], config)
    with pytest.raises(Unrestorable, match=r"doses was made from records/visits.*restore doses --from-raw.*doses --give-up"):
        maintain(config)
    ingest_tables(["visits"], config)
    assert restore(["doses"], config)[0].digest == before["records/doses"]


def _with_shifts(folder: Path) -> str:
    """The lake with a table more, of other columns."""
    with open(folder / "lethe.toml", "a", encoding="utf-8") as toml:
        toml.write('[tables.shifts]\nsource = "raw/shifts.csv"\n')
    write_csv(folder / "raw" / "shifts.csv", [{"shift": n, "hours": n % 9} for n in range(50)])
    ingest_tables(["shifts"], str(folder / "lethe.toml"))
    return str(folder / "lethe.toml")


def test_maintenance_renews_recipes_before_old_versions_go(tmp_path: Path) -> None:
    config = write_lake(tmp_path / "p")
    ingest_tables(config=config)
    before = digests(config, "records")
    retired_all(config)
    write_csv(tmp_path / "p" / "raw" / "visits.csv", visits(30, 420))
    ingest_tables(["visits"], config)
    assert show.maintained(maintain(config)).renewed == list(COPIES)
    assert show.maintained(maintain(config)).renewed == []
    lake = lake_of(config)
    with lake.writing():
        lake.purge(["records/visits"])
    restore(list(COPIES), config)
    assert {n: d for n, d in digests(config, "records").items() if n != "records/visits"} == {
        n: d for n, d in before.items() if n != "records/visits"
    }


def test_who_needs_a_table_keeps_it(tmp_path: Path) -> None:
    more = (
        '[datasets.doses]\npool = ["doses", "odd"]\n'
        '[datasets.visits]\npool = ["visits", "adults"]\ntarget = "near"\n[readers.bi]\ntables = ["bi*", "do*"]\n'
    )
    config = write_lake(tmp_path / "p", more=more)
    ingest_tables(config=config)

    def refused(table: str, *parents: str) -> str:
        with asking(yes), pytest.raises(RetireRefused) as error:
            retire([table], parents=list(parents), config=config)
        return str(error.value)

    assert "[readers.bi] reads it (do*)" in refused("doses")
    assert "dataset doses is curated from it" in refused("odd")
    assert "dataset visits is curated from it" in refused("visits")
    assert "dataset visits compares its pool with it" in refused("near")
    assert "the lake has no such table" in refused("nothing")
    assert "another writer's" in refused("foreign/x")
    assert "nowhere cannot rebuild it" in refused("adults", "nowhere")
    assert "not odd, which would stand for it" in refused("adults", "odd")
    before = digests(config, "records")
    write_deltalake(tmp_path / "p" / "theirs", pa.table({"n": [1, 2]}))
    with asking(yes):
        assert retire(["adults"], config=config).retired == ("adults",)
    assert "it is retired already" in refused("adults")
    assert "it rebuilds adults" in refused("visits")
    with pytest.raises(LetheError, match="a table adults of its own"):
        register("adults", "theirs", config)
    with pytest.raises(LetheError, match=r"source in lethe.toml|lethe restore adults"):
        adopt("adults", "theirs", config=config)
    restore(["adults"], config)
    assert digests(config, "records") == before


def test_a_parent_stays(tmp_path: Path) -> None:
    config = write_lake(tmp_path / "p")
    write_csv(tmp_path / "p" / "raw" / "odd" / "1.csv", visits())
    write_csv(tmp_path / "p" / "raw" / "odd" / "0.csv", visits(400, 500))
    ingest_tables(config=config)
    with asking(yes):
        assert retire(["doses"], parents=["visits"], config=config).retired == ("doses",)
        with pytest.raises(RetireRefused, match="no table holds all its rows"):
            retire(["near"], config=config)
        with pytest.raises(RetireRefused, match="it rebuilds doses"):
            retire(["visits"], config=config)
        assert retire(["adults"], parents=["odd"], config=config).retired == ("adults",)
        with pytest.raises(RetireRefused, match="it rebuilds adults"):
            retire(["odd"], parents=["adults"], config=config)
        with pytest.raises(RetireRefused, match="near: adults cannot rebuild it"):
            retire(["near"], parents=["adults"], config=config)


def small_project(folder: Path) -> str:
    path = write_project(folder)
    with path.open("a", encoding="utf-8") as toml:
        toml.write("[retention]\nmin_evidence_bits = 1\n")
    return str(path)


def test_training_sets_and_exports_stay_what_they_are(tmp_path: Path) -> None:
    config = small_project(tmp_path / "p")
    curate(["posts"], config)
    trained = digests(config, "training_set", "selection", "scores")
    with asking(yes):
        assert retire(["posts_copy"], config=config).retired == ("posts_copy",)
        with pytest.raises(RetireRefused, match="it rebuilds posts_copy"):
            retire(["posts"], config=config)
    (again,) = curate(["posts"], config)
    assert again.left_out == {"posts_copy": "posts"} and again.prune.found
    assert digests(config, "training_set", "selection", "scores") == trained
    assert export(Path(config), "posts", str(tmp_path / "out")).n_rows == again.prune.n_kept
    raw = tmp_path / "p" / "raw" / "posts"
    with (raw / "1.jsonl").open("a") as file:
        file.write('{"author": "author-001", "topic": "tea", "body": "leaf cup more", "stars": 0}\n')
    assert curate(["posts"], config)[0].left_out == {"posts_copy": "posts"}, "the parent has it still, and more"
    (raw / "0.jsonl").write_text("".join((raw / "0.jsonl").read_text().splitlines(keepends=True)[:-40]))
    with pytest.raises(TableRetired, match="posts lacks rows of posts_copy"):
        curate(["posts"], config)


@pytest.mark.slow
def test_a_model_needs_what_it_was_trained_on(tmp_path: Path) -> None:
    config = small_project(tmp_path / "p")
    curate(["posts"], config)
    train(["topic"], config)
    with opened(config, shared=True) as work:
        needed = needed_by_models(work, {"posts": (), "posts_copy": (), "gold": ()})
        assert needed == {"posts": "model topic version 1 was trained on it"}
    with asking(yes):
        assert retire(["posts_copy"], config=config).retired == ("posts_copy",)
    assert train(["topic"], config)[0].found
