"""The order of work: which rows a slice trains on, in which batches, under which seeds, and what its checkpoint is called. Pure.

Everything is a function of the rows that are there, never of how they came (SISA, arXiv 1912.03817, made history-independent):
slice r trains on the rows of slices 0..r in the order of keyed hashes of their ids, so the model that forgot a row is the model
that never met it, bit for bit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from infra.ids import I64, key_of, keyed_bits, keyed_uniform, seed_of
from tasks.train.mixture import Mixture, drawn, final_share

Indices = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Plan:
    """How one shard is trained. `epochs` is the work wished for, in passes over the whole shard; `mixture` is the end's."""

    slices: int
    epochs: int
    batch_size: int
    learning_rate: float
    seed: int
    mixture: Mixture | None = None

    @property
    def epochs_per_slice(self) -> int:
        """Slice r costs (r + 1)/slices of a pass, so 2·epochs/(slices + 1) passes a slice make about `epochs` passes in all."""
        return max(1, round(2 * self.epochs / (self.slices + 1)))

    def key(self) -> str:
        return key_of(asdict(self))

    def final_share(self, slice_: int, epoch: int) -> float:
        """The share of an epoch that belongs to the end of training, 0 where no end is asked for."""
        if self.mixture is None:
            return 0.0
        return final_share(self.mixture, slices=self.slices, epochs=self.epochs_per_slice, slice_=slice_, epoch=epoch)


def epoch_order(row_ids: I64, plan: Plan, *, shard: int, slice_: int, epoch: int, weights: I64 | None = None) -> Indices:
    """Positions of the rows in the order of an epoch: by keyed bits of their ids, ties by id. An absent row moves no other.

    Where the epoch runs into the end of training, only the rows whose draw is below that place come in this order, each once, and
    behind them those drawn by their `weights` (see `mixture`): no row has to come, and some come again.
    """
    bits = keyed_bits(row_ids, "order", plan.seed, shard, slice_, epoch)
    order, share = np.lexsort((row_ids, bits)), plan.final_share(slice_, epoch)
    if weights is None or share == 0.0:
        return order
    before = keyed_uniform(row_ids, "order", plan.seed, shard, slice_, epoch) < 1.0 - share
    return np.concatenate([order[before[order]], drawn(row_ids, weights, share, plan.seed, shard, slice_, epoch)])


def batches(row_ids: I64, plan: Plan, *, shard: int, slice_: int, epoch: int, weights: I64 | None = None) -> Iterator[Indices]:
    """Positions of the rows of each batch of an epoch; the last batch may be smaller."""
    order = epoch_order(row_ids, plan, shard=shard, slice_=slice_, epoch=epoch, weights=weights)
    for start in range(0, len(order), plan.batch_size):
        yield order[start : start + plan.batch_size]


def initial_seed(plan: Plan, *, shard: int) -> int:
    """The seed of a shard's first weights: 63 bits."""
    return seed_of("weights", plan.seed, shard) >> 1


def epoch_seed(plan: Plan, *, shard: int, slice_: int, epoch: int) -> int:
    """The seed of an epoch's dropout: 63 bits. Every epoch sows anew, so a checkpoint needs no generator's state."""
    return seed_of("epoch", plan.seed, shard, slice_, epoch) >> 1


def rows_digest(row_ids: I64) -> str:
    """SHA-256 (hex) of row ids in ascending order."""
    return hashlib.sha256(np.sort(row_ids).astype("<i8").tobytes()).hexdigest()


def checkpoint_names(config: str, shard: int, rows: Sequence[I64]) -> tuple[str, ...]:
    """One name a slice, each a digest of (configuration, shard, slice, the slice's row ids in order, the parent's name)."""
    names = list[str]()
    for slice_, row_ids in enumerate(rows):
        parent = names[-1] if names else ""
        names.append(key_of("checkpoint", config, shard, slice_, rows_digest(row_ids), parent))
    return tuple(names)
