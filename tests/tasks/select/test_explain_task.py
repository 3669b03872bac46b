"""Why records of a small lake were kept or dropped, checked against what a plain count of their words says."""

from __future__ import annotations

import math
import random
from collections import Counter
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pytest

from infra.contracts import UnknownTable
from infra.ids import keyed_gumbel
from infra.select_settings import SelectSettings
from tasks.select.explain_task import UnknownRecord, samples, why
from tasks.select.task import select

NOTES = pa.schema([("text", pa.string())])
CATS = ["the", "cat", "sat", "on", "a", "mat", "and", "purred", "with", "milk"]
CARS = ["the", "engine", "of", "a", "car", "roared", "on", "its", "road", "and"]
OPTIONS: dict[str, Any] = {"keep_fraction": 0.4, "n_buckets": 1 << 16, "temperature": 0.05}
NEWS = pa.schema([("author", pa.string()), ("body", pa.large_string())])


def texts(n: int, words: list[str], seed: int) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(words, k=rng.randint(8, 30))) for _ in range(n)]


def fill(house: Any, pool: list[str], target: list[str], **options: Any) -> Any:
    snapshot = house.put("notes", [{"text": text} for text in pool], NOTES, n_files=3)
    speech = house.put("speech", [{"text": text} for text in target], NOTES)
    return house.select([snapshot], speech, **{**OPTIONS, **options})


def grams(text: str) -> Counter[str]:
    tokens = text.lower().split()
    return Counter(tokens) + Counter(f"{a} {b}" for a, b in pairwise(tokens))


def contributions(text: str, pool: list[str], target: list[str]) -> dict[str, float]:
    """What each n-gram adds to a text's weight: of 65,536 buckets, these few words have one each."""
    settings = SelectSettings.model_validate(OPTIONS)
    raw, wanted = (sum((grams(one) for one in some), Counter[str]()) for some in (pool, target))
    p, q = (
        {gram: wanted[gram] / wanted.total() for gram in raw},
        {gram: (raw[gram] + 1) / (raw.total() + settings.n_buckets) for gram in raw},
    )
    smooth = settings.smoothing
    return {gram: n * math.log((1 - smooth) * p[gram] / q[gram] + smooth) / len(text.split()) for gram, n in grams(text).items()}


def test_the_ngrams_that_moved_a_weight_are_those_of_a_plain_count(house: Any) -> None:
    pool, target = [*texts(60, CATS, 1), *texts(90, CARS, 2)], texts(40, CATS, 3)
    result = fill(house, pool, target)
    settings, made = house.settings(**OPTIONS), house.decisions(result)
    by_id = {row["row_id"]: row["text"] for row in house.lake.read(house.lake.snapshot("records/notes")).to_pylist()}
    for row_id in (max(made, key=lambda i: made[i]["log_weight"]), min(made, key=lambda i: made[i]["log_weight"])):
        found = why(settings, "d", row_id, n_most=5)
        expected = contributions(by_id[row_id], pool, target)
        assert (found.text, found.table, found.n_copies) == (by_id[row_id], "notes", 1)
        assert found.weights[0].log_weight == pytest.approx(made[row_id]["log_weight"], abs=1e-9)
        assert sum(expected.values()) == pytest.approx(made[row_id]["log_weight"], abs=1e-5)
        up = sorted((gain for gain in expected.values() if gain > 0), reverse=True)[:5]
        assert [gram.contribution for gram in found.weights[0].up] == pytest.approx(up, abs=1e-6)
        for gram in (*found.weights[0].up, *found.weights[0].down):
            assert gram.contribution == pytest.approx(expected[gram.text], abs=1e-6)
            assert gram.n == grams(by_id[row_id])[gram.text]


def test_key_noise_and_threshold_say_who_is_kept(house: Any) -> None:
    result = fill(house, [*texts(60, CATS, 1), *texts(90, CARS, 2)], texts(40, CATS, 3))
    settings = house.settings(**OPTIONS)
    for row_id, made in list(house.decisions(result).items())[:20]:
        found = why(settings, "d", row_id)
        assert found.threshold == result.threshold
        assert found.noise == pytest.approx(float(keyed_gumbel(pa.array([row_id]).to_numpy(), "select", 0)[0]), abs=1e-9)
        assert found.decision.keep == made["keep"] == (made["key"] >= found.threshold)
        assert not found.is_old
        assert "dropped, below_threshold: its key is" in found.said or "kept: its key is" in found.said


@pytest.mark.parametrize("mode", ["default", "parity"])
def test_each_of_two_targets_has_weights_of_its_own(house: Any, mode: str) -> None:
    """The least key kept is that of the target which a record's key is for; a dropped record's is found by its weight."""
    pool = [text * 20 for text in (*texts(30, CATS, 1), *texts(30, CARS, 2))]
    notes = house.put("notes", [{"text": text} for text in pool], NOTES)
    cats = house.put("speech", [{"text": text} for text in texts(20, CATS, 3)], NOTES)
    cars = house.put("news", [{"author": "a", "body": text} for text in texts(20, CARS, 4)], NEWS)
    settings = house.settings(**OPTIONS, mode=mode)
    dataset = settings.dataset("d").model_copy(update={"pool": ("notes",), "target": {"speech": 1.0, "news": 1.0}})
    settings = settings.model_copy(update={"datasets": {"d": dataset}})
    result = select.fn(settings, "d", (notes,), (cats, cars))
    found = [why(settings, "d", row_id) for row_id in house.decisions(result)]
    assert {one.decision.target for one in found} == {"speech", "news", None}
    for one in found:
        assert not one.is_old
        off = {weight.target: abs((weight.log_weight or 0.0) - (one.decision.log_weight or 0.0)) for weight in one.weights}
        assert off.keys() == {"speech", "news"}
        told = one.decision.target or min(off, key=off.__getitem__)
        assert off[told] < 1e-9
        assert one.threshold == result.figures["thresholds"][told]


