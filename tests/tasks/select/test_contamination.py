"""Contamination against sets of word tuples; boilerplate; cuts that leave nothing of a span; neighbours against all pairs."""

from __future__ import annotations

import re
from collections import Counter
from random import Random

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.contracts import CONTAMINATED, CONTAMINATION
from infra.select_settings import DecontaminateSettings
from infra.spans import without
from tasks.kernels.spans import gram_set
from tasks.select.contamination import (
    FEWEST_RECORDS,
    Evaluation,
    common_grams,
    contaminated,
    contamination_table,
    evaluation_of,
    frequencies,
)
from tasks.select.contamination_neighbours import nearest, neighbours
from tasks.select.verdicts import CUT, VERDICT

LICENCE = "this work is provided as is without warranty of any kind express or implied"
QUESTION = "a train leaves the station at noon and travels west at sixty miles an hour until it stops"
texts = st.lists(st.lists(st.sampled_from("abc"), max_size=20).map(" ".join), min_size=1, max_size=12)


def of(tables: dict[str, list[str]], n: int = 13) -> Evaluation:
    return evaluation_of({name: gram_set(pa.array(items, pa.string()), n=n) for name, items in tables.items()}, n=n)


def asked(**options: object) -> DecontaminateSettings:
    return DecontaminateSettings.model_validate({"tables": ["gsm"], **options})


def verdicts_on(hits: pa.Table, wanted: DecontaminateSettings, n_sampled: int) -> pa.Table:
    """The verdicts where the keyed sample holds the records up to `n_sampled`, told range by range."""
    ranges = [hits.filter(pc.equal(pc.bit_wise_and(hits.column("row_id"), 1), half)) for half in (0, 1)]
    common = common_grams([frequencies(part, np.arange(n_sampled)) for part in ranges], n_sampled, wanted)
    return pa.concat_tables([contaminated(part, common, wanted) for part in ranges]).sort_by("row_id").combine_chunks()


def judged(pool: list[str], tables: dict[str, list[str]], **options: object) -> dict[int, dict]:
    """Verdicts by the record's place in the pool."""
    wanted = asked(**options)
    hits = contamination_table(np.arange(len(pool)), pa.array(pool, pa.string()), of(tables, wanted.n))
    table = verdicts_on(hits, wanted, len(pool))
    assert table.schema == VERDICT
    return {row["row_id"]: row for row in table.to_pylist()}


def longest_spans(pool: list[str], items: list[str], n: int, max_records: float) -> list[int]:
    """The longest run of words of each record that lie in shared n-grams which few records hold."""
    grams = {tuple(words[i : i + n]) for words in (re.findall(r"\w+", item) for item in items) for i in range(len(words) - n + 1)}
    documents = [re.findall(r"\w+", text) for text in pool]
    held = [[tuple(words[i : i + n]) for i in range(len(words) - n + 1)] for words in documents]
    frequency = Counter(gram for mine in held for gram in set(mine))
    rare = {gram for gram in grams if frequency[gram] <= max_records or frequency[gram] < FEWEST_RECORDS}
    found = []
    for words, mine in zip(documents, held, strict=True):
        marks = ["."] * len(words)
        for i, gram in enumerate(mine):
            if gram in rare:
                marks[i : i + n] = "x" * n
        found.append(max(map(len, re.findall("x+", "".join(marks))), default=0))
    return found


@settings(deadline=None, max_examples=150)
@given(texts, texts, st.integers(6, 8))
def test_the_longest_span_is_that_of_all_pairs_of_words(pool: list[str], items: list[str], min_span: int) -> None:
    items = [item for item in items if len(item.split()) >= 4]
    found = judged(pool, {"gsm": items}, n=4, min_span=min_span)
    spans = longest_spans(pool, items, 4, 0.01 * len(pool))
    assert {i: row["value"] for i, row in found.items()} == {i: n for i, n in enumerate(spans) if n >= min_span}
    assert all(row["bound"] == min_span and row["signal"] == "gsm" for row in found.values())


