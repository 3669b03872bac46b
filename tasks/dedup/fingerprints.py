"""Equal tables from their digests, at no cost a pair. Pure.

A digest is the row count and the sum of the 128-bit hashes of the rows. NULL adds nothing to a row's hash, so digests are
comparable only where the columns are the same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence


def equal_tables(schemas: Sequence[int], digests: Sequence[str]) -> list[int]:
    """For each table the first one that has the same schema class and digest; a table equal to no earlier one stands for
    itself.
    """
    first = dict[tuple[int, str], int]()
    return [first.setdefault(key, table) for table, key in enumerate(zip(schemas, digests, strict=True))]


def equal_groups(representatives: Sequence[int]) -> dict[int, list[int]]:
    """Representative -> all tables equal to it, itself first."""
    groups = defaultdict[int, list[int]](list)
    for table, representative in enumerate(representatives):
        groups[representative].append(table)
    return dict(groups)
