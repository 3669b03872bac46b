"""Filters on signals against a loop over rows."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.contracts import FILTERED
from infra.settings import ConfigError
from tasks.kernels.signals import signals_of
from tasks.select.filters import check_filters, filtered
from tasks.select.verdicts import VERDICT

NAMES = ("word_count", "frac_unique_words", "unigram_entropy")
floats = st.floats(-4, 4, width=32) | st.sampled_from([0.1, 0.3, 0.7])
bounds = st.tuples(st.none() | floats, st.none() | floats)
rows = st.lists(st.tuples(floats, st.none() | floats, st.none() | floats), max_size=12)


def signals(values: list[tuple[float | None, ...]]) -> pa.Table:
    return pa.table({name: pa.array([row[k] for row in values], pa.float32()) for k, name in enumerate(NAMES)})


def oracle(row: tuple[float | None, ...], filters: dict[str, tuple[float | None, float | None]]) -> tuple[str, float] | None:
    for name, (low, high) in filters.items():
        value = row[NAMES.index(name)]
        if value is None:
            continue
        for bound, side in ((low, -1), (high, 1)):
            if bound is not None and side * np.float32(value) > side * np.float32(bound):
                return name, bound
    return None


@given(rows, st.permutations(NAMES).flatmap(lambda names: st.tuples(*[st.tuples(st.just(name), bounds) for name in names])))
def test_the_first_broken_filter_is_told(
    values: list[tuple[float | None, ...]], pairs: tuple[tuple[str, tuple[float | None, float | None]], ...]
) -> None:
    filters = dict(pairs)
    ids = np.arange(len(values), dtype=np.int64) * 7
    found = filtered(ids, signals(values), filters)
    assert found.schema == VERDICT
    expected = [(row_id, oracle(row, filters)) for row_id, row in zip(ids.tolist(), values, strict=True)]
    told = [(row["row_id"], (row["signal"], row["bound"])) for row in found.to_pylist()]
    assert told == [(row_id, verdict) for row_id, verdict in expected if verdict]
    for row in found.to_pylist():
        assert row["reason"] == FILTERED
        assert row["value"] == pytest.approx(values[row["row_id"] // 7][NAMES.index(row["signal"])])


@given(rows, st.integers(0, 12), bounds)
def test_a_verdict_owes_nothing_to_other_rows(
    values: list[tuple[float | None, ...]], at: int, bound: tuple[float | None, float | None]
) -> None:
    ids, table, filters = np.arange(len(values), dtype=np.int64), signals(values), {"unigram_entropy": bound, "word_count": bound}
    parts = [filtered(ids[:at], table.slice(0, at), filters), filtered(ids[at:], table.slice(at), filters)]
    assert filtered(ids, table, filters).equals(pa.concat_tables(parts).combine_chunks())


def test_an_example() -> None:
    """Too short; said three times over; within all bounds; NULL, of which only the number of words is known."""
    texts = pa.array(["Hi.", "buy now " * 3, "a plain line of text that says one thing only", None])
    filters = {"word_count": (2.0, None), "frac_chars_top_2gram": (None, 0.5)}
    found = filtered(np.array([5, 6, 7, 8], np.int64), signals_of(texts), filters)
    assert found.select(["row_id", "signal", "value", "bound"]).to_pylist() == [
        {"row_id": 5, "signal": "word_count", "value": 1.0, "bound": 2.0},
        {"row_id": 6, "signal": "frac_chars_top_2gram", "value": 1.0, "bound": 0.5},
        {"row_id": 8, "signal": "word_count", "value": 0.0, "bound": 2.0},
    ]


def test_a_value_on_a_bound_stays_whatever_float32_makes_of_it() -> None:
    values = [(0.1, 0.3, 0.7)]
    assert filtered(np.zeros(1, np.int64), signals(values), dict.fromkeys(NAMES[1:], (0.3, 0.7))).num_rows == 0


def test_no_filter_and_no_row_drop_nothing() -> None:
    assert filtered(np.arange(1), signals([(1.0, 1.0, 1.0)]), {}).num_rows == 0
    assert filtered(np.zeros(0, np.int64), signals([]), {"word_count": (1.0, None)}).num_rows == 0


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("word_counts", "Did you mean word_count"),
        ("rps_doc_frac_unique_words", "Did you mean frac_unique_words"),
        ("lines_ending_with_terminal_punctuation_mark", "lines_ending_with_terminal_punctution_mark"),
        ("zzz", "It is one of: word_count, "),
    ],
)
def test_an_unknown_signal_is_named_with_those_near_it(name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=f"dataset 'web': select.filters.{name}: .*{said}"):
        check_filters({"word_count": (1.0, None), name: (0.0, 1.0)}, "web")


def test_a_filter_needs_a_bound() -> None:
    check_filters({"word_count": (1.0, None), "num_lines": (None, 5.0)}, "web")
    with pytest.raises(ConfigError, match=r"filters\.num_lines: no bound"):
        check_filters({"num_lines": (None, None)}, "web")
    with pytest.raises(ConfigError, match="nan"):
        check_filters({"num_lines": (math.nan, None)}, "web")
