"""Forgetting reaches what is retired: erasing and then restoring is restoring and then erasing, and both are a lake that never
saw the person."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from copies_lake import COPIES, PERSON, write_lake
from test_retire import digests, lake_of, retired_all, yes

import flows.forget as forgetting
import tasks.dedup.restore as restoring
from flows import show
from flows.curate import ingest_tables
from flows.forget import Forgotten, forget, request
from flows.retire import asking, restore, retire
from infra.contracts import LetheError
from infra.lake import Lake
from infra.retired import entries, retired
from tasks.forget.certificate import problems_of

NAMED = f'[tables.{PERSON}]\nsource = "raw/adults.csv"\nsubject = {{ kind = "person", column = "patient" }}\n'
STAGES = ("records", "members", "residual")


def is_person(record: dict[str, object]) -> bool:
    return record.get("patient") == PERSON


def forgotten(config: str) -> Forgotten:
    request([("person", PERSON)], config)
    result = forget(None, config)
    assert result is not None
    return result


def built(folder: Path, *, never: bool = False, more: str = "") -> str:
    config = write_lake(folder, without=is_person, more=more) if never else write_lake(folder, more=more)
    ingest_tables(config=config)
    return config


def test_the_law(tmp_path: Path) -> None:
    """Also of a table that is named for the person."""
    names = ("first", "last", "never")
    erased_first, erased_last, never = (built(tmp_path / name, never=name == "never", more=NAMED) for name in names)
    for config in (erased_first, erased_last):
        with asking(yes):
            retire([PERSON], parents=["visits"], config=config)
        retired_all(config)
    result = forgotten(erased_first)
    assert set(result.resumed.retired) == {*COPIES, PERSON} and not result.resumed.kept
    assert show.forgotten(result).retired_again == sorted({*COPIES, PERSON})
    assert {t.table for t in result.erased.tables if t.n_erased} >= {"records/visits", "records/near", "records/odd"}
    _is_nowhere(erased_first)
    (certificate,) = result.certificates
    assert certificate.residue_hits == 0 and problems_of(Path(certificate.path)) == []
    restore([*COPIES, PERSON], erased_first)
    restore([*COPIES, PERSON], erased_last)
    forgotten(erased_last)
    assert digests(erased_first, "records") == digests(erased_last, "records") == digests(never, "records")


def _is_nowhere(config: str) -> None:
    """No table that can be read, and no data file of the lake, has the person; names of tables stay."""
    lake = lake_of(config)
    assert set(retired(lake)) == {*COPIES, PERSON}
    assert {"residual/near", "members/odd"} <= set(lake.tables())
    for place in (path for stage in STAGES for path in (Path(config).parent / "lake" / stage).rglob("*.parquet")):
        text = str(pq.read_table(place).to_pylist()).replace(f"records/{PERSON}", "").replace(f"members/{PERSON}", "")
        assert PERSON not in text or "_delta_log" in str(place), place


@pytest.mark.parametrize("step", ["put", *(pytest.param(step, marks=pytest.mark.slow) for step in ("_again", "purge_derived"))])
def test_a_forgetting_that_dies_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """Dies when one table is brought back, when all are and are to be retired again, and when they are."""
    config, never = built(tmp_path / "p"), built(tmp_path / "never", never=True)
    with asking(yes):
        retire(["adults", "odd"], config=config)

    def dies(*_: object, **__: object) -> None:
        raise LetheError("dies")

    with monkeypatch.context() as patch:
        patch.setattr(forgetting if step == "purge_derived" else restoring, step, dies)
        request([("person", PERSON)], config)
        with pytest.raises(LetheError, match="dies"):
            forget(None, config)
    result = forget(None, config)
    assert result is not None
    assert set(retired(lake_of(config))) == {"adults", "odd"} and not any(
        e.is_suspended for e in entries(lake_of(config)).values()
    )
    restore(["adults", "odd"], config)
    assert digests(config, "records") == digests(never, "records")


def test_a_table_that_its_parents_hold_no_more_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = built(tmp_path / "p")
    with asking(yes):
        retire(["adults"], config=config)
    monkeypatch.setattr(restoring, "rebuilt_s", lambda *_: None)
    result = forgotten(config)
    assert "adults" in result.resumed.kept and Lake.exists(lake_of(config), "records/adults")
    show.text(show.forgotten(result))
