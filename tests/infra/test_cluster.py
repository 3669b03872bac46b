"""Where work runs must not change what comes of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from infra import cluster as clusters
from infra.cluster import ClusterError, LazyCluster, cluster, connect, n_gpus
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


@pytest.mark.skipif(n_gpus() > 0, reason="a GPU is here")
def test_asking_for_a_gpu_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match='device = "auto"'), cluster(_settings(tmp_path, device="gpu"), n_bytes=0):
        pass
