"""The whole act: register, erase, certify, on a lake with the person in every kind of place."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from infra.contracts import CONTAINMENT, QUARANTINE, SELECTION, SOURCES, LetheError, Lineage, StaleSnapshot
from infra.files import read_part, source_key, source_number, write_part
from infra.ids import Digest, subject_token
from tasks.forget import erase as erasing
from tasks.forget import ledger, seal
from tasks.forget.certificate import contents, digest_of, problems_of, problems_of_files
from tasks.forget.ledger import request_states
from tasks.forget.locate import hidden_name
from tasks.forget.plan import UnreadableSubjectError
from tasks.forget.scan import ResidueError
from tasks.forget.task import (
    EraseResult,
    certify,
    erase,
    open_requests,
    purge_derived,
    register_requests,
)
from tests.tasks.forget.conftest import OTHERS, VICTIM, House, edge, papers, people, records, rows_of, source


def _erase(house: House, ids: list[str]) -> EraseResult:
    return erase.fn(
        house.settings, ids, containment=house.lake.snapshot("containment") if house.lake.exists("containment") else None
    )


def _certify(house: House, ids: list[str], erased: EraseResult) -> list:
    return certify.fn(house.settings, ids, erased=erased, redone={"stages": [], "models": [], "revoked": []})


def _values(house: House, table: str, column: str) -> list:
    return house.lake.read(house.lake.snapshot(table), [column])[column].to_pylist()


def test_nobody_is_left_and_everybody_else_stays(populated: House) -> None:
    before = {name: populated.lake.snapshot(name) for name in populated.lake.tables("records")}
    ids = register_requests(populated.settings, [("user", VICTIM)])
    result = _erase(populated, ids)

    assert sorted(_values(populated, "records/people", "email")) == sorted([*OTHERS, OTHERS[0], OTHERS[1]])
    assert _values(populated, "records/visits", "who") == [OTHERS[0], None]
    assert _values(populated, "records/wide", "email") == [*OTHERS, OTHERS[0]]
    assert _values(populated, "quarantine", "line") == [1, 2]
    assert _values(populated, "records/cities", "city") == ["Rome 0", "Rome 1", "Rome 2", "Oslo 0"]
    lost = {t.table: (t.how, t.n_erased, t.n_files) for t in result.tables}
    assert lost == {
        "records/people": ("subject", 3, 2),
        "records/visits": ("subject", 1, 1),
        "records/cities": ("copy", 3, 1),
        "records/wide": ("copy", 3, 1),
        "quarantine": ("text", 1, 1),
    }
    assert result.n_rows == 11
    for table in result.tables:
        assert Digest.parse(table.after.digest).n_rows == table.before.n_rows - table.n_erased
        if table.table in before:
            assert table.before == before[table.table]


def test_certificate_of_a_clean_house_verifies(populated: House) -> None:
    ids = register_requests(populated.settings, [("user", VICTIM)])
    erased = _erase(populated, ids)
    [certificate] = _certify(populated, ids, erased)

    path = Path(certificate.path)
    assert problems_of(path, populated.settings.private_dir / "public_key.pem") == []
    assert problems_of_files(path.parent) == {}
    assert certificate.residue_hits == 0
    text = path.read_text() + json.dumps(contents(path.read_bytes()))
    assert VICTIM not in text
    found = contents(path.read_bytes())
    assert found["subject"] == {"kind": "user", "token": subject_token(populated.lake.keys, "user", VICTIM)}
    assert "raw/people.csv" not in text
    assert any(hidden_name("raw/people.csv", populated.lake.keys) in line for line in found["not_covered"])
    assert any(line.startswith("2 raw files") for line in found["not_covered"])
    assert found["residue"]["n_cells"] > 100
    assert request_states(populated.lake)[0]["state"] == "certified"
    assert open_requests(populated.settings) == []
    assert list((populated.settings.private_dir / "requests").iterdir()) == []


def test_certificates_form_a_chain(populated: House) -> None:
    for value in (VICTIM, OTHERS[0]):
        ids = register_requests(populated.settings, [("user", value)])
        _certify(populated, ids, _erase(populated, ids))
    table = populated.lake.read(populated.lake.snapshot("certificates")).sort_by("issued")
    envelopes = [text.encode() for text in table["envelope"].to_pylist()]
    assert [contents(e)["previous"] for e in envelopes] == ["", *(digest_of(e) for e in envelopes[:-1])]


def test_two_subjects_in_one_batch(populated: House) -> None:
    ids = register_requests(populated.settings, [("user", VICTIM), ("user", OTHERS[0]), ("user", "never@seen.example")])
    erased = _erase(populated, ids)
    certificates = _certify(populated, ids, erased)
    assert [c.request_id for c in certificates] == ids
    assert _values(populated, "records/visits", "who") == [None]
    assert all(problems_of(Path(c.path)) == [] for c in certificates)


def test_two_kinds_meet_in_one_table(house: House) -> None:
    """`orders` has subjects of its own, and copies of another kind's rows."""
    rows = pa.table({"email": [VICTIM, *OTHERS], "id": [1, 2, 3, 4], "x": [1.0, 2.0, 3.0, 4.0]})
    records(house.lake, "people", [rows])
    records(house.lake, "orders", [rows.select(["id", "x"])])
    rows_of("containment", CONTAINMENT, [edge("orders", "people")], house.lake)
    ids = register_requests(house.settings, [("user", VICTIM), ("customer", 2)])
    erased = _erase(house, ids)
    assert _values(house, "records/orders", "id") == [3, 4]
    assert _values(house, "records/people", "id") == [3, 4]
    assert all(problems_of(Path(c.path)) == [] for c in _certify(house, ids, erased))


