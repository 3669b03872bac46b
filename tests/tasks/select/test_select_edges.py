"""Selection with all its steps on what is hardly there, on bad input, and after a run that was killed."""

from __future__ import annotations

import math
import random
import resource
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from infra.contracts import Snapshot
from infra.ids import in_sample, sample_level
from infra.lake import Lake
from infra.settings import ConfigError
from infra.subjects import row_places
from tasks.select.budget import Budget, Candidates, Floors, admitted, fit_cuts, totals_of
from tasks.select.frames import labels
from tasks.select.plan import EmptyTarget
from tasks.select.safety import TooManyValues
from tasks.select.task import select
from tasks.select.weights import target_keys
from tests.tasks.select.test_select_steps import CARS, ITEM, NEWS, NOTES, STEPS, WORDS, pool_rows, row, target_rows, text

ALL_STEPS: dict[str, Any] = {
    **STEPS,
    "decontaminate": {"tables": ["exam"], "n": 8, "neighbours": 1},
    "floors": {"by": "label", "min_fraction": 0.1},
    "safety": {"by": ["label"]},
}
MEASURES = ("signals", "contamination", "signatures", "neighbours")


def slow(*values: Any) -> list[Any]:
    """Parameters of a test that are left to the slow run."""
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]


def beside(house: Any) -> tuple[Snapshot, ...]:
    """Two targets and an evaluation table."""
    rows = {"speech": target_rows(WORDS), "faq": target_rows(CARS), "exam": [{"text": ITEM}]}
    return tuple(house.put(name, some, NOTES) for name, some in rows.items())


BOTH = {"target": {"speech": 1, "faq": 2}}


# --- nothing to choose from ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["importance", "clusters", "none", *slow("simcore", "transport", "score")])
def test_a_pool_with_nothing_in_it_selects_nothing(house: Any, method: str) -> None:
    judges, ends = beside(house), list[Any]()
    asked = {**BOTH, **ALL_STEPS, "method": method, "score": {"column": "quality"} if method == "score" else None}
    blank = [row(1, None), row(2, " \n"), row(3, "")]
    for rows in ([], blank, [*blank, *(row(i, text(random.Random(i), WORDS + CARS, 6)) for i in range(9))]):
        pool = house.put("news", rows, NEWS)
        result = house.select([pool], *judges, **asked)
        assert house.select([pool], *judges, **asked).found
        ends.append((result.n_raw, result.n_kept, result.figures["n_by_reason"]))
    assert ends == [(0, 0, {}), (3, 0, {"filtered": 3}), (12, 0, {"filtered": 12})]
    assert house.select([], *judges, **asked).n_raw == 0


def test_a_target_that_the_pool_knows_nothing_of(house: Any) -> None:
    """N-grams then tell records apart by nothing but the noise; an embedding has nothing to say, and the target is named."""
    pool, judge = house.put("news", pool_rows(60), NEWS), house.put("speech", [{"text": "unheard of"}], NOTES)
    assert house.select([pool], judge, keep_fraction=0.5).n_kept == 32
    with pytest.raises(EmptyTarget, match="speech"):
        house.select([pool], judge, method="clusters")


def test_a_budget_that_is_none_is_told(house: Any) -> None:
    pool, judges = house.put("news", pool_rows(40)[:40], NEWS), beside(house)
    small = house.select([pool], *judges, n_tokens=3)
    assert small.n_kept == 0 and "None of 40 candidates is kept" in small.warnings[0]
    floors = house.select([pool], *judges, n_rows=2, floors={"by": "label", "min_rows": 5})
    assert floors.n_kept == 10 and "floors alone are more than the budget" in floors.warnings[0]
    assert house.select([pool], *judges, n_rows=10**12).n_kept == 40
    assert house.select([pool], *judges, n_rows=10**12, exact=True, sample_rows=10).n_kept == 40


# --- columns -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", [{"floors": {"by": "tags", "min_rows": 1}}, {"safety": {"by": ["tags"]}}])
def test_a_column_of_no_class_is_refused(house: Any, asked: dict[str, Any]) -> None:
    judges = beside(house)
    for kind, value in ((pa.list_(pa.string()), ["x"]), (pa.binary(), b"\xff"), (pa.struct([("x", pa.int8())]), {"x": 1})):
        schema = pa.schema([*NEWS, ("tags", kind)])
        pool = house.put("news", [{**one, "tags": value} for one in pool_rows(4)], schema)
        with pytest.raises(ConfigError, match="'tags' holds"):
            house.select([pool], *judges, **asked)


