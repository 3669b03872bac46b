"""A token is either a leaf or provably none."""

from __future__ import annotations

import copy
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.forget.merkle import absence, is_absent

TOKENS = st.sets(st.integers(0, 999), max_size=40).map(lambda numbers: [f"{n:064x}" for n in numbers])


@given(TOKENS, st.integers(0, 999))
def test_absent_tokens_and_only_those_have_a_proof(tokens: list[str], number: int) -> None:
    token = f"{number:064x}"
    if token in tokens:
        with pytest.raises(ValueError, match="among"):
            absence(tokens, token)
        return
    proof = absence(tokens, token)
    assert is_absent(proof, token)
    assert proof == absence(reversed(tokens), token)


@given(TOKENS.filter(bool), st.integers(0, 999), st.data())
def test_a_proof_holds_for_no_leaf(tokens: list[str], number: int, data: st.DataObject) -> None:
    """A proof made for another token never shows that a leaf is absent, and none survives a change."""
    token = f"{number:064x}"
    leaf = data.draw(st.sampled_from(tokens))
    if token in tokens:
        return
    proof = absence(tokens, token)
    assert not is_absent(proof, leaf)
    for change in ({"root": hashlib.sha256(b"x").hexdigest()}, {"n_leaves": 10_000}, {"neighbours": proof["neighbours"][:-1]}):
        assert not is_absent({**copy.deepcopy(proof), **change}, token)


def test_three_leaves_by_eye() -> None:
    """a, c, e: d lies between the leaves 1 and 2."""
    a, c, d, e = ("aa" * 32, "cc" * 32, "dd" * 32, "ee" * 32)

    def leaf(token: str) -> bytes:
        return hashlib.sha256(b"\0" + bytes.fromhex(token)).digest()

    def node(left: bytes, right: bytes) -> bytes:
        return hashlib.sha256(b"\1" + left + right).digest()

    proof = absence([e, a, c], d)
    top = node(node(leaf(a), leaf(c)), node(leaf(e), leaf(e)))
    assert proof["root"] == hashlib.sha256(b"\2" + (3).to_bytes(8, "big") + top).hexdigest()
    assert [n["token"] for n in proof["neighbours"]] == [c, e]
    assert is_absent(absence([], d), d)


def test_the_last_leaf_cannot_be_left_out() -> None:
    """With four leaves called three, the third would be the last one, and the fourth absent."""
    tokens = [f"{n:064x}" for n in (1, 2, 3, 4)]
    proof = absence(tokens, f"{5:064x}")
    third = absence(tokens[:3], tokens[3])
    assert not is_absent({**proof, "n_leaves": 3, "neighbours": third["neighbours"]}, tokens[3])
