"""What an earlier scan's counts still say after tables changed, so that only what changed is counted again. Pure.

A parent that grows keeps its children, a child that shrinks keeps its parents; a pair that lacked n rows still lacks some while
fewer than n rows could have come or gone. Everything else is counted anew, so the outcome is that of a scan that knew nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tasks.dedup.exact import Counted
from tasks.dedup.scan import AnyPart, file_of


@dataclass(frozen=True)
class Change:
    """Rows that came to a table, and rows that went, since a scan; none where it is the same."""

    n_added: int = 0
    n_removed: int = 0

    @property
    def is_none(self) -> bool:
        return not (self.n_added or self.n_removed)


def change_of(before: Sequence[AnyPart], now: Sequence[AnyPart]) -> Change:
    """The change between two lists of immutable files."""
    old, new = ({file_of(part): part.file.n_rows for part in parts} for parts in (before, now))
    added = sum(n for file, n in new.items() if file not in old)
    return Change(added, sum(n for file, n in old.items() if file not in new))


def still(counted: Counted, child: Change, parent: Change, *, approximate: float) -> Counted | None:
    """What was counted of a pair, if it answers for the tables as they are now; None if they must be counted again.

    Fractions of `approximate` or more are worth showing, so they must be exact; below that a lower bound of what is missing does.
    """
    if child.is_none and parent.is_none:
        return counted
    if counted.multiset and not child.n_added and not parent.n_removed:
        return replace(counted, n_rows=counted.n_rows - child.n_removed, n_distinct=0)
    n_changed = child.n_removed + parent.n_added
    n_missing = counted.n_missing_distinct - n_changed
    n_distinct = counted.n_distinct + child.n_added
    if n_missing > 0 and n_distinct - n_missing < approximate * n_distinct:
        return Counted(counted.n_rows + child.n_added, n_distinct, n_missing, n_missing, complete=False)
    return None