def test_a_filter_and_a_duplicate_are_named_with_what_they_saw(house: Any) -> None:
    pool = [*texts(60, CATS, 1), *texts(60, CARS, 2), "cat sat", "  THE Engine of a car roared on its road and the road  "]
    options = {"filters": {"word_count": (5, None)}, "near_duplicates": {"jaccard": 1.0, "shingle": 2}}
    result = fill(house, [*pool, pool[-1].strip().lower()], texts(40, CATS, 3), **options)
    settings, made = house.settings(**{**OPTIONS, **options}), house.decisions(result)
    short = next(i for i, row in made.items() if row["reason"] == "filtered")
    assert why(settings, "d", short).said == "dropped, filtered: its word_count is 2, and the bound is 5"
    twin = next(i for i, row in made.items() if row["reason"] == "duplicate")
    found = why(settings, "d", twin)
    assert found.representative is not None
    assert found.representative.strip().lower() == found.text.strip().lower()
    assert f"record {made[twin]['representative']}" in found.said


def test_shared_text_of_an_evaluation_table_is_shown(house: Any) -> None:
    question = "which harbour did the grey ship leave before the storm came over the hills that night"
    pool = [*texts(60, CATS, 1), f"he asked : {question} and nobody knew", *texts(60, CARS, 2)]
    snapshot = house.put("notes", [{"text": text} for text in pool], NOTES)
    exam = house.put("news", [{"author": "a", "body": question}], NEWS)
    speech = house.put("speech", [{"text": text} for text in texts(40, CATS, 3)], NOTES)
    settings = house.settings(**OPTIONS, decontaminate={"tables": ["news"], "n": 8})
    settings = settings.model_copy(update={"datasets": {"d": settings.dataset("d").model_copy(update={"pool": ("notes",)})}})
    result = select.fn(settings, "d", (snapshot,), (speech, exam))
    row_id = next(i for i, row in house.decisions(result).items() if row["reason"] == "contaminated")
    found = why(settings, "d", row_id)
    assert [(one.table, one.text) for one in found.shared] == [("news", question)]
    assert found.said.startswith("dropped, contaminated: it shares 16 words in a row with table news")


def test_copies_are_counted_and_invalid_text_is_shown(house: Any) -> None:
    pool = [*texts(30, CATS, 1), *["a cat a cat a cat"] * 3]
    result = fill(house, pool, texts(20, CATS, 3))
    twins = [i for i, n in Counter(house.ids(house.lake.snapshot("records/notes"))).items() if n == 3]
    assert why(house.settings(**OPTIONS), "d", twins[0]).n_copies == 3
    assert result.n_raw == 31


def test_a_weight_of_older_counts_is_said_to_be_old(house: Any) -> None:
    first = fill(house, texts(60, CATS, 1), texts(40, CATS, 3))
    settings, lake = house.settings(**OPTIONS), house.lake
    row_id = next(iter(house.decisions(first)))
    assert not why(settings, "d", row_id).is_old
    fill(house, [*texts(60, CATS, 1), *texts(500, CARS, 2)], texts(40, CATS, 3))
    files = [part.file for part in lake.parts(first.snapshot)]
    lake.commit("selection/d", lake.schema(first.snapshot), files, lineage=lake.lineage(first.snapshot), overwrite=True)
    assert why(settings, "d", row_id).is_old


def test_samples_are_drawn_by_row_id_and_nothing_else(make_house: Any) -> None:
    pool, target = [*texts(60, CATS, 1), *texts(90, CARS, 2)], texts(40, CATS, 3)
    drawn = list[Any]()
    for rows in (pool, pool[::-1]):
        house = make_house()
        fill(house, rows, target)
        drawn.append(samples(house.settings(**OPTIONS), "d", 5))
        kept, dropped = drawn[-1]
        assert [len(kept), len(dropped)] == [5, 5]
        assert all(one.decision.keep for one in kept)
        assert all(not one.decision.keep and one.text in pool for one in dropped)
    assert drawn[0] == drawn[1]


def test_what_is_not_there_is_named_with_the_way_out(house: Any) -> None:
    with pytest.raises(UnknownTable, match="Run: lethe select d"):
        why(house.settings(**OPTIONS), "d", 1)
    fill(house, texts(30, CATS, 1), texts(20, CATS, 3))
    with pytest.raises(UnknownRecord, match="--samples") as error:
        why(house.settings(**OPTIONS), "d", 123456789)
    assert "123456789" not in str(error.value)


def test_no_text_is_in_a_repr(house: Any) -> None:
    fill(house, texts(30, CATS, 1), texts(20, CATS, 3))
    kept, dropped = samples(house.settings(**OPTIONS), "d", 50)
    assert "purred" in " ".join(one.text for one in (*kept, *dropped))
    assert "purred" not in repr((kept, dropped))
    assert "purred" not in repr([why(house.settings(**OPTIONS), "d", one.decision.row_id) for one in kept])
