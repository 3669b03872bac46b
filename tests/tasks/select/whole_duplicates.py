"""Duplicates of records that are all at hand: what the workers do a partition at a time, in one go."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from infra.select_settings import NearDuplicateSettings
from tasks.select.duplicates import (
    NO_FOLLOWERS,
    Signatures,
    candidate_pairs,
    duplicate_verdicts,
    entries_of,
    likeness_of,
    links_of,
    near_duplicates,
)


def find_duplicates(found: Signatures, asked: NearDuplicateSettings) -> pa.Table:
    """The verdicts on the records, one row a record (copies share a row id)."""
    if asked.jaccard == 1.0:
        return duplicate_verdicts(found.row_ids, found.text_hashes, NO_FOLLOWERS, 1.0)
    likeness = likeness_of(asked)
    pairs = candidate_pairs(entries_of(found, likeness), likeness)
    ids, first = np.unique(found.row_ids, return_index=True)
    at_hand = Signatures(ids, found.n_words[first], found.text_hashes[first], found.minhash[first])
    near = near_duplicates(pairs, likeness, lambda some: links_of(some, at_hand, at_hand, likeness))
    return duplicate_verdicts(found.row_ids, found.text_hashes, near, likeness.bound)
