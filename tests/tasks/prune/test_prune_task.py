"""The stage as a function from snapshots to a snapshot: order, files, what was erased and what was never there."""

from collections import defaultdict
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from prune_lake import LINEAGE, House, Row, notes

from infra.cluster import cluster
from infra.ids import in_sample, sample_level
from infra.settings import ConfigError
from infra.subjects import row_places
from infra.views import NothingToEmbed
from tasks.prune.frames import device_here
from tasks.prune.places import moved_shards
from tasks.prune.task import EmptySample

METHODS = ("density", "prototypes", "random", "none")
SCORED = ("density", "prototypes")


def shuffled(rows: list[Row], seed: int = 1) -> list[Row]:
    return [rows[i] for i in np.random.default_rng(seed).permutation(len(rows))]


@pytest.mark.parametrize("method", METHODS)
def test_every_record_is_decided_once(house: House, method: str) -> None:
    rows = notes()
    pool = house.put(rows + rows[:20], n_files=3)
    result = house.prune(pool, method=method, keep_fraction=0.5)
    decided = house.decisions(result)
    reasons = [row["reason"] for row in decided.values()]
    assert decided.keys() == house.records(pool).keys()
    assert all(row["keep"] == (row["reason"] == "kept") for row in decided.values())
    assert (result.n_kept, result.n_holdout) == (reasons.count("kept"), reasons.count("holdout"))
    assert result.n_in == reasons.count("kept") + reasons.count("pruned")
    assert result.n_control == sum(row["control"] for row in decided.values())
    assert not any(row["control"] and row["reason"] == "holdout" for row in decided.values())


@pytest.mark.parametrize("method", SCORED)
def test_the_fraction_is_met_exactly_where_the_sample_is_everything(house: House, method: str) -> None:
    result = house.prune(house.put(notes()), method=method, keep_fraction=0.5)
    assert result.n_kept == round(result.n_in * 0.5)
    assert sum(result.cluster_sizes) == result.n_in
    assert result.scores is not None and result.scores.n_rows == result.n_in


@pytest.mark.parametrize("method", METHODS)
def test_order_and_files_change_no_bit(make_house: Callable[[], House], method: str) -> None:
    rows = notes()
    one, other = make_house(), make_house()
    first = one.prune(one.put(rows), method=method, keep_fraction=0.5)
    second = other.prune(other.put(shuffled(rows), n_files=5), method=method, keep_fraction=0.5)
    assert first.snapshot.digest == second.snapshot.digest
    assert (first.scores and first.scores.digest) == (second.scores and second.scores.digest)


@pytest.mark.parametrize("method", METHODS)
def test_erased_is_never_seen(make_house: Callable[[], House], method: str) -> None:
    rows = notes()
    rest = [row for row in rows if row["person"] != "p3"]
    erased, never = make_house(), make_house()
    erased.prune(erased.put(rows), method=method, keep_fraction=0.5)
    after = erased.prune(erased.put(rest, n_files=2), method=method, keep_fraction=0.5)
    fresh = never.prune(never.put(shuffled(rest)), method=method, keep_fraction=0.5)
    assert not after.found
    assert after.snapshot.digest == fresh.snapshot.digest
    assert erased.lake.lineage(after.snapshot).summary == never.lake.lineage(fresh.snapshot).summary


def outside_the_sample(house: House, rows: list[Row], sample_rows: int) -> str:
    """Someone with records that train, and none in the sample."""
    pool = house.lake.snapshot("records/notes")
    table = house.lake.read(pool)
    places = row_places(table, house.settings().table("notes").subject, house.lake.keys)
    out = ~in_sample(places, sample_level(pool.n_rows, sample_rows))
    kept = {row["row_id"] for row in house.lake.read(house.lake.snapshot("training_set/d")).to_pylist() if row["keep"]}
    people = zip(table.column("person").to_pylist(), table.column("row_id").to_pylist(), out, strict=True)
    return next(person for person, row_id, free in people if free and row_id in kept)


