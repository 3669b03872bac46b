"""The certificate of an erasure: an in-toto statement in a DSSE envelope, signed with Ed25519. Verifying needs no lake.

The envelope is bytes in one canonical form (sorted keys, no spaces, ASCII), so that every bit of the file is checked: those of
the payload and its type by the signature (over DSSE's pre-authentication encoding), the others by writing the envelope again. A
certificate carries its public key, which shows that it was not damaged; only a key known beforehand shows who signed it.

`batch` names the requests that were carried out together: `tables` and `residue` tell of all of them, for an erasure counts rows
by table and not by person.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from infra.contracts import LetheError
from infra.ids import Digest, Keys
from tasks.forget.merkle import is_absent

JSON = dict[str, Any]

PAYLOAD_TYPE = "application/vnd.lethe.certificate+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:lethe:certificate:v1"
TIMES = ("received", "hidden", "erased", "retrained")

_SNAPSHOT = {"version": int, "digest": str, "n_rows": int}
_TABLE = {
    "table": str,
    "how": str,
    "before": _SNAPSHOT,
    "after": _SNAPSHOT,
    "n_erased": int,
    "n_files": int,
    "sources": [str],
    "purge": dict,
}
_GIVEN_UP = {"table": str, "given_up": str, "reason": str, "missing": [str], "n_rows": int}
_RESIDUE = {"n_objects": int, "n_bytes": int, "n_cells": int, "n_hits": int, "n_mentions": int, "n_opaque": int, "seconds": float}
SHAPE: JSON = {
    "request_id": str,
    "batch": [str],
    "subject": {"kind": str, "token": str},
    "tables": [_TABLE],
    "redone": dict,
    "residue": _RESIDUE,
    "environment": dict,
    "times": dict.fromkeys(TIMES, str),
    "not_covered": [str],
    "replay": str,
    "previous": str,
    "public_key": str,
}


# --- signing --------------------------------------------------------------------------------------------------------------------


def canonical(document: Any) -> bytes:
    """The one JSON form of a document: sorted keys, no spaces, ASCII, no NaN."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def pae(payload_type: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: what is signed."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def _private(keys: Keys) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(keys.signing)