@settings(deadline=None, max_examples=100)
@given(texts, texts, st.integers(1, 5), st.randoms())
def test_files_order_and_copies_do_not_matter(pool: list[str], items: list[str], n_files: int, random: Random) -> None:
    evaluation, wanted = of({"gsm": items, "boolq": items[:2]}, 5), asked(n=5, action="cut")
    whole = verdicts_on(contamination_table(np.arange(len(pool)), pa.array(pool), evaluation), wanted, len(pool))
    places = [*range(len(pool)), 0, len(pool) - 1]
    random.shuffle(places)
    files = [places[i::n_files] for i in range(n_files)]
    parts = [contamination_table(np.array(f, np.int64), pa.array([pool[i] for i in f], pa.string()), evaluation) for f in files]
    assert verdicts_on(pa.concat_tables(parts), wanted, len(pool)).equals(whole)


def spans_of(text: str, cuts: list[int]) -> list[str]:
    """What is cut out of a text."""
    return [text.encode()[begin:end].decode() for begin, end in zip(cuts[::2], cuts[1::2], strict=True)]


@settings(deadline=None, max_examples=100)
@given(texts, texts)
def test_what_is_cut_is_gone_and_what_is_not_stays(pool: list[str], items: list[str]) -> None:
    cut = judged(pool, {"gsm": items}, n=5, action="cut", max_document_fraction=1.0)
    drop = judged(pool, {"gsm": items}, n=5, max_document_fraction=1.0)
    assert cut.keys() == drop.keys()
    for i, row in cut.items():
        assert (row["reason"] == CONTAMINATED) == (row["cuts"] is None)
        if row["cuts"] is not None:
            left = without(pa.array([pool[i]]), pa.array([row["cuts"]], pa.list_(pa.int32())))[0].as_py()
            lost = [word for span in spans_of(pool[i], row["cuts"]) for word in span.split()]
            assert Counter(left.split()) + Counter(lost) == Counter(pool[i].split()) and left.split() and len(lost) >= 5


def test_boilerplate_does_not_count_and_a_question_does() -> None:
    pool = [f"note {i} says {LICENCE} and ends with {i}" for i in range(40)] + [f"story {i} about nothing" for i in range(60)]
    pool[7] += f" so: {QUESTION.upper()}!"
    tables = {"gsm": [f"{QUESTION}. {LICENCE}"], "boolq": ["is the sky blue or green"]}
    found = judged(pool, tables, max_document_fraction=0.1)
    assert list(found) == [7] and found[7]["reason"] == CONTAMINATED
    assert (found[7]["signal"], found[7]["value"], found[7]["bound"]) == ("gsm", len(QUESTION.split()), 13.0)
    assert len(judged(pool, tables, max_document_fraction=0.5)) == 40
    (cut,) = judged(pool, tables, max_document_fraction=0.1, action="cut").values()
    assert cut["reason"] == CUT and spans_of(pool[7], cut["cuts"]) == [QUESTION.upper()]


def test_few_records_are_no_boilerplate() -> None:
    pool = [f"{i} {LICENCE}" for i in range(FEWEST_RECORDS - 1)]
    assert len(judged(pool, {"gsm": [LICENCE]}, max_document_fraction=0.01)) == len(pool)


def test_a_short_item_counts_whole_unless_a_span_is_asked_for() -> None:
    pool = ["they asked: who wrote the Iliad then?", "who wrote the Odyssey then"]
    found = judged(pool, {"gsm": ["Who wrote the Iliad then"]})
    assert {i: (row["value"], row["bound"]) for i, row in found.items()} == {0: (5.0, 5.0)}
    assert judged(pool, {"gsm": ["Who wrote the Iliad then"]}, min_span=8) == {}


