"""Identity and chance: the algebra of digests, the written form of subjects, and draws that depend on nothing but their id."""

from __future__ import annotations

import hashlib
import itertools
import math
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra import ids
from infra.ids import (
    Digest,
    derive_keys,
    in_sample,
    key_of,
    keyed_bits,
    keyed_gumbel,
    keyed_uniform,
    mix64,
    sample_level,
    seed_of,
    subject_place,
    subject_text,
    subject_token,
)

KEYS = derive_keys(b"a secret of this test, 32 bytes..")
TOP = (1 << 64) - 1
ROWS = st.lists(st.tuples(st.integers(0, TOP), st.integers(0, TOP)), max_size=12)


def hashes(rows: list[tuple[int, int]]) -> ids.U64:
    return np.array(rows, np.uint64).reshape(-1, 2)


# --- keys ----------------------------------------------------------------------------------------------------------------------


def test_keys_differ_by_purpose_and_secret_and_are_never_shown() -> None:
    parts = {KEYS.row, KEYS.subject, KEYS.place, KEYS.signing}
    assert len(parts) == 4 and all(len(part) == 32 for part in parts)
    assert derive_keys(b"a secret of this test, 32 bytes..") == KEYS
    assert derive_keys(b"x" * 32).row != KEYS.row
    assert repr(KEYS) == str(KEYS) == "Keys(<secret>)"


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes, not 31"):
        derive_keys(b"x" * 31)


# --- digests -------------------------------------------------------------------------------------------------------------------


@given(ROWS, st.randoms(), st.integers(0, 12))
def test_a_digest_is_free_of_order_and_partition(rows: list[tuple[int, int]], random: Any, cut: int) -> None:
    whole = Digest.of(hashes(rows))
    shuffled = random.sample(rows, len(rows))
    assert Digest.of(hashes(shuffled)) == whole
    assert Digest.of(hashes(rows[:cut])) + Digest.of(hashes(rows[cut:])) == whole
    assert whole == Digest(len(rows), sum(low + (high << 64) for low, high in rows) % (1 << 128))


@given(ROWS, ROWS)
def test_removing_rows_is_a_subtraction(kept: list[tuple[int, int]], erased: list[tuple[int, int]]) -> None:
    assert Digest.of(hashes(kept + erased)) - Digest.of(hashes(erased)) == Digest.of(hashes(kept))
    assert Digest() + Digest.of(hashes(kept)) == Digest.of(hashes(kept))


@given(st.integers(0, 1 << 50), st.integers(0, (1 << 128) - 1))
def test_a_digest_survives_its_written_form(n_rows: int, total: int) -> None:
    digest = Digest(n_rows, total)
    assert Digest.parse(str(digest)) == digest
    assert len(str(digest)) == len(str(n_rows)) + 33


def test_sums_beyond_64_bits_carry_into_the_high_lane() -> None:
    assert Digest.of(hashes([(TOP, 0), (TOP, 0), (3, 0)])) == Digest(3, 2 * TOP + 3)
    assert Digest.of(hashes([(1, TOP), (TOP, 0), (5, 0)])) == Digest(3, 5)
    assert str(Digest.of(hashes([(255, 1)]))) == "1:000000000000000100000000000000ff"


def test_a_copy_counts() -> None:
    assert Digest.of(hashes([(7, 9)])) != Digest.of(hashes([(7, 9), (7, 9)]))
    assert Digest.of(hashes([(0, 0)])) != Digest()


def test_key_of_is_a_function_of_plain_values() -> None:
    assert key_of({"a": 1, "b": [2.5, None]}) == key_of({"b": [2.5, None], "a": 1})
    assert key_of("a", "b") != key_of("ab") != key_of(["a", "b"])
    assert key_of(1) == hashlib.sha256(b"[1]").hexdigest()
    with pytest.raises(ValueError, match="JSON"):
        key_of(math.nan)


# --- subjects ------------------------------------------------------------------------------------------------------------------

SEVEN = [7, 7.0, Decimal(7), Decimal("7.00"), "7", b"7", np.int64(7), np.float64(7.0)]


@pytest.mark.parametrize("value", SEVEN)
def test_one_subject_has_one_written_form(value: Any) -> None:
    assert subject_text(value) == "7"
    assert subject_token(KEYS, "user", value) == subject_token(KEYS, "user", 7)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (False, "false"),
        (-0.0, "0"),
        (0.5, "0.5"),
        (Decimal("1E+3"), "1000"),
        (1e22, "10000000000000000000000"),
        (2**70, str(2**70)),
        ("007", "007"),
        (" ada@example.org", "ada@example.org"),
        ("é".encode(), "é"),
        (math.nan, "nan"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
        (Decimal("Infinity"), "Infinity"),
        (Decimal("NaN"), "NaN"),
    ],
)
def test_written_forms(value: Any, text: str) -> None:
    assert subject_text(value) == text


def test_a_token_depends_on_kind_id_and_key_and_hides_them() -> None:
    token = subject_token(KEYS, "user", "ada")
    others = [
        subject_token(KEYS, "user", "Ada"),
        subject_token(KEYS, "use", "rada"),
        subject_token(KEYS, "device", "ada"),
        subject_token(derive_keys(b"y" * 32), "user", "ada"),
    ]
    assert len({token, *others}) == 5
    assert len(token) == 64 and int(token, 16) >= 0 and "ada" not in token
    assert subject_token(KEYS, "user", b"\xff\xfe") != subject_token(KEYS, "user", b"\xff")


