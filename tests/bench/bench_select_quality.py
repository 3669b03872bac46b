"""What selection is good for: held-out KL reduction and a classifier's accuracy, against chance and against the rule of DSIR.

    python -m tests.bench.bench_select_quality [--stride 3] [--data ../shared/data]

The pool is every third document of four domains, whole or in chunks of a hundred words; targets are three domains outside of it,
and groups of posts, half of which are taken out of the pool. Pool and target are split in halves, three times: the weights are
fitted on one half of each, the other half of the pool is selected from, and the other half of the target judges, in a hash space
of its own. All rules select a tenth of the tokens; so that all come as near to it, documents of more than a twentieth of that are
not selected from. The rule of the reference, `data-selection` 1.0.3, is computed by the kernel
that is bit-identical to it: sums of log ratios, Gumbel noise, documents of fewer than 100 tokens left out.

Smoothing and temperature were chosen on other splits, groups and classes (and the same three domains outside of the pool).

The classifier tells the groups of a newsgroup domain apart. It is trained on posts out of all groups, selected towards unlabelled
posts of that domain, or on as many tokens by chance, and tested on the domain's posts that nothing was fitted on.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import SGDClassifier

from infra.ids import F64, I64, keyed_bits, keyed_gumbel
from infra.select_settings import SelectSettings
from tasks.kernels.ngrams import count_ngrams, count_tokens, score_ngrams
from tasks.kernels.parity import count_parity, score_parity
from tasks.select.budget import Budget, Candidates, Mask, admitted, fit_cuts, totals_of
from tasks.select.kl import kl, smoothed
from tasks.select.parity import MIN_TOKENS, parity_ratios
from tasks.select.weights import keys_of, log_ratios, log_weights
from tests.bench.harness import DATA, Options, Row, verdict

POOL = ("newsgroups20", "medquad", "dstc8_dialogue", "peps")
TARGETS = ("target_us_speeches", "target_product_reviews", "target_sms_spam")
GROUPS = ("sci.med", "talk.politics.mideast")
DOMAIN = ("sci.crypt", "sci.electronics", "sci.med", "sci.space")
N_BUCKETS = 10_000
FRACTION = 0.1
SPLITS = (11, 12, 13)
WORDS = 100
STRIDE = 3
LARGEST = 0.05


@dataclass(frozen=True)
class Texts:
    """Documents and their numbers, which stand for row ids."""

    ids: I64
    texts: pa.Array

    def take(self, which: Mask) -> Texts:
        return Texts(self.ids[which], self.texts.filter(pa.array(which)))


@dataclass(frozen=True)
class Halves:
    """One split: what weights are fitted on, what is selected from, and what judges."""

    fit_pool: Texts
    fit_target: Texts
    pool: Texts
    judge: Texts
    seed: int


Rule = Callable[[Halves], F64]


# --- data ----------------------------------------------------------------------------------------------------------------------


def documents(data: Path, name: str, stride: int) -> list[tuple[str, str]]:
    """(label, text) of every so many documents of a file."""
    with gzip.open(data / "text" / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for number, line in enumerate(lines) if number % stride == 0]
    return [(str(row["label"]), row["text"]) for row in rows]


def chunked(texts: Sequence[str], n_words: int | None) -> list[str]:
    """Texts in pieces of so many words; whole without a number."""
    if n_words is None:
        return list(texts)
    words = [text.split() for text in texts]
    return [" ".join(one[at : at + n_words]) for one in words for at in range(0, len(one), n_words)]


def numbered(texts: Sequence[str]) -> Texts:
    return Texts(np.arange(len(texts)), pa.array(texts, pa.large_string()))


def worlds(data: Path, stride: int, n_words: int | None) -> dict[str, tuple[Texts, Texts]]:
    """Pool and target by the target's name. A group of posts as target takes half of them out of the pool."""
    rows = [row for name in POOL for row in documents(data, name, stride)]
    whole = numbered(chunked([text for _, text in rows], n_words))
    found = {name: (whole, numbered(chunked([text for _, text in documents(data, name, 1)], n_words))) for name in TARGETS}
    for group in GROUPS:
        places = [place for place, (label, _) in enumerate(rows) if label == group][::2]
        rest = set(places)
        pool = chunked([text for place, (_, text) in enumerate(rows) if place not in rest], n_words)
        found[group] = (numbered(pool), numbered(chunked([rows[place][1] for place in places], n_words)))
    return found


