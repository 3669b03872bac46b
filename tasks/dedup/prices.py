"""What keeping, archiving and rebuilding a table cost, in US dollars a month, and how long its readers wait. Pure.

Costs are those above what a reader of a kept table pays: reading the rows themselves costs the same wherever they lie.
"""

from __future__ import annotations

from dataclasses import dataclass

from infra.price_book import RetentionSettings

DEFAULT_GB_S = 0.2  # what is rebuilt a second, where nothing was measured
_GB = 1e9
_DAYS = 365.25 / 12  # of a month


@dataclass(frozen=True)
class Cost:
    """US dollars: `fixed` a month, and `per_access` for each access."""

    fixed: float
    per_access: float = 0.0

    def monthly(self, accesses: float) -> float:
        return self.fixed + self.per_access * accesses


def keep_cost(n_bytes: int, prices: RetentionSettings) -> Cost:
    """A table as it is."""
    return Cost(n_bytes / _GB * (prices.storage_gb_month + prices.maintenance_gb_month))


def archive_cost(n_bytes: int, prices: RetentionSettings) -> Cost:
    """A table in the archive tier.

    Moving it there is spread over the time it is expected to stay; a table that leaves before the least time allowed is paid
    until then.
    """
    billed = max(n_bytes, prices.archive_min_bytes) / _GB * prices.archive_gb_month
    early = max(1.0, prices.archive_min_days / prices.archive_stay_days)
    move = read_cost(n_bytes, prices) + _requests(n_bytes, prices.archive_put_1000, prices)
    read = n_bytes / _GB * prices.archive_read_gb + _requests(n_bytes, prices.archive_get_1000, prices)
    return Cost(billed * early + move * _DAYS / prices.archive_stay_days, read)


def rebuild_cost(parent_bytes: int, child_bytes: int, prices: RetentionSettings, *, residual_bytes: int = 0) -> Cost:
    """A retired table: each access reads and scans its parents and what they lack of it, which stays stored, and writes the
    table.
    """
    scanned = parent_bytes + residual_bytes
    write = child_bytes / _GB * prices.write_gb + _requests(child_bytes, prices.put_1000, prices)
    return Cost(keep_cost(residual_bytes, prices).fixed, read_cost(scanned, prices) + scanned / _GB * prices.compute_gb + write)


def read_cost(n_bytes: int, prices: RetentionSettings) -> float:
    """One reading of bytes that are not archived."""
    return n_bytes / _GB * prices.read_gb + _requests(n_bytes, prices.get_1000, prices)


def rebuild_s(scanned_bytes: int, gb_s: float) -> float:
    """Seconds until a retired table can be read again."""
    return scanned_bytes / _GB / gb_s


def throughput_gb_s(prices: RetentionSettings, measured_gb_s: float | None) -> float:
    """GB a second that a rebuilding scans: as the settings say, else as measured."""
    return prices.rebuild_gb_s or measured_gb_s or DEFAULT_GB_S


def dollars(amount: float) -> str:
    """An amount for people: cents, or two digits of what is less than a cent."""
    return f"{amount:,.2f} $" if amount >= 0.01 or amount == 0 else f"{amount:.2g} $"


def _requests(n_bytes: int, per_1000: float, prices: RetentionSettings) -> float:
    return n_bytes / prices.request_bytes * per_1000 / 1000
