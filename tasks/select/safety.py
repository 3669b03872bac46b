"""What each table, and each class or language, loses to a selection, so that no loss passes unnoticed. Pure.

Workers count a range of decisions (`losses`), the driver adds the counts and looks at the sum before the commit (`check`): a
source that loses more than `max_source_loss` of its records stops the selection, and one that loses nearly as much is told in a
sentence. Names of tables are told; a value of another column only where that column is a model's label, for any other may be
personal.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sized
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from infra.contracts import (
    BELOW_THRESHOLD,
    CONTAMINATED,
    DUPLICATE,
    EMPTY_TEXT,
    FILTERED,
    KEPT,
    NEAR_DUPLICATE,
    NO_SCORE,
    TOO_SHORT,
    LetheError,
)
from infra.select_settings import FloorSettings, SafetySettings

TABLE = "table"
_K = TypeVar("_K", bound=Hashable)
MAX_VALUES = 10_000
_SAID = {  # why records are dropped, in words, and what to do about it
    BELOW_THRESHOLD: ("below the threshold", ""),
    EMPTY_TEXT: ("without text", "look at its text column"),
    TOO_SHORT: ("too short", "look at its texts, or choose the default mode"),
    NO_SCORE: ("without a score", "look at its score column"),
    FILTERED: ("filtered", ""),
    DUPLICATE: ("equal to others", "the others of the same words stay: that may be right"),
    NEAR_DUPLICATE: ("nearly equal to others", "raise jaccard in [datasets.{dataset}.select.near_duplicates]"),
    CONTAMINATED: (
        "with text of evaluation tables",
        'cut the spans out: action = "cut" in [datasets.{dataset}.select.decontaminate]',
    ),
}


class SourceLost(LetheError):
    """A selection would lose more of a table, class or language than it may."""


class TooManyValues(LetheError):
    """A column of `safety.by` or `floors.by` has too many values to count each apart."""


@dataclass(frozen=True)
class Cell:
    """What is counted apart: the records with one value (None: NULL) of one column that came to one end.

    `column` is `TABLE` for the table that a record is of; `signal` names the filter, where one dropped them.
    """

    column: str
    value: str | None
    reason: str
    signal: str | None = None


@dataclass(frozen=True)
class SourceCounts:
    """A table, or a value of a column: `n_raw` records, of which `n_kept` stay; `dropped` are the others by reason and signal."""

    column: str
    value: str | None
    n_raw: int
    n_kept: int
    dropped: dict[tuple[str, str | None], int]

    @property
    def loss(self) -> float:
        """The share of its records that are dropped."""
        return 1 - self.n_kept / self.n_raw if self.n_raw else 0.0

    @property
    def reasons(self) -> dict[str, int]:
        """The dropped records by reason."""
        return _summed((reason, n) for (reason, _), n in self.dropped.items())

    @property
    def main_reason(self) -> tuple[str, str | None]:
        """The most frequent reason of loss and its signal; of equal ones the first by name."""
        return min(self.dropped, key=lambda end: (-self.dropped[end], end[0], end[1] or ""))


@dataclass(frozen=True)
class LossWarning:
    """A source that loses much: `said` is all of it in a sentence, and names no value that may be personal."""

    source: SourceCounts
    said: str


@dataclass(frozen=True)
class Losses:
    """How many records of each source came to which end. Counts of any ranges add up, in any order."""

    counts: Mapping[Cell, int] = field(default_factory=dict[Cell, int])

    def __add__(self, other: Losses) -> Losses:
        return Losses(_summed((*self.counts.items(), *other.counts.items())))

    @property
    def columns(self) -> list[str]:
        """The columns counted by, `TABLE` first."""
        return sorted({cell.column for cell in self.counts}, key=lambda name: (name != TABLE, name))

    def sources(self, column: str = TABLE) -> list[SourceCounts]:
        """The values of a column, those of most records first."""
        ends = dict[str | None, dict[tuple[str, str | None], int]]()
        for cell, n in self.counts.items():
            if cell.column == column:
                ends.setdefault(cell.value, {})[cell.reason, cell.signal] = n
        made = [_source(column, value, of_value) for value, of_value in ends.items()]
        return sorted(made, key=lambda s: (-s.n_raw, s.value is None, s.value or ""))

    def n_by_reason(self) -> dict[str, int]:
        """All records by how they ended, `KEPT` among them."""
        return self._by(lambda cell: cell.reason)

    def n_by_signal(self) -> dict[str, int]:
        """The records that filters dropped, by signal."""
        return self._by(lambda cell: cell.signal if cell.reason == FILTERED else None)

    def by_source(self) -> dict[str, dict[str, Any]]:
        """Each table's records, those kept, and why the others were dropped, in plain values."""
        return {s.value or "": {"raw": s.n_raw, "kept": s.n_kept, "reasons": s.reasons} for s in self.sources()}

    def _by(self, name: Callable[[Cell], str | None]) -> dict[str, int]:
        named = ((name(cell), n) for cell, n in self.counts.items() if cell.column == TABLE)
        return dict(sorted(_summed((key, n) for key, n in named if key is not None).items()))


