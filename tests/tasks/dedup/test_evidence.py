"""Evidence does not depend on the order or the files, never overstates, and stops at its bound."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.dedup.evidence import MAX_BITS, evidence_bits, merge_slots, slots_of, why_apart

CELLS = st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=40)


def cells(values: list[int]) -> np.ndarray:
    return np.array([(v, 0) for v in values], np.uint64).reshape(-1, 2)


@settings(deadline=None)
@given(CELLS, st.integers(0, 40))
def test_two_parts_tell_what_the_whole_tells(values: list[int], cut: int) -> None:
    parts = [{"a": slots_of(cells(some))} for some in (values[cut:], values[:cut])]
    whole = {"a": slots_of(cells(values))}
    assert evidence_bits(merge_slots(*parts)) == evidence_bits(whole) <= math.log2(len(set(values)))


def test_a_column_that_one_part_lacks_is_kept() -> None:
    merged = merge_slots({"a": slots_of(cells([1, 2]))}, {"b": slots_of(cells([1, 2, 3, 4]))})
    assert evidence_bits(merged) == 3.0


def test_flags_prove_little_and_identifiers_stop_at_the_bound() -> None:
    flag, number = slots_of(cells([0, 1])), slots_of(cells(list(range(1 << 17))))
    assert evidence_bits({"a": flag, "b": flag}) == 2.0
    assert evidence_bits({"a": number}) == 16.0
    assert evidence_bits({str(i): number for i in range(9)}) == MAX_BITS


def test_reasons() -> None:
    assert why_apart(0, 3, all_null=False) == "empty"
    assert why_apart(5, 0, all_null=False) == "no comparable column"
    assert why_apart(5, 3, all_null=True) == "all null"
    assert why_apart(5, 1, all_null=False) == "single column"
    assert why_apart(5, 2, all_null=False) is None
