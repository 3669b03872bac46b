"""The [retention] section of lethe.toml: what storing, reading and computing cost, and what the retention plan must respect."""

from __future__ import annotations

from collections.abc import Collection
from fnmatch import fnmatchcase
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _listed(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Patterns = Annotated[tuple[str, ...], BeforeValidator(_listed)]
Dollars = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Count = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Rate = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]


class RetentionSettings(BaseModel):
    """The price book of the retention plan, in US dollars, and what the plan must respect. A GB is 10^9 bytes.

    The defaults only give the plan a sensible shape: put in your provider's prices, and date them. They follow public list
    prices around `dated` (check them at `source`): storage and retrieval of S3 Standard and Glacier Instant Retrieval in
    us-east-1, their requests, and what Athena takes for a scanned GB. Reading and writing within a region cost requests alone.
    Requests are counted by bytes, `request_bytes` each: of a smaller table its share.

    Patterns are those of a shell (`hot/*`); a table's own name comes before patterns, and these in the order written.
    `accesses` are a table's reads a month, before those that `access_logs` tell (S3 server access logs; files, globs or
    URLs), before `accesses_per_month`. `access_ignore` are requesters whose reads do not count. `rebuild_gb_s`: left out, what
    the last scan measured.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dated: str = "2026-06-05"
    source: str = "https://aws.amazon.com/s3/pricing, https://aws.amazon.com/athena/pricing, us-east-1"
    storage_gb_month: Dollars = 0.023
    maintenance_gb_month: Dollars = 0.0  # compaction, scans and the like, of what is not archived
    read_gb: Dollars = 0.0
    write_gb: Dollars = 0.0
    compute_gb: Dollars = 0.005
    get_1000: Dollars = 0.0004
    put_1000: Dollars = 0.005
    request_bytes: Annotated[int, Field(ge=1)] = 8 << 20
    archive: bool = False  # whether there is an archive tier; say so once accesses are known, or what is used may be sent there
    archive_gb_month: Dollars = 0.004
    archive_read_gb: Dollars = 0.03
    archive_get_1000: Dollars = 0.01
    archive_put_1000: Dollars = 0.02
    archive_min_days: Count = 90.0  # what leaves earlier is paid until then
    archive_stay_days: Rate = 365.0  # how long a table is expected to stay
    archive_min_bytes: Annotated[int, Field(ge=0)] = 128 << 10
    archive_latency_s: Count = 0.0
    accesses_per_month: Count = 1.0
    accesses: dict[str, Count] = {}
    access_logs: Patterns = ()
    access_ignore: Patterns = ()
    max_rebuild_s: Count = 3600.0
    max_rebuild_s_of: dict[str, Count] = {}
    rebuild_gb_s: Rate | None = None
    keep: Patterns = ()
    min_saving_month: Dollars = 0.0  # a table that saves less than this is left alone
    min_evidence_bits: float = 16.0

    def accesses_of(self, table: str) -> float | None:
        """Reads a month that the user wrote down for a table."""
        pattern = _pattern(self.accesses, table)
        return None if pattern is None else self.accesses[pattern]

    def limit_pattern(self, table: str) -> str | None:
        """The key of `max_rebuild_s_of` that a table falls under."""
        return _pattern(self.max_rebuild_s_of, table)

    def limit_s(self, table: str) -> float:
        """How long a reader of a table may wait for it."""
        pattern = self.limit_pattern(table)
        return self.max_rebuild_s if pattern is None else self.max_rebuild_s_of[pattern]

    def kept_by(self, table: str) -> str | None:
        """The pattern of `keep` that a table falls under."""
        return _pattern(self.keep, table)


def _pattern(patterns: Collection[str], table: str) -> str | None:
    """The name itself where it is among them, else the first pattern that fits."""
    return table if table in patterns else next((pattern for pattern in patterns if fnmatchcase(table, pattern)), None)
