"""What `lethe COMMAND --json` prints: one document a command, each a pydantic model, so that a script may rely on it.

`lethe schema` prints their JSON Schemas. Fields may be added, never renamed. Table names are those of lethe.toml.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from flows.select_documents import SelectDocument


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, from_attributes=True)


class Ingested(_Document):
    name: str
    rows: int
    quarantined: int
    files: int
    version: int
    digest: str
    n_suppressed: int = 0
    found: bool = False
    seconds: float = 0.0
    n_stopped: int = 0  # files that were not taken in; `lethe quarantine` says why
    n_vanished: int = 0  # files that are gone; their rows are still there


class IngestDocument(_Document):
    tables: list[Ingested]


class Edge(_Document):
    child: str
    parent: str
    fraction: float
    set: bool
    multiset: bool
    exact: bool
    step: str
    child_version: int = -1
    parent_version: int = -1
    n_residual: int = 0  # rows of the child that the parent lacks, copies counted
    error: float = 0.0  # of the fraction, where it is estimated


class Cover(_Document):
    child: str
    parents: list[str]
    multiset: bool


class Rename(_Document):
    child: str
    parent: str
    columns: list[tuple[str, str]]  # the child's, the parent's
    multiset: bool


class ListedApart(_Document):
    table: str
    reason: str
    bits: float | None = None  # evidence: log2 of the row space, where it was measured


class PlanRow(_Document):
    table: str
    action: str
    bytes: int
    parent: str = ""
    reason: str = ""
    parents: list[str] = []
    monthly_cost: float = 0.0  # US dollars, as below
    monthly_saving: float = 0.0
    rebuild_s: float = 0.0


class Bound(_Document):
    """A constraint that keeps tables, and what they would save a month without it."""

    constraint: str
    n_tables: int
    n_bytes: int
    monthly_saving: float


class Need(_Document):
    """The least change that would let the plan do more with a table; `said` is all of it in words."""

    table: str
    action: str
    constraints: list[str]
    change: str
    monthly_saving: float
    said: str


class SavingsDocument(_Document):
    """What a plan comes to: US dollars a month, at prices of the day `dated`."""

    n_retired: int
    n_archived: int
    bytes_freed: int
    bytes_archived: int
    monthly_cost: float
    monthly_saving: float
    dated: str
    gb_s: float  # throughput of rebuilding
    bound: list[Bound]
    needs: list[Need]
    n_needs: int
    gap: float  # share of its cost that a better plan might save; 0.0: proven to be the cheapest
    n_log_lines: int
    n_bad_log_lines: int


class Retirement(_Document):
    table: str
    parents: list[str]
    kind: str  # of its recipe
    bytes: int
    monthly_saving: float  # US dollars
    rebuild_s: float


class RetirementDocument(_Document):
    plan: str  # digest of what was proposed
    proposed: list[Retirement]
    refused: dict[str, str]
    approved: bool
    retired: list[str]


class WhyDocument(_Document):
    child: str
    parent: str
    contained: bool
    multiset: bool
    step: str
    text: str
    column: str | None = None
    file: str | None = None
    n_rows: int | None = None  # of the child, copies counted, that the parent lacks; None where no row was counted
    n_distinct: int | None = None
    fractions: dict[str, float] = {}  # of the child's distinct cells, by column, that the parent's column has


class DedupDocument(_Document):
    n_tables: int
    edges: list[Edge]
    near: list[Edge] = []
    covers: list[Cover] = []
    renames: list[Rename] = []
    apart: list[ListedApart] = []
    plan: list[PlanRow]
    savings: SavingsDocument | None = None
    bytes_read: int
    seconds: float
    found: bool = False
    listed_apart: list[str] = []
    settled: dict[str, int] = {}
    unreadable: dict[str, str] = {}
    report: str = ""  # the page with the graph and all tables
    retirement: RetirementDocument | None = None  # only where tables were to be retired
    why: WhyDocument | None = None  # only where a pair was asked for: nothing else was scanned


class RestoredTable(_Document):
    table: str
    parents: list[str]
    rows: int
    bytes: int
    version: int
    digest: str
    seconds: float
    from_raw: bool = False  # taken in from its raw files; else rebuilt by its recipe
    same: bool = True  # the rows that were retired, by digest
    rows_retired: int = 0  # of a table from raw files: how many were retired
    n_suppressed: int = 0  # of a table from raw files: rows refused because their subjects asked to be erased


class GivenUpTable(_Document):
    table: str
    given_up: str
    reason: str
    missing: list[str]
    rows: int
    datasets: list[str] = []  # those of lethe.toml that still name it


class RestoreDocument(_Document):
    tables: list[RestoredTable]
    given_up: list[GivenUpTable] = []


class CompactedTable(_Document):
    table: str
    n_files_before: int
    n_files: int
    n_bytes_before: int
    n_bytes: int
    n_rewritten: int


class TidiedTable(_Document):
    table: str
    n_files_deleted: int
    n_bytes_deleted: int


class MaintainDocument(_Document):
    compacted: list[CompactedTable]
    tidied: list[TidiedTable]
    dedup: DedupDocument
    problems: dict[str, list[str]]
    seconds: float
    renewed: list[str] = []  # retired tables whose recipes rest on newer versions now


class RegisterDocument(_Document):
    name: str
    uri: str
    rows: int
    bytes: int
    version: int
    digest: str
    removed: bool = False


class AdoptDocument(_Document):
    table: str
    outside: str
    source_version: int
    source_digest: str
    source_rows: int
    rows: int
    quarantined: int
    n_suppressed: int
    version: int
    digest: str
    subjects: list[str] = []
    found: bool = False
    seconds: float = 0.0


class PruneDocument(_Document):
    dataset: str
    method: str
    n_in: int
    n_kept: int
    n_holdout: int = 0
    n_control: int = 0
    found: bool = False
    seconds: float = 0.0
    version: int | None = None
    digest: str | None = None


class CurateDocument(_Document):
    dataset: str
    ingest: IngestDocument
    dedup: DedupDocument
    select: SelectDocument | None
    prune: PruneDocument
    left_out: dict[str, str]
    seconds: float


class Shard(_Document):
    shard: int
    digest: str
    found: bool


class TrainDocument(_Document):
    model: str
    version: str
    run_id: str
    digest: str
    metrics: dict[str, float]
    shards: list[Shard]
    found: bool = False
    seconds: float = 0.0


class Forgotten(_Document):
    request_id: str
    certificate: str
    rows_erased: int
    tables: list[str]
    shards_retrained: int
    residue_hits: int


class ForgetDocument(_Document):
    requests: list[Forgotten]
    seconds: float = 0.0
    retired_again: list[str] = []
    kept: dict[str, str] = {}  # tables that were retired and are no more, and why


class VerifyDocument(_Document):
    valid: bool
    problems: list[str]


class StatusDocument(_Document):
    tables: list[dict[str, Any]]
    datasets: list[dict[str, Any]]
    models: list[dict[str, Any]]
    requests: list[dict[str, Any]]
    foreign: list[dict[str, Any]] = []
    retired: list[dict[str, Any]] = []
    given_up: list[dict[str, Any]] = []
    neighbours: dict[str, int] = {}  # by dataset: pairs of evaluation items and near records, for review


class ExportDocument(_Document):
    dataset: str
    to: str
    n_rows: int
    n_files: int
    n_bytes: int


class QuarantineReason(_Document):
    reason: str
    n_rows: int
    n_files: int
    examples: list[str]  # file:line of the first rows; files relative to the folder of lethe.toml
    raw: list[str] = []  # rejected rows as they came; only where they were asked for


class StoppedFile(_Document):
    file: str
    message: str


class QuarantinedTable(_Document):
    name: str
    n_in: int
    n_rows: int
    n_quarantined: int
    n_suppressed: int
    n_erased: int
    fraction: float
    adds_up: bool  # n_in = n_rows + n_quarantined + n_suppressed + n_erased + n_given_up
    reasons: list[QuarantineReason]
    stopped: list[StoppedFile]
    n_given_up: int = 0  # rows of a retired table that could not be rebuilt and was given up


class QuarantineDocument(_Document):
    tables: list[QuarantinedTable]
    n_in: int
    n_rows: int
    n_quarantined: int
    n_suppressed: int
    n_erased: int
    adds_up: bool
    n_given_up: int = 0


class InitDocument(_Document):
    config: str


class UpDocument(_Document):
    prefect: str
    mlflow: str
    deployments: list[str]


class DemoStep(_Document):
    step: str
    what: str
    seconds: float


class DemoDocument(_Document):
    steps: list[DemoStep]
    report: str
    certificate: str
    valid: bool
    seconds: float


DOCUMENTS: dict[str, type[BaseModel]] = {
    "init": InitDocument,
    "ingest": IngestDocument,
    "dedup": DedupDocument,
    "restore": RestoreDocument,
    "maintain": MaintainDocument,
    "register": RegisterDocument,
    "adopt": AdoptDocument,
    "select": SelectDocument,
    "prune": PruneDocument,
    "curate": CurateDocument,
    "train": TrainDocument,
    "forget": ForgetDocument,
    "verify": VerifyDocument,
    "status": StatusDocument,
    "export": ExportDocument,
    "quarantine": QuarantineDocument,
    "up": UpDocument,
    "demo": DemoDocument,
}