def losses(rows: pa.Table) -> Losses:
    """The counts of some rows of a selection: columns `keep`, `reason` and `signal`, in this order, and behind them those counted
    by: `TABLE` and the columns of `safety.by`, or others.

    Raises `TooManyValues` for a column that is no class.
    """
    keep, reasons, signals = rows.columns[:3]
    reasons = pc.if_else(keep, KEPT, reasons)  # pyright: ignore[reportUnknownMemberType]
    signals = pc.if_else(keep, pa.scalar(None, pa.string()), signals)  # pyright: ignore[reportUnknownMemberType]
    counts = dict[Cell, int]()
    for column, values in zip(rows.column_names[3:], rows.columns[3:], strict=True):
        pairs = pa.table({"value": values.cast(pa.string()), "reason": reasons, "signal": signals})
        found = pairs.group_by(["value", "reason", "signal"]).aggregate([([], "count_all")])
        for row in found.to_pylist():
            counts[Cell(column, row["value"], row["reason"], row["signal"])] = row["count_all"]
    _refuse_many(counts)
    return Losses(counts)


def check(
    losses: Losses,
    asked: SafetySettings,
    dataset: str,
    *,
    labels: Collection[str] = (),
    floors: FloorSettings | None = None,
) -> tuple[LossWarning, ...]:
    """The sources that lose much, tables first, then the worst first. Raises `SourceLost` where one loses more than it may.

    A source is told of from `warn_source_loss` on, unless the budget alone explains it: where nine records in ten are left out of
    all, a source that loses 95 % is none to stop at. `labels` are the columns whose values may be named; `floors` are those that
    the selection had.
    """
    _refuse_many(losses.counts)
    way_out = _WayOut(dataset, floors)
    columns = [column for column in losses.columns if column in (TABLE, *asked.by)]
    watched = [s for column in columns for s in losses.sources(column) if s.n_raw >= asked.min_rows and s.dropped]
    watched.sort(key=lambda s: (s.column != TABLE, -s.loss))
    lost = [s for s in watched if s.n_raw - s.n_kept > round(asked.max_source_loss * s.n_raw, 9)]
    if lost:
        raise SourceLost(_lost(lost, losses, asked, way_out, labels))
    spared = _spared_by_budget(losses)
    telling = [s for s in watched if s.loss >= asked.warn_source_loss and 2 * (1 - s.loss) < spared]
    return tuple(LossWarning(s, f"{_loses(s, losses, labels)}. To keep it: {way_out.of(s)}") for s in telling)


