"""Embeddings are functions of their own row: of no neighbour, no cut, no physical form of the column."""

import datetime as dt

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from infra.columns import as_features, is_feature, is_pixels
from tasks.kernels.embed import (
    DIMS,
    Feature,
    embed_pixels,
    embed_table,
    embed_text,
    fit_features,
    fit_words,
)
from tasks.kernels.kmeans import UNIT, Points
from tasks.kernels.ngrams import token_buckets

numbers = st.none() | st.floats(-1e6, 1e6) | st.just(float("nan"))
rows = st.lists(st.tuples(numbers, st.none() | st.sampled_from("abc")), min_size=1, max_size=30)


def lengths(points: Points) -> np.ndarray:
    return np.sqrt((points.astype(np.float64) ** 2).sum(axis=1))


def table_of(values: list[tuple[float | None, str | None]]) -> pa.Table:
    return pa.table({"x": pa.array([v[0] for v in values], pa.float64()), "c": pa.array([v[1] for v in values], pa.string())})


@pytest.fixture(scope="module")
def words() -> np.ndarray:
    return fit_words(pa.array(notes(60)), seed=1)


def notes(n: int) -> list[str]:
    """Texts of two topics that share no word but "the"."""
    topics = (["ball", "goal", "match", "team", "score"], ["stock", "market", "bank", "price", "share"])
    rng = np.random.default_rng(0)
    return [" ".join(["the", *rng.choice(topics[i % 2], 5)]) for i in range(n)]


@given(st.lists(st.none() | st.sampled_from(notes(12)) | st.text(max_size=40), min_size=1, max_size=12))
@settings(max_examples=40)
def test_a_text_does_not_see_its_neighbours(words: np.ndarray, values: list[str | None]) -> None:
    whole = embed_text(pa.array(values, pa.string()), words, seed=1)
    alone = [embed_text(pa.array([value], pa.string()), words, seed=1)[0] for value in values]
    assert np.array_equal(whole, np.stack(alone))


@pytest.mark.parametrize("seed", range(3))
def test_words_are_those_of_any_order_and_thread_count(words: np.ndarray, seed: int) -> None:
    shuffled = np.random.default_rng(seed).permutation(notes(60)).tolist()
    with threadpool_limits(1 + seed % 2):
        assert np.array_equal(words, fit_words(pa.chunked_array([shuffled[:7], shuffled[7:]]), seed=1))


def test_a_topic_is_near_even_without_a_word_in_common() -> None:
    """Two topics of 150 words each; words meet only in texts of their topic."""
    rng = np.random.default_rng(0)
    texts = [" ".join(f"{'ab'[i % 2]}{j}" for j in rng.integers(0, 150, 12)) for i in range(800)]
    apart = [" ".join(f"{topic}{j}" for j in range(4 * i, 4 * i + 4)) for topic in "ab" for i in range(20)]
    points = embed_text(pa.array(apart), fit_words(pa.array(texts), seed=0), seed=0).astype(np.int64)
    cosines = points @ points.T / UNIT**2
    same, other = cosines[:20, :20][~np.eye(20, dtype=bool)].mean(), cosines[:20, 20:].mean()
    assert same > 0.05
    assert abs(other) < 0.02


def test_the_space_holds_every_text_of_a_small_sample() -> None:
    """With fewer texts than dimensions, cosines are those of the full tf-idf vectors."""
    texts = [text for text in notes(20) for _ in range(2)]
    points = embed_text(pa.array(texts), fit_words(pa.array(texts), seed=0), seed=0).astype(np.float64)
    offsets, buckets = token_buckets(pa.array(texts), n_buckets=1 << 16, seed=0)
    bags = np.zeros((len(texts), 1 << 16))
    np.add.at(bags, (np.repeat(np.arange(len(texts)), np.diff(offsets)), buckets), 1)
    rarity = np.log2((len(texts) + 1) / ((bags > 0).sum(axis=0) + 1))
    full = np.where(bags > 0, 1 + np.log2(np.maximum(bags, 1)), 0) * rarity
    full /= np.linalg.norm(full, axis=1, keepdims=True)
    assert np.abs(points @ points.T / UNIT**2 - full @ full.T).max() < 0.03


@given(rows)
@settings(max_examples=40)
def test_a_table_row_does_not_see_its_neighbours(values: list[tuple[float | None, str | None]]) -> None:
    features = (Feature("c"), Feature("x", 3.0, 2.0))
    whole = embed_table(table_of(values), features, seed=1)
    alone = [embed_table(table_of([value]), features, seed=1)[0] for value in values]
    assert np.array_equal(whole, np.stack(alone))
    assert lengths(whole).max() <= UNIT + np.sqrt(DIMS) / 2


@given(rows, st.randoms())
@settings(max_examples=40)
def test_scales_are_those_of_any_order(values: list[tuple[float | None, str | None]], random: object) -> None:
    shuffled = list(values)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert fit_features(table_of(values)) == fit_features(table_of(shuffled))


