"""The ways there are not to keep each table, what each costs, and which constraints forbid it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from infra.price_book import RetentionSettings
from tasks.dedup.prices import Cost, archive_cost, keep_cost, rebuild_cost, rebuild_s
from tasks.dedup.sources import Source

KEEP, ARCHIVE, RETIRE = "keep", "archive", "retire"
# What keeps a table. The first three also forbid what would pay.
NEEDED, NAMED, APART = "needed", "kept by name", "listed apart"
SLOW, SLOW_ARCHIVE, SMALL = "too slow to rebuild", "too slow an archive", "saves too little"
DEAR, SOURCE, COPIES = "cheaper to keep", "source of others", "source of its copies"
GOING, ALONE = "its parents are not kept", "no table contains it"


@dataclass(frozen=True)
class Terms:
    """What a plan is made for: the tables, the prices and what must be respected.

    `apart` and `needed` give reasons by table, `accesses` are those a month of every table, `bits` the measured evidence, and
    `gb_s` is the throughput of rebuilding.
    """

    n_bytes: Mapping[str, int]
    apart: Mapping[str, str]
    needed: Mapping[str, str]
    accesses: Mapping[str, float]
    bits: Mapping[str, float]
    prices: RetentionSettings
    gb_s: float

    def keep(self, table: str) -> float:
        """US dollars a month of keeping a table."""
        return keep_cost(self.n_bytes[table], self.prices).fixed

    def is_fixed(self, table: str) -> bool:
        """Whether a table stays whatever it costs."""
        return table in self.needed or self.prices.kept_by(table) is not None


@dataclass(frozen=True)
class Option:
    """One way not to keep `table`: archived, or retired where `parents` rebuild it but for `n_residual` rows that stay stored.

    `monthly` is its cost in US dollars, `wait_s` what a reader waits, `freed_bytes` what is stored no more. `blocks` are the
    constraints that forbid it; without any it is the solver's to take.
    """

    table: str
    action: str
    parents: tuple[str, ...]
    cost: Cost
    monthly: float
    wait_s: float
    freed_bytes: int
    n_residual: int
    blocks: tuple[str, ...]


def options_of(sources: Iterable[Source], terms: Terms) -> list[Option]:
    """Every option of every table, archiving first."""
    archived = [_archive(table, terms) for table in sorted(terms.n_bytes)] if terms.prices.archive else []
    return [*archived, *(_retire(source, terms) for source in sources)]


def cheapest_to_keep(tables: Iterable[str], terms: Terms) -> str:
    """Of equal tables the one that costs least as the only one that is kept, all others being rebuilt from it."""
    group = sorted(tables)
    total = sum(terms.accesses[table] for table in group)

    def cost(table: str) -> tuple[float, int, str]:
        size, accesses = terms.n_bytes[table], terms.accesses[table]
        scan = rebuild_cost(size, 0, terms.prices).per_access
        spared = rebuild_cost(0, size, terms.prices).per_access * accesses
        stored = 0.0 if terms.is_fixed(table) else terms.keep(table)
        return stored + (total - accesses) * scan - spared, size, table

    return min(group, key=cost)


def _archive(table: str, terms: Terms) -> Option:
    size = terms.n_bytes[table]
    return _option(table, ARCHIVE, Source(table, ()), archive_cost(size, terms.prices), terms.prices.archive_latency_s, terms)


def _retire(source: Source, terms: Terms) -> Option:
    scanned, size = sum(terms.n_bytes[parent] for parent in source.parents), terms.n_bytes[source.child]
    cost = rebuild_cost(scanned, size, terms.prices, residual_bytes=source.residual_bytes)
    return _option(source.child, RETIRE, source, cost, rebuild_s(scanned + source.residual_bytes, terms.gb_s), terms)


def _option(table: str, action: str, source: Source, cost: Cost, wait_s: float, terms: Terms) -> Option:
    monthly = cost.monthly(terms.accesses[table])
    freed = terms.n_bytes[table] - source.residual_bytes
    blocks = tuple(_blocks(table, action, monthly, wait_s, terms))
    return Option(table, action, source.parents, cost, monthly, wait_s, freed, source.n_residual, blocks)


def _blocks(table: str, action: str, monthly: float, wait_s: float, terms: Terms) -> Iterable[str]:
    if table in terms.needed:
        yield NEEDED
    if terms.prices.kept_by(table) is not None:
        yield NAMED
    if action == RETIRE and table in terms.apart:
        yield APART
    if wait_s > terms.prices.limit_s(table):
        yield SLOW if action == RETIRE else SLOW_ARCHIVE
    saving = terms.keep(table) - monthly
    if saving <= 0.0:
        yield DEAR
    elif saving < terms.prices.min_saving_month:
        yield SMALL
