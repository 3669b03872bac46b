"""A certificate that was touched anywhere does not verify, and one whose figures disagree never did."""

from __future__ import annotations

import base64
import copy
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.contracts import LetheError
from infra.ids import derive_keys
from tasks.forget.certificate import PAYLOAD_TYPE, contents, digest_of, pae, problems_of, public_pem, sign, verify
from tasks.forget.merkle import absence

KEYS, STRANGER = derive_keys(b"k" * 32), derive_keys(b"s" * 32)
DIGEST = "{}:" + "0" * 31 + "{}"


def certificate() -> dict[str, Any]:
    """A complete and consistent one."""
    return {
        "request_id": "0123456789abcdef",
        "batch": ["0123456789abcdef"],
        "subject": {"kind": "user", "token": "ab" * 32},
        "tables": [
            {
                "table": "records/people",
                "how": "subject",
                "before": {"version": 3, "digest": DIGEST.format(10, 9), "n_rows": 10},
                "after": {"version": 5, "digest": DIGEST.format(8, 7), "n_rows": 8},
                "n_erased": 2,
                "n_files": 1,
                "sources": ["raw/people.csv"],
                "purge": {},
            }
        ],
        "redone": {"models": []},
        "residue": {"n_objects": 1, "n_bytes": 2, "n_cells": 3, "n_hits": 0, "n_mentions": 0, "n_opaque": 0, "seconds": 0.5},
        "environment": {"python": "3"},
        "times": {name: f"2026-01-01T00:00:0{i}+00:00" for i, name in enumerate(("received", "hidden", "erased", "retrained"))},
        "not_covered": ["backups"],
        "replay": "lethe curate",
        "previous": "",
    }


ENVELOPE = sign(certificate(), KEYS)


def test_tables_that_were_given_up() -> None:
    """An older certificate does not speak of them."""
    told = {"table": "records/jan", "given_up": "2026-01-01T00:00:00+00:00", "reason": "lost", "missing": [], "n_rows": 3}
    assert verify(sign({**certificate(), "given_up": [told]}, KEYS)) == []
    assert verify(sign({**certificate(), "given_up": [{**told, "n_rows": "3"}]}, KEYS)) == [
        "certificate.given_up[0].n_rows is not of type int"
    ]


def test_a_whole_one_verifies() -> None:
    assert verify(ENVELOPE) == []
    assert verify(ENVELOPE, public_pem(KEYS)) == []
    assert sign(certificate(), KEYS) == ENVELOPE
    found = contents(ENVELOPE)
    assert {k: v for k, v in found.items() if k != "public_key"} == certificate()


def test_the_envelope_is_plain_dsse() -> None:
    """Any DSSE implementation can check it: PAE as the specification writes it, the key in the statement."""
    assert pae("http://example.com/HelloWorld", b"hello world") == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    document = json.loads(ENVELOPE)
    payload = base64.b64decode(document["payload"])
    statement = json.loads(payload)
    assert statement["subject"] == [{"name": "records/people", "digest": {"letheRowSum": "0" * 31 + "7"}}]
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(statement["predicate"]["public_key"]))
    key.verify(base64.b64decode(document["signatures"][0]["sig"]), pae(PAYLOAD_TYPE, payload))


@given(st.integers(0, len(ENVELOPE) * 8 - 1))
@settings(max_examples=200, deadline=None)
def test_one_flipped_bit_fails(place: int) -> None:
    damaged = bytearray(ENVELOPE)
    damaged[place // 8] ^= 1 << place % 8
    assert verify(bytes(damaged)) != []


@given(st.integers(0, len(ENVELOPE)), st.binary(min_size=1, max_size=4))
@settings(max_examples=100, deadline=None)
def test_inserted_bytes_fail(place: int, extra: bytes) -> None:
    assert verify(ENVELOPE[:place] + extra + ENVELOPE[place:]) != []


@given(st.binary(max_size=64))
@settings(deadline=None)
def test_anything_else_is_refused_without_an_error(content: bytes) -> None:
    assert verify(content) != []


@pytest.mark.parametrize(
    "text", ["[]", "{}", "null", '{"payload":1,"signatures":[]}', "[" * 100_000, '{"signatures":[{"sig":""}],"payload":""}']
)
def test_other_json_is_refused_without_an_error(text: str) -> None:
    assert verify(text.encode()) != []


def test_another_key_does_not_pass_for_the_lakes() -> None:
    forged = sign(certificate(), STRANGER)
    assert verify(forged) == []
    assert verify(forged, public_pem(KEYS)) == ["it was signed by another key than the one given"]
    assert verify(ENVELOPE, b"no key") != []


BROKEN = {
    "rows": (("tables", 0, "n_erased"), 1),
    "digest": (("tables", 0, "after", "digest"), DIGEST.format(9, 7)),
    "digest form": (("tables", 0, "before", "digest"), "10:xyz"),
    "version": (("tables", 0, "after", "version"), 3),
    "hits": (("residue", "n_hits"), 1),
    "chain": (("previous",), "abc"),
    "token": (("subject", "token"), "alice@example.com"),
    "request": (("request_id",), "alice"),
    "batch": (("batch",), ["f" * 16]),
    "times": (("times", "hidden"), "2026-02-01T00:00:00+00:00"),
    "no time": (("times", "erased"), "yesterday"),
    "no zone": (("times", "erased"), "2026-01-01T00:00:02"),
    "type": (("tables", 0, "n_files"), True),
    "list": (("batch",), "0123456789abcdef"),
    "object": (("residue",), []),
}


@pytest.mark.parametrize("what", BROKEN)
def test_figures_that_disagree_do_not_verify(what: str) -> None:
    path, value = BROKEN[what]
    broken = copy.deepcopy(certificate())
    node: Any = broken
    for step in path[:-1]:
        node = node[step]
    node[path[-1]] = value
    assert len(verify(sign(broken, KEYS))) >= 1


@pytest.mark.parametrize("field", [name for name in certificate() if name != "tables"])
def test_a_missing_field_does_not_verify(field: str) -> None:
    short = {name: value for name, value in certificate().items() if name != field}
    assert f"certificate.{field} is missing" in verify(sign(short, KEYS))


def test_the_proof_of_absence_is_checked() -> None:
    token = certificate()["subject"]["token"]
    retained = ["11" * 32, "cc" * 32, "ee" * 32]
    good = {**certificate(), "absence": absence(retained, token)}
    assert verify(sign(good, KEYS)) == []
    for broken in (absence(retained, "00" * 32), {"root": 1}, [], {**absence(retained, token), "n_leaves": 4}):
        assert verify(sign({**certificate(), "absence": broken}, KEYS)) == ["the proof of absence does not hold"]


def test_files(tmp_path: Path) -> None:
    path, pem = tmp_path / "c.json", tmp_path / "key.pem"
    path.write_bytes(ENVELOPE)
    pem.write_bytes(public_pem(KEYS))
    assert problems_of(path, pem) == []
    with pytest.raises(LetheError, match=r"nothing\.json"):
        problems_of(tmp_path / "nothing.json")
    assert len(digest_of(ENVELOPE)) == 64
