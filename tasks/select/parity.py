"""The rules of the package `data-selection` 1.0.3 beside its hash: how it weighs a bucket, and whom it leaves out. Pure.

`tasks.kernels.parity` has its n-grams. Floats are computed here in the order of the package, so that equal counts give it and us
the same log ratios to the bit. One rule is not followed: of a pool of more than 100,000 n-grams a bucket (a billion by default)
the package counts the head of each file alone, so that its weights depend on how rows are ordered and cut into files.
"""

from __future__ import annotations

import numpy as np

from infra.ids import F64, I64

MIN_TOKENS = 100  # tokens of `tasks.kernels.tokens`, words and runs of punctuation; a document of exactly so many stays
EPSILON = 1e-8


def parity_ratios(target_counts: I64, raw_counts: I64) -> F64:
    """ln(p + 1e-8) - ln(q + 1e-8) of each bucket's target and raw frequency, as the package computes it.

    Counts are of shape (n_buckets,), those of the targets (R, n_buckets) where each is fitted by itself; so is the result.
    ValueError if the raw counts or a target's are all zero.
    """
    if not raw_counts.sum():
        raise ValueError("the raw tables have no n-gram")
    if not np.atleast_2d(target_counts).sum(axis=1).all():
        raise ValueError("a target has no n-gram")
    p = target_counts / target_counts.sum(axis=-1, keepdims=True)
    q = raw_counts / raw_counts.sum()
    return np.log(p + EPSILON) - np.log(q + EPSILON)
