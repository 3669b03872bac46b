"""Where the work runs: this process, a local Dask cluster, CUDA workers, or a scheduler that is already there.

A flow opens one cluster and passes it on; a task connects to it. Tiny work stays in the process: a local cluster takes seconds
to start. On a machine with GPUs training has a worker a GPU, and everything else a worker a core. The only importer of dask_cuda.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar, cast

import dask.config
from distributed import Client, KilledWorker, LocalCluster, as_completed
from distributed.diagnostics import nvml

from infra.contracts import LetheError
from infra.settings import ClusterSettings, Settings

_LOG = logging.getLogger("lethe.cluster")
_T = TypeVar("_T")
_SHOWN = 3

# How the clusters that are started here are set up.
DASK = {
    # The default is to wait for ever for workers that will not come.
    "distributed.scheduler.no-workers-timeout": "120s",
    "distributed.scheduler.allowed-failures": 3,
    # Spilled partitions would leave records on local disks: spilling is off, the memory bound is the partition's.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    # Dask has its workers give freed memory back at once; blocks of megabytes are then faulted in again and again, which took
    # 40 % of an ingest. One arena, so that what one thread frees the next can have.
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": 256 << 20,
    "distributed.nanny.pre-spawn-environ.MALLOC_MMAP_THRESHOLD_": 256 << 20,
    "distributed.nanny.pre-spawn-environ.MALLOC_ARENA_MAX": 1,
    # Nobody looks at the profiles and at the graphs of a cluster without a dashboard: drawn ten times a second, in every process,
    # they took 4 % of a core each.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "500ms",
    "distributed.admin.system-monitor.interval": "5s",
}
# Without a dashboard a scheduler still takes its port, and the second of a machine warns that somebody has it.
_ANY_PORT = {"dashboard_address": "127.0.0.1:0"}
# Workers that count on cores may not each take a piece of the GPU beside those that train there.
_BLIND = {"distributed.nanny.environ.CUDA_VISIBLE_DEVICES": ""}


class ClusterError(LetheError):
    """The cluster that the settings ask for cannot be had."""


class WorkersDied(LetheError):
    """A piece of work killed every worker that took it."""


class Workers(Protocol):
    """Something that maps a picklable function over items."""

    def map(
        self,
        fn: Callable[..., _T],
        items: Sequence[Any],
        *common: Any,
        progress: Callable[[int, int], None] | None = None,
        name: Callable[[Any], str] | None = None,
    ) -> list[_T]:
        """fn(item, *common) for every item, results in the order of the items. `fn` may run more than once for one item. `name`
        says what an item is: raises `WorkersDied` with it where an item kills every worker that takes it."""
        ...


class LazyCluster:
    """A cluster that starts when the first work reaches it: a run that finds everything done pays for none."""

    def __init__(self, start: Callable[[], AbstractContextManager[str]]) -> None:
        self._start = start
        self._stack = ExitStack()
        self._address: str | None = None

    def address(self) -> str:
        if self._address is None:
            self._address = self._stack.enter_context(self._start())
        return self._address

    def close(self) -> None:
        try:
            self._stack.close()
        except TimeoutError:  # all work is done: workers that are slow to end are killed by their nannies
            _LOG.warning("the workers of the local cluster did not end in time")
        self._address = None


@dataclass(frozen=True)
class Split:
    """The clusters of a machine with GPUs: `gpu` has a worker a GPU, `cores` (None: this process) a worker a core."""

    gpu: LazyCluster
    cores: LazyCluster | None

    def close(self) -> None:
        self.gpu.close()
        if self.cores is not None:
            self.cores.close()


# Where a stage sends its work: an address, clusters that are not started yet, or (None) this process.
Scheduler = str | LazyCluster | Split | None


class _Here:
    def map(
        self,
        fn: Callable[..., _T],
        items: Sequence[Any],
        *common: Any,
        progress: Callable[[int, int], None] | None = None,
        name: Callable[[Any], str] | None = None,
    ) -> list[_T]:
        del name  # this process dies with its workers
        results = list[_T]()
        for item in items:
            results.append(fn(item, *common))
            if progress is not None:
                progress(len(results), len(items))
        return results


class _Remote:
    """Workers behind a scheduler; the client is opened by the first call that has items."""

    def __init__(self, scheduler: str | LazyCluster, stack: ExitStack) -> None:
        self._scheduler = scheduler
        self._stack = stack
        self._client: Client | None = None

    def map(
        self,
        fn: Callable[..., _T],
        items: Sequence[Any],
        *common: Any,
        progress: Callable[[int, int], None] | None = None,
        name: Callable[[Any], str] | None = None,
    ) -> list[_T]:
        if not items:
            return []
        client = self._connected()
        shared = [client.scatter(value, broadcast=True, hash=False) if _is_big(value) else value for value in common]
        futures = [client.submit(fn, item, *shared, pure=False) for item in items]
        for done, _ in enumerate(as_completed(futures, loop=client.loop), 1):
            if progress is not None:
                progress(done, len(futures))
        try:
            return cast(list[_T], client.gather(futures))
        except KilledWorker:
            raise WorkersDied(_obituary(items, futures, name)) from None

    def _connected(self) -> Client:
        if self._client is None:
            address = self._scheduler if isinstance(self._scheduler, str) else self._scheduler.address()
            self._client = self._stack.enter_context(Client(address, set_as_default=False, timeout="30s"))
        return self._client


def _obituary(items: Sequence[Any], futures: Sequence[Any], name: Callable[[Any], str] | None) -> str:
    died = [
        item for item, f in zip(items, futures, strict=True) if f.status == "error" and isinstance(f.exception(), KilledWorker)
    ]
    what = "; ".join(name(item) for item in died[:_SHOWN]) if name is not None else f"{len(died)} of {len(items)} pieces of work"
    return f"every worker that took this died: {what}. Was it out of memory? Raise cluster.worker_memory, or take it out"


def _is_big(value: Any) -> bool:
    return getattr(value, "nbytes", 0) > 1 << 16


@contextmanager
def connect(scheduler: Scheduler, *, gpu: bool = False) -> Iterator[Workers]:
    """The workers behind a scheduler; None is this process. `gpu` asks for those that have one, where some do."""
    if isinstance(scheduler, Split):
        scheduler = scheduler.gpu if gpu else scheduler.cores
    if scheduler is None:
        yield _Here()
        return
    with dask.config.set(DASK), ExitStack() as stack:
        yield _Remote(scheduler, stack)


@contextmanager
def cluster(settings: Settings, *, n_bytes: int) -> Iterator[Scheduler]:
    """Where work over `n_bytes` of data is sent; None means that this process does it.

    `[cluster] scheduler` (or LETHE_SCHEDULER) names one that runs already. Else work that is worth their start gets local
    processes, and CUDA workers beside them where GPUs are (`device`). Clusters of our own start with the first work and end here.
    """
    wanted = settings.cluster
    if wanted.scheduler is not None:
        yield wanted.scheduler
        return
    on_gpu = _wants_gpu(wanted)
    if n_bytes < wanted.local_bytes or (_n_workers(wanted) < 2 and not on_gpu):
        yield None
        return
    lazy = _split(wanted) if on_gpu else LazyCluster(partial(_local_cluster, wanted))
    try:
        yield lazy
    finally:
        lazy.close()


def _split(wanted: ClusterSettings) -> Split:
    cores = LazyCluster(partial(_local_cluster, wanted, blind=True)) if _n_workers(wanted) > 1 else None
    return Split(LazyCluster(_cuda_cluster), cores)


def _n_workers(wanted: ClusterSettings) -> int:
    return wanted.n_workers or len(os.sched_getaffinity(0))


def n_gpus() -> int:
    """How many CUDA devices this process may use: NVML counts all of the machine's, CUDA_VISIBLE_DEVICES may hide some."""
    found = int(nvml.device_get_count())
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is None:
        return found
    names = [name.strip() for name in listed.split(",")]
    # CUDA reads the list up to the first name that is none.
    return min(found, next((at for at, name in enumerate(names) if name in ("", "-1")), len(names)))


