"""Identity and chance: keys derived from the lake's secret, subject tokens, digests, and draws keyed by row id. Pure.

Nothing here depends on order or on partitioning: digests are sums modulo 2^128, and a draw is a function of (seed, row id) alone,
so a row that is absent shifts nobody else's luck.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

_WHOLE = re.compile(rb"(-?\d+)\.0+")
_MASK128 = (1 << 128) - 1
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_M1 = np.uint64(0xBF58476D1CE4E5B9)
_M2 = np.uint64(0x94D049BB133111EB)


@dataclass(frozen=True, repr=False)
class Keys:
    """The lake's keys, each derived from one secret for one purpose. Never printed: the repr says only that they are there."""

    row: bytes
    subject: bytes
    place: bytes
    signing: bytes

    def __repr__(self) -> str:
        return "Keys(<secret>)"


def derive_keys(secret: bytes) -> Keys:
    """32-byte keys from the lake's secret, one a purpose (HMAC-SHA256 as in HKDF-Expand with one block)."""
    if len(secret) < 32:
        raise ValueError(f"the lake's secret must hold at least 32 bytes, not {len(secret)}")

    def one(purpose: str) -> bytes:
        return hmac.digest(secret, b"lethe/v1/" + purpose.encode() + b"\x01", "sha256")

    return Keys(row=one("row"), subject=one("subject"), place=one("place"), signing=one("signing"))


# --- digests ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Digest:
    """A multiset of rows as (number of rows, sum of their 128-bit hashes modulo 2^128): order-free, subtractable."""

    n_rows: int = 0
    total: int = 0

    def __add__(self, other: Digest) -> Digest:
        return Digest(self.n_rows + other.n_rows, (self.total + other.total) & _MASK128)

    def __sub__(self, other: Digest) -> Digest:
        return Digest(self.n_rows - other.n_rows, (self.total - other.total) & _MASK128)

    def __str__(self) -> str:
        return f"{self.n_rows}:{self.total:032x}"

    @staticmethod
    def parse(text: str) -> Digest:
        n_rows, _, total = text.partition(":")
        return Digest(int(n_rows), int(total, 16))

    @staticmethod
    def of(hashes: U64) -> Digest:
        """The digest of row hashes, uint64 of shape (n, 2): low and high lane of each 128-bit hash."""
        low = _exact_sum(hashes[:, 0])
        high = _exact_sum(hashes[:, 1])
        return Digest(len(hashes), (low + (high << 64)) & _MASK128)


def _exact_sum(values: U64) -> int:
    """Σ values without overflow: the two 32-bit halves are summed apart (exact up to 2^32 rows)."""
    low = int(np.sum(values & np.uint64(0xFFFFFFFF), dtype=np.uint64))
    high = int(np.sum(values >> np.uint64(32), dtype=np.uint64))
    return low + (high << 32)


def key_of(*parts: Any) -> str:
    """SHA-256 (hex) of plain JSON values; the same for equal values on every machine."""
    document = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(document.encode()).hexdigest()


# --- subjects ---------------------------------------------------------------------------------------------------------


def subject_text(value: Any) -> str:
    """The one written form of a subject's id: 7, 7.0, Decimal('7') and '7' are the same subject."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (float, Decimal)) and math.isfinite(value) and value == int(value):
        return str(int(value))
    if isinstance(value, bytes):
        return plain_id(value).decode("utf-8", "surrogateescape")
    return plain_id(str(value).encode("utf-8", "surrogateescape")).decode("utf-8", "surrogateescape")


def plain_id(text: bytes) -> bytes:
    """A written id without the blanks around it and without the `.0` that data frames put behind whole numbers."""
    bare = text.strip()
    whole = _WHOLE.fullmatch(bare)
    return whole[1] if whole else bare


def subject_token(keys: Keys, kind: str, value: Any) -> str:
    """HMAC-SHA256 (hex) of a subject under the lake's key: the only form in which ledgers and certificates name anybody."""
    text = subject_text(value).encode("utf-8", "surrogateescape")
    message = len(kind.encode()).to_bytes(4, "big") + kind.encode() + text
    return hmac.digest(keys.subject, message, "sha256").hex()


def subject_places(keys: Keys, tokens: Sequence[str]) -> U64:
    """A keyed 64-bit number of each subject, from which its shard, slice, sample and holdout are drawn, shape (n,).

    A token is an HMAC already: a bijection under a key of its own is enough to draw from.
    """
    heads = np.frombuffer(b"".join(bytes.fromhex(token[:16]) for token in tokens), ">u8").astype(np.uint64)
    return mix64(heads ^ np.frombuffer(keys.place[:8], ">u8").astype(np.uint64))


def subject_place(keys: Keys, token: str) -> int:
    """The place of one subject."""
    return int(subject_places(keys, [token])[0])


# --- keyed draws ------------------------------------------------------------------------------------------------------


def mix64(values: U64) -> U64:
    """The splitmix64 finaliser: a bijection of 64-bit numbers whose output bits all depend on all input bits."""
    x = values.astype(np.uint64, copy=True)
    x ^= x >> np.uint64(30)
    x *= _M1
    x ^= x >> np.uint64(27)
    x *= _M2
    x ^= x >> np.uint64(31)
    return x


def seed_of(*parts: Any) -> int:
    """A 64-bit seed from any plain values, such as (seed, "shard", 3, "slice", 1)."""
    return int(key_of(*parts)[:16], 16)


def keyed_bits(values: U64 | I64, *purpose: Any) -> U64:
    """64 random bits a value, a function of (value, purpose) alone."""
    start = np.uint64(seed_of(*purpose))
    return mix64(mix64(values.view(np.uint64) + _GOLDEN) ^ start)


def keyed_uniform(values: U64 | I64, *purpose: Any) -> F64:
    """Uniform draws in the open interval (0, 1), one a value."""
    # 52 bits, not 53: the topmost draw plus a half would round to 1.
    return ((keyed_bits(values, *purpose) >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52


def keyed_gumbel(values: U64 | I64, *purpose: Any) -> F64:
    """Standard Gumbel draws, one a value: -log(-log(u))."""
    return -np.log(-np.log(keyed_uniform(values, *purpose)))


def sample_level(n_rows: int, sample_rows: int) -> int:
    """How often to halve a table so that about `sample_rows` rows remain; 0 takes everything while the table is small."""
    level = 0
    while (n_rows >> level) > sample_rows:
        level += 1
    return level


def in_sample(places: U64 | I64, level: int) -> npt.NDArray[np.bool_]:
    """Which subjects (or rows) the keyed sample of that level holds: those whose keyed bits start with `level` zeros."""
    if level == 0:
        return np.ones(len(places), np.bool_)
    return keyed_bits(places, "sample") >> np.uint64(64 - level) == 0
