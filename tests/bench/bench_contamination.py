"""Decontamination of real text with planted spans: our kernel against a plain Python set of n-grams.

    python -m tests.bench.bench_contamination [--full]

Evaluation items are speeches and product reviews, n is 13; into one record in fifty of the pool a span of one of them is put, of
13 to 40 words, in capitals. The other side is what one would write first: words by `re`, windows as tuples, a set. Both must find
the same windows. Figures are MB of the pool's text per CPU second on one core, building the set left out (its seconds are a row
of their own).
"""

from __future__ import annotations

import gzip
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from tasks.kernels.spans import Hits, find_grams, gram_set
from tests.bench.harness import Options, Row, least_cpu_s, print_parts, skipped, times, verdict

POOL = ("newsgroups20", "medquad", "peps", "dstc8_dialogue")
ITEMS = ("target_us_speeches", "target_product_reviews")
N = 13
PLANTED_EVERY = 50
POOL_MB, FULL_MB = 16.0, 97.0
LEAST_MB_S, LEAST_RATIO = 100, 10
WORDS = re.compile(r"\w+")
THEIRS = "re and a set of tuples"

Windows = set[tuple[int, int]]


def texts(path: Path, n_bytes: float) -> Iterator[str]:
    """The first documents of a file, about so many bytes of them."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            if n_bytes < 0:
                return
            text = json.loads(line)["text"]
            n_bytes -= len(text)
            yield text


def planted(pool: list[str], items: list[str]) -> tuple[list[str], set[int]]:
    """The pool with spans of evaluation items in it, and the records that hold one."""
    rng = np.random.default_rng(0)
    found, where = list(pool), set(range(0, len(pool), PLANTED_EVERY))
    for d in where:
        words = WORDS.findall(items[int(rng.integers(len(items)))])
        first, n_words = int(rng.integers(max(1, len(words) - 40))), int(rng.integers(N, 41))
        half = len(found[d]) // 2
        found[d] = f"{found[d][:half]} {' '.join(words[first : first + n_words]).upper()} {found[d][half:]}"
    return found, where


def python_set(items: list[str]) -> set[tuple[str, ...]]:
    return {gram for item in items for _, gram in windows_of(item)}


def windows_of(text: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    words = WORDS.findall(text.lower())
    return ((i, tuple(words[i : i + N])) for i in range(len(words) - N + 1))


def python_hits(pool: list[str], grams: set[tuple[str, ...]]) -> Windows:
    return {(d, i) for d, text in enumerate(pool) for i, gram in windows_of(text) if gram in grams}


def as_windows(hits: Hits) -> Windows:
    records = np.repeat(np.arange(len(hits.offsets) - 1), np.diff(hits.offsets))
    return set(zip(records.tolist(), hits.words.tolist(), strict=True))


def rows(options: Options) -> list[Row]:
    """Speed against the plain set, the same windows, every planted record."""
    what, folder = f"decontamination, {N}-grams", options.data / "text"
    if not folder.exists():
        return [skipped(what, f">= {LEAST_MB_S} MB/CPU s", "no data")]
    mb = (FULL_MB if options.full else POOL_MB) / len(POOL)
    items = [text for name in ITEMS for text in texts(folder / f"{name}.jsonl.gz", 2e6) if len(WORDS.findall(text)) >= N + 40]
    pool, where = planted([text for name in POOL for text in texts(folder / f"{name}.jsonl.gz", mb * 1e6)], items)
    return _compared(what, pool, where, items)


def _compared(what: str, pool: list[str], where: set[int], items: list[str]) -> list[Row]:
    column, mb = pa.array(pool, pa.large_string()), sum(len(text.encode()) for text in pool) / 1e6
    evaluation = pa.array(items, pa.large_string())
    start = time.process_time()
    plain_set = python_set(items)
    built = time.process_time()
    theirs = python_hits(pool, plain_set)
    their_s, their_build_s = time.process_time() - built, built - start
    grams = gram_set(evaluation, n=N)
    hits = find_grams(column, grams)
    our_s, our_build_s = least_cpu_s(lambda: find_grams(column, grams)), least_cpu_s(lambda: gram_set(evaluation, n=N).lookup)
    ours, ratio = as_windows(hits), their_s / our_s
    fast = ratio >= LEAST_RATIO and mb / our_s >= LEAST_MB_S
    found = len(where & {d for d, _ in ours})
    return [
        Row(
            f"{what}: MB/CPU s, {mb:.0f} MB, {len(grams.hashes):,} n-grams",
            f"{mb / our_s:.0f}",
            f"{mb / their_s:.1f} ({THEIRS})",
            times(their_s, our_s),
            f">= {LEAST_MB_S} and {LEAST_RATIO}x",
            verdict(fast),
        ),
        Row(f"{what}: building the set, CPU s", f"{our_build_s:.3f}", f"{their_build_s:.2f}", times(their_build_s, our_build_s)),
        Row(f"{what}: windows found", f"{len(ours):,}", f"{len(theirs):,}", "-", "the same", verdict(ours == theirs)),
        Row(f"{what}: planted records found", str(found), str(len(where)), "-", "all", verdict(found == len(where))),
    ]


if __name__ == "__main__":
    print_parts([rows], __doc__)