def test_persons_are_no_classes_and_are_not_told(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    short = [row(i, f"short {i}", quality=0.8125) | {"author": "zoe-99"} for i in range(20)]
    pool, judges = house.put("news", [*pool_rows(60), *short], NEWS), beside(house)
    by = {"floors": {"by": "author", "min_rows": 1}, "safety": {"by": ["author", "quality"], "min_rows": 10}}
    result = house.select([pool], *judges, **by, keep_fraction=0.9, filters={"word_count": [8, None]})
    assert [("column author" in said, "column quality" in said) for said in result.warnings] == [(True, False), (False, True)]
    told = f"{house.lake.lineage(result.snapshot)} {result}"
    assert "zoe" not in told and "0.8125" not in told and "a13" not in told
    monkeypatch.setattr("tasks.select.safety.MAX_VALUES", 16)
    for asked in ({"floors": by["floors"]}, {"safety": {"by": ["author"]}}):
        with pytest.raises(TooManyValues, match="'author'"):
            house.select([pool], *judges, **asked)


def test_another_text_column_of_a_target_is_counted_again(house: Any) -> None:
    rng = random.Random(1)
    two = pa.schema([("text", pa.string()), ("other", pa.string())])
    judge = house.put("speech", [{"text": text(rng, WORDS), "other": text(rng, CARS)} for _ in range(20)], two)
    pool, settings = house.put("news", pool_rows(60), NEWS), house.settings()
    speech = settings.tables["speech"].model_copy(update={"text": "other"})
    other = settings.model_copy(update={"tables": {**settings.tables, "speech": speech}})
    first, second = (house.decisions(select.fn(one, "d", (pool,), (judge,))) for one in (settings, other))
    labels = {one["row_id"]: one["label"] for one in house.lake.read(pool).to_pylist()}
    cars = [sum(d["keep"] and labels[i] == "cars" for i, d in made.items()) for made in (first, second)]
    assert cars[1] > 25 > 5 > cars[0]


# --- the laws with every step --------------------------------------------------------------------------------------------------


def test_a_subject_outside_the_sample_moves_nobody_with_every_step(house: Any) -> None:
    """Among them: whoever made an n-gram just so frequent that it was boilerplate."""
    judges, steps = beside(house), {**BOTH, **ALL_STEPS, "near_duplicates": None, "sample_rows": 100}
    rows = [
        row(i, f"{text(random.Random(i), WORDS, 30)} {ITEM if i % 8 < 2 else ''}") | {"author": f"b{i // 4}"} for i in range(400)
    ]
    asked = {**steps, "decontaminate": {"tables": ["exam"], "n": 8, "max_document_fraction": 0.25}}
    pool = house.put("news", rows, NEWS, n_files=3)
    assert sample_level(400, 100) == sample_level(380, 100) == 2
    records = house.lake.read(pool)
    outside = ~in_sample(row_places(records, house.settings().tables["news"].subject, house.lake.keys), 2)
    first = house.decisions(house.select([pool], *judges, **asked))
    for author in sorted({a for a, out in zip(records.column("author").to_pylist(), outside, strict=True) if out})[:5]:
        rest = house.put("news", [one for one in rows if one["author"] != author], NEWS)
        second = house.decisions(house.select([rest], *judges, **asked))
        assert len(first) - len(second) == 4
        assert second == {row_id: first[row_id] for row_id in second}


@pytest.mark.parametrize(
    ("asked", "budget"),
    [
        ({"n_rows": 31}, Budget(n_rows=31, shares=(1, 2))),
        ({"n_tokens": 1_000}, Budget(n_tokens=1_000, shares=(1, 2))),
        (
            {"keep_fraction": 0.2, "floors": {"by": "label", "min_rows": 16}},
            Budget(fraction=0.2, shares=(1, 2), floors=Floors(min_rows=16)),
        ),
    ],
)
def test_exact_is_a_fit_on_all_candidates(house: Any, asked: dict[str, Any], budget: Budget) -> None:
    """The weights towards each target are those of a selection by it alone; the cuts are fitted on all of them here."""
    pool = house.put("news", pool_rows(150), NEWS, n_files=2)
    judges, few = beside(house), {"sample_rows": 30, "filters": STEPS["filters"], "temperature": 0.05}
    made = house.decisions(house.select([pool], *judges, **BOTH, **few, **asked, exact=True))
    alone = [house.decisions(house.select([pool], *judges, **few, target=name)) for name in BOTH["target"]]
    ids = np.array([i for i in sorted(made) if made[i]["reason"] in ("kept", "below_threshold")])
    weights = np.array([[decisions[i]["log_weight"] for decisions in alone] for i in ids])
    rows = {one["row_id"]: one for one in house.lake.read(pool).to_pylist()}
    n_tokens = np.array([len(rows[i]["body"].split()) for i in ids])
    strata = np.array([int("floors" in asked and rows[i]["label"] == "words") for i in ids], np.int32)
    keys = target_keys(weights, ids, [*BOTH["target"]], temperature=0.05, seed=0)
    open_ = Candidates(ids, keys, n_tokens, strata)
    keep, target = admitted(open_, fit_cuts(open_, totals_of(open_, 2), budget))
    named = [None if t < 0 else [*BOTH["target"]][t] for t in target]
    assert [made[i]["keep"] for i in ids] == keep.tolist() and 0 < keep.sum() < len(ids)
    assert [made[i]["target"] for i in ids] == named and len({*named}) == 3


class _Killed(BaseException):
    pass


@pytest.mark.parametrize("stage", ["contamination", *slow("ngram_counts", "signals", "signatures", "selection", "neighbours")])
@pytest.mark.parametrize("late", [True, *slow(False)])
def test_a_killed_run_is_completed(
    make_house: Callable[[], Any], monkeypatch: pytest.MonkeyPatch, stage: str, late: bool
) -> None:
    """Killed at a commit, and with rows gone before the next try: the end is that of a lake that never had them."""
    rows, asked, house, clean = pool_rows(60), {**BOTH, **ALL_STEPS}, make_house(), make_house()
    judges, commit = beside(house), Lake.commit

    def killed(self: Lake, table: str, *args: Any, **named: Any) -> Snapshot:
        if table == f"{stage}/d" and not late:
            raise _Killed
        made = commit(self, table, *args, **named)
        if table == f"{stage}/d":
            raise _Killed
        return made

    pool = house.put("news", rows, NEWS, n_files=2)
    with monkeypatch.context() as patched, pytest.raises(_Killed):
        patched.setattr(Lake, "commit", killed)
        house.select([pool], *judges, **asked)
    again = house.select([house.put("news", rows[3:], NEWS, n_files=2)], *judges, **asked)
    never = clean.select([clean.put("news", rows[3:], NEWS)], *beside(clean), **asked)
    assert house.decisions(again) == clean.decisions(never) and again.snapshot.digest == never.snapshot.digest
    assert counted(house) == counted(clean)
    gone = set(house.ids(pool)) - set(clean.decisions(never))
    for table in (f"{name}/d" for name in MEASURES):
        ours, theirs = (sorted(map(str, h.lake.read(h.lake.snapshot(table)).to_pylist())) for h in (house, clean))
        assert ours == theirs and not any(str(i) in one for i in gone for one in ours), table


def counted(house: Any) -> dict[str, list[int]]:
    """The n-gram counts of each table, added up."""
    found = dict[str, Any]()
    for one in house.lake.read(house.lake.snapshot("ngram_counts/d")).to_pylist():
        found[one["table"]] = found.get(one["table"], 0) + np.array(one["counts"], np.int64)
    return {table: counts.tolist() for table, counts in found.items()}


def test_what_is_found_lets_go_of_what_other_settings_left(house: Any) -> None:
    """Settings change, rows go, and change back: the selection is found with its counts, and none of the rows is left."""
    judges, rows = beside(house), pool_rows(60)
    small = house.put("news", rows[3:], NEWS)
    first = house.select([small], *judges)
    before = counted(house)
    house.select([house.put("news", rows, NEWS)], *judges, seed=7, filters=STEPS["filters"])
    again = house.select([small := house.put("news", rows[3:], NEWS)], *judges)
    assert again.found and again.snapshot.digest == first.snapshot.digest
    kept = {(s.table, p.file.path) for s in (small, *judges) for p in house.lake.parts(s)}
    for one in house.lake.read(house.lake.snapshot("ngram_counts/d")).to_pylist():
        assert (one["table"].replace("target:", "records/"), one["file"]) in kept
    assert house.lake.snapshot("signals/d").n_rows == 0 and counted(house) == before


# --- one huge document ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_one_document_of_a_hundred_megabytes(house: Any) -> None:
    """All steps take it, in memory of some times its size."""
    rng = random.Random(0)
    piece = " ".join(text(rng, WORDS, 12) for _ in range(10_000))
    huge = (piece + " ") * (100_000_000 // len(piece))
    pool = house.put("news", [*pool_rows(40), row(999, f"{huge} {ITEM}")], NEWS)
    judges, before = beside(house), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    made = house.decisions(house.select([pool], *judges, **BOTH, **ALL_STEPS))
    ends = [one for one in made.values() if one["reason"] == "contaminated"]
    assert len(ends) == 2 and {one["value"] for one in ends} == {17.0}
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 3_000_000


def test_values_that_a_row_id_takes_for_one_are_one_stratum() -> None:
    values = pa.array([0.0, -0.0, None, 1.5, math.nan])
    expected = ["0", "0", None, "1.5", "nan"]
    assert labels(values).to_pylist() == labels(values.dictionary_encode()).to_pylist() == expected
    assert labels(pa.array(["b", "a", None]).dictionary_encode()).to_pylist() == ["b", "a", None]
    assert labels(pa.array([7, None])).to_pylist() == ["7", None]
