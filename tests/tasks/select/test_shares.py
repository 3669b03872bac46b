"""Files that go to a worker together: none is lost, small ones share a piece of work, and the last pieces are small."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tasks.select.shares import shares

MB = 1 << 20
SIZES = st.lists(st.integers(0, 40 * MB) | st.integers(0, 1000), max_size=60)


@given(SIZES)
def test_every_item_is_in_one_share_of_at_most_16_mb_or_alone(sizes: list[int]) -> None:
    found = shares(list(enumerate(sizes)), lambda item: item[1])
    assert sorted(item for share in found for item in share) == list(enumerate(sizes))
    assert all(share for share in found)
    assert all(len(share) == 1 or sum(size for _, size in share) <= 16 * MB for share in found)


@given(SIZES)
def test_no_share_of_several_is_more_than_a_quarter_of_what_is_left(sizes: list[int]) -> None:
    left = sum(sizes)
    for share in shares(sizes, int):
        assert len(share) == 1 or sum(share) <= max(2 * MB, left / 4)
        left -= sum(share)


def test_many_small_files_are_few_pieces_of_work() -> None:
    found = shares([3 * MB] * 128, int)
    assert len(found) < 40
    assert len(found[0]) == 5
    assert found[-1] == [3 * MB]
    assert shares([10_000] * 5, int) == [[10_000] * 5]
    assert shares([], int) == []
