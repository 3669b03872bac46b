"""The signals against `str`, `re` and `Counter`, one definition after the other."""

from __future__ import annotations

import codecs
import math
import re
import string
import time
from collections import Counter
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.kernels.signals import DESCRIPTIONS, NEVER_NULL, SIGNALS, signals_of
from tasks.kernels.signals_chars import BLOCK
from tasks.kernels.signals_words import STOP_WORD_LIST

BULLETS = ("\u2022", "\u2023", "\u25b6", "\u25c0", "\u25e6", "\u25a0", "\u25a1", "\u25aa", "\u25ab", "\u2013")
codecs.register_error("one_each", lambda error: ("\ufffd" * (error.end - error.start), error.end))


def lowered(text: str) -> str:
    return "".join(char.lower()[0] for char in text)


def words_of(text: str) -> list[str]:
    bare = lowered(text.translate(str.maketrans("", "", string.punctuation)))
    return bare.split()


def share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def n_chars(words: list[str]) -> int:
    return sum(len(word) for word in words)


def top(words: list[str], n: int) -> int:
    counts = Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
    most = max(counts.values(), default=0)
    return most * max(n_chars(list(gram)) for gram in counts if counts[gram] == most) if most > 1 else 0


def dupe(words: list[str], n: int) -> int:
    seen, marked = set[tuple[str, ...]](), set[int]()
    for i in range(len(words) - n + 1):
        gram = tuple(words[i : i + n])
        if gram in seen:
            marked.update(range(i, i + n))
        seen.add(gram)
    return sum(len(words[i]) for i in marked)


def of_lines(text: str) -> dict[str, float | None]:
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    n = len(lines)
    contents = [" ".join(words_of(line)) for line in lines]
    numeric = [sum(map(str.isnumeric, content)) / max(len(content), 1) for content in contents]
    return {
        "num_lines": n,
        "frac_lines_end_with_ellipsis": share(sum(line.endswith(("...", "…")) for line in lines), n),
        "lines_ending_with_terminal_punctution_mark": share(sum(line.endswith((".", "!", "?", "”")) for line in lines), n),
        "lines_start_with_bulletpoint": share(sum(line.startswith(BULLETS) for line in lines), n),
        "lines_uppercase_letter_fraction": share(sum(sum(map(str.isupper, line)) / len(line) for line in lines), n),
        "lines_numerical_chars_fraction": share(sum(numeric), n),
        "lines_javascript_fraction": share(sum("javascript" in words_of(line) for line in lines), n),
    }


def oracle(text: str) -> dict[str, float | None]:
    raw, words = text.split(), words_of(text)
    n, total, counts = len(words), n_chars(words), Counter(words)
    found = of_lines(text) | {
        "word_count": n,
        "num_sentences": len(re.findall(r"\b[^.!?]+[.!?]*", text)),
        "mean_word_length": share(total, n),
        "symbol_to_word_ratio": share(text.count("#") + text.count("...") + text.count("…"), len(raw)),
        "frac_unique_words": share(len(counts), n),
        "unigram_entropy": -sum(c / n * math.log(c / n) for c in counts.values()) if n else None,
        "stop_word_fraction": share(sum(word in STOP_WORD_LIST for word in words), n),
        "frac_all_caps_words": share(sum(map(str.isupper, raw)), len(raw)),
        "frac_no_alph_words": share(sum(not any(map(str.isalpha, word)) for word in raw), len(raw)),
        "lorem_ipsum": share(sum(pair == ("lorem", "ipsum") for pair in pairwise(words)), len(" ".join(words))),
        "curly_bracket": share(text.count("{") + text.count("}"), len(text)),
    }
    found |= {f"frac_chars_top_{k}gram": share(top(words, k), total) for k in (2, 3, 4)}
    return found | {f"frac_chars_dupe_{k}grams": share(dupe(words, k), total) for k in range(5, 11)}


def check(array: pa.Array | pa.ChunkedArray, texts: list[str | None]) -> None:
    rows = signals_of(array).to_pylist()
    assert len(rows) == len(texts)
    for row, text in zip(rows, texts, strict=True):
        for name, expected in oracle(text or "").items():
            value = row[name]
            assert (value is None) == (expected is None), (name, text)
            assert expected is None or value == pytest.approx(expected, rel=1e-6, abs=1e-6), (name, text)


