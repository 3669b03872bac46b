"""Which texts name the requested subjects: the names of things, and rejected rows. Pure.

Requests are known by their tokens only, so a value is found by computing its token, once per distinct value.
"""

from __future__ import annotations

import hmac
import re
import urllib.parse
from collections.abc import Iterable, Mapping

import numpy as np
import pyarrow as pa

from infra.ids import Keys
from infra.mentions import Sought, mentioned, text_tokens, token_maker
from infra.settings import SubjectSettings
from infra.subjects import Mask

SubjectsOf = Mapping[str, tuple[SubjectSettings, ...]]


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


def quarantined(batch: pa.RecordBatch, subjects: SubjectsOf, sought: Sought, keys: Keys) -> Mask:
    """Which rows of the quarantine name a requested subject, bool (n,): each is looked through for the subjects of its table."""
    tables, raws = np.array(batch["table"].to_pylist(), object), batch["raw"].to_pylist()
    found = np.zeros(batch.num_rows, np.bool_)
    for table in set(tables.tolist()) & set(subjects):
        here = np.flatnonzero(tables == table)
        found[here] = mentioned([raws[i] for i in here], subjects[table], sought, keys)
    return found