def test_a_residue_refuses_the_certificate_and_names_no_value(populated: House) -> None:
    ids = register_requests(populated.settings, [("user", VICTIM)])
    erased = _erase(populated, ids)
    stray = Path(populated.settings.lake_uri) / "records" / "people" / "_x" / f"email={VICTIM}"
    stray.mkdir(parents=True)
    (stray / "leak.json").write_text(json.dumps({"who": VICTIM}))
    with pytest.raises(ResidueError) as refused:
        _certify(populated, ids, erased)
    assert "leak.json" in str(refused.value)
    assert VICTIM not in str(refused.value)
    assert not (populated.settings.home / "certificates").exists()
    assert open_requests(populated.settings) == ids


def test_derived_rows_are_residues_until_they_are_redone_and_purged(populated: House) -> None:
    column = populated.lake.read(populated.lake.snapshot("records/people"))
    ids = [i for i, email in zip(column["row_id"].to_pylist(), column["email"].to_pylist(), strict=True) if email == VICTIM]
    decisions = [{"row_id": i, "keep": True, "reason": "kept", "log_weight": 0.0, "key": 0.0} for i in [*ids, 5]]
    rows_of("selection/d", SELECTION, decisions, populated.lake)
    wanted = register_requests(populated.settings, [("user", VICTIM)])
    erased = _erase(populated, wanted)
    with pytest.raises(ResidueError, match="row id"):
        _certify(populated, wanted, erased)

    folder = populated.lake.folder("selection/d")
    file = write_part(folder, pa.Table.from_pylist(decisions[-1:], schema=SELECTION).to_batches(), SELECTION)
    populated.lake.commit("selection/d", SELECTION, [file], lineage=Lineage("select", "k2", ""), overwrite=True)
    with pytest.raises(ResidueError, match="selection/d"):
        _certify(populated, wanted, erased)
    assert "selection/d" in purge_derived(populated.settings)
    assert _certify(populated, wanted, erased)[0].residue_hits == 0


@pytest.mark.parametrize("n_commits", [0, 2, 4])
def test_a_killed_erasure_goes_on_and_tells_the_same(populated: House, monkeypatch: pytest.MonkeyPatch, n_commits: int) -> None:
    """Killed after any number of tables: the next run finishes, and its result has every table with its first snapshot."""
    before = {name: populated.lake.snapshot(name) for name in populated.lake.tables("records")}
    ids = register_requests(populated.settings, [("user", VICTIM)])
    real, calls = erasing._commit, []

    def dying(*args):
        if len(calls) == n_commits:
            raise KeyboardInterrupt
        calls.append(args)
        return real(*args)

    monkeypatch.setattr(erasing, "_commit", dying)
    with pytest.raises(KeyboardInterrupt):
        _erase(populated, ids)
    monkeypatch.setattr(erasing, "_commit", real)

    sealed = list((populated.settings.private_dir / "requests").iterdir())
    assert [stat.S_IMODE(path.stat().st_mode) for path in sealed] == [0o600]
    result = _erase(populated, ids)
    assert {t.table: t.n_erased for t in result.tables} == {
        "records/people": 3,
        "records/visits": 1,
        "records/cities": 3,
        "records/wide": 3,
        "quarantine": 1,
    }
    assert all(t.before == before[t.table] for t in result.tables if t.table in before)
    assert len(seal.load(populated.settings.private_dir / "requests", ids)) == 1
    [certificate] = _certify(populated, ids, result)
    assert problems_of(Path(certificate.path)) == []


