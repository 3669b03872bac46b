"""The n-gram kernel against `re`, `str.lower` and the hash written out in Python integers."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.kernels.ngrams import count_ngrams, count_tokens, score_ngrams, token_buckets
from tasks.kernels.tokens import unicode_table

MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15


def mix(x: int) -> int:
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def fold(state: int, word: int) -> int:
    x = ((state ^ word) * GOLDEN) & MASK
    return x ^ (x >> 32)


def tokens_of(text: str) -> list[str]:
    return re.findall(r"\w+|[^\w\s]+", text.lower())


def hash_of(token: str, seed: int) -> int:
    raw = token.encode()
    state = mix((seed + GOLDEN) & MASK)
    for i in range(0, len(raw), 8):
        state = fold(state, int.from_bytes(raw[i : i + 8], "little"))
    return fold(state, len(raw))


def buckets_of(text: str, n_buckets: int, seed: int, max_tokens: int | None = None) -> list[int]:
    hashes = [hash_of(token, seed) for token in tokens_of(text)[:max_tokens]]
    grams = []
    for i, hashed in enumerate(hashes):
        grams += [hashed] if i == 0 else [fold((hashes[i - 1] * GOLDEN) & MASK, hashed), hashed]
    return [((g >> 32) * n_buckets) >> 32 for g in grams]


hostile = st.text(
    st.one_of(
        st.characters(exclude_categories=["Cs"]),
        st.sampled_from("aZ09_ .,\t\n\x00\x0b\x0c\x1c\x1d\x1e\x1f\x7f\x85\xa0ßẞΣσςİıIiÅK̇éʼnǅǰﬁ٣२𝐀𐐀中\u200b\u2028\u3000\ufeff😀Ⱥ"),
    ),
    max_size=40,
)
ascii_text = st.text(st.characters(max_codepoint=127), max_size=60)
columns = st.lists(st.none() | hostile | ascii_text | st.text("ab ", max_size=50), max_size=8)


def oracle(texts: list[str | None], n_buckets: int, seed: int, max_tokens: int | None = None) -> list[list[int]]:
    return [buckets_of(text or "", n_buckets, seed, max_tokens) for text in texts]


@settings(max_examples=150, deadline=None)
@given(
    columns,
    st.sampled_from([1, 64, 10_000]),
    st.integers(-(2**63), 2**64 - 1),
    st.sampled_from(["string", "large_string"]),
)
def test_every_function_equals_the_slow_road(texts: list[str | None], n_buckets: int, seed: int, kind: str) -> None:
    array = pa.array(texts, kind)
    expected = oracle(texts, n_buckets, seed)
    offsets, buckets = token_buckets(array, n_buckets=n_buckets, seed=seed)
    assert [buckets[a:b].tolist() for a, b in pairwise(offsets)] == expected
    every = [b for doc in expected for b in doc]
    assert np.array_equal(
        count_ngrams(array, n_buckets=n_buckets, seed=seed), np.bincount(every or [0], minlength=n_buckets) * bool(every)
    )
    ratios = np.random.default_rng(0).integers(-(2**40), 2**40, n_buckets)
    sums, n_tokens = score_ngrams(array, ratios, seed=seed)
    assert sums.tolist() == [sum(int(ratios[b]) for b in doc) for doc in expected]
    assert n_tokens.tolist() == [len(tokens_of(text or "")) for text in texts] == count_tokens(array).tolist()
    several = np.stack([ratios, ratios[::-1], -ratios])
    each = [score_ngrams(array, one, seed=seed)[0] for one in several]
    for n_targets in (1, 3):
        found, again = score_ngrams(array, several[:n_targets], seed=seed)
        assert np.array_equal(found, np.stack(each[:n_targets], axis=1))
        assert np.array_equal(again, n_tokens)


@settings(max_examples=50, deadline=None)
@given(columns, st.integers(0, 8))
def test_max_tokens_keeps_the_first_tokens(texts: list[str | None], max_tokens: int) -> None:
    offsets, buckets = token_buckets(pa.array(texts, pa.string()), n_buckets=1000, seed=3, max_tokens=max_tokens)
    assert [buckets[a:b].tolist() for a, b in pairwise(offsets)] == oracle(texts, 1000, 3, max_tokens)


@settings(max_examples=100, deadline=None)
@given(ascii_text)
def test_a_foreign_word_behind_changes_no_hash_before_it(text: str) -> None:
    """The same ASCII tokens by each of the three roads: plain, by table (é), by Python (İ)."""
    ours = token_buckets(pa.array([text + " ."]), n_buckets=1 << 24, seed=5)[1]
    for behind in (" é", " İ"):
        theirs = token_buckets(pa.array([text + " ." + behind]), n_buckets=1 << 24, seed=5)[1]
        assert np.array_equal(theirs[: len(ours)], ours)


@given(columns, st.integers(0, 8), st.integers(0, 8))
@settings(max_examples=60, deadline=None)
def test_slices_chunks_and_nulls_with_bytes_beneath(texts: list[str | None], start: int, length: int) -> None:
    array = pa.array(texts, pa.string())
    part = array.slice(min(start, len(texts)), length)
    assert np.array_equal(
        count_ngrams(pa.chunked_array([part, array]), n_buckets=500, seed=1),
        count_ngrams(part, n_buckets=500, seed=1) + count_ngrams(array, n_buckets=500, seed=1),
    )
    offsets, buckets = token_buckets(pa.chunked_array([part, array]), n_buckets=500, seed=1)
    assert buckets.tolist() == [b for doc in oracle([*part.to_pylist(), *texts], 500, 1) for b in doc]
    assert len(offsets) == len(part) + len(array) + 1


def test_a_null_hides_the_bytes_it_stands_on() -> None:
    whole = pa.array(["one", "secret words", "two"])
    hidden = pa.Array.from_buffers(pa.string(), 3, [pa.py_buffer(bytes([0b101])), *whole.buffers()[1:]])
    assert hidden.to_pylist() == ["one", None, "two"]
    assert count_tokens(hidden).tolist() == [1, 0, 1]


def test_every_character_has_the_class_and_the_case_that_python_gives_it() -> None:
    points = [i for i in range(0x110000) if not 0xD800 <= i < 0xE000]
    texts = [f"a{chr(i)}b" for i in points]
    assert count_tokens(pa.array(texts)).tolist() == [len(tokens_of(text)) for text in texts]
    table = unicode_table()
    by_python = {i for i in points if table[i] & 7 == 4}
    assert by_python == {i for i in points if len(chr(i).lower()) != 1} | {0x3A3}
    assert all(int(table[i]) >> 3 == ord(chr(i).lower()) for i in points if i not in by_python)


@pytest.mark.parametrize(
    "raw",
    [
        b"\xff",
        b"a\xc3",
        b"\xe2\x82",
        b"\xf0\x9f\x98",
        b"\xed\xa0\x80",
        b"\xc0\x80",
        b"\xe0\x80\x80",
        b"\xf4\x90\x80\x80",
        b"\xf8a",
    ],
)
def test_bytes_that_are_not_utf8_count_as_the_replacement_character(raw: bytes) -> None:
    broken = b"x " + raw + b" y"
    column = pa.array([broken, b"next"], pa.binary()).view(pa.string())
    mended = pa.array([broken.decode("utf-8", "replace"), "next"])
    assert np.array_equal(count_ngrams(column, n_buckets=4096, seed=0), count_ngrams(mended, n_buckets=4096, seed=0))


def test_long_tokens_and_long_documents_grow_the_buffers() -> None:
    texts = ["short", "x" * 70_000, "Ⱥ" * 30_000, "w " * 40_000, "!" * 9 + "Σ" * 5_000]
    offsets, buckets = token_buckets(pa.array(texts), n_buckets=9973, seed=2)
    assert [buckets[a:b].tolist() for a, b in pairwise(offsets)] == oracle(texts, 9973, 2)


def test_nothing_is_a_column_too() -> None:
    for nothing in (pa.array([], pa.string()), pa.chunked_array([], pa.string()), pa.nulls(0)):
        assert count_ngrams(nothing, n_buckets=7, seed=0).sum() == 0
        assert token_buckets(nothing, n_buckets=7, seed=0)[0].tolist() == [0]
        assert [len(part) for part in score_ngrams(nothing, np.ones(7, np.int64), seed=0)] == [0, 0]
    assert count_tokens(pa.nulls(3)).tolist() == [0, 0, 0]
    assert count_tokens(pa.array(["a b", None, "c"]).dictionary_encode()).tolist() == [2, 0, 1]
    with pytest.raises(TypeError, match="not of int64"):
        count_tokens(pa.array([1]))


def test_an_example() -> None:
    """Two documents, one word in common whatever its case; three tokens are five n-grams."""
    offsets, buckets = token_buckets(pa.array(["The cat sat", "CAT!"]), n_buckets=1 << 24, seed=0)
    assert offsets.tolist() == [0, 5, 8]
    the, the_cat, cat, cat_sat, sat, cat_again, cat_mark, mark = buckets.tolist()
    assert cat == cat_again
    assert len({the, the_cat, cat, cat_sat, sat, cat_mark, mark}) == 7


def test_buckets_are_even_and_seeds_independent() -> None:
    words = pa.array([f"{i:x}" for i in range(200_000)])
    counts = count_ngrams(words, n_buckets=1000, seed=0)
    chi2 = float(((counts - 200) ** 2 / 200).sum())
    assert 800 < chi2 < 1200
    other = token_buckets(words, n_buckets=1000, seed=1)[1]
    same = int((token_buckets(words, n_buckets=1000, seed=0)[1] == other).sum())
    assert 100 < same < 320


def test_another_process_finds_the_machine_code() -> None:
    """A second process compiles nothing: every kernel it calls comes from the cache on disk."""
    count_ngrams(pa.array(["warm"]), n_buckets=64, seed=0)
    code = (
        "import pyarrow as pa; from tasks.kernels import ngrams as g; g.count_ngrams(pa.array(['a b é']), n_buckets=64, seed=0);"
        "print(len(g._run.stats.cache_hits), len(g._run.stats.cache_misses))"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "0"]