def test_a_record_of_which_nothing_is_left_is_dropped() -> None:
    half = "one two three four five six"
    pool = [f"...{half}? Seven eight nine ten eleven!", f"{half} and more"]
    tables = {"a": [half], "b": ["five six seven eight nine ten eleven"]}
    found = judged(pool, tables, n=5, action="cut")
    assert (found[0]["reason"], found[0]["cuts"], found[0]["signal"]) == (CONTAMINATED, None, "b")
    assert (found[1]["reason"], found[1]["cuts"]) == (CUT, [0, len(half)])


def test_an_evaluation_is_who_has_what() -> None:
    def told(tables: dict[str, list[str]]) -> tuple[object, ...]:
        found = of(tables)
        arrays = (found.grams.hashes, found.grams.n_words, found.offsets, found.owners)
        return found.tables, *(array.tobytes() for array in arrays)

    tables = {"a": [QUESTION, LICENCE], "b": [LICENCE]}
    assert told(tables) == told({"b": [LICENCE], "a": [LICENCE, QUESTION, QUESTION]})
    others = [{"a": [QUESTION], "b": [LICENCE]}, {"a": [LICENCE], "b": [LICENCE, QUESTION]}, {"a": tables["a"], "c": [LICENCE]}]
    assert len({told(t) for t in (tables, *others)}) == 4


def test_spans_of_two_tables_are_cut_once() -> None:
    text = "x é one two three four five six seven eight y"
    (row,) = judged(
        [text], {"a": ["one two three four five six"], "b": ["four five six seven eight"]}, n=5, action="cut"
    ).values()
    assert spans_of(text, row["cuts"]) == ["one two three four five six seven eight"]
    assert row["signal"] == "a" and row["value"] == 6.0


@pytest.mark.parametrize("pool", [[], ["", "nothing of the kind"]])
def test_no_hits(pool: list[str]) -> None:
    hits = contamination_table(np.arange(len(pool)), pa.array(pool, pa.string()), of({"gsm": [QUESTION], "none": []}))
    assert hits.schema == CONTAMINATION and hits.num_rows == 0
    for action in ("drop", "cut"):
        found = verdicts_on(hits, asked(action=action), len(pool))
        assert found.equals(VERDICT.empty_table())


def test_what_is_boilerplate_is_told_by_the_sample() -> None:
    """Twenty records hold a text. Where the sample holds nine of them it is none; where it holds them all, it is."""
    pool = [QUESTION] * 20 + ["other words"] * 20
    hits = contamination_table(np.arange(40), pa.array(pool), of({"gsm": [QUESTION]}))
    found = [verdicts_on(hits, asked(), n).num_rows for n in (9, 10, 40)]
    assert found == [20, 0, 0]


# --- neighbours ----------------------------------------------------------------------------------------------------------------


def test_neighbours_are_those_of_all_pairs_whatever_the_files() -> None:
    rng = np.random.default_rng(0)
    points, items = rng.integers(-3, 4, (600, 8)).astype(np.int16), rng.integers(-3, 4, (9, 8)).astype(np.int16)
    points[5], items[3] = 0, 0
    ids, item_ids = rng.permutation(10_000)[:600], np.arange(9) * 7
    whole = neighbours(points, ids, items, item_ids, 4)
    expected = list[tuple[int, int, int]]()
    for item, point in zip(item_ids, items, strict=True):
        rows = sorted((int(((point - p).astype(int) ** 2).sum()), int(i)) for p, i in zip(points, ids, strict=True) if p.any())
        expected += [(int(item), i, distance) for distance, i in rows[:4] if point.any()]
    assert [tuple(row.values()) for row in whole.to_pylist()] == expected
    parts = [neighbours(points[s], ids[s], items, item_ids, 4) for s in (slice(300, 600), slice(0, 301))]  # row 300 twice
    assert nearest(parts, 4).equals(whole)


def test_fewer_records_than_neighbours() -> None:
    point = np.ones((1, 4), np.int16)
    found = neighbours(point, np.array([3]), 2 * point, np.array([8]), 5)
    assert found.to_pylist() == [{"item": 8, "row_id": 3, "distance": 4}]
    assert neighbours(point[:0], np.zeros(0, np.int64), point, np.array([8]), 5).num_rows == 0
