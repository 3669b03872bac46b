"""Importance weights of real text: our kernels and the whole job against `data-selection` 1.0.3, the reference of DSIR.

    python -m tests.bench.bench_select [--reference-python REF/bin/python] [--mb 16] [--data ../shared/data]

REF is a virtual environment of its own with data-selection==1.0.3 and nltk==3.9.1; without one it is made, once, in a folder of
yours under the system's temporary one. Both run on one core over the same documents, with 10,000 buckets, in three steps: fit
(n-gram counts of pool and target), weights (a score for every pool document), resample (a quarter of the documents, written). The
reference reads and writes JSON lines, its only format; ours is given as the kernels alone, over Arrow arrays, and as the whole
job from zstd Parquet to zstd Parquet. Figures are CPU seconds and MB of text a CPU second; machine code is loaded beforehand, and
what loading or making it costs is a row of its own. The memo of the parity kernel is empty when its fit begins.
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from infra.ids import keyed_gumbel
from tasks.kernels.ngrams import count_ngrams, score_ngrams
from tasks.kernels.parity import count_parity, rule_of, score_parity
from tasks.select.parity import MIN_TOKENS, parity_ratios
from tasks.select.weights import SCALE, log_ratios
from tests.bench.harness import DATA, ROOT, Options, Row, environment, least_cpu_s, peer_python, skipped, times, verdict
from tests.tasks.select.one_cut import cut_at, is_kept

POOL, TARGET = ("newsgroups20", "medquad"), "target_product_reviews"
N_BUCKETS = 10_000
POOL_MB = 16.0
KEPT_FRACTION = 0.25
LEAST_RATIOS = {"default": 150, "parity": 30}
LEAST_JOB_RATIO = 60
MOST_DEVIATION = 1e-12
MOST_COLD_S = 1.0
THEIRS = "data-selection 1.0.3"
REQUIREMENTS = ("data-selection==1.0.3", "nltk==3.9.1")

REFERENCE = """
import json, resource, sys
import numpy as np
from data_selection import HashedNgramDSIR

def cpu_s():
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)