def split(pool: Texts, target: Texts, seed: int) -> Halves:
    """Halves by keyed bits of the numbers."""
    odd = [(keyed_bits(one.ids, "split", seed) & np.uint64(1)).astype(np.bool_) for one in (pool, target)]
    return Halves(pool.take(~odd[0]), target.take(~odd[1]), pool.take(odd[0]), target.take(odd[1]), seed)


# --- rules ---------------------------------------------------------------------------------------------------------------------


def ours(*, smoothing: float, normalize: bool, temperature: float) -> Rule:
    """Noisy keys by our own rule."""

    def keys(halves: Halves) -> F64:
        counts = [count_ngrams(one.texts, n_buckets=N_BUCKETS, seed=halves.seed) for one in (halves.fit_target, halves.fit_pool)]
        ratios = log_ratios(*counts, smoothing=smoothing)
        weights = log_weights(*score_ngrams(halves.pool.texts, ratios, seed=halves.seed), normalize=normalize)
        return keys_of(weights, halves.pool.ids, temperature=temperature, seed=halves.seed)

    return keys


def reference(halves: Halves) -> F64:
    """Noisy keys by the rule of `data-selection` 1.0.3; documents that it drops have none."""
    counts = [count_parity(one.texts, n_buckets=N_BUCKETS) for one in (halves.fit_target, halves.fit_pool)]
    weights, n_tokens = score_parity(halves.pool.texts, parity_ratios(*counts))
    return np.where(n_tokens < MIN_TOKENS, np.nan, weights + keyed_gumbel(halves.pool.ids, "reference", halves.seed))


def by_chance(halves: Halves) -> F64:
    return keyed_gumbel(halves.pool.ids, "chance", halves.seed)


def rules_of(chosen: SelectSettings) -> dict[str, Rule]:
    """Our rule by its settings, and those that it is compared with."""
    own = ours(smoothing=chosen.smoothing, normalize=chosen.normalize, temperature=chosen.temperature)
    return {"lethe": own, "random": by_chance, "data-selection": reference}


def chosen(keys: F64, pool: Texts, n_tokens: I64) -> Mask:
    """Which documents a share of the tokens admits by their keys."""
    budget = int(FRACTION * n_tokens.sum())
    fit = (n_tokens > 0) & (n_tokens <= LARGEST * budget)
    rows = Candidates.of(pool.ids, np.where(fit, keys, np.nan), n_tokens)
    return admitted(rows, fit_cuts(rows, totals_of(rows), Budget(n_tokens=budget)))[0]


# --- held-out divergence -------------------------------------------------------------------------------------------------------


def reductions(halves: Halves, rules: dict[str, Rule]) -> dict[str, float]:
    """KL(target || pool) - KL(target || selected) of each rule, in a hash space that no rule has seen."""
    space = {"n_buckets": N_BUCKETS, "seed": 10_007 + halves.seed}
    target = count_ngrams(halves.judge.texts, **space)
    raw = smoothed(count_ngrams(halves.pool.texts, **space), np.full(N_BUCKETS, 1 / N_BUCKETS))
    n_tokens = count_tokens(halves.pool.texts)
    found = dict[str, float]()
    for name, rule in rules.items():
        selected = halves.pool.take(chosen(rule(halves), halves.pool, n_tokens))
        found[name] = kl(target, raw) - kl(target, smoothed(count_ngrams(selected.texts, **space), raw))
    return found


