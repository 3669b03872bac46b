"""How a CSV is written: encoding, separator, quotes, comments and header, found out from a file's first bytes or as told. Pure.

What is told wins. What is guessed is what the first thousand records agree on; where they do not, the more usual reading is
taken: a wrong one turns records into rejects, and rejects are kept.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from infra.settings import ConfigError, ReadSettings
from tasks.ingest import scan
from tasks.ingest.blocks import as_text
from tasks.ingest.fields import Fields, fields
from tasks.ingest.infer import unique_names
from tasks.ingest.scan import Records, records
from tasks.ingest.streams import UTF8, Unreadable, encoding_of, recoded

HEAD_BYTES = 256 << 10
SEPARATORS = ",\t;|"
_SAMPLE = 1000  # records that a guess is taken from
_AGREE, _MOSTLY = 0.5, 0.9  # fractions of them that have as many fields as the first
_FEW = 3
_MOMENTS = scan.DATE | scan.STAMP | scan.INSTANT
_LINE_END = re.compile(rb"\r\n|\n|\r")
_SEP_LINE = re.compile(rb'\A"?sep=([^\r\n])"?[ \t]*(?:\r\n|\n|\r)', re.IGNORECASE)
_HASH_LINES = re.compile(rb"\A(?:(?:#[^\r\n]*)?(?:\r\n|\n|\r))*")
_BEFORE_QUOTE = b"\r\n,\t;|"
_NOTHING = scan.NULL | scan.WORD | scan.NAN
_NUMBER = scan.INT | scan.BIG | scan.HUGE | scan.DOUBLE | scan.INF
_CLASSES = (_NUMBER, scan.DATE, scan.STAMP | scan.INSTANT)


class HeaderIncomplete(Unreadable):
    """The first bytes of a file do not reach the end of its header."""


@dataclass(frozen=True)
class Dialect:
    """How a file is written, and its columns.

    `separator`, `quote` and `comment` are single ASCII characters; no quote and no comment are "". `names` are unique, `renamed`
    says which of them the file spells differently. The first record after the header starts `header_bytes` bytes and
    `header_lines` lines into the file; the bytes are those of the file if it is UTF-8 (its mark included), else those of its text
    in UTF-8. A file without records has no names.
    """

    encoding: str
    separator: str
    quote: str
    header: bool
    comment: str
    names: tuple[str, ...]
    renamed: tuple[str, ...] = ()
    header_bytes: int = 0
    header_lines: int = 0

    @property
    def quote_byte(self) -> int:
        return ord(self.quote) if self.quote else -1

    @property
    def comment_byte(self) -> int:
        return ord(self.comment) if self.comment else -1

    def to_json(self) -> str:
        """As the ledger keeps it."""
        return json.dumps(asdict(self), separators=(",", ":"), ensure_ascii=False)


def from_json(text: str) -> Dialect:
    """The inverse of `Dialect.to_json`."""
    found: dict[str, Any] = json.loads(text)
    found |= {"names": tuple(found["names"]), "renamed": tuple(found["renamed"])}
    return Dialect(**found)


def detect(head: bytes, options: ReadSettings | None = None, *, kind: str = "csv", whole: bool | None = None) -> Dialect:
    """The dialect of a file from its first bytes as they lie in it (decompressed, not decoded): `HEAD_BYTES` of them, or all
    where there are fewer; `whole` says it where that does not tell. `kind`: "csv", or "tsv" for tabs unless another separator is
    told.

    Raises `ConfigError` for an option that cannot be meant, `Unreadable` if no header can be read, `HeaderIncomplete` if more
    bytes might help.
    """
    options = options or ReadSettings()
    _check(options)
    encoding = encoding_of(head, options.encoding)
    text = b"".join(recoded(iter([head]), encoding))
    n_mark = len(head) - len(text) if encoding == UTF8 else 0
    last = len(head) < HEAD_BYTES if whole is None else whole
    start, options = _preamble(text, options if kind == "csv" else _tabbed(options), last)
    found = _layout(text[start:], options, last)
    plain = Dialect(encoding, found.separator, found.quote, True, options.comment or "", ())
    if len(found.records.starts):
        return _described(plain, text, n_mark, start, found, options)
    if not last:
        raise HeaderIncomplete(f"no header row ends in the first {len(text)} bytes")
    if found.records.quoted:
        raise Unreadable("the header row opens a quote and never closes it")
    return plain


@dataclass(frozen=True)
class _Layout:
    """The records of the first bytes as one separator and quote cut them."""

    data: bytes
    separator: str
    quote: str
    records: Records

    @property
    def n_fields(self) -> int:
        """The first record's number of fields, 0 without a record."""
        return int(self.records.n_fields[0]) if len(self.records.n_fields) else 0

    @property
    def agreement(self) -> float:
        """The fraction of the records after the first that have as many fields."""
        others = self.records.n_fields[1:_SAMPLE]
        return float((others == self.n_fields).mean()) if len(others) else 1.0

    def sample(self, n_fields: int) -> Fields:
        """The first records that have so many fields."""
        rows = np.flatnonzero(self.records.n_fields[:_SAMPLE] == n_fields)
        return fields(self.data, self.records, rows, [""] * n_fields, ord(self.quote) if self.quote else -1)