def test_what_was_committed_is_not_looked_at_again(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two had the same row, the copy has it five times, as a set: of those one goes, also when the run is killed after it."""
    records(house.lake, "people", [pa.table({"email": [VICTIM, OTHERS[0]], "city": ["Rome"] * 2, "spend": [1.0] * 2})])
    records(house.lake, "cities", [pa.table({"city": ["Rome"] * 5, "spend": [1.0] * 5})])
    rows_of("containment", CONTAINMENT, [edge("cities", "people", multiset=False)], house.lake)
    ids = register_requests(house.settings, [("user", VICTIM)])
    real = erasing._commit
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(erasing, "_commit", lambda *args: real(*args) if args[1].entry.how == "copy" else _killed())
        _erase(house, ids)
    assert [house.lake.snapshot(f"records/{name}").n_rows for name in ("cities", "people")] == [4, 2]
    result = _erase(house, ids)
    assert house.lake.snapshot("records/cities").n_rows == 4
    assert {t.table: t.n_erased for t in result.tables} == {"records/cities": 1, "records/people": 1}


def _killed(*_args: Any, **_options: Any) -> None:
    raise KeyboardInterrupt


def test_one_certificate_a_request_however_often_it_is_run(populated: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed when the certificates were committed and the ledger did not know of it: the next run issues the same ones."""
    ids = register_requests(populated.settings, [("user", VICTIM), ("user", OTHERS[0])])
    erased = _erase(populated, ids)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ledger, "advance", lambda lake, i, state, d: _killed() if state == ledger.CERTIFIED else None)
        _certify(populated, ids, erased)
    issued = _values(populated, "certificates", "envelope")
    for path in (populated.settings.home / "certificates").iterdir():
        path.unlink()
    paths = [Path(c.path) for c in _certify(populated, ids, erased)]
    assert _values(populated, "certificates", "envelope") == issued
    assert sorted(path.read_text() for path in paths) == sorted(issued)
    assert contents(paths[1].read_bytes())["previous"] == digest_of(paths[0].read_bytes())
    assert open_requests(populated.settings) == []


def test_copies_are_sought_along_the_scan_that_is_given(populated: House) -> None:
    """Not along the newest one: it may be stale, or of another lake's time."""
    rows_of("containment", CONTAINMENT, [edge("cities", "wide")], populated.lake)
    ids = register_requests(populated.settings, [("user", VICTIM)])
    result = erase.fn(populated.settings, ids, containment=populated.lake.snapshot("containment", 0))
    assert {t.table for t in result.tables if t.how == "copy"} == {"records/cities", "records/wide"}


def test_a_table_that_the_settings_have_no_more(house: House) -> None:
    """Its log tells whose rows they are, after an erasure too."""
    rows = people([VICTIM, *OTHERS]).add_column(0, "row_id", pa.array(range(4), pa.int64()))
    file = write_part(house.lake.folder("records/old"), rows.to_batches(), rows.schema, digest_columns=rows.schema.names[1:])
    said = {"subject": ["visitor", "email"]}
    house.lake.commit("records/old", rows.schema, [file], lineage=Lineage("ingest", "k", "", params=said))
    for value in (VICTIM, OTHERS[0]):
        ids = register_requests(house.settings, [("visitor", value)])
        _certify(house, ids, _erase(house, ids))
    assert _values(house, "records/old", "email") == list(OTHERS[1:])
    params = house.lake.lineage(house.lake.snapshot("records/old")).params
    assert params == {**said, "requests": ids}