def _wants_gpu(wanted: ClusterSettings) -> bool:
    if wanted.device == "cpu":
        return False
    found = n_gpus()
    if wanted.device == "gpu" and found == 0:
        raise ClusterError('cluster.device = "gpu", and no GPU is visible here. Set device = "auto" or "cpu"')
    return found > 0


@contextmanager
def _local_cluster(wanted: ClusterSettings, *, blind: bool = False) -> Iterator[str]:
    with (
        dask.config.set(DASK | (_BLIND if blind else {})),
        LocalCluster(
            n_workers=_n_workers(wanted),
            threads_per_worker=1,
            memory_limit=wanted.worker_memory,
            host="127.0.0.1",
            dashboard_address=None,  # pyright: ignore[reportArgumentType] - None switches it off
            scheduler_kwargs=_ANY_PORT,
        ) as local,
    ):
        _LOG.info("local Dask cluster of %d workers", _n_workers(wanted))
        yield str(local.scheduler_address)


@contextmanager
def _cuda_cluster() -> Iterator[str]:
    try:
        # Without the gpu extra it cannot be imported at all.
        from dask_cuda import LocalCUDACluster  # noqa: PLC0415 # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ClusterError(f"a GPU is here but dask-cuda is not ({error}). Install the extra: pip install '.[gpu]'") from error
    with (
        dask.config.set(DASK),
        # A plain dict for results: dask-cuda's own store spills them to local disks whatever Dask is told.
        LocalCUDACluster(
            threads_per_worker=1, host="127.0.0.1", dashboard_address=None, scheduler_kwargs=_ANY_PORT, data={}
        ) as gpus,
    ):
        _LOG.info("Dask cluster of %d CUDA workers", n_gpus())
        yield str(gpus.scheduler_address)
