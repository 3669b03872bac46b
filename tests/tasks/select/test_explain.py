"""Why a record has its weight: n-grams recovered from its text, against a plain count of them; and decisions in words."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.contracts import CONTAMINATION
from tasks.kernels.ngrams import score_ngrams, token_buckets
from tasks.kernels.parity import score_parity
from tasks.select import explain
from tasks.select.explain import Decision, Gram, Ratios, ngrams, said, shared_spans, weighed
from tasks.select.weights import SCALE

HOSTILE = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("aB .,!Ää\u0130ΣσςfiẞǅÅ\u00a0\x1c_9٣"), max_size=60)
WORDS = st.lists(st.sampled_from(["the", "cat", "sat", "Mat", ",", "dog's"]), max_size=40).map(" ".join)
NUMBERS = np.random.default_rng(5).normal(size=97)
FAST = Ratios("gold", np.rint(NUMBERS * SCALE) / SCALE, 7, normalize=True)


def plain(text: str) -> Counter[str]:
    tokens = re.findall(r"\w+|[^\w\s]+", text.lower())
    return Counter(tokens) + Counter(f"{a} {b}" for a, b in pairwise(tokens))


@given(HOSTILE | WORDS)
def test_ngrams_are_those_of_the_kernel_one_bucket_each(text: str) -> None:
    _, buckets = token_buckets(pa.array([text]), n_buckets=97, seed=7)
    found = list(ngrams(text))
    assert len(found) == len(buckets)
    assert Counter(found) == plain(text)
    assert all(len({b for g, b in zip(found, buckets, strict=True) if g == gram}) == 1 for gram in set(found))


@given(HOSTILE | WORDS, st.booleans())
def test_contributions_are_of_the_counted_ngrams_and_add_up_to_the_weight(text: str, normalize: bool) -> None:
    made = weighed(text, replace(FAST, normalize=normalize), n_most=10_000)
    sums, n_tokens = score_ngrams(pa.array([text]), np.rint(NUMBERS * SCALE).astype(np.int64), seed=7)
    assert made.n_tokens == n_tokens[0]
    if not n_tokens[0]:
        assert (made.log_weight, made.up, made.down) == (None, (), ())
        return
    expected = sums[0] / SCALE / (n_tokens[0] if normalize else 1)
    assert made.log_weight == pytest.approx(expected, abs=1e-9)
    assert sum(gram.contribution for gram in (*made.up, *made.down)) == pytest.approx(expected, abs=1e-9)
    assert {gram.text: gram.n for gram in (*made.up, *made.down)} == plain(text)


@given(WORDS, st.integers(1, 4), st.integers(3, 97))
def test_counting_in_the_strongest_buckets_alone_changes_nothing(text: str, n_most: int, n_buckets: int) -> None:
    """Few buckets, so that n-grams share them."""
    ratios = replace(FAST, nats=FAST.nats[:n_buckets])
    everything = weighed(text, ratios, n_most=1000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(explain, "_WIDTH", 1)
        some = weighed(text, ratios, n_most=n_most)
    assert (some.up, some.down) == (everything.up[:n_most], everything.down[:n_most])


@given(WORDS, st.integers(1, 4))
def test_the_strongest_come_first_and_no_more_than_asked_for(text: str, n_most: int) -> None:
    everything, some = weighed(text, FAST, n_most=1000), weighed(text, FAST, n_most=n_most)
    assert (some.up, some.down) == (everything.up[:n_most], everything.down[:n_most])
    assert [g.contribution for g in everything.up] == sorted((g.contribution for g in everything.up), reverse=True)
    assert [g.contribution for g in everything.down] == sorted(g.contribution for g in everything.down)
    assert all(g.contribution > 0 for g in some.up)
    assert all(g.contribution < 0 for g in some.down)


def test_the_references_ngrams_are_weighed_by_its_own_hash() -> None:
    text = "Alice went to the sea, and Alice came home from the sea."
    made = weighed(text, Ratios("gold", NUMBERS, None, normalize=False), n_most=100)
    weights, _ = score_parity(pa.array([text]), NUMBERS)
    assert made.log_weight == pytest.approx(float(np.ravel(weights)[0]), abs=1e-9)
    assert {gram.text: gram.n for gram in (*made.up, *made.down)} == plain(text)


def test_an_example_for_the_eye() -> None:
    """Of four tokens, `cat` stands twice and is worth 1 nat each time; `the` takes 2."""
    gains = {"cat": 1.0, "the": -2.0, "the cat": 0.5}
    nats = np.zeros(1 << 16)
    for gram, gain in gains.items():
        nats[token_buckets(pa.array([gram]), n_buckets=1 << 16, seed=1)[1][1 if " " in gram else 0]] = gain
    made = weighed("The cat: cat", Ratios("gold", nats, 1, normalize=True))
    assert made.up == (Gram("cat", 2, 0.5), Gram("the cat", 1, 0.125))
    assert made.down == (Gram("the", 1, -0.5),)
    assert made.log_weight == 0.125


def test_nothing_of_the_text_is_in_a_repr() -> None:
    assert "secret" not in repr(weighed("the secret of Ada", FAST))


def hit(word: int, begin: int, end: int, *, table: str = "quiz", n_words: int = 3) -> dict[str, object]:
    return {
        "row_id": 1,
        "table": table,
        "gram": word,
        "word": word,
        "n_words": n_words,
        "begin": begin,
        "end": end,
        "of_words": 9,
    }


def test_hits_that_overlap_are_one_span_of_the_text() -> None:
    text = "où a bb ccc d eee f"
    rows = [hit(2, 6, 14), hit(1, 4, 12), hit(0, 0, 9, table="exam"), hit(5, 15, 21, n_words=2)]
    found = shared_spans(text, pa.Table.from_pylist(rows, CONTAMINATION))
    assert [(one.table, one.n_words, one.text) for one in found] == [
        ("quiz", 6, text.encode()[4:21].decode()),
        ("exam", 3, text.encode()[0:9].decode()),
    ]
    assert [one.table for one in shared_spans(text, pa.Table.from_pylist(rows, CONTAMINATION), n_words=4)] == ["quiz"]


DROPPED = Decision(1, False, "filtered", signal="word_count", value=3.0, bound=20.0)


@pytest.mark.parametrize(
    ("decision", "threshold", "words"),
    [
        (DROPPED, 1.0, "dropped, filtered: its word_count is 3, and the bound is 20"),
        (
            replace(DROPPED, reason="near_duplicate", signal=None, representative=9),
            None,
            "dropped, near_duplicate: its text is nearly that of record 9, which stands for both",
        ),
        (
            Decision(1, False, "below_threshold", 0.1, 0.5),
            1.25,
            "dropped, below_threshold: its key is 0.5, and the least kept is 1.25",
        ),
        (Decision(1, True, "kept", 0.1, 2.5, "gold"), 1.25, "kept for target gold: its key is 2.5, and the least kept is 1.25"),
        (
            Decision(1, True, "kept", 0.1, 0.5),
            1.25,
            "kept: a floor keeps it, though its key 0.5 is below the threshold 1.25",
        ),
        (
            Decision(1, True, "kept", cuts=[0, 4, 9, 12]),
            None,
            "kept, without 2 spans cut out: nothing speaks against it",
        ),
        (Decision(1, False, "unheard_of"), None, "dropped, unheard_of"),
    ],
)
def test_decisions_in_words(decision: Decision, threshold: float | None, words: str) -> None:
    assert said(decision, threshold) == words