# --- several subjects a row -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", [OTHERS[0], OTHERS[1]])
def test_a_row_goes_when_either_of_two_asks(house: House, who: str) -> None:
    """Ann wrote it, Bob reviewed it: the row is erased when either asks, out of a file of rows of many raw files."""
    ann, bob, carol = OTHERS[0], OTHERS[1], OTHERS[2]
    table = papers((ann, [bob, carol]), (carol, [bob]), (carol, [ann]), (carol, [None]), (None, []))
    records(house.lake, "papers", [table], sources=["raw/papers/0", "raw/papers/1", "raw/papers/2"])
    rows_of("sources", SOURCES, [source("papers", f"raw/papers/{i}") for i in range(3)], house.lake)
    ids = register_requests(house.settings, [("user", who)])
    erased = _erase(house, ids)
    stay = [i for i, names in enumerate(({ann, bob, carol}, {carol, bob}, {carol, ann}, {carol}, set())) if who not in names]
    never = records(house.lake, "never", [table.take(stay)])
    left = house.lake.snapshot("records/papers")
    assert left.digest == never.digest
    (lost,) = erased.tables
    named = {hidden_name(f"raw/papers/{i % 3}", house.lake.keys) for i in range(5) if i not in stay}
    assert (lost.n_erased, lost.n_files, set(lost.sources)) == (5 - len(stay), 1, named)
    (part,) = house.lake.parts(left)
    (batch,) = read_part(part, ["title"], with_source=True)
    kept = [source_number(source_key(f"raw/papers/{i % 3}")) for i in stay]
    assert batch.column(1).to_pylist() == kept
    assert _certify(house, ids, erased)[0].residue_hits == 0


def test_rejected_rows_of_two_subjects(house: House) -> None:
    raws = [
        {"author": "x", "reviewers": [{"id": VICTIM}], "n": 1},
        {"author": VICTIM, "reviewers": None, "n": 1},
        {"author": "x", "reviewers": [], "n": VICTIM},
    ]
    lines = [
        {"table": "papers", "source": f"raw/{i}", "line": i, "reason": "n: range", "raw": json.dumps(r)}
        for i, r in enumerate(raws)
    ]
    rows_of("quarantine", QUARANTINE, lines, house.lake)
    rows_of("sources", SOURCES, [source("papers", f"raw/{i}") for i in range(3)], house.lake)
    erased = _erase(house, register_requests(house.settings, [("user", VICTIM)]))
    assert _values(house, "quarantine", "line") == [2]
    assert set(erased.tables[0].sources) == {hidden_name(f"raw/{i}", house.lake.keys) for i in range(2)}


def test_a_copy_that_knows_fewer_subjects_loses_rows_by_both(house: House) -> None:
    """Abstracts name no reviewers: its rows that the victim reviewed are found by content, those of her own by the author; of two
    equal titles of others none goes that papers still account for."""
    table = papers((VICTIM, []), (OTHERS[0], [VICTIM]), (OTHERS[0], [OTHERS[1]]), (OTHERS[1], []))
    records(house.lake, "papers", [table])
    records(house.lake, "abstracts", [table.select(["author", "title"])])
    rows_of("containment", CONTAINMENT, [edge("abstracts", "papers")], house.lake)
    ids = register_requests(house.settings, [("user", VICTIM)])
    erased = _erase(house, ids)
    assert _values(house, "records/abstracts", "title") == ["paper 2", "paper 3"]
    assert {t.table: (t.how, t.n_erased) for t in erased.tables} == {
        "records/abstracts": ("both", 2),
        "records/papers": ("subject", 2),
    }
    assert _certify(house, ids, erased)[0].residue_hits == 0


@pytest.mark.parametrize("n_commits", [0, 1, 2])
def test_tables_that_lead_to_each_other_survive_a_kill(house: House, monkeypatch: pytest.MonkeyPatch, n_commits: int) -> None:
    """Each has a subject that the other lacks: whichever is erased first takes the lead to the other's copies away."""
    n = 4
    rows = pa.table({"author": [VICTIM, *OTHERS], "editor": [*OTHERS, VICTIM], "x": list(range(n))})
    records(house.lake, "abstracts", [rows])
    records(house.lake, "reviews", [rows.append_column("y", pa.array(range(n)))])
    rows_of("containment", CONTAINMENT, [edge("abstracts", "reviews")], house.lake)
    ids = register_requests(house.settings, [("user", VICTIM)])
    real, calls = erasing._commit, []

    def dying(*args):
        if len(calls) == n_commits:
            raise KeyboardInterrupt
        calls.append(args)
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(erasing, "_commit", dying)
        if n_commits < 2:
            with pytest.raises(KeyboardInterrupt):
                _erase(house, ids)
    result = _erase(house, ids)
    assert _values(house, "records/abstracts", "x") == _values(house, "records/reviews", "x") == [1, 2]
    assert {t.table: t.n_erased for t in result.tables} == {"records/abstracts": 2, "records/reviews": 2}
    assert _certify(house, ids, result)[0].residue_hits == 0


