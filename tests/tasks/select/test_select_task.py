"""The stage's laws: order, partition and workers change nothing; erased is never seen; the sample decides, or a full sort."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from distributed import Client, LocalCluster

from infra.contracts import LetheError, Lineage, UnknownTable
from infra.ids import in_sample, sample_level
from infra.settings import ConfigError
from infra.subjects import row_places
from tasks.select.budget import n_to_keep
from tasks.select.plan import EmptyTarget
from tasks.select.task import select

NEWS = pa.schema([("author", pa.string()), ("body", pa.large_string())])
NOTES = pa.schema([("text", pa.string())])
CATS = ["the", "cat", "sat", "on", "a", "mat", "and", "purred", "at", "its", "kitten", "with", "milk"]
CARS = ["the", "engine", "of", "a", "car", "roared", "on", "its", "road", "with", "fuel", "and", "gears"]
FIGURES = ("n_raw", "n_kept", "n_empty", "n_sample", "threshold", "kl_raw", "kl_selected", "kl_random", "effective_sample_size")


def sentence(rng: random.Random, words: list[str]) -> str:
    return " ".join(rng.choices(words, k=rng.randint(4, 30)))


def news(n: int, seed: int = 0) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    return [{"author": f"a{i % 40}", "body": sentence(rng, CATS if i % 3 == 0 else CARS)} for i in range(n)]


def notes(n: int, seed: int = 1) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    texts = [sentence(rng, CATS + CARS) for _ in range(n)]
    return [{"text": text} for text in [*texts, None, "", " \n", "Ärger, ΣΟΦΟΣ İz!"]]


def target(n: int = 60) -> list[dict[str, Any]]:
    rng = random.Random(2)
    return [{"text": sentence(rng, CATS)} for _ in range(n)]


def outcome(house: Any, result: Any) -> tuple[dict[int, Any], dict[str, Any]]:
    return house.decisions(result), {name: asdict(result)[name] for name in FIGURES}


def test_it_prefers_what_reads_like_the_target(house: Any) -> None:
    """A third of the records are about cats, as the target is; a third is kept, and nearly all of it is about cats."""
    rows = news(300)
    pool = house.put("news", rows, NEWS)
    result = house.select([pool], house.put("speech", target(), NOTES), keep_fraction=1 / 3, temperature=0.05, n_buckets=256)
    assert (result.n_raw, result.n_kept, result.n_empty, result.found) == (300, 100, 0, False)
    made = house.decisions(result)
    kept = [row["body"] for row in house.lake.read(pool).to_pylist() if made[row["row_id"]]["keep"]]
    assert sum(not set(CATS).isdisjoint(set(text.split()) - set(CARS)) for text in kept) >= 95
    assert result.kl_reduction > 0.2 > result.random_kl_reduction
    assert result.kl_reduction == result.kl_raw - result.kl_selected
    assert {row["reason"] for row in made.values()} == {"kept", "below_threshold"}


@pytest.mark.parametrize("sample_rows", [100_000, 120])
def test_order_and_partition_change_nothing(make_house: Callable[[], Any], sample_rows: int) -> None:
    outcomes = []
    for n_files, swapped in ((1, False), (4, True), (7, False)):
        house, rows, more = make_house(), news(240), notes(160)
        random.Random(n_files).shuffle(rows)
        random.Random(n_files).shuffle(more)
        pool = [house.put("news", rows, NEWS, n_files=n_files), house.put("notes", more, NOTES, n_files=n_files)]
        judge = house.put("speech", target(), NOTES, n_files=n_files)
        result = house.select(pool[::-1] if swapped else pool, judge, sample_rows=sample_rows, keep_fraction=0.3)
        outcomes.append(outcome(house, result))
    assert outcomes[0] == outcomes[1] == outcomes[2]
    assert outcomes[0][1]["n_empty"] == 3


def test_workers_change_nothing(house: Any) -> None:
    pool = [house.put("news", news(200), NEWS, n_files=3), house.put("notes", notes(50), NOTES)]
    judge = house.put("speech", target(), NOTES)
    here = outcome(house, house.select(pool, judge, keep_fraction=0.25, seed=1))
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        options = {"keep_fraction": 0.25, "seed": 1, "sample_rows": 99_999}
        there = outcome(house, run_on(house, client, pool, judge, options))
    assert here == there


def run_on(house: Any, client: Client, pool: list[Any], judge: Any, options: dict[str, Any]) -> Any:
    return select.fn(house.settings(**options), "d", tuple(pool), (judge,), scheduler=client.scheduler.address)


def test_erased_is_never_seen(make_house: Callable[[], Any]) -> None:
    """A person's rows are taken away; the decisions are, to the bit, those of a lake that never saw them."""
    rows, without = news(240), [row for row in news(240) if row["author"] != "a7"]
    before, never = make_house(), make_house()
    judge = before.put("speech", target(), NOTES)
    first = before.select([before.put("news", rows, NEWS, n_files=3)], judge, keep_fraction=0.4)
    again = before.select([before.put("news", without, NEWS, n_files=3)], judge, keep_fraction=0.4)
    clean = never.select([never.put("news", without, NEWS, n_files=2)], never.put("speech", target(), NOTES), keep_fraction=0.4)
    assert outcome(before, again) == outcome(never, clean)
    assert again.snapshot.digest == clean.snapshot.digest != first.snapshot.digest


