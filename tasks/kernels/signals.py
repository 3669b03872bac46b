"""The quality signals of plain text of RedPajama-V2 (Weber et al., arXiv 2411.12372), of a whole Arrow column in one pass.

What the signals are made of:

- *characters* are code points; a byte that is not part of valid UTF-8 is one U+FFFD;
- *raw words* are what white space separates (`str.split`);
- *words* are raw words without ASCII punctuation, in lower case, where anything is left of them;
- *lines* are what line feeds separate, without white space at their ends, where anything is left of them;
- *content* is the words with a space between.

A signal is a function of its document alone: integers, divided once (means over lines and the entropy: sums of float64 in the
order of the text), as float32 (a count above 2^24 is rounded). A share of nothing is NULL, a count is not: of a NULL or empty
document those of `NEVER_NULL` are 0 and all others NULL.

It differs from RedPajama-V2 in this: words are not decomposed (NFD); lower case is taken a code point at a time (Σ is always σ);
"lorem ipsum" is looked for as two words; the stop words are a short English list (`STOP_WORD_LIST`); signals of lines are one
number a document (a mean over its lines) instead of one a line, and blank lines do not count.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tasks.kernels.signals_chars import BLOCK, block_end, chars_room, flag_table, scan
from tasks.kernels.signals_repeats import AHEAD, first_pairs, name_each, read_repeats, table_size
from tasks.kernels.signals_words import (
    CARRIED,
    CHARS,
    CONTENT_CHARS,
    COUNT_LOG_COUNT,
    COUNTS,
    F64,
    FRESH,
    ONE,
    SUMS,
    TOP_2,
    WORD_CHARS,
    WORDS,
    end_line,
    hashes_of,
    read_counts,
    read_words,
    stop_table,
)
from tasks.kernels.tokens import I64, U8, U32, U64, Texts, compiled, inlined, text_chunks

F32 = npt.NDArray[np.float32]
WordsRoom = tuple[U64, U64, U32, U32, U32, U32, U32, U32]

DESCRIPTIONS: dict[str, str] = {
    "word_count": "the number of words",
    "num_sentences": "the number of runs of characters other than . ! ? that hold a letter, a digit or a low line",
    "mean_word_length": "characters of all words / words",
    "symbol_to_word_ratio": "occurrences of #, ... and … / raw words",
    "frac_unique_words": "different words / words",
    "unigram_entropy": "-Σ p ln p, p being the share of a word among the words",
    "stop_word_fraction": "words that are English stop words / words",
    "frac_all_caps_words": "raw words with an upper-case letter and none of lower or title case / raw words",
    "frac_no_alph_words": "raw words without a letter of any alphabet / raw words",
    "frac_lines_end_with_ellipsis": "lines that end with ... or … / lines",
    "lorem_ipsum": "occurrences of the words lorem ipsum / characters of the content",
    "curly_bracket": "occurrences of { and } / characters of the text",
    "lines_ending_with_terminal_punctution_mark": "lines that end with . ! ? or ” / lines (the name is misspelt in RedPajama-V2)",
    "lines_start_with_bulletpoint": "lines that start with one of • ‣ ▶ ◀ ◦ ■ □ ▪ ▫ – / lines",
    "lines_uppercase_letter_fraction": "the mean over lines of: upper-case letters / characters",
    "lines_numerical_chars_fraction": "the mean over lines of: numeric characters / characters of the content of the line",
    "num_lines": "the number of lines",
    "lines_javascript_fraction": "lines with the word javascript / lines",
    **{
        f"frac_chars_top_{n}gram": f"characters of the most frequent word {n}-gram · its count / characters of all words; the"
        " longest of several; 0 where none occurs twice; occurrences may overlap, so that it may pass 1"
        for n in (2, 3, 4)
    },
    **{
        f"frac_chars_dupe_{n}grams": f"characters of words within word {n}-grams that occurred before, each once / characters"
        " of all words"
        for n in range(5, 11)
    },
}
SIGNALS: tuple[str, ...] = tuple(DESCRIPTIONS)
NEVER_NULL = ("word_count", "num_sentences", "num_lines")

_SHARES = {
    "word_count": ("words", "one"),
    "num_sentences": ("sentences", "one"),
    "num_lines": ("lines", "one"),
    "mean_word_length": ("word_chars", "words"),
    "symbol_to_word_ratio": ("symbols", "raw_words"),
    "frac_unique_words": ("unique_words", "words"),
    "stop_word_fraction": ("stop_words", "words"),
    "frac_all_caps_words": ("all_caps", "raw_words"),
    "frac_no_alph_words": ("no_alph", "raw_words"),
    "frac_lines_end_with_ellipsis": ("ellipsis_lines", "lines"),
    "lorem_ipsum": ("lorem", "content_chars"),
    "curly_bracket": ("curly", "chars"),
    "lines_ending_with_terminal_punctution_mark": ("terminal_lines", "lines"),
    "lines_start_with_bulletpoint": ("bullet_lines", "lines"),
    "lines_uppercase_letter_fraction": ("uppercase", "lines"),
    "lines_numerical_chars_fraction": ("numerical", "lines"),
    "lines_javascript_fraction": ("javascript_lines", "lines"),
    **{f"frac_chars_top_{n}gram": (f"top_{n}", "word_chars") for n in (2, 3, 4)},
    **{f"frac_chars_dupe_{n}grams": (f"dupe_{n}", "word_chars") for n in range(5, 11)},
}


_PARTS, _WHOLES = (np.array([(*COUNTS, *SUMS).index(share[k]) for share in _SHARES.values()]) for k in (0, 1))


def signals_of(array: pa.Array | pa.ChunkedArray) -> pa.Table:
    """One float32 column for each of `SIGNALS`, one row a document, NULL as the module says. TypeError if it holds no text."""
    figures = [_measured(texts) for texts in text_chunks(array)]
    shares = np.concatenate([np.empty((len(_PARTS), 0), np.float32), *(shares for shares, _ in figures)], axis=1)
    words, count_log_count = np.concatenate([np.empty((2, 0)), *(sums for _, sums in figures)], axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = np.log(words) - count_log_count / words
    columns = dict(zip(_SHARES, shares, strict=True))
    # Words that are all the same leave a rounding error about 0.
    columns["unigram_entropy"] = np.maximum(entropy, 0.0).astype(np.float32)
    return pa.table({name: pa.array(columns[name], from_pandas=True) for name in SIGNALS})


def _measured(texts: Texts) -> tuple[F32, F64]:
    """The shares of documents, (len(_SHARES), n), and their words and sums of n ln n over words, (2, n)."""
    n = len(texts.sizes)
    shares, words = np.empty((len(_PARTS), n), np.float32), np.empty((2, n))
    size = int(texts.sizes.max(initial=0))
    begin, end = (int(texts.begins[0]), int(texts.begins[-1] + texts.sizes[-1])) if n else (0, 0)
    table = flag_table() if texts.data[begin:end].max(initial=0) >= 0x80 else np.empty(0, np.uint32)
    stop, named = stop_table(), hashes_of(("lorem", "ipsum", "javascript"))
    _run(texts.data, texts.begins, texts.sizes, table, stop, named, _PARTS, _WHOLES, _words_room(size // 2 + 1), shares, words)
    return shares, words


@compiled
def _run(
    data: U8,
    text_begins: I64,
    sizes: I64,
    table: U32,
    stop: U64,
    named: U64,
    parts: I64,
    wholes: I64,
    room: WordsRoom,
    shares: F32,
    words: F64,
) -> None:
    """Write the figures of documents to `shares` and `words`."""
    keys, known, names, counts, places, begins, heads, slots = room
    capacity = BLOCK
    low, flags, edges = chars_room(capacity)
    line, row, sums = np.zeros(CARRIED, np.int64), np.zeros(len(COUNTS), np.int64), np.zeros(len(SUMS))
    begins[0] = 0
    for d in range(len(text_begins)):
        row[:] = 0
        sums[:] = 0.0
        line[:] = 0
        row[ONE] = line[FRESH] = 1
        at, end = text_begins[d], text_begins[d] + sizes[d]
        while at < end:
            stop_at = block_end(data, at, end)
            if stop_at - at > capacity:
                capacity = stop_at - at
                low, flags, edges = chars_room(capacity)
            n_edges, n_chars = scan(data, at, stop_at - at, table, low, flags, edges)
            row[CHARS] += n_chars
            read_words(low, flags, edges, n_edges, named, keys, begins, line, row, sums)
            at = stop_at
        end_line(line, row, sums)
        n_words = row[WORDS]
        n_unique = name_each(keys, n_words, slots, names, known, counts)
        read_counts(known, counts, n_unique, stop, row, sums)
        n_grams = first_pairs(names, counts, n_words, places, keys)
        read_repeats(n_grams, begins, places, keys, slots, heads, names, known, counts, row, TOP_2 - 2)
        row[CONTENT_CHARS] = row[WORD_CHARS] + max(n_words - 1, 0)
        _write(row, sums, parts, wholes, shares, d)
        words[0, d], words[1, d] = n_words, sums[COUNT_LOG_COUNT]


@inlined
def _write(row: I64, sums: F64, parts: I64, wholes: I64, shares: F32, d: int) -> None:
    """Divide parts by wholes; a share of nothing is NaN."""
    n = len(row)
    for k in range(len(parts)):
        part = float(row[parts[k]]) if parts[k] < n else sums[parts[k] - n]
        whole = row[wholes[k]]
        shares[k, d] = part / whole if whole else np.nan


def _words_room(n_words: int) -> WordsRoom:
    """Working space for documents of up to so many words: (keys, known, names, counts, places, begins, heads, slots)."""
    n = n_words + 2 + AHEAD
    return (
        np.empty(n, np.uint64),
        np.empty(n, np.uint64),
        np.empty(n, np.uint32),
        np.empty(n, np.uint32),
        np.empty(n, np.uint32),
        np.empty(n, np.uint32),
        np.empty(n, np.uint32),
        np.empty(table_size(n_words), np.uint32),
    )
