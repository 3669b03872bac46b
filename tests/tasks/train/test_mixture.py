"""The end of training: domains come as often as their weights say, and what forgot a row is what never met it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from infra.settings import ConfigError, Settings, load_settings
from tasks.train.features import Features, Spec
from tasks.train.fit import Recipe, ShardRows, fit_shard
from tasks.train.mixture import UNIT, Mixture, drawn, final_share, row_weights
from tasks.train.plan import Plan, batches, epoch_order
from tasks.train.task import checkpoint_store, train

IDS = nps.arrays(np.int64, st.integers(0, 60), elements=st.integers(0, 2**63 - 1), unique=True)
MIXTURE = Mixture(0.3, "table", (("gold", 5.0),))
PLAN = Plan(slices=3, epochs=4, batch_size=5, learning_rate=1e-2, seed=7, mixture=MIXTURE)


def weights_of(ids: np.ndarray) -> np.ndarray:
    return np.where(ids % 3 == 0, 5 * UNIT, UNIT)


# --- where the end is ----------------------------------------------------------------------------------------------------------


@given(st.integers(1, 20), st.integers(1, 20), st.floats(0.01, 1.0))
def test_the_end_is_its_share_of_the_work_and_lies_at_the_end(slices: int, epochs: int, fraction: float) -> None:
    mixture = Mixture(fraction, "table", ())
    places = [(r, e) for r in range(slices) for e in range(epochs)]
    shares = [final_share(mixture, slices=slices, epochs=epochs, slice_=r, epoch=e) for r, e in places]
    work = sum(share * (r + 1) for share, (r, _) in zip(shares, places, strict=True))
    assert abs(work - fraction * epochs * slices * (slices + 1) / 2) < 1e-6 * slices * len(places)
    inside = [share for share in shares if share > 0]
    assert shares == sorted(shares) and inside[1:] == [1.0] * (len(inside) - 1)


def test_fifteen_in_a_hundred_of_six_epochs_are_three_quarters_of_the_last_one() -> None:
    plan = Plan(4, 6, 64, 1e-3, 0, Mixture(0.15, "table", ()))
    assert plan.epochs_per_slice == 2
    assert [plan.final_share(r, e) for r, e in ((2, 1), (3, 0), (3, 1))] == [0.0, 0.0, 0.75]


# --- who comes -----------------------------------------------------------------------------------------------------------------


@given(IDS, st.integers(0, 2), st.randoms(use_true_random=False))
def test_the_order_does_not_depend_on_the_order_of_the_rows(ids: np.ndarray, slice_: int, random) -> None:
    def ordered(of: np.ndarray) -> list[int]:
        return of[epoch_order(of, PLAN, shard=1, slice_=slice_, epoch=1, weights=weights_of(of))].tolist()

    moved = ids.copy()
    random.shuffle(moved)
    assert ordered(moved) == ordered(ids)


@given(IDS)
def test_before_the_end_and_without_one_an_epoch_is_what_it_was(ids: np.ndarray) -> None:
    plain = replace(PLAN, mixture=None)
    for slice_, epoch in ((0, 0), (0, 1), (1, 0), (2, 1)):
        was = epoch_order(ids, plain, shard=0, slice_=slice_, epoch=epoch).tolist()
        assert epoch_order(ids, plain, shard=0, slice_=slice_, epoch=epoch, weights=weights_of(ids)).tolist() == was
        if PLAN.final_share(slice_, epoch) == 0.0:
            assert epoch_order(ids, PLAN, shard=0, slice_=slice_, epoch=epoch, weights=weights_of(ids)).tolist() == was


@given(IDS, st.floats(0.01, 1.0))
def test_equal_weights_draw_every_row_as_often_as_the_share_says(ids: np.ndarray, share: float) -> None:
    at = drawn(ids, np.full(len(ids), UNIT), share, 0)
    assert len(np.unique(at)) == len(at)
    if share == 1.0:
        assert sorted(at.tolist()) == list(range(len(ids)))


def test_a_domain_of_weight_five_comes_five_times_as_often_in_as_many_steps() -> None:
    ids = np.random.default_rng(0).integers(0, 2**62, 30_000)
    weights = weights_of(ids)
    at = drawn(ids, weights, 0.5, 3)
    assert abs(len(at) - 15_000) < 300
    gold = weights[at] == 5 * UNIT
    often, seldom = gold.sum() / (weights > UNIT).sum(), (~gold).sum() / (weights == UNIT).sum()
    assert abs(often / seldom - 5) < 0.2
    first, last = gold[: len(at) // 2].mean(), gold[len(at) // 2 :].mean()
    assert abs(first - last) < 0.03
    assert [len(b) for b in batches(ids, PLAN, shard=0, slice_=2, epoch=0, weights=weights)][:-1].count(5) > 5_000


def test_domains_are_tables_or_values_of_a_column() -> None:
    by_table = Mixture(0.1, "table", (("gold", 5.0), ("rest", 0.5)))
    assert row_weights(by_table, "gold", None, 2).tolist() == [5 * UNIT] * 2
    assert row_weights(by_table, "rest", None, 1).tolist() == [UNIT // 2]
    assert row_weights(by_table, "other", None, 1).tolist() == [UNIT]
    by_column = Mixture(0.1, "year", (("2024", 3.0),))
    assert row_weights(by_column, "gold", pa.array([2024, None, 2023, 2024]), 4).tolist() == [3 * UNIT, UNIT, UNIT, 3 * UNIT]
    assert row_weights(by_column, "gold", pa.array([], pa.string()), 0).tolist() == []
    assert row_weights(by_column, "gold", None, 2).tolist() == [UNIT] * 2


# --- one shard -----------------------------------------------------------------------------------------------------------------


def shard_rows(numbers: np.ndarray) -> ShardRows:
    """Rows of two tokens each, whose class is their parity; rows divisible by three are of the domain with weight."""
    ids = numbers * 1_000_003 + 5
    tokens = np.stack([numbers % 2 * 7 + 1, numbers % 11 + 20], axis=1).astype(np.int32).ravel()
    features = Features(np.empty((len(ids), 0), np.float32), tokens, np.arange(len(ids) + 1) * 2)
    return ShardRows(ids, numbers % 3, numbers % 2, features, None, np.where(numbers % 3 == 0, 5 * UNIT, UNIT))


def recipe_of(plan: Plan) -> Recipe:
    return Recipe("text", Spec("text", ("x",), ("text",), 64), ("a", "b"), plan, "code", "environment")


@pytest.mark.parametrize("gone", [0, 1, 2])
@pytest.mark.parametrize("fraction", [0.3, 1.0])
def test_a_shard_that_forgot_is_one_that_never_met(tmp_path: Path, gone: int, fraction: float) -> None:
    recipe = recipe_of(replace(PLAN, mixture=replace(MIXTURE, final_fraction=fraction)))
    everybody = np.arange(90)
    left = everybody[everybody != 30 + gone]
    met = fit_shard(recipe, 0, shard_rows(everybody), str(tmp_path / "met"))
    forgot = fit_shard(recipe, 0, shard_rows(left), str(tmp_path / "met"))
    never = fit_shard(recipe, 0, shard_rows(np.random.default_rng(1).permutation(left)), str(tmp_path / "never"))
    assert (forgot.digest, forgot.checkpoints, forgot.losses) == (never.digest, never.checkpoints, never.losses)
    assert forgot.digest != met.digest
    assert (forgot.n_slices_found, never.n_slices_found) == (gone, 0)  # no checkpoint depends on a later slice


def test_what_is_asked_of_the_end_renames_the_checkpoints_and_the_slices_before_it_keep_their_bits(tmp_path: Path) -> None:
    rows = shard_rows(np.arange(90))
    asked = [None, MIXTURE, replace(MIXTURE, final_fraction=0.31), replace(MIXTURE, weights=(("gold", 4.0),))]
    results = [fit_shard(recipe_of(replace(PLAN, mixture=m)), 0, rows, str(tmp_path / str(i))) for i, m in enumerate(asked)]
    assert len({name for result in results for name in result.checkpoints}) == 12
    assert results[0].digest != results[1].digest
    assert len({result.losses[:4] for result in results}) == 1  # the end of 30 % is in the last slice
    assert abs(results[1].n_steps - results[0].n_steps) <= 2


def test_a_shard_of_one_row_trains(tmp_path: Path) -> None:
    for fraction in (0.1, 0.5, 1.0):
        recipe = recipe_of(replace(PLAN, mixture=replace(MIXTURE, final_fraction=fraction)))
        result = fit_shard(recipe, 0, shard_rows(np.array([4])), str(tmp_path / str(fraction)))
        assert len(result.losses) <= 6 and all(np.isfinite(result.losses))


# --- through the door ----------------------------------------------------------------------------------------------------------


def with_mixture(house, **mixture):
    document = house.settings.model_dump(exclude_none=True, by_alias=True)
    document["datasets"]["d"]["mixture"] = {"final_fraction": 0.5, **mixture}
    return replace(house, settings=Settings.model_validate(document))


def run(house):
    return train.fn(house.settings, "m", (house.pool,), house.training_set)


def test_the_lake_that_forgot_is_the_lake_that_never_met(build: Callable, without: Callable) -> None:
    table = _notes()
    asked = {"by": "source", "weights": {"gold": 6}}
    first = run(with_mixture(build("text", table, control=False), **asked))
    left = without(table, "p0")
    forgot = run(house := with_mixture(build("text", left, n_files=2, control=False), **asked))
    never = run(stranger := with_mixture(build("text", left, "b", n_files=3, shuffle=2, control=False), **asked))
    assert forgot.digest == never.digest != first.digest
    stores = [Path(checkpoint_store(h.settings, "m")) for h in (house, stranger)]
    assert len({tuple(sorted((p.name, p.read_bytes()) for p in store.iterdir())) for store in stores}) == 1
    other = run(with_mixture(house, by="source", weights={"gold": 0.1}))
    assert other.digest != forgot.digest and not other.found
    # One domain alone: all weigh the same, but where the end begins within an epoch, some come again and some not at all.
    assert run(with_mixture(house, weights={"notes": 6})).digest not in (forgot.digest, other.digest)
    with pytest.raises(ConfigError, match=r"datasets\.d\.mixture.*by = 'language'.*body, person, source, topic"):
        run(with_mixture(house, by="language", weights={"de": 2}))


@pytest.mark.parametrize(
    ("mixture", "said"),
    [
        ("{ weights = { golf = 5 } }", "table 'golf' is not in the pool: gold, web"),
        ("{ weights = {} }", "at least 1 item"),
        ("{ weights = { gold = 0 } }", "greater than 0"),
        ("{ weights = { gold = 2 }, final_fraction = 0 }", "greater than 0"),
        ("{ final_fraction = 0.1 }", "required"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, mixture: str, said: str) -> None:
    tables = "".join(f'[tables.{name}]\nsource = "x"\n' for name in ("gold", "web"))
    config = tmp_path / "lethe.toml"
    config.write_text(f'{tables}[datasets.d]\npool = ["gold", "web"]\nmixture = {mixture}\n', encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"lethe\.toml:\d+: datasets\.d\.mixture.*{said}"):
        load_settings(config)
    config.write_text(config.read_text().replace(mixture, "{ weights = { de = 5 }, by = 'language' }"), encoding="utf-8")
    assert load_settings(config).dataset("d").mixture is not None


def _notes() -> pa.Table:
    rng = np.random.default_rng(5)
    words = {"sport": ["goal", "match", "team"], "money": ["bank", "price", "share"]}
    topics = rng.choice(["sport", "money"], 60)
    bodies = [" ".join(rng.choice(words[t], 5)) + f" n{i}" for i, t in enumerate(topics)]
    source = [None if i % 7 == 0 else "gold" if i % 3 else "crawl" for i in range(60)]
    return pa.table({"person": [f"p{i // 3}" for i in range(60)], "body": bodies, "topic": topics, "source": source})
