"""Which rows belong to the requested subjects: by the subject column, or by the words of a rejected line. Pure.

Requests are known by their tokens only, so a value is found by computing its token, once per distinct value.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import urllib.parse
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from infra.ids import Keys, plain_id, subject_token
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


def unquoted(name: str) -> str:
    """A name with its percent signs resolved, twice: logs quote paths that are quoted already."""
    return urllib.parse.unquote(urllib.parse.unquote(name))


def name_pieces(name: str) -> set[str]:
    """What a path may say: its folders and files, the parts of a table's name, the values of partition folders, and words."""
    pieces, plain = set[str](), unquoted(name)
    for part in {*re.split(r"[/\\]", plain), *re.split(r"[/\\~]", plain)}:
        stem = part.rsplit(".", 1)[0]
        for text in (part, stem, part.partition("=")[2]):
            pieces |= text_tokens(text)
        pieces |= set(stem.split("-"))
    return {piece for piece in pieces if piece}


def telling_names(names: Iterable[str], sought: Sought, keys: Keys) -> list[str]:
    """Those names (of tables, of raw files) that hold the id of a requested subject."""
    makers = [(token_maker(keys, kind), frozenset(map(bytes.fromhex, tokens))) for kind, tokens in sought.items()]

    def tells(name: str) -> bool:
        pieces = [piece.encode("utf-8", "surrogateescape") for piece in name_pieces(name)]
        return any(token(piece) in wanted for token, wanted in makers for piece in pieces)

    return [name for name in names if tells(name)]


def hidden_name(name: str, keys: Keys) -> str:
    """16 hex characters that stand for a name where the name itself must not stand: only the lake's key leads back to it."""
    return hmac.digest(keys.place, b"lethe name " + name.encode("utf-8", "surrogateescape"), "sha256").hex()[:16]


def token_maker(keys: Keys, kind: str) -> Callable[[bytes], bytes]:
    """The token of a written id as bytes: `infra.ids.subject_token` at a third of its cost, for scans that test every value.

    HMAC is SHA-256 twice with a padded key in front; both starts are hashed once and copied.
    """
    block = keys.subject.ljust(64, b"\x00")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block) + len(kind.encode()).to_bytes(4, "big") + kind.encode())
    outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block))

    def token(text: bytes) -> bytes:
        first, second = inner.copy(), outer.copy()
        first.update(plain_id(text))
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
