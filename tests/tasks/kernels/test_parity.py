"""The parity kernel against the rule written with `re` and `hashlib`, and against numbers of the package itself."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.kernels import parity
from tasks.kernels.parity import MAX_BUCKETS, count_parity, score_parity


def grams_of(text: str | None) -> list[str]:
    tokens = re.findall(r"\w+|[^\w\s]+", (text or "").lower())
    return tokens + [f"{a} {b}" for a, b in pairwise(tokens)]


def bucket_of(gram: str, n_buckets: int) -> int:
    return int(hashlib.sha256(gram.encode("utf-8")).hexdigest(), 16) % n_buckets


def oracle(text: str | None, n_buckets: int) -> np.ndarray:
    """Counts of one document."""
    counts = np.zeros(n_buckets, np.int64)
    for gram in grams_of(text):
        counts[bucket_of(gram, n_buckets)] += 1
    return counts


def n_tokens_of(text: str | None) -> int:
    return len(re.findall(r"\w+|[^\w\s]+", (text or "").lower()))


hostile = st.text(
    st.one_of(
        st.characters(exclude_categories=["Cs"]),
        st.sampled_from("aZ09_ .,\t\n\x00\x0b\x0c\x1c\x1d\x1e\x1f\x7f\x85\xa0ßẞΣσςİıIiÅK̇éʼnǅǰﬁ٣२𝐀𐐀中\u200b\u2028\u3000\ufeff😀Ⱥ"),
    ),
    max_size=40,
)
# Lengths about those where a message of SHA-256 needs another block: 55, 119, 183 bytes.
edges = st.builds(lambda a, b, c: "x" * a + " " * c + "é" * b, st.integers(0, 130), st.integers(0, 60), st.integers(0, 2))
columns = st.lists(st.none() | hostile | edges | st.text("ab .", max_size=60), max_size=8)
bucket_numbers = st.sampled_from([1, 2, 7, 64, 9_973, 10_000, 65_536])


@settings(max_examples=80, deadline=None)
@given(columns, bucket_numbers, st.sampled_from(["string", "large_string"]))
def test_counts_and_log_weights_equal_the_slow_road(texts: list[str | None], n_buckets: int, kind: str) -> None:
    array = pa.array(texts, kind)
    expected = [oracle(text, n_buckets) for text in texts]
    assert np.array_equal(count_parity(array, n_buckets=n_buckets), sum(expected, np.zeros(n_buckets, np.int64)))
    ratios = np.random.default_rng(n_buckets).uniform(-18.4, 18.4, (2, n_buckets))
    weights, n_tokens = score_parity(array, ratios)
    assert weights.shape == (len(texts), 2)
    assert n_tokens.tolist() == [n_tokens_of(text) for text in texts]
    for row, counts in zip(weights, expected, strict=True):
        # The package's own rounding is relative to the sum of magnitudes, which bounds what can be asked of ours.
        assert np.all(np.abs(row - ratios @ counts) <= 1e-13 * (np.abs(ratios) @ counts))
    assert np.array_equal(score_parity(array, ratios[1])[0], weights[:, 1])


@settings(max_examples=60, deadline=None)
@given(columns, st.integers(0, 8), st.integers(0, 8), st.randoms(use_true_random=False))
def test_slices_chunks_and_order_change_nothing(texts: list[str | None], start: int, length: int, chance: object) -> None:
    array = pa.array(texts, pa.string())
    part = array.slice(min(start, len(texts)), length)
    ratios = np.linspace(-18, 18, 500)
    both = pa.chunked_array([part, array])
    assert np.array_equal(
        count_parity(both, n_buckets=500), count_parity(part, n_buckets=500) + count_parity(array, n_buckets=500)
    )
    alone = [score_parity(piece, ratios) for piece in (part, array)]
    for whole, *pieces in zip(score_parity(both, ratios), *alone, strict=True):
        assert np.array_equal(whole, np.concatenate(pieces))
    chance.shuffle(order := list(range(len(texts))))  # type: ignore[attr-defined]
    shuffled = pa.array([texts[i] for i in order], pa.string())
    assert np.array_equal(score_parity(shuffled, ratios)[0], alone[1][0][order])


def test_sums_owe_nothing_to_the_order_of_the_n_grams() -> None:
    """The same words, each apart from the next, in another order: equal unigrams, and bigrams of weight 0."""
    words = [f"w{i}" for i in range(300)]
    ratios = np.zeros(1 << 20)
    for i, word in enumerate(words):
        ratios[bucket_of(word, 1 << 20)] = 1 / (i + 1) - 0.02
    there, back = score_parity(pa.array([" ".join(words), " ".join(reversed(words))]), ratios)[0]
    assert there == back


# --- the package's numbers -----------------------------------------------------------------------------------------------------

RAW = [
    "The quick brown fox jumps over the lazy dog; the dog doesn't mind.",
    "Größe und Maß: ΟΔΟΣ, İstanbul — 漢字かな交じり文 ½ x² naïve 😀!!",
    "a b a b a b\n\tc.d--e_f 1,000.50",
    "",
    "ALICE went to the  market, and Alice\u00a0went home.",
]
TARGETS = ["Alice went to the market.", "A lazy dog minds the market: 1,000 foxes!"]
# Of data-selection 1.0.3 with nltk 3.9.1: the counts of RAW and of TARGETS in 64 buckets, a digit each, and the log weights of
# RAW towards TARGETS, both of them as one target, or each by itself, in 64 and in 10,000 buckets.
RAW_COUNTS = "3220301011120203810022024102232101324324611331141103021232151101"
TARGET_COUNTS = "0000100002010001311021011001002000211002100001012000000121010000"
JOINT = {
    64: [-148.00313568330955, -150.52860594264547, -261.42203538628905, 0.0, -63.85666812790441],
    10_000: [-337.28541511262205, -368.1599900411558, -290.4207764289612, 0.0, -84.8043014885879],
}
APART = {
    64: [
        [-350.7917391804775, -189.94176973838867],
        [-262.67518512483923, -238.78765289454088],
        [-424.388925516471, -286.9111482094039],
        [0.0, 0.0],
        [-83.22207581381147, -156.07550068085533],
    ],
    10_000: [
        [-394.4282782943753, -351.52311331282885],
        [-397.94863115982815, -367.37825764378175],
        [-407.31841086001464, -317.0824879581371],
        [0.0, 0.0],
        [-87.10801779597206, -234.26348331888116],
    ],
}


def digits(counts: str) -> list[int]:
    return [int(digit) for digit in counts]


def log_ratios(target: np.ndarray, raw: np.ndarray) -> np.ndarray:
    return np.log(target / target.sum() + 1e-8) - np.log(raw / raw.sum() + 1e-8)


def test_two_buckets_of_the_package() -> None:
    counts = count_parity(pa.array(["Alice went"]), n_buckets=10_000)
    assert counts[6720] == counts[114] == 1
    assert counts.sum() == 3


def test_counts_are_those_of_the_package() -> None:
    assert count_parity(pa.array(RAW), n_buckets=64).tolist() == digits(RAW_COUNTS)
    assert count_parity(pa.array(TARGETS), n_buckets=64).tolist() == digits(TARGET_COUNTS)


@pytest.mark.parametrize("n_buckets", JOINT)
def test_log_weights_are_those_of_the_package(n_buckets: int) -> None:
    raw = count_parity(pa.array(RAW), n_buckets=n_buckets)
    targets = [count_parity(pa.array([text]), n_buckets=n_buckets) for text in TARGETS]
    weights, n_tokens = score_parity(pa.array(RAW), log_ratios(targets[0] + targets[1], raw))
    assert weights.tolist() == pytest.approx(JOINT[n_buckets], rel=1e-12)
    assert n_tokens.tolist() == [17, 15, 16, 0, 11]
    apart, _ = score_parity(pa.array(RAW), np.array([log_ratios(target, raw) for target in targets]))
    assert np.allclose(apart, APART[n_buckets], rtol=1e-12, atol=0)


# --- the memo ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def tiny_memo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A memo of 64 slots, so that hardly anything is found in it again."""
    monkeypatch.setattr(parity, "_SLOTS", 64)
    parity.rule_of.cache_clear()
    yield
    parity.rule_of.cache_clear()


