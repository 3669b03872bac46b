"""The ledger of deletion requests: rows are only ever added, and the furthest state of a request is its state.

A subject stands in it as its token alone. A request is durable, and its subject suppressed, before anything is erased.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from infra.contracts import REQUESTS, CommitConflict, LetheError, Lineage, Snapshot
from infra.files import write_part
from infra.ids import key_of, subject_text, subject_token
from infra.lake import Lake, no_table
from infra.mentions import MAX_ID_BYTES

TABLE = "requests"
RECEIVED, ERASED, RETRAINED, CERTIFIED = STATES = ("received", "erased", "retrained", "certified")
_TRIES = 8


class UnknownKindError(LetheError):
    """No table of the lake has subjects of that kind."""


class UnknownRequestError(LetheError):
    """The ledger holds no request of that id."""


@dataclass(frozen=True)
class Request:
    """One deletion request: whose (as a token), how far it has come, and when and with what it reached each state."""

    request_id: str
    kind: str
    subject: str
    state: str
    times: Mapping[str, str] = field(default_factory=dict[str, str])
    details: Mapping[str, Any] = field(default_factory=dict[str, Any])


def register(lake: Lake, subjects: Sequence[tuple[str, Any]], *, kinds: Collection[str]) -> list[str]:
    """Request ids of (kind, id) pairs, in their order; one commit for all. A subject whose request is open keeps that one.

    Raises `UnknownKindError` and `LetheError` for an id that is empty or longer than `MAX_ID_BYTES`; then nothing is registered.
    """
    tokens = [(kind, _token(lake, kind, value, kinds)) for kind, value in subjects]
    for attempt in range(_TRIES):
        try:
            with lake.writing(shared=True):
                return _register(lake, tokens)
        except CommitConflict:
            if attempt == _TRIES - 1:
                raise
    raise AssertionError("unreachable")


def _token(lake: Lake, kind: str, value: Any, kinds: Collection[str]) -> str:
    if kind not in kinds:
        raise UnknownKindError(f"no table has subjects of kind {kind!r}; there are: {', '.join(sorted(kinds)) or 'none'}")
    n_bytes = len(subject_text(value).encode("utf-8", "surrogateescape"))
    if not 0 < n_bytes <= MAX_ID_BYTES:
        raise LetheError(f"the id of a {kind} holds {n_bytes} bytes; give one of 1 to {MAX_ID_BYTES}")
    return subject_token(lake.keys, kind, value)


def _register(lake: Lake, tokens: Sequence[tuple[str, str]]) -> list[str]:
    before = _newest(lake)
    known = _requests(lake, before)
    open_ids = {r.subject: r.request_id for r in known if r.state != CERTIFIED}
    n_asked = dict[str, int]()
    for request in known:
        n_asked[request.subject] = n_asked.get(request.subject, 0) + 1
    rows = list[dict[str, Any]]()
    for kind, token in tokens:
        if token not in open_ids:
            open_ids[token] = key_of("request", kind, token, n_asked.get(token, 0))[:16]
            rows.append(_row(open_ids[token], kind, token, RECEIVED, {}))
    _append(lake, rows, before)
    return [open_ids[token] for _, token in tokens]


def _newest(lake: Lake) -> Snapshot:
    return lake.snapshot(TABLE) if lake.exists(TABLE) else no_table(TABLE)


def _row(request_id: str, kind: str, token: str, state: str, detail: Mapping[str, Any]) -> dict[str, Any]:
    text = json.dumps(detail, sort_keys=True, allow_nan=False)
    return {"request_id": request_id, "kind": kind, "subject": token, "state": state, "at": datetime.now(UTC), "detail": text}


def _append(lake: Lake, rows: list[dict[str, Any]], before: Snapshot) -> None:
    """Add rows to the ledger as it was read; raises `CommitConflict` if it is another one by now."""
    if not rows:
        return
    table = pa.Table.from_pylist(rows, schema=REQUESTS)
    file = write_part(lake.folder(TABLE), table.to_batches(), REQUESTS)
    key = key_of("ledger", before.digest, file.digest)
    lake.commit(TABLE, REQUESTS, [file], lineage=Lineage("ledger", key, ""), expect=before)


def requests(lake: Lake) -> list[Request]:
    """All requests as they stand, oldest first."""
    return _requests(lake, _newest(lake))


def _requests(lake: Lake, ledger: Snapshot) -> list[Request]:
    rows = lake.read(ledger).to_pylist() if ledger.version >= 0 else []
    grouped = dict[str, list[dict[str, Any]]]()
    for row in sorted(rows, key=lambda row: (row["at"], row["request_id"])):
        grouped.setdefault(row["request_id"], []).append(row)
    return [_request(events) for events in grouped.values()]


def _request(events: list[dict[str, Any]]) -> Request:
    """The states in their order, not by the clock: a clock may go back."""
    ordered = sorted(events, key=lambda event: STATES.index(event["state"]))
    last = ordered[-1]
    times = {event["state"]: event["at"].isoformat(timespec="microseconds") for event in ordered}
    details = {event["state"]: json.loads(event["detail"]) for event in ordered}
    return Request(last["request_id"], last["kind"], last["subject"], last["state"], times, details)


def pick(lake: Lake, request_ids: Sequence[str]) -> list[Request]:
    """The named requests. Raises `UnknownRequestError`."""
    known = {request.request_id: request for request in requests(lake)}
    missing = [request_id for request_id in request_ids if request_id not in known]
    if missing:
        raise UnknownRequestError(f"the ledger holds no request {', '.join(missing)}; see: lethe status")
    return [known[request_id] for request_id in dict.fromkeys(request_ids)]


def advance(lake: Lake, request_ids: str | Sequence[str], state: str, detail: Mapping[str, Any]) -> None:
    """Note that requests have reached a state, in one commit. Those that are as far already stay as they are."""
    wanted = [request_ids] if isinstance(request_ids, str) else request_ids
    with lake.writing():
        found = [r for r in pick(lake, wanted) if STATES.index(r.state) < STATES.index(state)]
        _append(lake, [_row(r.request_id, r.kind, r.subject, state, detail) for r in found], _newest(lake))


def suppressed(lake: Lake) -> frozenset[str]:
    """Tokens of all subjects that were ever requested: their rows are not let in again."""
    if not lake.exists(TABLE):
        return frozenset()
    tokens = lake.read(lake.snapshot(TABLE), ["subject"])["subject"].to_pylist()
    return frozenset(str(token) for token in tokens)


def request_states(lake: Lake) -> list[dict[str, Any]]:
    """Id, kind, state and the time of that state of every request, oldest first."""
    found = requests(lake)
    return [{"request_id": r.request_id, "kind": r.kind, "state": r.state, "at": r.times[r.state]} for r in found]