def test_an_erased_row_outside_the_sample_changes_no_other_decision(house: Any) -> None:
    rows = news(400)
    pool = house.put("news", rows, NEWS)
    judge = house.put("speech", target(), NOTES)
    level = sample_level(400, 100)
    assert level == sample_level(390, 100) == 2
    records = house.lake.read(pool)
    sampled = in_sample(row_places(records, house.settings().tables["news"].subject, house.lake.keys), level)
    gone = records.column("author").to_pylist()[int(np.flatnonzero(~sampled)[0])]
    first = house.decisions(house.select([pool], judge, sample_rows=100, keep_fraction=0.5))
    rest = house.put("news", [row for row in rows if row["author"] != gone], NEWS)
    second = house.decisions(house.select([rest], judge, sample_rows=100, keep_fraction=0.5))
    assert len(first) - len(second) == 10
    assert second == {row_id: first[row_id] for row_id in second}


def test_exact_is_the_top_of_a_full_sort(house: Any) -> None:
    pool = [house.put("news", news(300), NEWS, n_files=2), house.put("notes", notes(100), NOTES)]
    judge = house.put("speech", target(), NOTES)
    result = house.select(pool, judge, sample_rows=20, keep_fraction=0.37, exact=True)
    made = house.decisions(result)
    order = sorted((-row["key"], row["row_id"]) for row in made.values() if row["key"] is not None)
    k = n_to_keep(len(order), 0.37)
    assert {row_id for row_id, row in made.items() if row["keep"]} == {row_id for _, row_id in order[:k]}
    assert result.n_kept == k
    assert result.n_sample < 100


def test_a_new_file_costs_its_own_count_and_a_removed_one_is_subtracted(make_house: Callable[[], Any]) -> None:
    house, fresh = make_house(), make_house()
    judge = house.put("speech", target(), NOTES)
    first = house.select([house.put("news", news(90), NEWS, n_files=3)], judge)
    counts_before = house.lake.read(house.lake.snapshot("ngram_counts/d"))
    grown = house.put("news", news(30, seed=9), NEWS, reuse=True)
    second = house.select([grown], judge)
    assert (first.n_counted_files, second.n_counted_files) == (4, 1)  # the target's one among them
    counts = house.lake.read(house.lake.snapshot("ngram_counts/d"))
    assert set(counts_before.column("file").to_pylist()) < set(counts.column("file").to_pylist())
    whole = fresh.select([fresh.put("news", news(90) + news(30, seed=9), NEWS)], fresh.put("speech", target(), NOTES))
    assert outcome(house, second) == outcome(fresh, whole)
    recount = fresh.lake.read(fresh.lake.snapshot("ngram_counts/d"))
    assert np.array_equal(total(counts), total(recount))
    added = [part.file for part in house.lake.parts(grown) if part.file.path not in counts_before.column("file").to_pylist()]
    shrunk = house.lake.commit("records/news", house.lake.schema(grown), [], remove=added, lineage=Lineage("ingest", "", ""))
    gone = house.select([shrunk], judge)
    left = house.lake.read(house.lake.snapshot("ngram_counts/d"))
    assert np.array_equal(total(left), total(counts_before))
    assert gone.snapshot.digest == first.snapshot.digest
    assert house.lake.snapshot("selection/d") == gone.snapshot


