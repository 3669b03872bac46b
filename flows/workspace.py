"""What every flow opens: the settings, the lake with its lease, and the address of a cluster sized for the work."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from infra.cluster import Scheduler, cluster
from infra.contracts import Snapshot
from infra.lake import Lake
from infra.retired import TableRetired, given_up, retired, why_absent
from infra.settings import Settings, load_settings
from tasks.ingest.sources import raw_files

RECORDS = "records/"


@dataclass(frozen=True)
class Workspace:
    """An open lake during one flow run, and where its work is sent."""

    settings: Settings
    lake: Lake
    scheduler: Scheduler

    def records(self, names: Iterable[str]) -> tuple[Snapshot, ...]:
        """Snapshots of record tables by their names in lethe.toml. Raises `TableRetired`, also for one that was given up."""
        wanted, gone = tuple(names), {**retired(self.lake), **given_up(self.lake)}
        for name in (name for name in wanted if name in gone):
            raise TableRetired(why_absent(gone[name]))
        return tuple(self.lake.snapshot(RECORDS + name) for name in wanted)

    def all_records(self) -> tuple[Snapshot, ...]:
        """The newest versions of all tables of records that are not retired."""
        gone = {RECORDS + name for name in retired(self.lake)}
        return tuple(self.lake.snapshot(name) for name in self.lake.tables("records") if name not in gone)


@contextmanager
def opened(config: str | Path, *, tables: Iterable[str] | None = None, shared: bool = False) -> Iterator[Workspace]:
    """Open the lake for writing: `shared` with other flows that only add, or alone, on whatever machine the others are.

    `tables` bounds the work by which the cluster is sized.
    """
    settings = load_settings(config)
    lake = Lake.open(settings)
    with lake.writing(shared=shared), cluster(settings, n_bytes=_raw_bytes(settings, tables)) as scheduler:
        yield Workspace(settings, lake, scheduler)


def _raw_bytes(settings: Settings, tables: Iterable[str] | None) -> int:
    names = tuple(tables) if tables else None
    return sum(file.n_bytes for files in raw_files(settings, names).values() for file in files)
