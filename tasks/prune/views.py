"""What a pool's columns are to pruning: text, pixels or features; subject and label stay out of every embedding. Pure.

A pool of texts is looked at as text if every table names a text column, as images if every table has a column of pixels, and as
rows of a table otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from infra.contracts import LetheError
from infra.files import Part
from infra.settings import ConfigError, Settings, SubjectSettings
from tasks.kernels.embed import is_feature, is_number, is_pixels

Look = Literal["text", "pixels", "table"]


class NothingToEmbed(LetheError):
    """The pool has no column that an embedding could be made of."""


@dataclass(frozen=True)
class View:
    """Which columns of one table mean what. `numbers` and `words` are a table embedding's columns, `content` the text or
    image.
    """

    look: Look
    subject: SubjectSettings | None
    label: str | None = None
    content: str | None = None
    numbers: tuple[str, ...] = ()
    words: tuple[str, ...] = ()

    def columns(self, *, embeds: bool) -> list[str]:
        """What has to be read: to embed, or only to know whose a row is."""
        names = ["row_id", self.subject.column if self.subject else None]
        if embeds:
            names += [self.label, self.content, *self.numbers, *self.words]
        return [name for name in dict.fromkeys(names) if name is not None]


@dataclass(frozen=True)
class Job:
    """One file of the pool, and how to look at it."""

    part: Part
    view: View


def views_of(settings: Settings, dataset: str, schemas: Mapping[str, pa.Schema], *, embeds: bool) -> dict[str, View]:
    """The view of each table of a pool, all with the same look. Raises `NothingToEmbed` where an embedding has nothing to go
    by.
    """
    for table, schema in schemas.items():
        _refuse_absent(settings, table, schema)
    contents: tuple[tuple[Look, dict[str, str | None]], ...] = (
        ("text", {table: settings.table(table).text for table in schemas}),
        ("pixels", {table: _pixels_of(settings, dataset, table, schema) for table, schema in schemas.items()}),
    )
    for look, found in contents:
        if all(found.values()):
            return {
                t: View(look, settings.table(t).subject, _label_of(settings, dataset, t, s), found[t]) for t, s in schemas.items()
            }
    return _table_views(settings, dataset, schemas, embeds=embeds)


def _refuse_absent(settings: Settings, table: str, schema: pa.Schema) -> None:
    asked = settings.table(table)
    for key, column in (("text", asked.text), ("subject", asked.subject.column if asked.subject else None)):
        if column is not None and column not in schema.names:
            has = ", ".join(name for name in schema.names if name != "row_id")
            raise ConfigError(f"table {table!r}: {key} names column {column!r}; it has: {has}. Correct lethe.toml")


def _table_views(settings: Settings, dataset: str, schemas: Mapping[str, pa.Schema], *, embeds: bool) -> dict[str, View]:
    usable = {table: _usable(settings, dataset, table, schema) for table, schema in schemas.items()}
    words = {field.name for fields in usable.values() for field in fields if not is_number(field.type)}
    if embeds and not any(usable.values()):
        raise NothingToEmbed(
            f"datasets.{dataset}: beside subject and label, its pool has no column to compare records by. Set tables.<name>.text"
        )
    return {
        table: View(
            "table",
            settings.table(table).subject,
            _label_of(settings, dataset, table, schemas[table]),
            None,
            tuple(f.name for f in fields if f.name not in words),
            tuple(f.name for f in fields if f.name in words),
        )
        for table, fields in usable.items()
    }


def _usable(settings: Settings, dataset: str, table: str, schema: pa.Schema) -> list[pa.Field]:
    hidden = _hidden(settings, dataset, table)
    # By name: the order of a table's columns says who was ingested first.
    return sorted((f for f in schema if f.name not in hidden and is_feature(f.type)), key=lambda f: f.name)


def _pixels_of(settings: Settings, dataset: str, table: str, schema: pa.Schema) -> str | None:
    hidden = _hidden(settings, dataset, table)
    return next((field.name for field in schema if field.name not in hidden and is_pixels(field.type)), None)


def _hidden(settings: Settings, dataset: str, table: str) -> set[str]:
    """Columns that no embedding may see: it would keep or drop people for who they are, or leak the label."""
    subject, label = settings.table(table).subject, settings.table(table).label
    return {"row_id", *([subject.column] if subject else []), *([label] if label else []), *_model_labels(settings, dataset)}


def _model_labels(settings: Settings, dataset: str) -> list[str]:
    return [model.label for _, model in sorted(settings.models.items()) if model.dataset == dataset]


def _label_of(settings: Settings, dataset: str, table: str, schema: pa.Schema) -> str | None:
    """The column whose classes have a floor: the table's own label, or the first model's."""
    own = settings.table(table).label
    return next((name for name in (own, *_model_labels(settings, dataset)) if name in schema.names), None)
