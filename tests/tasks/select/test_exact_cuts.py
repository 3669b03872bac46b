"""Cuts found by asking ranges of the pool are those of a fit on all of it."""

from __future__ import annotations

import math
from unittest import mock

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.select import exact
from tasks.select.budget import Budget, Candidates, Cuts, Floors, fit_cuts, totals_of
from tasks.select.exact import Answer, Probe, admitted_totals, answer, exact_cuts, ranks
from tests.tasks.select.test_budget import N_STRATA, same, tasks


def asked(pool: Candidates, budget: Budget, n_ranges: int, n_strata: int = N_STRATA) -> tuple[Cuts, list[Probe]]:
    """The exact cuts of a pool in so many ranges, and the probes put to them."""
    parts = [pool.take(piece) for piece in np.array_split(np.arange(len(pool.row_ids)), n_ranges)]
    probes = list[Probe]()

    def ask(probe: Probe) -> list[Answer]:
        probes.append(probe)
        return [answer(part, probe) for part in parts]

    totals = totals_of(pool, n_strata)
    return exact_cuts(totals, budget, ask, lambda cuts: [admitted_totals(part, cuts, n_strata) for part in parts]), probes


@settings(max_examples=100)
@given(tasks(), st.integers(1, 4), st.sampled_from([1, 3, 1 << 16]))
def test_exact_cuts_are_those_of_a_fit_on_all_rows(task: tuple[Candidates, Budget], n_ranges: int, room: int) -> None:
    """Also where no more than a few records may be collected, so that ties are told apart by row id."""
    pool, budget = task
    with mock.patch.object(exact, "ROOM", room):
        cuts, _ = asked(pool, budget, n_ranges)
    same(cuts, fit_cuts(pool, totals_of(pool, N_STRATA), budget))


@given(st.lists(st.floats(allow_nan=False) | st.sampled_from([0.0, -0.0, math.inf, -math.inf]), max_size=30))
def test_ranks_are_in_the_order_of_keys(values: list[float]) -> None:
    keys = np.array(values, np.float64)
    found = ranks(keys)
    assert found.dtype == np.uint64
    assert np.array_equal(found[:, None] < found[None, :], keys[:, None] < keys[None, :])


def test_a_large_pool_takes_few_passes_and_few_records_are_collected() -> None:
    n = 60_000
    rng = np.random.default_rng(0)
    keys = np.stack([rng.gumbel(size=n), np.repeat(rng.integers(0, 5, n // 100), 100).astype(np.float64)], axis=1)
    strata = rng.integers(0, 4, n).astype(np.int32)
    pool = Candidates(rng.permutation(n), keys, rng.integers(1, 100, n), strata)
    budget = Budget(n_tokens=int(pool.n_tokens.sum()) // 3, shares=(0.8, 0.2), floors=Floors(min_fraction=0.2))
    with mock.patch.object(exact, "ROOM", 2_000):
        cuts, probes = asked(pool, budget, 3, 4)
    same(cuts, fit_cuts(pool, totals_of(pool, 4), budget))
    assert len(probes) <= 30
    gathered = [answer(pool, probe).collected for probe in probes if probe.collect]
    assert max(len(one.row_ids) for one in gathered if one is not None) <= 2_000
