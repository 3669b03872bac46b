"""The plan is a function of the rows that are there."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from tasks.train.plan import Plan, batches, checkpoint_names, epoch_order, epoch_seed, initial_seed, rows_digest

PLAN = Plan(slices=3, epochs=4, batch_size=5, learning_rate=1e-3, seed=7)
IDS = nps.arrays(np.int64, st.integers(0, 60), elements=st.integers(0, 2**63 - 1), unique=True)


def ordered(ids: np.ndarray, epoch: int = 0) -> list[int]:
    return ids[epoch_order(ids, PLAN, shard=1, slice_=0, epoch=epoch)].tolist()


@given(IDS, st.randoms(use_true_random=False))
def test_the_order_of_an_epoch_does_not_depend_on_the_order_of_the_rows(ids: np.ndarray, random) -> None:
    moved = ids.copy()
    random.shuffle(moved)
    assert ordered(moved) == ordered(ids)


@given(IDS, st.data())
def test_an_absent_row_moves_no_other(ids: np.ndarray, data: st.DataObject) -> None:
    gone = set(data.draw(st.lists(st.sampled_from(ids.tolist()) if len(ids) else st.nothing(), unique=True)))
    left = np.array([i for i in ids if i not in gone], np.int64)
    assert ordered(left) == [i for i in ordered(ids) if i not in gone]


@given(IDS)
def test_batches_hold_every_row_once(ids: np.ndarray) -> None:
    parts = list(batches(ids, PLAN, shard=0, slice_=2, epoch=1))
    assert sorted(np.concatenate(parts).tolist() if parts else []) == list(range(len(ids)))
    assert all(len(p) == PLAN.batch_size for p in parts[:-1])


@given(st.integers(1, 40), st.integers(1, 40))
def test_the_work_is_about_the_epochs_asked_for(slices: int, epochs: int) -> None:
    passes = Plan(slices, epochs, 1, 1e-3, 0).epochs_per_slice * (slices + 1) / 2
    assert abs(passes - epochs) <= max((slices + 1) / 4, passes - epochs if 2 * epochs < slices + 1 else 0) + 1e-9


@given(st.lists(IDS, min_size=3, max_size=3), st.integers(0, 2))
def test_a_change_in_a_slice_renames_its_checkpoint_and_the_later_ones_only(rows: list[np.ndarray], changed: int) -> None:
    before = checkpoint_names("c", 0, rows)
    other = list(rows)
    other[changed] = np.append(rows[changed], np.int64(2**63 - 1)) if 2**63 - 1 not in rows[changed] else rows[changed][:-1]
    after = checkpoint_names("c", 0, other)
    assert [a == b for a, b in zip(before, after, strict=True)] == [r < changed for r in range(3)]


def test_names_depend_on_configuration_and_shard_and_not_on_row_order() -> None:
    rows = [np.array([3, 1, 2], np.int64), np.array([], np.int64)]
    names = checkpoint_names("c", 0, rows)
    assert names == checkpoint_names("c", 0, [rows[0][::-1], rows[1]])
    assert not set(names) & {*checkpoint_names("d", 0, rows), *checkpoint_names("c", 1, rows)}
    assert rows_digest(rows[0]) != rows_digest(rows[0][:2])


def test_epochs_are_ordered_and_seeded_apart() -> None:
    ids = np.arange(100, dtype=np.int64)
    assert ordered(ids, 0) != ordered(ids, 1)
    seeds = {epoch_seed(PLAN, shard=s, slice_=r, epoch=e) for s in range(3) for r in range(3) for e in range(3)}
    assert len(seeds | {initial_seed(PLAN, shard=s) for s in range(3)}) == 30
    assert max(seeds) < 2**63
