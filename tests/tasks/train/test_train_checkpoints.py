"""A checkpoint comes back as it was, or not at all."""

from __future__ import annotations

from pathlib import Path

import torch
from hypothesis import given
from hypothesis import strategies as st

from tasks.train.checkpoints import Checkpoint, delete_except, from_bytes, load, longest, save, to_bytes


def checkpoint(fill: float = 1.0) -> Checkpoint:
    weights = {"b": torch.full((3,), fill), "a.w": torch.arange(4.0).reshape(2, 2), "n": torch.tensor(5)}
    return Checkpoint(weights, {"0/step": torch.tensor(7.0), "0/exp_avg": torch.ones(2)}, (0.5, 0.25))


def test_equal_checkpoints_are_equal_bytes_in_any_order() -> None:
    one = checkpoint()
    other = Checkpoint(dict(reversed(one.weights.items())), dict(reversed(one.optimizer.items())), one.losses)
    assert to_bytes(one) == to_bytes(other)
    back = from_bytes(to_bytes(one))
    assert back is not None and to_bytes(back) == to_bytes(one)
    assert back.losses == one.losses and back.weights["n"].dtype == torch.int64


@given(st.data())
def test_any_changed_byte_is_noticed(data: st.DataObject) -> None:
    whole = to_bytes(checkpoint())
    at = data.draw(st.integers(0, len(whole) - 1))
    changed = bytearray(whole)
    changed[at] ^= data.draw(st.integers(1, 255))
    found = from_bytes(bytes(changed))
    # White space in the header carries nothing: such a change may pass, with every value as it was.
    assert found is None or to_bytes(found) == whole


@given(st.integers(0, 400))
def test_a_cut_file_is_noticed(size: int) -> None:
    assert from_bytes(to_bytes(checkpoint())[:size]) is None


def test_the_longest_valid_prefix(tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    assert longest(store, ["x", "y", "z"]) == (0, None)
    for number, name in enumerate("xyz"):
        save(store, name, checkpoint(number))
    n_done, found = longest(store, ["x", "y", "z"])
    assert n_done == 3 and found is not None and found.weights["b"][0] == 2
    damaged = tmp_path / "store" / "z.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    assert longest(store, ["x", "y", "z"])[0] == 2


def test_what_is_not_referenced_goes(tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    assert delete_except(store, []) == 0
    save(store, "x", checkpoint())
    save(store, "y", checkpoint())
    (tmp_path / "store" / "draft-of-a-killed-worker").write_bytes(b"")
    assert delete_except(store, ["y"]) == 2
    assert load(store, "x") is None and load(store, "y") is not None