@dataclass(frozen=True)
class _WayOut:
    """What to do about a loss, with the settings as they are."""

    dataset: str
    floors: FloorSettings | None

    def of(self, source: SourceCounts) -> str:
        """By the most frequent reason of a source's loss."""
        reason, signal = source.main_reason
        if reason == BELOW_THRESHOLD:
            return self._floor(source.column)
        if reason == FILTERED:
            return self._bound(signal)
        return _SAID.get(reason, ("", "look at its rows in selection/{dataset}"))[1].format(dataset=self.dataset)

    def _floor(self, column: str) -> str:
        where = f"[datasets.{self.dataset}.select.floors]"
        if self.floors is None:
            return f'give it a floor: {where} by = "{column}"'
        if self.floors.by == column:
            return f"its floor is too low: raise min_fraction or min_rows in {where}"
        return f'the floors are by "{self.floors.by}": say by = "{column}" in {where} instead, or raise the budget'

    def _bound(self, signal: str | None) -> str:
        where = f"[datasets.{self.dataset}.select"
        if signal == "score":
            return f"loosen threshold or percentile in {where}.score]"
        return f"loosen {signal or 'that bound'} in {where}.filters]"


def _spared_by_budget(losses: Losses) -> float:
    """The share of all candidates that the budget alone would leave: those that are not below the threshold."""
    ends = losses.n_by_reason()
    return 1 - ends.get(BELOW_THRESHOLD, 0) / max(sum(ends.values()), 1)


def _lost(lost: list[SourceCounts], losses: Losses, asked: SafetySettings, way_out: _WayOut, labels: Collection[str]) -> str:
    worst, dataset = lost[0], way_out.dataset
    more = f", and {len(lost) - 1:,} more sources lose too much" if len(lost) > 1 else ""
    return (
        f"dataset {dataset}: {_loses(worst, losses, labels)}, which is more than max_source_loss = {asked.max_source_loss:g} "
        f"allows{more}. Nothing was committed. To keep it: {way_out.of(worst)}; or raise max_source_loss in "
        f"[datasets.{dataset}.select.safety]"
    )


def _loses(source: SourceCounts, losses: Losses, labels: Collection[str]) -> str:
    reason, signal = source.main_reason
    n, n_dropped = source.dropped[reason, signal], source.n_raw - source.n_kept
    by = f" by {signal}" if signal and reason == FILTERED else ""
    who = "all" if n == n_dropped else f"{n:,} of them"
    why = f"{n_dropped:,}, {who} {_SAID.get(reason, (reason, ''))[0]}{by}"
    return f"{_named(source, losses, labels)} loses {_percent(source.loss)} of its {source.n_raw:,} records ({why})"


def _named(source: SourceCounts, losses: Losses, labels: Collection[str]) -> str:
    if source.column == TABLE:
        return f"table {source.value}"
    if source.column in labels:
        return f"{source.column} = {source.value!r}" if source.value is not None else f"{source.column} NULL"
    rank = [s.value for s in losses.sources(source.column)].index(source.value) + 1
    return f"value {rank} of column {source.column} (by number of records)"


def _percent(share: float) -> str:
    """A share that is never rounded up to the whole."""
    return f"{int(1000 * share) / 10:g} %"


def _source(column: str, value: str | None, ends: dict[tuple[str, str | None], int]) -> SourceCounts:
    dropped = {end: n for end, n in sorted(ends.items(), key=str) if end[0] != KEPT}
    n_raw = sum(ends.values())
    return SourceCounts(column, value, n_raw, n_raw - sum(dropped.values()), dropped)


def _refuse_many(counts: Mapping[Cell, int]) -> None:
    values = dict[str, set[str | None]]()
    for cell in counts:
        values.setdefault(cell.column, set()).add(cell.value)
    for column, found in values.items():
        if column != TABLE:
            refuse_many(column, found)


def refuse_many(column: str, values: Sized) -> None:
    """Raises `TooManyValues` where a column has so many values that it is no class."""
    if len(values) > MAX_VALUES:
        raise TooManyValues(
            f"column {column!r} has more than {MAX_VALUES:,} values, and each would be counted apart. "
            "Name a column of classes, languages or sources"
        )


def _summed(pairs: Iterable[tuple[_K, int]]) -> dict[_K, int]:
    total = dict[_K, int]()
    for key, n in pairs:
        total[key] = total.get(key, 0) + n
    return total
