"""Which rows belong to the requested subjects: by the subject column, or by the words of a rejected line. Pure.

Requests are known by their tokens only, so a value is found by computing its token, once per distinct value.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from infra.ids import Keys, subject_token
from infra.subjects import subject_tokens

Mask = npt.NDArray[np.bool_]
Sought = Mapping[str, frozenset[str]]

# An id of more bytes than this is refused at the door; so longer texts need not be looked at as a whole.
MAX_ID_BYTES = 1024

_FIELDS = re.compile(r"[,;|\t\r\n\"'{}\[\]]+")
_WORDS = re.compile(r"[\s,;|\"'{}\[\]():=<>&/\\]+")


def text_tokens(text: str) -> set[str]:
    """Everything in a text that may be an id: the whole, its fields (an id may hold blanks or colons) and its words."""
    pieces = {text, text.strip(), *_WORDS.split(text), *(field.strip() for field in _FIELDS.split(text))}
    return {piece for piece in pieces if piece and len(piece) <= MAX_ID_BYTES}


def token_maker(keys: Keys, kind: str) -> Callable[[bytes], bytes]:
    """The token of a written id as bytes: `infra.ids.subject_token` at a third of its cost, for scans that test every value.

    HMAC is SHA-256 twice with a padded key in front; both starts are hashed once and copied.
    """
    block = keys.subject.ljust(64, b"\x00")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block) + len(kind.encode()).to_bytes(4, "big") + kind.encode())
    outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block))

    def token(text: bytes) -> bytes:
        first, second = inner.copy(), outer.copy()
        first.update(text)
        second.update(first.digest())
        return second.digest()

    return token


def rows_of(column: pa.Array | pa.ChunkedArray, kind: str, tokens: frozenset[str], keys: Keys) -> Mask:
    """Which rows of a subject column belong to one of the tokens, bool (n,). NULL belongs to nobody."""
    found = pc.is_in(subject_tokens(column, kind, keys), value_set=pa.array(sorted(tokens), pa.string()))
    return np.asarray(found, dtype=np.bool_)


def names_subject(text: str, kind: str, tokens: frozenset[str], keys: Keys) -> str:
    """The token of the requested subject that a text names; empty if it names none."""
    for piece in text_tokens(text):
        token = subject_token(keys, kind, piece)
        if token in tokens:
            return token
    return ""


def quarantined(batch: pa.RecordBatch, kinds: Mapping[str, str], sought: Sought, keys: Keys) -> list[str]:
    """For each row of the quarantine, the token of the requested subject that its raw text names, or the empty text.

    `kinds` gives the kind of subject of each table that has one; a line is searched for the kind of the table that rejected it.
    """

    def one(table: Any, raw: Any) -> str:
        tokens = sought.get(kinds.get(table, ""), frozenset[str]())
        return names_subject(raw, kinds[table], tokens, keys) if tokens and raw else ""

    return [one(table, raw) for table, raw in zip(batch["table"].to_pylist(), batch["raw"].to_pylist(), strict=True)]
