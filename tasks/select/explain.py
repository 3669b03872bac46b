"""Why a record was kept or dropped: the n-grams that moved its weight, and its decision in words. Pure.

The n-grams are recovered from the record's text: buckets are hashes, and nothing that is kept could name them. What is made here
holds text and is for a person's eyes only; no repr shows it.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from infra.contracts import (
    BELOW_THRESHOLD,
    CONTAMINATED,
    DUPLICATE,
    EMPTY_TEXT,
    FILTERED,
    KEPT,
    NEAR_DUPLICATE,
    NO_SCORE,
    TOO_SHORT,
)
from infra.ids import F64
from tasks.kernels.ngrams import token_buckets

_TOKEN = re.compile(r"\w+|[^\w\s]+")
_EXCERPT = 2_000
_WIDTH = 64
_Moved = tuple[float, str, int]
_WHY = {
    FILTERED: "its {signal} is {value}, and the bound is {bound}",
    TOO_SHORT: "its {signal} is {value}, and the least is {bound}",
    DUPLICATE: "its text is that of record {representative}, which stands for both",
    NEAR_DUPLICATE: "its text is nearly that of record {representative}, which stands for both",
    CONTAMINATED: "it shares {value} words in a row with table {signal}, and {bound} are enough",
    BELOW_THRESHOLD: "its key is {key}, and the least kept is {threshold}",
    EMPTY_TEXT: "it has no text",
    NO_SCORE: "it has no score",
}


@dataclass(frozen=True)
class Gram:
    """An n-gram that a record holds `n` times, and what they add to its log weight together, in nats."""

    text: str = field(repr=False)
    n: int
    contribution: float


@dataclass(frozen=True)
class Weighed:
    """A record's log weight for a target, of n-grams: those that raise it most and those that lower it most, strongest first."""

    target: str
    log_weight: float | None
    n_tokens: int
    up: tuple[Gram, ...]
    down: tuple[Gram, ...]


@dataclass(frozen=True)
class Shared:
    """A run of words that a record shares with an evaluation table."""

    table: str
    n_words: int
    text: str = field(repr=False)


@dataclass(frozen=True)
class Ratios:
    """What weights of n-grams are a function of: log ratios in nats by bucket, shape (n_buckets,), and their hash.

    `seed` None is the reference's hash. `normalize`: weights are means per token.
    """

    target: str
    nats: F64
    seed: int | None
    normalize: bool


@dataclass(frozen=True)
class Decision:
    """A record's row of the selection."""

    row_id: int
    keep: bool
    reason: str
    log_weight: float | None = None
    key: float | None = None
    target: str | None = None
    signal: str | None = None
    value: float | None = None
    bound: float | None = None
    representative: int | None = None
    cuts: Sequence[int] | None = None


# --- n-grams -------------------------------------------------------------------------------------------------------------------


def ngrams(text: str) -> Iterator[str]:
    """The n-grams of a text, in the order of `token_buckets`: its first token, then of each further one the pair and itself."""
    previous = None
    for match in _TOKEN.finditer(text.lower()):
        token = match[0]
        if previous is not None:
            yield f"{previous} {token}"
        yield token
        previous = token


def weighed(text: str, ratios: Ratios, *, n_most: int = 10) -> Weighed:
    """The log weight of a text, and up to `n_most` n-grams that moved it most each way; equal ones in the order of letters."""
    buckets = _buckets(text, ratios)
    n_tokens = (len(buckets) + 1) // 2
    scale = n_tokens if ratios.normalize else 1
    total = float(ratios.nats[buckets].sum()) / scale if n_tokens else None
    up, down = (_strongest(text, buckets, sign * ratios.nats, n_most) for sign in (1, -1))
    return Weighed(ratios.target, total, n_tokens, _grams(up, scale), _grams(down, -scale))


def _grams(found: list[_Moved], scale: int) -> tuple[Gram, ...]:
    return tuple(Gram(gram, n, gain / scale) for gain, gram, n in found)


