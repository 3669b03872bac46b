"""What the words and lines of one document count up to; the other half of the pass, after `signals_chars`.

Words are looked at eight bytes of flags at a time; only those that hold punctuation are read byte by byte.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import uint32, uint64

from tasks.kernels.signals_chars import ALPHA, BULLETS, CASED, DIGIT, ELLIPSIS, LOOK, NEWLINE, QUOTE, SPACE, UPPER, signed
from tasks.kernels.tokens import I64, U8, U32, U64, compiled, eight_bytes, start_of, texts_of, token_hash

F64 = npt.NDArray[np.float64]

# --- what is counted -----------------------------------------------------------------------------------------------------------

COUNTS = (
    "chars", "raw_words", "symbols", "curly", "sentences", "all_caps", "no_alph", "words", "word_chars", "unique_words",
    "stop_words", "lorem", "lines", "ellipsis_lines", "terminal_lines", "bullet_lines", "javascript_lines",
    "top_2", "top_3", "top_4", "dupe_5", "dupe_6", "dupe_7", "dupe_8", "dupe_9", "dupe_10",
)  # fmt: skip
(
    CHARS, RAW_WORDS, SYMBOLS, CURLY, SENTENCES, ALL_CAPS, NO_ALPH, WORDS, WORD_CHARS, UNIQUE_WORDS,
    STOP_WORDS, LOREM, LINES, ELLIPSIS_LINES, TERMINAL_LINES, BULLET_LINES, JAVASCRIPT_LINES,
) = range(17)  # fmt: skip
TOP_2 = COUNTS.index("top_2")
SUMS = ("count_log_count", "uppercase", "numerical")
COUNT_LOG_COUNT, UPPERCASE, NUMERICAL = range(3)

STOP_WORDS_OF_ENGLISH = """
    the be to of and a in that have i it for not on with he as you do at this but his by from they we say her she or an will my
    one all would there their what so is are was were has had which if
"""
STOP_WORD_LIST = tuple(STOP_WORDS_OF_ENGLISH.split())


_START = start_of(0)


@compiled
def _hash_each(data: U8, begins: I64, sizes: I64) -> U64:
    room = np.zeros(64, np.uint8)
    hashes = np.empty(len(begins), np.uint64)
    for k in range(len(begins)):
        room[: sizes[k]] = data[begins[k] : begins[k] + sizes[k]]
        hashes[k] = token_hash(room.view(np.uint64), uint64(0), uint64(sizes[k]), _START)
    return hashes


@cache
def hashes_of(words: tuple[str, ...]) -> U64:
    """The hashes of words of at most 48 bytes."""
    texts = texts_of(pa.array(words))
    return _hash_each(texts.data, texts.begins, texts.sizes)


# --- one word ------------------------------------------------------------------------------------------------------------------

_LANES = np.uint64(0x0101010101010101)
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
_N_LOGS = 1024
_LOGS = np.arange(_N_LOGS) * np.log(np.maximum(np.arange(_N_LOGS), 1))


@compiled
def _lanes(word: np.uint64, bit: int) -> np.uint64:
    """In how many of eight bytes a bit is set."""
    return (((word >> uint64(bit)) & _LANES) * _LANES) >> uint64(56)


@compiled
def _flags_of(flags: U64, at: np.uint64, size: np.uint64) -> tuple[np.uint64, np.uint64, np.uint64]:
    """Of `size` > 0 bytes from `at` on: the OR of their flags, how many have `LOOK`, and how many begin a character."""
    seen, n_look, n_rest = uint64(0), uint64(0), uint64(0)
    left = size
    while left > uint64(0):
        n = min(left, uint64(8))
        word = eight_bytes(flags, at) & (_ALL >> ((uint64(8) - n) << uint64(3)))
        seen |= word
        n_look += _lanes(word, 3)
        n_rest += _lanes(word, 7)
        at += n
        left -= n
    seen |= seen >> uint64(32)
    seen |= seen >> uint64(16)
    seen |= seen >> uint64(8)
    return seen & uint64(0xFF), n_look, size - n_rest


_DOT, _HASH, _OPEN, _CLOSE, _LOW_LINE, _BANG, _QUESTION = (ord(char) for char in ".#{}_!?")
_MARK, _ASCII_END = 0xE2, 0x80
_TERMINAL, _ELLIPSIS = 1, 2
_TAILS = np.array([2 * (chr(i) in ",:;)'\"-.!?") + (chr(i) in ".!?") if i < _ASCII_END else 0 for i in range(256)], np.uint64)
"""Of a byte: 2 if it is punctuation that only has to be taken off a word's end, and 1 more if it ends a sentence."""
_BULLETS = np.frombuffer(BULLETS.encode("utf-16-le"), np.uint16).copy()
_ELLIPSIS_POINT, _QUOTE_POINT = ord(ELLIPSIS), ord(QUOTE)


