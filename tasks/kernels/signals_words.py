"""What the words and lines of one document count up to; the other half of the pass, after `signals_chars`.

Words are looked at eight bytes of flags at a time; only those that hold punctuation are read byte by byte.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import uint32, uint64

from tasks.kernels.signals_chars import ALPHA, BULLETS, CASED, CONT, DIGIT, ELLIPSIS, LOOK, NEWLINE, QUOTE, SPACE, UPPER, signed
from tasks.kernels.tokens import I64, U8, U32, U64, compiled, eight_bytes, inlined, n_ones, start_of, texts_of, token_hash

F64 = npt.NDArray[np.float64]

# --- what is counted -----------------------------------------------------------------------------------------------------------

COUNTS = (
    "chars", "raw_words", "symbols", "curly", "sentences", "all_caps", "no_alph", "words", "word_chars", "unique_words",
    "stop_words", "lorem", "lines", "ellipsis_lines", "terminal_lines", "bullet_lines", "javascript_lines",
    "top_2", "top_3", "top_4", "dupe_5", "dupe_6", "dupe_7", "dupe_8", "dupe_9", "dupe_10", "content_chars", "one",
)  # fmt: skip
(
    CHARS, RAW_WORDS, SYMBOLS, CURLY, SENTENCES, ALL_CAPS, NO_ALPH, WORDS, WORD_CHARS, UNIQUE_WORDS,
    STOP_WORDS, LOREM, LINES, ELLIPSIS_LINES, TERMINAL_LINES, BULLET_LINES, JAVASCRIPT_LINES,
) = range(17)  # fmt: skip
TOP_2, CONTENT_CHARS, ONE = (COUNTS.index(name) for name in ("top_2", "content_chars", "one"))
SUMS = ("uppercase", "numerical", "count_log_count")
UPPERCASE, NUMERICAL, COUNT_LOG_COUNT = range(3)
CARRIED = 10
"""What goes from one block of a document to the next: of a line begun its characters, those of the white space behind it, its
upper-case and numeric ones, the words and their characters before it, whether it has the word javascript; how its last word
ends; and whether the next word character begins a sentence."""
_OPEN, _SPAN, _GAP, _UPPER, _DIGITS, _WORDS_BEFORE, _CHARS_BEFORE, _SCRIPT, _ENDING, FRESH = range(CARRIED)

STOP_WORDS_OF_ENGLISH = """
    the be to of and a in that have i it for not on with he as you do at this but his by from they we say her she or an will my
    one all would there their what so is are was were has had which if
"""
STOP_WORD_LIST = tuple(STOP_WORDS_OF_ENGLISH.split())
_STOP_BITS = 10
_STOP_SIZE = 1 << _STOP_BITS


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

_LANES = 0x0101010101010101
_UPPERS, _CASEDS, _DIGITS_, _LOOKS, _ALPHAS, _CONTS = (
    np.uint64(_LANES * flag) for flag in (UPPER, CASED, DIGIT, LOOK, ALPHA, CONT)
)
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
_N_LOGS = 1024
_LOGS = np.arange(_N_LOGS) * np.log(np.maximum(np.arange(_N_LOGS), 1))


@inlined
def _flags_of(flags: U64, at: np.uint64, size: np.uint64) -> tuple[np.uint64, np.uint64, np.uint64, np.uint64, np.uint64]:
    """Of `size` > 0 bytes from `at` on: their flags, eight bytes ORed into one word, and how many have `LOOK`, begin a character,
    have `UPPER`, have `DIGIT`.
    """
    seen, n_look, n_rest, n_upper, n_digits = uint64(0), uint64(0), uint64(0), uint64(0), uint64(0)
    left = size
    while True:
        n = min(left, uint64(8))
        word = eight_bytes(flags, at) & (_ALL >> ((uint64(8) - n) << uint64(3)))
        seen |= word
        n_look += n_ones(word & _LOOKS)
        n_rest += n_ones(word & _CONTS)
        n_upper += n_ones(word & _UPPERS)
        n_digits += n_ones(word & _DIGITS_)
        at += n
        left -= n
        if left == uint64(0):
            break
    return seen, n_look, size - n_rest, n_upper, n_digits


_DOT, _HASH, _BRACE, _CLOSING, _LOW_LINE, _BANG, _QUESTION = (ord(char) for char in ".#{}_!?")
_MARK, _ASCII_END = 0xE2, 0x80
_TERMINAL, _ELLIPSIS = 1, 2
_TAILS = np.array([2 * (chr(i) in ",:;)'\"-.!?") + (chr(i) in ".!?") if i < _ASCII_END else 0 for i in range(256)], np.uint64)
"""Of a byte: 2 if it is punctuation that only has to be taken off a word's end, and 1 more if it ends a sentence."""
_BULLETS = np.frombuffer(BULLETS.encode("utf-16-le"), np.uint16).copy()
_ELLIPSIS_POINT, _QUOTE_POINT = ord(ELLIPSIS), ord(QUOTE)


@inlined
def _mark(low: U8, at: int) -> int:
    """The code point of three bytes, 0 if they do not begin as `MARKS` do."""
    return 0x2000 | (low[at + 1] & 0x3F) << 6 | (low[at + 2] & 0x3F) if low[at] == _MARK else 0


@inlined
def _ends_in_ellipsis(low: U8, at: int, size: int) -> bool:
    last = at + size - 3
    if size < 3:
        return False
    return (low[last] == _DOT and low[last + 1] == _DOT and low[last + 2] == _DOT) or _mark(low, last) == _ELLIPSIS_POINT


@inlined
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
        curly += int(byte == _BRACE) + int(byte == _CLOSING)
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