def _described(dialect: Dialect, text: bytes, n_mark: int, start: int, found: _Layout, options: ReadSettings) -> Dialect:
    """The dialect with its header, or with the names that are given where there is none."""
    first = text[start + int(found.records.starts[0]) : start + int(found.records.ends[0])]
    if b"\0" in first:
        raise Unreadable("the header row holds NUL bytes: not a text file")
    sample = found.sample(found.n_fields)
    has_header = not _is_data(sample) if options.header is None else options.header
    end = start
    if has_header:
        names = [_spelled(sample, place, 0) for place in range(found.n_fields)]
        after = _LINE_END.match(text, start + int(found.records.ends[0]))
        end = after.end() if after else len(text)
    else:
        names = [""] * Counter(found.records.n_fields[:_SAMPLE].tolist()).most_common(1)[0][0]
    unique = unique_names(names)
    renamed = _renamed(names, unique) if has_header else ()
    n_lines = len(_LINE_END.findall(text, 0, end))
    return replace(
        dialect, header=has_header, names=tuple(unique), renamed=renamed, header_bytes=n_mark + end, header_lines=n_lines
    )


def _spelled(sample: Fields, place: int, row: int) -> str:
    start, end = int(sample.starts[place, row]), int(sample.ends[place, row])
    return as_text(sample.buffer[start : max(start, end)].tobytes())


def _renamed(names: Sequence[str], unique: Sequence[str]) -> tuple[str, ...]:
    """Which names are not as the file has them: empty, `row_id`, there twice."""
    groups = dict[str, list[int]]()
    for place, name in enumerate(names):
        groups.setdefault(" ".join(name.split()).lower(), []).append(place)
    notes = list[tuple[int, str]]()
    for key, places in groups.items():
        given = [unique[place] for place in places]
        if not key:
            notes += [(place, f"column {place + 1} had no name: {unique[place]}") for place in places]
        elif len(places) > 1:
            notes.append((places[0], f"{len(places)} columns were named {given[0]!r}: {', '.join(given)}"))
        elif given[0].lower() != key:
            notes.append((places[0], f"column {places[0] + 1} was named {names[places[0]].strip()!r}: {given[0]}"))
    return tuple(note for _, note in sorted(notes))


# --- what is told -----------------------------------------------------------------------------------------------------------


def refuse_options(options: ReadSettings) -> None:
    """Raise `ConfigError` for separators, quotes and comments that cannot be meant, and for an encoding that is none."""
    encoding_of(b"", options.encoding)
    _check(options)


def _check(options: ReadSettings) -> None:
    told = {"separator": options.separator, "quote": options.quote, "comment": options.comment}
    for key, value in told.items():
        if value and (not value.isascii() or value in "\r\n\0"):
            raise ConfigError(f"{key} = {value!r}: no single ASCII character other than a line end. Write another one")
    given = {key: value for key, value in told.items() if value}
    if len(set(given.values())) < len(given):
        raise ConfigError(f"{', '.join(given)} are not all different: {', '.join(map(repr, given.values()))}. Change one")