def test_a_place_is_64_bits_of_the_token() -> None:
    places = [subject_place(KEYS, subject_token(KEYS, "user", i)) for i in range(200)]
    assert len(set(places)) == 200 and all(0 <= place <= TOP for place in places)
    assert places[0] == subject_place(KEYS, subject_token(KEYS, "user", 0))
    assert places[0] != subject_place(derive_keys(b"y" * 32), subject_token(KEYS, "user", 0))


# --- keyed draws ---------------------------------------------------------------------------------------------------------------

N = 20_000
ROW_IDS = np.random.default_rng(5).integers(0, 1 << 63, N)


@given(st.lists(st.integers(0, (1 << 63) - 1), max_size=20), st.randoms())
def test_a_draw_depends_on_its_own_id_alone(values: list[int], random: Any) -> None:
    drawn = dict(zip(values, keyed_uniform(np.array(values, np.int64), 1, "split"), strict=True))
    fewer = random.sample(values, len(values) // 2)
    assert keyed_uniform(np.array(fewer, np.int64), 1, "split").tolist() == [drawn[v] for v in fewer]
    assert keyed_uniform(np.array(fewer, np.uint64), 1, "split").tolist() == [drawn[v] for v in fewer]


def test_uniform_draws_are_uniform_and_purposes_independent() -> None:
    u, v = keyed_uniform(ROW_IDS, 1, "a"), keyed_uniform(np.arange(N), 2, "a")
    for draws in (u, v):
        assert abs(float(draws.mean()) - 0.5) < 5 / math.sqrt(12 * N)
        assert np.abs(np.histogram(draws, 10, (0, 1))[0] - N / 10).max() < 5 * math.sqrt(N * 0.09)
    other = keyed_uniform(ROW_IDS, 1, "b")
    assert abs(float(np.corrcoef(u, other)[0, 1])) < 5 / math.sqrt(N)
    assert (keyed_bits(ROW_IDS, 1, "a") == keyed_bits(ROW_IDS, 1, "a")).all()


@pytest.mark.parametrize("bits", [0, 1, TOP >> 1, TOP - 1, TOP])
def test_uniform_draws_stay_inside_the_open_interval(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their logarithms are taken: neither end may ever be drawn."""

    def fixed(values: ids.U64, *purpose: Any) -> ids.U64:
        return np.full(len(values), bits, np.uint64)

    monkeypatch.setattr(ids, "keyed_bits", fixed)
    draw = float(keyed_uniform(np.zeros(1, np.int64), "any")[0])
    assert 0.0 < draw < 1.0
    assert math.isfinite(float(keyed_gumbel(np.zeros(1, np.int64), "any")[0]))


def test_gumbel_draws_have_their_mean_and_variance() -> None:
    draws = keyed_gumbel(ROW_IDS, 3)
    deviation = math.pi / math.sqrt(6)
    assert abs(float(draws.mean()) - float(np.euler_gamma)) < 5 * deviation / math.sqrt(N)
    assert abs(float(draws.std()) / deviation - 1) < 0.05


def test_mix64_is_a_bijection_that_leaves_its_input_alone() -> None:
    values = np.arange(1 << 16, dtype=np.uint64)
    assert len(np.unique(mix64(values))) == 1 << 16
    assert values[5] == 5
    assert mix64(np.array([1], np.uint64)).tolist() == [0x5692161D100B05E5]


def test_seeds_tell_their_parts_apart() -> None:
    assert len({seed_of(1, "shard", 3), seed_of(1, "shard", 4), seed_of(2, "shard", 3), seed_of(1, "slice", 3)}) == 4
    assert 0 <= seed_of("x") <= TOP


# --- the keyed sample ----------------------------------------------------------------------------------------------------------


@given(st.integers(0, 1 << 40), st.integers(1, 1 << 40))
def test_the_level_is_the_first_that_fits(n_rows: int, sample_rows: int) -> None:
    level = sample_level(n_rows, sample_rows)
    assert n_rows >> level <= sample_rows
    assert level == 0 or n_rows >> (level - 1) > sample_rows


def test_levels_of_the_readme() -> None:
    assert [sample_level(n, 1000) for n in (0, 1000, 1001, 2001, 2002, 1_000_000)] == [0, 0, 1, 1, 2, 10]


def test_each_sample_holds_the_next_and_half_its_size() -> None:
    members = [in_sample(ROW_IDS, level) for level in range(8)]
    assert members[0].all()
    for level, (wide, narrow) in enumerate(itertools.pairwise(members), 1):
        assert not (narrow & ~wide).any()
        expected = N / 2**level
        assert abs(float(narrow.sum()) - expected) < 5 * math.sqrt(expected)
    assert not in_sample(ROW_IDS[:100], 64).any()
    assert (in_sample(ROW_IDS[::-1], 3) == members[3][::-1]).all()


def test_an_id_is_the_same_person_as_a_spreadsheet_writes_it() -> None:
    same = {subject_token(KEYS, "p", value) for value in (7, 7.0, "7", " 7", "7.0", "7.00\n", b"7.0")}
    assert len(same) == 1
    assert len({subject_token(KEYS, "p", value) for value in ("007", "7", "7.10", "7.1", "v7.0", "7.0.0")}) == 6
