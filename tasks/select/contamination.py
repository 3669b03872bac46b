"""Records that hold text of evaluation tables: hits of their n-grams, joined to spans, less what many records hold. Pure.

A hit is a window of n words of a record that an evaluation text holds too. Hits that overlap or touch make a span, and a record
is judged by its longest one (ConTAM, Singh et al., arXiv 2411.03923). N-grams that many records of the pool hold say nothing of
an evaluation table (licences, greetings, templates): their document frequency is counted among the records of the keyed sample,
so that no other record has a part in it, and those above the bound are left out before spans are made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from infra.contracts import CONTAMINATED, CONTAMINATION
from infra.ids import I64
from infra.select_settings import DecontaminateSettings
from tasks.kernels.spans import Grams, find_grams, joined_grams
from tasks.select.verdicts import CUT, verdicts

Mask = npt.NDArray[np.bool_]
FEWEST_RECORDS = 10  # an n-gram that fewer records of the sample hold is never boilerplate, however small the pool


# --- what is looked for --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The n-grams of all evaluation tables, and who has them: gram g stands in tables[owners[offsets[g] : offsets[g + 1]]]."""

    tables: tuple[str, ...]
    grams: Grams
    offsets: I64
    owners: I64


def evaluation_of(grams: Mapping[str, Grams], *, n: int) -> Evaluation:
    """Evaluation tables by name as one set, so that the pool is read once for all of them."""
    tables = tuple(sorted(grams))
    whole = joined_grams([grams[table] for table in tables], n=n)
    places = [np.searchsorted(whole.hashes, grams[table].hashes) for table in tables]
    owners = np.concatenate([np.zeros(0, np.int64), *(np.full(len(at), i) for i, at in enumerate(places))])
    held = np.concatenate([np.zeros(0, np.int64), *places])
    order = np.argsort(held, kind="stable")
    offsets = np.searchsorted(held[order], np.arange(len(whole.hashes) + 1))
    return Evaluation(tables, whole, offsets.astype(np.int64), owners[order])


# --- one file of the pool ------------------------------------------------------------------------------------------------------


def contamination_table(row_ids: I64, texts: pa.Array | pa.ChunkedArray, evaluation: Evaluation) -> pa.Table:
    """CONTAMINATION rows of records: one for each hit and evaluation table that has its n-gram."""
    hits = find_grams(texts, evaluation.grams)
    n_tables = np.diff(evaluation.offsets)[hits.grams]
    rows = np.repeat(np.arange(len(hits.grams)), n_tables)
    nth = np.arange(len(rows)) - np.repeat(np.cumsum(n_tables) - n_tables, n_tables)
    owners = evaluation.owners[evaluation.offsets[hits.grams[rows]] + nth]
    records = np.repeat(np.arange(len(row_ids)), np.diff(hits.offsets))[rows]
    grams = hits.grams[rows]
    columns = {
        "row_id": row_ids[records],
        "table": pa.array(evaluation.tables, pa.string()).take(pa.array(owners)),
        "gram": evaluation.grams.hashes[grams].view(np.int64),
        "word": hits.words[rows],
        "n_words": evaluation.grams.n_words[grams],
        "begin": hits.begins[rows],
        "end": hits.ends[rows],
        "of_words": hits.n_words[records],
    }
    return pa.table([pa.array(columns[field.name]).cast(field.type) for field in CONTAMINATION], schema=CONTAMINATION)


# --- ranges of records: document frequency, spans, verdicts --------------------------------------------------------------------


@dataclass(frozen=True)
class Spans:
    """Runs of words that a record shares with an evaluation table, by (record, table, place): `words` is the number of words
    before a run, `begins` and `ends` its bytes. `tables` are numbers of names; `bounds` is what a run has to reach."""

    row_ids: I64
    tables: I64
    words: I64
    n_words: I64
    begins: I64
    ends: I64
    of_words: I64
    bounds: I64

    def take(self, which: I64 | Mask) -> Spans:
        return Spans(*(getattr(self, name)[which] for name in self.__dataclass_fields__))


def frequencies(hits: pa.Table, sampled: I64) -> tuple[I64, I64]:
    """The n-grams of some records' CONTAMINATION rows, and how many of the records of row ids `sampled` hold each; copies count
    once."""
    grams, row_ids = (np.asarray(hits.column(name)) for name in ("gram", "row_id"))
    known = np.isin(row_ids, sampled)
    grams, row_ids = grams[known], row_ids[known]
    order = np.lexsort([row_ids, grams])
    grams, row_ids = grams[order], row_ids[order]
    new = np.ones(len(order), np.bool_)
    new[1:] = (grams[1:] != grams[:-1]) | (row_ids[1:] != row_ids[:-1])
    return np.unique(grams[new], return_counts=True)


def common_grams(found: Sequence[tuple[I64, I64]], n_sampled: int, asked: DecontaminateSettings) -> I64:
    """The n-grams that are boilerplate, sorted: too many of the sample's `n_sampled` records hold them. `found` are the
    frequencies of all ranges of row ids."""
    grams, places = np.unique(np.concatenate([np.zeros(0, np.int64), *(grams for grams, _ in found)]), return_inverse=True)
    n_records = np.zeros(len(grams), np.int64)
    np.add.at(n_records, places, np.concatenate([np.zeros(0, np.int64), *(counts for _, counts in found)]))
    return grams[(n_records > asked.max_document_fraction * n_sampled) & (n_records >= FEWEST_RECORDS)]