def _tabbed(options: ReadSettings) -> ReadSettings:
    return options if options.separator else options.model_copy(update={"separator": "\t"})


# --- what stands before the header ------------------------------------------------------------------------------------------


def _preamble(text: bytes, options: ReadSettings, last: bool) -> tuple[int, ReadSettings]:
    """Where the header (or the first record) starts, and the separator if an Excel line says it. Lines of # are comments where
    nothing is told, but only those before the header: later ones are records."""
    start = 0
    if said := _SEP_LINE.match(text):
        start = said.end()
        if options.separator is None and said[1].isascii():
            options = options.model_copy(update={"separator": said[1].decode()})
    if options.comment is None and text[start : start + 1] == b"#":
        start += _after_comments(text[start:], options, last)
    return start, options


def _after_comments(text: bytes, options: ReadSettings, last: bool) -> int:
    """The length of the lines of # that are comments: all, or all but the last one where that is the header (#chrom, pos)."""
    run = _HASH_LINES.match(text)
    end = run.end() if run else 0
    if not end:
        return 0
    rest = _layout(text[end:], options, last)
    if not len(rest.records.starts):
        return 0 if last else end
    lines = [line for line in _LINE_END.split(text[:end]) if line]
    header = records(lines[-1], rest.separator, last=True, quote=ord(rest.quote) if rest.quote else -1)
    if not len(header.n_fields) or header.n_fields[0] != rest.n_fields or rest.agreement < _AGREE:
        return end
    sample = rest.sample(rest.n_fields)
    first, others = (list(_kinds(sample, part)) for part in (slice(0, 1), slice(1, None)))
    if any(one & scan.TEXT and _class(other) for one, other in zip(first, others, strict=True)):
        return end  # the line after them names columns of numbers or days
    is_header = lines[-1][1:2].strip() or any(map(_class, first))
    return text.rindex(lines[-1], 0, end) if is_header else end


# --- separator and quotes ---------------------------------------------------------------------------------------------------


def _layout(data: bytes, options: ReadSettings, last: bool) -> _Layout:
    """The separator and the quote that the records agree on."""
    if options.quote is not None:
        return _separated(data, options, options.quote, last)
    if options.separator != "'" and options.comment != "'" and _opens_with_apostrophe(data):
        found = _separated(data, options, "'", last)
        if _is_quoted(found):
            return found
    quote = "" if '"' in (options.separator, options.comment) else '"'
    return _separated(data, options, quote, last)


def _opens_with_apostrophe(data: bytes) -> bool:
    """Whether an apostrophe stands where a field may begin."""
    at = data.find(b"'")
    while at > 0 and data[at - 1] not in _BEFORE_QUOTE:
        at = data.find(b"'", at + 1)
    return at >= 0


def _separated(data: bytes, options: ReadSettings, quote: str, last: bool) -> _Layout:
    tried = [_cut(data, sep, quote, options, last) for sep in (options.separator or SEPARATORS)]
    agreed = [one for one in tried if one.n_fields > 1 and one.agreement >= _AGREE]
    if agreed:
        return max(agreed, key=lambda one: (one.agreement >= _MOSTLY, one.n_fields, one.agreement))
    if max(one.n_fields for one in tried) > 1 and not _is_prose(tried):
        return max(tried, key=lambda one: one.n_fields)
    single = [one for one in tried if one.n_fields <= 1] or tried
    best = max(one.agreement for one in single)
    return next(one for one in single if one.agreement >= _MOSTLY * best)


def _is_prose(tried: Sequence[_Layout]) -> bool:
    """Whether a header holds separators and no record does: one column whose name is a phrase."""
    counts = [one.records.n_fields[1:_SAMPLE] for one in tried]
    return any(one.n_fields == 1 for one in tried) and all(len(n) >= _FEW and n.max() == 1 for n in counts)


