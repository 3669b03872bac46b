"""What is inferred is true of any sets, and a chain needs one look a link."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.dedup.exact import Verdict
from tasks.dedup.scan import EXACT, Ledger
from tasks.dedup.transitive import Known

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
    ledger = Ledger()
    for lower, upper in ((0, 1), (1, 2)):
        ledger.record(lower, upper, Verdict(True, True), EXACT)
    assert ledger.inferred(0, 2, multiset=True) == Verdict(True, True)


def test_a_set_above_a_multiset_answers_one_question_only() -> None:
    ledger = Ledger()
    ledger.record(0, 1, Verdict(True, True), EXACT)
    ledger.record(1, 2, Verdict(True, False), EXACT)
    assert ledger.inferred(0, 2, multiset=True) is None
    assert ledger.inferred(0, 2, multiset=False) == Verdict(True, False)


def test_what_holds_too_much_is_refuted() -> None:
    ledger = Ledger()
    ledger.record(0, 1, Verdict(True, True), EXACT)
    ledger.record(0, 2, Verdict(False, False), EXACT)
    assert ledger.inferred(1, 2, multiset=True) == Verdict(False, False)
