"""Shared windows of words against `re`, tuples of words and a plain set."""

from __future__ import annotations

import pickle
import re

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.kernels.spans import FEWEST_WORDS, Grams, Hits, find_grams, gram_set, joined_grams

WORDS = ["the", "The", "a", "bank", "ΣΟΦΟΣ", "İstanbul", "Straße", "Ⱥx", "K", "中文", "naïve", "x_1", "٣", "😀", "\udc80"]
documents = st.lists(
    st.lists(st.sampled_from([*WORDS, "", ",", "--", "\x85", "\u0307"]), max_size=14).map(
        lambda words: " ".join(words).encode(errors="surrogateescape")
    ),
    max_size=6,
)


def spelled(text: bytes) -> list[tuple[str, int, int]]:
    """(word, begin byte, end byte) of every word, one character of the text at a time."""
    lower, places, at = "", list[tuple[int, int]](), 0
    for char in re.findall(r"(?s).", text.decode(errors="surrogateescape")):
        n_bytes = len(char.encode(errors="surrogateescape"))
        plain = "\ufffd" if 0xDC80 <= ord(char) < 0xDD00 else char
        low = {"Σ": "σ", "ς": "σ"}.get(plain, plain.lower())
        lower, places = lower + low, places + [(at, at + n_bytes)] * len(low)
        at += n_bytes
    return [(m.group(), places[m.start()][0], places[m.end() - 1][1]) for m in re.finditer(r"\w+", lower)]


def windows(texts: list[bytes], n: int) -> set[tuple[str, ...]]:
    """The n-grams of evaluation texts."""
    found = set[tuple[str, ...]]()
    for text in texts:
        words = [word for word, _, _ in spelled(text)]
        found |= {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}
        found |= {tuple(words)} if FEWEST_WORDS <= len(words) < n else set()
    return found


def column(texts: list[bytes], kind: pa.DataType | None = None) -> pa.Array:
    """Bytes as a column of text, valid UTF-8 or not."""
    return pa.array(texts, pa.large_binary()).view(pa.large_string()) if kind is None else pa.array(texts, pa.binary())


def as_rows(hits: Hits, grams: Grams) -> list[list[tuple[int, int, int, int]]]:
    """(words before, words, begin, end) of the hits of each document."""
    lengths = grams.n_words[hits.grams].astype(np.int64)
    rows = list(zip(hits.words.tolist(), lengths.tolist(), hits.begins.tolist(), hits.ends.tolist(), strict=True))
    return [sorted(rows[lo:hi]) for lo, hi in zip(hits.offsets[:-1], hits.offsets[1:], strict=True)]


def expected(texts: list[bytes], wanted: set[tuple[str, ...]]) -> list[list[tuple[int, int, int, int]]]:
    rows = []
    for text in texts:
        words = spelled(text)
        plain = [word for word, _, _ in words]
        found = [
            (i, n, words[i][1], words[i + n - 1][2])
            for n in {len(gram) for gram in wanted}
            for i in range(len(plain) - n + 1)
            if tuple(plain[i : i + n]) in wanted
        ]
        rows.append(sorted(found))
    return rows


@settings(deadline=None, max_examples=150)
@given(documents, documents, st.integers(3, 8))
def test_every_shared_window_is_found_and_no_other(pool: list[bytes], evaluation: list[bytes], n: int) -> None:
    grams = gram_set(column(evaluation), n=n)
    wanted = windows(evaluation, n)
    assert sorted(grams.n_words.tolist()) == sorted(map(len, wanted))
    assert as_rows(find_grams(column(pool), grams), grams) == expected(pool, wanted)


@settings(deadline=None, max_examples=150)
@given(st.text(max_size=60), st.text(max_size=40))
def test_hostile_characters_keep_their_bytes(text: str, other: str) -> None:
    pool = [f"{other} one two three {text} four five six {other}".encode(errors="replace")]
    evaluation = [f"three {text} four five".encode(errors="replace")]
    grams = gram_set(column(evaluation), n=3)
    found = as_rows(find_grams(column(pool), grams), grams)
    assert found == expected(pool, windows(evaluation, 3))
    for _, _, begin, end in found[0]:
        assert len(re.findall(r"\w+", pool[0][begin:end].decode().lower())) >= 3  # whole characters