def many_words(n: int) -> list[str]:
    chance = np.random.default_rng(0)
    return [" ".join(f"w{i:x}" for i in chance.zipf(1.3, 200) % 5_000) for _ in range(n)]


@pytest.mark.usefixtures("tiny_memo")
def test_a_vocabulary_larger_than_the_memo() -> None:
    """N-grams wait over the ends of documents, and are added to those they come from."""
    texts = [*many_words(12), "a b", "", "é " + "z" * 20_000, "w1 w2", "y" * 60]
    expected = np.array([oracle(text, 10_000) for text in texts])
    ratios = np.random.default_rng(0).uniform(-18, 18, 10_000)
    for _ in range(2):
        assert np.array_equal(count_parity(pa.array(texts), n_buckets=10_000), expected.sum(axis=0))
        assert np.allclose(score_parity(pa.array(texts), ratios)[0], expected @ ratios, rtol=1e-11, atol=1e-9)


def test_what_is_remembered_changes_nothing_and_depends_on_the_number_of_buckets() -> None:
    texts = many_words(5)
    for n_buckets in (10_000, 97, 10_000):
        expected = sum(oracle(text, n_buckets) for text in texts)
        for _ in range(2):
            assert np.array_equal(count_parity(pa.array(texts), n_buckets=n_buckets), expected)