@compiled
def _mark(low: U8, at: int) -> int:
    """The code point of three bytes, 0 if they do not begin as `MARKS` do."""
    return 0x2000 | (low[at + 1] & 0x3F) << 6 | (low[at + 2] & 0x3F) if low[at] == _MARK else 0


@compiled
def _ends_in_ellipsis(low: U8, at: int, size: int) -> bool:
    last = at + size - 3
    if size < 3:
        return False
    return (low[last] == _DOT and low[last + 1] == _DOT and low[last + 2] == _DOT) or _mark(low, last) == _ELLIPSIS_POINT


@compiled
def _is_bullet(low: U8, at: int) -> bool:
    point = _mark(low, at)
    found = False
    for k in range(len(_BULLETS)):
        found |= point == _BULLETS[k]
    return found


@compiled
def _clean(low: U8, flags: U8, at: int, size: int, fresh: int, row: I64) -> tuple[int, int, int]:
    """Take ASCII punctuation out of a word, in place; count its symbols, brackets and sentences. Returns the bytes taken out,
    how the word ends (`_TERMINAL`, `_ELLIPSIS`), and whether the next word character begins a sentence.
    """
    ellipsis = _ends_in_ellipsis(low, at, size)
    kept, dots, symbols, curly, sentences, ending, quote = at, 0, 0, 0, 0, 0, 0
    for j in range(at, at + size):
        byte, flag = low[j], flags[j]
        dots = dots + 1 if byte == _DOT else 0
        symbols += int(dots == 3) + int(byte == _HASH)
        dots = dots if dots < 3 else 0
        curly += int(byte == _OPEN) + int(byte == _CLOSE)
        ending = _TERMINAL * int(byte in (_DOT, _BANG, _QUESTION))
        wordy = int(flag & (ALPHA | DIGIT) != 0 or byte == _LOW_LINE)
        sentences += wordy & fresh
        fresh = ending | (fresh & (1 - wordy))
        if flag & LOOK and byte == _MARK:
            point = _mark(low, j)
            symbols += int(point == _ELLIPSIS_POINT)
            quote = j + 3 if point == _QUOTE_POINT else quote
        low[kept] = byte
        kept += int(flag & LOOK == 0 or byte >= _ASCII_END)
    row[SYMBOLS] += symbols
    row[CURLY] += curly
    row[SENTENCES] += sentences
    ending |= int(quote == at + size) | _ELLIPSIS * int(ellipsis)
    return at + size - kept, ending, fresh


# --- one document --------------------------------------------------------------------------------------------------------------


@compiled
def _read_line(flags: U64, begin: np.uint64, end: np.uint64, n_kept: int, ending: int, row: I64, sums: F64) -> None:
    """Add a line, the bytes [begin, end) of which `n_kept` characters are content, to a document's figures."""
    n_upper, n_digits, n_rest = uint64(0), uint64(0), uint64(0)
    at = begin
    while at < end:
        n = min(end - at, uint64(8))
        word = eight_bytes(flags, at) & (_ALL >> ((uint64(8) - n) << uint64(3)))
        n_upper += _lanes(word, 0)
        n_digits += _lanes(word, 2)
        n_rest += _lanes(word, 7)
        at += n
    row[LINES] += 1
    row[TERMINAL_LINES] += ending & _TERMINAL
    row[ELLIPSIS_LINES] += ending >> 1
    sums[UPPERCASE] += signed(n_upper) / signed(end - begin - n_rest)
    sums[NUMERICAL] += signed(n_digits) / max(n_kept, 1)


