"""What a selection is asked, and all that it is a function of: files, columns, parameters, code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from infra.contracts import LetheError, Snapshot
from infra.files import Part
from infra.ids import sample_level, seed_of
from infra.lake import Lake
from infra.lineage import code_digest, stage_key
from infra.settings import ConfigError, DatasetSettings, SelectSettings, Settings, SubjectSettings
from infra.views import View, views_of
from tasks.select.filters import check_filters
from tasks.select.kl import MEASURED_ROWS
from tasks.select.scores import check_score_column

RECORDS = "records/"
TABLE = "table"  # the stratum of a record that is the name of its table
SPACES = ("clusters", "simcore", "transport")


class EmptyTarget(LetheError):
    """The target has no text to compare with."""


@dataclass(frozen=True)
class Source:
    """One data file, and which of its columns selection reads. `place` counts the tables of the pool, in their order."""

    table: str
    place: int
    part: Part
    text: str | None
    subject: SubjectSettings | None
    strata: tuple[str | None, ...] = ()
    score: str | None = None
    view: View | None = None

    @property
    def name(self) -> tuple[str, str]:
        return self.table, self.part.file.path


@dataclass(frozen=True)
class Plan:
    """All that the output is a function of, and its key.

    `tables` are those of the pool by `Source.place`; `targets` are by name, in the order of lethe.toml.
    """

    dataset: str
    asked: DatasetSettings
    inputs: tuple[Snapshot, ...]
    tables: tuple[str, ...]
    pool: tuple[Source, ...]
    targets: Mapping[str, tuple[Source, ...]]
    evaluations: Mapping[str, tuple[Source, ...]]
    level: int
    measured_level: int
    weights_seed: int
    kl_seed: int
    labels: tuple[str, ...]
    params: dict[str, Any]
    code: str

    @property
    def key(self) -> str:
        return stage_key("select", self.code, self.inputs, self.params)

    @property
    def select(self) -> SelectSettings:
        return self.asked.select

    @property
    def temperature(self) -> float:
        """That of the resampling; the reference has none."""
        return 1.0 if self.is_parity else self.select.temperature

    @property
    def n_rows(self) -> int:
        """Rows of the pool, copies and all."""
        return sum(source.part.file.n_rows for source in self.pool)

    @property
    def is_parity(self) -> bool:
        return self.select.mode == "parity"

    @property
    def compares(self) -> bool:
        """Whether records are weighed towards the targets."""
        return self.asked.method in ("importance", *SPACES)

    @property
    def strata(self) -> tuple[str, ...]:
        """The columns whose values are counted apart, for floors and safety; `TABLE` is none."""
        return strata_of(self.select)


def strata_of(asked: SelectSettings) -> tuple[str, ...]:
    """The columns that floors and safety look at, each once."""
    by = ((asked.floors.by,) if asked.floors else ()) + asked.safety.by
    return tuple(dict.fromkeys(name for name in by if name != TABLE))


def plan_of(
    settings: Settings,
    lake: Lake,
    dataset: str,
    pool: Sequence[Snapshot],
    beside: Sequence[Snapshot],
    scores: Snapshot | None,
) -> Plan:
    """The plan of a selection. Raises `ConfigError` where lethe.toml names a column or a signal that is not there."""
    asked = settings.dataset(dataset)
    check_filters(asked.select.filters, dataset)
    pool, named = sorted(pool), {s.table.removeprefix(RECORDS): s for s in beside}
    finder = _Columns(settings, lake, dataset, [*pool, *(named[name] for name in asked.target)])
    sources = tuple(source for place, snapshot in enumerate(pool) for source in finder.sources(snapshot, place))
    _refuse_unknown_strata(dataset, asked.select, finder, pool)
    n_rows = sum(snapshot.n_rows for snapshot in pool)
    level = sample_level(n_rows, settings.lake.sample_rows)
    labels = _labels(settings, dataset, pool)
    return Plan(
        dataset=dataset,
        asked=asked,
        inputs=(*pool, *beside, *([scores] if scores else ())),
        tables=tuple(snapshot.table.removeprefix(RECORDS) for snapshot in pool),
        pool=sources,
        targets={name: tuple(finder.sources(named[name], 0)) for name in asked.target},
        evaluations={name: tuple(finder.sources(named[name], 0, needs_text=True)) for name in asked.evaluations},
        level=level,
        measured_level=max(level, sample_level(n_rows, 2 * MEASURED_ROWS)),
        weights_seed=seed_of("select", asked.select.seed, "weights"),
        kl_seed=seed_of("select", asked.select.seed, "kl"),
        labels=labels,
        params=_params(settings, asked, labels, {s.table: finder.described(s) for s in (*pool, *beside)}),
        code=code_digest("tasks.select", "tasks.kernels", "infra.columns", "infra.views"),
    )


def _params(settings: Settings, asked: DatasetSettings, labels: Sequence[str], columns: dict[str, Any]) -> dict[str, Any]:
    """What the selection is a function of beside rows and code."""
    return {
        "select": asked.select.model_dump(mode="json"),
        "method": asked.method,
        "targets": [list(pair) for pair in asked.target.items()],  # in their order: they take turns
        "sample_rows": settings.lake.sample_rows,
        "named": [column for column in asked.select.safety.by if column in labels],  # warnings may tell their values
        "columns": columns,
    }


@dataclass(frozen=True)
class _Columns:
    """Which columns of a table selection reads, as lethe.toml and the tables have them."""

    settings: Settings
    lake: Lake
    dataset: str
    compared: Sequence[Snapshot]

    @property
    def asked(self) -> DatasetSettings:
        return self.settings.dataset(self.dataset)

    def sources(self, snapshot: Snapshot, place: int, *, needs_text: bool = False) -> list[Source]:
        """The data files of a snapshot."""
        name, schema = snapshot.table.removeprefix(RECORDS), self.lake.schema(snapshot)
        text = self._text(name, schema, needed=needs_text or _needs_text(self.asked))
        strata = tuple(column if column in schema.names else None for column in strata_of(self.asked.select))
        score = self._score(snapshot, schema)
        view = self._views().get(name) if self.asked.method in SPACES else None
        subject = self.settings.table(name).subject
        parts = self.lake.parts(snapshot)
        return [Source(snapshot.table, place, part, text, subject, strata, score, view) for part in parts]

    def described(self, snapshot: Snapshot) -> dict[str, Any]:
        table = self.settings.table(snapshot.table.removeprefix(RECORDS))
        subject = table.subject
        view = self._views().get(snapshot.table.removeprefix(RECORDS)) if self.asked.method in SPACES else None
        return {
            **({"view": [view.look, *view.columns(embeds=True)]} if view else {}),
            "text": table.text,
            "subject": subject.column if subject else None,
            "kind": subject.kind if subject else None,
        }

    def _views(self) -> dict[str, View]:
        schemas = {s.table.removeprefix(RECORDS): self.lake.schema(s) for s in self.compared}
        return views_of(self.settings, self.dataset, schemas, embeds=True)

    def _score(self, snapshot: Snapshot, schema: pa.Schema) -> str | None:
        asked = self.asked.select.score
        name = snapshot.table.removeprefix(RECORDS)
        if asked is None or asked.column is None or name not in self.asked.pool:
            return None
        check_score_column(name, schema, asked.column)
        return asked.column

    def _text(self, name: str, schema: pa.Schema, *, needed: bool) -> str | None:
        text = self.settings.table(name).text
        if text is None and needed:
            raise ConfigError(f'table {name!r} has no text column, and selection compares texts. Add text = "<column>" to it')
        kind = schema.field(text).type if text in schema.names else None
        if text is None or (kind is not None and (pa.types.is_string(kind) or pa.types.is_large_string(kind))):
            return text
        raise ConfigError(
            f"table {name!r}: text = {text!r} names no text column; it has: "
            + ", ".join(f"{field.name} ({field.type})" for field in schema if field.name != "row_id")
        )


def _labels(settings: Settings, dataset: str, pool: Sequence[Snapshot]) -> tuple[str, ...]:
    """The label columns of the pool's tables, and of the models that train on the dataset."""
    tables = (settings.table(snapshot.table.removeprefix(RECORDS)).label for snapshot in pool)
    models = (model.label for model in settings.models.values() if model.dataset == dataset)
    return tuple(sorted({name for name in (*tables, *models) if name is not None}))


