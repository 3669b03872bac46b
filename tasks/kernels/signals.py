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
import pyarrow as pa

from tasks.kernels.signals_chars import Bools, chars_room, flag_table, scan
from tasks.kernels.signals_repeats import first_pairs, name_each, read_repeats, table_size
from tasks.kernels.signals_words import (
    CHARS,
    COUNTS,
    F64,
    SUMS,
    TOP_2,
    hash_words,
    hashes_of,
    read_counts,
    read_named,
    read_words,
    stop_table,
)
from tasks.kernels.tokens import I64, U8, U32, U64, Texts, compiled, text_chunks

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


def signals_of(array: pa.Array | pa.ChunkedArray) -> pa.Table:
    """One float32 column for each of `SIGNALS`, one row a document, NULL as the module says. TypeError if it holds no text."""
    figures = [_measured(texts) for texts in text_chunks(array)]
    counts = np.concatenate([np.zeros((0, len(COUNTS)), np.int64), *(counts for counts, _ in figures)])
    sums = np.concatenate([np.zeros((0, len(SUMS))), *(sums for _, sums in figures)])
    known: dict[str, F64] = dict(zip((*COUNTS, *SUMS), (*counts.T.astype(np.float64), *sums.T), strict=True))
    known["content_chars"] = known["word_chars"] + np.maximum(known["words"] - 1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        columns = {name: known[part] / known[whole] for name, (part, whole) in _SHARES.items()}
        entropy = np.log(known["words"]) - known["count_log_count"] / known["words"]
    columns |= {"word_count": known["words"], "num_sentences": known["sentences"], "num_lines": known["lines"]}
    # Words that are all the same leave a rounding error about 0.
    columns["unigram_entropy"] = np.maximum(entropy, 0.0)
    return pa.table({name: pa.array(columns[name].astype(np.float32), from_pandas=True) for name in SIGNALS})


def _measured(texts: Texts) -> tuple[I64, F64]:
    """The figures of documents, (n, len(COUNTS)) and (n, len(SUMS)): those of pure ASCII first, then all others."""
    n = len(texts.sizes)
    counts, sums = np.zeros((n, len(COUNTS)), np.int64), np.zeros((n, len(SUMS)))
    stop, named = stop_table(), hashes_of(("lorem", "ipsum", "javascript"))
    left = np.zeros(n, np.bool_)
    _run(texts.data, texts.begins, texts.sizes, np.empty(0, np.uint32), stop, named, np.arange(n), counts, sums, left)
    if left.any():
        which = np.flatnonzero(left)
        rest = texts.take(which)
        _run(rest.data, rest.begins, rest.sizes, flag_table(), stop, named, which, counts, sums, left)
    return counts, sums


@compiled
def _run(
    data: U8,
    text_begins: I64,
    sizes: I64,
    table: U32,
    stop: U64,
    named: U64,
    rows: I64,
    found: I64,
    sums: F64,
    left: Bools,
) -> None:
    """Write the figures of documents to `rows` of `found` and `sums`.

    Without a `table` those that are not ASCII are only marked in `left`.
    """
    capacity, word_capacity = 1 << 14, 1 << 12
    low, flags, edges = chars_room(capacity)
    keys, known, names, counts, firsts, places, begins, lines, slots = _words_room(word_capacity)
    for d in range(len(text_begins)):
        size = sizes[d]
        if size > capacity:
            capacity = size + size // 2
            low, flags, edges = chars_room(capacity)
        n_edges, n_chars = scan(data[text_begins[d] : text_begins[d] + size], table, low, flags, edges)
        if n_edges < 0:
            left[rows[d]] = True
            continue
        if n_edges // 2 + 1 > word_capacity:
            word_capacity = n_edges
            keys, known, names, counts, firsts, places, begins, lines, slots = _words_room(word_capacity)
        row = found[rows[d]]
        row[CHARS] = n_chars
        n_words = read_words(low, flags, edges, n_edges, places, names, begins, lines, row, sums[rows[d]])
        hash_words(low.view(np.uint64), places, names, n_words, keys)
        read_named(keys, n_words, lines, named, row)
        n_unique = name_each(keys, n_words, slots, names, known, counts, firsts)
        read_counts(known, counts, n_unique, stop, row, sums[rows[d]])
        n_grams = first_pairs(names, counts, n_words, places, keys)
        read_repeats(n_grams, begins, places, keys, slots, names, known, counts, firsts, row[TOP_2:])


@compiled
def _words_room(n_words: int) -> tuple[U64, U64, U32, U32, U32, U32, U32, U32, U32]:
    """Working space for documents of up to so many words: (keys, known, names, counts, firsts, places, begins, lines, slots)."""
    n = n_words + 2
    return (
        np.empty(n, np.uint64),
        np.empty(n, np.uint64),
        np.empty(n, np.uint32),
        np.empty(n, np.uint32),
        np.empty(n, np.uint32),
        np.empty(n, np.uint32),
        np.empty(n, np.uint32),
        np.empty(n, np.uint32),
        np.empty(table_size(n_words), np.uint32),
    )
