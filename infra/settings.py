"""lethe.toml and the environment, read once at the top and validated into one frozen `Settings`."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from infra.contracts import LetheError
from infra.price_book import RetentionSettings
from infra.select_settings import Method, MixtureSettings, SelectSettings, Targets
from infra.settings_check import Complaint, complaints

_T = TypeVar("_T")


class ConfigError(LetheError):
    """lethe.toml says something that cannot be meant; the message names the key and the line."""


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


Sources = Annotated[tuple[str, ...], BeforeValidator(_as_tuple), Field(min_length=1)]
Fraction = Annotated[float, Field(gt=0.0, le=1.0)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LakeSettings(_Strict):
    root: str = "lake"
    sample_rows: Annotated[int, Field(ge=1)] = 100_000


class SubjectSettings(_Strict):
    """Whose data a row is. `column` is a column's name, or a path into one: `author.id`, `people[].id`."""

    kind: str
    column: str


def _as_subjects(value: Any) -> Any:
    return (value,) if isinstance(value, dict | SubjectSettings) else () if value is None else value


Character = Annotated[str, Field(min_length=1, max_length=1)]
Value = str | int | float | bool


class ColumnContract(_Strict):
    """What every value of a column must be; a row that breaks a rule goes to quarantine with the rule's name."""

    not_null: bool = False
    unique: bool = False
    range: tuple[Value | None, Value | None] | None = None
    regex: str | None = None
    allowed: tuple[Value, ...] | None = None


class ReadSettings(_Strict):
    """How raw files are read; what is None is found out from the file."""

    format: Literal["csv", "tsv", "jsonl", "json", "parquet", "arrow", "text", "image", "idx"] | None = None
    encoding: str | None = None
    separator: Character | None = None
    quote: Annotated[str, Field(max_length=1)] | None = None  # "": no quotes
    header: bool | None = None
    comment: Character | None = None
    null_strings: tuple[str, ...] | None = None
    decimal_mark: Literal[".", ","] = "."
    date_formats: tuple[str, ...] = ()
    types: dict[str, str] = {}
    columns: tuple[str, ...] | None = None
    image_size: tuple[int, int] | None = None  # height, width


class TableSettings(ReadSettings):
    source: Sources
    subjects: Annotated[tuple[SubjectSettings, ...], BeforeValidator(_as_subjects), Field(alias="subject")] = ()
    text: str | None = None
    label: str | None = None
    drift: Literal["stop", "text"] = "stop"
    primary_key: tuple[str, ...] = ()
    partition_by: tuple[str, ...] = ()
    contract: dict[str, ColumnContract] = {}
    max_quarantine_fraction: Annotated[float, Field(ge=0.0, le=1.0)] = 1.0

    @property
    def subject(self) -> SubjectSettings | None:
        """The first subject: the one whose place decides sample, holdout and shard of a row. Any of them may ask to be erased."""
        return self.subjects[0] if self.subjects else None

    @property
    def reading(self) -> ReadSettings:
        """The part of these settings that a reader needs."""
        return ReadSettings.model_validate({name: getattr(self, name) for name in ReadSettings.model_fields})


class CollectionSettings(TableSettings):
    """Every file that matches becomes a table of its own, named for its path."""


class PruneSettings(_Strict):
    method: Literal["density", "prototypes", "random", "none"] = "none"
    keep_fraction: Fraction = 1.0
    keep: Literal["hard", "easy"] = "hard"
    n_clusters: Annotated[int, Field(ge=1, le=100_000)] = 64
    seed: int = 0