def _needs_text(asked: DatasetSettings) -> bool:
    return asked.method == "importance" or asked.select.compares_texts or asked.select.n_tokens is not None


def _refuse_unknown_strata(dataset: str, asked: SelectSettings, finder: _Columns, pool: Sequence[Snapshot]) -> None:
    schemas = [finder.lake.schema(snapshot) for snapshot in pool]
    for column in strata_of(asked):
        kinds = [schema.field(column).type for schema in schemas if column in schema.names]
        if unfit := [kind for kind in kinds if not _has_classes(kind)]:
            raise ConfigError(
                f"datasets.{dataset}.select: {column!r} holds {unfit[0]}, not classes to count. Name another column"
            )
        if schemas and not kinds:
            has = ", ".join(dict.fromkeys(n for schema in schemas for n in schema.names if n != "row_id"))
            raise ConfigError(f"datasets.{dataset}.select: no table of the pool has the column {column!r}; they have: {has}")


def _has_classes(kind: pa.DataType) -> bool:
    """Whether values of a type have a name to be counted by."""
    t = pa.types
    plain = kind.value_type if t.is_dictionary(kind) else kind
    return (
        t.is_string(plain) or t.is_large_string(plain) or t.is_string_view(plain) or t.is_primitive(plain) or t.is_decimal(plain)
    )