def _raw(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def public_pem(keys: Keys) -> bytes:
    """The lake's public key as PEM: what a verifier pins."""
    return _private(keys).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def statement(certificate: JSON, keys: Keys) -> JSON:
    """The in-toto statement: its subjects are the erased tables as they stand now, its predicate is the certificate."""
    public = base64.b64encode(_raw(_private(keys).public_key())).decode()
    return {
        "_type": STATEMENT_TYPE,
        "subject": _subjects(certificate["tables"]),
        "predicateType": PREDICATE_TYPE,
        "predicate": {**certificate, "public_key": public},
    }


def _subjects(tables: list[JSON]) -> list[JSON]:
    return [{"name": t["table"], "digest": {"letheRowSum": t["after"]["digest"].partition(":")[2]}} for t in tables]


def sign(certificate: JSON, keys: Keys) -> bytes:
    """The signed envelope of a certificate (see `SHAPE`), in its canonical bytes; equal certificates give equal bytes."""
    private = _private(keys)
    payload = canonical(statement(certificate, keys))
    signature = private.sign(pae(PAYLOAD_TYPE, payload))
    return _envelope(payload, signature, _raw(private.public_key()))


def _envelope(payload: bytes, signature: bytes, public: bytes) -> bytes:
    signed = {"keyid": hashlib.sha256(public).hexdigest(), "sig": base64.b64encode(signature).decode()}
    return canonical({"payloadType": PAYLOAD_TYPE, "payload": base64.b64encode(payload).decode(), "signatures": [signed]})


def digest_of(envelope: bytes) -> str:
    """SHA-256 (hex) of an envelope: what the next certificate names as `previous`."""
    return hashlib.sha256(envelope).hexdigest()


def contents(envelope: bytes) -> JSON:
    """The certificate inside an envelope, unverified. Raises `ValueError` when there is none."""
    document = json.loads(envelope)
    try:
        return json.loads(base64.b64decode(document["payload"], validate=True))["predicate"]
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a certificate: {type(error).__name__}") from None


# --- verifying ------------------------------------------------------------------------------------------------------------------


def verify(envelope: bytes, public_key: bytes | None = None) -> list[str]:
    """What is wrong with a certificate; an empty list when nothing is.

    Checks the bytes, the signature, the schema and that the figures agree with each other. `public_key` is the PEM of the signer
    that the reader trusts; without it the key inside the certificate is taken, which shows damage but not who signed.
    """
    try:
        payload, signature = _parts(envelope)
        document = json.loads(payload)
        certificate = document["predicate"]
        public = base64.b64decode(certificate["public_key"], validate=True)
        key = Ed25519PublicKey.from_public_bytes(public)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        return [f"this is no certificate of Lethe ({type(error).__name__})"]
    problems = list(_signature_problems(envelope, payload, signature, key, public_key))
    return problems or [*_statement_problems(document), *_certificate_problems(certificate)]


def problems_of(certificate: Path, public_key: Path | None = None) -> list[str]:
    """`verify` of a certificate's file, with the signer's key from a PEM file. Raises `LetheError` for an unreadable file."""
    return verify(_read(certificate), _read(public_key) if public_key is not None else None)


def problems_of_files(folder: Path) -> dict[str, list[str]]:
    """The certificates of a folder that do not verify, by file name."""
    found = {path.name: problems_of(path) for path in sorted(folder.glob("*.json"))}
    return {name: problems for name, problems in found.items() if problems}


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise LetheError(f"{path} cannot be read: {error.strerror}") from None


def _parts(envelope: bytes) -> tuple[bytes, bytes]:
    document = json.loads(envelope.decode("ascii"))
    signature = document["signatures"][0]["sig"]
    return base64.b64decode(document["payload"], validate=True), base64.b64decode(signature, validate=True)


def _signature_problems(
    envelope: bytes, payload: bytes, signature: bytes, key: Ed25519PublicKey, trusted: bytes | None
) -> Iterator[str]:
    if _envelope(payload, signature, _raw(key)) != envelope:
        yield "the envelope is not in its canonical form: it was changed after signing"
    try:
        key.verify(signature, pae(PAYLOAD_TYPE, payload))
    except InvalidSignature:
        yield "the signature does not hold: the certificate was changed after signing"
    if trusted is not None and _trusted_raw(trusted) != _raw(key):
        yield "it was signed by another key than the one given"


def _trusted_raw(pem: bytes) -> bytes | None:
    try:
        key = load_pem_public_key(pem)
    except ValueError:
        return None
    return _raw(key) if isinstance(key, Ed25519PublicKey) else None


def _statement_problems(document: JSON) -> Iterator[str]:
    for name, expected in (("_type", STATEMENT_TYPE), ("predicateType", PREDICATE_TYPE)):
        if document.get(name) != expected:
            yield f"{name} is not {expected}"


def _certificate_problems(certificate: JSON) -> list[str]:
    # Certificates of older releases do not say which tables were given up.
    given_up = _misfits(certificate.get("given_up", []), [_GIVEN_UP], "certificate.given_up")
    misfits = [*_misfits(certificate, SHAPE, "certificate"), *given_up]
    if misfits:
        return misfits
    tables = [p for table in certificate["tables"] for p in _table_problems(table)]
    return [*tables, *_field_problems(certificate), *_time_problems(certificate["times"])]


def _misfits(value: Any, shape: Any, place: str) -> Iterator[str]:
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            yield f"{place} is not an object"
            return
        for name, inner in shape.items():
            if name not in value:
                yield f"{place}.{name} is missing"
            else:
                yield from _misfits(value[name], inner, f"{place}.{name}")
    elif isinstance(shape, list):
        items = value if isinstance(value, list) else None
        if items is None:
            yield f"{place} is not a list"
        for i, item in enumerate(items or ()):
            yield from _misfits(item, shape[0], f"{place}[{i}]")
    elif not _is_a(value, shape):
        yield f"{place} is not of type {shape.__name__}"


def _is_a(value: Any, kind: type) -> bool:
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def _table_problems(table: JSON) -> Iterator[str]:
    name, before, after = table["table"], table["before"], table["after"]
    for when, snapshot in (("before", before), ("after", after)):
        if _digest_rows(snapshot["digest"]) != snapshot["n_rows"]:
            yield f"{name}: the digest {when} does not count {snapshot['n_rows']} rows"
    if table["n_erased"] < 0 or before["n_rows"] - table["n_erased"] != after["n_rows"]:
        yield f"{name}: {before['n_rows']} rows less {table['n_erased']} erased ones are not {after['n_rows']}"
    if table["n_erased"] and after["version"] <= before["version"]:
        yield f"{name}: version {after['version']} does not follow version {before['version']}"


def _digest_rows(digest: str) -> int | None:
    return Digest.parse(digest).n_rows if re.fullmatch(r"\d+:[0-9a-f]{32}", digest) else None


def _field_problems(certificate: JSON) -> Iterator[str]:
    token = certificate["subject"]["token"]
    if certificate["residue"]["n_hits"] != 0:
        yield f"the residue scan found {certificate['residue']['n_hits']} places"
    if not re.fullmatch(r"[0-9a-f]{16}", certificate["request_id"]):
        yield "request_id is not 16 hex digits"
    if certificate["request_id"] not in certificate["batch"]:
        yield "the request is none of its batch"
    if not re.fullmatch(r"[0-9a-f]{64}", token):
        yield "subject.token is not 64 hex digits"
    if not re.fullmatch(r"([0-9a-f]{64})?", certificate["previous"]):
        yield "previous is neither empty nor 64 hex digits"
    yield from _absence_problems(certificate.get("absence"), token)


def _absence_problems(proof: Any, token: str) -> Iterator[str]:
    if proof is None:
        return
    try:
        holds = is_absent(proof, token)
    except (ValueError, LookupError, TypeError, OverflowError):
        holds = False
    if not holds:
        yield "the proof of absence does not hold"


def _time_problems(times: JSON) -> Iterator[str]:
    try:
        moments = [datetime.fromisoformat(times[name]) for name in TIMES]
        ordered = moments == sorted(moments)
    except (ValueError, TypeError):
        yield "times are not ISO 8601 with a zone"
        return
    if not ordered:
        yield f"the times do not follow each other: {', '.join(TIMES)}"
