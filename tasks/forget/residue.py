"""The residue scan: what is looked for, and when a value, a text or a name is it. Pure; `decoders` opens the objects.

The scan shares with the eraser nothing but the tokens: it lists no table and reads no snapshot. A hit is a requested subject's
id, an erased row id or the hash of an erased row. The same text as a whole cell of another column is a mention: reported, not a
hit, for it may well be somebody else's. Values themselves are never reported, only places.

Tables and raw files may be named for a subject. Names stay by design: where such a name stands, whole, it is a mention of class
"name". A value in the name of a partition folder or of anything else is a hit.

Short numbers and plain words occur everywhere ("7", "train"). As an id they count only where a subject column is named: in its
cells, its bounds, or a text that speaks of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from infra.ids import I64, Keys, subject_text
from infra.mentions import MAX_ID_BYTES, text_tokens, token_maker
from tasks.forget.locate import SubjectsOf, name_pieces, unquoted

Role = Literal["subject", "other", "free"]

_MAX_PLACES = 50
_MIN_ROW_ID = 1 << 40
_SHORT_NUMBER = 6
_MAX_REMEMBERED = 500_000
_BOUNDS = ("minValues", "maxValues", "partitionValues", "partitionValues_parsed")
_TEXT_BLOCK = 8 << 20
NAME = "(name)"


@dataclass(frozen=True, repr=False)
class Wanted:
    """What to look for: the tokens of each kind, erased row ids (sorted), and 128-bit hashes of erased rows; small.

    `subjects` gives the subjects of each table that has any; quarantined rows are searched for those of their table.
    `names` are names of tables and raw files that hold an id, longest first, and `bare` those of them that may be nothing but
    an id: they are names only where a stage's log tells of its inputs.
    """

    keys: Keys
    sought: dict[str, frozenset[str]]
    subjects: SubjectsOf
    row_ids: I64
    hashes: frozenset[int]
    names: tuple[str, ...] = ()
    bare: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        return f"Wanted({sum(map(len, self.sought.values()))} subjects, {len(self.row_ids)} row ids)"


@dataclass(frozen=True)
class Target:
    """One object to decode: its URI, the name that reports give it, and what is known about its table.

    `columns` holds the subject columns (case folded), or paths into them; with `known`, all other columns are known to be none.
    """

    uri: str
    name: str
    n_bytes: int = 0
    columns: frozenset[str] = frozenset()
    known: bool = False


@dataclass(frozen=True)
class Findings:
    """What a scan decoded and found. `hits` and `mentions` are places; an opaque object is one that no decoder read in full."""

    n_objects: int = 0
    n_bytes: int = 0
    n_cells: int = 0
    n_opaque: int = 0
    hits: tuple[str, ...] = ()
    mentions: tuple[str, ...] = ()

    def __add__(self, other: Findings) -> Findings:
        return Findings(
            self.n_objects + other.n_objects,
            self.n_bytes + other.n_bytes,
            self.n_cells + other.n_cells,
            self.n_opaque + other.n_opaque,
            self.hits + other.hits,
            self.mentions + other.mentions,
        )


@dataclass
class Tally:
    """The running count of one object, and what was already looked up in it."""

    wanted: Wanted
    target: Target
    n_cells: int = 0
    n_opaque: int = 0
    hits: set[str] = field(default_factory=set[str])
    mentions: set[str] = field(default_factory=set[str])
    tokens: list[tuple[Callable[[bytes], bytes], frozenset[bytes]]] = field(init=False)
    found: set[str] = field(default_factory=set[str])
    passed: set[str] = field(default_factory=set[str])

    def __post_init__(self) -> None:
        sought = self.wanted.sought.items()
        self.tokens = [(token_maker(self.wanted.keys, kind), frozenset(map(bytes.fromhex, tokens))) for kind, tokens in sought]

    def findings(self, n_bytes: int) -> Findings:
        hits, mentions = sorted(self.hits)[:_MAX_PLACES], sorted(self.mentions)[:_MAX_PLACES]
        return Findings(1, n_bytes, self.n_cells, self.n_opaque, tuple(hits), tuple(mentions))


# --- one value ------------------------------------------------------------------------------------------------------------------


def is_subject(tally: Tally, value: Any) -> bool:
    """Whether a value is the id of a requested subject, in any of its written forms."""
    return any_subject(tally, {subject_text(value)})


def any_subject(tally: Tally, texts: set[str]) -> bool:
    """Whether one of the texts is the id of a requested subject; each text is looked up once an object."""
    if not tally.found.isdisjoint(texts):
        return True
    fresh = [text for text in texts - tally.passed if 0 < len(text) <= MAX_ID_BYTES]
    new = {text for text in fresh if _has_token(tally, text.encode("utf-8", "surrogateescape"))}
    tally.found |= new
    if len(tally.passed) > _MAX_REMEMBERED:
        tally.passed.clear()
    tally.passed.update(fresh)
    tally.passed -= new
    return bool(new)


def _has_token(tally: Tally, text: bytes) -> bool:
    return any(token(text) in wanted for token, wanted in tally.tokens)


def _is_weak(text: str) -> bool:
    """Whether a text says so little that meeting it proves nothing: a plain word, or a short number however it is written."""
    written = subject_text(text)
    return written.isalpha() or (_is_number(written) and len(written) < _SHORT_NUMBER)


def _is_number(written: str) -> bool:
    return written.removeprefix("-").isdigit()


def _is_row_id(wanted: Wanted, value: int) -> bool:
    if value < _MIN_ROW_ID or value >= 1 << 63 or not len(wanted.row_ids):
        return False
    place = int(np.searchsorted(wanted.row_ids, value))
    return place < len(wanted.row_ids) and int(wanted.row_ids[place]) == value


def _is_key(wanted: Wanted, word: str) -> bool:
    """Whether a word is an erased row id in decimals, or the hash of an erased row in hexadecimals."""
    if word.isdecimal() and 13 <= len(word) <= 19:
        return _is_row_id(wanted, int(word))
    return len(word) == 32 and bool(re.fullmatch(r"[0-9a-f]{32}", word)) and int(word, 16) in wanted.hashes


def place_of(tally: Tally, path: str) -> str:
    """A place as reports name it: no part of it may be the value itself."""
    place = f"{unquoted(tally.target.name)}: {path}"
    for piece in sorted(name_pieces(place), key=len, reverse=True):
        if is_subject(tally, piece) and not _is_weak(piece):
            place = place.replace(piece, "<subject>")
    return place


def hit(tally: Tally, path: str) -> None:
    tally.hits.add(place_of(tally, path))


def look(tally: Tally, value: Any, path: str, role: Role) -> None:
    """One leaf of a document, a bound or a cell that is not in a vector."""
    tally.n_cells += 1
    if value is None or isinstance(value, bool):
        return
    if isinstance(value, int) and _is_row_id(tally.wanted, value):
        hit(tally, f"{path} (row id)")
    if role == "subject":
        if is_subject(tally, value):
            hit(tally, path)
    elif isinstance(value, (str, bytes)):
        text = subject_text(value)
        if role == "free":
            _look_text(tally, text, path)
        elif is_subject(tally, text):
            tally.mentions.add(place_of(tally, path))


def _look_text(tally: Tally, text: str, path: str) -> None:
    """A text of which nothing is known: JSON inside it is opened, else its words, its fields and the whole are looked up."""
    if text[:1] in ("{", "[") and (document := parse_json(text)) is not None:
        look_json(tally, document, path)
        return
    text = without_names(tally, text, path)
    named = speaks_of_subject(tally, f"{path} {text}")
    for start in range(0, len(text), _TEXT_BLOCK):
        for piece in _pieces(text[start : start + _TEXT_BLOCK]):
            look_piece(tally, piece, path, whole=piece == text, named=named)


def without_names(tally: Tally, text: str, path: str) -> str:
    """A text less the names of tables and raw files that hold an id: those are mentions."""
    held = [name for name in tally.wanted.names if name in text]
    for name in held:
        text = text.replace(name, " ")
    if text in tally.wanted.bare and "/_delta_log/" in tally.target.name:
        held, text = [text], ""
    if held:
        tally.mentions.add(f"{place_of(tally, path)} {NAME}")
    return text


def look_piece(tally: Tally, piece: str, path: str, *, whole: bool, named: bool) -> None:
    if _is_key(tally.wanted, piece):
        hit(tally, f"{path} (row id)")
    if not is_subject(tally, piece):
        return
    if named or not _is_weak(piece) or (whole and piece.isalpha()):
        hit(tally, path)
    elif not _is_number(subject_text(piece)):
        tally.mentions.add(place_of(tally, path))


def _pieces(text: str) -> Iterator[str]:
    """Words, fields and lines of a text, as it stands and with its percent signs resolved, as paths in a log have them."""
    for line in text.splitlines() or [text]:
        yield from text_tokens(line)
        if "%" in line:
            yield from text_tokens(unquoted(line))


def speaks_of_subject(tally: Tally, text: str) -> bool:
    """Whether a subject column is named, as a word of its own."""
    lowered = text.casefold()
    return any(re.search(rf"(?<!\w){re.escape(c)}(?!\w)", lowered) for c in tally.target.columns if c in lowered)


# --- JSON -----------------------------------------------------------------------------------------------------------------------


def parse_json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def look_json(tally: Tally, document: Any, path: str) -> None:
    """Every key and leaf of a document. The bounds of a Delta log (`minValues.<column>`) have the role of their column."""
    todo: list[tuple[Any, str, Role]] = [(document, path, "free")]
    while todo:
        node, place, role = todo.pop()
        if isinstance(node, dict):
            for key, value in node.items():
                look(tally, str(key), f"{place} (key)", "free")
                inner = _role_of(tally, str(key), place) if role == "free" else role
                todo.append((value, f"{place}.{key}", inner))
        elif isinstance(node, (list, tuple)):
            todo.extend((item, f"{place}[]", role) for item in node)
        elif role == "free" and _column_in(place, tally.target.columns):
            look(tally, node, place, "subject")
        else:
            look(tally, node, place, role)


def _role_of(tally: Tally, column: str, place: str) -> Role:
    if not place.endswith(_BOUNDS):
        return "free"
    folded = column.casefold()
    if folded in tally.target.columns:
        return "subject"
    leads_on = any(path.startswith((f"{folded}.", f"{folded}[]")) for path in tally.target.columns)
    return "other" if tally.target.known and not leads_on else "free"


def _column_in(place: str, columns: frozenset[str]) -> bool:
    """Whether a leaf stands under a bound of a subject column that is a struct or was written by its dotted path."""
    return any(f"{bound}.{column}" in place.casefold() for bound in ("minvalues", "maxvalues", "values") for column in columns)


# --- names ----------------------------------------------------------------------------------------------------------------------


def look_name(tally: Tally, name: str, path: str = "name") -> None:
    """The name of an object or a folder, or of a member of an archive."""
    name = without_names(tally, name, path)
    named = speaks_of_subject(tally, unquoted(name))
    for piece in name_pieces(name):
        look_piece(tally, piece, path, whole=False, named=named)
