"""Equal and nearly equal records: which one stays of each group, and why the others go. Pure.

Records are equal when their texts have the same words in the same order. Nearly equal ones are found by MinHash (Broder, 1997)
with banding (Leskovec, Rajaraman and Ullman, "Mining of Massive Datasets", ch. 3): who shares a band is a candidate, who shares
enough of the whole signature is a pair. Groups gather about leaders: of linked records, the one with the most words leads (the
least row id among equals), and only records that are themselves similar to a leader go. A chain A ~ B ~ C never takes C away for
A's sake. All of it is a function of the rows: erase a leader, and the next one takes its place.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from infra.contracts import DUPLICATE, NEAR_DUPLICATE, SIGNATURES, LetheError
from infra.ids import F64, I64, U64
from infra.select_settings import NearDuplicateSettings
from tasks.kernels.minhash import signatures_of
from tasks.kernels.minhash_pairs import band_keys, bucket_pairs, components, leaders, may_recur, n_equal, sign_bits
from tasks.kernels.tokens import GOLDEN, I32, U32
from tasks.select.budget import Mask
from tasks.select.verdicts import verdicts

_DEVIATIONS = 4.5  # how far an estimate may fall short of the similarity that is asked for, in standard errors
_LEAST = 0.8  # of the similarity that is asked for: what no estimate may fall short of, however few values it is from
_FOUND = 0.98  # of the pairs that are just similar enough, the share that has a band in common
_ROUNDS = 2  # how often followers' other neighbours are looked at again


class LastCopyLost(LetheError):
    """Every record of a group of duplicates was to be dropped."""


# --- signatures ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Signatures:
    """Records with at least one word: row_ids (n,), n_words (n,), text_hashes (n, 2), minhash (n, n_permutations)."""

    row_ids: I64
    n_words: I64
    text_hashes: U64
    minhash: U32


def signature_table(row_ids: I64, texts: pa.Array | pa.ChunkedArray, asked: NearDuplicateSettings) -> pa.Table:
    """The signatures of texts, a row each (schema SIGNATURES); hashes of a text without a word are NULL."""
    n_permutations = asked.n_permutations if asked.jaccard < 1.0 else 0
    n_words, hashes, minhash = signatures_of(texts, n_permutations=n_permutations, shingle=asked.shingle, seed=asked.seed)
    has_words = pa.array(n_words > 0)
    columns = [pa.array(row_ids, pa.int64()), pa.array(n_words), _binary(hashes, has_words), _binary(minhash, has_words)]
    return pa.table(columns, schema=SIGNATURES)


def _binary(values: U64 | U32, known: pa.Array) -> pa.Array:
    """Each row of numbers as its bytes, little-endian; NULL where it is not known, or has none."""
    size = values.shape[1] * values.itemsize
    if not size or not len(values):
        return pa.nulls(len(values), pa.binary())
    rows = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    fixed = pa.FixedSizeBinaryArray.from_buffers(pa.binary(size), len(rows), [None, pa.py_buffer(rows)])
    return pc.if_else(known, fixed.cast(pa.binary()), None)


def signatures_from(batch: pa.RecordBatch) -> Signatures:
    """What `signature_table` wrote, of the records that have a word; without the column `minhash`, where that is not read."""
    batch = batch.filter(pc.is_valid(batch.column("text_hash")))
    row_ids, n_words = (np.asarray(batch.column(name)) for name in ("row_id", "n_words"))
    hashes = _numbers(batch.column("text_hash"), "<u8").astype(np.uint64).reshape(-1, 2)
    known = "minhash" in batch.schema.names
    minhash = _numbers(batch.column("minhash"), "<u4").astype(np.uint32) if known else np.zeros((len(row_ids), 0), np.uint32)
    return Signatures(row_ids, n_words, hashes, minhash)


def _numbers(column: pa.Array, kind: str) -> np.ndarray:
    """The bytes of `_binary` as numbers again; of shape (n, 0) where there are none."""
    if not len(column) or column.null_count:
        return np.zeros((len(column), 0), kind)
    _, offsets, data = column.cast(pa.large_binary()).buffers()
    bounds = np.frombuffer(offsets, np.int64)[[column.offset, column.offset + len(column)]]
    return np.frombuffer(data, np.uint8)[bounds[0] : bounds[1]].view(kind).reshape(len(column), -1)


# --- candidates ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Likeness:
    """What is asked of a pair: at least `n_equal` equal values of `n_permutations`, found by `n_bands` bands of `n_rows` values.

    An estimate of the similarity s from n values has the standard error sqrt(s (1 - s) / n), so that half of the pairs that are
    just as similar as was asked fall short of it: `n_equal` lies 4.5 standard errors lower, or at 0.8 of what was asked where
    values are few. That is also where bands without such a check, as other tools have them, find one pair in three (14 bands of
    8 values: at a similarity of 0.65). The bands are as long as they may be to show 98 in 100 of the pairs that just reach
    `n_equal`.
    """

    n_permutations: int
    n_equal: int
    n_bands: int
    n_rows: int

    @property
    def bound(self) -> float:
        """The least share of equal values, of which `n_equal` is the count."""
        return self.n_equal / self.n_permutations

    @cached_property
    def most_differing(self) -> int:
        """How many of the lowest bits of two signatures may differ: half of the other values' do, and 3 standard errors more."""
        other = self.n_permutations - self.n_equal
        return min(self.n_permutations, math.ceil(other / 2 + 1.5 * math.sqrt(other)))


