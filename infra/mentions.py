"""Whom a rejected row names. Requests are known by their tokens only, so an id is found by computing the token of everything in
the text that may be one. Pure.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from infra.ids import Keys, plain_id, subject_text
from infra.settings import SubjectSettings
from infra.subjects import Mask, json_ids

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
        first.update(plain_id(text))
        second.update(first.digest())
        return second.digest()

    return token


def mentioned(raws: Sequence[str | None], subjects: Sequence[SubjectSettings], sought: Sought, keys: Keys) -> Mask:
    """Which rejected rows of one table name a sought subject (tokens, by kind), bool (n,); `subjects` are the table's.

    A row that is a JSON object with all the subject columns concerns whom these name, exactly as in the table. In any other text
    every word, every field and every JSON value may be an id.
    """
    asked = [subject for subject in subjects if sought.get(subject.kind)]
    makers = {subject.kind: token_maker(keys, subject.kind) for subject in asked}
    wanted = {kind: frozenset(map(bytes.fromhex, sought[kind])) for kind in makers}

    def names(kind: str, ids: Iterable[Any]) -> bool:
        return any(makers[kind](subject_text(one).encode("utf-8", "surrogateescape")) in wanted[kind] for one in ids)

    def one(raw: str | None) -> bool:
        document = _document(raw) if raw else None
        ids = [None if document is None else json_ids(document, subject) for subject in asked]
        if all(found is not None for found in ids):
            return any(names(subject.kind, found or ()) for subject, found in zip(asked, ids, strict=True))
        pieces = text_tokens(raw or "") | set(map(subject_text, _values(document)))
        return any(names(kind, pieces) for kind in makers)

    return np.fromiter(map(one, raws), np.bool_, len(raws))


def _document(raw: str) -> Any:
    """The JSON document that a rejected row is, with its numbers as they are spelled; None for any other text."""
    if raw.lstrip()[:1] not in ("{", "["):
        return None
    try:
        return json.loads(raw, object_pairs_hook=_unrepeated, parse_float=str, parse_int=str)
    except (ValueError, RecursionError):
        return None


def _unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any] | list[Any]:
    """An object; where it has a key twice, and it is not known which one counts, a mere list of its values."""
    found = dict(pairs)
    return found if len(found) == len(pairs) else [value for _, value in pairs]


def _values(document: Any) -> Iterator[Any]:
    """Every value in a JSON document that is no list and no object, and not NULL."""
    todo = [document]
    while todo:
        node = todo.pop()
        if isinstance(node, (dict, list)):
            todo.extend(node.values() if isinstance(node, dict) else node)
        elif node is not None:
            yield node