def test_texts_lie_on_the_sphere_and_empty_ones_at_zero(words: np.ndarray) -> None:
    points = embed_text(pa.array(["the ball and the team", "", None, "bank"]), words, seed=1)
    assert np.allclose(lengths(points)[[0, 3]], UNIT, atol=np.sqrt(DIMS) / 2)
    assert not points[1:3].any()


def test_all_forms_of_a_text_column_are_one(words: np.ndarray) -> None:
    values = ["ball goal", "bank price", None, "ball goal"]
    plain = embed_text(pa.array(values), words, seed=1)
    for form in (
        pa.array(values, pa.large_string()),
        pa.array(values).dictionary_encode(),
        pa.chunked_array([values[:1], values[1:]]),
    ):
        assert np.array_equal(plain, embed_text(form, words, seed=1))


def test_a_sample_without_text_gives_zeros() -> None:
    assert not fit_words(pa.array([None, ""], pa.string()), seed=0).any()
    assert not fit_words(pa.array([], pa.string()), seed=0).any()


@pytest.mark.parametrize("size", [7, 64, 200])
def test_all_forms_of_an_image_column_are_one(size: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, size)).astype(np.uint8)
    forms = [
        pa.array(pixels.tolist(), pa.list_(pa.uint8())),
        pa.array(pixels.tolist(), pa.list_(pa.float32(), size)),
        pa.array((pixels / 256).tolist(), pa.large_list(pa.float64())),
        pa.array([row.tobytes() for row in pixels], pa.binary()),
        pa.array([row.tobytes() for row in pixels], pa.binary(size)),
        pa.array([[0], *pixels.tolist()], pa.list_(pa.int64())).slice(1),
    ]
    assert all(is_pixels(form.type) for form in forms)
    points = [embed_pixels(form, seed=3) for form in forms]
    assert all(np.array_equal(points[0], other) for other in points[1:])


def test_small_images_keep_their_angles() -> None:
    pixels = np.random.default_rng(1).random((20, DIMS))
    points = embed_pixels(pa.array(pixels.tolist()), seed=0).astype(np.float64)
    unit = pixels / np.linalg.norm(pixels, axis=1, keepdims=True)
    assert np.abs(points @ points.T / UNIT**2 - unit @ unit.T).max() < 0.01


def test_a_missing_image_is_zero() -> None:
    assert not embed_pixels(pa.array([None, [float("nan"), None]], pa.list_(pa.float64())), seed=0).any()


def test_numbers_keep_their_distances() -> None:
    """30 numeric columns fit into the axes: distances are those of the scaled table, up to rounding."""
    values = np.clip(np.random.default_rng(2).standard_normal((50, 30)), -2, 2)
    table = pa.table({f"x{j}": values[:, j] for j in range(30)})
    features = tuple(Feature(f"x{j}", 0.0, 1.0) for j in range(30))
    points = embed_table(table, features, seed=0).astype(np.float64) * 4 * np.sqrt(30) / UNIT
    gaps, exact = (np.linalg.norm(x[:, None] - x[None], axis=2) for x in (points, values))
    assert np.abs(gaps - exact).max() < 0.1


def test_null_is_not_the_median() -> None:
    table = pa.table({"x": pa.array([5.0, None, float("nan")])})
    points = embed_table(table, (Feature("x", 5.0, 1.0),), seed=0)
    assert not points[0].any()
    assert points[1].any()
    assert np.array_equal(points[1], points[2])


def test_a_column_that_is_absent_is_null() -> None:
    features = (Feature("c"), Feature("x", 0.0, 1.0))
    absent = embed_table(pa.table({"x": [1.0]}), features, seed=0)
    null = embed_table(pa.table({"x": [1.0], "c": pa.array([None], pa.string())}), features, seed=0)
    assert np.array_equal(absent, null)


def test_columns_of_every_kind() -> None:
    batch = pa.table(
        {
            "i": pa.array([1, None], pa.int8()),
            "t": pa.array([dt.datetime(2020, 1, 1), None], pa.timestamp("us")),
            "d": pa.array([dt.date(2020, 1, 1), None], pa.date32()),
            "m": pa.array([None, 1], pa.decimal128(9, 2)),
            "b": [True, None],
            "s": pa.array(["a", None]).dictionary_encode(),
        }
    )
    assert all(is_feature(field.type) for field in batch.schema)
    table = as_features(batch, ["i", "t", "d", "m"], ["b", "s"])
    assert embed_table(table, fit_features(table), seed=0).shape == (2, DIMS)


def test_the_scale_is_the_middle_two_thirds() -> None:
    table = pa.table(
        {"x": [*map(float, range(101)), float("inf"), None], "same": [7.0] * 103, "none": pa.nulls(103, pa.float64())}
    )
    found = {feature.name: feature for feature in fit_features(table)}
    assert found["x"] == Feature("x", 50.0, 34.0)
    assert found["same"] == Feature("same", 7.0, 1.0)
    assert found["none"].scale == 1.0