place, n_rows = sys.argv[1], int(sys.argv[2])
dsir = HashedNgramDSIR([f"{place}/pool.jsonl"], [f"{place}/target.jsonl"], cache_dir=f"{place}/cache", num_proc=1)
start = cpu_s(); dsir.fit_importance_estimator(num_tokens_to_fit="all")
fitted = cpu_s(); dsir.compute_importance_weights()
weighed = cpu_s(); dsir.resample(f"{place}/out", n_rows, cache_dir=f"{place}/resampled")
done = cpu_s()
weights, n_tokens = np.load(f"{place}/cache/log_importance_weights/0.npy"), np.load(f"{place}/cache/perexample_metadata/0.npy")
np.savez(f"{place}/theirs.npz", raw=dsir.raw_probs, target=dsir.target_probs, weights=weights, n_tokens=n_tokens)
print(json.dumps({"fit": fitted - start, "weights": weighed - fitted, "resample": done - weighed}))
"""

COLD = """
import time
import numpy as np, pyarrow as pa
from tasks.kernels import ngrams, parity
text, start = pa.array(["two words"]), time.process_time()
ngrams.score_ngrams(text, ngrams.count_ngrams(text, n_buckets=64, seed=0), seed=0)
parity.score_parity(text, np.minimum(parity.count_parity(text, n_buckets=64), 1.0))
print(time.process_time() - start)
"""

Column = pa.Array | pa.ChunkedArray


@dataclass(frozen=True)
class Mode:
    """A kernel's three functions: counts of texts; log ratios of (target, raw) counts; log weights and tokens of texts. And the
    fewest tokens of a document that is ranked."""

    count: Callable[[Column], np.ndarray]
    ratios: Callable[[np.ndarray, np.ndarray], np.ndarray]
    weights: Callable[[Column, np.ndarray], tuple[np.ndarray, np.ndarray]]
    min_tokens: int

    def fit(self, pool: Column, target: Column) -> np.ndarray:
        rule_of.cache_clear()
        return self.ratios(self.count(target), self.count(pool))


def _mean_weights(texts: Column, ratios: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    sums, n_tokens = score_ngrams(texts, ratios, seed=0)
    return np.where(n_tokens > 0, sums / SCALE / np.maximum(n_tokens, 1), np.nan), n_tokens


MODES = {
    "default": Mode(
        lambda texts: count_ngrams(texts, n_buckets=N_BUCKETS, seed=0),
        lambda target, raw: log_ratios(target, raw, smoothing=0.1),
        _mean_weights,
        1,
    ),
    "parity": Mode(lambda texts: count_parity(texts, n_buckets=N_BUCKETS), parity_ratios, score_parity, MIN_TOKENS),
}


@dataclass(frozen=True)
class Corpus:
    """Documents of the pool and of the target, as Arrow arrays and as the files that either side reads."""

    pool: pa.Array
    target: pa.Array
    place: Path

    @property
    def n_kept(self) -> int:
        return int(len(self.pool) * KEPT_FRACTION)

    def mb(self, step: str) -> float:
        return (n_bytes(self.pool) + (n_bytes(self.target) if step == "fit" else 0)) / 1e6

    def write(self) -> None:
        for name, array in (("pool", self.pool), ("target", self.target)):
            pq.write_table(pa.table({"text": array}), self.place / f"{name}.parquet", compression="zstd")
            lines = "".join(json.dumps({"text": text}) + "\n" for text in array.to_pylist())
            (self.place / f"{name}.jsonl").write_text(lines, encoding="utf-8")


def corpus(data: Path, mb: float, place: Path) -> Corpus:
    """About so many MB of pool, equal parts of each source, and at most as much of the target as of one of them."""
    part = int(mb * 1e6 / len(POOL))
    pool = pa.array([text for name in POOL for text in texts(data / "text" / f"{name}.jsonl.gz", part)])
    return Corpus(pool, pa.array(texts(data / "text" / f"{TARGET}.jsonl.gz", part)), place)


def texts(path: Path, n_bytes: int) -> list[str]:
    """The first documents of a file, about so many bytes of them."""
    found, size = list[str](), 0
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            if size >= n_bytes:
                break
            found.append(json.loads(line)["text"])
            size += len(found[-1].encode())
    return found


def n_bytes(array: pa.Array) -> int:
    return sum(len(text.encode()) for text in array.to_pylist())


# --- the two sides -------------------------------------------------------------------------------------------------------------


def reference(python: str, of: Corpus) -> dict[str, float]:
    """CPU seconds of the package's three steps; its frequencies, log weights and tokens lie in theirs.npz."""
    command = [python, "-c", REFERENCE, str(of.place), str(of.n_kept)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def kernel(mode: Mode, of: Corpus) -> dict[str, float]:
    """CPU seconds of our fit and weights, over arrays."""
    ratios = mode.fit(of.pool, of.target)
    return {
        "fit": least_cpu_s(lambda: mode.fit(of.pool, of.target)),
        "weights": least_cpu_s(lambda: mode.weights(of.pool, ratios)),
    }


def whole_job(mode: Mode, of: Corpus) -> None:
    """Read both tables, count, weigh, draw, cut, and write the kept rows."""
    pool, target = (pq.read_table(of.place / f"{name}.parquet", use_threads=False) for name in ("pool", "target"))
    ratios = mode.fit(pool.column("text"), target.column("text"))
    weights, n_tokens = mode.weights(pool.column("text"), ratios)
    row_ids = np.arange(len(weights))
    keys = np.where(n_tokens >= mode.min_tokens, weights + keyed_gumbel(row_ids, "bench", 0), np.nan)
    kept = is_kept(keys, row_ids, cut_at(keys, row_ids, KEPT_FRACTION))
    pq.write_table(pool.filter(pa.array(kept)), of.place / "kept.parquet", compression="zstd")


# --- rows ----------------------------------------------------------------------------------------------------------------------


def rows(options: Options, *, mb: float = POOL_MB) -> list[Row]:
    found = cold_rows(options)
    with tempfile.TemporaryDirectory() as place:
        of = corpus(options.data, mb, Path(place))
        of.write()
        try:
            python = str(options.reference_python or peer_python("dsir", REQUIREMENTS))
        except subprocess.CalledProcessError:
            return [*found, skipped(f"selection, {THEIRS}", "-", f"{' '.join(REQUIREMENTS)} could not be installed")]
        theirs = reference(python, of)
        sides = {name: kernel(mode, of) for name, mode in MODES.items()}
        jobs = {name: least_cpu_s(lambda mode=mode: whole_job(mode, of)) for name, mode in MODES.items()}
        print_steps({THEIRS: theirs, **sides}, of)
        return [*found, *_kernel_rows(theirs, sides, of), *_job_rows(theirs, jobs, of), parity_row(of)]


def print_steps(sides: dict[str, dict[str, float]], of: Corpus) -> None:
    print(f"{len(of.pool):,} pool documents, {of.mb('weights'):.1f} MB; target {len(of.target):,}; one core")
    print(f"{'':24}{'fit MB/CPU s':>14}{'weights MB/CPU s':>18}")
    for name, side in sides.items():
        print(f"{name:24}" + "".join(f"{of.mb(step) / side[step]:>{width}.1f}" for step, width in (("fit", 14), ("weights", 18))))


def _kernel_rows(theirs: dict[str, float], sides: dict[str, dict[str, float]], of: Corpus) -> list[Row]:
    size = of.mb("fit") + of.mb("weights")

    def rate(side: dict[str, float]) -> float:
        return size / (side["fit"] + side["weights"])

    return [
        Row(
            f"n-gram fit and weights, {name} mode, {THEIRS}, one core: MB a CPU s",
            f"{rate(side):.0f}",
            f"{rate(theirs):.2f}",
            times(rate(side), rate(theirs)),
            f">= {LEAST_RATIOS[name]}x",
            verdict(rate(side) >= LEAST_RATIOS[name] * rate(theirs)),
        )
        for name, side in sides.items()
    ]


def _job_rows(theirs: dict[str, float], jobs: dict[str, float], of: Corpus) -> list[Row]:
    total = sum(theirs.values())
    return [
        Row(
            f"selection of {of.mb('weights'):.0f} MB, file to file, {name} mode, {THEIRS}, one core: CPU s",
            f"{job:.2f}",
            f"{total:.1f}",
            times(total, job),
            f">= {LEAST_JOB_RATIO}x",
            verdict(total >= LEAST_JOB_RATIO * job),
        )
        for name, job in jobs.items()
    ]


def parity_row(of: Corpus) -> Row:
    """Frequencies and tokens equal to the bit, log weights to 1e-12, on the very documents that were timed."""
    theirs = np.load(of.place / "theirs.npz")
    mode = MODES["parity"]
    raw, target = mode.count(of.pool), mode.count(of.target)
    weights, n_tokens = mode.weights(of.pool, mode.ratios(target, raw))
    equal = [
        np.array_equal(raw / raw.sum(), theirs["raw"]),
        np.array_equal(target / target.sum(), theirs["target"]),
        np.array_equal(n_tokens, theirs["n_tokens"]),
    ]
    apart = float(np.max(np.abs(weights - theirs["weights"]) / np.maximum(np.abs(theirs["weights"]), 1e-300)))
    return Row(
        f"parity mode, {THEIRS}: frequencies and tokens; largest relative deviation of a log weight",
        "equal" if all(equal) else "not equal",
        "-",
        f"{apart:.1e}",
        f"equal, <= {MOST_DEVIATION}",
        verdict(all(equal) and apart <= MOST_DEVIATION),
    )


def cold_rows(options: Options) -> list[Row]:
    """The first calls of two processes, one after the other, that share a cache of machine code: the first one compiles."""
    del options
    with tempfile.TemporaryDirectory() as cache:
        first, second = (_first_calls_s(cache) for _ in range(2))
    return [
        Row(
            "n-grams, first calls of a second process (theirs: of the first): CPU s",
            f"{second:.2f}",
            f"{first:.1f}",
            times(first, second),
            f"<= {MOST_COLD_S} s",
            verdict(second <= MOST_COLD_S),
        )
    ]


def _first_calls_s(cache: str) -> float:
    command: list[Any] = [sys.executable, "-c", COLD]
    env = environment() | {"NUMBA_CACHE_DIR": cache}
    return float(subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description="n-gram fit, weights and whole job against data-selection 1.0.3")
    parser.add_argument("--reference-python", type=Path)
    parser.add_argument("--mb", type=float, default=POOL_MB, help="MB of pool text, half from each source")
    parser.add_argument("--data", type=Path, default=DATA)
    chosen = parser.parse_args()
    for row in rows(Options(chosen.data, chosen.reference_python), mb=chosen.mb):
        print(f"{row.what}: {row.ours} against {row.theirs}, {row.ratio}, {row.target} {row.verdict}")


if __name__ == "__main__":
    main()
