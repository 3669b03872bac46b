"""What follows from pairs that are settled: A <= B <= C gives A <= C; A <= B and A not <= C give B not <= C. Pure.

Sets and multisets each obey both rules, so one `Known` is kept for each reading.
"""

from __future__ import annotations

from collections import defaultdict


class Known:
    """Pairs settled so far under one reading: which tables lie above and below each, and which are known not to lie below."""

    def __init__(self) -> None:
        self._above = defaultdict[int, set[int]](set)
        self._below = defaultdict[int, set[int]](set)
        self._not_below = defaultdict[int, set[int]](set)

    def record(self, child: int, parent: int, *, holds: bool) -> None:
        if holds:
            self._above[child].add(parent)
            self._below[parent].add(child)
        else:
            self._not_below[parent].add(child)

    def infer(self, child: int, parent: int) -> bool | None:
        """Whether child <= parent, as far as it follows; None if it has to be looked at."""
        if not self._above[child].isdisjoint(self._below[parent]):
            return True
        if not self._below[child].isdisjoint(self._not_below[parent]):
            return False
        return None
