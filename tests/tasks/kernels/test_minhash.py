"""The signature kernel against `re`, `str.lower` and sets; pairs and clusters against all pairs."""

from __future__ import annotations

import re
from itertools import combinations, pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.kernels.minhash import signatures_of
from tasks.kernels.minhash_pairs import N_CENTRES, SMALL_BUCKET, band_keys, bucket_pairs, components, leaders, n_equal, sign_bits

HOSTILE = "aZ09_ .,\t\n\x00\x1f\x85\xa0ßẞΣσςİıK̇éǅﬁ٣中\u200b\u3000\ufeff😀Ⱥ"
texts = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from(HOSTILE), max_size=40) | st.text("ab ,.", max_size=60)
columns = st.lists(st.none() | texts, max_size=8)


def words_of(text: str | None) -> list[str]:
    return re.findall(r"\w+", (text or "").lower())


def shingles_of(text: str | None, size: int) -> set[tuple[str, ...]]:
    words = words_of(text)
    return {tuple(words[i : i + size]) for i in range(max(1, len(words) - size + 1))} if words else set()


def jaccard(a: set[tuple[str, ...]], b: set[tuple[str, ...]]) -> float:
    return len(a & b) / len(a | b)


def text_of(words: np.ndarray) -> str:
    return " ".join(f"w{word}" for word in words)


@settings(max_examples=150, deadline=None)
@given(columns, st.sampled_from([1, 2, 5]), st.integers(0, 2**40), st.sampled_from(["string", "large_string"]))
def test_equal_hashes_are_equal_words_and_equal_signatures_equal_shingles(
    column: list[str | None], shingle: int, seed: int, kind: str
) -> None:
    n_words, hashes, minhash = signatures_of(pa.array(column, kind), n_permutations=16, shingle=shingle, seed=seed)
    words = [words_of(text) for text in column]
    assert n_words.tolist() == [len(found) for found in words]
    for i, j in combinations(range(len(column)), 2):
        assert (hashes[i] == hashes[j]).all() == (words[i] == words[j])
        # Other values than those of a set's own shingles cannot be had: disjoint sets share no value.
        same, other = shingles_of(column[i], shingle), shingles_of(column[j], shingle)
        if same and other:
            share = (minhash[i] == minhash[j]).mean()
            assert (share == 1.0) if same == other else (share == 0.0) if not same & other else True


@settings(max_examples=40, deadline=None)
@given(columns, st.integers(0, 8))
def test_neither_order_nor_chunks_nor_neighbours_matter(column: list[str | None], cut: int) -> None:
    whole = signatures_of(pa.array(column, "string"), n_permutations=16, shingle=2, seed=1)
    chunked = pa.chunked_array([pa.array(column[:cut], "string"), pa.array(column[cut:], "string")])
    backwards = signatures_of(pa.array(column[::-1], "string"), n_permutations=16, shingle=2, seed=1)
    for a, b, c in zip(whole, signatures_of(chunked, n_permutations=16, shingle=2, seed=1), backwards, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c[::-1])