@compiled
def read_words(
    low: U8, flags: U8, edges: U32, n_edges: int, starts: U32, sizes: U32, begins: U32, lines: U32, row: I64, sums: F64
) -> int:
    """The bytes of each word in `low`, the characters before it (and before the end), the first word of each line (and the end);
    and the figures of `row` and `sums` that are read off raw words and lines. Returns the number of words.
    """
    eights = flags.view(np.uint64)
    begins[0] = 0
    n_words, n_chars, line, end = uint64(0), uint64(0), uint64(0), uint64(0)
    n_raw, n_caps, n_no_alph, sentences, fresh, ending = 0, 0, 0, 0, 1, 0
    for k in range(uint64(n_edges)):
        at = uint64(edges[k])
        size = uint64(edges[k + uint64(1)]) - at
        if flags[at] & SPACE:
            continue
        if flags[at] & NEWLINE:
            if end > line:
                _read_line(eights, line, end, _content(begins, lines[int(row[LINES])], n_words), ending, row, sums)
            end = line = at
            continue
        if end == line:
            line = at
            lines[row[LINES]] = uint32(n_words)
            row[BULLET_LINES] += int(_is_bullet(low, signed(at)))
        end = at + size
        seen, n_look, n_first = _flags_of(eights, at, size)
        n_raw += 1
        n_caps += int(seen & uint64(UPPER | CASED) == uint64(UPPER))
        n_no_alph += int(seen & uint64(ALPHA) == uint64(0))
        tail = _TAILS[int(low[at + size - uint64(1)])]
        n_gone = n_look
        if n_look == tail >> uint64(1):
            ending = signed(tail & uint64(1))
            wordy = int(seen & uint64(ALPHA | DIGIT) != uint64(0))
            sentences += wordy & fresh
            fresh = ending | (fresh & (1 - wordy))
        else:
            gone, ending, fresh = _clean(low, flags, signed(at), signed(size), fresh, row)
            n_gone = uint64(gone)
        starts[n_words] = uint32(at)
        sizes[n_words] = uint32(size - n_gone)
        n_words += uint64(size != n_gone)
        n_chars += n_first - n_gone
        begins[n_words] = uint32(n_chars)
    if end > line:
        _read_line(eights, line, end, _content(begins, lines[int(row[LINES])], n_words), ending, row, sums)
    lines[row[LINES]] = uint32(n_words)
    row[RAW_WORDS], row[ALL_CAPS], row[NO_ALPH], row[WORDS], row[WORD_CHARS] = n_raw, n_caps, n_no_alph, n_words, n_chars
    row[SENTENCES] += sentences
    return signed(n_words)


@compiled
def _content(begins: U32, first: np.uint32, n_words: np.uint64) -> int:
    """The characters of words from the `first` one on, and of the spaces between."""
    n = signed(n_words) - signed(first)
    return signed(begins[n_words]) - signed(begins[first]) + max(n - 1, 0)


@compiled
def hash_words(low: U64, starts: U32, sizes: U32, n_words: int, hashed: U64) -> None:
    """The hash of each word."""
    for i in range(uint64(n_words)):
        hashed[i] = token_hash(low, uint64(starts[i]), uint64(sizes[i]), _START)


@compiled
def _contains(known: U64, hashed: np.uint64) -> bool:
    """Whether an open-addressed table of hashes, 0 where it is empty, holds one."""
    mask = uint64(len(known) - 1)
    slot = hashed & mask
    while known[slot] != uint64(0):
        if known[slot] == hashed:
            return True
        slot = (slot + uint64(1)) & mask
    return False


@cache
def stop_table() -> U64:
    """The hashes of `STOP_WORD_LIST`, as `_contains` looks them up."""
    table = np.zeros(1024, np.uint64)
    for hashed in hashes_of(STOP_WORD_LIST):
        slot = int(hashed) & 1023
        while table[slot]:
            slot = (slot + 1) & 1023
        table[slot] = hashed
    return table


@compiled
def read_counts(known: U64, counts: U32, n_unique: int, stop: U64, row: I64, sums: F64) -> None:
    """The figures that are read off the counts of words."""
    n_stop, total = 0, 0.0
    for one in range(1, n_unique + 1):
        n = signed(counts[one])
        n_stop += n * int(_contains(stop, known[one]))
        total += _LOGS[n] if n < _N_LOGS else n * np.log(n)
    row[UNIQUE_WORDS], row[STOP_WORDS], sums[COUNT_LOG_COUNT] = n_unique, n_stop, total


@compiled
def read_named(hashed: U64, n_words: int, lines: U32, named: U64, row: I64) -> None:
    """Lorem ipsum, and the lines with javascript; `named` holds the hashes of the three words."""
    line, told = 0, -1
    for i in range(n_words):
        if hashed[i] == named[1] and i and hashed[i - 1] == named[0]:
            row[LOREM] += 1
        if hashed[i] == named[2]:
            while lines[line + 1] <= i:
                line += 1
            row[JAVASCRIPT_LINES] += int(line != told)
            told = line