@pytest.mark.parametrize("method", METHODS)
def test_a_row_outside_the_sample_changes_nobody_else(house: House, method: str) -> None:
    rows = notes()
    options = {"method": method, "keep_fraction": 0.5, "sample_rows": 70}
    before = house.prune(house.put(rows), **options)
    digests = [house.shard_digests(before)]
    gone = outside_the_sample(house, rows, 70)
    after = house.prune(house.put([row for row in rows if row["person"] != gone]), **options)
    one, other = house.decisions(before), house.decisions(after)
    assert len(one) == len(other) + 3
    assert all(one[row_id] == row for row_id, row in other.items())
    assert moved_shards(*digests, house.shard_digests(after)) == [next(one[i]["shard"] for i in one.keys() - other.keys())]


@pytest.mark.gpu
@pytest.mark.parametrize("method", SCORED)
def test_a_gpu_decides_as_the_cpu_does(make_house: Callable[[], House], method: str) -> None:
    here, there, far = make_house(), make_house(), make_house()
    one = here.prune(here.put(notes()), method=method, keep_fraction=0.5, device="cpu")
    other = there.prune(there.put(shuffled(notes()), n_files=3), method=method, keep_fraction=0.5, device="gpu")
    with cluster(far.settings(device="gpu"), n_bytes=1) as scheduler:
        pool = far.put(notes(), n_files=4)
        third = far.prune(pool, method=method, keep_fraction=0.5, device="gpu", scheduler=scheduler)
    assert one.snapshot.digest == other.snapshot.digest == third.snapshot.digest
    assert one.scores and other.scores and third.scores
    assert one.scores.digest == other.scores.digest == third.scores.digest


