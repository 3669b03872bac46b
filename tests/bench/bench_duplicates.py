"""Duplicates among real texts with planted copies: signatures, pairs and verdicts against rensa, daft and datatrove; and equal
texts against Polars.

    python -m tests.bench.bench_duplicates [--full]

The corpus is posts and medical questions; to it come copies with 0, 1, 2 and 5 % of the words changed (each word with that
probability). All sides take shingles of 5 words and look for a similarity of 0.8: rensa, daft and datatrove as they are commonly
set up (14 bands of 8 values), Lethe with its 128 values. A copy is found when it and its original do not both stay. A unique
document is one that shares less than half of its shingles with any other; none may go. Figures are MB of text per CPU second of
all processes, the least of some runs: texts in memory on all sides but datatrove's, which reads files. The peers live in virtual
environments of their own.
"""

from __future__ import annotations

import gzip
import json
import random
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from infra.cluster import connect
from infra.contracts import SIGNATURES, DataFile
from infra.files import Part
from infra.select_settings import NearDuplicateSettings
from tasks.select.duplicates import signature_table, signatures_from
from tasks.select.duplicates_frames import duplicates
from tests.bench.harness import Options, Row, least_cpu_s, peer_python, print_parts, skipped, times, verdict
from tests.tasks.select.whole_duplicates import find_duplicates

SOURCES = ("newsgroups20", "medquad")
FRACTIONS = (0.0, 0.01, 0.02, 0.05)
MB, FULL_MB = 12.0, 60.0
N_PLANTED = 600
LEAST_WORDS = 50
UNIQUE = 0.5
NEAR, EQUAL = NearDuplicateSettings(), NearDuplicateSettings(jaccard=1.0)

_START = """
import json, os, resource, sys, time
os.environ["DAFT_PROGRESS_BAR"] = os.environ["DAFT_ANALYTICS_ENABLED"] = "0"
os.environ["POLARS_MAX_THREADS"] = "2"
folder = sys.argv[1]
def cpu_s():
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)
def told(work, n):
    took = []
    for _ in range(n):
        start = cpu_s(); kept = work(); took.append(cpu_s() - start)
    print(json.dumps({"cpu_s": min(took), "gone": sorted(set(range(n_texts)) - set(kept))}))
texts = [json.loads(line)["text"] for line in open(folder + "/jsonl/texts.jsonl")]
n_texts = len(texts)
def shingles(text):
    words = text.lower().split()
    return [" ".join(words[i:i + 5]) for i in range(max(1, len(words) - 4))]
"""
PEERS = {
    "rensa": (
        ("rensa==0.5.0",),
        """
from rensa import RMinHash, RMinHashLSH
def work():
    lsh, kept = RMinHashLSH(threshold=0.8, num_perm=112, num_bands=14), []
    for i, text in enumerate(texts):
        one = RMinHash(num_perm=112, seed=1); one.update(shingles(text))
        if not lsh.query(one): lsh.insert(i, one); kept.append(i)
    return kept
told(work, 2)
""",
    ),
    "rensa in bulk": (
        ("rensa==0.5.0",),
        """
from rensa import RMinHash, RMinHashLSH
def work():
    found = RMinHash.digest_matrix_from_token_sets([shingles(text) for text in texts], num_perm=112, seed=1)
    flags = RMinHashLSH(threshold=0.8, num_perm=112, num_bands=14).query_duplicate_flags_matrix_one_shot(found)
    return [i for i, flag in enumerate(flags) if not flag]
told(work, 2)
""",
    ),
    "daft": (
        ("daft==0.7.26", "pyarrow", "numpy"),
        """
import daft, numpy as np, pyarrow as pa
from daft import col
def work():
    rows = daft.from_arrow(pa.table({"text": texts})).select(col("text").minhash(num_hashes=112, ngram_size=5, seed=1).alias("m"))
    values = np.asarray(rows.to_arrow()["m"].combine_chunks().flatten()).reshape(n_texts, 14, 8)
    parent = list(range(n_texts))
    def find(x):
        while parent[x] != x: parent[x] = parent[parent[x]]; x = parent[x]
        return x
    for band in range(14):
        keys = np.ascontiguousarray(values[:, band]).view([("", values.dtype)] * 8).ravel()
        order = np.argsort(keys, kind="stable")
        for i in np.flatnonzero(keys[order][1:] == keys[order][:-1]):
            x, y = find(int(order[i])), find(int(order[i + 1]))
            parent[max(x, y)] = min(x, y)
    return [i for i in range(n_texts) if find(i) == i]
told(work, 2)
""",
    ),
    "datatrove": (
        ("datatrove[io,processing]==0.10.1", "spacy"),
        """
import glob, gzip
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup.minhash import *
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers.jsonl import JsonlWriter
from datatrove.utils.hashing import HashConfig
import loguru
if __name__ == "__main__":
    loguru.logger.remove()
    out = folder + "/datatrove"
    asked = MinhashConfig(n_grams=5, num_buckets=14, hashes_per_bucket=8, hash_config=HashConfig(precision=64))
    read = lambda: JsonlReader(folder + "/jsonl")
    def run(steps, tasks, name):
        LocalPipelineExecutor(pipeline=steps, tasks=tasks, workers=1, logging_dir=out + "/logs/" + name).run()
    def work():
        run([read(), MinhashDedupSignature(out + "/sig", config=asked)], 1, "sig")
        run([MinhashDedupBuckets(out + "/sig", out + "/buckets", config=asked)], 14, "buckets")
        run([MinhashDedupCluster(out + "/buckets", out + "/rm", config=asked)], 1, "cluster")
        run([read(), MinhashDedupFilter(out + "/rm"), JsonlWriter(out + "/kept", compression=None)], 1, "filter")
        return [int(json.loads(line)["id"]) for f in glob.glob(out + "/kept/*.jsonl") for line in open(f)]
    told(work, 1)
""",
    ),
}
POLARS = """
import polars as pl
def work():
    found = pl.scan_parquet(folder + "/texts.parquet").unique(subset=["text"], keep="any")
    found.sink_parquet(folder + "/polars.parquet", engine="streaming")
    return pl.read_parquet(folder + "/polars.parquet", columns=["row_id"])["row_id"].to_list()
told(work, 5)
"""


