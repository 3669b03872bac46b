"""Importance weights of real text: our kernel against `data-selection` 1.0.3, the reference implementation of DSIR.

    python -m tests.bench.bench_select [--reference-python REF/bin/python] [--mb 16] [--data ../shared/data]

REF is a virtual environment of its own with data-selection==1.0.3 and nltk==3.9.1; without one it is made, once, in a folder of
yours under the system's temporary one. Both run on one core over the same documents, with 10,000 buckets: fit (n-gram counts of
pool and target), then weights (a score for every pool document). The figures are MB of text per CPU second. The reference reads
JSON lines, its only input; ours is given as the kernel alone, over Arrow arrays, and as reading zstd Parquet and running the
kernel.
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.kernels.ngrams import count_ngrams, score_ngrams
from tasks.select.weights import log_ratios
from tests.bench.harness import DATA, Options, Row, least_cpu_s, peer_python, skipped, times, verdict

POOL, TARGET = ("newsgroups20", "medquad"), "target_product_reviews"
N_BUCKETS = 10_000
POOL_MB = 16.0
LEAST_RATIO = 100
THEIRS = "data-selection 1.0.3"
REQUIREMENTS = ("data-selection==1.0.3", "nltk==3.9.1")

REFERENCE = """
import json, resource, sys
import numpy as np
from data_selection import HashedNgramDSIR

def cpu_s():
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)

dsir = HashedNgramDSIR([sys.argv[1]], [sys.argv[2]], cache_dir=sys.argv[3], num_proc=1)
start = cpu_s(); dsir.fit_importance_estimator(num_tokens_to_fit="all")
fitted = cpu_s(); dsir.compute_importance_weights()
done = cpu_s()
n_tokens = sum(int(np.load(path).sum()) for path in dsir.perexample_metadata_dir.glob("*.npy"))
print(json.dumps({"fit": fitted - start, "weights": done - fitted, "n_tokens": n_tokens}))
"""


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


def ours(pool: pa.Array, target: pa.Array, place: Path) -> dict[str, dict[str, float]]:
    for name, array in (("pool", pool), ("target", target)):
        pq.write_table(pa.table({"text": array}), place / f"{name}.parquet", compression="zstd")

    def read(name: str) -> pa.ChunkedArray:
        return pq.read_table(place / f"{name}.parquet", use_threads=False).column("text")

    def fit(pool: pa.Array | pa.ChunkedArray, target: pa.Array | pa.ChunkedArray) -> np.ndarray:
        counts = [count_ngrams(array, n_buckets=N_BUCKETS, seed=0) for array in (target, pool)]
        return log_ratios(*counts, smoothing=0.1)

    ratios = fit(pool, target)
    n_tokens = int(score_ngrams(pool, ratios, seed=0)[1].sum())
    kernel = {"fit": least_cpu_s(lambda: fit(pool, target)), "weights": least_cpu_s(lambda: score_ngrams(pool, ratios, seed=0))}
    whole = {
        "fit": least_cpu_s(lambda: fit(read("pool"), read("target"))),
        "weights": least_cpu_s(lambda: score_ngrams(read("pool"), ratios, seed=0)),
    }
    return {"lethe, kernel": {**kernel, "n_tokens": n_tokens}, "lethe, from Parquet": {**whole, "n_tokens": n_tokens}}


def reference(python: str, pool: pa.Array, target: pa.Array, place: Path) -> dict[str, float]:
    for name, array in (("pool", pool), ("target", target)):
        lines = "".join(json.dumps({"text": text}) + "\n" for text in array.to_pylist())
        (place / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    command = [python, "-c", REFERENCE, str(place / "pool.jsonl"), str(place / "target.jsonl"), str(place / "cache")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def compared(python: str | None, data: Path, mb: float) -> dict[str, float]:
    """MB of text a CPU second of each side, fit and weights together; prints the steps apart."""
    half = int(mb * 1e6 / len(POOL))
    pool = pa.array([text for name in POOL for text in texts(data / "text" / f"{name}.jsonl.gz", half)])
    target = pa.array(texts(data / "text" / f"{TARGET}.jsonl.gz", half))
    sizes = {"fit": (n_bytes(pool) + n_bytes(target)) / 1e6, "weights": n_bytes(pool) / 1e6}
    with tempfile.TemporaryDirectory() as place:
        sides = ours(pool, target, Path(place))
        if python is not None:
            sides[THEIRS] = reference(python, pool, target, Path(place))
    print(f"{len(pool):,} pool documents, {sizes['weights']:.1f} MB; target {sizes['fit'] - sizes['weights']:.1f} MB; one core")
    print(f"{'':24}{'fit MB/CPU s':>14}{'weights MB/CPU s':>18}{'both':>9}{'tokens':>13}")
    rates = {name: sum(sizes.values()) / (side["fit"] + side["weights"]) for name, side in sides.items()}
    for name, side in sides.items():
        fit, weights = (sizes[step] / side[step] for step in ("fit", "weights"))
        print(f"{name:24}{fit:>14.1f}{weights:>18.1f}{rates[name]:>9.1f}{side['n_tokens']:>13,}")
    return rates


def rows(options: Options, *, mb: float = POOL_MB) -> list[Row]:
    target = f">= {LEAST_RATIO}x"
    try:
        python = str(options.reference_python or peer_python("dsir", REQUIREMENTS))
    except subprocess.CalledProcessError:
        compared(None, options.data, mb)
        return [skipped(f"n-gram fit and weights, {THEIRS}", target, f"{' '.join(REQUIREMENTS)} could not be installed")]
    rates = compared(python, options.data, mb)
    theirs = rates.pop(THEIRS)
    return [
        Row(
            f"n-gram fit and weights, {THEIRS}, one core: MB a CPU s; {name}",
            f"{rate:.0f}",
            f"{theirs:.2f}",
            times(rate, theirs),
            target,
            verdict(rate >= LEAST_RATIO * theirs),
        )
        for name, rate in rates.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="n-gram fit and weights against data-selection 1.0.3")
    parser.add_argument("--reference-python", type=Path)
    parser.add_argument("--mb", type=float, default=POOL_MB, help="MB of pool text, half from each source")
    parser.add_argument("--data", type=Path, default=DATA)
    chosen = parser.parse_args()
    for row in rows(Options(chosen.data, chosen.reference_python), mb=chosen.mb):
        print(f"{row.what}: {row.ours} against {row.theirs}, {row.ratio}, {row.verdict}")


def n_bytes(array: pa.Array) -> int:
    return sum(len(text.encode()) for text in array.to_pylist())


if __name__ == "__main__":
    main()
