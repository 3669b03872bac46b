"""Duplicates: the survivors against a dictionary and all pairs; order, partition, erasure; the workers against the whole."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra import files
from infra.cluster import connect
from infra.contracts import DUPLICATE, NEAR_DUPLICATE, SIGNATURES, DataFile
from infra.decisions import spill
from infra.files import Part
from infra.select_settings import NearDuplicateSettings
from tasks.select import duplicates_frames
from tasks.select.duplicates import (
    Followers,
    LastCopyLost,
    Links,
    Signatures,
    duplicate_verdicts,
    followers_of,
    graph_of,
    likeness_of,
    near_duplicates,
    signature_table,
    signatures_from,
)
from tasks.select.verdicts import CUT, VERDICT, verdicts
from tests.tasks.select.whole_duplicates import find_duplicates

ASKED = NearDuplicateSettings()
EXACT = NearDuplicateSettings(jaccard=1.0)
VOCABULARY = 50_000


def words(rng: np.random.Generator, n: int) -> list[str]:
    return [f"w{word}" for word in rng.integers(0, VOCABULARY, n)]


def edited(rng: np.random.Generator, base: list[str], fraction: float) -> list[str]:
    return [f"x{rng.integers(0, VOCABULARY)}" if rng.random() < fraction else word for word in base]


def corpus(seed: int = 0, n: int = 60) -> dict[int, str]:
    """Texts by row id: some alone, some with copies of which 0 to 4 in 100 words are changed."""
    rng = np.random.default_rng(seed)
    found = list[list[str]]()
    for _ in range(n):
        base = words(rng, int(rng.integers(60, 300)))
        found += [base, *(edited(rng, base, rng.choice([0, 0.005, 0.01, 0.04])) for _ in range(rng.integers(0, 5)))]
    ids = rng.permutation(np.arange(len(found)) * 7 + 1)
    return {int(i): " ".join(text) for i, text in zip(ids, found, strict=True)}


def signed(texts: dict[int, str | None], asked: NearDuplicateSettings = ASKED) -> pa.Table:
    return signature_table(np.asarray([*texts], np.int64), pa.array([*texts.values()], pa.string()), asked)


def found_in(table: pa.Table, asked: NearDuplicateSettings = ASKED) -> list[dict]:
    batches = table.combine_chunks().to_batches() or [pa.RecordBatch.from_pylist([], table.schema)]
    return in_order(find_duplicates(signatures_from(batches[0]), asked))


def in_order(table: pa.Table) -> list[dict]:
    assert table.schema.equals(VERDICT)
    return table.sort_by("row_id").to_pylist()


def duplicates_of(texts: dict[int, str | None], asked: NearDuplicateSettings = ASKED) -> list[dict]:
    return found_in(signed(texts, asked), asked)


def estimates(texts: dict[int, str]) -> tuple[dict[int, int], np.ndarray]:
    """The slow road: the number of equal values of all pairs of texts, and each text's place."""
    found = signatures_from(signed(texts).combine_chunks().to_batches()[0])
    equal = (found.minhash[:, None] == found.minhash[None]).sum(axis=2)
    return {row_id: i for i, row_id in enumerate(found.row_ids.tolist())}, equal


def slow(texts: dict[int, str]) -> dict[int, int]:
    """All pairs: who follows whom. The one with the most words leads, the least row id among equals."""
    place, equal = estimates(texts)
    least = likeness_of(ASKED).n_equal
    leading, follows = list[int](), dict[int, int]()
    for row_id in sorted(texts, key=lambda i: (-len(texts[i].split()), i)):
        similar = [other for other in leading if equal[place[row_id], place[other]] >= least]
        if similar:
            follows[row_id] = max(similar, key=lambda other: (equal[place[row_id], place[other]], -leading.index(other)))
        else:
            leading.append(row_id)
    return follows


# --- laws ----------------------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.integers(0, 2**62), st.none() | st.text("aB ,.é\xa0", max_size=8), max_size=14))
def test_equal_texts_are_those_a_dictionary_says(texts: dict[int, str | None]) -> None:
    groups = dict[tuple[str, ...], list[int]]()
    for row_id, text in texts.items():
        key = tuple(re.findall(r"\w+", (text or "").lower()))
        groups.setdefault(key, []).append(row_id)
    groups.pop((), None)
    expected = {row_id: min(ids) for ids in groups.values() for row_id in ids if row_id != min(ids)}
    rows = duplicates_of(texts, EXACT)
    assert {row["row_id"]: row["representative"] for row in rows} == expected
    assert all((row["reason"], row["value"], row["bound"]) == (DUPLICATE, 1.0, 1.0) for row in rows)


