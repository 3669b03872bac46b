"""The cut of one target without floors, by a full sort: what cuts are held against."""

from __future__ import annotations

import numpy as np

from infra.ids import F64, I64
from tasks.select.budget import EVERYTHING, Cut, Mask, n_to_keep, nth


def is_kept(keys: F64, row_ids: I64, cut: Cut) -> Mask:
    """Which records lie within the cut; those without text never do."""
    return (keys > cut.key) | ((keys == cut.key) & (row_ids <= cut.row_id))


def cut_at(keys: F64, row_ids: I64, keep_fraction: float) -> Cut:
    """The cut that keeps the ceil(keep_fraction · n) largest keys of n records; NaN keys, those without text, do not count."""
    known = ~np.isnan(keys)
    k = n_to_keep(int(known.sum()), keep_fraction)
    if k >= known.sum():
        return EVERYTHING
    return nth(keys[known], row_ids[known], k)
