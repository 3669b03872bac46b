"""What a pool's columns are to whoever compares records: text, pixels or features; subject and label stay out of it. Pure.

A pool of texts is looked at as text if every table names a text column, as images if every table has a column of pixels, and as
rows of a table otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import pyarrow as pa

from infra.columns import CONTENT, Look, as_features, is_feature, is_number, is_pixels
from infra.contracts import LetheError
from infra.files import Part
from infra.settings import ConfigError, Settings, SubjectSettings
from infra.subjects import missing, root, roots


class NothingToEmbed(LetheError):
    """The pool has no column that an embedding could be made of."""


@dataclass(frozen=True)
class View:
    """Which columns of one table mean what. `subject` decides the places of its rows, `whose` is the column that it is in;
    `numbers` and `words` are a table embedding's columns, `content` the text or image.
    """

    look: Look
    subject: SubjectSettings | None
    label: str | None = None
    content: str | None = None
    numbers: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    whose: str | None = None

    def columns(self, *, embeds: bool) -> list[str]:
        """What has to be read: to embed, or only to know whose a row is."""
        names = ["row_id", self.whose]
        if embeds:
            names += [self.label, self.content, *self.numbers, *self.words]
        return [name for name in dict.fromkeys(names) if name is not None]


@dataclass(frozen=True)
class Job:
    """One file of the pool, and how to look at it."""

    part: Part
    view: View


def content_of(rows: pa.RecordBatch, view: View) -> pa.Table:
    """The columns that an embedding sees, under the same names and types in every table of a pool."""
    if view.content is None:
        return as_features(rows, view.numbers, view.words)
    column = rows.column(view.content)
    return pa.table({CONTENT: column.cast(pa.large_string()) if view.look == "text" else column})


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
            return {t: replace(_view(settings, dataset, t, schema), look=look, content=found[t]) for t, schema in schemas.items()}
    return _table_views(settings, dataset, schemas, embeds=embeds)


def _refuse_absent(settings: Settings, table: str, schema: pa.Schema) -> None:
    asked, own = settings.table(table), pa.schema([field for field in schema if field.name != "row_id"])
    if asked.text is not None and asked.text not in own.names:
        raise ConfigError(
            f"table {table!r}: text names column {asked.text!r}; it has: {', '.join(own.names)}. Correct lethe.toml"
        )
    if asked.subject is not None and (why := missing(own, asked.subject)) is not None:
        raise ConfigError(f"table {table!r}, subject: {why}. Correct lethe.toml")


def _table_views(settings: Settings, dataset: str, schemas: Mapping[str, pa.Schema], *, embeds: bool) -> dict[str, View]:
    usable = {table: _usable(settings, dataset, table, schema) for table, schema in schemas.items()}
    words = {field.name for fields in usable.values() for field in fields if not is_number(field.type)}
    if embeds and not any(usable.values()):
        raise NothingToEmbed(
            f"datasets.{dataset}: beside subject and label, its pool has no column to compare records by. Set tables.<name>.text"
        )
    return {
        table: replace(
            _view(settings, dataset, table, schemas[table]),
            numbers=tuple(f.name for f in fields if f.name not in words),
            words=tuple(f.name for f in fields if f.name in words),
        )
        for table, fields in usable.items()
    }


def _view(settings: Settings, dataset: str, table: str, schema: pa.Schema) -> View:
    """The view of one table, with nothing yet to embed."""
    subject = settings.table(table).subject
    whose = root(schema, subject) if subject is not None else None
    return View("table", subject, _label_of(settings, dataset, table, schema), whose=whose)


def _usable(settings: Settings, dataset: str, table: str, schema: pa.Schema) -> list[pa.Field]:
    hidden = _hidden(settings, dataset, table, schema)
    # By name: the order of a table's columns says who was ingested first.
    return sorted((f for f in schema if f.name not in hidden and is_feature(f.type)), key=lambda f: f.name)


def _pixels_of(settings: Settings, dataset: str, table: str, schema: pa.Schema) -> str | None:
    hidden = _hidden(settings, dataset, table, schema)
    return next((field.name for field in schema if field.name not in hidden and is_pixels(field.type)), None)


def _hidden(settings: Settings, dataset: str, table: str, schema: pa.Schema) -> set[str]:
    """Columns that no embedding may see: it would keep or drop people for who they are, or leak the label."""
    asked = settings.table(table)
    labels = [*([asked.label] if asked.label else []), *_model_labels(settings, dataset)]
    return {"row_id", *roots(schema, asked.subjects), *labels}


def _model_labels(settings: Settings, dataset: str) -> list[str]:
    return [model.label for _, model in sorted(settings.models.items()) if model.dataset == dataset]


def _label_of(settings: Settings, dataset: str, table: str, schema: pa.Schema) -> str | None:
    """The column whose classes have a floor: the table's own label, or the first model's."""
    own = settings.table(table).label
    return next((name for name in (own, *_model_labels(settings, dataset)) if name in schema.names), None)
