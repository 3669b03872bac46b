"""Which files go to a worker together. Pure.

A piece of work costs some milliseconds of the driver's time, whatever there is to do in it: as many as a small file takes to be
read. So small files are put together; and since the last piece should end when all others do, shares shrink towards the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

_T = TypeVar("_T")

_MOST_BYTES = 16 << 20  # as they lie on the disk: a quarter of a second of n-grams
_LEAST_BYTES = 2 << 20
_LEAST_SHARES = 4  # that what is left is cut into


def shares(items: Sequence[_T], n_bytes: Callable[[_T], int]) -> list[list[_T]]:
    """All items in groups, the largest items first: at most 16 MB together, and at most a quarter of what is left if that is more
    than 2 MB, but for items that are larger by themselves."""
    left = sum(map(n_bytes, items))
    groups, room = list[list[_T]](), 0.0
    for item in sorted(items, key=n_bytes, reverse=True):
        size = n_bytes(item)
        if not groups or size > room:
            groups.append([])
            room = max(_LEAST_BYTES, min(_MOST_BYTES, left / _LEAST_SHARES))
        groups[-1].append(item)
        room -= size
        left -= size
    return groups