@pytest.mark.parametrize("seed", range(3))
def test_followers_are_those_of_all_pairs(seed: int) -> None:
    texts = corpus(seed)
    rows = duplicates_of(texts)
    assert {row["row_id"]: row["representative"] for row in rows} == slow(texts)
    assert len(rows) > 60 and {row["reason"] for row in rows} == {DUPLICATE, NEAR_DUPLICATE}


@pytest.mark.parametrize("asked", [ASKED, EXACT])
def test_a_group_keeps_one_record_that_is_similar_to_all_that_go(asked: NearDuplicateSettings) -> None:
    texts = corpus(5)
    rows = duplicates_of(texts, asked)
    gone = {row["row_id"] for row in rows}
    place, equal = estimates(texts)
    assert gone and not gone & {row["representative"] for row in rows}
    for row in rows:
        value = equal[place[row["row_id"]], place[row["representative"]]] / ASKED.n_permutations
        assert row["value"] == value >= row["bound"]


def test_order_and_copies_do_not_matter() -> None:
    table = signed(corpus(1))
    rng = np.random.default_rng(0)
    shuffled = table.take(pa.array(rng.permutation(np.concatenate([np.arange(len(table)), rng.integers(0, len(table), 50)]))))
    assert found_in(shuffled) == found_in(table)


@pytest.mark.parametrize("asked", [ASKED, EXACT])
def test_an_erased_record_was_never_seen(asked: NearDuplicateSettings) -> None:
    """Whichever record is erased, the rest is decided as if it had never been there; a representative's place is taken."""
    texts = corpus(2, n=12)
    whole = signed(texts, asked)
    for erased in texts:
        rest = {row_id: text for row_id, text in texts.items() if row_id != erased}
        left = found_in(whole.filter(pa.compute.not_equal(whole.column("row_id"), erased)), asked)
        assert left == duplicates_of(rest, asked)
        assert erased not in {row["representative"] for row in left}


def test_a_chain_does_not_take_its_far_end() -> None:
    """A ~ B ~ C, and C unlike A: B goes for A's sake, C stays. D, equal to C, goes for C's."""
    rng = np.random.default_rng(0)
    a = words(rng, 400)
    c = words(rng, 40) + a[40:-1]
    b = words(rng, 20) + a[20:]
    texts = {10: " ".join(a), 11: " ".join(b[:-1]), 12: " ".join(c[:-1]), 9: " ".join(words(rng, 100) + c[100:-1]) + ".", 13: ""}
    assert {row["row_id"]: row["representative"] for row in duplicates_of(texts)} == slow({i: t for i, t in texts.items() if t})
    links = Links(np.asarray([[10, 11], [11, 12]]), np.asarray([[9, 8], [8, 7]]), np.asarray([110, 120], np.int32))
    near = followers_of(graph_of(links), likeness_of(ASKED))
    assert (near.row_ids.tolist(), near.leaders.tolist()) == ([11], [10])


def test_planted_duplicates_are_found_and_nothing_else() -> None:
    rng = np.random.default_rng(3)
    bases = [words(rng, int(rng.integers(100, 400))) for _ in range(900)]
    for fraction, least in ((0.0, 1.0), (0.01, 0.97), (0.02, 0.85)):
        copies = [edited(rng, base, fraction) for base in bases[:300]]
        texts = {i: " ".join(text) for i, text in enumerate([*bases, *copies])}
        rows = duplicates_of(texts)
        pairs = {frozenset((row["row_id"], row["representative"])) for row in rows}
        assert pairs <= {frozenset((i, 900 + i)) for i in range(300)}
        assert len(pairs) >= least * 300


def test_a_template_of_a_thousand_records_keeps_one() -> None:
    """Records that all share a key are more than a bucket looks at in pairs."""
    rng = np.random.default_rng(4)
    form = words(rng, 300)
    texts = {i: " ".join([*form, *words(rng, 3)]) for i in range(1000)}
    rows = duplicates_of(texts)
    assert len(rows) == 999 and {row["representative"] for row in rows} == {0}