@pytest.mark.parametrize("n_words", [12, 60, 400, 2000])
def test_the_share_of_equal_values_estimates_jaccard(n_words: int) -> None:
    """Unbiased, with no more variance than the binomial's: 256 pairs of documents of which the second half differs."""
    rng = np.random.default_rng(n_words)
    n_pairs, k = 256, 128
    bases = [rng.integers(0, 1 << 30, n_words) for _ in range(n_pairs)]
    others = [np.concatenate([base[: n_words * 3 // 4], rng.integers(0, 1 << 30, n_words // 4)]) for base in bases]
    column = pa.array([text_of(words) for words in (*bases, *others)])
    _, _, minhash = signatures_of(column, n_permutations=k, shingle=3, seed=5)
    found = n_equal(minhash, minhash, np.arange(n_pairs), np.arange(n_pairs) + n_pairs) / k
    true = jaccard(shingles_of(text_of(bases[0]), 3), shingles_of(text_of(others[0]), 3))
    # Documents of few shingles share whole runs of values: their estimate spreads by the shingles, not by the values.
    deviation = np.sqrt(true * (1 - true) * (1 / k + 2 / n_words))
    assert abs(found.mean() - true) < 4 * deviation / np.sqrt(n_pairs)
    assert found.std() < 1.2 * deviation


def test_white_space_case_and_punctuation_are_ignored_and_the_order_of_words_is_not() -> None:
    _, hashes, _ = signatures_of(pa.array(["A b, c!", "a B C", "a c b", "a b"]), n_permutations=16, shingle=5, seed=0)
    assert (hashes[0] == hashes[1]).all()
    assert not (hashes[0] == hashes[2]).any() and not (hashes[0] == hashes[3]).any()


def test_the_seed_changes_everything() -> None:
    array = pa.array(["one two three four five six seven"])
    first, second = (signatures_of(array, n_permutations=64, shingle=5, seed=seed) for seed in (0, 1))
    assert not (first[1] == second[1]).any() and not (first[2] == second[2]).any()


def test_documents_without_words_have_no_signature() -> None:
    array = pa.array([None, "", " \t", "?!", "a"])
    n_words, hashes, minhash = signatures_of(array, n_permutations=16, shingle=5, seed=0)
    assert n_words.tolist() == [0, 0, 0, 0, 1]
    assert not hashes[:4].any() and not minhash[:4].any() and hashes[4].all() and minhash[4].any()


def test_invalid_utf8_is_read_as_replacement_characters() -> None:
    raw = pa.array([b"caf\xc3\xa9 \xff\xfe one", "café \ufffd\ufffd one".encode(), b"\xe9\xe9"], pa.binary())
    n_words, hashes, _ = signatures_of(raw, n_permutations=16, shingle=5, seed=0)
    assert n_words.tolist() == [2, 2, 0]
    assert (hashes[0] == hashes[1]).all()


def test_no_permutations_make_text_hashes_alone() -> None:
    array = pa.array(["one two", "three"])
    with_minhash = signatures_of(array, n_permutations=16, shingle=5, seed=0)
    n_words, hashes, minhash = signatures_of(array, n_permutations=0, shingle=5, seed=0)
    np.testing.assert_array_equal(hashes, with_minhash[1])
    assert minhash.shape == (2, 0) and n_words.tolist() == [2, 1]


@pytest.mark.slow
def test_a_document_of_100_mb() -> None:
    text = "the quick brown fox " * 5_000_000
    n_words, _, minhash = signatures_of(pa.array([text, text[:80]], pa.large_string()), n_permutations=64, shingle=5, seed=0)
    assert n_words.tolist() == [20_000_000, 16]
    np.testing.assert_array_equal(minhash[0], minhash[1])


# --- pairs ---------------------------------------------------------------------------------------------------------------------


def test_band_keys_are_equal_where_the_band_is() -> None:
    rng = np.random.default_rng(0)
    minhash = rng.integers(0, 3, (200, 12)).astype(np.uint32)
    keys = band_keys(minhash, 6, 2)
    bands = minhash.reshape(200, 6, 2)
    for band in range(6):
        same = (bands[:, None, band] == bands[None, :, band]).all(axis=2)
        np.testing.assert_array_equal(keys[:, None, band] == keys[None, :, band], same)
    assert len(np.intersect1d(keys[:, 0], keys[:, 1])) == 0


def differing(bits: np.ndarray, i: int, j: int) -> int:
    return sum(int(x).bit_count() for x in bits[i] ^ bits[j])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 12), max_size=6), st.integers(0, 96), st.integers(0, 2**30))
def test_small_buckets_give_all_their_pairs(sizes: list[int], most: int, seed: int) -> None:
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    minhash = np.random.default_rng(seed).integers(0, 2, (starts[-1], 96)).astype(np.uint32)
    bits = sign_bits(minhash)
    found = set(zip(*(side.tolist() for side in bucket_pairs(starts, bits, most)), strict=True))
    buckets = [range(a, b) for a, b in pairwise(starts)]
    assert found == {(i, j) for bucket in buckets for i, j in combinations(bucket, 2) if differing(bits, i, j) <= most}


def test_a_large_bucket_is_linear_and_loses_no_member_of_a_cluster() -> None:
    """Twenty clusters in one bucket: each member is paired with a member before it, and there are few pairs."""
    rng = np.random.default_rng(1)
    clusters = rng.integers(0, 1 << 32, (20, 128)).astype(np.uint32)
    which = rng.integers(0, 20, 5000)
    a, b = bucket_pairs(np.asarray([0, 5000]), sign_bits(clusters[which]), 30)
    assert SMALL_BUCKET < 5000 and len(a) <= 5000 * N_CENTRES
    assert (which[a] == which[b]).all() and (a < b).all()
    assert len(np.unique(b)) == 5000 - 20
    unlike = rng.integers(0, 1 << 32, (5000, 128)).astype(np.uint32)
    assert len(bucket_pairs(np.asarray([0, 5000]), sign_bits(unlike), 30)[0]) == 0


# --- clusters ------------------------------------------------------------------------------------------------------------------

graphs = st.integers(1, 9).flatmap(
    lambda n: st.tuples(st.just(n), st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=14))
)


def reachable(n: int, links: list[tuple[int, int]]) -> list[set[int]]:
    found = [{i} for i in range(n)]
    for _ in range(n):
        for a, b in links:
            found[a] = found[b] = found[a] | found[b]
            for i in found[a]:
                found[i] = found[a]
    return found


@settings(max_examples=150, deadline=None)
@given(graphs)
def test_components_are_what_can_be_reached(graph: tuple[int, list[tuple[int, int]]]) -> None:
    n, links = graph
    a, b = (np.asarray([link[side] for link in links], np.int64) for side in (0, 1))
    assert components(n, a, b).tolist() == [min(found) for found in reachable(n, links)]


@settings(max_examples=150, deadline=None)
@given(graphs, st.randoms(use_true_random=False))
def test_who_follows_is_linked_to_a_leader_and_leaders_are_linked_to_none(graph: tuple[int, list[tuple[int, int]]], rnd) -> None:
    n, links = graph
    value = {frozenset(link): rnd.randint(1, 3) for link in links if link[0] != link[1]}
    neighbours = [sorted(j for j in range(n) if frozenset((i, j)) in value and i != j) for i in range(n)]
    starts = np.concatenate([[0], np.cumsum([len(found) for found in neighbours])]).astype(np.int64)
    flat = [(j, value[frozenset((i, j))]) for i in range(n) for j in neighbours[i]]
    ends, similar = np.asarray([j for j, _ in flat], np.int64), np.asarray([v for _, v in flat], np.int32)
    leader, similarity = leaders(starts, ends, similar)
    led_by = list(range(n))
    for i in range(n):  # the slow road: the first record leads, everybody linked to a leader before it follows the most similar
        before = [j for j in neighbours[i] if j < i and led_by[j] == j]
        led_by[i] = min(before, key=lambda j: (-value[frozenset((i, j))], j)) if before else i
    assert leader.tolist() == led_by
    assert all(similarity[i] == value[frozenset((i, led_by[i]))] for i in range(n) if led_by[i] != i)
