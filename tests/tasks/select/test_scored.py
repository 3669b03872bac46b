"""Scores and verdicts met: which reason is told, whatever order they come in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.contracts import CONTAMINATED, DUPLICATE, EMPTY_TEXT, FILTERED, KEPT, NO_SCORE, TOO_SHORT
from tasks.select.scored import REASONS, Door, Joined, Rows, empty_rows, joined, of_table, to_table
from tasks.select.verdicts import CUT, PRIORITY, VERDICT, first_verdicts, verdicts


def rows_of(n: int, **given_: Any) -> Rows:
    columns: dict[str, Any] = {
        "row_ids": np.arange(n),
        "weights": np.zeros((n, 2)),
        "n_tokens": np.full(n, 50),
        "sampled": np.ones(n, np.bool_),
        "places": np.zeros(n, np.int64),
        "scores": np.full(n, np.nan),
    }
    return Rows(**{**columns, **given_})


def told(found: Joined) -> list[str]:
    return [REASONS[code] for code in found.codes]


def test_rows_survive_their_table() -> None:
    rows = rows_of(3, weights=np.array([[1.0, np.nan], [0.0, -2.0], [3.0, 4.0]]), strata=(pa.array(["a", None, "b"]),))
    back = of_table(pa.concat_tables([to_table(empty_rows(2, 1)), to_table(rows)], promote_options="default"))
    assert all(np.array_equal(getattr(rows, name), getattr(back, name), equal_nan=True) for name in ("weights", "scores"))
    assert np.array_equal(rows.row_ids, back.row_ids) and back.strata[0].to_pylist() == ["a", None, "b"]


def test_each_reason_in_its_turn() -> None:
    found = pa.concat_tables([verdicts([1], reason=DUPLICATE, representative=[7]), verdicts([2], reason=CUT, cuts=[[0, 4]])])
    weights = np.zeros((6, 1))
    weights[[3, 4]] = np.nan
    scores = np.array([0.9, 0.9, 0.9, 0.1, 0.9, 0.1])
    made = joined(rows_of(6, weights=weights, scores=scores), found, Door(low=0.5, is_bounded=True))
    assert told(made) == [KEPT, DUPLICATE, KEPT, EMPTY_TEXT, EMPTY_TEXT, FILTERED]
    assert made.verdicts.column("cuts").to_pylist() == [None, None, [0, 4], None, None, None]
    last = made.verdicts.to_pylist()[5]
    assert (last["signal"], last["value"], last["bound"]) == ("score", 0.1, 0.5)
    assert told(joined(rows_of(1), VERDICT.empty_table(), Door(high=0.5, is_bounded=True))) == [NO_SCORE]
    assert told(joined(rows_of(2, n_tokens=np.array([99, 100])), VERDICT.empty_table(), Door(min_tokens=100))) == [
        TOO_SHORT,
        KEPT,
    ]


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(PRIORITY)), max_size=20), st.randoms())
def test_the_first_reason_is_told_in_any_order(said: list[tuple[int, str]], chance: Any) -> None:
    shuffled = list(said)
    chance.shuffle(shuffled)
    tables = [pa.concat_tables([VERDICT.empty_table(), *(verdicts([i], reason=r) for i, r in some)]) for some in (said, shuffled)]
    one, other = (joined(rows_of(6), table, Door()) for table in tables)
    assert told(one) == told(other)
    for i, reason in enumerate(told(one)):
        mine = [r for at, r in said if at == i and r != CUT]
        assert reason == (min(mine, key=PRIORITY.index) if mine else KEPT)


def test_verdicts_name_only_known_columns() -> None:
    with pytest.raises(TypeError, match="colour"):
        verdicts([1], reason=FILTERED, colour="red")
    assert first_verdicts(verdicts([2, 1], reason=CONTAMINATED)).column("row_id").to_pylist() == [1, 2]