@pytest.mark.gpu
def test_the_setting_says_where_distances_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [device_here(wanted) for wanted in ("auto", "gpu", "cpu")] == ["cuda", "cuda", "cpu"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert device_here("auto") == "cpu"


def test_a_subject_stays_together(house: House) -> None:
    pool = house.put(notes())
    decided, homes = house.decisions(house.prune(pool, method="none")), defaultdict(set)
    for row_id, row in house.records(pool).items():
        homes[row["person"]].add((decided[row_id]["shard"], decided[row_id]["slice"], decided[row_id]["reason"]))
    assert all(len(home) == 1 for home in homes.values())
    assert {shard for home in homes.values() for shard, _, _ in home} == {0, 1, 2}


@pytest.mark.parametrize("method", SCORED)
def test_held_out_people_have_no_say(make_house: Callable[[], House], method: str) -> None:
    """Without the rows of those who are held out, everybody else's decision is the same."""
    rows = notes()
    house, other = make_house(), make_house()
    pool = house.put(rows)
    decided = house.decisions(house.prune(pool, method=method, keep_fraction=0.5))
    judges = {r["person"] for i, r in house.records(pool).items() if decided[i]["reason"] == "holdout"}
    assert judges
    rest = other.prune(other.put([r for r in rows if r["person"] not in judges]), method=method, keep_fraction=0.5)
    assert other.decisions(rest).items() <= decided.items()


def test_selection_is_obeyed(house: House) -> None:
    pool = house.put(notes())
    row_ids = sorted(house.records(pool))
    selection = house.choose(row_ids, [i % 2 == 0 for i in range(len(row_ids))])
    result = house.prune(pool, selection, method="density", keep_fraction=0.5)
    decided = house.decisions(result)
    assert all(decided[row_id]["reason"] in ("not_selected", "holdout") for row_id in row_ids[1::2])
    assert all(decided[row_id]["reason"] != "not_selected" for row_id in row_ids[::2])
    assert result.n_kept == round(0.5 * result.n_in)
    expected = result.n_kept / (len(row_ids) - result.n_holdout)
    assert abs(house.lake.lineage(result.snapshot).summary["control_fraction"] - expected) < 1e-3


def test_a_sample_without_anything_selected_says_so(house: House) -> None:
    pool = house.put(notes())
    nothing = house.choose(sorted(house.records(pool)), [False] * pool.n_rows)
    with pytest.raises(EmptySample, match="sample_rows"):
        house.prune(pool, nothing, method="density", sample_rows=50)
    assert house.prune(pool, nothing, method="density").n_in == 0


def test_the_second_run_is_found(house: House) -> None:
    pool = house.put(notes())
    first = house.prune(pool, method="density", keep_fraction=0.5)
    again = house.prune(house.put(shuffled(notes()), n_files=4), method="density", keep_fraction=0.5)
    assert again.found and not first.found
    assert (again.snapshot.digest, again.n_kept, again.scores) == (first.snapshot.digest, first.n_kept, first.scores)
    assert not house.prune(pool, method="density", keep_fraction=0.4).found


def test_the_rare_class_keeps_its_floor(house: House) -> None:
    rows = [row for row in notes(60) if row["topic"] == "sport"] + [row for row in notes(60) if row["topic"] == "money"][:12]
    pool = house.put(rows)
    result = house.prune(pool, method="prototypes", keep="easy", keep_fraction=0.3, holdout=0.0)
    kept = house.decisions(result)
    topics = [row["topic"] for row_id, row in house.records(pool).items() if kept[row_id]["keep"]]
    assert topics.count("money") >= min(12, result.n_kept // 4)


@pytest.mark.parametrize("method", SCORED)
def test_tables_without_text(house: House, method: str) -> None:
    pool = house.put(notes(), n_files=2)
    result = house.prune(pool, method=method, keep_fraction=0.5, text=None)
    assert result.n_kept == round(result.n_in * 0.5)


def test_images(make_house: Callable[[], House]) -> None:
    rng = np.random.default_rng(0)
    rows = [{"person": f"p{i % 30}", "pixels": rng.integers(0, 16, 64).tolist(), "topic": str(i % 2)} for i in range(120)]
    schema = pa.schema([("person", pa.string()), ("pixels", pa.list_(pa.int64())), ("topic", pa.string())])
    one, other = make_house(), make_house()
    first = one.prune(one.put(rows, schema=schema), text=None, method="density", keep_fraction=0.5)
    second = other.prune(other.put(shuffled(rows), n_files=3, schema=schema), text=None, method="density", keep_fraction=0.5)
    assert first.snapshot.digest == second.snapshot.digest
    assert first.n_kept == round(first.n_in * 0.5)


def test_nothing_to_compare_by_is_refused(house: House) -> None:
    pool = house.put([{"person": f"p{i}", "topic": "a"} for i in range(9)])
    with pytest.raises(NothingToEmbed, match=r"datasets\.d"):
        house.prune(pool, method="density", text=None)
    assert house.prune(pool, method="random", text=None, keep_fraction=0.5).n_in > 0


def test_going_back_to_earlier_settings_makes_their_output_the_newest(house: House) -> None:
    pool = house.put(notes())
    first = house.prune(pool, method="density", keep_fraction=0.8)
    house.prune(pool, method="density", keep_fraction=0.4)
    again = house.prune(pool, method="density", keep_fraction=0.8)
    assert again.found
    assert again.snapshot == house.lake.snapshot("training_set/d")
    assert (again.n_kept, again.snapshot.digest) == (first.n_kept, first.snapshot.digest)
    assert again.scores == house.lake.snapshot("scores/d")


@pytest.mark.parametrize("method", ["density", "none"])
def test_a_pool_without_records_gives_an_empty_training_set(house: House, method: str) -> None:
    full = house.put(notes())
    schema = house.lake.schema(full)
    empty = house.lake.commit("records/notes", schema, [], overwrite=True, lineage=LINEAGE)
    result = house.prune(empty, method=method)
    assert (result.n_in, result.n_kept, result.snapshot.n_rows) == (0, 0, 0)
    assert house.prune(empty, method=method).found


def test_the_order_of_columns_changes_no_decision(make_house: Callable[[], House]) -> None:
    rows = [{**row, "other": float(n % 7), "word": "ab"[n % 2]} for n, row in enumerate(notes())]
    turned = [dict(sorted(row.items(), reverse=True)) for row in rows]
    found = [(one := make_house()).prune(one.put(r), method="density", keep_fraction=0.5, text=None) for r in (rows, turned)]
    assert found[0].snapshot.digest == found[1].snapshot.digest


def test_a_column_that_is_not_there_is_named(house: House) -> None:
    with pytest.raises(ConfigError, match=r"text names column 'story'; it has: person, body"):
        house.prune(house.put(notes()), text="story", method="density")