def _cut(data: bytes, separator: str, quote: str, options: ReadSettings, last: bool) -> _Layout:
    comment = ord(options.comment) if options.comment else -1
    return _Layout(
        data, separator, quote, records(data, separator, last=last, quote=ord(quote) if quote else -1, comment=comment)
    )


def _is_quoted(found: _Layout) -> bool:
    """Whether apostrophes are quotes: every field that starts with one ends with one, and all fields of a column do."""
    if not found.n_fields or found.agreement < 1.0:
        return False
    raw = [_raw_fields(found, row) for row in range(min(len(found.records.starts), _SAMPLE))]
    if not all(_is_even(field) for row in raw for field in row):
        return False
    filled = [field for row in raw for field in row if field]
    if filled and all(map(_in_quotes, filled)):
        return True
    columns = zip(*raw[1:], strict=True)
    return len(raw) > _FEW and any(any(column) and all(map(_in_quotes, filter(None, column))) for column in columns)


def _raw_fields(found: _Layout, row: int) -> list[bytes]:
    cut = found.records
    first, at = int(cut.first_fields[row]), int(cut.starts[row])
    result = list[bytes]()
    for said in cut.field_ends[first : first + int(cut.n_fields[row])].tolist():
        end = said if said >= 0 else -1 - said
        result.append(found.data[at:end])
        at = end + 1
    return result


def _in_quotes(field: bytes) -> bool:
    return len(field) > 1 and field[:1] == field[-1:] == b"'"


def _is_even(field: bytes) -> bool:
    return _in_quotes(field) or not field.startswith((b"'", b'"'))


# --- header -----------------------------------------------------------------------------------------------------------------


def _is_data(sample: Fields) -> bool:
    """Whether the first record is certainly no header: all of its fields are numbers, days, times or nothing, as in the records
    below; and it is no row of different whole numbers, as years, places and ids are in a header, or of numbers that rise or fall
    all along, as wavelengths are. One field that is a day or a time over a column of such is enough: no header has that."""
    if sample.num_rows < 2:
        return False
    if _has_moment_over_moments(sample):
        return True
    first = list[int]()
    for kind in _kinds(sample, slice(0, 1)):
        if not _class(kind) and not kind & _NOTHING:
            return False
        first.append(kind)
    if not any(map(_class, first)) or not all(map(_is_alike, first, _kinds(sample, slice(1, None)))):
        return False
    if any(_class(kind) not in (0, _NUMBER) for kind in first):
        return True
    values = [float(_spelled(sample, place, 0)) for place, kind in enumerate(first) if _class(kind)]
    is_whole = not any(kind & scan.DOUBLE for kind in first)
    return not _may_be_names(values, is_whole)


def _has_moment_over_moments(sample: Fields) -> bool:
    firsts, others = _kinds(sample, slice(0, 1)), _kinds(sample, slice(1, None))
    return any(first & _MOMENTS and not rest & ~(_MOMENTS | _NOTHING) for first, rest in zip(firsts, others, strict=True))


def _may_be_names(values: Sequence[float], is_whole: bool) -> bool:
    if is_whole:  # pandas names a column without a name 0
        return len(set(values)) == len(values) > 1 or values == [0.0]
    steps = np.diff(values)
    return len(values) >= _FEW and bool((steps > 0).all() or (steps < 0).all())


def _kinds(sample: Fields, rows: slice) -> Iterator[int]:
    starts, ends = (np.ascontiguousarray(side[:, rows]) for side in (sample.starts, sample.ends))
    part = Fields(sample.names, sample.buffer, starts, ends)
    return (part.kinds(place) for place in range(len(sample.names)))


def _class(kind: int) -> int:
    """The one class of typed values that a column's kinds belong to, 0 if there is none."""
    kind &= ~(_NOTHING | scan.PADDED)
    return next((one for one in _CLASSES if kind and not kind & ~one), 0)


def _is_alike(first: int, others: int) -> bool:
    """Whether a first value is like those below it; nothing only where nothing is below it too."""
    return _class(first) == _class(others) != 0 if _class(first) else bool(first & _NOTHING and others & _NOTHING)
