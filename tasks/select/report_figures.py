"""The figures of a selection's report: counts and histograms that workers make and the driver adds. Pure.

They stand in the summary of the selection's lineage under these keys, all of plain JSON, none of them from a record's text:

    n_by_reason     {reason: n}                                  of all records, `kept` among them        Losses.n_by_reason
    n_by_signal     {signal: n}                                  of what filters dropped                  Losses.n_by_signal
    by_source       {table: {raw, kept, reasons: {reason: n}}}   `reasons` are those of what was dropped  Losses.by_source
    warnings        [sentence]                                                                            safety.check
    length_hist     {raw, selected, target: [n]}                 tokens a record, bins LENGTH_EDGES       as_summary
    weight_hist     {edges: [e], raw, selected, target: [n]}     log weights, see `weight_edges`          as_summary
    targets         {name: {share, kept, kl_raw, kl_selected, kl_random}}
    seed_overlap    of a selection with the next seed            of the keyed sample                      seed_overlap

beside `n_raw, n_kept, n_empty, n_sample, threshold, kl_*, kl_reduction, random_kl_reduction, effective_sample_size,
length_correlation`. A key that is absent is a figure that the page leaves out. `Losses` is in `tasks.select.safety`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from infra.ids import F64, I64

# The lower bounds of bins of token counts: 0 apart, then two bins an octave; the last is open.
LENGTH_EDGES: tuple[int, ...] = (0, 1, *(edge for power in range(1, 28) for edge in (1 << power, 3 << (power - 1))))
_N_WEIGHT_BINS = 48
Mask = npt.NDArray[np.bool_]


def _none() -> I64:
    return np.zeros(0, np.int64)


@dataclass(frozen=True)
class Shape:
    """Histograms of records: by tokens (bins of `LENGTH_EDGES`) and by log weight. Shapes with equal bins add up."""

    lengths: I64 = field(default_factory=_none)
    weights: I64 = field(default_factory=_none)

    def __add__(self, other: Shape) -> Shape:
        return Shape(_added(self.lengths, other.lengths), _added(self.weights, other.weights))


def _added(one: I64, other: I64) -> I64:
    return one + other if len(one) and len(other) else one if len(one) else other


def shape(n_tokens: I64, log_weights: F64, edges: F64) -> Shape:
    """The histograms of records; those without a log weight (NaN) are in that of the lengths alone."""
    return Shape(length_hist(n_tokens), weight_hist(log_weights, edges))


def length_hist(n_tokens: I64) -> I64:
    """How many records have so many tokens, int64 of shape (len(LENGTH_EDGES),)."""
    return np.bincount(np.searchsorted(LENGTH_EDGES, n_tokens, side="right") - 1, minlength=len(LENGTH_EDGES)).astype(np.int64)


def weight_hist(log_weights: F64, edges: F64) -> I64:
    """How many log weights lie below edges[0], between neighbouring edges, and from edges[-1] on, int64 (len(edges) + 1,).

    NaN is in no bin.
    """
    known = log_weights[~np.isnan(log_weights)]
    return np.bincount(np.searchsorted(edges, known, side="right"), minlength=len(edges) + 1).astype(np.int64)


def weight_edges(*samples: F64) -> F64:
    """Round edges, evenly spaced, that hold the middle 98 % of each sample's log weights: the bins of all histograms of them.

    NaN is no weight. A function of the samples' order statistics alone: their order and their partitions do not matter.
    """
    known = [np.sort(weights[np.isfinite(weights)]) for weights in samples]
    ends = [(_at(weights, 0.01), _at(weights, 0.99)) for weights in known if len(weights)]
    if not ends:
        return np.array([0.0])
    low, high = min(end[0] for end in ends), max(end[1] for end in ends)
    step = _round_step((high - low) / _N_WEIGHT_BINS)
    first, last = int(np.floor(low / step)), int(np.ceil(high / step))
    return (np.arange(first, last + 1) * step).astype(np.float64)


def _at(ascending: F64, share: float) -> float:
    return float(ascending[round(share * (len(ascending) - 1))])


def _round_step(step: float) -> float:
    """The next 1, 2 or 5 times a power of ten; 1 where all weights are one."""
    if step <= 0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(step))
    return float(next(power * digit for digit in (1, 2, 5, 10) if power * digit >= step))


def seed_overlap(keep: Mask, other: Mask) -> float | None:
    """The share of kept records that another seed keeps as well; None where nothing is kept."""
    n_kept = int(np.count_nonzero(keep))
    return float(np.count_nonzero(keep & other) / n_kept) if n_kept else None


def as_summary(edges: F64, **shapes: Shape | None) -> dict[str, Any]:
    """`length_hist` and `weight_hist` of `raw`, `selected` and `target` as they stand in the summary; None is left out."""
    known = {name: one for name, one in shapes.items() if one is not None}
    return {
        "length_hist": {name: one.lengths.tolist() for name, one in known.items() if len(one.lengths)},
        "weight_hist": {
            "edges": edges.tolist(),
            **{name: one.weights.tolist() for name, one in known.items() if len(one.weights)},
        },
    }
