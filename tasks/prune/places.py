"""What follows from a subject's place alone: shard, slice, held out or not; and the keyed random control. Pure.

A place is a keyed 64-bit number (`infra.subjects.row_places`): all rows of a subject share it, so they fall together, and no
other row has a say in it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from infra.ids import I64, U64, Digest, keyed_bits, keyed_uniform

I32 = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]


def shards_and_slices(places: U64, n_shards: int, n_slices: int) -> tuple[I32, I32]:
    """The shard and the slice of each place, both int32 (n,): remainder and next digit of the same keyed bits."""
    bits = keyed_bits(places, "shard")
    shards = bits % np.uint64(n_shards)
    slices = bits // np.uint64(n_shards) % np.uint64(n_slices)
    return shards.astype(np.int32), slices.astype(np.int32)


def held_out(places: U64, fraction: float) -> Mask:
    """Which places never train a model but judge it; the same subjects for every dataset of the lake."""
    return keyed_uniform(places, "holdout") < fraction


def in_control(row_ids: I64, fraction: float, seed: int) -> Mask:
    """A keyed random choice of records, each with probability `fraction`."""
    return keyed_uniform(row_ids, "control", seed) <= fraction


def rounded_fraction(part: int, whole: int) -> float:
    """part / whole to ten binary digits (0 of 0 is 0): one row more or less in a sample seldom moves the control."""
    if whole == 0 or part == 0:
        return 0.0
    mantissa, exponent = np.frexp(part / whole)
    return float(np.ldexp(np.rint(mantissa * 1024) / 1024, exponent))


def shard_digests(row_ids: I64, shards: I32, n_shards: int) -> list[Digest]:
    """The digest of the row ids in each shard; digests of disjoint parts add up."""
    lanes = np.stack([keyed_bits(row_ids, "shard digest", lane) for lane in (0, 1)], axis=1)
    return [Digest.of(lanes[shards == shard]) for shard in range(n_shards)]


def moved_shards(before: Mapping[str, str], after: Mapping[str, str]) -> list[int]:
    """Shards whose rows changed between two training sets, by the `shard_digests` of their summaries."""
    return sorted(int(shard) for shard in before.keys() | after.keys() if before.get(shard) != after.get(shard))