@inlined
def end_line(line: I64, row: I64, sums: F64) -> None:
    """Add a line, if one has begun, to a document's figures."""
    if line[_OPEN]:
        row[LINES] += 1
        row[TERMINAL_LINES] += line[_ENDING] & _TERMINAL
        row[ELLIPSIS_LINES] += line[_ENDING] >> 1
        row[JAVASCRIPT_LINES] += line[_SCRIPT]
        n_words = row[WORDS] - line[_WORDS_BEFORE]
        n_kept = row[WORD_CHARS] - line[_CHARS_BEFORE] + max(n_words - 1, 0)
        sums[UPPERCASE] += line[_UPPER] / line[_SPAN]
        sums[NUMERICAL] += line[_DIGITS] / max(n_kept, 1)
        line[_OPEN] = 0


@inlined
def _begin_line(is_bullet: bool, line: I64, row: I64) -> None:
    row[BULLET_LINES] += int(is_bullet)
    line[_OPEN], line[_SPAN], line[_GAP], line[_UPPER], line[_DIGITS], line[_SCRIPT] = 1, 0, 0, 0, 0, 0
    line[_WORDS_BEFORE], line[_CHARS_BEFORE] = row[WORDS], row[WORD_CHARS]


@inlined
def read_words(
    low: U8, flags: U8, edges: U32, n_edges: int, named: U64, keys: U64, begins: U32, line: I64, row: I64, sums: F64
) -> None:
    """Read a block: the hash of each word, the characters before it (and before the end), and the figures of `row` and `sums`
    that are read off raw words and lines. `named` holds the hashes of lorem, ipsum, javascript.
    """
    bytes_8, flags_8 = low.view(np.uint64), flags.view(np.uint64)
    n_words, n_chars = uint64(row[WORDS]), uint64(row[WORD_CHARS])
    n_raw, n_caps, n_no_alph, sentences, fresh = 0, 0, 0, 0, line[FRESH]
    last = keys[n_words - uint64(1)] if n_words else uint64(0)
    for k in range(uint64(n_edges)):
        at = uint64(edges[k])
        size = uint64(edges[k + uint64(1)]) - at
        if flags[at] & NEWLINE:
            row[WORDS], row[WORD_CHARS] = n_words, n_chars
            end_line(line, row, sums)
            continue
        if flags[at] & SPACE:
            line[_GAP] += signed(size if size == uint64(1) else _flags_of(flags_8, at, size)[2])
            continue
        seen, n_look, n_first, n_upper, n_digits = _flags_of(flags_8, at, size)
        if not line[_OPEN]:
            row[WORDS], row[WORD_CHARS] = n_words, n_chars
            _begin_line(_is_bullet(low, signed(at)), line, row)
        line[_SPAN] += line[_GAP] + signed(n_first)
        line[_GAP] = 0
        line[_UPPER] += signed(n_upper)
        line[_DIGITS] += signed(n_digits)
        n_raw += 1
        n_caps += int((seen & _UPPERS != uint64(0)) & (seen & _CASEDS == uint64(0)))
        n_no_alph += int(seen & _ALPHAS == uint64(0))
        tail = _TAILS[int(low[at + size - uint64(1)])]
        n_gone = n_look
        if n_look == tail >> uint64(1):
            ending = signed(tail & uint64(1))
            wordy = int(seen & (_ALPHAS | _DIGITS_) != uint64(0))
            sentences += wordy & fresh
            fresh = ending | (fresh & (1 - wordy))
        else:
            gone, ending, fresh = _clean(low, flags, signed(at), signed(size), fresh, row)
            n_gone = uint64(gone)
        line[_ENDING] = ending
        if size != n_gone:
            hashed = token_hash(bytes_8, at, size - n_gone, _START)
            row[LOREM] += int((hashed == named[1]) & (last == named[0]))
            line[_SCRIPT] |= int(hashed == named[2])
            keys[n_words] = last = hashed
            n_words += uint64(1)
            n_chars += n_first - n_gone
            begins[n_words] = uint32(n_chars)
    row[RAW_WORDS] += n_raw
    row[ALL_CAPS] += n_caps
    row[NO_ALPH] += n_no_alph
    row[SENTENCES] += sentences
    row[WORDS], row[WORD_CHARS], line[FRESH] = n_words, n_chars, fresh


@cache
def stop_table() -> U64:
    """The hashes of `STOP_WORD_LIST`, each in the slot that `_STOP_BITS` of its bits say; the last entry: where those bits begin.

    The first bits that part all of them are taken, so that a word is looked up without a branch.
    """
    hashes, mask = hashes_of(STOP_WORD_LIST), np.uint64(_STOP_SIZE - 1)
    shifts = np.arange(64 - _STOP_BITS, dtype=np.uint64)
    shift = next(one for one in shifts if len(np.unique((hashes >> one) & mask)) == len(hashes))
    table = np.zeros(_STOP_SIZE + 1, np.uint64)
    table[(hashes >> shift) & mask], table[_STOP_SIZE] = hashes, shift
    return table


@inlined
def read_counts(known: U64, counts: U32, n_unique: int, stop: U64, row: I64, sums: F64) -> None:
    """The figures that are read off the counts of words."""
    n_stop, total = 0, 0.0
    shift = stop[_STOP_SIZE]
    for one in range(1, n_unique + 1):
        n = signed(counts[one])
        n_stop += n * int(stop[(known[one] >> shift) & uint64(_STOP_SIZE - 1)] == known[one])
        total += _LOGS[n] if n < _N_LOGS else n * np.log(n)
    row[UNIQUE_WORDS], row[STOP_WORDS], sums[COUNT_LOG_COUNT] = n_unique, n_stop, total