def likeness_of(asked: NearDuplicateSettings) -> Likeness:
    """What `asked` comes to."""
    n, s = asked.n_permutations, asked.jaccard
    least = math.ceil(round(max(n * s - _DEVIATIONS * math.sqrt(n * s * (1 - s)), _LEAST * n * s), 9))
    bound = least / n
    n_rows = next((r for r in range(n, 0, -1) if 1 - (1 - bound**r) ** (n // r) >= _FOUND), 1)
    enough = math.ceil(math.log(1 - _FOUND) / math.log1p(-(bound**n_rows))) if bound < 1 else 1
    return Likeness(n, least, min(enough, n // n_rows), n_rows)


@dataclass(frozen=True)
class Entries:
    """Records under one key of each band, so that who shares a key is a candidate: arrays of length n * n_bands, bits of shape
    (n * n_bands, n_words64). `texts` is half of the text hash."""

    keys: U64
    row_ids: I64
    n_words: I64
    texts: U64
    bits: U64

    def take(self, which: I64) -> Entries:
        return Entries(self.keys[which], self.row_ids[which], self.n_words[which], self.texts[which], self.bits[which])


def entries_of(found: Signatures, likeness: Likeness) -> Entries:
    """The entries of records, band by band of each."""
    minhash = found.minhash.reshape(len(found.row_ids), likeness.n_permutations)
    keys, bits = band_keys(minhash, likeness.n_bands, likeness.n_rows), sign_bits(minhash)
    again = np.repeat(np.arange(len(keys)), likeness.n_bands)
    return Entries(keys.ravel(), found.row_ids[again], found.n_words[again], found.text_hashes[again, 0], bits[again])


def candidate_pairs(entries: Entries, likeness: Likeness) -> I64:
    """Pairs of row ids, the lower one first, that share a key and whose bits do not speak against them; int64 (m, 2), sorted.

    Of records with the same text the one with the least row id stands for all.
    """
    entries = _one_a_text(entries.take(np.flatnonzero(may_recur(entries.keys))))
    entries = entries.take(np.flatnonzero(may_recur(entries.keys)))
    entries = entries.take(np.lexsort((entries.row_ids, -entries.n_words, entries.keys)))
    buckets = np.flatnonzero(_begins(entries.keys, end=True))
    a, b = bucket_pairs(buckets, entries.bits, likeness.most_differing)
    return distinct_pairs(np.sort(np.stack([entries.row_ids[a], entries.row_ids[b]], axis=1), axis=1))


def _one_a_text(entries: Entries) -> Entries:
    """One entry for each key and text, of the least row id."""
    names = entries.keys ^ (entries.texts * GOLDEN)
    order = np.argsort(names)
    first = np.flatnonzero(_begins(names[order]))
    if not len(first):
        return entries
    return replace(entries.take(order[first]), row_ids=np.minimum.reduceat(entries.row_ids[order], first))


def _begins(*columns: npt.NDArray[np.generic], end: bool = False) -> Mask:
    """Where a row of sorted columns differs from the one before it; with `end`, one more True for what follows the last."""
    n = len(columns[0])
    found = np.ones(n + end, np.bool_)
    found[1:n] = np.any([column[1:] != column[:-1] for column in columns], axis=0)
    return found


def distinct_pairs(pairs: I64) -> I64:
    """Pairs once each, sorted; int64 (m, 2)."""
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    return pairs[_begins(pairs[:, 0], pairs[:, 1])]


# --- links ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Links:
    """Pairs of records that are similar enough: row ids (m, 2), words of each (m, 2), and the number of equal values (m,)."""

    row_ids: I64
    n_words: I64
    n_equal: I32


def links_of(pairs: I64, left: Signatures, right: Signatures, likeness: Likeness) -> Links:
    """The pairs that their whole signatures confirm. `left` and `right` hold the signatures of the first and of the second
    records of the pairs, sorted by row id."""
    a, b = np.searchsorted(left.row_ids, pairs[:, 0]), np.searchsorted(right.row_ids, pairs[:, 1])
    found = n_equal(left.minhash, right.minhash, a, b)
    which = np.flatnonzero(found >= likeness.n_equal)
    n_words = np.stack([left.n_words[a], right.n_words[b]], axis=1)
    return Links(pairs[which], n_words[which], found[which])


def joined_links(parts: list[Links]) -> Links:
    """Links one after the other."""
    none = np.zeros((0, 2), np.int64)
    return Links(
        np.concatenate([none, *(part.row_ids for part in parts)]),
        np.concatenate([none, *(part.n_words for part in parts)]),
        np.concatenate([np.zeros(0, np.int32), *(part.n_equal for part in parts)]),
    )


@dataclass(frozen=True)
class Followers:
    """Records that go because a similar one stays, sorted by row id: whom they follow, and how similar they are to it."""

    row_ids: I64
    leaders: I64
    values: F64

    @property
    def nbytes(self) -> int:
        return self.row_ids.nbytes + self.leaders.nbytes + self.values.nbytes


NO_FOLLOWERS = Followers(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))


@dataclass(frozen=True)
class Graph:
    """Linked records in the order in which they lead: row ids (n,), the links of each (`neighbours[starts[i]:starts[i + 1]]`, as
    places in that order), and whom each follows, a leader itself, with how many equal values."""

    row_ids: I64
    starts: I64
    neighbours: I64
    leader: I64
    n_equal: I32

    @property
    def is_led(self) -> Mask:
        return self.leader != np.arange(len(self.leader))


def graph_of(links: Links) -> Graph:
    """Who follows whom. Raises `LastCopyLost` where a leader would go itself, or a connected component be left with nobody."""
    ids, first, places = np.unique(links.row_ids, return_index=True, return_inverse=True)
    order = np.lexsort((ids, -links.n_words.ravel()[first]))
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    a, b = rank[places.reshape(-1, 2)].T
    sources, targets = np.concatenate([a, b]), np.concatenate([b, a])
    by_source = np.lexsort((targets, sources))
    starts = np.searchsorted(sources[by_source], np.arange(len(ids) + 1))
    found = Graph(
        ids[order], starts, targets[by_source], *leaders(starts, targets[by_source], np.tile(links.n_equal, 2)[by_source])
    )
    _assert_components_stay(found, components(len(ids), a, b))
    return found


def _assert_components_stay(graph: Graph, component: I64) -> None:
    stays = np.zeros(len(component), np.bool_)
    stays[component[~graph.is_led]] = True
    if graph.is_led[graph.leader].any() or not stays[component].all():
        raise LastCopyLost("a group of near duplicates was to lose its last record; nothing was written. Please report this")


def further_pairs(graph: Graph, at_round: int) -> I64:
    """Pairs worth a look after `at_round` others, as `distinct_pairs`: large buckets do not show all pairs.

    Where a record follows, those that are linked to it and follow nobody are compared with its leader, and with one of
    themselves, in each round with the next: their number is that of the links at most.
    """
    is_led = graph.is_led
    sources = np.repeat(np.arange(len(is_led)), np.diff(graph.starts))
    which = is_led[sources] & ~is_led[graph.neighbours]
    sources, targets = sources[which], graph.neighbours[which]
    begins = np.searchsorted(sources, sources)
    chosen = np.minimum(begins + at_round, np.searchsorted(sources, sources, side="right") - 1)
    left = np.concatenate([graph.leader[sources], targets[chosen]])
    places = np.stack([left, np.tile(targets, 2)], axis=1)
    places = places[places[:, 0] != places[:, 1]]
    return distinct_pairs(np.sort(graph.row_ids[places], axis=1))


def followers_of(graph: Graph, likeness: Likeness) -> Followers:
    """Those that go, for whom."""
    led = np.flatnonzero(graph.is_led)
    led = led[np.argsort(graph.row_ids[led])]
    return Followers(graph.row_ids[led], graph.row_ids[graph.leader[led]], graph.n_equal[led] / likeness.n_permutations)


def near_duplicates(pairs: I64, likeness: Likeness, confirmed: Callable[[I64], Links]) -> Followers:
    """Who goes for whom, of candidate pairs (as `distinct_pairs`) and a function that keeps those that signatures confirm."""
    ids = np.unique(pairs)
    links, seen = confirmed(pairs), _numbered(pairs, ids)
    graph = graph_of(links)
    for at_round in range(_ROUNDS):
        more = further_pairs(graph, at_round)
        more = more[~_is_in(_numbered(more, ids), seen)]
        if not len(more):
            break
        links, seen = joined_links([links, confirmed(more)]), np.sort(np.concatenate([seen, _numbered(more, ids)]))
        graph = graph_of(links)
    return followers_of(graph, likeness)


def _numbered(pairs: I64, ids: I64) -> I64:
    """A number for each pair of `ids`, in the order of `distinct_pairs`."""
    places = np.searchsorted(ids, pairs)
    return places[:, 0] * len(ids) + places[:, 1]


def _is_in(values: I64, known: I64) -> Mask:
    """Which values are among the known ones, which are sorted; cheaper than NumPy's where the values are few."""
    at = np.searchsorted(known, values)
    return known[np.minimum(at, len(known) - 1)] == values if len(known) else np.zeros(len(values), np.bool_)


# --- verdicts ------------------------------------------------------------------------------------------------------------------


def duplicate_verdicts(row_ids: I64, text_hashes: U64, near: Followers, bound: float) -> pa.Table:
    """Verdicts on records, any number of copies of each; of a text, all records must be among them.

    Of equal records the one with the least row id stays, unless it follows another: then its equals follow with it. `value` is
    the similarity to the representative, `bound` the least that counts. Raises `LastCopyLost` where not exactly one record of a
    group would stay.
    """
    order = np.lexsort((row_ids, text_hashes[:, 1], text_hashes[:, 0]))
    row_ids, text_hashes = row_ids[order], text_hashes[order]
    is_first = _begins(text_hashes[:, 0], text_hashes[:, 1])
    group = np.cumsum(is_first) - 1
    stays = row_ids[is_first]
    follows = _is_in(stays, near.row_ids)
    at = np.searchsorted(near.row_ids, stays[follows])
    representative, value = stays.copy(), np.ones(len(stays))
    representative[follows], value[follows] = near.leaders[at], near.values[at]
    goes = row_ids != representative[group]
    once = _begins(row_ids)
    _assert_one_stays(group, goes, once, follows, near)
    which = goes & once
    reason = np.where(follows[group], NEAR_DUPLICATE, DUPLICATE)[which]
    bounds = np.where(follows[group], bound, 1.0)[which]
    of = group[which]
    return verdicts(row_ids[which], reason=reason, value=value[of], bound=bounds, representative=representative[of])


def _assert_one_stays(group: I64, goes: np.ndarray, once: np.ndarray, follows: np.ndarray, near: Followers) -> None:
    n_left = np.bincount(group[once & ~goes], minlength=len(follows))
    if (n_left != ~follows).any() or np.isin(near.leaders, near.row_ids).any():
        raise LastCopyLost("a group of duplicates was to lose its last record; nothing was written. Please report this")