class DatasetSettings(_Strict):
    pool: Sources
    target: Targets = {}
    select: SelectSettings = SelectSettings()
    prune: PruneSettings = PruneSettings()
    mixture: MixtureSettings | None = None
    holdout_fraction: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1

    @model_validator(mode="after")
    def _comparable(self) -> DatasetSettings:
        if self.method not in ("score", "none") and not self.target:
            raise ValueError(f"method = {self.method!r} needs a target: a table that the pool is compared with")
        if self.select.mode == "parity" and self.method != "importance":
            raise ValueError(f'parity is a mode of method = "importance", not of {self.method!r}')
        return self

    @property
    def method(self) -> Method:
        """How records are ranked: as asked, else towards the target where there is one, else by a score, else not at all."""
        return self.select.method or ("importance" if self.target else "score" if self.select.score else "none")

    @property
    def selects(self) -> bool:
        """Whether there is anything for selection to decide. With nothing to rank by, a budget is a keyed draw."""
        return self.method != "none" or self.select.drops or self.select.has_budget

    @property
    def beside(self) -> tuple[str, ...]:
        """The tables that selection reads beside the pool: targets, then evaluation tables."""
        return tuple(dict.fromkeys((*self.target, *self.evaluations)))

    @property
    def evaluations(self) -> tuple[str, ...]:
        """The evaluation tables whose text no record of the pool may hold."""
        return self.select.decontaminate.tables if self.select.decontaminate else ()


class ModelSettings(_Strict):
    dataset: str
    kind: str
    label: str
    shards: Annotated[int, Field(ge=1, le=4096)] = 4
    slices: Annotated[int, Field(ge=1, le=256)] = 4
    epochs: Annotated[int, Field(ge=1)] = 6
    batch_size: Annotated[int, Field(ge=1)] = 64
    learning_rate: Annotated[float, Field(gt=0.0)] = 5e-3
    control: bool = True
    seed: int = 0

    @model_validator(mode="after")
    def _known_kind(self) -> ModelSettings:
        if self.kind not in ("text", "tabular", "image") and not re.fullmatch(r"[\w.]+:\w+", self.kind):
            raise ValueError(f"kind = {self.kind!r} is none of text, tabular, image, package.module:factory")
        return self


class ClusterSettings(_Strict):
    device: Literal["auto", "cpu", "gpu"] = "auto"
    scheduler: str | None = None
    n_workers: Annotated[int, Field(ge=0)] = 0
    worker_memory: str = "4GiB"
    local_bytes: Annotated[int, Field(ge=0)] = 256 << 20


class TrackingSettings(_Strict):
    uri: str | None = None
    artifacts: str | None = None
    experiment: str = "lethe"
    alias: str = "champion"


class DedupSettings(_Strict):
    """What a containment scan looks for beside containments.

    `approximate`: the least fraction of a child's distinct rows in a parent that is worth showing; 1.0 shows containments alone.
    `unions`: tables covered by several others together. `renames`: containments under other column names.
    """

    approximate: Annotated[float, Field(gt=0.0, le=1.0)] = 0.9
    unions: bool = True
    renames: bool = True


class ReaderSettings(_Strict):
    """Somebody outside who reads tables of the lake: none of them is retired while this is written down."""

    tables: Sources


class Settings(_Strict):
    """Everything a stage may know. `home` is the folder of lethe.toml: relative paths are taken from it."""

    home: Path
    lake: LakeSettings = LakeSettings()
    tables: dict[str, TableSettings] = {}
    collections: dict[str, CollectionSettings] = {}
    datasets: dict[str, DatasetSettings] = {}
    models: dict[str, ModelSettings] = {}
    cluster: ClusterSettings = ClusterSettings()
    tracking: TrackingSettings = TrackingSettings()
    dedup: DedupSettings = DedupSettings()
    retention: RetentionSettings = RetentionSettings()
    readers: dict[str, ReaderSettings] = {}

    @property
    def lake_uri(self) -> str:
        """The lake's root: a URL as written, or an absolute folder."""
        return resolve(self.home, self.lake.root)

    @property
    def private_dir(self) -> Path:
        """Where the secret, the locks and the local servers' files lie: never in the lake."""
        return self.home / ".lethe"

    @property
    def tracking_uri(self) -> str:
        return self.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self.home / 'tracking' / 'mlflow.db'}"

    @property
    def artifacts_uri(self) -> str:
        return resolve(self.home, self.tracking.artifacts or "tracking/artifacts")

    def plan_of(self, dataset: str) -> tuple[int, int]:
        """(shards, slices) that the training set of a dataset is cut into: those of its models, which agree."""
        for model in self.models.values():
            if model.dataset == dataset:
                return model.shards, model.slices
        return 1, 1

    def scorers(self, dataset: str) -> tuple[str, ...]:
        """The models that are trained before a dataset can be curated, the last one first: the one whose score it selects by, the
        one that its dataset selects by, and so on. A circle ends where it closes."""
        found, asked = list[str](), self.datasets.get(dataset)
        while asked is not None and (score := asked.select.score) and score.model and score.model not in found:
            found.append(score.model)
            asked = self.datasets.get(self.models[score.model].dataset) if score.model in self.models else None
        return tuple(found)

    def dataset(self, name: str) -> DatasetSettings:
        return _pick(self.datasets, name, "dataset", "datasets")

    def model(self, name: str) -> ModelSettings:
        return _pick(self.models, name, "model", "models")

    def table(self, name: str) -> TableSettings:
        """The settings of a table, also of one that a collection made (exports/2024/jan belongs to [collections.exports])."""
        parent = _collection_of(self, name)
        if name in self.tables or parent is None:
            return _pick(self.tables, name, "table", "tables")
        return self.collections[parent]

    def section(self, name: str) -> str:
        """The heading in lethe.toml under which a table's settings stand."""
        parent = _collection_of(self, name)
        return f"tables.{name}" if name in self.tables or parent is None else f"collections.{parent}"


