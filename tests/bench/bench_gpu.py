"""What a GPU is worth: seconds a k-means iteration and a training epoch, beside the cores: python -m tests.bench.bench_gpu

Training is one shard on one thread on either device, as the workers run it. Rows come from a generator; nothing is read.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version

import numpy as np
import numpy.typing as npt
import torch

from infra.cluster import n_gpus
from tasks.kernels.kmeans import UNIT, Points, fit
from tasks.train.features import TEXT_BUCKETS, TOKEN_BUCKETS, Features, Spec
from tasks.train.fit import Recipe, ShardRows, fit_shard
from tasks.train.plan import Plan
from tests.bench.harness import Options, Row, skipped, times, wall_s

N_EPOCHS = 3
N_ROWS = 20_000
WHAT = "a GPU against the cores"


def unit_points(n: int, d: int, k: int) -> Points:
    """Three blobs a cluster, wide enough to touch."""
    rng = np.random.default_rng(0)
    raw = rng.standard_normal((3 * k, d), np.float32)[rng.integers(0, 3 * k, n)] + 0.8 * rng.standard_normal((n, d), np.float32)
    return np.rint(UNIT * raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.int16)


def kmeans_s(points: Points, k: int, device: str, n_iter: int = 5) -> float:
    """Wall seconds of one iteration: the least for 1 + n_iter of them less the least for one, so that seeding falls out."""
    row_ids = np.arange(len(points))
    least = dict[int, float]()
    for _ in range(3):
        for n in (1, 1 + n_iter):
            took = wall_s(lambda n=n: fit(points, row_ids, k, seed=0, n_iter=n, device=device))
            least[n] = min(took, least.get(n, float("inf")))
    return (least[1 + n_iter] - least[1]) / n_iter


def bags(n: int, each: int, n_buckets: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    tokens = np.random.default_rng(1).integers(0, n_buckets, n * each).astype(np.int32)
    return tokens, each * np.arange(n + 1, dtype=np.int64)


def text_rows(n: int) -> tuple[Spec, Features]:
    """Documents of sixty hashed words and pairs."""
    spec = Spec("text", ("body",), ("text",), TEXT_BUCKETS)
    return spec, Features(np.empty((n, 0), np.float32), *bags(n, 60, spec.n_buckets))


def table_rows(n: int) -> tuple[Spec, Features]:
    """Twenty numbers and five categories."""
    spec = Spec("tabular", tuple(f"c{i}" for i in range(25)), ("number",) * 20 + ("token",) * 5, TOKEN_BUCKETS)
    dense = np.random.default_rng(2).standard_normal((n, spec.n_dense), np.float32)
    return spec, Features(dense, *bags(n, 5, spec.n_buckets))


def image_rows(n: int) -> tuple[Spec, Features]:
    """32 x 32 pixels in three colours."""
    spec = Spec("image", ("pixels",), ("pixels",), channels=3, side=32)
    dense = np.random.default_rng(3).standard_normal((n, spec.n_dense), np.float32)
    return spec, Features(dense, *bags(n, 0, 1))


KINDS: dict[str, Callable[[int], tuple[Spec, Features]]] = {"text": text_rows, "tabular": table_rows, "image": image_rows}


def epoch_s(kind: str, device: str, batch_size: int, n: int = N_ROWS) -> float:
    """Wall seconds of one epoch over n rows: of 1 + N_EPOCHS less of one."""
    spec, features = KINDS[kind](n)
    labels = np.random.default_rng(4).integers(0, 10, n)
    rows = ShardRows(np.arange(n), np.zeros(n, np.int64), labels, features)

    def took(epochs: int) -> float:
        plan = Plan(slices=1, epochs=epochs, batch_size=batch_size, learning_rate=1e-3, seed=0)
        recipe = Recipe(kind, spec, tuple(map(str, range(10))), plan, "", "", device)
        with tempfile.TemporaryDirectory() as store:
            return wall_s(lambda: fit_shard(recipe, 0, rows, store))

    took(1)
    return (took(1 + N_EPOCHS) - took(1)) / N_EPOCHS


def compared() -> list[Row]:
    found = list[Row]()
    for n, d, k in ((200_000, 64, 256), (5_000_000, 64, 256)):
        points = unit_points(n, d, k)
        here, there = (kmeans_s(points, k, device) for device in ("cpu", "cuda"))
        found.append(Row(f"k-means iteration, {n} x {d}, {k} clusters: s", f"{there:.4f}", f"{here:.4f}", times(here, there)))
    for kind in KINDS:
        for batch_size in (64, 1024):
            here, there = (epoch_s(kind, device, batch_size) for device in ("cpu", "cuda"))
            what = f"epoch of {kind}, {N_ROWS} rows, batches of {batch_size}: s"
            found.append(Row(what, f"{there:.3f}", f"{here:.3f}", times(here, there)))
    return found


def rows(_: Options) -> list[Row]:
    if n_gpus() == 0 or not torch.cuda.is_available():
        return [skipped(WHAT, "-", "no GPU")]
    return compared()


if __name__ == "__main__":
    began = time.perf_counter()
    for row in rows(Options()):
        print(f"{row.what:58}{row.ours:>9}{row.theirs:>9}{row.ratio:>8}")
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    print(f"{gpu}, torch {version('torch')}, {time.perf_counter() - began:.0f} s", file=sys.stderr)
