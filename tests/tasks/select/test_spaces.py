"""Log weights in embedding space: of texts, images and tables, each a function of its own row and of the sample."""

from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from infra.columns import CONTENT, Look, as_features
from infra.ids import keyed_bits
from infra.select_settings import Method, SelectSettings
from tasks.select.spaces import Rows, Space, fit_space, joined_rows, space_log_weights

METHODS: tuple[Method, ...] = ("clusters", "simcore", "transport")
LOOKS: tuple[Look, ...] = ("text", "pixels", "table")
WORDS = (["ball", "goal", "match", "team", "score", "league"], ["stock", "market", "bank", "price", "share", "profit"])
SOME = (*((method, "table") for method in METHODS), ("clusters", "text"), ("simcore", "pixels"), ("transport", "pixels"))
ASKED = SelectSettings(n_clusters=4, seed=3)


def content(look: Look, topics: np.ndarray, seed: int) -> pa.Table:
    """Records of two topics: words about sport or money, bright left or right halves, small or large numbers."""
    rng = np.random.default_rng(seed)
    if look == "text":
        texts = [" ".join(rng.choice(WORDS[topic], 8)) for topic in topics]
        return pa.table({CONTENT: pa.array(texts, pa.large_string())})
    if look == "pixels":
        images = rng.integers(0, 60, (len(topics), 16)) + 150 * (np.arange(16)[None] // 8 == topics[:, None])
        return pa.table({CONTENT: pa.array(images.tolist(), pa.list_(pa.uint8()))})
    numbers = {"x": topics * 5 + rng.normal(size=len(topics)), "y": rng.normal(size=len(topics))}
    batch = pa.record_batch({**numbers, "c": pa.array([f"{'ab'[topic]}" for topic in topics])})
    return as_features(batch, ["x", "y"], ["c"])


def rows(look: Look, n: int, seed: int, topic: int | None = None) -> Rows:
    topics = np.random.default_rng(seed).integers(0, 2, n) if topic is None else np.full(n, topic)
    row_ids = (keyed_bits(np.arange(n), "test", seed) >> np.uint64(1)).astype(np.int64)
    return Rows(row_ids, content(look, topics, seed + 1))


def taken(some: Rows, which: Any) -> Rows:
    return Rows(some.row_ids[which], some.content.take(pa.array(np.arange(len(some.row_ids))[which])))


def fitted(method: Method, look: Look, pool: Rows, **targets: Rows) -> Space:
    return fit_space(method, pool, targets or {"gold": rows(look, 20, 5, topic=1)}, ASKED, look)


@cache
def space_of_both(method: Method, look: Look) -> Space:
    """Of a pool of 120 records, and a target of each topic."""
    return fitted(method, look, rows(look, 120, 0), sport=rows(look, 20, 5, topic=0), money=rows(look, 20, 6, topic=1))


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("method", METHODS)
def test_a_target_of_one_topic_gets_that_topics_records(method: Method, look: Look) -> None:
    topics = np.random.default_rng(0).integers(0, 2, 120)
    weights = space_log_weights(space_of_both(method, look), rows(look, 120, 0).content)
    assert weights.shape == (120, 2)
    for topic in (0, 1):
        best = np.argsort(-weights[:, topic], kind="stable")[:40]
        assert (topics[best] == topic).mean() > 0.95


@pytest.mark.parametrize(("method", "look"), SOME)
def test_order_copies_and_partition_change_no_bit(method: Method, look: Look) -> None:
    pool, sport, money = rows(look, 120, 0), rows(look, 20, 5, topic=0), rows(look, 20, 6, topic=1)
    rng = np.random.default_rng(8)
    order = np.concatenate([rng.permutation(120), rng.integers(0, 120, 10)])
    turned, doubled = taken(sport, np.arange(20)[::-1]), taken(money, np.arange(40) % 20)
    one, other = space_of_both(method, look), fitted(method, look, taken(pool, order), sport=turned, money=doubled)
    whole = space_log_weights(one, pool.content)
    parts = [space_log_weights(other, taken(pool, s).content) for s in (slice(43), slice(43, 120))]
    assert np.array_equal(whole, np.concatenate(parts))
    assert np.array_equal(space_log_weights(other, pool.content.slice(7, 1))[0], whole[7])


@pytest.mark.parametrize(("method", "look"), SOME)
def test_a_record_outside_the_sample_has_a_weight_and_changes_nobodys(method: Method, look: Look) -> None:
    """The sample is all of the pool that is seen: the same space, whoever else is there."""
    pool = rows(look, 100, 0)
    inside = keyed_bits(pool.row_ids, "sample") >> np.uint64(63) == 0
    weights = space_log_weights(fitted(method, look, taken(pool, inside)), pool.content)
    assert np.isfinite(weights).all()
    rest = np.arange(100) != np.flatnonzero(~inside)[0]
    again = fitted(method, look, taken(taken(pool, rest), inside[rest]))
    assert np.array_equal(space_log_weights(again, pool.content)[rest], weights[rest])


@pytest.mark.parametrize("method", METHODS)
def test_what_has_no_content_has_no_weight(method: Method) -> None:
    nothing = {"x": [None, float("nan"), None, 1.0], "y": [None] * 4}
    table = {name: pa.array(values, pa.float64()) for name, values in nothing.items()}
    empty: dict[Look, pa.Table] = {
        "text": pa.table({CONTENT: pa.array(["", None, " \n", "unheard"], pa.large_string())}),
        "pixels": pa.table({CONTENT: pa.array([[], None, None, [0, 0]], pa.list_(pa.uint8()))}),
        "table": pa.table({**table, "c": pa.nulls(4, pa.string()), "unseen": ["a", "b", "c", "d"]}),
    }
    for look, content in empty.items():
        weights = space_log_weights(space_of_both(method, look), content)
        assert np.isnan(weights).all(axis=1).tolist() == [True, True, True, False], look
        assert np.isfinite(weights[3]).all()


@pytest.mark.parametrize(
    "kind", [pa.binary(), pa.large_binary(), pa.binary(2), pa.list_(pa.float32(), 2), pa.large_list(pa.int16())]
)
def test_images_in_any_form(kind: pa.DataType) -> None:
    values = [b"\x01\x02", None, b"\x00\x00"] if "binary" in str(kind) else [[1, 2], None, [0, 0]]
    images = pa.table({CONTENT: pa.array(values, kind)})
    space = fit_space("clusters", Rows(np.arange(3), images), {"gold": Rows(np.arange(3), images)}, ASKED, "pixels")
    assert np.isnan(space_log_weights(space, images)[:, 0]).tolist() == [False, True, False]


BLANK: dict[Look, pa.Array] = {
    "text": pa.array(["", "unheard"], pa.large_string()),
    "pixels": pa.array([[], [0, 0]], pa.list_(pa.uint8())),
    "table": pa.nulls(2, pa.string()),
}


@pytest.mark.parametrize(("method", "look"), SOME)
def test_a_target_that_says_nothing_is_named_and_weighs_nothing(method: Method, look: Look) -> None:
    blank = Rows(np.arange(2), pa.table({"c" if look == "table" else CONTENT: BLANK[look]}))
    space = fitted(method, look, rows(look, 40, 0), gold=rows(look, 10, 5, topic=1), blank=blank)
    assert space.silent == ("blank",)
    weights = space_log_weights(space, rows(look, 10, 9).content)
    assert (weights[:, 1] == 0).all()
    assert (weights[:, 0] != 0).any()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("images", [[], [[], None]])
def test_a_pool_without_content_is_no_error(method: Method, images: list[Any]) -> None:
    pool = Rows(np.arange(len(images)), pa.table({CONTENT: pa.array(images, pa.list_(pa.uint8()))}))
    space = fitted(method, "pixels", pool)
    assert np.isnan(space_log_weights(space, pool.content)).all()


def test_joined_rows_are_each_record_once_and_of_any_order() -> None:
    pool = rows("text", 30, 0)
    pieces = [taken(pool, slice(20, 30)), taken(pool, slice(0, 22))]
    assert joined_rows(pieces).row_ids.tolist() == sorted(pool.row_ids.tolist())
    few, again = (
        joined_rows(pieces, limit=7, seed=1),
        joined_rows([joined_rows([p], limit=7, seed=1) for p in pieces], limit=7, seed=1),
    )
    assert few.row_ids.tolist() == again.row_ids.tolist()
    assert few.content.equals(again.content)
    assert len(few.row_ids) == 7


def test_a_method_that_embeds_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="importance"):
        fitted("importance", "text", rows("text", 10, 0))


def test_a_text_pool_without_content_is_no_error() -> None:
    for texts in ([], ["", None]):
        pool = Rows(np.arange(len(texts)), pa.table({CONTENT: pa.array(texts, pa.large_string())}))
        assert np.isnan(space_log_weights(fitted("clusters", "text", pool), pool.content)).all()