marks = "".join(BULLETS) + "…”“—.!?#{}_-'\"*…...:"
hostile = st.text(
    st.one_of(
        st.characters(exclude_categories=["Cs"]),
        st.sampled_from(
            "aZ09 \t\n\r\x00\x0b\x0c\x1c\x1d\x1e\x1f\x7f\x85\xa0ßẞΣσςİıIiÅK̇éʼnǅǰﬁ٣२½Ⅷⅷ一Ⓐ𝐀𐐀中\u2028\u3000\ufeff😀Ⱥª" + marks
        ),
    ),
    max_size=60,
)
ascii_text = st.text(st.sampled_from("abAB 019.!?#{}_-\n\r\t ..."), max_size=80)
parts = (
    "the",
    "a",
    "b",
    "c",
    "Lorem",
    "ipsum",
    "JavaScript",
    "É",
    "I",
    "x.",
    "Wait...",
    "- ",
    "•",
    "\n",
    "\r\n",
    "{",
    "#1",
    "“so”",
    "Σας",
)
prose = st.lists(st.sampled_from(parts), max_size=60).map(" ".join)
phrases = st.lists(st.sampled_from(("a", "bb", "ccc", "dddd")), min_size=1, max_size=8)
repeats = st.lists(st.tuples(phrases, st.integers(1, 6)), max_size=5).map(
    lambda parts: " ".join(" ".join(phrase * n) for phrase, n in parts)
)
columns = st.lists(st.none() | hostile | ascii_text | prose | repeats, max_size=5)


@settings(max_examples=250)
@given(columns, st.sampled_from(["string", "large_string"]))
def test_every_signal_equals_the_slow_road(texts: list[str | None], kind: str) -> None:
    check(pa.array(texts, kind), texts)


@settings(max_examples=100)
@given(st.lists(st.binary(max_size=20) | hostile.map(str.encode), min_size=1, max_size=3))
def test_each_byte_that_is_not_utf8_is_a_replacement_character(raw: list[bytes]) -> None:
    check(pa.array(raw, pa.binary()).view(pa.string()), [one.decode("utf-8", "one_each") for one in raw])


@settings(max_examples=50)
@given(columns, st.integers(0, 5), st.integers(0, 5))
def test_a_document_owes_nothing_to_its_neighbours(texts: list[str | None], start: int, length: int) -> None:
    array = pa.array(texts, pa.string())
    part = array.slice(min(start, len(texts)), length)
    whole = signals_of(array)
    both = signals_of(pa.chunked_array([part, array, array.dictionary_encode().cast(pa.string())]))
    assert both.equals(pa.concat_tables([whole.slice(min(start, len(texts)), length), whole, whole]).combine_chunks())


def test_every_character_is_of_the_class_that_python_gives_it() -> None:
    points = [i for i in [*range(0x3000), *range(0x3000, 0x110000, 29)] if not 0xD800 <= i < 0xE000]
    texts = [f"{chr(i)} a{chr(i)}B{chr(i)}" for i in points]
    names = [
        "word_count",
        "mean_word_length",
        "num_lines",
        "num_sentences",
        "frac_all_caps_words",
        "lines_numerical_chars_fraction",
    ]
    rows = signals_of(pa.array(texts)).select(names).to_pylist()
    for text, row in zip(texts, rows, strict=True):
        words, lines = words_of(text), of_lines(text)
        assert row["word_count"] == len(words) and row["num_lines"] == lines["num_lines"]
        assert row["mean_word_length"] == pytest.approx(n_chars(words) / len(words))
        assert row["num_sentences"] == len(re.findall(r"\b[^.!?]+[.!?]*", text))
        assert row["frac_all_caps_words"] == pytest.approx(sum(map(str.isupper, text.split())) / len(text.split()))
        assert row["lines_numerical_chars_fraction"] == pytest.approx(lines["lines_numerical_chars_fraction"])


def test_ascii_by_arithmetic_is_ascii_by_table() -> None:
    """A foreign letter in front leads a document past the loop for ASCII; nothing else may change."""
    names = ["word_count", "num_lines", "num_sentences", "frac_unique_words", "frac_no_alph_words", "frac_all_caps_words"]
    texts = [f"{chr(i)}A{chr(i)} {chr(i)} {chr(j)}" for i in range(128) for j in range(128)]
    assert all(text.isascii() for text in texts)
    plain, foreign = (signals_of(pa.array([front + text for text in texts])).select(names) for front in ("qqq ", "qqé "))
    assert plain.equals(foreign)