def total(counts: pa.Table) -> np.ndarray:
    return np.sum([np.array(row, np.int64) for row in counts.column("counts").to_pylist()], axis=0)


def test_an_unchanged_selection_is_found(house: Any) -> None:
    pool, judge = house.put("news", news(60), NEWS), house.put("speech", target(), NOTES)
    first = house.select([pool], judge)
    second = house.select([house.put("news", news(60)[::-1], NEWS, n_files=2)], judge)
    assert (first.found, second.found) == (False, True)
    assert asdict(first) | {"found": True, "seconds": 0} == asdict(second) | {"seconds": 0}
    assert not house.select([pool], judge, seed=5).found


def test_copies_are_one_record(house: Any) -> None:
    rows = news(50)
    pool = house.put("news", rows + rows[:20], NEWS, n_files=4)
    result = house.select([pool], house.put("speech", target(), NOTES), keep_fraction=0.5)
    assert (result.n_raw, result.n_sample, result.n_kept) == (50, 50, 25)
    assert set(house.decisions(result)) == set(house.ids(pool))


def test_the_edges(house: Any) -> None:
    """Everything kept, nothing to choose from, no word in common, a target of one row."""
    judge = house.put("speech", target(1), NOTES)
    everything = house.select([house.put("notes", notes(5), NOTES)], judge, keep_fraction=1.0)
    assert (everything.n_kept, everything.n_empty, everything.threshold) == (6, 3, None)
    nothing = house.select([house.put("notes", [], NOTES)], judge)
    assert (nothing.n_raw, nothing.n_kept, nothing.kl_reduction) == (0, 0, None)
    blank = house.select([house.put("notes", [{"text": None}, {"text": "  "}], NOTES)], judge)
    assert (blank.n_raw, blank.n_kept, blank.n_empty) == (2, 0, 2)
    strangers = house.select([house.put("notes", [{"text": f"xy{i} zz{i}"} for i in range(10)], NOTES)], judge, keep_fraction=0.5)
    assert strangers.n_kept == 5


def test_errors_name_the_way_out(house: Any) -> None:
    pool = house.put("news", news(5), NEWS)
    for empty in ([], [{"text": None}, {"text": " "}]):
        with pytest.raises(EmptyTarget, match="speech, a target of dataset 'd'"):
            house.select([pool], house.put("speech", empty, NOTES))
    judge = house.put("speech", target(), NOTES)
    settings = house.settings()
    bare = settings.model_copy(
        update={"tables": {**settings.tables, "news": settings.tables["news"].model_copy(update={"text": None})}}
    )
    wrong = settings.model_copy(
        update={"tables": {**settings.tables, "news": settings.tables["news"].model_copy(update={"text": "id"})}}
    )
    with pytest.raises(ConfigError, match="'news' has no text column"):
        select.fn(bare, "d", (pool,), (judge,))
    with pytest.raises(ConfigError, match="'id' names no text column; it has: author \\(string\\), body"):
        select.fn(wrong, "d", (pool,), (judge,))
    with pytest.raises(LetheError, match="no dataset 'e'"):
        select.fn(settings, "e", (pool,), (judge,))
    with pytest.raises(UnknownTable):
        house.lake.snapshot("selection/d")


def test_going_back_to_earlier_settings_makes_their_output_the_newest(house: Any) -> None:
    pool, judge = house.put("news", news(60), NEWS), house.put("speech", target(), NOTES)
    first = house.select([pool], judge, keep_fraction=0.8)
    house.select([pool], judge, keep_fraction=0.2)
    again = house.select([pool], judge, keep_fraction=0.8)
    assert again.found
    assert again.snapshot == house.lake.snapshot("selection/d")
    assert again.snapshot.digest == first.snapshot.digest


def test_a_pool_whose_files_are_all_gone_selects_nothing(house: Any) -> None:
    pool, judge = house.put("news", news(60), NEWS), house.put("speech", target(), NOTES)
    gone = house.lake.commit("records/news", house.lake.schema(pool), [], overwrite=True, lineage=Lineage("erase", "", ""))
    result = house.select([gone], judge)
    assert (result.n_raw, result.n_kept, result.snapshot.n_rows) == (0, 0, 0)
