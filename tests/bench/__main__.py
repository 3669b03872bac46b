"""All comparisons in one table: python -m tests.bench [--only NAME ...] [--full] [--data DIR] [--reference-python PATH]

Each benchmark is a process of its own, so that none disturbs another; ratios are within one run. What a benchmark has to say
beside its rows goes to stderr. Exit 1: a benchmark broke. A target that is not met is a figure, not an error.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from tests.bench.harness import DATA, ROOT, Options, Row, as_json, environment, of_json, skipped, table


@dataclass(frozen=True)
class Bench:
    """A benchmark: the function (module:name) that makes its rows, what it compares, and the files it cannot do without."""

    door: str
    what: str
    needs: tuple[str, ...] = ()


_PACKS = tuple(f"lake/{pack}.tar.gz" for pack in ("snapshots", "santos", "rdatasets"))
_TABLES = ("lake/spark_guide.tar.gz", "lake/pcm_dpc.tar.gz", "subjects.tar.gz")
_TEXTS = tuple(f"text/{name}.jsonl.gz" for name in ("newsgroups20", "medquad", "target_product_reviews"))
_NAMES = ("newsgroups20", "medquad", "dstc8_dialogue", "peps", "target_product_reviews", "target_sms_spam", "target_us_speeches")
_ALL_TEXTS = tuple(f"text/{name}.jsonl.gz" for name in _NAMES)
BENCHES = {
    "select": Bench("bench_select:rows", "selection against data-selection 1.0.3", _TEXTS),
    "select-size": Bench("bench_select_job:size_rows", "selection by size of the pool", _TEXTS),
    "select-workers": Bench("bench_select_workers:rows", "selection by two workers beside one", _TEXTS),
    "select-quality": Bench("bench_select_quality:rows", "held-out KL and accuracy: default, random, reference", _ALL_TEXTS),
    "signals": Bench("bench_signals:rows", "quality signals against datatrove's filters", _ALL_TEXTS),
    "duplicates": Bench("bench_duplicates:rows", "duplicates against rensa, daft, datatrove, Polars", _ALL_TEXTS),
    "contamination": Bench("bench_contamination:rows", "decontamination against a Python set of n-grams", _ALL_TEXTS),
    "dedup": Bench("bench_dedup:rows", "containment against DuckDB EXCEPT ALL", _PACKS),
    "dedup-made": Bench("bench_dedup:made_rows", "containment of made tables against DuckDB EXCEPT ALL"),
    "dedup-forty": Bench("bench_dedup_peers:forty_rows", "containment against forty lines of DuckDB"),
    "dedup-sampled": Bench("bench_dedup_peers:sampled_rows", "containment against a check of some rows"),
    "dedup-ensemble": Bench("bench_dedup_peers:datasketch_rows", "containment against datasketch LSH Ensemble"),
    "dedup-desbordante": Bench("bench_dedup_peers:desbordante_rows", "containment against Desbordante"),
    "dedup-steps": Bench("bench_dedup_scale:steps_rows", "containment by number of tables"),
    "dedup-grown": Bench("bench_dedup_scale:grown_rows", "containment by number of rows"),
    "dedup-append": Bench("bench_dedup_scale:append_rows", "containment after an append of 1 % to one table"),
    "dedup-large": Bench("bench_dedup_scale:large_rows", "containment of a table larger than memory"),
    "ingest": Bench("bench_ingest:rows", "ingest against pandas + write_deltalake and the floor", (*_PACKS, *_TABLES)),
    "curate": Bench("bench_walk:curate_rows", "a second curate with nothing new", _TEXTS),
    "forget": Bench("bench_walk:forget_rows", "forgetting one person against curate + train", ("subjects.tar.gz",)),
    "kmeans": Bench("bench_kmeans:rows", "a k-means iteration against scikit-learn"),
    "gpu": Bench("bench_gpu:rows", "k-means and training on a GPU against the cores"),
}


def measured(name: str, options: Options) -> list[Row]:
    """The rows of one benchmark, from a process of its own."""
    bench = BENCHES[name]
    absent = [file for file in bench.needs if not (options.data / file).exists()]
    if absent:
        return [skipped(bench.what, "-", "data absent")]
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "rows.json"
        reference = ["--reference-python", str(options.reference_python)] if options.reference_python else []
        command = [sys.executable, "-m", "tests.bench", "--child", name, "--data", str(options.data), "--out", str(out)]
        full = ["--full"] if options.full else []
        done = subprocess.run([*command, *reference, *full], cwd=ROOT, env=environment(), stdout=sys.stderr, check=False)
        if done.returncode:
            return [Row(bench.what, "-", "-", "-", "-", f"broke: exit code {done.returncode}")]
        return of_json(out.read_text(encoding="utf-8"))


def child(name: str, options: Options, out: Path) -> None:
    """One benchmark, here; what it prints goes to stderr."""
    module, _, function = BENCHES[name].door.partition(":")
    door: Callable[[Options], list[Row]] = getattr(importlib.import_module(f"tests.bench.{module}"), function)
    with redirect_stdout(sys.stderr):
        rows = door(options)
    out.write_text(as_json(rows), encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="All comparisons in one table.")
    parser.add_argument("--only", nargs="+", choices=sorted(BENCHES), metavar="NAME", help=", ".join(sorted(BENCHES)))
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--reference-python", type=Path, help="an interpreter that has data-selection==1.0.3 and nltk==3.9.1")
    parser.add_argument("--full", action="store_true", help="the sizes of README's figures: hours")
    parser.add_argument("--child", choices=sorted(BENCHES), help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    options = Options(chosen.data.absolute(), chosen.reference_python and chosen.reference_python.absolute(), chosen.full)
    if chosen.child:
        child(chosen.child, options, chosen.out)
        return 0
    return whole(chosen.only or list(BENCHES), options)


def whole(names: Sequence[str], options: Options) -> int:
    rows = list[Row]()
    for name in names:
        start = time.perf_counter()
        rows += measured(name, options)
        print(f"[{name}: {time.perf_counter() - start:.0f} s]", file=sys.stderr)
    print(table(rows))
    return int(any(row.verdict.startswith("broke") for row in rows))


if __name__ == "__main__":
    sys.exit(main())