def test_who_is_linked_to_a_follower_only_is_compared_with_its_leader() -> None:
    """20 leads 10, the only one that 1 to 9 were compared with. 1 to 5 are like 20 too; 6 to 9 are not, but like each other."""
    n_words = {20: 99, 10: 98} | {i: 90 - i for i in range(1, 10)}
    asked = list[tuple[int, int]]()

    def confirmed(pairs: np.ndarray) -> Links:
        asked.extend((int(a), int(b)) for a, b in pairs)
        similar = [(a, b) for a, b in pairs.tolist() if b == 10 or (a, b) == (10, 20) or (b == 20) == (a <= 5)]
        words_of = [(n_words[a], n_words[b]) for a, b in similar]
        return Links(
            np.asarray(similar).reshape(-1, 2), np.asarray(words_of).reshape(-1, 2), np.full(len(similar), 100, np.int32)
        )

    near = near_duplicates(np.asarray([*((i, 10) for i in range(1, 10)), (10, 20)]), likeness_of(ASKED), confirmed)
    assert dict(zip(near.row_ids.tolist(), near.leaders.tolist(), strict=True)) == (
        dict.fromkeys([1, 2, 3, 4, 5, 10], 20) | dict.fromkeys([7, 8, 9], 6)
    )
    assert len(asked) == len(set(asked)), "a pair was looked at twice"


def test_a_large_template_follows_its_longest_record() -> None:
    """Bands show the longest record to a part of the others; the rest come to it by way of their centre, which follows it."""
    rng = np.random.default_rng(4)
    form = words(rng, 300)
    texts = {i: " ".join([*form, *words(rng, 3)]) for i in range(400)} | {400: " ".join([*form, *words(rng, 80)])}
    rows = duplicates_of(texts)
    assert {row["row_id"]: row["representative"] for row in rows} == slow(texts)
    assert len(rows) > 300 and {row["representative"] for row in rows} >= {400}


# --- an example, bad input -----------------------------------------------------------------------------------------------------


def test_one_example() -> None:
    long = "It was a bright cold day in April, and the clocks were striking thirteen; the vile wind blew."
    texts = {3: long, 1: long.upper(), 7: long.replace(",", " ;"), 5: "Something else altogether", 4: None, 6: "...", 8: "..."}
    rows = duplicates_of(texts)
    assert [(row["row_id"], row["reason"], row["representative"]) for row in rows] == [(3, DUPLICATE, 1), (7, DUPLICATE, 1)]
    assert duplicates_of({}) == [] == duplicates_of({1: None, 2: ""}) == duplicates_of({1: None}, EXACT)


def test_equals_of_a_record_that_follows_follow_with_it() -> None:
    rng = np.random.default_rng(8)
    base = words(rng, 200)
    longer = " ".join([*base, "more"])
    rows = duplicates_of({1: " ".join(base), 2: " ".join(base) + "!", 3: longer, 4: longer + "?"})
    assert [(row["row_id"], row["representative"]) for row in rows] == [(1, 3), (2, 3), (4, 3)]
    assert [row["reason"] for row in rows] == [NEAR_DUPLICATE, NEAR_DUPLICATE, DUPLICATE]
    assert [row["bound"] for row in rows] == [likeness_of(ASKED).bound] * 2 + [1.0]


def test_a_lost_last_copy_is_refused() -> None:
    hashes = np.asarray([[1, 1], [2, 2]], np.uint64)
    circle = Followers(np.asarray([1, 2]), np.asarray([2, 1]), np.asarray([0.9, 0.9]))
    with pytest.raises(LastCopyLost):
        duplicate_verdicts(np.asarray([1, 2]), hashes, circle, 0.8)


def test_the_table_reads_back_as_it_was_written() -> None:
    table = signed({1: "one two", 2: None, 3: "three"})
    assert table.schema.equals(SIGNATURES) and table.column("minhash").null_count == 1
    found = signatures_from(table.slice(1).combine_chunks().to_batches()[0])
    assert found.row_ids.tolist() == [3] and found.minhash.shape == (1, 128) and found.text_hashes.shape == (1, 2)
    exact = signed({1: "one two"}, EXACT)
    assert exact.column("minhash").null_count == 1 and exact.column("text_hash").null_count == 0