def _strongest(text: str, buckets: np.ndarray, nats: F64, n_most: int) -> list[_Moved]:
    """The n-grams of the largest gains, as (gain, n-gram, times).

    Only n-grams in the buckets that gain most are counted, so that a text of many megabytes needs no table of all its n-grams: a
    bucket gains at least what any n-gram in it does.
    """
    gains = np.bincount(buckets, minlength=len(nats)) * nats
    order = np.argsort(-gains, kind="stable")
    n_wide = _WIDTH * n_most
    while True:
        wide = np.zeros(len(nats), np.bool_)
        wide[order[:n_wide]] = True
        counted = Counter(itertools.compress(zip(ngrams(text), map(int, buckets), strict=True), wide[buckets]))
        moved = [(n * float(nats[bucket]), gram, n) for (gram, bucket), n in counted.items() if nats[bucket] > 0]
        found = sorted(moved, key=lambda one: (-one[0], one[1]))[:n_most]
        beyond = float(gains[order[n_wide]]) if n_wide < len(order) else 0.0
        if beyond <= 0 or (len(found) == n_most and found[-1][0] > beyond):
            return found
        n_wide *= 8


def _buckets(text: str, ratios: Ratios) -> np.ndarray:
    """The bucket of each n-gram of a text, in the order of `ngrams`."""
    n_buckets = len(ratios.nats)
    if ratios.seed is not None:
        return token_buckets(pa.array([text], pa.large_string()), n_buckets=n_buckets, seed=ratios.seed)[1]
    known = {gram: _sha256(gram) % n_buckets for gram in dict.fromkeys(ngrams(text))}
    return np.array([known[gram] for gram in ngrams(text)], np.int64)


def _sha256(gram: str) -> int:
    return int.from_bytes(hashlib.sha256(gram.encode("utf-8", "replace")).digest(), "big")


# --- spans ---------------------------------------------------------------------------------------------------------------------


def shared_spans(text: str, hits: pa.Table, *, n_words: float = 0) -> tuple[Shared, ...]:
    """The runs of at least `n_words` words that a text shares with evaluation tables, longest first, from its CONTAMINATION rows.

    Hits that overlap or touch are one run. N-grams that many records hold are among them: the decision leaves those out.
    """
    runs = list[list[int]]()
    tables = list[str]()
    order = [("table", "ascending"), ("word", "ascending")]
    for hit in hits.sort_by(order).to_pylist():
        last = hit["word"] + hit["n_words"]
        if runs and tables[-1] == hit["table"] and hit["word"] <= runs[-1][1]:
            runs[-1][1], runs[-1][3] = max(last, runs[-1][1]), max(hit["end"], runs[-1][3])
        else:
            runs.append([hit["word"], last, hit["begin"], hit["end"]])
            tables.append(hit["table"])
    raw = text.encode("utf-8", "replace")
    found = [
        Shared(table, last - first, raw[begin:end].decode(errors="replace"))
        for table, (first, last, begin, end) in zip(tables, runs, strict=True)
        if last - first >= n_words
    ]
    return tuple(sorted(found, key=lambda one: (-one.n_words, one.table, one.text)))


# --- words ---------------------------------------------------------------------------------------------------------------------


def said(decision: Decision, threshold: float | None) -> str:
    """A decision in a sentence, without anything of the record's text; `threshold` is the least key kept, None: all are."""
    if decision.keep:
        return _kept(decision, threshold)
    why = _WHY.get(decision.reason, "")
    told = why.format(
        signal=decision.signal,
        value=_number(decision.value),
        bound=_number(decision.bound),
        representative=decision.representative,
        key=_number(decision.key),
        threshold=_number(threshold),
    )
    return f"dropped, {decision.reason}" + (f": {told}" if told else "")


def _kept(decision: Decision, threshold: float | None) -> str:
    target = f" for target {decision.target}" if decision.target else ""
    n_cut = len(decision.cuts or ()) // 2
    cut = f", without {n_cut} span{'s' if n_cut > 1 else ''} cut out" if n_cut else ""
    return f"{KEPT}{target}{cut}: {_why_kept(decision.key, threshold)}"


def _why_kept(key: float | None, threshold: float | None) -> str:
    if threshold is None or key is None:
        return "nothing speaks against it"
    if key < threshold:
        return f"a floor keeps it, though its key {_number(key)} is below the threshold {_number(threshold)}"
    return f"its key is {_number(key)}, and the least kept is {_number(threshold)}"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.6g}"


def excerpt(text: str) -> str:
    """The beginning of a text."""
    return text if len(text) <= _EXCERPT else text[:_EXCERPT] + f"... ({len(text):,} characters)"