# --- the corpus ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Planted:
    """Texts, and of the planted ones their places, those of their originals, and how many of the words were changed."""

    texts: list[str]
    places: list[int]
    originals: list[int]
    fractions: list[float]

    @property
    def mb(self) -> float:
        return sum(len(text.encode()) for text in self.texts) / 1e6


def planted(data: Path, mb: float) -> Planted:
    """The texts of `SOURCES`, about so many MB, and changed copies of some, in a random order."""
    chance = random.Random(0)
    bases = [text for name in SOURCES for text in _texts(data / "text" / f"{name}.jsonl.gz", mb * 1e6 / len(SOURCES))]
    vocabulary = sorted({word for text in bases for word in text.split()})
    long = [i for i, text in enumerate(bases) if len(text.split()) >= LEAST_WORDS]
    chosen = [(i, fraction) for fraction in FRACTIONS for i in chance.sample(long, min(N_PLANTED, len(long)))]
    every = [*bases, *(_changed(bases[i], fraction, vocabulary, chance) for i, fraction in chosen)]
    order = chance.sample(range(len(every)), len(every))
    place = {old: new for new, old in enumerate(order)}
    copies = [place[len(bases) + k] for k in range(len(chosen))]
    return Planted([every[i] for i in order], copies, [place[i] for i, _ in chosen], [fraction for _, fraction in chosen])


def _texts(path: Path, n_bytes: float) -> list[str]:
    found, size = list[str](), 0
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            if size >= n_bytes:
                break
            found.append(json.loads(line)["text"])
            size += len(found[-1].encode())
    return found


def _changed(text: str, fraction: float, vocabulary: Sequence[str], chance: random.Random) -> str:
    return " ".join(chance.choice(vocabulary) if chance.random() < fraction else word for word in text.split(" "))


