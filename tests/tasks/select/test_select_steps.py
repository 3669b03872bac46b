"""Selection with all its steps: every reason told as it should be, and the laws held with everything switched on."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from distributed import LocalCluster

from infra.contracts import UnknownTable
from infra.settings import ConfigError
from tasks.select.safety import SourceLost
from tasks.select.task import select

NEWS = pa.schema([("author", pa.string()), ("body", pa.large_string()), ("label", pa.string()), ("quality", pa.float64())])
NOTES = pa.schema([("text", pa.string())])
WORDS = [f"{a}{b}" for a in ("cat", "dog", "sea", "sun", "oak", "ink", "jam", "kit", "log", "map") for b in "abcdefgh"]
CARS = [f"{a}{b}" for a in ("car", "van", "bus", "cab") for b in "abcdefgh"]
ITEM = "the capital of the small republic of andorra is andorra la vella and nothing else at all"
STEPS: dict[str, Any] = {
    "filters": {"word_count": [8, None]},
    "near_duplicates": {"jaccard": 0.7, "shingle": 3},
    "decontaminate": {"tables": ["exam"], "n": 8},
}


def text(rng: random.Random, words: list[str], n: int = 40) -> str:
    return " ".join(rng.choices(words, k=n))


def row(i: int, body: str | None, quality: float | None = 0.5) -> dict[str, Any]:
    return {
        "author": f"a{i % 17}",
        "body": body,
        "label": "cars" if body and body.startswith(tuple(CARS)) else "words",
        "quality": quality,
    }


def pool_rows(n: int = 120) -> list[dict[str, Any]]:
    """Texts of two sorts, and one record for each reason to be dropped."""
    rng = random.Random(3)
    rows = [row(i, text(rng, WORDS if i % 2 else CARS), quality=i / n) for i in range(n)]
    first = rows[0]["body"]
    special = [
        row(900, "too short"),
        row(901, first + " oncemore"),
        row(902, first.upper() + "!"),
        row(903, text(rng, WORDS) + " " + ITEM + " " + text(rng, WORDS)),
        row(904, None),
        row(905, " \n "),
    ]
    return [*rows, *special]


def target_rows(words: list[str], n: int = 40) -> list[dict[str, Any]]:
    rng = random.Random(5)
    return [{"text": text(rng, words)} for _ in range(n)]


def by_author(house: Any, pool: Any, result: Any) -> dict[str, dict[str, Any]]:
    """Decisions on the special records, by what stands in `author` (their number is in no other)."""
    made = house.decisions(result)
    rows = house.lake.read(pool).to_pylist()
    return {row["body"]: made[row["row_id"]] for row in rows}


def test_each_record_is_told_its_reason(house: Any) -> None:
    rows = pool_rows()
    pool, exam = house.put("news", rows, NEWS), house.put("exam", [{"text": ITEM}], NOTES)
    result = house.select([pool], house.put("speech", target_rows(WORDS), NOTES), exam, **STEPS, keep_fraction=0.5)
    made, (short, near, equal, leaked, null, blank) = by_author(house, pool, result), [r["body"] for r in rows[-6:]]
    assert (made[short]["reason"], made[short]["signal"], made[short]["value"], made[short]["bound"]) == (
        "filtered",
        "word_count",
        2,
        8,
    )
    assert (made[leaked]["reason"], made[leaked]["signal"], made[leaked]["value"]) == ("contaminated", "exam", 17.0)
    assert {made[null]["reason"], made[blank]["reason"]} == {"filtered"}
    group = [made[near], made[equal], made[rows[0]["body"]]]
    assert Counter(one["reason"] in ("duplicate", "near_duplicate") for one in group) == {True: 2, False: 1}
    stays = next(one for one in group if one["representative"] is None)
    assert {one["representative"] for one in group} == {None, stays["row_id"]}
    assert result.figures["n_by_reason"]["filtered"] == result.figures["n_by_signal"]["word_count"] == 3
    assert sum(result.figures["n_by_reason"].values()) == result.n_raw == len(rows)
    candidates = [one for one in made.values() if one["reason"] in ("kept", "below_threshold")]
    assert result.n_kept == round(len(candidates) / 2) == sum(one["keep"] for one in made.values())


@pytest.mark.parametrize("sample_rows", [100_000, 60])
def test_order_partition_and_files_change_nothing(make_house: Callable[[], Any], sample_rows: int) -> None:
    outcomes = list[Any]()
    for n_files, backwards in ((1, False), (4, True)):
        house, rows = make_house(), pool_rows()
        pool = house.put("news", rows[::-1] if backwards else rows, NEWS, n_files=n_files)
        beside = house.put("speech", target_rows(WORDS), NOTES), house.put("exam", [{"text": ITEM}], NOTES)
        result = house.select([pool], *beside, **STEPS, sample_rows=sample_rows, floors={"by": "label", "min_fraction": 0.2})
        figures = {k: v for k, v in result.figures.items() if not k.startswith("n_counted")}
        outcomes.append((house.decisions(result), figures))
    assert outcomes[0] == outcomes[1]


def test_an_erased_representative_was_never_there(make_house: Callable[[], Any]) -> None:
    """Law 3: the duplicate that it stood for takes its place, and nothing is left of it in what was measured."""
    house, fresh, rows = make_house(), make_house(), pool_rows()
    beside = [h.put(name, r, NOTES) for h in (house,) for name, r in (("speech", target_rows(WORDS)), ("exam", [{"text": ITEM}]))]
    first = house.put("news", rows, NEWS, n_files=3)
    before = house.decisions(house.select([first], *beside, **STEPS))
    gone = next(d["representative"] for d in before.values() if d["representative"] is not None)
    left = [r for r, i in zip(rows, house.ids(house.put("news", rows, NEWS)), strict=True) if i != gone]
    assert len(left) == len(rows) - 1
    after = house.decisions(house.select([house.put("news", left, NEWS, n_files=2)], *beside, **STEPS))
    never = [fresh.put("speech", target_rows(WORDS), NOTES), fresh.put("exam", [{"text": ITEM}], NOTES)]
    assert after == fresh.decisions(fresh.select([fresh.put("news", left, NEWS)], *never, **STEPS))
    for table in ("signals/d", "signatures/d", "contamination/d"):
        known = set(house.lake.read(house.lake.snapshot(table)).column("row_id").to_pylist())
        assert gone in before and gone not in known and known <= set(after)


def test_a_new_file_is_measured_alone(house: Any) -> None:
    beside = house.put("speech", target_rows(WORDS), NOTES), house.put("exam", [{"text": ITEM}], NOTES)
    house.select([house.put("news", pool_rows(), NEWS, n_files=3)], *beside, **STEPS)
    versions = [{p.file.path for p in house.lake.parts(house.lake.snapshot(f"{t}/d"))} for t in ("signals", "signatures")]
    grown = house.put("news", [row(7, "one more record with enough words to stay in the pool")], NEWS, reuse=True)
    house.select([grown], *beside, **STEPS)
    for table, before in zip(("signals", "signatures"), versions, strict=True):
        now = {p.file.path for p in house.lake.parts(house.lake.snapshot(f"{table}/d"))}
        assert before < now and len(now) == len(before) + 1


def test_a_selection_that_is_found_has_its_measures(house: Any) -> None:
    """The same rows in other files: nothing is decided anew, and what explains the decisions is there all the same."""
    beside = house.put("speech", target_rows(WORDS), NOTES), house.put("exam", [{"text": ITEM}], NOTES)

    def measures() -> list[list[str]]:
        tables = ("signals/d", "signatures/d", "contamination/d")
        return [sorted(map(str, house.lake.read(house.lake.snapshot(table)).to_pylist())) for table in tables]

    def counts() -> np.ndarray:
        return np.sum(house.lake.read(house.lake.snapshot("ngram_counts/d")).column("counts").to_pylist(), axis=0)

    first = house.select([house.put("news", pool_rows(), NEWS, n_files=3)], *beside, **STEPS)
    before, n = measures(), counts()
    compacted = house.put("news", pool_rows(), NEWS)
    found = house.select([compacted], *beside, **STEPS)
    assert found.found and not first.found and found.figures == first.figures
    assert measures() == before and counts().tolist() == n.tolist() and all(before)
    other = {**STEPS, "decontaminate": {"tables": ["exam"], "n": 5}, "seed": 1}
    assert not house.select([compacted], *beside, **other).found and measures() != before
    assert house.select([compacted], *beside, **STEPS).found
    assert measures() == before and counts().tolist() == n.tolist()


def test_signals_are_there_to_look_at_before_a_bound_is_set(house: Any) -> None:
    pool = house.put("news", pool_rows(20), NEWS)
    result = house.select([pool], target=None, signals=True)
    signals = house.lake.read(house.lake.snapshot("signals/d")).to_pylist()
    assert result.n_kept == result.n_raw - 2 and len(signals) == 26  # two have no text
    assert min(row["word_count"] for row in signals) == 0


def test_a_cut_record_stays_without_the_span(house: Any) -> None:
    rows = pool_rows()
    pool, exam = house.put("news", rows, NEWS), house.put("exam", [{"text": ITEM}], NOTES)
    asked = {"decontaminate": {"tables": ["exam"], "n": 8, "action": "cut"}, "keep_fraction": 1.0}
    made = by_author(house, pool, house.select([pool], house.put("speech", target_rows(WORDS), NOTES), exam, **asked))
    leaked = rows[-3]["body"]
    begin, end = made[leaked]["cuts"]
    assert made[leaked]["keep"] and leaked.encode()[begin:end].decode() == ITEM


# --- targets, budgets, floors --------------------------------------------------------------------------------------------------


def test_targets_have_their_shares(house: Any) -> None:
    """A quarter of what is kept is drawn towards the second target, and reads like it."""
    pool = house.put("news", pool_rows(400)[:400], NEWS)
    beside = house.put("speech", target_rows(WORDS), NOTES), house.put("faq", target_rows(CARS), NOTES)
    result = house.select([pool], *beside, target={"speech": 3, "faq": 1}, n_rows=100, temperature=0.01)
    made = house.decisions(result)
    kept = Counter(d["target"] for d in made.values() if d["keep"])
    assert kept == {"speech": 75, "faq": 25}
    labels = {r["row_id"]: r["label"] for r in house.lake.read(pool).to_pylist()}
    assert Counter((d["target"], labels[i]) for i, d in made.items() if d["keep"]) == {
        ("speech", "words"): 75,
        ("faq", "cars"): 25,
    }
    assert result.figures["targets"]["faq"]["kept"] == 25 and result.figures["targets"]["faq"]["kl_raw"] > 0


def test_a_budget_of_tokens_is_kept(house: Any) -> None:
    pool = house.put("news", pool_rows(200)[:200], NEWS)
    result = house.select([pool], house.put("speech", target_rows(WORDS), NOTES), n_tokens=1_999)
    assert result.n_kept == 49 and result.figures["n_tokens"] == 49 * 40  # each text has 40 tokens


def test_a_floor_keeps_some_of_each_stratum(house: Any) -> None:
    pool = house.put("news", pool_rows(200)[:200], NEWS)
    judge = house.put("speech", target_rows(WORDS), NOTES)
    labels = {r["row_id"]: r["label"] for r in house.lake.read(pool).to_pylist()}

    def kept(**asked: Any) -> Counter[str]:
        made = house.decisions(house.select([pool], judge, keep_fraction=0.3, temperature=0.01, **asked))
        return Counter(labels[i] for i, d in made.items() if d["keep"])

    assert kept() == {"words": 60}
    assert kept(floors={"by": "label", "min_rows": 12}) == {"words": 48, "cars": 12}


# --- scores, other spaces, the reference --------------------------------------------------------------------------------------


def test_a_score_is_a_bound_or_a_weight(house: Any) -> None:
    rows = [row(i, f"record number {i} of the pool", quality=None if i == 5 else i / 100) for i in range(100)]
    pool = house.put("news", rows, NEWS)

    def made(**score: Any) -> list[dict[str, Any]]:
        return list(house.decisions(house.select([pool], target=None, score={"column": "quality", **score})).values())

    ends = Counter(d["reason"] for d in made(threshold=0.6))
    assert ends == {"kept": 40, "filtered": 59, "no_score": 1}
    low = next(d for d in made(threshold=0.6) if d["reason"] == "filtered")
    assert low["signal"] == "score" and low["value"] < low["bound"] == 0.6
    assert Counter(d["reason"] for d in made(percentile=10, prefer="low")) == {"kept": 10, "filtered": 89, "no_score": 1}
    soft = made()
    assert Counter(d["reason"] for d in soft) == {"kept": 50, "below_threshold": 49, "no_score": 1}
    quality = {r["row_id"]: r["quality"] for r in house.lake.read(pool).to_pylist()}
    means = [sum(quality[d["row_id"]] for d in soft if d["reason"] == end) for end in ("kept", "below_threshold")]
    assert means[0] > 2 * means[1]


def test_a_bound_that_no_score_gives_is_a_bound_all_the_same(house: Any) -> None:
    rows = [row(i, f"record number {i} of the pool", quality=None) for i in range(10)]
    asked = {"target": None, "score": {"column": "quality", "percentile": 50}}
    made = house.decisions(house.select([house.put("news", rows, NEWS)], **asked))
    assert {d["reason"] for d in made.values()} == {"no_score"}


def test_a_score_that_is_not_there_is_named(house: Any) -> None:
    pool = house.put("news", pool_rows(10), NEWS)
    with pytest.raises(ConfigError, match="'qualty'"):
        house.select([pool], target=None, score={"column": "qualty", "threshold": 0.5})
    with pytest.raises(ConfigError, match="word_cout"):
        house.select([pool], target=None, filters={"word_cout": [1, None]})
    with pytest.raises(ConfigError, match="'lable'"):
        house.select([pool], target=None, filters={"word_count": [1, None]}, floors={"by": "lable", "min_rows": 1})


@pytest.mark.parametrize("method", ["clusters", *(pytest.param(m, marks=pytest.mark.slow) for m in ("simcore", "transport"))])
def test_other_spaces_find_what_is_like_the_target(house: Any, method: str) -> None:
    pool = house.put("news", pool_rows(120), NEWS, n_files=2)
    result = house.select(
        [pool], house.put("speech", target_rows(CARS), NOTES), method=method, n_clusters=4, n_rows=40, temperature=0.01
    )
    labels = {r["row_id"]: r["label"] for r in house.lake.read(pool).to_pylist()}
    kept = Counter(labels[i] for i, d in house.decisions(result).items() if d["keep"])
    assert kept["cars"] >= 36 and result.kl_reduction is None


def test_the_reference_drops_short_documents(house: Any) -> None:
    rng = random.Random(4)
    rows = [row(i, text(rng, WORDS, 99 + i % 2)) for i in range(40)]
    pool = house.put("news", rows, NEWS)
    result = house.select([pool], house.put("speech", target_rows(WORDS), NOTES), mode="parity", keep_fraction=0.5)
    made = by_author(house, pool, result)
    assert Counter(d["reason"] for d in made.values()) == {"too_short": 20, "kept": 10, "below_threshold": 10}
    assert all((d["reason"] == "too_short") == (len(body.split()) < 100) for body, d in made.items())
    short = next(d for d in made.values() if d["reason"] == "too_short")
    assert (short["signal"], short["value"], short["bound"]) == ("n_tokens", 99.0, 100.0)


# --- safety --------------------------------------------------------------------------------------------------------------------


def test_a_lost_source_stops_the_selection(house: Any) -> None:
    news = house.put("news", pool_rows(200)[:200], NEWS)
    notes = house.put("notes", [{"text": f"tiny {i}"} for i in range(150)], NOTES)
    judge = house.put("speech", target_rows(WORDS), NOTES)
    asked = {"filters": {"word_count": [5, None]}, "safety": {"max_source_loss": 0.99}}
    with pytest.raises(SourceLost, match="notes"):
        house.select([news, notes], judge, **asked)
    with pytest.raises(UnknownTable):
        house.lake.snapshot("selection/d")
    warned = house.select([news, notes], judge, filters={"word_count": [5, None]})
    assert warned.warnings and "notes" in warned.warnings[0]


def test_neighbours_of_evaluation_items_are_listed(house: Any) -> None:
    """A record that says an item in other words is the first of its list; nothing is dropped for it."""
    item = "which city is the capital of the republic of andorra"
    rng = random.Random(8)
    talk = [row(i, text(rng, [*item.split(), *WORDS], 12)) for i in range(40)]
    rows = [*pool_rows(60)[:60], *talk, row(907, "of the republic of andorra the capital is which city")]
    pool, exam = house.put("news", rows, NEWS, n_files=2), house.put("exam", [{"text": item}], NOTES)
    asked = {"decontaminate": {"tables": ["exam"], "neighbours": 2}, "keep_fraction": 1.0}
    result = house.select([pool], house.put("speech", target_rows(WORDS), NOTES), exam, **asked)
    listed = house.lake.read(house.lake.snapshot("neighbours/d")).to_pylist()
    near = by_author(house, pool, result)[rows[-1]["body"]]
    assert [one["table"] for one in listed] == ["exam", "exam"]
    assert listed[0]["row_id"] == near["row_id"] and near["keep"]


def test_workers_change_nothing_with_every_step(house: Any) -> None:
    """In this process and on a cluster: two runs that differ in a level of safety that nothing reaches."""
    pool = house.put("news", pool_rows(), NEWS, n_files=3)
    beside = house.put("speech", target_rows(WORDS), NOTES), house.put("exam", [{"text": ITEM}], NOTES)
    asked: dict[str, Any] = {**STEPS, "floors": {"by": "label", "min_rows": 5}, "exact": True, "sample_rows": 60}
    here = house.decisions(house.select([pool], *beside, **asked))
    settings = house.settings(**asked, safety={"warn_source_loss": 0.95})
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None) as cluster:
        made = select.fn(settings, "d", (pool,), beside, scheduler=cluster.scheduler_address)
    assert not made.found and house.decisions(made) == here
