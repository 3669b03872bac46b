"""The whole stage beside a slow oracle written from the README: every step on Python strings, all pairs, plain sorts."""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from infra.ids import in_sample, keyed_gumbel, sample_level, seed_of
from infra.select_settings import SelectSettings
from infra.subjects import row_places
from tasks.kernels.minhash import signatures_of
from tasks.kernels.ngrams import token_buckets
from tests.tasks.select.test_select_steps import NEWS, NOTES, row

PLAIN = ["cat", "dog", "sea", "sun", "oak", "ink", "jam", "kit", "car", "van", "bus", "cab"]
WORDS = [*PLAIN, "Über", "naïve", "e\u0301clair", "ΣΟΦΟΣ", "İstanbul", "日本", "don't", "...", "#tag", "42"]
ITEMS = [
    "what is the capital of andorra now my dear friend",
    "a short item of seven words only",
    "İz ΣΟΦΟΣ asks: one two three four five",
]
BESIDE = {
    "speech": ["cat dog sea sun oak ink jam", "cat cat Über ..."],
    "faq": ["car van bus cab 42"],
    "exam": [*ITEMS, "too short"],
}


def text(rng: random.Random) -> str | None:
    if rng.random() < 0.1:
        return rng.choice([None, "", " \n", "\u0301", "!!!", "\x00"])
    words = rng.choices(WORDS, k=rng.choice([1, 4, 12, 30, 40]))
    if rng.random() < 0.4:
        item, at = rng.choice([ITEMS[0], *ITEMS]).split(), len(words) // 2
        words = [*words[:at], *item[rng.choice([0, 0, 2]) :], *words[at:]]
    return rng.choice([" ", " ", "  ", "\n"]).join(words)


