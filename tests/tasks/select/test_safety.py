"""What sources lose: counts that any ranges add up to, a stop above the bound, and sentences that name no personal value."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.contracts import BELOW_THRESHOLD, FILTERED, KEPT, NEAR_DUPLICATE, SELECTION
from infra.select_settings import FloorSettings, SafetySettings
from tasks.select import safety
from tasks.select.safety import TABLE, Losses, LossWarning, SourceLost, TooManyValues, check, losses

ENDS = st.sampled_from(
    [(KEPT, None), (BELOW_THRESHOLD, None), (FILTERED, "n_words"), (FILTERED, "entropy"), (NEAR_DUPLICATE, None)]
)
BY_LANGUAGE = SafetySettings(by=("language",))
ROWS = st.lists(st.tuples(st.sampled_from(["news", "notes"]), st.sampled_from(["en", "de", None]), ENDS), max_size=60)


def counted(rows: Sequence[tuple[str, str | None, tuple[str, str | None]]]) -> Losses:
    decided = pa.Table.from_pylist(
        [{"row_id": i, "keep": end == KEPT, "reason": end, "signal": signal} for i, (_, _, (end, signal)) in enumerate(rows)],
        SELECTION,
    )
    tables, languages = (pa.array([row[i] for row in rows], pa.string()) for i in (0, 1))
    decided = decided.select(["keep", "reason", "signal"])
    return losses(decided.append_column(TABLE, tables.dictionary_encode()).append_column("language", languages))


def many(**ends: dict[str, int]) -> Losses:
    """So many records a table and end; `filtered_by_x` is the end of a filter on x."""
    return sum((counted([(table, None, _end(end))] * n) for table, of in ends.items() for end, n in of.items()), Losses())


def _end(end: str) -> tuple[str, str | None]:
    reason, _, signal = end.partition("_by_")
    return reason, signal or None


@given(ROWS, st.integers(0, 60))
def test_ranges_add_up_to_the_whole_and_to_a_plain_count(rows: list[Any], at: int) -> None:
    whole = counted(rows)
    assert counted(rows[at:]) + counted(rows[:at]) == whole
    for column, i in ((TABLE, 0), ("language", 1)):
        for source in whole.sources(column):
            ends = [end for *values, end in rows if values[i] == source.value]
            assert (source.n_raw, source.n_kept) == (len(ends), ends.count((KEPT, None)))
            assert source.reasons == Counter(reason for reason, _ in ends if reason != KEPT)
    assert whole.n_by_reason() == Counter(reason for _, _, (reason, _) in rows)
    assert whole.n_by_signal() == Counter(signal for _, _, (_, signal) in rows if signal)
    assert sum(one["raw"] for one in whole.by_source().values()) == len(rows)


@given(ROWS, st.floats(0, 1), st.integers(1, 40))
def test_it_stops_exactly_where_a_large_source_loses_more_than_it_may(rows: list[Any], bound: float, min_rows: int) -> None:
    asked = SafetySettings(max_source_loss=bound, min_rows=min_rows, by=("language",))
    watched = [s for column in (TABLE, "language") for s in counted(rows).sources(column) if s.n_raw >= min_rows]
    stops = any(s.n_raw - s.n_kept > bound * s.n_raw + 1e-9 for s in watched)
    if stops:
        with pytest.raises(SourceLost):
            check(counted(rows), asked, "d")
    else:
        check(counted(rows), asked, "d")


def test_the_error_says_what_is_lost_to_what_and_the_way_out() -> None:
    found = many(news={KEPT: 90, BELOW_THRESHOLD: 90}, notes={KEPT: 1, "filtered_by_n_words": 120, BELOW_THRESHOLD: 79})
    with pytest.raises(SourceLost) as error:
        check(found, SafetySettings(max_source_loss=0.99), "d")
    assert str(error.value) == (
        "dataset d: table notes loses 99.5 % of its 200 records (199, 120 of them filtered by n_words), which is more than "
        "max_source_loss = 0.99 allows. Nothing was committed. To keep it: loosen n_words in [datasets.d.select.filters]; or "
        "raise max_source_loss in [datasets.d.select.safety]"
    )
    assert check(found, SafetySettings(max_source_loss=0.995), "d")


def test_a_whole_loss_is_told_even_where_everything_may_be_lost() -> None:
    found = many(news={KEPT: 100, BELOW_THRESHOLD: 100}, notes={NEAR_DUPLICATE: 100})
    assert [w.said for w in check(found, SafetySettings(), "d")] == [
        "table notes loses 100 % of its 100 records (100, all nearly equal to others). "
        "To keep it: raise jaccard in [datasets.d.select.near_duplicates]"
    ]


def test_the_way_out_follows_from_the_reason_and_from_the_floors_that_are_set() -> None:
    def said(floors: FloorSettings | None, **ends: int) -> str:
        (warning,) = check(many(news={KEPT: 900}, notes=ends), SafetySettings(), "d", floors=floors)
        return warning.said.partition("To keep it: ")[2]

    lost = {BELOW_THRESHOLD: 100}
    assert said(None, **lost) == 'give it a floor: [datasets.d.select.floors] by = "table"'
    low = said(FloorSettings(by=TABLE, min_rows=1), **lost)
    assert low == "its floor is too low: raise min_fraction or min_rows in [datasets.d.select.floors]"
    other = said(FloorSettings(by="language", min_rows=1), **lost)
    assert other.startswith('the floors are by "language": say by = "table" in [datasets.d.select.floors] instead')
    assert said(None, filtered_by_score=100) == "loosen threshold or percentile in [datasets.d.select.score]"


def test_what_the_budget_alone_explains_is_not_told() -> None:
    plain = many(news={KEPT: 5, BELOW_THRESHOLD: 95}, notes={KEPT: 4, BELOW_THRESHOLD: 96})
    assert not check(plain, SafetySettings(), "d")
    starved = many(news={KEPT: 9, BELOW_THRESHOLD: 91}, notes={KEPT: 1, BELOW_THRESHOLD: 199})
    assert [w.source.value for w in check(starved, SafetySettings(), "d")] == ["notes"]


def test_small_sources_are_not_looked_at() -> None:
    found = many(news={KEPT: 100}, notes={"filtered_by_n_words": 99})
    assert not check(found, SafetySettings(max_source_loss=0.5), "d")


def language(warnings: tuple[LossWarning, ...]) -> str:
    return next(w.said for w in warnings if w.source.column == "language")


def test_values_are_named_only_where_they_are_labels() -> None:
    rows = [("news", "en", (KEPT, None))] * 200 + [("news", "Ada Lovelace", (FILTERED, "n_words"))] * 100
    assert "Ada" not in language(check(counted(rows), BY_LANGUAGE, "d"))
    assert "value 2 of column language" in language(check(counted(rows), BY_LANGUAGE, "d"))
    assert not [w for w in check(counted(rows), SafetySettings(), "d") if w.source.column == "language"]
    assert "language = 'Ada Lovelace'" in language(check(counted(rows), BY_LANGUAGE, "d", labels=["language"]))


def test_a_column_of_too_many_values_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safety, "MAX_VALUES", 2)
    rows = [("news", name, (KEPT, None)) for name in ("a", "b", "c")]
    with pytest.raises(TooManyValues, match="language"):
        counted(rows)
    with pytest.raises(TooManyValues, match="language"):
        check(counted(rows[:2]) + counted(rows[1:]), SafetySettings(), "d")


def test_no_record_at_all_loses_nothing() -> None:
    assert counted([]) == Losses()
    assert not check(Losses(), SafetySettings(max_source_loss=0.0), "d")