def test_a_log_tells_of_several_subjects(house: House) -> None:
    """The newest form of what ingest says, and the older one of a single subject."""
    said = {"subjects": [["visitor", "author"], ["visitor", "reviewers[].id"]]}
    records(house.lake, "old", [papers((VICTIM, []), (OTHERS[0], [VICTIM]), (OTHERS[0], []))], params=said)
    ids = register_requests(house.settings, [("visitor", VICTIM)])
    _certify(house, ids, _erase(house, ids))
    assert _values(house, "records/old", "title") == ["paper 2"]
    assert house.lake.lineage(house.lake.snapshot("records/old")).params == {**said, "requests": ids}


def test_a_subject_that_cannot_be_read_stops_the_erasure(house: House) -> None:
    """Better no certificate than one about a column that nobody looked into."""
    text = pa.table({"author": ["x"], "reviewers": [json.dumps([{"id": VICTIM}])]})
    records(house.lake, "papers", [text])
    with pytest.raises(UnreadableSubjectError, match=r"records/papers.*'reviewers\[\].id' leads to no ids.*JSON"):
        _erase(house, register_requests(house.settings, [("user", VICTIM)]))


def test_erase_again_tells_what_the_ledger_holds(populated: House) -> None:
    ids = register_requests(populated.settings, [("user", VICTIM)])
    first = _erase(populated, ids)
    assert _erase(populated, ids) == first


def test_erasing_equals_never_having_been_there(house: House) -> None:
    """Law 3: the same digest and the same row ids as in a lake that never saw the person, whatever the files."""
    everyone, strangers = people([*OTHERS, None]), people([VICTIM, VICTIM], "Oslo")
    records(house.lake, "people", [pa.concat_tables([strangers.slice(0, 1), everyone]), strangers.slice(1), everyone.slice(0, 2)])
    _erase(house, register_requests(house.settings, [("user", VICTIM)]))
    never = records(house.lake, "never", [pa.concat_tables([everyone, everyone.slice(0, 2)])])
    left = house.lake.snapshot("records/people")
    assert left.digest == never.digest
    assert [part.file.n_rows for part in house.lake.parts(left)] in ([2, 4], [4, 2])


def test_a_table_of_one_person_is_left_empty(house: House) -> None:
    records(house.lake, "people", [people([VICTIM]), people([VICTIM])])
    ids = register_requests(house.settings, [("user", VICTIM)])
    result = _erase(house, ids)
    left = house.lake.snapshot("records/people")
    assert (left.n_rows, left.digest) == (0, str(Digest()))
    assert house.lake.read(left).schema.names == ["row_id", "email", "city", "spend"]
    assert _certify(house, ids, result)[0].residue_hits == 0


def test_a_version_before_the_erasure_is_gone(populated: House) -> None:
    """The row that haunts: whoever left before, by a rewrite, still lay in the history and in the log."""
    before = populated.lake.snapshot("records/visits")
    _erase(populated, register_requests(populated.settings, [("user", VICTIM)]))
    with pytest.raises(StaleSnapshot):
        populated.lake.parts(before)


def test_a_table_of_a_collection_may_lack_the_subject_column(house: House) -> None:
    records(house.lake, "by/two", [pa.table({"elsewhere": [VICTIM]})])
    result = _erase(house, register_requests(house.settings, [("user", VICTIM)]))
    assert result.tables == ()
    records(house.lake, "visits", [pa.table({"elsewhere": [VICTIM]})])
    with pytest.raises(UnreadableSubjectError, match=r"records/visits, subject: .* no column 'who'\. It has: elsewhere"):
        _erase(house, register_requests(house.settings, [("user", OTHERS[0])]))


def test_unknown_kind_is_refused(house: House) -> None:
    with pytest.raises(ledger.UnknownKindError, match="customer, user"):
        register_requests(house.settings, [("patient", "7")])
    with pytest.raises(LetheError, match="bytes"):
        register_requests(house.settings, [("user", "")])
    assert open_requests(house.settings) == []
