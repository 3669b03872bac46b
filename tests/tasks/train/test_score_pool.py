"""A trained model as a score: every record of a pool, file by file, and no row's score depends on the rows beside it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from infra import tracking
from infra.contracts import MODEL_SCORES, Lineage, Snapshot
from infra.files import source_key, write_part
from infra.settings import ConfigError, Settings
from tasks.train.ensemble import Makeup
from tasks.train.features import Features, Spec
from tasks.train.models import build as build_model
from tasks.train.score import NotTrained, Scorer, label_chances, score_pool, widened
from tasks.train.task import retire_model, train


def scored_by(settings: Settings, *, label: str = "sport", text: str | None = "words") -> Settings:
    """The settings with a dataset `e` over the table `more`, scored by model `m`."""
    document = settings.model_dump(exclude_none=True, by_alias=True)
    document["tables"]["more"] = {"source": "x", **({"text": text} if text else {})}
    document["datasets"]["e"] = {"pool": ["more"], "select": {"score": {"model": "m", "label": label}}}
    return Settings.model_validate(document)


def put_more(house, rows: pa.Table, *, n_files: int = 1, overwrite: bool = True) -> Snapshot:
    folder, step = house.lake.folder("records/more"), -(-rows.num_rows // n_files)
    files = [write_part(folder, rows.slice(at, step).to_batches(), rows.schema) for at in range(0, rows.num_rows, step)]
    return house.lake.commit("records/more", rows.schema, files, lineage=Lineage("test", "", ""), overwrite=overwrite)


def more_rows(n: int = 700) -> pa.Table:
    rng = np.random.default_rng(3)
    words = ["ball", "goal", "stock", "bank", "rain", "wind", "other"]
    texts = [" ".join(rng.choice(words, rng.integers(1, 12))) for _ in range(n)]
    texts[5], texts[6] = None, " "
    return pa.table({"row_id": pa.array(range(n), pa.int64()), "words": texts})


def scores(house, snapshot: Snapshot) -> dict[int, float | None]:
    rows = house.lake.read(snapshot).to_pylist()
    return {row["row_id"]: row["score"] for row in rows}


@pytest.fixture
def trained(build: Callable):
    """A lake with a text model, and the table `more` that is to be scored by it."""
    house = build("text", _notes(), control=False, epochs=4)
    train.fn(house.settings, "m", (house.pool,), house.training_set)
    return house


def test_every_record_has_the_probability_that_the_model_gives_it(trained) -> None:
    rows, settings_ = more_rows(), scored_by(trained.settings)
    snapshot = score_pool.fn(settings_, "e", (put_more(trained, rows, n_files=3),))
    assert snapshot.table == "model_scores/e" and trained.lake.schema(snapshot).equals(MODEL_SCORES)
    found = scores(trained, snapshot)
    frame = rows.select(["words"]).rename_columns(["body"]).to_pandas()
    told = tracking.load_model(trained.settings, "m").predict(frame)["probability_sport"].tolist()
    assert found[5] is None and found[6] is None  # no token, no score
    others = [n for n in found if n not in (5, 6)]
    assert len(found) == rows.num_rows
    np.testing.assert_allclose([found[n] for n in others], [told[n] for n in others], atol=1e-5)
    texts = rows["words"].to_pylist()
    sport = [found[n] for n in others if "ball" in texts[n] and "bank" not in texts[n] and "rain" not in texts[n]]
    assert np.mean(sport) > np.mean([found[n] for n in others])


@pytest.mark.parametrize("kind", ["tabular", "image"])
def test_models_of_columns_and_images_score_too(build: Callable, kind: str, table: pa.Table) -> None:
    house = build(kind, table, control=False, epochs=1)
    train.fn(house.settings, "m", (house.pool,), house.training_set)
    document = house.settings.model_dump(exclude_none=True, by_alias=True)
    document["datasets"]["e"] = {"pool": ["notes"], "select": {"score": {"model": "m", "label": "1"}}}
    snapshot = score_pool.fn(Settings.model_validate(document), "e", (house.pool,))
    rows = house.lake.read(house.pool)
    told = tracking.load_model(house.settings, "m").predict(rows.drop_columns(["row_id", "person", "topic"]).to_pandas())
    assert house.lake.read(snapshot)["row_id"].equals(rows["row_id"])
    np.testing.assert_allclose(house.lake.read(snapshot)["score"].to_numpy(), told["probability_1"], atol=1e-5)


def test_files_keep_their_order_and_only_new_ones_are_read(trained) -> None:
    settings_, rows = scored_by(trained.settings), more_rows()
    pool = put_more(trained, rows, n_files=3)
    first = score_pool.fn(settings_, "e", (pool,))
    by_source = {part.file.source: part for part in trained.lake.parts(first)}
    for part in trained.lake.parts(pool):
        assert by_source[source_key(f"records/more/{part.file.path}")].file.n_rows == part.file.n_rows
    assert score_pool.fn(settings_, "e", (pool,)) == first
    extra = more_rows(40).set_column(0, "row_id", pa.array(range(1000, 1040), pa.int64()))
    second = score_pool.fn(settings_, "e", (put_more(trained, extra, overwrite=False),))
    after = {part.file.path for part in trained.lake.parts(second)}
    assert len(after) == 4 and {part.file.path for part in by_source.values()} < after
    third = score_pool.fn(settings_, "e", (put_more(trained, rows.slice(1)),))
    assert scores(trained, third) == {n: s for n, s in scores(trained, first).items() if n != 0}


def test_another_model_scores_anew_and_without_one_the_way_out_is_told(trained) -> None:
    pool = put_more(trained, more_rows(50))
    first = score_pool.fn(scored_by(trained.settings), "e", (pool,))
    other = score_pool.fn(scored_by(trained.settings, label="money"), "e", (pool,))
    assert scores(trained, other) != scores(trained, first)
    with pytest.raises(NotTrained, match=r"'e'.*label 'art'.*'m'.*select\.score\.label"):
        score_pool.fn(scored_by(trained.settings, label="art"), "e", (pool,))
    with pytest.raises(ConfigError, match=r"'more' has none of the columns.*body.*it has: words"):
        score_pool.fn(scored_by(trained.settings, text=None), "e", (pool,))
    retire_model(trained.settings, "m", "test")
    with pytest.raises(NotTrained, match=r"'e'.*'m'.*no trained version\. Run: lethe train m"):
        score_pool.fn(scored_by(trained.settings), "e", (pool,))


def test_the_tables_that_the_model_was_trained_from_are_inputs_of_its_scores(trained) -> None:
    pool = put_more(trained, more_rows(50))
    snapshot = score_pool.fn(scored_by(trained.settings), "e", (pool,))
    assert trained.lake.lineage(snapshot).inputs == (pool, trained.pool, trained.training_set)


@settings(max_examples=25)
@given(st.lists(st.lists(st.integers(0, 63), max_size=30), min_size=1, max_size=1200), st.data())
def test_a_row_s_score_does_not_depend_on_the_rows_beside_it(rows: list[list[int]], data: st.DataObject) -> None:
    scorer = Scorer(Makeup("text", ("a", "b", "c"), Spec("text", ("x",), ("text",), 64)), "", (), 1)
    torch.manual_seed(1)
    models = [widened(build_model("text", 3, scorer.makeup.spec)).eval() for _ in range(3)]
    whole = label_chances(models, _features(rows), scorer)
    chosen = data.draw(st.lists(st.sampled_from(range(len(rows))), min_size=1, max_size=600))
    np.testing.assert_array_equal(label_chances(models, _features([rows[i] for i in chosen]), scorer), whole[chosen])


def _features(rows: list[list[int]]) -> Features:
    offsets = np.cumsum([0, *map(len, rows)])
    return Features(np.empty((len(rows), 0), np.float32), np.array([t for row in rows for t in row], np.int32), offsets)


def _notes() -> pa.Table:
    rng = np.random.default_rng(5)
    words = {"sport": ["goal", "match", "ball"], "money": ["bank", "price", "stock"]}
    topics = rng.choice(["sport", "money"], 120)
    bodies = [" ".join(rng.choice(words[t], 5)) + f" n{i}" for i, t in enumerate(topics)]
    return pa.table({"person": [f"p{i // 3}" for i in range(120)], "body": bodies, "topic": topics})
