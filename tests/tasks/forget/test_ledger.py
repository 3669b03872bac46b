"""Requests are durable, unique while they are open, and never name anybody."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.ids import subject_token
from tasks.forget import ledger
from tests.tasks.forget.conftest import House

KINDS = frozenset({"user", "customer"})
PERSON = "zz.alice@example.com"


def test_open_requests_are_shared_and_certified_ones_are_not(house: House) -> None:
    first, same, other = ledger.register(house.lake, [("user", PERSON), ("user", PERSON), ("customer", PERSON)], kinds=KINDS)
    assert first == same != other
    version = house.lake.snapshot("requests").version
    assert ledger.register(house.lake, [("user", PERSON)], kinds=KINDS) == [first]
    assert house.lake.snapshot("requests").version == version
    ledger.advance(house.lake, first, ledger.CERTIFIED, {})
    [second] = ledger.register(house.lake, [("user", PERSON)], kinds=KINDS)
    assert second not in (first, other)
    assert [r.request_id for r in ledger.requests(house.lake) if r.state != ledger.CERTIFIED] == [other, second]


def test_one_commit_for_many(house: House) -> None:
    ids = ledger.register(house.lake, [("user", f"u{i}") for i in range(100)], kinds=KINDS)
    assert len(set(ids)) == 100
    assert house.lake.snapshot("requests").version == 0
    ledger.advance(house.lake, ids, ledger.ERASED, {"n": 1})
    assert house.lake.snapshot("requests").version == 1
    assert len(ledger.suppressed(house.lake)) == 100


def test_states_go_forward_only(house: House) -> None:
    ids = ledger.register(house.lake, [("user", 7), ("user", "8")], kinds=KINDS)
    ledger.advance(house.lake, ids[0], ledger.RETRAINED, {"models": ["m"]})
    ledger.advance(house.lake, ids, ledger.ERASED, {"n_rows": 3})
    seven, eight = ledger.pick(house.lake, ids)
    assert (seven.state, eight.state) == (ledger.RETRAINED, ledger.ERASED)
    assert seven.details[ledger.RETRAINED] == {"models": ["m"]}
    assert set(seven.times) == {"received", "retrained"}


def test_the_same_subject_however_it_is_written(house: House) -> None:
    [number] = ledger.register(house.lake, [("user", 7)], kinds=KINDS)
    assert ledger.register(house.lake, [("user", "7")], kinds=KINDS) == [number]


def test_nothing_names_the_person(house: House) -> None:
    ids = ledger.register(house.lake, [("user", PERSON)], kinds=KINDS)
    assert ledger.suppressed(house.lake) == {subject_token(house.lake.keys, "user", PERSON)}
    for path in Path(house.lake.root).rglob("*"):
        assert not path.is_file() or PERSON.encode() not in path.read_bytes()
    assert PERSON not in repr(ledger.pick(house.lake, ids))


def test_unknown_ids_are_refused(house: House) -> None:
    assert ledger.requests(house.lake) == []
    assert ledger.suppressed(house.lake) == frozenset()
    with pytest.raises(ledger.UnknownRequestError, match="beef; see: lethe status"):
        ledger.pick(house.lake, ["beef"])
