"""What `lethe COMMAND --json` prints: one document a command, each a pydantic model, so that a script may rely on it.

`lethe schema` prints their JSON Schemas. Fields may be added, never renamed. Table names are those of lethe.toml.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


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


class PlanRow(_Document):
    table: str
    action: str
    bytes: int
    parent: str = ""
    reason: str = ""


class DedupDocument(_Document):
    n_tables: int
    edges: list[Edge]
    plan: list[PlanRow]
    bytes_read: int
    seconds: float
    found: bool = False
    listed_apart: list[str] = []
    settled: dict[str, int] = {}


class SelectDocument(_Document):
    dataset: str
    n_raw: int
    n_kept: int
    kl_reduction: float
    seconds: float
    found: bool = False
    random_kl_reduction: float | None = None
    effective_sample_size: float | None = None
    length_correlation: float | None = None
    version: int | None = None
    digest: str | None = None


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


class VerifyDocument(_Document):
    valid: bool
    problems: list[str]


class StatusDocument(_Document):
    tables: list[dict[str, Any]]
    datasets: list[dict[str, Any]]
    models: list[dict[str, Any]]
    requests: list[dict[str, Any]]


class ExportDocument(_Document):
    dataset: str
    to: str
    n_rows: int
    n_files: int
    n_bytes: int


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
    "select": SelectDocument,
    "prune": PruneDocument,
    "curate": CurateDocument,
    "train": TrainDocument,
    "forget": ForgetDocument,
    "verify": VerifyDocument,
    "status": StatusDocument,
    "export": ExportDocument,
    "up": UpDocument,
    "demo": DemoDocument,
}
