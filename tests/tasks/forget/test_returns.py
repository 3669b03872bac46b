"""Raw files of a retired table are taken in again only where ingest can tell the rows of everybody who was erased."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import replace

import pytest

from infra.cluster import connect
from infra.retired import Loss, Retired, put, without_recipe
from tasks.forget import ledger
from tasks.forget.locate import hidden_name
from tasks.forget.returns import ErasedWouldReturn, given_up_facts, refuse_returns
from tasks.forget.scan import scan
from tests.tasks.forget.conftest import VICTIM, House


def retired(table: str, *subjects: tuple[str, str]) -> Retired:
    told = json.dumps({"recipe": "{}", "params": {"subjects": [list(subject) for subject in subjects]}})
    return Retired(table, "projection", told, ("gone",), f"4:{'0' * 32}", 4, 100, dt.datetime.now(dt.UTC))


def asked(house: House, kind: str, *, erased: str | None = None, how: str = "subject") -> None:
    """A deletion request; with `erased`, it took rows from that table of records."""
    (request_id,) = ledger.register(house.lake, [(kind, VICTIM)], kinds=[kind])
    if erased is not None:
        detail = {"tables": [{"table": erased, "how": how, "n_erased": 2}]}
        ledger.advance(house.lake, request_id, ledger.ERASED, detail)


def refuses(house: House, entry: Retired, why: str) -> None:
    with pytest.raises(ErasedWouldReturn, match=f"{entry.table} is not taken in.*{why}.*restore {entry.table} --give-up"):
        refuse_returns(house.lake, house.settings, [entry])


def test_persons_whom_the_columns_tell_are_refused_by_ingest(house: House) -> None:
    visits = retired("visits", ("user", "who"))
    refuse_returns(house.lake, house.settings, [visits])
    asked(house, "user")
    refuse_returns(house.lake, house.settings, [visits])
    asked(house, "customer", erased="records/orders")
    refuse_returns(house.lake, house.settings, [visits])


@pytest.mark.parametrize("how", ["copy", "both"])
@pytest.mark.parametrize("is_hidden", [False, True])
def test_rows_found_as_copies_would_return(house: House, how: str, is_hidden: bool) -> None:
    name = f"records/{hidden_name('records/visits', house.lake.keys)}" if is_hidden else "records/visits"
    asked(house, "user", erased=name, how=how)
    refuses(house, retired("visits", ("user", "who")), "1 deletion requests took rows out of it that were found as copies")


def test_persons_whom_no_column_tells_would_return(house: House) -> None:
    """But for those that were sought in the table while a recipe stood for it."""
    cities = retired("cities")
    asked(house, "user", erased="records/people")
    refuse_returns(house.lake, house.settings, [cities])
    given_up = without_recipe(cities, Loss("lost"))
    refuse_returns(house.lake, house.settings, [given_up])
    asked(house, "customer", erased="records/orders")
    refuse_returns(house.lake, house.settings, [cities])
    refuses(house, given_up, "no column for the persons of 1 deletion requests")
    asked(house, "visitor")
    refuses(house, cities, "no column for the persons of 1 deletion requests")


def test_columns_that_lethe_toml_has_no_more(house: House) -> None:
    asked(house, "user", erased="records/cities")
    refuses(house, retired("cities", ("user", "mayor")), "no longer the subject columns by which 1 deletion requests")


def test_names_that_tell_are_keyed(house: House) -> None:
    for name in (VICTIM, "cities"):
        put(house.lake, without_recipe(retired(name), Loss("lost", (f"members/{VICTIM}", "records/gone"))), {})
    put(house.lake, replace(without_recipe(retired("wide"), Loss("lost")), parents=(f"{VICTIM}/old",)), {})
    asked(house, "user")
    sought = {"user": frozenset(request.subject for request in ledger.requests(house.lake))}
    plain, _, keyed = given_up_facts(house.lake, sought)
    members = f"members/{hidden_name(f'members/{VICTIM}', house.lake.keys)}"
    assert (plain["table"], plain["missing"], plain["n_rows"]) == ("records/cities", [members, "records/gone"], 4)
    assert keyed["table"] == f"records/{hidden_name(f'records/{VICTIM}', house.lake.keys)}"
    assert VICTIM not in json.dumps([plain, keyed])
    with connect(None) as workers:
        found = scan(house.lake, house.settings, sought, [], workers)
    assert (found.hits, found.n_names) == ((), 2), "names of tables that are gone are names all the same"
