"""Where work runs must not change what comes of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from distributed import Client

from infra import cluster as clusters
from infra.cluster import ClusterError, LazyCluster, Split, cluster, connect, n_gpus
from infra.settings import ClusterSettings, Settings


def _shifted(item: int, by: int, table: np.ndarray) -> int:
    return item + by + int(table[0])


def _settings(tmp_path: Path, **options: object) -> Settings:
    return Settings(home=tmp_path, cluster=ClusterSettings.model_validate(options))


def test_tiny_work_stays_in_the_process(tmp_path: Path) -> None:
    with cluster(_settings(tmp_path, device="cpu"), n_bytes=1000) as scheduler:
        assert scheduler is None
        with connect(scheduler) as workers:
            assert workers.map(_shifted, [1, 2], 10, np.zeros(1)) == [11, 12]


def test_workers_give_what_the_process_gives_in_order(tmp_path: Path) -> None:
    seen = list[tuple[int, int]]()
    big = np.full(100_000, 3)
    with cluster(_settings(tmp_path, device="cpu", n_workers=2, local_bytes=0), n_bytes=1) as scheduler:
        assert isinstance(scheduler, LazyCluster)
        with connect(scheduler) as workers:
            found = workers.map(_shifted, list(range(20)), 10, big, progress=lambda n, of: seen.append((n, of)))
    assert found == [n + 13 for n in range(20)]
    assert sorted(seen) == [(n, 20) for n in range(1, 21)]


def test_a_cluster_that_gets_no_work_is_never_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "_local_cluster", lambda _: pytest.fail("started"))
    with (
        cluster(_settings(tmp_path, device="cpu", n_workers=2, local_bytes=0), n_bytes=1) as scheduler,
        connect(scheduler) as workers,
    ):
        assert workers.map(_shifted, [], 1, np.zeros(1)) == []


def test_a_named_scheduler_is_used_as_it_is(tmp_path: Path) -> None:
    with cluster(_settings(tmp_path, scheduler="tcp://127.0.0.1:1"), n_bytes=0) as scheduler:
        assert scheduler == "tcp://127.0.0.1:1"


@pytest.mark.parametrize(
    ("visible", "n"), [(None, 4), ("0,1", 2), ("", 0), ("-1", 0), ("2", 1), ("0,-1,1", 1), ("GPU-a, GPU-b", 2)]
)
def test_gpus_that_are_hidden_do_not_count(visible: str | None, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters.nvml, "device_get_count", lambda: 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert n_gpus() == n


def test_beside_gpus_the_cores_work_and_do_not_see_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(clusters, "n_gpus", lambda: 1)
    monkeypatch.setattr(clusters, "_cuda_cluster", lambda: pytest.fail("started"))
    with cluster(_settings(tmp_path, n_workers=2), n_bytes=1000) as scheduler:
        assert scheduler is None
    with cluster(_settings(tmp_path, n_workers=1, local_bytes=0), n_bytes=1) as scheduler:
        assert isinstance(scheduler, Split) and scheduler.cores is None
    with cluster(_settings(tmp_path, n_workers=2, local_bytes=0), n_bytes=1) as scheduler, connect(scheduler) as workers:
        assert workers.map(_visible, [1, 2]) == ["", ""]
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


def _visible(_: int) -> str | None:
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def _sum_on_gpu(item: int) -> tuple[float, int]:
    return float((torch.arange(5.0, device="cuda") * item).sum()), os.getpid()


@pytest.mark.gpu
def test_training_has_a_worker_a_gpu_and_the_rest_a_worker_a_core(tmp_path: Path) -> None:
    with cluster(_settings(tmp_path, device="gpu", n_workers=2, local_bytes=0), n_bytes=1) as scheduler:
        assert isinstance(scheduler, Split)
        with connect(scheduler, gpu=True) as workers:
            found = workers.map(_sum_on_gpu, list(range(8)))
        with connect(scheduler) as workers:
            assert workers.map(_shifted, [1, 2], 10, np.zeros(1)) == [11, 12]
            assert workers.map(_visible, [1]) == [""]
        # Results are held in memory: nothing of them may reach a disk.
        with Client(scheduler.gpu.address(), set_as_default=False) as client:
            assert set(client.run(_store).values()) == {"dict"}
            assert len(client.run(os.getpid)) == n_gpus()
    assert [total for total, _ in found] == [10.0 * n for n in range(8)]
    assert len({pid for _, pid in found}) <= n_gpus() and os.getpid() not in {pid for _, pid in found}


def _store(dask_worker: Any) -> str:
    return type(dask_worker.data).__name__


@pytest.mark.skipif(n_gpus() > 0, reason="a GPU is here")
def test_asking_for_a_gpu_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match='device = "auto"'), cluster(_settings(tmp_path, device="gpu"), n_bytes=0):
        pass