def test_an_example() -> None:
    text = "THE cat sat... Did it?\r\n\r\n\u2022 The cat sat; 10 {mice} ran.\n"
    row = signals_of(pa.array([text])).to_pylist()[0]
    assert row["word_count"] == 12  # the bullet is one: it is no ASCII punctuation
    assert row["num_sentences"] == 3
    assert row["num_lines"] == 2
    assert row["frac_unique_words"] == pytest.approx(9 / 12)
    assert row["symbol_to_word_ratio"] == pytest.approx(1 / 12)
    assert row["frac_all_caps_words"] == pytest.approx(1 / 12)
    assert row["frac_no_alph_words"] == pytest.approx(2 / 12)
    assert row["lines_ending_with_terminal_punctution_mark"] == 1.0
    assert row["lines_start_with_bulletpoint"] == 0.5
    assert row["curly_bracket"] == pytest.approx(2 / len(text))


def test_an_example_of_repeats() -> None:
    """Three times the same six words: all but the first six lie in n-grams that were there before."""
    row = signals_of(pa.array(["one two three four five six\n" * 3])).to_pylist()[0]
    for n in range(5, 11):
        assert row[f"frac_chars_dupe_{n}grams"] == pytest.approx(2 / 3)
    assert row["frac_chars_top_2gram"] == pytest.approx(3 * len("threefour") / (3 * 22))
    assert row["frac_chars_top_4gram"] == pytest.approx(3 * len("twothreefourfive") / (3 * 22))


def test_nothing_has_counts_of_zero_and_no_shares() -> None:
    for rows in (signals_of(pa.array([None, ""], pa.string())), signals_of(pa.nulls(2))):
        assert [name for name in SIGNALS if rows.column(name).null_count == 0] == list(NEVER_NULL)
        assert rows.column("word_count").to_pylist() == [0.0, 0.0]
    for nothing in (pa.array([], pa.string()), pa.chunked_array([], pa.string())):
        assert signals_of(nothing).num_rows == 0
    assert signals_of(pa.array(["a"])).schema == pa.schema([(name, pa.float32()) for name in DESCRIPTIONS])
    with pytest.raises(TypeError, match="not of int64"):
        signals_of(pa.array([1]))


@settings(max_examples=8)
@given(
    st.lists(st.sampled_from((1, 7, 900, 17_000)), min_size=1, max_size=6), st.sampled_from(("a B", "\u3000é ", "1.\n\t", "#"))
)
def test_a_document_read_in_blocks_is_read_as_a_whole(lengths: list[int], piece: str) -> None:
    """Words, lines and white space that are longer than a block, wherever a block may end."""
    units = ("x", " ", piece, "Javascript ", "lorem ", "ipsum\n")
    text = "".join(unit * n for n, unit in zip(lengths, units, strict=False)) + "A. lorem ipsum"
    text += text[:BLOCK]
    check(pa.array([text, text[1:]]), [text, text[1:]])


def test_every_stop_word_has_a_slot_of_its_own() -> None:
    row = signals_of(pa.array([" ".join(STOP_WORD_LIST) + " zebra"])).to_pylist()[0]
    assert row["stop_word_fraction"] == pytest.approx(len(STOP_WORD_LIST) / (len(STOP_WORD_LIST) + 1))


def test_a_long_document_takes_as_long_as_its_parts() -> None:
    rng = np.random.default_rng(0)
    vocabulary = [f"w{i:x}" for i in range(60_000)]
    drawn = [vocabulary[i] for i in (60_000 * rng.random(4_000_000) ** 4).astype(int).tolist()]
    text = " ".join(drawn)
    assert len(text) > 18_000_000
    signals_of(pa.array(["warm é"]))
    start = time.process_time()
    row = signals_of(pa.array([text])).to_pylist()[0]
    assert time.process_time() - start < 5.0
    assert row["word_count"] == len(drawn)
    assert row["frac_unique_words"] == pytest.approx(len(set(drawn)) / len(drawn))
    repeated = signals_of(pa.array(["ab " * 1_000_000])).to_pylist()[0]
    assert repeated["frac_chars_dupe_10grams"] == pytest.approx(1 - 1 / 1_000_000)
    assert repeated["unigram_entropy"] == 0.0