def contaminated(hits: pa.Table, common: I64, asked: DecontaminateSettings) -> pa.Table:
    """VERDICT rows of records, from all of their CONTAMINATION rows, less the n-grams that are common.

    One row a record whose longest span counts: dropped, or cut by `cuts`. A record of which no word would be left is dropped.
    """
    names = sorted(hits.column("table").unique().to_pylist())
    places = pc.index_in(hits.column("table"), pa.array(names, pa.string()))
    columns = {name: np.asarray(hits.column(name)).astype(np.int64) for name in CONTAMINATION.names if name != "table"}
    columns = _by_place({**columns, "table": np.asarray(places).astype(np.int64)})
    rare = np.isin(columns["gram"], common, invert=True)
    spans = _spans({name: values[rare] for name, values in columns.items()}, asked)
    spans = spans.take(spans.n_words >= spans.bounds)
    return _judged(spans, names, cuts=asked.action == "cut")


def _by_place(columns: dict[str, I64]) -> dict[str, I64]:
    """Hits by (record, table, word, length), each once: copies of a record have equal hits."""
    keys = [columns[name] for name in ("row_id", "table", "word", "n_words")]
    order = np.lexsort(keys[::-1])
    new = np.ones(len(order), np.bool_)
    new[1:] = np.any([key[order][1:] != key[order][:-1] for key in keys], axis=0)
    return {name: values[order[new]] for name, values in columns.items()}


def _spans(hits: dict[str, I64], asked: DecontaminateSettings) -> Spans:
    """The runs of sorted hits. One has to reach `min_span`, or, if that is not set, n: less where it is a whole short text."""
    lasts = hits["word"] + hits["n_words"]
    firsts = _runs([hits["row_id"], hits["table"]], hits["word"], lasts)
    longest = _largest(hits["n_words"], firsts)
    return Spans(
        row_ids=hits["row_id"][firsts],
        tables=hits["table"][firsts],
        words=hits["word"][firsts],
        n_words=_largest(lasts, firsts) - hits["word"][firsts],
        begins=hits["begin"][firsts],
        ends=_largest(hits["end"], firsts),
        of_words=hits["of_words"][firsts],
        bounds=longest if asked.min_span is None else np.full(len(firsts), asked.min_span, np.int64),
    )


def _runs(owners: Sequence[I64], starts: I64, ends: I64) -> I64:
    """Where the runs begin of intervals that overlap or touch and have one owner; sorted by (owners, start)."""
    new = np.ones(len(starts), np.bool_)
    new[1:] = np.any([owner[1:] != owner[:-1] for owner in owners], axis=0)
    away = np.cumsum(new) * (ends.max(initial=0) + 1)  # owners one behind the other on one line
    reached = np.maximum.accumulate(ends + away)
    new[1:] |= (starts + away)[1:] > reached[:-1]
    return np.flatnonzero(new)


def _largest(values: I64, firsts: I64) -> I64:
    """The largest value of each run."""
    return np.maximum.reduceat(values, firsts) if len(firsts) else values


def _judged(spans: Spans, names: Sequence[str], *, cuts: bool) -> pa.Table:
    """One verdict a record, told by its longest span (of equals, the first table's first)."""
    order = np.lexsort([spans.tables, -spans.n_words, spans.row_ids])
    row_ids, first = np.unique(spans.row_ids[order], return_index=True)
    longest = spans.take(order[first])
    columns: dict[str, object] = {
        "reason": CONTAMINATED,
        "signal": pa.array(names, pa.string()).take(pa.array(longest.tables)),
        "value": longest.n_words.astype(np.float64),
        "bound": longest.bounds.astype(np.float64),
    }
    if cuts and len(row_ids):
        flat, empty = _cuts(spans, row_ids)
        columns["reason"] = pa.array(np.where(empty, CONTAMINATED, CUT).tolist(), pa.string())
        columns["cuts"] = [None if gone else cut for gone, cut in zip(empty.tolist(), flat, strict=True)]
    return verdicts(row_ids, **columns)


def _cuts(spans: Spans, row_ids: I64) -> tuple[list[list[int]], Mask]:
    """Of each record the bytes to cut, [begin, end, begin, end, ...], and whether they hold all of its words."""
    ordered = spans.take(np.lexsort([spans.words, spans.row_ids]))
    lasts = ordered.words + ordered.n_words
    firsts = _runs([ordered.row_ids], ordered.words, lasts)
    pairs = np.stack([ordered.begins[firsts], _largest(ordered.ends, firsts)], axis=1)
    n_words = _largest(lasts, firsts) - ordered.words[firsts]
    places = np.searchsorted(ordered.row_ids[firsts], row_ids)
    flat = [pair.ravel().tolist() for pair in np.split(pairs, places[1:])]
    return flat, np.add.reduceat(n_words, places) >= ordered.of_words[firsts][places]
