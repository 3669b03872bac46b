"""Tables of other writers: put on the lake's list, taken off it, taken over as records."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prefect import flow

from flows.progress import say
from flows.workspace import Workspace
from infra.cluster import cluster
from infra.foreign import Registered, open_foreign, registered
from infra.lake import Lake
from infra.settings import load_settings
from tasks.ingest import foreign
from tasks.ingest.foreign import Adopted


@flow(name="register", persist_result=False, validate_parameters=False)
def register(name: str, uri: str, config: str = "lethe.toml") -> Registered:
    """Add an existing Delta table to the catalogue, read-only: dedup compares it as `foreign/<name>`."""
    with _opened(config, name, uri) as work:
        say("register %s", name)
        return foreign.register(work.settings, name, uri, scheduler=work.scheduler)


@flow(name="unregister", persist_result=False, validate_parameters=False)
def unregister(name: str, config: str = "lethe.toml") -> Registered:
    """Forget a registration; the table's data are not touched."""
    with _opened(config, name, None) as work:
        return foreign.unregister(work.settings, name)


@flow(name="adopt", persist_result=False, validate_parameters=False)
def adopt(name: str, uri: str | None = None, table: str | None = None, config: str = "lethe.toml") -> Adopted:
    """Take over a registered table, or the one at `uri`, as records/<table>; the other writer's data stay where they are."""
    with _opened(config, name, uri, shared=False) as work:
        say("adopt %s", name)
        return foreign.adopt(work.settings, name, uri, table=table, scheduler=work.scheduler)


@contextmanager
def _opened(config: str | Path, name: str, uri: str | None, *, shared: bool = True) -> Iterator[Workspace]:
    """The lake, open for writing, and a cluster sized for one table of another writer."""
    settings = load_settings(config)
    lake = Lake.open(settings)
    n_bytes = _n_bytes(lake, name, uri and foreign.address(settings, uri))
    with lake.writing(shared=shared), cluster(settings, n_bytes=n_bytes) as scheduler:
        yield Workspace(settings, lake, scheduler)


def _n_bytes(lake: Lake, name: str, place: str | None) -> int:
    """The bytes of a table by its own log, or by the lake's list where no address is given."""
    if place is not None:
        return open_foreign(name, place).n_bytes
    return next((entry.n_bytes for entry in registered(lake) if entry.name == name), 0)
