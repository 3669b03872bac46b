"""SHA-256 in lanes against `hashlib`, through messages of one or two parts."""

from __future__ import annotations

import hashlib

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.kernels.sha256 import LANES, absorb, begin_all, lanes_of_sha256, n_blocks, put_block, put_message, remainder

N_BUCKETS = (1 << 24) - 3
POWERS = np.array([pow(2, 32 * (7 - t), N_BUCKETS) for t in range(8)], np.uint64)
# Lengths about those where a message needs another block: 55, 119, 183 bytes.
parts = st.binary(max_size=12) | st.integers(50, 190).map(lambda n: b"\xff" * n)


def hashed(left: bytes, right: bytes, lane: int, at: int) -> int:
    """The digest of the message modulo N_BUCKETS, of a text that has the right part first, from byte `at` on."""
    text = b"?" * at + right + b"?" + left + b"?" * 24
    words = np.frombuffer(text[: len(text) // 8 * 8], np.uint64)
    span = (at + len(right) + 1, at + len(right) + 1 + len(left), at, at + len(right))
    size = n_blocks(span)
    padded = np.full(8 * size + 9, 0xAB, np.uint64)  # what stood there before is not to matter
    put_message(padded, 1, 1 + size, words, span)
    lanes = lanes_of_sha256()
    begin_all(lanes.state)
    for block in range(1, 1 + size):
        put_block(lanes.words, lane, padded.view(np.uint32), 16 * block)
        absorb(lanes)
    return int(remainder(lanes.state, lane, POWERS, np.uint64(N_BUCKETS)))


@settings(max_examples=60, deadline=None)
@given(parts, parts.filter(len), st.integers(0, LANES - 1), st.integers(0, 8))
def test_every_lane_hashes_as_hashlib_does(left: bytes, right: bytes, lane: int, at: int) -> None:
    message = left + b" " + right if left else right
    assert hashed(left, right, lane, at) == int(hashlib.sha256(message).hexdigest(), 16) % N_BUCKETS


def test_a_digest_to_check_by_eye() -> None:
    """NIST's example: SHA-256 of "abc" begins with ba7816bf and ends with f20015ad."""
    digest = 0xBA7816BF_8F01CFEA_414140DE_5DAE2223_B00361A3_96177A9C_B410FF61_F20015AD
    assert hashed(b"", b"abc", 3, 0) == digest % N_BUCKETS
