"""Tables that were given up, as forgetting sees them: what a certificate says of them, and whether their raw files may be taken
in again without anybody coming back who was erased.

Ingest knows a person by the subject columns of lethe.toml alone. Rows that were erased as copies, or of persons whom a table has
no column for, would come back with its raw files, and nobody would find them again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from infra.contracts import LetheError
from infra.lake import Lake
from infra.retired import Retired, given_up
from infra.settings import Settings
from infra.subjects import remembered
from tasks.forget.ledger import ERASED, RECEIVED, Request, requests
from tasks.forget.locate import hidden_name, telling_names
from tasks.forget.plan import BY_BOTH, BY_COPY, RECORDS


class ErasedWouldReturn(LetheError):
    """The raw files of a table may hold rows of erased persons that ingest cannot tell."""


def refuse_returns(lake: Lake, settings: Settings, entries: Iterable[Retired]) -> None:
    """Raises `ErasedWouldReturn` where rows of erased persons could come back with the raw files of a retired table, or of one
    that was given up."""
    known = requests(lake)
    for entry in entries:
        why = next(_reasons(lake, settings, entry, known), None)
        if why is not None:
            name = entry.table
            raise ErasedWouldReturn(
                f"{name} is not taken in from its raw files: {why}, and ingest could not tell such rows there. "
                f"Bring the tables back that it was made from, or give it up: lethe restore {name} --give-up"
            )


def _reasons(lake: Lake, settings: Settings, entry: Retired, known: Sequence[Request]) -> Iterator[str]:
    """What speaks against taking a table in from its raw files; counts of requests, never whose they are."""
    told = {request.request_id: _how(lake, entry.table, request) for request in known}
    kinds = _told_by_columns(settings, entry)
    copies = [request for request in known if told[request.request_id] in (BY_COPY, BY_BOTH)]
    if copies:
        yield f"{len(copies)} deletion requests took rows out of it that were found as copies of others"
    if unread := [r for r in known if r.kind not in kinds and told[r.request_id]]:
        yield f"lethe.toml has no longer the subject columns by which {len(unread)} deletion requests took rows out of it"
    if unsought := [r for r in known if r.kind not in kinds and _is_after(entry, r)]:
        yield f"it has no column for the persons of {len(unsought)} deletion requests that never looked into it"


def _how(lake: Lake, table: str, request: Request) -> str:
    """How an erasure found rows in a table; empty where it found none."""
    name = RECORDS + table
    names = {name, f"{RECORDS}{hidden_name(name, lake.keys)}"}
    tables: list[Mapping[str, Any]] = request.details.get(ERASED, {}).get("tables", [])
    return next((one["how"] for one in tables if one["table"] in names and one["n_erased"]), "")


def _told_by_columns(settings: Settings, entry: Retired) -> frozenset[str]:
    """The kinds of subjects that ingest tells in a table's raw files: by all the columns by which its rows told them."""
    now, before = set(settings.table(entry.table).subjects), set(remembered(entry.params))
    return frozenset(subject.kind for subject in now) - {subject.kind for subject in before - now}


def _is_after(entry: Retired, request: Request) -> bool:
    """Whether the erasure is still to come, or came when the table was given up already: then nobody looked into it."""
    return request.state == RECEIVED or (entry.is_given_up and request.times[ERASED] > entry.given_up)


def given_up_facts(lake: Lake, sought: Mapping[str, frozenset[str]]) -> list[dict[str, Any]]:
    """What a certificate says of the tables that were given up and are not there: names that tell of a requested subject stand
    there keyed."""
    found = given_up(lake)
    names = {RECORDS + name for name in found} | {name for entry in found.values() for name in entry.loss.missing}
    telling = set(telling_names(sorted(names), sought, lake.keys))

    def shown(name: str) -> str:
        return f"{name.partition('/')[0]}/{hidden_name(name, lake.keys)}" if name in telling else name

    return [
        {
            "table": shown(RECORDS + name),
            "given_up": entry.given_up,
            "reason": entry.loss.reason,
            "missing": [shown(one) for one in entry.loss.missing],
            "n_rows": entry.n_rows,
        }
        for name, entry in sorted(found.items())
    ]
