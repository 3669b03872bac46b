"""Places decide shard, slice and holdout; the control is a fair keyed draw."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from infra.ids import Digest, mix64
from tasks.prune.places import held_out, in_control, moved_shards, rounded_fraction, shard_digests, shards_and_slices

PLACES = mix64(np.arange(20_000, dtype=np.uint64))
IDS = (PLACES >> np.uint64(1)).view(np.int64)


def test_shards_and_slices_are_even_and_independent() -> None:
    shards, slices = shards_and_slices(PLACES, 4, 5)
    cells = np.bincount(shards * 5 + slices, minlength=20)
    assert len(cells) == 20
    assert ((cells - 1000) ** 2 / 1000).sum() < 50  # chi squared, 19 degrees of freedom: p < 1e-4


def test_who_is_held_out_says_nothing_about_the_shard() -> None:
    shards, _ = shards_and_slices(PLACES, 4, 1)
    out = held_out(PLACES, 0.2)
    assert abs(out.mean() - 0.2) < 0.015
    assert max(abs(out[shards == s].mean() - 0.2) for s in range(4)) < 0.03
    assert not held_out(PLACES, 0.0).any()


def test_the_control_has_its_size_and_all_of_it_at_one() -> None:
    assert abs(in_control(IDS, 0.3, 0).mean() - 0.3) < 0.015
    assert in_control(IDS, 1.0, 0).all() and not in_control(IDS, 0.0, 0).any()
    assert (in_control(IDS, 0.5, 0) != in_control(IDS, 0.5, 1)).any()


@given(st.integers(0, 10_000), st.integers(1, 10_000))
def test_a_rounded_fraction_is_near(part: int, whole: int) -> None:
    fraction = min(part, whole) / whole
    assert abs(rounded_fraction(min(part, whole), whole) - fraction) <= fraction / 1024
    assert rounded_fraction(0, 0) == 0.0 and rounded_fraction(7, 7) == 1.0


def test_digests_name_the_shards_that_moved() -> None:
    shards, _ = shards_and_slices(PLACES, 4, 1)
    gone = 17
    rest = np.delete(np.arange(len(IDS)), gone)
    before, after = shard_digests(IDS, shards, 4), shard_digests(IDS[rest][::-1], shards[rest][::-1], 4)
    said = [{str(s): str(d) for s, d in enumerate(digests)} for digests in (before, after)]
    assert moved_shards(*said) == [int(shards[gone])]
    halves = zip(shard_digests(IDS[:500], shards[:500], 4), shard_digests(IDS[500:], shards[500:], 4), strict=True)
    assert [a + b for a, b in halves] == before
    assert sum((d.n_rows for d in before), 0) == len(IDS) and isinstance(before[0], Digest)