def pool_rows(seed: int, n: int) -> list[dict[str, Any]]:
    """Records, some with equal or nearly equal texts, some twice."""
    rng, scores = random.Random(seed), [None, math.nan, math.inf, 0.5, 0.5, 0.0]
    rows = [row(i % 23, text(rng), quality=rng.choice([*scores, rng.random(), rng.random()])) for i in range(n)]
    for i in range(n // 4):
        near = rows[rng.randrange(n)]
        body = near["body"] and rng.choice([near["body"], near["body"].upper() + "!", near["body"] + " more"])
        rows.append(near if i % 3 == 0 else {**near, "author": f"z{i}", "body": body})
    return rows


# --- the oracle ----------------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Record:
    """One record and what becomes of it; `told` are the columns of its decision that a step writes."""

    row_id: int
    body: str
    label: str
    score: float
    sampled: bool
    weights: list[float] = field(default_factory=list)
    told: dict[str, Any] = field(default_factory=dict)
    reason: str | None = None
    target: int | None = None

    @property
    def tokens(self) -> list[str]:
        return re.findall(r"\w+|[^\w\s]+", self.body.lower())

    @property
    def words(self) -> list[str]:
        return re.findall(r"\w+", self.body.lower())

    def drop(self, reason: str | None, **told: Any) -> None:
        self.reason, self.told = reason, told


@cache
def bucket(gram: tuple[str, ...], n_buckets: int, seed: int) -> int:
    """The bucket of a token or of a pair of tokens, by the kernel alone with it."""
    found = token_buckets(pa.array([" ".join(gram)]), n_buckets=n_buckets, seed=seed)[1].tolist()
    assert len(found) == 2 * len(gram) - 1
    return found[len(gram) - 1]


def grams(tokens: Sequence[str]) -> list[tuple[str, ...]]:
    return [*((token,) for token in tokens), *pairwise(tokens)]


def weigh(records: list[Record], rows: list[Record], targets: Sequence[str], asked: SelectSettings) -> None:
    """Mean log ratios of n-grams, p smoothed towards q; `rows` are the pool's, copies and all."""
    seed = seed_of("select", asked.seed, "weights")

    def buckets(tokens: Sequence[str]) -> list[int]:
        return [bucket(gram, asked.n_buckets, seed) for gram in grams(tokens)]

    raw = Counter(b for one in rows if one.sampled for b in buckets(one.tokens))
    for name in targets:
        target = Counter(b for body in BESIDE[name] for b in buckets(re.findall(r"\w+|[^\w\s]+", body.lower())))
        ratios = list[int]()
        for b in range(asked.n_buckets):
            p, q = target[b] / target.total(), (raw[b] + 1) / (raw.total() + asked.n_buckets)
            ratios.append(round(math.log((1 - asked.smoothing) * p / q + asked.smoothing) * 2**24))
        for one in records:
            total = sum(ratios[b] for b in buckets(one.tokens)) / 2**24 if one.tokens else math.nan
            one.weights.append(total / max(1, len(one.tokens) if asked.normalize else 1))


def spans_of(body: str) -> list[tuple[str, int, int]]:
    """Words, and their bytes: as `words`, but İ is an i that ends its word, and every sigma a sigma."""
    found, plain = list[tuple[str, int, int]](), body.replace("Σ", "σ").replace("ς", "σ")
    for match in re.finditer(r"[^\Wİ]*İ|[^\Wİ]+", plain):
        begin, end = (len(body[:at].encode()) for at in match.span())
        found.append((match[0].replace("İ", "i").lower(), begin, end))
    return found


def filter_words(one: Record, least: int) -> None:
    punctuation = re.compile(r"[!-/:-@\[-`{-~]")
    n_words = sum(bool(punctuation.sub("", raw)) for raw in one.body.split())
    if n_words < least:
        one.drop("filtered", signal="word_count", value=float(n_words), bound=float(least))


def decontaminate(records: list[Record], n: int, action: str) -> None:
    """Words in a row that an item has too: n of them, or a whole item of 5 words and more."""
    known = set[tuple[str, ...]]()
    for item in BESIDE["exam"]:
        words = [word for word, _, _ in spans_of(item)]
        size = min(n, len(words))
        known |= {tuple(words[i : i + size]) for i in range(len(words) - size + 1) if size == n or size >= 5}
    hits = {id(one): hits_of(one, known) for one in records}
    held = Counter(gram for one in records if one.sampled for gram in {gram for _, gram in hits[id(one)]})
    n_sampled = sum(one.sampled for one in records)
    for one in records:
        spans = list[list[int]]()
        for at, gram in sorted(hits[id(one)]):
            if held[gram] >= 10 and held[gram] > 0.01 * n_sampled:
                continue
            if not spans or at > spans[-1][1]:
                spans.append([at, at, 0])
            spans[-1][1:] = max(spans[-1][1], at + len(gram)), max(spans[-1][2], len(gram))
        if spans and one.reason is None:
            judge(one, spans, action)


def hits_of(one: Record, known: set[tuple[str, ...]]) -> list[tuple[int, tuple[str, ...]]]:
    words = [word for word, _, _ in spans_of(one.body)]
    sizes = {len(gram) for gram in known}
    windows = ((i, tuple(words[i : i + size])) for size in sizes for i in range(len(words) - size + 1))
    return [(i, gram) for i, gram in windows if gram in known]


def judge(one: Record, spans: list[list[int]], action: str) -> None:
    words = spans_of(one.body)
    longest = max(spans, key=lambda span: (span[1] - span[0], -span[0]))
    told = {"signal": "exam", "value": float(longest[1] - longest[0]), "bound": float(longest[2])}
    if action == "drop" or sum(end - begin for begin, end, _ in spans) == len(words):
        one.drop("contaminated", **told)
    else:
        one.drop(None, **told, cuts=[at for begin, end, _ in spans for at in (words[begin][1], words[end - 1][2])])


def bound_score(one: Record, least: float) -> None:
    if math.isnan(one.score):
        one.reason = "no_score"
    elif one.score < least:
        one.told |= {"signal": "score", "value": one.score, "bound": least}
        one.reason = "filtered"


def deduplicate(records: list[Record], jaccard: float) -> None:
    """Of equal words the least row id; of similar texts the one with most words; nobody goes for one that goes."""
    groups = dict[tuple[str, ...], list[Record]]()
    for one in records:
        groups.setdefault(tuple(one.words), []).append(one)
    groups.pop((), None)
    leaders, n = list[tuple[Record, np.ndarray]](), 64
    bound = math.ceil(max(n * jaccard - 4.5 * math.sqrt(n * jaccard * (1 - jaccard)), 0.8 * n * jaccard)) / n
    for group in sorted(groups.values(), key=lambda group: (-len(group[0].words), group[0].row_id)):
        signature = signatures_of(pa.array([group[0].body]), n_permutations=n, shingle=3, seed=0)[2][0]
        alike = [float((signature == other).mean()) for _, other in leaders]
        assume(not any(0.75 * bound <= value <= 1.25 * bound for value in alike))  # bands find few of those
        best = max(range(len(alike)), key=alike.__getitem__, default=0)
        follows = bool(alike) and alike[best] >= bound
        for one in group if follows else group[1:]:
            whom, value, least = (leaders[best][0], alike[best], bound) if follows else (group[0], 1.0, 1.0)
            one.drop("near_duplicate" if follows else "duplicate", representative=whom.row_id, value=value, bound=least)
        leaders += [] if follows else [(group[0], signature)]


@dataclass(frozen=True)
class Cut:
    """The last place, (-key, row id), that a target admits at all, and of each stratum."""

    last: tuple[float, float]
    strata: dict[str, tuple[float, float]]


NOBODY, ALL = (-math.inf, -math.inf), (math.inf, math.inf)


def cut(
    found: list[Record], level: int, keys: dict[int, list[float]], shares: Sequence[float], asked: SelectSettings
) -> list[Cut]:
    """The targets in turn: the floors' best, then the best of all others, until the share of the budget is used up."""
    cuts, left, used, kept, n = list[Cut](), list(found), 0, Counter[str](), len(found)
    size: Callable[[Record], int] = (lambda one: len(one.tokens)) if asked.n_tokens is not None else (lambda one: 1)
    budget = asked.n_rows if asked.n_rows is not None else asked.n_tokens
    limit = math.ceil(round(asked.fraction * n, 9)) if budget is None else Fraction(budget, 2**level)
    limit = min(sum(map(size, found)), math.floor(limit) if asked.n_tokens is not None else math.ceil(limit))
    there = Counter(one.label for one in found)
    least = Fraction(asked.floors.min_rows if asked.floors else 0, 2**level)
    floors = {label: min(there[label], math.ceil(least)) for label in ("cars", "words")}
    for r in range(len(shares)):
        part = sum(map(Fraction, shares[: r + 1])) / sum(map(Fraction, shares))
        order = sorted(left, key=lambda one: (-keys[one.row_id][r], one.row_id))
        places = {id(one): (-keys[one.row_id][r], one.row_id) for one in order}
        needs = {label: max(0, math.ceil(part * floor) - kept[label]) for label, floor in floors.items()}
        own = {label: [one for one in order if one.label == label] for label in floors}
        first = [one for label in own for one in own[label][: needs[label]]]
        strata = {label: places[id(some[needs[label] - 1])] for label, some in own.items() if 0 < needs[label] < len(some)}
        strata |= {label: ALL for label, some in own.items() if least and (not there[label] or 0 < needs[label] >= len(some))}
        share = math.floor(part * limit) if asked.n_tokens is not None else math.ceil(part * limit)
        room, rest, n_more = share - used - sum(map(size, first)), [one for one in order if one not in first], 0
        while n_more < len(rest) and size(rest[n_more]) <= room:
            room, n_more = room - size(rest[n_more]), n_more + 1
        last = ALL if n_more == len(rest) and room >= 0 else places[id(rest[n_more - 1])] if n_more else NOBODY
        taken = [*first, *rest[:n_more]]
        cuts.append(Cut(last, strata))
        used, kept = used + sum(map(size, taken)), kept + Counter(one.label for one in taken)
        left = [one for one in left if one not in taken]
    return cuts


def decide(rows: list[Record], level: int, targets: dict[str, float], asked: SelectSettings) -> dict[int, dict[str, Any]]:
    """The decisions on a pool, copies and all."""
    records = sorted({one.row_id: one for one in rows}.values(), key=lambda one: one.row_id)
    weigh(records, rows, [*targets], asked)
    for one in records if asked.filters else ():
        filter_words(one, 4)
    if asked.decontaminate is not None:
        decontaminate(records, asked.decontaminate.n, asked.decontaminate.action)
    for one in (one for one in records if one.reason is None):
        one.reason = None if one.tokens else "empty_text"
    for one in (one for one in records if one.reason is None and asked.score is not None):
        bound_score(one, asked.score.threshold or 0.0 if asked.score else 0.0)
    if asked.near_duplicates is not None:
        deduplicate([one for one in records if one.reason is None], asked.near_duplicates.jaccard)
    ids = np.array([one.row_id for one in records], np.int64)
    noise = [keyed_gumbel(ids, "select", asked.seed, *([name] if r else [])) for r, name in enumerate(targets)]
    keys = {
        one.row_id: [w / asked.temperature + float(noise[r][i]) for r, w in enumerate(one.weights)]
        for i, one in enumerate(records)
    }
    found = [one for one in records if one.reason is None]
    fitted = found if asked.exact else [one for one in found if one.sampled]
    cuts = cut(fitted, 0 if asked.exact else level, keys, [*targets.values()], asked)
    for one in found:
        places = [(-key, one.row_id) for key in keys[one.row_id]]
        within = (r for r, place in enumerate(places) if place <= max(cuts[r].last, cuts[r].strata.get(one.label, NOBODY)))
        one.target = next(within, None)
        one.reason = "below_threshold" if one.target is None else "kept"
    return {one.row_id: decision(one, keys[one.row_id], [*targets]) for one in records}


def decision(one: Record, keys: list[float], targets: Sequence[str]) -> dict[str, Any]:
    best = one.target if one.target is not None else max(range(len(keys)), key=keys.__getitem__)
    empty = dict.fromkeys(("signal", "value", "bound", "representative", "cuts"))
    return {
        "row_id": one.row_id,
        "keep": one.reason == "kept",
        "reason": one.reason,
        "log_weight": pytest.approx(one.weights[best], rel=1e-12, abs=1e-12) if one.tokens else None,
        "key": pytest.approx(keys[best], rel=1e-12, abs=1e-12) if one.tokens else None,
        "target": targets[one.target] if one.target is not None and len(targets) > 1 else None,
        **empty,
        **one.told,
    }


# --- the law -------------------------------------------------------------------------------------------------------------------


def maybe(**options: Any) -> st.SearchStrategy[dict[str, Any]]:
    """Nothing, or options of which each value is drawn from a list."""
    return st.just({}) | st.fixed_dictionaries({name: st.sampled_from(values) for name, values in options.items()})


STEPS = st.tuples(
    maybe(filters=[{"word_count": [4, None]}]),
    maybe(decontaminate=[{"tables": ["exam"], "n": n, "action": action} for n in (5, 8) for action in ("drop", "cut")]),
    maybe(score=[{"column": "quality", "threshold": 0.4}]),
    maybe(near_duplicates=[{"jaccard": 0.7, "shingle": 3, "n_permutations": 64}]),
    maybe(floors=[{"by": "label", "min_rows": 4}, {"by": "label", "min_rows": 1000}]),
    maybe(keep_fraction=[0.1, 0.6, 1.0]) | maybe(n_rows=[1, 9, 10**9]) | maybe(n_tokens=[1, 90, 400]),
    maybe(exact=[True], normalize=[True, False], smoothing=[0.02, 0.9], temperature=[1.0, 30.0], seed=[0, 7]),
)


@given(
    seed=st.integers(0, 10**6),
    n=st.sampled_from([60, 60, 40, 2, 0]),
    steps=STEPS,
    targets=st.sampled_from([{"speech": 1.0}, {"faq": 1.0, "speech": 3.0}, {"speech": 0.25, "faq": 0.5}]),
    sample_rows=st.sampled_from([30, 9, 1000]),
)
@settings(max_examples=20)
def test_every_decision_is_that_of_the_oracle(
    house: Any, seed: int, n: int, steps: tuple[dict[str, Any], ...], targets: dict[str, float], sample_rows: int
) -> None:
    asked = {"n_buckets": 64, **{name: value for step in steps for name, value in step.items()}}
    pool = house.put("news", pool_rows(seed, n), NEWS, n_files=2)
    beside = [house.put(name, [{"text": body} for body in bodies], NOTES) for name, bodies in BESIDE.items()]
    result = house.select([pool], *beside, target=targets, sample_rows=sample_rows, **asked)
    held, level = house.lake.read(pool), sample_level(pool.n_rows, sample_rows)
    whose = house.settings().tables["news"].subject
    sampled = in_sample(row_places(held, whose, house.lake.keys), level)
    rows = [
        Record(one["row_id"], one["body"] or "", one["label"], known(one["quality"]), bool(is_in))
        for one, is_in in zip(held.to_pylist(), sampled, strict=True)
    ]
    wanted = decide(rows, level, targets, SelectSettings.model_validate(asked))
    assert house.decisions(result) == wanted
    assert (result.n_raw, result.n_kept) == (len(wanted), sum(one["keep"] for one in wanted.values()))


def known(score: float | None) -> float:
    """A score, NaN where there is none."""
    return score if score is not None and math.isfinite(score) else math.nan