# --- what is good about a set of documents that goes ---------------------------------------------------------------------------


def recalls(corpus: Planted, gone: set[int]) -> dict[float, float]:
    """The share of planted copies that are found, by the share of their words that was changed."""
    found, n = Counter[float](), Counter[float](corpus.fractions)
    for copy, original, fraction in zip(corpus.places, corpus.originals, corpus.fractions, strict=True):
        found[fraction] += copy in gone or original in gone
    return {fraction: found[fraction] / n[fraction] for fraction in FRACTIONS}


class Nearest:
    """The greatest Jaccard similarity of a document to any other, from an index of all shingles."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._shingles = [_shingles(text) for text in texts]
        self._holders = dict[int, list[int]]()
        for i, found in enumerate(self._shingles):
            for shingle in found:
                self._holders.setdefault(shingle, []).append(i)
        self.of = cache(self._of)

    def _of(self, i: int) -> float:
        mine = self._shingles[i]
        shared = Counter(other for shingle in mine for other in self._holders[shingle] if other != i)
        return max((n / (len(mine) + len(self._shingles[j]) - n) for j, n in shared.items()), default=0.0)


def _shingles(text: str) -> set[int]:
    words = re.findall(r"\w+", text.lower())
    return {hash(tuple(words[i : i + NEAR.shingle])) for i in range(max(1, len(words) - NEAR.shingle + 1))}


# --- the sides -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Side:
    """What a side did: its CPU seconds and the places of the texts that go."""

    cpu_s: float
    gone: set[int]


def kernel(texts: pa.Array, asked: NearDuplicateSettings) -> pa.Table:
    """The verdicts on texts in memory."""
    row_ids = np.arange(len(texts))
    return find_duplicates(signatures_from(signature_table(row_ids, texts, asked).combine_chunks().to_batches()[0]), asked)


def stage(folder: Path, asked: NearDuplicateSettings) -> pa.Table:
    """The same from Parquet to Parquet, through the functions of the workers, in this process."""
    table = pq.read_table(folder / "texts.parquet", use_threads=False)
    signed = signature_table(np.asarray(table.column("row_id")), table.column("text"), asked)
    pq.write_table(signed, folder / "signatures.parquet", use_dictionary=False)
    part = Part(str(folder / "signatures.parquet"), DataFile("signatures", len(table), 0, ""), SIGNATURES)
    with connect(None) as workers:
        uris = duplicates(workers, [part], [], asked, str(folder / "scratch"))
    return pa.concat_tables([pq.read_table(uri) for uri in uris])


def without_equals(folder: Path) -> pa.Table:
    """A Parquet file of the texts that stay: what Polars is asked for too."""
    table = pq.read_table(folder / "texts.parquet", use_threads=False)
    row_ids = np.asarray(table.column("row_id"))
    signed = signature_table(row_ids, table.column("text"), EQUAL)
    found = find_duplicates(signatures_from(signed.combine_chunks().to_batches()[0]), EQUAL)
    stays = ~np.isin(row_ids, np.asarray(found.column("row_id")))
    pq.write_table(table.filter(pa.array(stays)), folder / "lethe.parquet", compression="zstd", use_dictionary=False)
    return found


def ours(work: Callable[[], pa.Table]) -> Side:
    gone = set(work().column("row_id").to_pylist())
    return Side(least_cpu_s(work), gone)


def theirs(name: str, requirements: Sequence[str], script: str, folder: Path) -> Side | None:
    """None where the peer cannot be had."""
    try:
        python = peer_python(name.split(maxsplit=1)[0], requirements)
    except subprocess.CalledProcessError:
        return None
    (folder / "peer.py").write_text(_START + script, encoding="utf-8")
    command = [python, str(folder / "peer.py"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)
        return None
    told = json.loads(done.stdout.splitlines()[-1])
    return Side(told["cpu_s"], set(told["gone"]))


def _write(corpus: Planted, folder: Path) -> pa.Array:
    (folder / "jsonl").mkdir()
    with open(folder / "jsonl" / "texts.jsonl", "w", encoding="utf-8") as lines:
        for i, text in enumerate(corpus.texts):
            lines.write(json.dumps({"id": str(i), "text": text}) + "\n")
    texts = pa.array(corpus.texts)
    pq.write_table(pa.table({"row_id": np.arange(len(texts)), "text": texts}), folder / "texts.parquet", compression="zstd")
    return texts


# --- the tables ----------------------------------------------------------------------------------------------------------------


def rows(options: Options) -> list[Row]:
    """Near duplicates against each peer, and what went wrongly; then equal texts against Polars."""
    corpus = planted(options.data, FULL_MB if options.full else MB)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        texts = _write(corpus, folder)
        sides = {"lethe": ours(lambda: kernel(texts, NEAR)), "lethe, Parquet": ours(lambda: stage(folder, NEAR))}
        peers = {name: theirs(name, *peer, folder) for name, peer in PEERS.items()}
        equal = ours(lambda: without_equals(folder)), theirs("polars", ("polars==2.1.0",), POLARS, folder)
    nearest = Nearest(corpus.texts)
    _print(corpus, {**sides, **{name: side for name, side in peers.items() if side}}, nearest)
    found = list[Row]()
    for name, side in peers.items():
        found += _against(name, side, sides, corpus) if side else [skipped(f"near duplicates, {name}", "faster", "not installed")]
    lost = n_lost(sides["lethe"], nearest)
    found.append(Row("near duplicates: unique documents lost", str(lost), "-", "-", "0", verdict(lost == 0)))
    return [*found, *_equal_rows(corpus, *equal)]


def n_lost(side: Side, nearest: Nearest) -> int:
    """Documents that went though no other is like them."""
    return sum(nearest.of(i) < UNIQUE for i in side.gone)


def _against(name: str, peer: Side, sides: dict[str, Side], corpus: Planted) -> list[Row]:
    rate = corpus.mb / peer.cpu_s
    found = list[Row]()
    for ours, side in sides.items():
        what = f"near duplicates, {name}: MB a CPU s; {ours}"
        mine = corpus.mb / side.cpu_s
        found.append(Row(what, f"{mine:.0f}", f"{rate:.2f}", times(mine, rate), "> 1x", verdict(mine > rate)))
    mine, others = recalls(corpus, sides["lethe"].gone), recalls(corpus, peer.gone)
    for fraction in FRACTIONS[1:]:
        what = f"near duplicates, {name}: recall, {fraction:.0%} of the words changed"
        is_met = mine[fraction] >= others[fraction]
        target = (">= theirs", verdict(is_met)) if fraction < FRACTIONS[-1] else ("-", "-")
        found.append(Row(what, f"{mine[fraction]:.3f}", f"{others[fraction]:.3f}", "-", *target))
    return found


def _equal_rows(corpus: Planted, side: Side, polars: Side | None) -> list[Row]:
    what = "equal texts, Parquet to Parquet, Polars streaming: MB a CPU s"
    if polars is None:
        return [skipped(what, "> 1x", "not installed")]
    mine, rate = corpus.mb / side.cpu_s, corpus.mb / polars.cpu_s
    return [Row(what, f"{mine:.0f}", f"{rate:.0f}", times(mine, rate), "> 1x", verdict(mine > rate))]


def _print(corpus: Planted, sides: dict[str, Side], nearest: Nearest) -> None:
    n = len(corpus.texts)
    print(f"{n:,} documents, {corpus.mb:.1f} MB, {len(corpus.places):,} of them planted copies")
    print(
        f"{'':16}{'MB/CPU s':>10}" + "".join(f"{f'found at {f:.0%}':>14}" for f in FRACTIONS) + f"{'gone':>8}{'unique gone':>13}"
    )
    for name, side in sides.items():
        shares = "".join(f"{share:>14.3f}" for share in recalls(corpus, side.gone).values())
        print(f"{name:16}{corpus.mb / side.cpu_s:>10.1f}{shares}{len(side.gone):>8,}{n_lost(side, nearest):>13}")


if __name__ == "__main__":
    print_parts([rows], __doc__)
