"""What a GPU is worth: seconds a k-means iteration and a training epoch, beside the cores: python -m tests.bench.bench_gpu

Training is one shard on one thread on either device, as the workers run it. Rows come from a generator; nothing is read.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from infra.cluster import n_gpus
from tasks.kernels.kmeans import UNIT, Points, _lloyd, _lloyd_torch, fit  # pyright: ignore[reportPrivateUsage]
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


def iteration_s(points: Points, k: int, device: str, n_iter: int = 5) -> float:
    """Wall seconds of one iteration: the least for 1 + n_iter of them less the least for one, so that the upload falls out."""
    least = dict[int, float]()
    for _ in range(3):
        for n in (1, 1 + n_iter):
            lloyd = (
                partial(_lloyd, points, points[:k], n)
                if device == "cpu"
                else partial(_lloyd_torch, points, points[:k], n, device)
            )
            least[n] = min(wall_s(lloyd), least.get(n, float("inf")))
    return (least[1 + n_iter] - least[1]) / n_iter


def fit_s(points: Points, k: int, device: str) -> float:
    """Wall seconds of a fit with its seeding, in at most 20 iterations."""
    return wall_s(lambda: fit(points, np.arange(len(points)), k, seed=0, device=device))


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


def compared() -> Iterator[Row]:
    for n, d, k in ((200_000, 64, 256), (5_000_000, 64, 256)):
        points = unit_points(n, d, k)
        yield _row(f"k-means iteration, {n} x {d}, {k} clusters: s", partial(iteration_s, points, k))
        if n == 200_000:
            yield _row(f"k-means fit with seeding, {n} x {d}, {k} clusters: s", partial(fit_s, points, k))
    for kind in KINDS:
        for batch_size in (64, 1024):
            what = f"epoch of {kind}, {N_ROWS} rows, batches of {batch_size}: s"
            yield _row(what, partial(epoch_s, kind, batch_size=batch_size))


def _row(what: str, seconds: Callable[[str], float]) -> Row:
    there, here = seconds("cuda"), seconds("cpu")
    return Row(what, f"{there:.4f}", f"{here:.4f}", times(here, there))


def rows(_: Options) -> list[Row]:
    if n_gpus() == 0 or not torch.cuda.is_available():
        return [skipped(WHAT, "-", "no GPU")]
    return list(compared())


if __name__ == "__main__":
    for row in compared() if torch.cuda.is_available() else rows(Options()):
        print(f"{row.what:58}{row.ours:>9}{row.theirs:>9}{row.ratio:>8}{row.verdict:>4}", flush=True)