def test_threads_share_the_memo() -> None:
    parity.rule_of.cache_clear()
    texts = pa.array(many_words(200))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: count_parity(texts, n_buckets=1_000), range(8)))
    parity.rule_of.cache_clear()
    assert all(np.array_equal(one, count_parity(texts, n_buckets=1_000)) for one in found)


# --- awkward input -------------------------------------------------------------------------------------------------------------


def test_most_buckets_and_too_many_and_none() -> None:
    counts = count_parity(pa.array(RAW), n_buckets=MAX_BUCKETS)
    expected = sorted({bucket_of(gram, MAX_BUCKETS) for text in RAW for gram in grams_of(text)})
    assert np.flatnonzero(counts).tolist() == expected
    for n_buckets in (0, MAX_BUCKETS + 1):
        with pytest.raises(ValueError, match=f"not to be {n_buckets}"):
            count_parity(pa.array(RAW), n_buckets=n_buckets)


@pytest.mark.parametrize("odd", [np.nan, np.inf, -32.5])
def test_ratios_that_no_sum_can_hold(odd: float) -> None:
    with pytest.raises(ValueError, match="log ratio"):
        score_parity(pa.array(RAW), np.array([0.0, odd]))


def test_nothing_nulls_and_dictionaries() -> None:
    for nothing in (pa.array([], pa.string()), pa.chunked_array([], pa.string()), pa.nulls(0)):
        assert count_parity(nothing, n_buckets=7).tolist() == [0] * 7
        assert [part.shape for part in score_parity(nothing, np.ones((2, 7)))] == [(0, 2), (0,)]
        assert [part.shape for part in score_parity(nothing, np.ones(7))] == [(0,), (0,)]
    weights, n_tokens = score_parity(pa.array(["a b", None, " \n", "c"]).dictionary_encode(), np.ones(7))
    assert weights.tolist() == [3.0, 0.0, 0.0, 1.0]
    assert n_tokens.tolist() == [2, 0, 0, 1]


def test_a_null_hides_the_bytes_it_stands_on() -> None:
    whole = pa.array(["one", "secret words", "two"])
    hidden = pa.Array.from_buffers(pa.string(), 3, [pa.py_buffer(bytes([0b101])), *whole.buffers()[1:]])
    assert score_parity(hidden, np.ones(5))[0].tolist() == [1.0, 0.0, 1.0]


@pytest.mark.parametrize("raw", [b"\xff", b"a\xc3", b"\xf0\x9f\x98", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80"])
def test_bytes_that_are_not_utf8_count_as_the_replacement_character(raw: bytes) -> None:
    broken = b"x " + raw + b" y"
    column = pa.array([broken, b"next"], pa.binary()).view(pa.string())
    expected = oracle(broken.decode("utf-8", "replace"), 4_096) + oracle("next", 4_096)
    assert np.array_equal(count_parity(column, n_buckets=4_096), expected)


def test_a_document_of_20_mb() -> None:
    """A word of 5 MB, and ten million small ones."""
    long = "ab" * 2_500_000
    text = long + " x.y, é" * 2_000_000
    tokens = ["x", ".", "y", ",", "é"]
    grams = {f"{a} {b}": 2_000_000 for a, b in pairwise([*tokens, "x"])} | dict.fromkeys(tokens, 2_000_000)
    grams |= {long: 1, f"{long} x": 1, "é x": 1_999_999}
    expected = np.zeros(10_000, np.int64)
    for gram, n in grams.items():
        expected[bucket_of(gram, 10_000)] += n
    assert np.array_equal(count_parity(pa.array([text]), n_buckets=10_000), expected)
    ratios = np.linspace(-18.4, 18.4, 10_000)
    weights, n_tokens = score_parity(pa.array([text]), ratios)
    assert weights[0] == pytest.approx(float(ratios @ expected), rel=1e-12)
    assert n_tokens.tolist() == [10_000_001]


@pytest.mark.slow
def test_another_process_finds_the_machine_code() -> None:
    count_parity(pa.array(["warm"]), n_buckets=64)
    code = (
        "import pyarrow as pa; from tasks.kernels import parity as p; p.count_parity(pa.array(['a b é']), n_buckets=64);"
        "print(len(p._run.stats.cache_hits), len(p._run.stats.cache_misses))"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "0"]