def compared(data: Path, stride: int, rules: dict[str, Rule], n_words: int | None) -> dict[str, dict[str, list[float]]]:
    """Reductions by target and rule, one a split."""
    found = dict[str, dict[str, list[float]]]()
    for name, (pool, target) in worlds(data, stride, n_words).items():
        splits = [reductions(split(pool, target, seed), rules) for seed in SPLITS]
        found[name] = {rule: [one[rule] for one in splits] for rule in rules}
    return found


# --- a classifier --------------------------------------------------------------------------------------------------------------


def accuracies(data: Path, rules: dict[str, Rule]) -> dict[str, list[float]]:
    """Accuracy of telling the domain's groups apart, by rule, one a seed."""
    rows = documents(data, "newsgroups20", 1)
    labels = np.array([label for label, _ in rows])
    texts = numbered([text for _, text in rows])
    found: dict[str, list[float]] = {name: [] for name in rules}
    for seed in SPLITS:
        own = np.isin(labels, DOMAIN) & (keyed_bits(texts.ids, "domain", seed) % np.uint64(3) < 2)
        judged = own & (keyed_bits(texts.ids, "judge", seed) & np.uint64(1) == 1)
        halves = Halves(texts.take(~own), texts.take(own & ~judged), texts.take(~own), texts.take(judged), seed)
        n_tokens = count_tokens(halves.pool.texts)
        for name, rule in rules.items():
            which = chosen(rule(halves), halves.pool, n_tokens)
            found[name].append(
                _accuracy(halves.pool.take(which).texts, labels[~own][which], halves.judge.texts, labels[judged], seed)
            )
    return found


def _accuracy(texts: pa.Array, labels: np.ndarray, judge: pa.Array, answers: np.ndarray, seed: int) -> float:
    """Of a logistic regression on hashed words, trained on texts and their labels, tested on others."""
    words = HashingVectorizer(n_features=1 << 15, alternate_sign=False)
    model = SGDClassifier(loss="log_loss", alpha=1e-5, max_iter=20, tol=None, random_state=seed)
    model.fit(words.transform(texts.to_pylist()), labels)
    return float((model.predict(words.transform(judge.to_pylist())) == answers).mean())


# --- the table -----------------------------------------------------------------------------------------------------------------


def said(values: Sequence[float]) -> str:
    """Mean and spread (standard deviation)."""
    return f"{np.mean(values):.3f} ± {np.std(values):.3f}"


def rows(options: Options, *, stride: int = STRIDE, settings: SelectSettings | None = None) -> list[Row]:
    found, rules = list[Row](), rules_of(settings or SelectSettings())
    for shape, n_words in (("chunks of 100 words", WORDS), ("whole documents", None)):
        for target, each in compared(options.data, stride, rules, n_words).items():
            best = max(np.mean(each["random"]), np.mean(each["data-selection"]))
            found.append(
                Row(
                    f"held-out KL reduction, nats an n-gram, {shape}, {target}",
                    said(each["lethe"]),
                    f"random {said(each['random'])}, data-selection {said(each['data-selection'])}",
                    f"{np.mean(each['lethe']) - best:+.3f}",
                    "above both",
                    verdict(bool(np.mean(each["lethe"]) > best)),
                )
            )
    each = accuracies(options.data, rules)
    found.append(
        Row(
            "accuracy on the target domain, classifier of posts",
            said(each["lethe"]),
            f"random {said(each['random'])}, data-selection {said(each['data-selection'])}",
            f"{np.mean(each['lethe']) - np.mean(each['random']):+.3f}",
            "above random",
            verdict(bool(np.mean(each["lethe"]) > np.mean(each["random"]))),
        )
    )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="What selection is good for, against chance and the reference's rule")
    parser.add_argument("--stride", type=int, default=STRIDE, help="every so many documents of the pool's files")
    parser.add_argument("--data", type=Path, default=DATA)
    asked = parser.parse_args()
    for row in rows(Options(asked.data), stride=asked.stride):
        print(f"{row.what}: {row.ours} against {row.theirs}; {row.ratio}, {row.verdict}", flush=True)


if __name__ == "__main__":
    main()
