"""The law of one shard: what forgot a row is what never met it, byte for byte; and a damaged checkpoint is trained again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

from tasks.kernels.kmeans import Centroids, assign
from tasks.train.checkpoints import load
from tasks.train.ensemble import Makeup, mean_softmax
from tasks.train.environment import choose_device, deterministic, fingerprint
from tasks.train.evaluate import class_numbers
from tasks.train.features import Spec, encode, infer_spec, label_texts
from tasks.train.fit import Recipe, ShardResult, ShardRows, fit_shard
from tasks.train.models import BadFactory, build
from tasks.train.plan import Plan

PLAN = Plan(slices=3, epochs=3, batch_size=8, learning_rate=1e-2, seed=1)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    return request.param


def recipe_for(kind: str, table: pa.Table, plan: Plan = PLAN, device: str = "cpu") -> Recipe:
    schema = table.drop_columns(["person", "topic"]).schema
    spec = infer_spec(kind, [schema], text="body" if "body" in schema.names else None, exclude=[], n_pixels=64)
    classes = tuple(sorted(set(label_texts(table["topic"]).to_pylist())))
    return Recipe(kind, spec, classes, plan, "code", "environment", device)


def shard_rows(table: pa.Table, recipe: Recipe) -> ShardRows:
    """People p0, p3, p6, ... in slice 0, p1, p4, ... in slice 1, and so on; ids that tell the rows apart."""
    people = np.array([int(p[1:]) for p in table["person"].to_pylist()])
    keys = [str(sorted(row.items())) for row in table.to_pylist()]
    ids = np.array([hash_of(key) for key in keys], np.int64)
    labels = class_numbers(label_texts(table["topic"]).to_pylist(), recipe.classes)
    return ShardRows(ids, people % recipe.plan.slices, labels, encode(table, recipe.spec))


def hash_of(key: str) -> int:
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:7], "big")


def files(store: Path, result: ShardResult) -> list[bytes]:
    return [(store / f"{name}.safetensors").read_bytes() for name in result.checkpoints]


@pytest.mark.parametrize("person", ["p3", "p1", "p2"])
def test_forgetting_is_never_having_met(
    tmp_path: Path, kind: str, table: pa.Table, without: Callable, person: str, device: str
) -> None:
    recipe = recipe_for(kind, table, device=device)
    fit_shard(recipe, 0, shard_rows(table, recipe), str(tmp_path / "met"))
    left = without(table, person)
    forgot = fit_shard(recipe, 0, shard_rows(left, recipe), str(tmp_path / "met"))
    moved = left.take(pa.array(np.random.default_rng(4).permutation(left.num_rows)))
    never = fit_shard(recipe, 0, shard_rows(moved, recipe), str(tmp_path / "never"))
    assert forgot.n_slices_found == int(person[1:]) % 3 and never.n_slices_found == 0
    assert files(tmp_path / "met", forgot) == files(tmp_path / "never", never)
    assert forgot.digest == never.digest and forgot.losses == never.losses


def test_a_damaged_checkpoint_is_trained_again(tmp_path: Path, kind: str, table: pa.Table, device: str) -> None:
    recipe = recipe_for(kind, table, device=device)
    rows = shard_rows(table, recipe)
    first = fit_shard(recipe, 0, rows, str(tmp_path))
    before = files(tmp_path, first)
    for name in first.checkpoints[1:]:
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(path.read_bytes()[:-8] + b"tampered")
    again = fit_shard(recipe, 0, rows, str(tmp_path))
    assert again.n_slices_found == 1 and not again.found
    assert files(tmp_path, again) == before and again.digest == first.digest


def test_training_twice_finds_everything(tmp_path: Path, table: pa.Table, kind: str) -> None:
    recipe = recipe_for(kind, table)
    rows = shard_rows(table, recipe)
    first = fit_shard(recipe, 0, rows, str(tmp_path))
    again = fit_shard(recipe, 0, rows, str(tmp_path))
    assert again.found and again.n_steps == 0
    assert (again.digest, again.losses, again.checkpoints) == (first.digest, first.losses, first.checkpoints)


def test_copies_are_one_record_and_a_row_without_a_label_trains_nothing(tmp_path: Path) -> None:
    table = pa.table({"person": ["p0", "p1", "p1"], "x": [1.0, 2.0, 3.0], "topic": ["a", "b", None]})
    recipe = recipe_for("tabular", table.slice(0, 2), Plan(1, 1, 8, 1e-2, 0))
    doubled = pa.concat_tables([table.slice(0, 2), table.slice(0, 2)])
    one = fit_shard(recipe, 0, shard_rows(table.slice(0, 2), recipe), str(tmp_path / "one"))
    two = fit_shard(recipe, 0, shard_rows(doubled, recipe), str(tmp_path / "two"))
    more = fit_shard(recipe, 0, shard_rows(table, recipe), str(tmp_path / "more"))
    assert (one.digest, one.checkpoints) == (two.digest, two.checkpoints)
    assert more.digest == one.digest and more.checkpoints != one.checkpoints


def test_it_learns(tmp_path: Path, kind: str, table: pa.Table, device: str) -> None:
    recipe = recipe_for(kind, table, Plan(2, 24, 8, 1e-2, 0), device)
    losses = fit_shard(recipe, 0, shard_rows(table, recipe), str(tmp_path)).losses
    assert losses[-1] < 0.5 * losses[0]


def test_every_part_of_the_recipe_renames_the_checkpoints(kind: str, table: pa.Table) -> None:
    base = recipe_for(kind, table)
    others = [
        Recipe(base.kind, base.spec, base.classes[:1], base.plan, base.code, base.environment),
        Recipe(base.kind, base.spec, base.classes, Plan(3, 3, 8, 1e-2, 2), base.code, base.environment),
        Recipe(base.kind, base.spec, base.classes, base.plan, "other", base.environment),
        Recipe(base.kind, base.spec, base.classes, base.plan, base.code, "other"),
    ]
    assert len({r.key() for r in (base, *others)}) == 5


def test_the_process_is_left_as_it_was(device: str) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3), torch.rand(3, device=device)
    torch.manual_seed(5)
    threads = torch.get_num_threads()
    with deterministic(device):
        assert torch.get_num_threads() == 1 and torch.are_deterministic_algorithms_enabled()
        torch.manual_seed(1)
        torch.rand(10), torch.rand(10, device=device)
    assert torch.get_num_threads() == threads and not torch.are_deterministic_algorithms_enabled()
    assert torch.equal(torch.rand(3), expected[0]) and torch.equal(torch.rand(3, device=device), expected[1])
    assert fingerprint(device) == fingerprint(device) and fingerprint(device)["device"] == device


def test_rounding_that_somebody_allows_does_not_reach_training() -> None:
    before = torch.get_float32_matmul_precision()
    rounded = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul, torch.backends.cudnn.conv
    torch.set_float32_matmul_precision("medium")
    try:
        allowed = [backend.fp32_precision for backend in rounded]
        with deterministic():
            assert [backend.fp32_precision for backend in rounded] == ["ieee"] * 3
        assert [backend.fp32_precision for backend in rounded] == allowed
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


def _train_after_others(folder: str, recipe: Recipe, rows: ShardRows) -> ShardResult:
    """In a process where k-means ran on the GPU, and somebody lets products round."""
    points = np.full((10, 4), 500, np.int16)
    assign(points, Centroids(points[:1], 0), device="cuda")
    torch.set_float32_matmul_precision("medium")
    torch.rand(1000, device="cuda").sum().item()
    return fit_shard(recipe, 0, rows, folder)


@pytest.mark.gpu
def test_two_processes_train_the_same_bits_on_a_gpu(tmp_path: Path, kind: str, table: pa.Table) -> None:
    recipe = recipe_for(kind, table, device="cuda")
    rows = shard_rows(table, recipe)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        one = pool.submit(fit_shard, recipe, 0, rows, str(tmp_path / "one"))
        other = pool.submit(_train_after_others, str(tmp_path / "other"), recipe, rows)
        assert one.result().digest == other.result().digest
        assert files(tmp_path / "one", one.result()) == files(tmp_path / "other", other.result())
    assert files(tmp_path / "one", fit_shard(recipe, 0, rows, str(tmp_path / "here"))) == files(tmp_path / "here", one.result())


@pytest.mark.gpu
def test_a_gpu_predicts_what_the_cpu_predicts(tmp_path: Path, kind: str, table: pa.Table) -> None:
    """Not the same bits: another order of sums."""
    recipe = recipe_for(kind, table, device="cuda")
    rows = shard_rows(table, recipe)
    weights = load(str(tmp_path), fit_shard(recipe, 0, rows, str(tmp_path)).checkpoints[-1]).weights
    makeup = Makeup(kind, recipe.classes, recipe.spec)
    here, there = (
        mean_softmax([makeup.module(weights, d)], rows.features, n_classes=len(recipe.classes), device=d) for d in ("cpu", "cuda")
    )
    np.testing.assert_allclose(here, there, atol=1e-5)


@pytest.mark.gpu
def test_the_setting_names_the_device() -> None:
    assert [choose_device(wanted) for wanted in ("auto", "gpu", "cpu")] == ["cuda", "cuda", "cpu"]
    assert {"gpu", "cuda", "cudnn", "cublas"} <= fingerprint("cuda").keys()


def test_a_factory_of_one_s_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "from torch import nn\nmake = lambda n_classes, spec: nn.Identity()\nother = lambda n_classes, spec: 3\n"
    (tmp_path / "own_models.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    spec = Spec("tabular", ("x",), ("number",))
    assert isinstance(build("own_models:make", 2, spec), nn.Identity)
    with pytest.raises(BadFactory, match=r"no callable missing"):
        build("own_models:missing", 2, spec)
    with pytest.raises(BadFactory, match=r"made a int"):
        build("own_models:other", 2, spec)
    with pytest.raises(BadFactory, match=r"cannot be imported"):
        build("no_such_module:make", 2, spec)