@pytest.mark.parametrize("n_permutations", [16, 64, 112, 128, 256, 1024])
@pytest.mark.parametrize("jaccard", [0.5, 0.7, 0.8, 0.95, 0.999])
def test_bands_show_what_is_similar_enough(n_permutations: int, jaccard: float) -> None:
    found = likeness_of(NearDuplicateSettings(jaccard=jaccard, n_permutations=n_permutations))
    assert 1 <= found.n_bands * found.n_rows <= n_permutations
    assert 0.8 * jaccard <= found.bound and found.n_equal <= np.ceil(n_permutations * jaccard)
    assert 1 - (1 - found.bound**found.n_rows) ** found.n_bands >= 0.97 or found.n_rows == 1


# --- workers -------------------------------------------------------------------------------------------------------------------


def part_of(folder: Path, name: str, table: pa.Table) -> Part:
    pq.write_table(table, folder / name)
    return Part(str(folder / name), DataFile(name, table.num_rows, 0, ""), SIGNATURES)


class Elsewhere:
    """Workers that know only what is sent to them, and do everything twice."""

    def map(self, fn: Callable[..., Any], items: Sequence[Any], *common: Any, **_: Any) -> list[Any]:
        sent = [pickle.dumps((fn, item, common)) for item in items]
        results = list[Any]()
        for message in [*sent, *sent]:
            work, item, rest = pickle.loads(message)
            results.append(work(item, *rest))
        return results[len(items) :]


@pytest.mark.parametrize("asked", [ASKED, EXACT])
@pytest.mark.parametrize("n_files", [1, 4])
def test_workers_say_what_is_said_of_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_files: int, asked: NearDuplicateSettings
) -> None:
    """Whatever the files and the partitions, with copies in several files and records that others dropped."""
    monkeypatch.setattr(duplicates_frames, "_PARTITION_ROWS", 150)
    monkeypatch.setattr(duplicates_frames, "_RANGE_ROWS", 40)
    monkeypatch.setattr(files, "ROW_GROUP_ROWS", 30)
    rng = np.random.default_rng(n_files)
    texts = {int(rng.integers(0, 2**62)): text for text in corpus(6).values()}
    ids = np.asarray([*texts])
    table = signed(texts, asked)
    gone, cut = ids[:25], ids[25:30]
    dropped = [
        spill(str(tmp_path / "v"), verdicts(gone, reason="filtered")),
        spill(str(tmp_path / "v"), verdicts(cut, reason=CUT)),
    ]
    file_of = rng.integers(0, n_files, table.num_rows)
    places = [np.flatnonzero((file_of == k) | (rng.random(len(file_of)) < 0.1)) for k in range(n_files)]
    parts = [part_of(tmp_path, f"{k}.parquet", table.take(pa.array(rng.permutation(rows)))) for k, rows in enumerate(places)]
    parts.append(part_of(tmp_path, "none.parquet", table.slice(0, 0)))
    uris = duplicates_frames.duplicates(Elsewhere(), parts, dropped, asked, str(tmp_path / "scratch"))
    left = table.filter(pa.array(~np.isin(ids, gone)))
    tables = [pq.read_table(uri) for uri in uris]
    assert len(tables) > 1 and all((np.diff(t.column("row_id")) > 0).all() for t in tables)
    assert in_order(pa.concat_tables(tables)) == found_in(left, asked)


def test_workers_take_nothing_for_nothing(tmp_path: Path) -> None:
    with connect(None) as workers:
        assert duplicates_frames.duplicates(workers, [], [], ASKED, str(tmp_path)) == []
        empty = part_of(tmp_path, "none.parquet", SIGNATURES.empty_table())
        assert duplicates_frames.duplicates(workers, [empty], [], ASKED, str(tmp_path)) == []
        blank = part_of(tmp_path, "blank.parquet", signed({1: None, 2: "!"}))
        (uri,) = duplicates_frames.duplicates(workers, [blank], [], ASKED, str(tmp_path))
    assert pq.read_table(uri).num_rows == 0


def test_links_below_the_bound_are_none() -> None:
    likeness = replace(likeness_of(ASKED), n_equal=128)
    rng = np.random.default_rng(0)
    minhash = rng.integers(0, 1 << 32, (2, 128)).astype(np.uint32)
    found = Signatures(np.asarray([1, 2]), np.asarray([9, 9]), rng.integers(0, 9, (2, 2)).astype(np.uint64), minhash)
    links = duplicates_frames.links_of(np.asarray([[1, 2]]), found, found, likeness)
    assert len(links.row_ids) == 0
