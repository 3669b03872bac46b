"""What is inferred is true of any sets, and a chain needs one look a link."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.dedup.exact import Counted
from tasks.dedup.scan import Inference
from tasks.dedup.transitive import Known

CONTAINED, AS_A_SET, LACKING = Counted(4, 2, 0, 0), Counted(4, 2, 0, 1), Counted(4, 2, 1, 2)
SETS = st.lists(st.frozensets(st.integers(0, 4)), min_size=2, max_size=7)


@settings(deadline=None)
@given(SETS, st.randoms(use_true_random=False))
def test_no_inference_is_false(sets: list[frozenset[int]], random) -> None:
    known = Known()
    pairs = [(a, b) for a in range(len(sets)) for b in range(len(sets)) if a != b]
    random.shuffle(pairs)
    for child, parent in pairs:
        inferred = known.infer(child, parent)
        assert inferred is None or inferred == (sets[child] <= sets[parent])
        known.record(child, parent, holds=sets[child] <= sets[parent])


def test_a_chain_is_inferred_from_its_links() -> None:
    inference = Inference()
    for lower, upper in ((0, 1), (1, 2)):
        inference.record(lower, upper, CONTAINED)
    assert inference.holds(0, 2) and not inference.refuted(0, 2)
    assert not inference.holds(2, 0)


def test_a_set_above_a_multiset_is_no_multiset() -> None:
    """Each distinct row of table 1 is in table 2, its copies are not: nothing follows for the copies of table 0."""
    inference = Inference()
    inference.record(0, 1, CONTAINED)
    inference.record(1, 2, AS_A_SET)
    assert not inference.holds(0, 2) and not inference.refuted(0, 2)


def test_what_holds_too_much_is_refuted() -> None:
    inference = Inference()
    inference.record(0, 1, CONTAINED)
    inference.record(0, 2, LACKING)
    assert inference.refuted(1, 2) and not inference.holds(1, 2)