def test_every_planted_window_is_found_and_no_other() -> None:
    rng = np.random.default_rng(0)
    vocabulary = np.array([f"w{i}" for i in range(3000)])
    evaluation = [" ".join(rng.choice(vocabulary, 40)) for _ in range(50)]
    pool = [" ".join(rng.choice(vocabulary, 300)) for _ in range(400)]
    planted = dict[int, list[str]]()
    for d in range(0, 399, 7):
        words = evaluation[d % 50].split()[d % 20 : d % 20 + 13]
        planted[d] = words
        pool[d] += " ... " + ", ".join(words).upper() + "! " + pool[d + 1]
    hits = find_grams(pa.array(pool), gram_set(pa.array(evaluation), n=13))
    assert np.flatnonzero(np.diff(hits.offsets)).tolist() == sorted(planted)
    for d, begin, end in zip(sorted(planted), hits.begins, hits.ends, strict=True):
        assert pool[d][begin:end].lower().split(", ") == planted[d]


def test_short_texts_count_whole_and_shorter_ones_are_counted() -> None:
    grams = gram_set(pa.array(["Who wrote the Iliad then?", "yes it is", "", None, "..."]), n=13)
    assert grams.n_words.tolist() == [5] and grams.n_skipped == 2  # "yes it is" and "..."
    hits = find_grams(pa.array(["so: who wrote THE iliad, then", "who wrote the iliad"]), grams)
    assert hits.offsets.tolist() == [0, 1, 1] and (hits.begins[0], hits.ends[0]) == (4, 29)


def test_parts_and_order_do_not_matter() -> None:
    texts = [f"item {i % 7} asks what {i} and {i + 1} make when added up" for i in range(50)]
    whole = gram_set(pa.array(texts), n=6)
    parts = joined_grams([gram_set(pa.array(texts[30:]), n=6), gram_set(pa.array(texts[:30][::-1]), n=6)], n=6)
    assert np.array_equal(whole.hashes, parts.hashes) and np.array_equal(whole.n_words, parts.n_words)
    assert np.all(whole.hashes[1:] > whole.hashes[:-1])
    thawed = pickle.loads(pickle.dumps(whole))
    whole_hits, thawed_hits = find_grams(pa.array(texts), whole), find_grams(pa.array(texts), thawed)
    assert np.array_equal(whole_hits.grams, thawed_hits.grams)


@pytest.mark.parametrize("kind", [pa.string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())])
def test_every_kind_of_text_column(kind: pa.DataType) -> None:
    texts = ["one two three four", None, "", "zero one two three four five"]
    grams = gram_set(pa.array(["one two three"]), n=3)
    plain = find_grams(pa.array(texts), grams)
    chunked = pa.chunked_array([pa.array(texts[:1]).cast(kind), pa.array(texts[1:]).cast(kind)])
    for hits in (find_grams(pa.array(texts).cast(kind), grams), find_grams(chunked, grams)):
        assert hits.offsets.tolist() == [0, 1, 1, 1, 2] == plain.offsets.tolist()
        assert hits.begins.tolist() == [0, 5] and hits.n_words.tolist() == [4, 0, 0, 6]


def test_nothing_to_look_for_or_in() -> None:
    none = gram_set(pa.array([], pa.string()), n=13)
    assert find_grams(pa.array(["a b c"]), none).offsets.tolist() == [0, 0]
    assert find_grams(pa.chunked_array([], pa.string()), none).offsets.tolist() == [0]
    assert len(gram_set(pa.array([None], pa.string()), n=13).hashes) == 0
    with pytest.raises(ValueError, match="1 to 255"):
        gram_set(pa.array(["a"]), n=256)


def test_one_large_document() -> None:
    text = "filler words go on and on. " * 400_000
    middle = len(text) // 2
    text = text[:middle] + " the quick brown fox jumps over " + text[middle:] + "é"
    hits = find_grams(pa.array([text]), gram_set(pa.array(["quick brown fox jumps"]), n=4))
    assert len(hits.grams) == 1
    assert text[hits.begins[0] : hits.ends[0]] == "quick brown fox jumps"