def _collection_of(settings: Settings, name: str) -> str | None:
    """The collection that a table belongs to: the longest of those that its name starts with."""
    return max((c for c in settings.collections if name.startswith(c + "/")), key=len, default=None)


def _pick(known: dict[str, _T], name: str, noun: str, section: str) -> _T:
    if name not in known:
        raise ConfigError(
            f"no {noun} {name!r} in lethe.toml; it has: {', '.join(sorted(known)) or 'none'}. Add [{section}.{name}]"
        )
    return known[name]


def resolve(home: Path, location: str) -> str:
    """A location as written in lethe.toml: URLs stay, paths are taken from the folder of lethe.toml."""
    return location if "://" in location else str((home / Path(location).expanduser()).absolute())


# --- reading ----------------------------------------------------------------------------------------------------------


def load_settings(path: str | Path = "lethe.toml") -> Settings:
    """Read and validate a lethe.toml. Raises `ConfigError` with the key and the line of each problem."""
    path = Path(path)
    if path.is_dir():
        path = path / "lethe.toml"
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist. Run: lethe init {path.parent}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: byte {error.start} is not UTF-8, which TOML is written in. Save the file as UTF-8") from None
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {error}") from None
    return _validated(document, path, text)


def _validated(document: dict[str, Any], path: Path, text: str) -> Settings:
    if "home" in document:
        raise ConfigError(f"{path}:{line_of(text, ['home'])}: home: unknown key")
    scheduler = os.environ.get("LETHE_SCHEDULER")
    if scheduler:
        document.setdefault("cluster", {})["scheduler"] = scheduler
    try:
        settings = Settings.model_validate({**document, "home": path.parent.absolute()})
        found = list(complaints(settings))
    except ValidationError as error:
        found = [_complaint(list(e["loc"]), e["msg"], e["type"]) for e in error.errors()]
    if found:
        raise ConfigError("\n".join(f"{path}:{line_of(text, keys)}: {'.'.join(keys)}: {said}" for keys, said in found))
    return settings  # pyright: ignore[reportPossiblyUnboundVariable] - a ValidationError always leaves a complaint


def _complaint(loc: Sequence[str | int], message: str, kind: str) -> Complaint:
    said = "unknown key" if kind == "extra_forbidden" else message.removeprefix("Value error, ")
    return [str(part) for part in loc if isinstance(part, str)], said


def line_of(text: str, keys: Sequence[str]) -> int:
    """The line (from 1) where a dotted key is set, or where the nearest table above it starts."""
    best, best_depth, table = 1, 0, list[str]()
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[+\s*([^\]]+?)\s*\]+", line):
            table = [part.strip().strip("\"'") for part in re.findall(r'"[^"]*"|\'[^\']*\'|[^.]+', header[1])]
            here = table
        elif entry := re.match(r"\s*([\w\"'./-]+)\s*=", line):
            here = [*table, *(part.strip("\"'") for part in entry[1].split("."))]
        else:
            continue
        depth = next((i for i, (a, b) in enumerate(zip(here, keys, strict=False)) if a != b), min(len(here), len(keys)))
        if depth > best_depth and depth == len(here):
            best, best_depth = number, depth
    return best
